"""Jobs, tasks and what works them off, without `async`.

RULE: words of `cluster.client.jobs` and `tasks`, each run through the portal; handlers run in
threads of their own.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from cluster.client.durations import Length
from cluster.client.jobs import Job, PutJob, Tube, Worker
from cluster.client.keeping import OnState
from cluster.client.payloads import Payload
from cluster.client.sync.holdings import SyncHolding, raise_loss
from cluster.client.sync.portal import Portal
from cluster.client.tasks import Pool, Runner, Task
from cluster.errors import CoterieError, LockLost

D = TypeVar("D", bound=Callable[[Task], object])


class SyncJob(SyncHolding[Job]):
    """A job that we have. `with` touches it, ends it as done, or gives it back on an error."""

    def __init__(self, portal: Portal, inner: Job):
        super().__init__(portal, inner)
        self.id = inner.id
        self.tube = inner.tube
        self.key = inner.key
        self.priority = inner.priority
        self.attempt = inner.attempt
        self.body = inner.body

    def __enter__(self) -> Self:
        self._inner.demand()
        self.keep(threading.current_thread())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._inner.state == "free":
            return
        try:
            if error is None:
                self.done()
            else:
                self.release()
        except LockLost as loss:
            raise_loss(loss, error)
        except CoterieError:
            # What the body raised says more; its time gives the job back.
            if error is None:
                raise

    def keep(self, owner: threading.Thread | None = None) -> None:
        """Touch it from here on, as long as its owner lives."""

        async def keep() -> None:
            self._inner.keep(owner)

        self._portal.run(keep())

    def touch(self) -> None:
        """Have its time begin anew."""
        self._portal.run(self._inner.touch())

    def done(self) -> None:
        """It is done; delete it."""
        self._portal.run(self._inner.done())

    def release(self, *, delay: Length = 0, priority: int | None = None) -> None:
        """Give it back, for later."""
        self._portal.run(self._inner.release(delay=delay, priority=priority))

    def bury(self, *, priority: int | None = None) -> None:
        """Set it aside until somebody kicks it."""
        self._portal.run(self._inner.bury(priority=priority))


class SyncTube:
    """One tube, by its name."""

    def __init__(self, portal: Portal, inner: Tube):
        self._portal = portal
        self._inner = inner
        self.name = inner.name

    def put(
        self,
        body: Payload,
        *,
        priority: int = 0,
        delay: Length = 0,
        ttr: Length | None = None,
        key: str | None = None,
        dead_letter: tuple[str, int] | None = None,
    ) -> PutJob:
        """Put a job."""
        return self._portal.run(
            self._inner.put(
                body, priority=priority, delay=delay, ttr=ttr, key=key, dead_letter=dead_letter
            )
        )

    def cancel(self, job: int | str) -> bool:
        """Cancel a job by its id, or by its key; True if it will never be worked on."""
        return self._portal.run(self._inner.cancel(job))

    def reserve(
        self, *, wait: Length = 0, limit: int = 1, on_state: OnState | None = None
    ) -> list[SyncJob]:
        """Take jobs; none if none came within `wait`."""
        jobs = self._portal.run(self._inner.reserve(wait=wait, limit=limit, on_state=on_state))
        return [SyncJob(self._portal, job) for job in jobs]

    def show(self) -> dict[str, Any]:
        """Read its figures."""
        return self._portal.run(self._inner.show())

    def pause(self, length: Length) -> None:
        """Give out nothing for so long; 0 ends a pause."""
        self._portal.run(self._inner.pause(length))

    def kick(self, most: int = 1) -> int:
        """Make buried jobs ready again, or delayed ones if none is buried."""
        return self._portal.run(self._inner.kick(most))


class SyncWorker:
    """Works jobs off, each in a thread."""

    def __init__(self, portal: Portal, inner: Worker):
        self._portal = portal
        self._inner = inner

    def run(self) -> None:
        """Work until `stop`, then end what was begun."""
        self._portal.run(self._inner.run())

    def stop(self) -> None:
        """Take no more; from any thread, or a handler."""
        self._portal.soon(self._inner.stop)


class SyncPool:
    """One pool of tasks, by its name."""

    def __init__(self, portal: Portal, inner: Pool):
        self._portal = portal
        self._inner = inner
        self.name = inner.name

    def put(
        self,
        tasks: Iterable[Mapping[str, object] | str],
        *,
        replace: bool = False,
        cap: int | None = None,
        give_back: bool | None = None,
    ) -> dict[str, Any]:
        """Add or update tasks; with `replace`, those that are not named go."""
        return self._portal.run(
            self._inner.put(tasks, replace=replace, cap=cap, give_back=give_back)
        )

    def show(self) -> dict[str, Any]:
        """Read the pool, its workers and a page of its tasks."""
        return self._portal.run(self._inner.show())

    def task(self, task: str) -> dict[str, Any]:
        """Read one task."""
        return self._portal.run(self._inner.task(task))

    def run(self, task: str) -> dict[str, Any]:
        """Run a scheduled task now, besides its schedule."""
        return self._portal.run(self._inner.run(task))

    def pause(self, task: str) -> None:
        """Have a schedule stand still."""
        self._portal.run(self._inner.pause(task))

    def resume(self, task: str) -> None:
        """Have a schedule go on."""
        self._portal.run(self._inner.resume(task))

    def remove(self, task: str) -> None:
        """Take a task away."""
        self._portal.run(self._inner.remove(task))

    def delete(self) -> None:
        """Take the pool away, with its tasks."""
        self._portal.run(self._inner.delete())


class SyncRunner:
    """Does its share of a pool's tasks, each in a thread."""

    def __init__(self, portal: Portal, inner: Runner):
        self._portal = portal
        self._inner = inner

    @overload
    def task(self, do: D, /) -> D: ...
    @overload
    def task(self, do: str, /) -> Callable[[D], D]: ...
    def task(self, do: D | str, /) -> D | Callable[[D], D]:
        """Say what does the tasks: `@runner.task` for all, `@runner.task("weekly")` for one."""
        if not isinstance(do, str):
            in_threads(do)
            return self._inner.task(do)
        return self._inner.task(do)

    def run(self) -> None:
        """Work until `stop`, then end what was begun and hand the rest back."""
        self._portal.run(self._inner.run())

    def stop(self) -> None:
        """Begin nothing new; from any thread, or a task."""
        self._portal.soon(self._inner.stop)


def in_threads(handle: Callable[..., object]) -> None:
    """Refuse what cannot run in a thread.

    Raises:
        TypeError: it is a coroutine function.
    """
    if inspect.iscoroutinefunction(handle):
        raise TypeError(f"{handle!r} is a coroutine function; use the asyncio Client for it")
