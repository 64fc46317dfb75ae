"""An event loop in a thread of its own, and the way into it.

RULE: knows nothing of what is run. The thread starts with the first call and ends with `close`, or
when nobody refers to the portal any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from concurrent.futures import CancelledError
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")

AtEnd: TypeAlias = Callable[[], Coroutine[Any, Any, object]]

# Loops of the process we are a fork of: closing them would touch what we share with it.
_PARENTS: list[object] = []


class _Running:
    """A loop that runs, and its thread."""

    __slots__ = ("_at_end", "loop", "pid", "thread")

    def __init__(self, at_end: AtEnd | None) -> None:
        self._at_end = at_end
        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()
        # A daemon: a program that forgets to close still ends.
        self.thread = threading.Thread(target=self._run, name="coterie client", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            if self._at_end is not None:
                with contextlib.suppress(Exception):
                    self.loop.run_until_complete(self._at_end())
        finally:
            left = asyncio.all_tasks(self.loop)
            for task in left:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()

    def stop(self, timeout_s: float | None = None) -> None:
        """End the loop with all that runs in it."""
        if self.pid != os.getpid():
            _PARENTS.append(self.loop)
            return
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.loop.stop)
        if threading.current_thread() is not self.thread:
            self.thread.join(timeout_s)


class Portal:
    """The way into the loop, for any number of threads.

    Args:
        at_end: what is run last; it must not refer to the portal.
    """

    def __init__(self, at_end: AtEnd | None = None) -> None:
        self._at_end = at_end
        self._running: _Running | None = None
        self._end: weakref.finalize[Any, Any] | None = None
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._is_closed = False

    def run(self, doing: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop and return what it returns.

        An interrupt from the keyboard cancels it.

        Raises:
            RuntimeError: the portal is closed, or this is the loop's own thread.
        """
        try:
            loop = self._loop()
        except RuntimeError:
            doing.close()
            raise
        future = asyncio.run_coroutine_threadsafe(doing, loop)
        try:
            return future.result()
        except CancelledError:
            raise RuntimeError("the client was closed meanwhile") from None
        except BaseException:
            future.cancel()
            raise

    def soon(self, call: Callable[[], object]) -> None:
        """Have something called in the loop, without waiting for it."""
        with self._lock:
            running = self._running
        if running is not None and running.pid == os.getpid():
            running.loop.call_soon_threadsafe(call)

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
            if close is not None and not self._is_closed:
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
        if end is not None:
            end.detach()
        if running is not None:
            running.stop()

    def _loop(self) -> asyncio.AbstractEventLoop:
        if self._pid != os.getpid():
            # A fork: the thread is not here, and the lock may have been held.
            self._lock = threading.Lock()
            if self._end is not None:
                self._end.detach()
            if self._running is not None:
                self._running.stop()
            self._running, self._end, self._pid = None, None, os.getpid()
        with self._lock:
            if self._is_closed:
                raise RuntimeError("the client is closed")
            if self._running is None:
                self._running = _Running(self._at_end)
                self._end = weakref.finalize(self, self._running.stop, 0.0)
                # At the end of the program daemons end by themselves.
                self._end.atexit = False
            running = self._running
        if threading.current_thread() is running.thread:
            raise RuntimeError("called from a callback of the client: it would wait for itself")
        return running.loop
