"""Taking and giving back what is held under a session.

RULE: what is true of all kinds; what each asks for and gives back is told in `holdings.py`.

To the cluster a session is one: it is given again what it has. So tasks of one session have their
turns here, and none begins before it is settled what became of the request of the one before.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from cluster.client.core import ClientClosed, Request, is_refused, new_key
from cluster.client.durations import Length, ms_of
from cluster.client.held import Grant, Held
from cluster.client.keeping import Keeper, OnState, Scope
from cluster.client.refusals import LockHeld, Occupied, Withdrawn
from cluster.errors import CoterieError, Indefinite, LockLost, Refused

if TYPE_CHECKING:
    from cluster.client.session import Session

T = TypeVar("T")

# By which the cluster says that a session is no more.
GONE = frozenset({"session_expired", "session_not_found"})
NOT_OURS = GONE | {"not_holder", "stale_token", "ticket_not_found"}

# How long giving back may keep the caller; it goes on behind them.
FAREWELL_MS = 3_000
RETRY_PAUSE_MS = 100
# No request may wait longer.
WAIT_MS_MOST = 3_600_000


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
