"""Elections: one leader of a group at a time, for as long as its session lives.

RULE: a lock by another name (`election/GROUP`); nothing of its own is kept in the cluster.

    election = client.election("schedulers")

    async def lead(leadership):
        while True:
            write(await next_job(), leadership.token)

    await election.run(lead)        # until cancelled or `stop`; `lead` is cancelled when deposed
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import msgspec

from cluster.client.durations import Length, ms_of
from cluster.client.holdings import Lock
from cluster.client.keeping import await_safely, call_in_thread
from cluster.client.refusals import LockHeld, SessionExpired, SessionNotFound
from cluster.client.taking import GONE
from cluster.errors import CoterieError, LockLost, Refused

if TYPE_CHECKING:
    from cluster.client.aio import Client
    from cluster.client.session import Session

PREFIX = "election/"
# After the session was lost, or could not be opened.
PAUSE_MS = 500

Lead: TypeAlias = Callable[["Candidacy"], Awaitable[object]]


class Leader(msgspec.Struct, frozen=True):
    """Who leads a group.

    Attributes:
        session: its id.
        token: of its leadership; rises with every election.
        name: of its session; None if it has none, or is gone by now.
    """

    session: str
    token: int
    name: str | None


class Candidacy(Lock):
    """A candidate for a leadership; it leads from when `acquire` returned."""

    kind: ClassVar[str] = "leadership"

    def __init__(self, session: Session, group: str, *, wait: Length = "1h"):
        super().__init__(session, PREFIX + group, wait=wait)
        self.group = group

    async def resign(self) -> None:
        """Lead no more; the next candidate is elected."""
        await self.release()


class Election:
    """The leadership of a group, seen from outside, or stood for again and again.

    Args:
        name: of our session, for those who ask who leads.
        ttl: how long after our death nobody leads.
        on_elected, on_deposed: told of each; deposed also when `lead` returned by itself.
    """

    def __init__(
        self,
        client: Client,
        group: str,
        *,
        name: str | None = None,
        ttl: Length = "10s",
        on_elected: Callable[[int], object] | None = None,
        on_deposed: Callable[[int], object] | None = None,
    ):
        self._client = client
        self._group = group
        self._name = name
        self._ttl_ms = ms_of(ttl, "ttl")
        self._on_elected = on_elected
        self._on_deposed = on_deposed
        self._standing: asyncio.Task[Any] | None = None
        self._is_stopped = False

    async def leader(self) -> Leader | None:
        """Read who leads at the moment."""
        holders = (await self._client.lock(PREFIX + self._group)).holders
        if not holders:
            return None
        session, token = holders[0].session, holders[0].token
        try:
            name = (await self._client.session_view(session))["name"]
        except (SessionExpired, SessionNotFound):
            name = None
        return Leader(session, token, name)

    async def run(self, lead: Lead) -> None:
        """Stand, lead, and stand again, until `stop`.

        Args:
            lead: what a leader does; cancelled when it is deposed, or by `stop`. When it returns,
                it has resigned and does not stand again. What it raises is raised here.

        Raises:
            Refused: the cluster will not have it, however often it is asked.
        """
        while not self._is_stopped:
            standing = self._standing = asyncio.get_running_loop().create_task(self._stand(lead))
            try:
                await asyncio.wait({standing})
            except asyncio.CancelledError:
                standing.cancel()
                await asyncio.wait({standing})
                raise
            finally:
                self._standing = None
            if standing.cancelled() or standing.result():
                return

    async def run_in_threads(self, lead: Callable[[Candidacy], object]) -> None:
        """`run`, with a function that is called in a thread; no new stand begins before it is
        through, as a thread cannot be cancelled.
        """
        # Of its own: the loop has a few for all, which also resolve the names of nodes.
        threads = ThreadPoolExecutor(1, "coterie leader")

        async def in_thread(candidacy: Candidacy) -> None:
            loop = asyncio.get_running_loop()
            thread = loop.run_in_executor(threads, call_in_thread, lead, candidacy)
            try:
                await asyncio.shield(thread)
            except asyncio.CancelledError:
                await asyncio.wait({thread})
                if not isinstance(thread.exception(), LockLost | None):
                    thread.result()
                raise

        try:
            await self.run(in_thread)
        finally:
            threads.shutdown(wait=False)

    def stop(self) -> None:
        """Resign, and stand no more."""
        self._is_stopped = True
        if self._standing is not None:
            self._standing.cancel()

    async def _stand(self, lead: Lead) -> bool:
        """One session's worth; True when the leader resigned by itself."""
        has_led = False
        try:
            async with self._client.session(ttl=self._ttl_ms, name=self._name) as session:
                while True:
                    try:
                        async with Candidacy(session, self._group) as candidacy:
                            has_led = True
                            await self._lead(candidacy, lead)
                            return True
                    except LockHeld:
                        # Stood for as long as one request may: stand on.
                        if has_led:
                            raise
        except LockLost:
            # Deposed.
            pass
        except Refused as error:
            # What will be refused however often it is asked is not asked again and again.
            if has_led or not (error.retryable or error.code in GONE or error.code == "withdrawn"):
                raise
        except CoterieError:
            if has_led:
                raise
        await asyncio.sleep(PAUSE_MS / 1_000)
        return False

    async def _lead(self, candidacy: Candidacy, lead: Lead) -> None:
        token = candidacy.token
        if self._on_elected is not None:
            self._on_elected(token)
        try:
            await await_safely(lead(candidacy))
        finally:
            if self._on_deposed is not None:
                self._on_deposed(token)
