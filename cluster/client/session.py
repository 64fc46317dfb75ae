"""A session of ours, kept alive for its owner, and what is held under it.

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
from collections.abc import Callable, Coroutine, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from cluster.client.core import ClientClosed, Request, is_refused, new_key
from cluster.client.durations import Length, ms_of
from cluster.client.held import Grant, Held, State
from cluster.client.keeping import Keeper, OnState, Owner, Scope
from cluster.client.lease import Lease
from cluster.client.payloads import Payload
from cluster.client.refusals import LockHeld, Occupied, Withdrawn
from cluster.client.renewing import Renewals
from cluster.errors import CoterieError, Indefinite, LockLost, Refused

if TYPE_CHECKING:
    from cluster.client.aio import Client
    from cluster.client.elections import Candidacy
    from cluster.client.holdings import Claim, Lock, Locks, Offer, Units

T = TypeVar("T")

# By which the cluster says that a session is no more.
GONE = frozenset({"session_expired", "session_not_found"})
NOT_OURS = GONE | {"not_holder", "stale_token", "ticket_not_found"}

# How long giving back may keep the caller; it goes on behind them.
FAREWELL_MS = 3_000
LATE_FAREWELL_MS = 300
RETRY_PAUSE_MS = 100
# No request may wait longer.
WAIT_MS_MOST = 3_600_000


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
        # Who was not heard for so long will hardly be heard now.
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
        from cluster.client.holdings import Lock  # noqa: PLC0415 - it builds on this module

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
        from cluster.client.holdings import Locks  # noqa: PLC0415 - it builds on this module

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
        from cluster.client.holdings import Units  # noqa: PLC0415 - it builds on this module

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
        from cluster.client.holdings import Claim  # noqa: PLC0415 - it builds on this module

        return Claim(self, resource, ticket, wait=wait, on_state=on_state)

    async def issue(self, resource: str, ticket: str, data: Payload | None = None) -> Offer:
        """Offer a ticket of a resource; it is there as long as this session, or until revoked.

        Issuing again replaces the data and keeps the claim.
        """
        from cluster.client.holdings import Offer  # noqa: PLC0415 - it builds on this module

        return await Offer.issued(self, resource, ticket, data)

    def candidate(self, group: str, *, wait: Length = "1h") -> Candidacy:
        """A candidate for the leadership of a group; `async with` waits until it is elected."""
        from cluster.client.elections import Candidacy  # noqa: PLC0415 - it builds on this module

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


class Turnstile:
    """Lets one task of a session through at a time, in order of arrival."""

    __slots__ = ("__weakref__", "_lock", "_task")

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._task: weakref.ref[asyncio.Task[Any]] | None = None

    async def enter(self, left_ms: int) -> bool:
        """Go through; False if it was not free in time.

        Raises:
            RuntimeError: this very task is inside, and would wait for itself.
        """
        task = asyncio.current_task()
        assert task is not None
        if self._lock.locked() and self._task is not None and self._task() is task:
            raise RuntimeError("this task holds the lock already, and would wait for itself")
        try:
            # Also where it stands open: it may be for one who was let through and is not inside yet.
            async with asyncio.timeout(max(0, left_ms) / 1_000):
                await self._lock.acquire()
        except TimeoutError:
            return False
        self._task = weakref.ref(task)
        return True

    def disown(self) -> None:
        """Who is inside is nobody's task any more."""
        self._task = None

    def leave(self) -> None:
        """Let the next one through."""
        self._task = None
        self._lock.release()


class Holding(Held):
    """Something held under a session: taken by `acquire` or `async with`, given back by `release`.

    Used once or again and again, but for one grant at a time.
    """

    def __init__(self, session: Session, name: str, *, wait: Length, on_state: OnState | None):
        super().__init__(name, on_state=on_state)
        self.session = session
        self._wait_ms = ms_of(wait, "wait")
        # Of the present grant. Another acquire, also of this very object, has its own.
        self._inside: list[Turnstile] = []
        self._is_obtaining = False

    @property
    def keeper(self) -> Keeper:
        """What keeps the session."""
        return self.session.keeper

    async def acquire(self, wait: Length | None = None) -> int:
        """Take it, standing in its queue for at most `wait`.

        Returns:
            its token.

        Raises:
            Refused: it was not to be had in time; the refusal says who has it.
            LockLost: the session was lost meanwhile.
        """
        if self._grant is not None:
            raise RuntimeError(f'{self.kind} "{self.name}" is held already; release it first')
        clock = self.session.client.clock
        until_ms = clock() + (self._wait_ms if wait is None else ms_of(wait, "wait"))
        keeper = self.session.keeper
        if keeper.standing == "lost":
            # A loop that takes the loss for a reason to try again would keep the loop from ever
            # cancelling it.
            await asyncio.sleep(0)
        keeper.demand()
        with Scope(keeper):
            inside = await self._enter(until_ms)
            if self._is_obtaining:
                raise RuntimeError(f'{self.kind} "{self.name}" is being taken by another task')
            self._is_obtaining = True
            try:
                grant = await self._obtain(until_ms, inside)
            finally:
                self._is_obtaining = False
            self._grant, self._inside, self._why_lost = grant, inside, None
            try:
                # While we waited, renewals may have failed: no work starts on a lease that is old.
                await keeper.until_held()
            except (asyncio.CancelledError, LockLost):
                if self._grant is grant:
                    self._give_back(grant)
                raise
        if self._on_state is not None:
            keeper.listen(self._key, self._on_state)
        return grant.token

    async def release(self) -> None:
        """Give it back. Where the cluster cannot be reached, that goes on behind the caller.

        Raises:
            LockLost: it was not held any more.
        """
        grant = self._grant
        if grant is None:
            raise RuntimeError(f'{self.kind} "{self.name}" is not held')
        if self.state == "lost":
            loss = self.loss()
            self.forget()
            raise loss
        self.session.keeper.unlisten(self._key)
        if self._scope is not None:
            self._scope.disarm()
        giving = self._give_back(grant)
        await asyncio.wait({giving}, timeout=FAREWELL_MS / 1_000)
        if giving.done() and not giving.cancelled() and (refusal := giving.result()) is not None:
            detail = f'{self.kind} "{self.name}" (token {grant.token}) was lost: {refusal.detail}'
            raise LockLost(detail, kind=self.kind, name=self.name, token=grant.token)

    async def check(self) -> bool:
        """Ask the cluster whether it is still held; where it is not, it is lost here too."""
        self.demand()
        grant = self._grant
        assert grant is not None
        is_valid = await self._is_valid(grant, None)
        if not is_valid and grant is self._grant:
            self._lose(f"token {grant.token} holds it no more")
        return is_valid

    async def check_again(self, timeout_ms: int) -> None:
        """`check` of a keeper: silent, and short."""
        grant = self._grant
        if grant is None or self.state == "lost":
            return
        try:
            is_valid = await self._is_valid(grant, timeout_ms)
        except CoterieError:
            # The renewal went through, and it is what counts.
            return
        if not is_valid and grant is self._grant:
            self._lose("it was taken away")

    # What the kinds differ in.

    def _wanted(self) -> tuple[str, dict[str, object]]:
        """Path and body, without `wait`, of what asks for it."""
        raise NotImplementedError

    def _granted(self, body: dict[str, Any]) -> Grant:
        return Grant(body["token"], body)

    def _returning(self, grant: Grant) -> Request:
        """What gives it back."""
        raise NotImplementedError

    async def _is_valid(self, grant: Grant, timeout_ms: int | None) -> bool:
        """Whether the cluster still has this grant."""
        raise NotImplementedError

    def _names_alone(self) -> tuple[str, ...]:
        """Names that one session can have only once, in one order for all."""
        return ()

    # How it is taken, and given back.

    async def _enter(self, until_ms: int) -> list[Turnstile]:
        """Have our turn among the tasks of this session; through these we went."""
        session = self.session
        inside: list[Turnstile] = []
        try:
            for name in self._names_alone():
                turnstile = session.turnstile(name)
                if not await turnstile.enter(until_ms - session.client.clock()):
                    raise LockHeld(
                        f'lock "{name}" is held by another task of session {session.id}',
                        reason={"name": name, "holder": session.id},
                    )
                inside.append(turnstile)
        except BaseException:
            _leave(inside)
            raise
        return inside

    async def _obtain(self, until_ms: int, inside: list[Turnstile]) -> Grant:
        """Ask until it is granted; whoever is not granted it has left the turnstiles, or will."""
        client = self.session.client
        path, wanted = self._wanted()
        while True:
            all_left_ms = max(0, until_ms - client.clock())
            left_ms = min(all_left_ms, WAIT_MS_MOST)
            body = {"session": self.session.id, **wanted, "wait": left_ms}
            request = Request("POST", path, body, key=new_key(), wait_ms=left_ms)
            try:
                return self._granted((await client.call(request)).body)
            except (asyncio.CancelledError, Indefinite):
                if self.session.keeper.is_stopped:
                    # What it may have been granted goes with the session.
                    _leave(inside)
                else:
                    # What became of the request is found out before another task has its turn.
                    self._in_background(self._tidy(request), inside)
                raise
            except BaseException as error:
                # A node took our broken connection for a client that hung up, and took us out of
                # the queue, before the repeat of the request came. We are still here: ask anew.
                if isinstance(error, Withdrawn) and left_ms > 0:
                    continue
                # It stood in line for as long as one request may.
                if isinstance(error, Occupied) and all_left_ms > left_ms:
                    continue
                _leave(inside)
                raise

    async def _tidy(self, request: Request) -> None:
        """Give back what a request that nobody waits for any more may have been granted: otherwise
        it would be held as long as the session lives.
        """
        try:
            answer = await self.session.client.fate(request)
            if answer is not None:
                await self._send_back(self._granted(answer.body))
        except (Indefinite, ClientClosed):
            # The answer says nothing that could be given back, or all of it ends with the session.
            return

    def _give_back(self, grant: Grant) -> asyncio.Task[Refused | None]:
        """Hold it no more, and let the cluster know behind the caller."""
        inside, self._inside = self._inside, []
        self._grant = None
        return self._in_background(self._send_back(grant), inside)

    async def _send_back(self, grant: Grant) -> Refused | None:
        """Give it back, as long as there is somebody to give it back for."""
        keeper = self.session.keeper
        request = self._returning(grant)
        while keeper.standing != "lost":
            try:
                await self.session.client.call(request, timeout_ms=max(1_000, keeper.left_ms))
            except CoterieError as error:
                if is_refused(error):
                    return error if error.code in NOT_OURS else None
                await asyncio.sleep(RETRY_PAUSE_MS / 1_000)
                continue
            return None
        return None

    def _in_background(
        self, doing: Coroutine[Any, Any, T], inside: list[Turnstile]
    ) -> asyncio.Task[T]:
        """Let it go on behind the caller; only then others have their turn."""
        for turnstile in inside:
            turnstile.disown()
        task = asyncio.get_running_loop().create_task(doing)
        # Not at the end of what it does: cancelled in time, it never begins.
        task.add_done_callback(lambda _: _leave(inside))
        self.session.behind(task)
        return task

    def _forgotten(self) -> None:
        _leave(self._inside)


def _leave(inside: list[Turnstile]) -> None:
    """Let the next ones through."""
    while inside:
        inside.pop().leave()
