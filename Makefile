# Coterie: every way to run, test and measure it from a checkout.
#
# Needs make and Python 3.11 or newer; the rest is installed into .venv at the first call, by uv
# where there is one and by pip otherwise, from the lock files and with their hashes.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install --progress-bar off

# For `make simulate`: first:last+1.
SEEDS ?= 0:100
# For pytest: make test ARGS="-k locks".
ARGS ?=
# Of two halves one may have no test that was asked for: pytest says 5 then.
NONE_CHOSEN := test $$? -eq 5

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

# --- running ----------------------------------------------------------------------------------

.PHONY: run
run: $(READY) ## a cluster of three nodes on this machine, at 127.0.0.1:7101 to 7103; Ctrl-C ends it
	@exec $(BIN)/coterie dev --nodes 3 --data .data/dev

.PHONY: demo
demo: $(READY) ## a guided tour: a cluster, a lock, a leader killed, nothing lost
	@exec $(BIN)/coterie demo

# --- testing ----------------------------------------------------------------------------------

.PHONY: test
test: lint types contracts toxiproxy ## everything that must hold: lint, types, contracts, tests
	@$(MAKE) --no-print-directory unit integration

.PHONY: unit
unit: $(READY) ## the tests that need no processes of their own (ARGS="-k locks" chooses)
	@$(BIN)/python -m pytest --numprocesses=2 --ignore=tests/integration $(ARGS) || $(NONE_CHOSEN)

.PHONY: integration
integration: $(READY) ## the tests of real processes: they mostly wait, so three files at a time
	@$(BIN)/python -m pytest tests/integration --numprocesses=3 --dist=loadfile $(ARGS) || $(NONE_CHOSEN)

.PHONY: lint
lint: $(READY) ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

.PHONY: types
types: $(READY) ## mypy --strict
	@$(BIN)/mypy

.PHONY: contracts
contracts: $(READY) ## which room may import which
	@$(BIN)/lint-imports --no-logo

.PHONY: toxiproxy
toxiproxy: $(READY) ## find or build the proxy that the integration tests cut connections with
	@$(BIN)/python tests/tools/toxiproxy_server.py

WORKLOAD ?= all
NEMESIS ?= mixed
SEED ?= 1
MINUTES ?= 15
HOURS ?= 24
JEPSEN := $(BIN)/python jepsen-style

.PHONY: jepsen
jepsen: $(READY) toxiproxy ## real clusters under faults, judged (WORKLOAD=all NEMESIS=mixed SEED=1 MINUTES=15)
	@$(JEPSEN) --workload $(WORKLOAD) --nemesis $(NEMESIS) --seed $(SEED) --minutes $(MINUTES)

.PHONY: jepsen-smoke
jepsen-smoke: $(READY) toxiproxy ## a fixed choice of it, in three minutes
	@$(JEPSEN) --smoke

.PHONY: soak
soak: $(READY) toxiproxy ## the same for hours, seed after seed; failing histories are kept (HOURS=24)
	@$(JEPSEN) --soak $(HOURS)

.PHONY: zoo
zoo: $(READY) toxiproxy ## planted bugs, each to be found by the check that it names (ARGS="--only …")
	@PYTHONPATH=jepsen-style $(BIN)/python -m jepsen.zoo --jobs 2 $(ARGS)

.PHONY: stock
stock: $(READY) toxiproxy ## stock PySyncObj under the same faults and checks
	@PYTHONPATH=jepsen-style $(BIN)/python -m jepsen.stock $(ARGS)

.PHONY: crosscheck
crosscheck: $(READY) ## our linearizability checker against Porcupine on random histories
	@PYTHONPATH=jepsen-style $(BIN)/python -m jepsen.crosscheck --histories 10000 $(ARGS)

.PHONY: simulate
simulate: $(READY) ## whole clusters under faults in virtual time (SEEDS=0:100)
	@$(BIN)/python -m tests.simulation --seeds $(SEEDS) --jobs 2

EXAMPLES ?= 300

.PHONY: fuzz
fuzz: $(READY) ## our OpenAPI document against a real cluster, at length (EXAMPLES=300)
	@$(BIN)/python -m tests.gateway.openapi_fuzz --examples $(EXAMPLES)

.PHONY: bench
bench: $(READY) ## measure, and say what was measured
	@$(BIN)/python -m benchmarks.run

MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs

.PHONY: docs
docs: $(READY) ## build the documentation into site/, without a network
	@$(MKDOCS) build --quiet --strict --config-file docs/mkdocs.yml
	@echo "file://$(CURDIR)/site/index.html"

.PHONY: docs-serve
docs-serve: $(READY) ## show the documentation at http://127.0.0.1:8000, anew at every change; Ctrl-C ends it
	@$(MKDOCS) serve --config-file docs/mkdocs.yml --dev-addr 127.0.0.1:8000

# --- keeping ----------------------------------------------------------------------------------

.PHONY: format
format: $(READY) ## let ruff format and fix what it can
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

LOCK := uv pip compile --quiet --universal --generate-hashes --no-emit-index-url \
	--no-emit-find-links --no-annotate --no-header

.PHONY: lock
lock: ## write the lock files anew from pyproject.toml (needs uv; ARGS=--upgrade moves the pins)
	$(LOCK) $(ARGS) --group build --output-file requirements-build.lock
	$(LOCK) $(ARGS) pyproject.toml --extra fast --constraint requirements-build.lock \
		--output-file requirements.lock
	$(LOCK) $(ARGS) pyproject.toml --extra fast --group dev --constraint requirements-build.lock \
		--constraint requirements.lock --output-file requirements-dev.lock

.PHONY: clean
clean: ## remove the environment, built tools, data of `make run` and every cache
	rm -rf $(VENV) .tools .data dist site .coverage .hypothesis
	rm -rf .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the environment --------------------------------------------------------------------------

# What builds (hatchling, setuptools) comes first and from the lock, so that pysyncobj, which is
# published as source only, is built the same way everywhere. The stamp is last: an installation
# that was interrupted is taken up again.
$(READY): requirements-build.lock requirements-dev.lock pyproject.toml
	@python=$$(for name in $(PYTHON) python3.13 python3.12 python3.11 python3 python; do \
		if $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
		then echo $$name; break; fi; done); \
	if [ -z "$$python" ]; then \
		echo "Coterie needs Python 3.11 or newer; none of python3.13, python3.12, python3.11 and" \
			"python3 is one. Install it, or name one: make PYTHON=/path/to/python3" >&2; \
		exit 1; \
	fi; \
	set -e; \
	if command -v uv >/dev/null; then \
		echo "environment: $$python, by uv"; \
		test -x $(BIN)/python || uv venv --quiet --python "$$(command -v $$python)" $(VENV); \
		install="uv pip install --quiet --python $(BIN)/python"; \
	else \
		echo "environment: $$python, by pip (about half a minute)"; \
		test -x $(BIN)/python || $$python -m venv $(VENV); \
		install="$(PIP)"; \
	fi; \
	$$install --require-hashes --requirement requirements-build.lock; \
	$$install --require-hashes --no-build-isolation --requirement requirements-dev.lock; \
	$$install --no-deps --no-build-isolation --editable .
	@touch $@
