"""What clients keep alive, for who passes their time.

RULE: the only place of this room that reaches into a keeper.

A keeper counts its lease by its client's clock and renews by timers of its loop. When time is
passed at once no timer could keep up: whoever passes it renews in the keeper's stead.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable

from cluster.client.keeping import Keeper
from cluster.client.lease import Lease

_AT_WORK: weakref.WeakSet[Keeper] = weakref.WeakSet()
_LOCK = threading.Lock()


def keepers_of(clock: Callable[[], int]) -> list[Keeper]:
    """Keepers at work that count by this clock."""
    with _LOCK:
        at_work = list(_AT_WORK)
    return [keeper for keeper in at_work if keeper._clock == clock and not keeper.is_stopped]


def kind_of(keeper: Keeper) -> tuple[str, str, int | None]:
    """Of what it is: kind, name and token."""
    return keeper._kind, keeper._name, keeper._token


def loop_of(keeper: Keeper) -> asyncio.AbstractEventLoop:
    """Where it works."""
    return keeper._loop


def take(keeper: Keeper, lease: Lease) -> None:
    """Have it go on with a lease, as if a renewal had brought it. From any thread."""
    keeper._tenure.renewed(lease, keeper._clock())


def _register() -> None:
    start = Keeper.start

    def started(keeper: Keeper) -> None:
        with _LOCK:
            _AT_WORK.add(keeper)
        start(keeper)

    Keeper.start = started  # type: ignore[method-assign, assignment]


_register()
