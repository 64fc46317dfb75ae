"""Clients of a node whose time stands still: the SDK's own, with a clock that a test moves.

RULE: the real client decides and speaks; here it gets a clock and a way that a test can cut.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeVar

from cluster.client.aio import Client
from cluster.client.core import Answer, Policy, Request
from cluster.client.session import Session
from cluster.client.sync.client import SyncClient
from cluster.client.watching import Happening
from cluster.errors import Timeout

T = TypeVar("T")

# A node in our own process is never slow. What it answers after a planted failure would be another
# answer, so that the caller hears of the first: nothing is tried twice.
ONCE = Policy(pause_first_ms=1, pause_most_ms=1, attempts_max=1)
HEALED_EVERY_S = 0.01


class Way:
    """What lies between one client and the node: its clock, and whether answers come through.

    Attributes:
        is_cut: no answer comes through.
    """

    def __init__(self, now_ms: Callable[[], int], url: str):
        self._now_ms = now_ms
        self._url = url
        self._stands_at_ms: int | None = None
        self._under_way: dict[asyncio.Task[Any], asyncio.AbstractEventLoop] = {}
        self._broken: set[asyncio.Task[Any]] = set()
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()
        self._lock = threading.Lock()
        self.is_cut = False

    # A client's `clock`.

    def clock(self) -> int:
        """Time as the client knows it, in ms."""
        return self._now_ms() if self._stands_at_ms is None else self._stands_at_ms

    @property
    def is_paused(self) -> bool:
        """Its clock stands, whatever time the cluster has."""
        return self._stands_at_ms is not None

    def pause(self) -> None:
        """Have its clock stand where it is."""
        self._stands_at_ms = self.clock()

    def resume(self) -> None:
        """Let it see what time it is."""
        self._stands_at_ms = None

    # A client's sessions.

    def adopt(self, session: Session) -> None:
        """Remember a session for as long as somebody refers to it."""
        with self._lock:
            self._sessions.add(session)

    def sessions(self) -> list[Session]:
        """Those that are open."""
        with self._lock:
            known = list(self._sessions)
        return [session for session in known if session.state != "free"]

    # A client's calls.

    def cut(self) -> None:
        """From here on no answer comes; whoever waits for one has waited in vain."""
        with self._lock:
            self.is_cut = True
            under_way = list(self._under_way.items())
            self._broken.update(self._under_way)
        for task, loop in under_way:
            if not loop.is_closed():
                loop.call_soon_threadsafe(task.cancel)

    def heal(self) -> None:
        """Let answers come through again."""
        self.is_cut = False

    async def through(self, calling: Coroutine[Any, Any, T]) -> T:
        """Carry out a call, unless or until the way is cut."""
        loop, caller = asyncio.get_running_loop(), asyncio.current_task()
        before = 0 if caller is None else caller.cancelling()
        with self._lock:
            if self.is_cut:
                calling.close()
                raise self._in_vain()
            task = loop.create_task(calling)
            self._under_way[task] = loop
        try:
            return await task
        except asyncio.CancelledError:
            is_callers = caller is not None and caller.cancelling() > before
            if is_callers or task not in self._broken:
                raise
            raise self._in_vain() from None
        finally:
            with self._lock:
                self._under_way.pop(task, None)
                self._broken.discard(task)

    async def healed(self) -> None:
        """Return once the way is open."""
        while self.is_cut:  # noqa: ASYNC110 - cut and healed in other threads
            await asyncio.sleep(HEALED_EVERY_S)

    def _in_vain(self) -> Timeout:
        return Timeout(f"{self._url}: no answer came; the test has cut this client off")


class VirtualClient(Client):
    """A `Client` whose time is passed by the test. Made by `VirtualCluster.client`."""

    def __init__(self, way: Way, url: str, *, policy: Policy | None, timeout_ms: int):
        super().__init__(
            url, policy=ONCE if policy is None else policy, timeout_ms=timeout_ms, clock=way.clock
        )
        self.way = way

    def adopt(self, session: Session) -> None:
        """Close this session with the client, at the latest."""
        super().adopt(session)
        self.way.adopt(session)

    async def call(
        self, request: Request, *, timeout_ms: int | None = None, policy: Policy | None = None
    ) -> Answer:
        """Send any request."""
        return await self.way.through(
            super().call(request, timeout_ms=timeout_ms, policy=policy),
        )

    async def watch(
        self,
        *prefixes: str,
        session: str | None = None,
        after: int | None = None,
        silent_ms: int = 40_000,
    ) -> AsyncGenerator[Happening, None]:
        """What happens from here on; while the way is cut, it is held back."""
        watching = super().watch(*prefixes, session=session, after=after, silent_ms=silent_ms)
        try:
            async for happening in watching:
                await self.way.healed()
                yield happening
        finally:
            await watching.aclose()


class VirtualSyncClient(SyncClient):
    """A `SyncClient` whose time is passed by the test. Made by `VirtualCluster.sync_client`."""

    def __init__(self, way: Way, url: str, *, policy: Policy | None, timeout_ms: int):
        # In place of what a SyncClient makes: all of its words are those of the client inside.
        self._wrap(VirtualClient(way, url, policy=policy, timeout_ms=timeout_ms))
        self.way = way
