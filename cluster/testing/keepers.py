"""What clients keep alive, for who passes their time.

RULE: the only place of this room that reaches into keepers and sessions.

A keeper counts its lease by its client's clock and renews by timers of its loop. When time is
passed at once no timer could keep up: whoever passes it renews in the keeper's stead.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Iterable

from cluster.client.keeping import Keeper
from cluster.client.lease import Lease
from cluster.client.session import Session

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


async def check(session: Session, timeout_ms: int) -> None:
    """Have a session ask for what others can take away from it; in its loop."""
    for holding in list(session._revocable):
        await holding.check_again(timeout_ms)


async def check_all(sessions: Iterable[Session], timeout_ms: int) -> None:
    """As `check`, of several, one after another."""
    for session in sessions:
        await check(session, timeout_ms)


def _register() -> None:
    """Be told of keepers as they start. Goes as soon as `keeping.py` tells who is at work."""
    start = Keeper.start

    def started(keeper: Keeper) -> None:
        with _LOCK:
            _AT_WORK.add(keeper)
        start(keeper)

    Keeper.start = started  # type: ignore[method-assign, assignment]


_register()
