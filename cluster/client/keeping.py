"""Keeping one lease alive for its owner, and telling in time that it is in danger or over.

RULE: drives a `Tenure` with the loop's time. When to renew and what may be relied on is decided in
`lease.py`; what a renewal is, by who makes the keeper.

A keeper works for its owner only: once the owner's task or thread has ended, the handle was
collected, or the process is a fork, it renews no more, and what it kept is lost.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar

from cluster.client.core import ClientClosed
from cluster.client.lease import Lease, Standing, Tenure
from cluster.errors import CoterieError, LockLost, Refused

# At the most between two looks at the clock: timers of the loop stand still while the machine
# sleeps, and nobody tells when a thread ends.
LOOK_EVERY_MS = 200

# Keepers at work, by `id`. A plain dict: it is written in any thread, and forks may come between.
_AT_WORK: dict[int, weakref.ref[Keeper]] = {}

G = TypeVar("G")
R = TypeVar("R")

OnState: TypeAlias = Callable[[Standing], object]
Renew: TypeAlias = Callable[[Lease], Awaitable[Lease]]


def call_safely(
    loop: asyncio.AbstractEventLoop, about: str, callback: Callable[..., object], *told: object
) -> None:
    """Call what a program gave us; what it raises is told to its loop, and stops nothing of ours."""
    try:
        callback(*told)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        loop.call_exception_handler({"message": about, "exception": error})


def call_in_thread(call: Callable[[G], R], given: G) -> R:
    """Call what a program gave us, in a thread of its own.

    Raises:
        RuntimeError: it would have the program end. A thread can end nothing but itself, and where
            it is waited for, that would be our event loop.
    """
    try:
        return call(given)
    except SystemExit as error:
        raise RuntimeError(f"{call!r} asked for the program to end: {error}") from error


async def await_safely(doing: Awaitable[R]) -> R:
    """Await what a program gave us.

    Raises:
        RuntimeError: it ended as cancelled, although nobody has cancelled this task: it awaited
            something that was.
    """
    task = asyncio.current_task()
    assert task is not None
    try:
        return await doing
    except asyncio.CancelledError as error:
        if task.cancelling():
            raise
        raise RuntimeError(f"{doing!r} awaited something that was cancelled") from error


class Owner:
    """For whom something is kept: a task, a thread, or this process as a whole.

    Args:
        runner: its end is the owner's end; None for the process.
        handle: the object by which the owner knows what is kept: once it is collected, nobody can
            use it any more.
    """

    __slots__ = ("_handle", "_is_thread", "_pid", "_runner")

    def __init__(
        self, runner: asyncio.Task[Any] | threading.Thread | None, handle: object | None = None
    ):
        self._pid = os.getpid()
        self._is_thread = isinstance(runner, threading.Thread)
        self._runner = None if runner is None else weakref.ref(runner)
        self._handle = None if handle is None else weakref.ref(handle)

    def gone(self) -> str | None:
        """Why there is nobody to keep anything for; None as long as there is."""
        if os.getpid() != self._pid:
            return f"it belongs to process {self._pid}, of which this one is a fork"
        if self._handle is not None and self._handle() is None:
            return "nobody refers to it any more"
        if self._runner is None:
            return None
        runner = self._runner()
        if isinstance(runner, threading.Thread):
            is_alive = runner.is_alive()
        else:
            is_alive = runner is not None and not runner.done()
        if is_alive:
            return None
        return f"the {'thread' if self._is_thread else 'task'} that owned it has ended"


class Keeper:
    """Keeps one lease. Made and used in one event loop; `standing` and `demand` from any thread.

    Args:
        lease: as it was granted.
        kind, name, token: what it is of.
        renew: makes the next lease of the present one; None: it cannot be renewed.
        gone: codes of refusals by which the cluster says that it is over.
        owner: for whom.
        clock: ms, as the lease counts them.
        on_state: told of every change, before anybody is cancelled.

    Attributes:
        kind, name, token: as given.
        loop: in which it works.
    """

    def __init__(
        self,
        lease: Lease,
        *,
        kind: str,
        name: str,
        owner: Owner,
        clock: Callable[[], int],
        token: int | None = None,
        renew: Renew | None = None,
        gone: frozenset[str] = frozenset(),
        on_state: OnState | None = None,
    ):
        self._tenure = Tenure(lease)
        self.kind = kind
        self.name = name
        self.token = token
        self._owner = owner
        self._clock = clock
        self._renew = renew
        self._gone = gone
        self._listeners: dict[object, OnState] = {}
        if on_state is not None:
            self._listeners[self] = on_state
        self.loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._moved = asyncio.Event()
        self._is_stopped = False
        self._is_over_there = False

    # For whoever relies on it.

    @property
    def lease(self) -> Lease:
        """As it stands."""
        return self._tenure.lease

    @property
    def standing(self) -> Standing:
        """What may be relied on at this moment, by the clock."""
        if self._is_stopped or self._owner.gone() is not None:
            return "lost"
        return self._tenure.standing(self._clock())

    @property
    def is_stopped(self) -> bool:
        """`stop` was called."""
        return self._is_stopped

    @property
    def left_ms(self) -> int:
        """For how long what is kept may be relied on if no renewal succeeds."""
        if self.standing == "lost":
            return 0
        return max(0, self._tenure.lease.kill_at_ms - self._clock())

    def demand(self) -> None:
        """Return if what is kept may be relied on.

        Raises:
            LockLost: it may not.
        """
        if self.standing == "lost":
            raise self.loss()

    def loss(self) -> LockLost:
        """The error that says that it is lost, and why."""
        if (gone := self._owner.gone()) is not None:
            why = gone
        elif self._is_stopped and self._tenure.lease.lost is None:
            why = "it was given back"
        else:
            why = self._tenure.why_lost()
        under = "" if self.token is None else f" (token {self.token})"
        detail = f'{self.kind} "{self.name}"{under} is lost: {why}'
        return LockLost(detail, kind=self.kind, name=self.name, token=self.token)

    async def until_held(self) -> None:
        """Return once it stands as held.

        Raises:
            LockLost: it never will.
        """
        while self.standing != "held":
            self.demand()
            self._moved.clear()
            await self._moved.wait()

    async def renew_now(self) -> None:
        """Renew, whether it is time or not; raises what the renewal raises."""
        assert self._renew is not None, "it cannot be renewed"
        self.demand()
        renewed = await self._renew(self._tenure.lease)
        self._tenure.renewed(renewed, self._clock())
        self.look()

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Send no renewal meanwhile, and pass over the answer to one that is under way: while what
        is kept is being ended, its refusal is no loss.
        """
        renew, self._renew = self._renew, None
        if self._renewing is not None:
            self._renewing.cancel()
            self._renewing = None
        try:
            yield
        finally:
            self._renew = renew
            self.look()

    # For whoever made it.

    def counts_by(self, clock: Callable[[], int]) -> bool:
        """Its time is this one."""
        return self._clock == clock

    @property
    def is_over_there(self) -> bool:
        """The cluster itself said that it is over."""
        return self._is_over_there

    def is_due_within(self, ms: int) -> bool:
        """A renewal is to be sent within so long, and none is under way."""
        if self._is_stopped or self._renew is None or self._renewing is not None:
            return False
        lease = self._tenure.lease
        return lease.lost is None and lease.try_at_ms <= self._clock() + ms

    def renew_early(self) -> None:
        """Send the next renewal at once, as others are sent with it."""
        if self._renew is not None and self._renewing is None and self.standing != "lost":
            self._begin(self._renew)

    def owned_by(self, owner: Owner) -> None:
        """Keep it for somebody else from here on."""
        self._owner = owner

    def start(self) -> None:
        """Begin to renew, and to look."""
        number = id(self)
        _AT_WORK[number] = weakref.ref(self, lambda _: _AT_WORK.pop(number, None))
        self.look()

    def stop(self) -> None:
        """Renew no more; from here on it stands as lost, and nobody is told any more.

        Other tasks that rely on it are cancelled: what they hold is somebody else's from here on.
        """
        self._is_stopped = True
        _AT_WORK.pop(id(self), None)
        scopes = [key for key in self._listeners if isinstance(key, Scope)]
        self._listeners.clear()
        self._halt()
        self._moved.set()
        for scope in scopes:
            scope.ended()

    def take(self, lease: Lease) -> None:
        """Go on with what a renewal has brought; from any thread. Whoever passes the time in a test
        renews in the keeper's stead.
        """
        self._tenure.renewed(lease, self._clock())

    def lose(self, why: str) -> None:
        """What is kept is over, whatever its time says."""
        self._tenure.lose(why)
        self.look()

    def listen(self, key: object, listener: OnState) -> None:
        """Have a listener told of every change, after those that came before it."""
        self._listeners[key] = listener

    def unlisten(self, key: object) -> None:
        """Tell this one no more."""
        self._listeners.pop(key, None)

    def _halt(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._renewing is not None:
            self._renewing.cancel()
            self._renewing = None

    def look(self) -> None:
        """Tell what has changed, renew if it is time, and come back."""
        if self._is_stopped:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (gone := self._owner.gone()) is not None:
            self._tenure.lose(gone)
        now_ms = self._clock()
        changed = self._tenure.look(now_ms)
        if self._tenure.standing(now_ms) == "lost":
            self._halt()
        else:
            lease = self._tenure.lease
            look_at_ms = lease.changes_at_ms(now_ms)
            if self._renew is not None and self._renewing is None:
                if now_ms >= lease.try_at_ms:
                    self._begin(self._renew)
                else:
                    look_at_ms = min(look_at_ms, lease.try_at_ms)
            pause_ms = min(LOOK_EVERY_MS, max(1, look_at_ms - now_ms))
            self._timer = self.loop.call_later(pause_ms / 1_000, self.look)
        if changed is not None:
            self._tell(changed)

    def _tell(self, changed: Standing) -> None:
        self._moved.set()
        for listener in list(self._listeners.values()):
            # The next one has to hear of it, whatever this one makes of it.
            call_safely(self.loop, f"told that {self.name} is {changed}", listener, changed)

    def _begin(self, renew: Renew) -> None:
        # Not by the loop's factory: an eager task runs as it is made, and would take us for idle.
        self._renewing = asyncio.Task(self._renew_once(renew), loop=self.loop)

    async def _renew_once(self, renew: Renew) -> None:
        lease = self._tenure.lease
        try:
            renewed = await renew(lease)
        except Refused as error:
            if error.code in self._gone:
                self._is_over_there = True
                self._tenure.lose(error.detail)
            else:
                self._tenure.lease = self._tenure.lease.missed(self._clock())
        except ClientClosed as error:
            self._tenure.lose(str(error))
        except CoterieError:
            self._tenure.lease = self._tenure.lease.missed(self._clock())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and tried again
            self._tenure.lease = self._tenure.lease.missed(self._clock())
            self.loop.call_exception_handler(
                {"message": f"renewing {self.kind} {self.name}", "exception": error}
            )
        else:
            self._tenure.renewed(renewed, self._clock())
            # Who waits for good standing may wait although nobody had looked at a bad one.
            self._moved.set()
        finally:
            if self._renewing is asyncio.current_task():
                self._renewing = None
        self.look()


def keepers_of(clock: Callable[[], int]) -> list[Keeper]:
    """Keepers at work that count by this clock, for whoever passes its time in a test."""
    found = [known() for known in list(_AT_WORK.values())]
    return [keeper for keeper in found if keeper is not None and keeper.counts_by(clock)]


# Scopes that each task is in, outermost first.
_ENTERED: weakref.WeakKeyDictionary[asyncio.Task[Any], list[Scope]] = weakref.WeakKeyDictionary()


class Scope:
    """Cancels the task that entered it when what it was entered for is lost; like a timeout.

    The task sees a cancellation at its next `await`; on the way out it becomes `LockLost`. Where a
    session is lost with a lock inside of it, the lock's scope says so first; whoever catches that
    inside of the session is cancelled again at the next `await`, as the session is lost as well.
    """

    __slots__ = ("_before", "_error", "_has_cancelled", "_keeper", "_loss", "_task")

    def __init__(self, keeper: Keeper, *, loss: Callable[[], LockLost] | None = None):
        self._keeper = keeper
        self._loss = keeper.loss if loss is None else loss
        self._task: asyncio.Task[Any] | None = None
        self._before = 0
        self._error: LockLost | None = None
        self._has_cancelled = False

    def __enter__(self) -> Self:
        self.enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.exit(kind, error, traceback)

    def enter(self) -> None:
        """Bind the running task.

        Raises:
            LockLost: it is lost already, and nobody would be told again.
        """
        task = asyncio.current_task()
        assert task is not None, "entered outside of a task"
        if self._keeper.standing == "lost":
            self._keeper.look()
            raise self._loss()
        self._task, self._before = task, task.cancelling()
        _ENTERED.setdefault(task, []).append(self)
        self._keeper.listen(self, self._on_state)

    def ended(self) -> None:
        """What it was entered for was ended; the task that did it itself knows of it."""
        if asyncio.current_task() is not self._task:
            self.fire(self._loss())

    def fire(self, error: LockLost) -> None:
        """Cancel the task, once."""
        if self._error is not None or self._task is None:
            return
        self._error = error
        if asyncio.current_task() is not self._task:
            self._has_cancelled = True
            self._task.cancel(error.detail)

    def disarm(self) -> None:
        """What it was entered for was given back: let the task go on."""
        self._keeper.unlisten(self)
        self._unbind()

    def exit(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None = None,
    ) -> None:
        """Unbind the task.

        Raises:
            LockLost: it was lost meanwhile, also where the body ended as if nothing had happened.
        """
        if self._task is None:
            return
        # The loop may have been kept from looking in time.
        self._keeper.look()
        self._keeper.unlisten(self)
        task = self._unbind()
        if self._error is None:
            return
        if self._has_cancelled:
            task.uncancel()
        if kind is None:
            raise self._error
        if isinstance(error, LockLost):
            return
        if issubclass(kind, asyncio.CancelledError):
            outer = [scope for scope in _ENTERED.get(task, ()) if scope._has_cancelled]
            # Somebody else's cancellation goes on as one.
            if self._has_cancelled and task.cancelling() - len(outer) <= self._before:
                for scope in outer:
                    asyncio.get_running_loop().call_soon(scope._cancel_again)
                raise self._error from error
            return
        if issubclass(kind, Exception):
            raise self._error from error

    def _unbind(self) -> asyncio.Task[Any]:
        task, self._task = self._task, None
        assert task is not None
        _ENTERED[task].remove(self)
        return task

    def _cancel_again(self) -> None:
        """A scope inside of this one took the cancellation; if the task stayed here, repeat it."""
        if self._task is not None and self._error is not None:
            self._task.uncancel()
            self._task.cancel(self._error.detail)

    def _on_state(self, standing: Standing) -> None:
        if standing == "lost":
            self.fire(self._loss())
