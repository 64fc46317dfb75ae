"""Tools for the tests of programs that use Coterie, and the plugin that gives them to pytest.

RULE: may import every room, and no room imports it. Nothing here is needed in production; pytest is
imported by `plugin.py` only, which nobody imports but pytest. The names are loaded when they are
asked for.

    from cluster.testing import ProcessCluster, VirtualCluster
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cluster.testing.processes import CannotStart, ProcessCluster
    from cluster.testing.virtual import VirtualCluster

__all__ = ["CannotStart", "ProcessCluster", "VirtualCluster"]

_HOMES = {
    "CannotStart": "cluster.testing.processes",
    "ProcessCluster": "cluster.testing.processes",
    "VirtualCluster": "cluster.testing.virtual",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - every run of pytest loads this file

    return getattr(import_module(home), name)
