"""Workloads: one module each, and the list of them.

RULE: what clients do is in the modules; here is only who there is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from jepsen.workloads.acting import Acting
from jepsen.workloads.base import Arena, Workload
from jepsen.workloads.exactly_once import ExactlyOnce
from jepsen.workloads.fenced import Fenced, Unfenced
from jepsen.workloads.fifos import Fifos
from jepsen.workloads.jobs import Jobs
from jepsen.workloads.locks import Locks, MultiLocks, SharedLocks
from jepsen.workloads.mixed import Mixed
from jepsen.workloads.rooms import Rooms
from jepsen.workloads.semaphores import Semaphores
from jepsen.workloads.sessions import Sessions
from jepsen.workloads.tasks import Tasks
from jepsen.workloads.tickets import Tickets
from jepsen.workloads.watch import Watch

__all__ = ["WORKLOADS", "Arena", "Workload", "make"]

_SINGLE: Final[tuple[type[Acting], ...]] = (
    Locks,
    SharedLocks,
    MultiLocks,
    Fenced,
    Unfenced,
    Semaphores,
    Tickets,
    Fifos,
    Rooms,
    Jobs,
    Tasks,
    Sessions,
    Watch,
    ExactlyOnce,
)
_MIXED: Final[tuple[type[Acting], ...]] = (
    MultiLocks,
    Semaphores,
    Tickets,
    Fifos,
    Rooms,
    Jobs,
    Tasks,
    Sessions,
    Watch,
)


def _mixed(**options: Any) -> Mixed:
    return Mixed({kind.name: kind for kind in _MIXED}, **options)


WORKLOADS: Final[dict[str, Callable[..., Workload]]] = {
    **{kind.name: kind for kind in _SINGLE},
    Mixed.name: _mixed,
}
"""How to make each, with keywords of `Acting` if one wants; a made one is good for one run."""


def make(name: str, **options: Any) -> Workload:
    """A workload for one run.

    Raises:
        KeyError: there is none of that name; `WORKLOADS` has them all.
    """
    return WORKLOADS[name](**options)
