"""A session of ours, kept alive for its owner.

RULE: asyncio shell; sends what is asked and tells what came. When to renew and what may be relied
on is decided in `lease.py`, what a broken call means in `core.py`.

    async with client.session(ttl="10s") as session:
        async with session.lock("orders", wait="30s") as lock:
            write(order, lock.token)

A session is renewed as long as its owner lives: the task that opened it unless another is named.
`token` asks the clock each time: once the session was not renewed for so long that the cluster may
end it soon, it raises `LockLost`, and the task inside of `async with` is cancelled.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from cluster.client.durations import Length, ms_of
from cluster.client.elections import Candidacy
from cluster.client.held import State
from cluster.client.holdings import Claim, Lock, Locks, Offer, Units
from cluster.client.keeping import Keeper, OnState, Owner, Scope
from cluster.client.lease import Lease
from cluster.client.payloads import Payload
from cluster.client.renewing import Renewals
from cluster.client.taking import FAREWELL_MS, GONE, Holding, Turnstile
from cluster.errors import CoterieError, LockLost

if TYPE_CHECKING:
    from cluster.client.aio import Client

# Who was not heard for long will hardly be heard at the end.
LATE_FAREWELL_MS = 300


class Session:
    """One session. Use it as an async context manager, or `open` and `close` it.

    Inside `async with` the task is cancelled when the session is lost, and `LockLost` is raised on
    the way out.

    Args:
        client: a way to the cluster.
        ttl: how long the cluster waits for a sign of life.
        name, meta: for those who look who holds what.
        owner: for whom it is kept: None for the task that opens it, another task or a thread, or
            "process" for as long as the process lives and refers to it.
        on_state: called with "grace", "held" or "lost" whenever that changes.
    """

    def __init__(
        self,
        client: Client,
        *,
        ttl: Length = "10s",
        name: str | None = None,
        meta: Mapping[str, object] | None = None,
        owner: asyncio.Task[Any] | threading.Thread | Literal["process"] | None = None,
        on_state: OnState | None = None,
    ):
        self.client = client
        self.ttl_ms = ms_of(ttl, "ttl")
        self._name = name
        self._meta = meta
        self._owner = owner
        self._on_state = on_state
        self._pid = os.getpid()
        self._id = ""
        self._token = 0
        self._keeper: Keeper | None = None
        self._is_opening = False
        self._scope: Scope | None = None
        # As long as somebody is inside or waits; a session may take any number of names in its life.
        self._turnstiles: weakref.WeakValueDictionary[str, Turnstile] = (
            weakref.WeakValueDictionary()
        )
        self._revocable: weakref.WeakSet[Holding] = weakref.WeakSet()
        self._behind: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        await self.open()
        scope = Scope(self.keeper)
        try:
            scope.enter()
        except LockLost:
            # The answer was so long in coming that its time was over.
            await self.close()
            raise
        self._scope = scope
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._scope is not None
        try:
            self._scope.exit(kind, error, traceback)
        finally:
            self._scope = None
            await self.close()

    async def open(self, *, owner: asyncio.Task[Any] | threading.Thread | None = None) -> Self:
        """Open it and keep it alive from here on.

        Args:
            owner: for whom, where no other was named when it was made.

        Raises:
            CoterieError: it could not be opened. Where that is indefinite, its TTL ends it.
        """
        if self._keeper is not None or self._is_opening:
            # Of two that are opened at once, the first would be kept alive and never closed.
            raise RuntimeError("the session is open; make another one")
        self._is_opening = True
        try:
            opened = await self.client.open_session(
                ttl_ms=self.ttl_ms, name=self._name, meta=self._meta
            )
        finally:
            self._is_opening = False
        self._id, self._token, self.ttl_ms = opened.session, opened.token, opened.ttl_ms
        lease = Lease.opened(
            ttl_ms=opened.ttl_ms, expires_in_ms=opened.expires_in_ms, sent_ms=opened.sent_ms
        )
        if self._owner == "process":
            runner: asyncio.Task[Any] | threading.Thread | None = None
        else:
            runner = self._owner or owner or asyncio.current_task()
        # Not of the process that made us, perhaps: who opens it is who ends it.
        self._pid = os.getpid()
        self._keeper = Keeper(
            lease,
            kind="session",
            name=opened.session,
            token=opened.token,
            owner=Owner(runner, self),
            clock=self.client.clock,
            renew=_renewing(self.client.renewals, opened.session, self._revocable, self._behind),
            gone=GONE,
            on_state=self._on_state,
        )
        self.client.renewals.joined(self._keeper)
        self._keeper.start()
        self.client.adopt(self)
        return self

    async def close(self) -> None:
        """End it; what it holds is free at once, or at the end of its TTL where nobody hears it.

        May be called again, and from any task; others that hold something under it, or wait for it,
        are cancelled, and told that it is lost.
        """
        keeper = self._keeper
        if keeper is None or keeper.is_stopped or self._pid != os.getpid():
            # Of a fork, too: it is our parent's to end.
            return
        # Who found out by using it may have been faster than the timer that tells.
        keeper.look()
        is_over_there = keeper.is_over_there
        limit_ms = FAREWELL_MS if keeper.standing == "held" else LATE_FAREWELL_MS
        keeper.stop()
        for task in list(self._behind):
            task.cancel()
        # Also where the caller is cancelled meanwhile: others wait for what it held. And where the
        # client breaks it off, the caller is not cancelled.
        ending = self.client.behind(self._end(None if is_over_there else limit_ms))
        await asyncio.wait({ending})

    async def _end(self, limit_ms: int | None) -> None:
        await asyncio.gather(*self._behind, return_exceptions=True)
        if limit_ms is None:
            return
        try:
            await self.client.close_session(self._id, timeout_ms=limit_ms)
        except (CoterieError, RuntimeError):
            # Its TTL ends it; also where the client is closed, or the end of the program leaves no
            # thread in which a name could be resolved.
            return

    # What it is.

    @property
    def id(self) -> str:
        """Its name in the cluster."""
        return self._id

    @property
    def token(self) -> int:
        """Token of its opening.

        Raises:
            LockLost: the session may be relied on no more.
        """
        self.keeper.demand()
        return self._token

    @property
    def state(self) -> State:
        """What may be relied on, by the clock."""
        if self._keeper is None or self._keeper.is_stopped:
            return "free"
        return self._keeper.standing

    @property
    def left_ms(self) -> int:
        """For how long what it holds may be relied on if no renewal succeeds."""
        return 0 if self._keeper is None else self._keeper.left_ms

    @property
    def keeper(self) -> Keeper:
        """What keeps it alive.

        Raises:
            RuntimeError: it was not opened.
        """
        if self._keeper is None:
            raise RuntimeError("the session is not open; use `async with` or `await open()`")
        return self._keeper

    # What may be held under it.

    def lock(
        self,
        name: str,
        *,
        wait: Length = "30s",
        shared: bool = False,
        priority: int = 0,
        on_state: OnState | None = None,
    ) -> Lock:
        """A lock, to be taken by `async with` or `acquire`; smaller `priority` goes first."""
        return Lock(self, name, wait=wait, is_shared=shared, priority=priority, on_state=on_state)

    def locks(
        self,
        *names: str,
        shared: tuple[str, ...] = (),
        wait: Length = "30s",
        priority: int = 0,
        on_state: OnState | None = None,
    ) -> Locks:
        """Several locks, all or none: those of `names` alone, those of `shared` with others."""
        return Locks(self, names, shared, wait=wait, priority=priority, on_state=on_state)

    def semaphore(
        self,
        name: str,
        *,
        units: int = 1,
        wait: Length = "30s",
        priority: int = 0,
        on_state: OnState | None = None,
    ) -> Units:
        """Units of a semaphore whose limit was set by `client.semaphore(name).set_limit`."""
        return Units(self, name, units, wait=wait, priority=priority, on_state=on_state)

    def claim(
        self,
        resource: str,
        *,
        ticket: str | None = None,
        wait: Length = "30s",
        on_state: OnState | None = None,
    ) -> Claim:
        """A ticket of a resource: a given one, or the free one that was issued first."""
        return Claim(self, resource, ticket, wait=wait, on_state=on_state)

    async def issue(self, resource: str, ticket: str, data: Payload | None = None) -> Offer:
        """Offer a ticket of a resource; it is there as long as this session, or until revoked.

        Issuing again replaces the data and keeps the claim.
        """
        return await Offer.issued(self, resource, ticket, data)

    def candidate(self, group: str, *, wait: Length = "1h") -> Candidacy:
        """A candidate for the leadership of a group; `async with` waits until it is elected."""
        return Candidacy(self, group, wait=wait)

    async def explain(self, want: str | None = None) -> dict[str, Any]:
        """Who is in the way of this session, since when, and what would help."""
        return await self.client.explain(self.id, want)

    # For what is held.

    def turnstile(self, name: str) -> Turnstile:
        """The cluster gives a lock again to the session that has it: tasks take turns here."""
        return self._turnstiles.setdefault(name, Turnstile())

    async def check_again(self, timeout_ms: int) -> None:
        """Ask for what others can take away, as is done after every renewal."""
        for holding in list(self._revocable):
            await holding.check_again(timeout_ms)

    def watch_over(self, holding: Holding) -> None:
        """Ask at every renewal whether it is still held: others can take it away."""
        self._revocable.add(holding)

    def behind(self, task: asyncio.Task[Any]) -> None:
        """Let a task go on behind the caller, until the session is closed."""
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)


def _renewing(
    renewals: Renewals,
    session: str,
    revocable: weakref.WeakSet[Holding],
    behind: set[asyncio.Task[Any]],
) -> Callable[[Lease], Any]:
    """What renews a session, without referring to it: it has to notice when nobody else does."""

    async def renew(lease: Lease) -> Lease:
        renewed = await renewals.renew(session, within_ms=lease.every_ms)
        for holding in list(revocable):
            checking = asyncio.create_task(holding.check_again(lease.every_ms))
            behind.add(checking)
            checking.add_done_callback(behind.discard)
        return lease.renewed(expires_in_ms=renewed.expires_in_ms, sent_ms=renewed.sent_ms)

    return renew
