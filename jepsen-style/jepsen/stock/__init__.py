"""PySyncObj as it comes, under the same nemeses: what our engine was guarded against, shown.

RULE: a thin adapter. The library's own transport, journal, dump, lock manager and counters, with the
settings its documentation recommends; only what the bed must see (who leads, how far each node is) and
an HTTP door are ours. Nothing of `cluster` but the settings file's form is used.

`serve.py` is a node; `workloads.py` has what clients do; `python jepsen-style --stock --workload register
--nemesis power-all` runs it.
"""

from __future__ import annotations

from typing import Final

from jepsen.system import System

SYSTEM: Final = System(
    name="stock",
    arguments=("-P", "-m", "jepsen.stock.serve"),
    words="--stock",
    has_probes=False,
)
