"""Workloads: one module each, and the list of them.

RULE: what clients do is in the modules; here is only who there is.
"""

from __future__ import annotations

from collections.abc import Callable

from jepsen.workloads.base import Arena, Workload

__all__ = ["WORKLOADS", "Arena", "Workload", "make"]

WORKLOADS: dict[str, Callable[[], Workload]] = {}
"""How to make each; a made one is good for one run."""


def make(name: str) -> Workload:
    """A workload for one run.

    Raises:
        KeyError: there is none of that name; `WORKLOADS` has them all.
    """
    return WORKLOADS[name]()
