"""An event loop in a thread of its own, and the way into it.

RULE: knows nothing of what is run. The thread starts with the first call and ends with `close`, when
nobody refers to the portal any more, or with the program.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar

T = TypeVar("T")

AtEnd: TypeAlias = Callable[[], Coroutine[Any, Any, object]]

# How long the end of the program waits for all portals that nobody closed.
EXIT_S = 1.0

# A signal that comes just before a thread waits for a lock does not wake it: so often it looks.
LOOK_EVERY_S = 0.5

# Loops of the process we are a fork of: closing them would touch what we share with it.
_PARENTS: list[object] = []


class _Running:
    """A loop that runs, and its thread."""

    __slots__ = ("__weakref__", "_at_end", "_told_to_stop", "loop", "pid", "thread")

    def __init__(self, at_end: AtEnd | None) -> None:
        self._at_end = at_end
        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()
        self._told_to_stop = self.loop.create_future()
        # A daemon: a program that forgets to close still ends.
        self.thread = threading.Thread(target=self._run, name="coterie client", daemon=True)
        try:
            self.thread.start()
        except RuntimeError:
            # There can be no more threads.
            self.loop.close()
            raise
        _RUNNING.add(self)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            while not self._told_to_stop.done():
                # A callback that would have the program end, as `on_state` may be, is called in
                # this thread, where that ends nothing. Others rely on the loop.
                with contextlib.suppress(SystemExit):
                    self.loop.run_until_complete(self._told_to_stop)
            if self._at_end is not None:
                with contextlib.suppress(Exception, SystemExit):
                    self.loop.run_until_complete(self._at_end())
        finally:
            left = asyncio.all_tasks(self.loop)
            for task in left:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()

    def tell_to_stop(self) -> None:
        """Have the loop end, with all that runs in it; not of a process we are a fork of."""
        if self.pid != os.getpid():
            _PARENTS.append(self.loop)
            return
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        if not self._told_to_stop.done():
            self._told_to_stop.set_result(None)

    def join(self, timeout_s: float | None = None) -> None:
        """Wait for its end."""
        if self.pid == os.getpid() and threading.current_thread() is not self.thread:
            self.thread.join(timeout_s)


_RUNNING: weakref.WeakSet[_Running] = weakref.WeakSet()


class Closing:
    """What is closed at the end of a `with`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it. May be called again."""
        raise NotImplementedError


class Portal:
    """The way into the loop, for any number of threads.

    Args:
        at_end: what is run last; it must not refer to the portal.
    """

    def __init__(self, at_end: AtEnd | None = None) -> None:
        self._at_end = at_end
        self._running: _Running | None = None
        self._end: weakref.finalize[Any, Any] | None = None
        # A signal's handler may stop something while this very thread is in here.
        self._lock = threading.RLock()
        self._is_closed = False
        _PORTALS.add(self)

    def run(self, doing: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop and return what it returns.

        An interrupt from the keyboard cancels it.

        Raises:
            RuntimeError: the portal is closed, the program ends, or this is the loop's own thread.
        """
        try:
            # Together: what is begun before `close` is ended by it, and never waited for in vain.
            with self._lock:
                future = asyncio.run_coroutine_threadsafe(doing, self._loop())
        except RuntimeError:
            doing.close()
            raise
        try:
            while not future.done():
                with contextlib.suppress(TimeoutError):
                    future.exception(LOOK_EVERY_S)
            return future.result()
        except CancelledError:
            raise RuntimeError("the client was closed meanwhile") from None
        except BaseException:
            future.cancel()
            raise

    def soon(self, call: Callable[[], object]) -> None:
        """Have something called in the loop, without waiting for it; at once where none runs."""
        with self._lock:
            running = self._running
            if running is not None:
                running.loop.call_soon_threadsafe(call)
                return
        call()

    def each(self, iterator: AsyncIterator[T]) -> Generator[T, None, None]:
        """The items of an async iterator, one by one."""

        async def step() -> tuple[T] | None:
            try:
                return (await anext(iterator),)
            except StopAsyncIteration:
                return None

        try:
            while (found := self.run(step())) is not None:
                yield found[0]
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                # Where nobody can wait for it, the end of the loop closes it.
                with contextlib.suppress(RuntimeError):
                    self.run(close())

    @property
    def is_closed(self) -> bool:
        """Nothing is run any more."""
        return self._is_closed

    def close(self) -> None:
        """End the loop and its thread. May be called again."""
        with self._lock:
            self._is_closed = True
            running, self._running = self._running, None
            end, self._end = self._end, None
            if running is not None:
                running.tell_to_stop()
        if end is not None:
            end.detach()
        if running is not None:
            running.join()

    def after_fork(self) -> None:
        """In the child: the thread is not here, and another may have held the lock."""
        self._lock = threading.RLock()
        if self._end is not None:
            self._end.detach()
        if self._running is not None:
            _PARENTS.append(self._running.loop)
        self._running, self._end = None, None

    def _loop(self) -> asyncio.AbstractEventLoop:
        if sys.is_finalizing():
            # The thread stands still already; whoever waited for it would wait for ever.
            raise RuntimeError("the program ends")
        if self._is_closed:
            raise RuntimeError("the client is closed")
        if self._running is None:
            self._running = _Running(self._at_end)
            self._end = weakref.finalize(self, self._running.tell_to_stop)
            # The end of the program ends all of them at once.
            self._end.atexit = False
        if threading.current_thread() is self._running.thread:
            raise RuntimeError("called from a callback of the client: it would wait for itself")
        return self._running.loop


_PORTALS: weakref.WeakSet[Portal] = weakref.WeakSet()


def _after_fork() -> None:
    for portal in list(_PORTALS):
        portal.after_fork()


def _at_exit() -> None:
    """Give back what nobody gave back, if that is soon done."""
    running = list(_RUNNING)
    for each in running:
        each.tell_to_stop()
    for each in running:
        each.join(EXIT_S / len(running))


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
