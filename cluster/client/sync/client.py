"""The client without `async`.

RULE: words of `cluster.client.aio.Client`, each run through the portal.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from cluster.client.aio import Client, ClusterState, LockState, now_ms
from cluster.client.core import DEFAULT_ENDPOINTS, Answer, Policy, Request
from cluster.client.durations import Length
from cluster.client.jobs import Job, OnError, Worker
from cluster.client.keeping import OnState
from cluster.client.sync.holdings import SyncSession
from cluster.client.sync.lines import (
    SyncElection,
    SyncFifo,
    SyncResource,
    SyncRoom,
    SyncSemaphore,
)
from cluster.client.sync.portal import Closing, Portal
from cluster.client.sync.work import (
    SyncJob,
    SyncPool,
    SyncRunner,
    SyncTube,
    SyncWorker,
    in_threads,
)
from cluster.client.tasks import Task
from cluster.client.watching import Happening

T = TypeVar("T")


class SyncClient(Closing):
    """A way to one cluster. Use it as a context manager, or close it.

    Args:
        endpoints: `host:port` or URLs, as text with commas or one by one.
        policy: how patient it is.
        timeout_ms: how long a call may take in all; the wait of a long poll comes on top.
        clock: ms of a clock that never goes back, the same in all threads.
        tls: for endpoints behind https: see `cluster.client.aio.Client`.
    """

    def __init__(
        self,
        endpoints: str | Iterable[str] = DEFAULT_ENDPOINTS,
        *,
        policy: Policy | None = None,
        timeout_ms: int = 10_000,
        clock: Callable[[], int] = now_ms,
        tls: ssl.SSLContext | str | Path | None = None,
    ):
        self._wrap(Client(endpoints, policy=policy, timeout_ms=timeout_ms, clock=clock, tls=tls))

    def _wrap(self, inner: Client) -> None:
        self._inner = inner
        self._portal = Portal(inner.close)

    def close(self) -> None:
        """Close the sessions that `session` made, the connections and the background thread."""
        self._portal.close()

    def session(
        self,
        *,
        ttl: Length = "10s",
        name: str | None = None,
        meta: Mapping[str, object] | None = None,
        owner: threading.Thread | Literal["process"] | None = None,
        on_state: OnState | None = None,
    ) -> SyncSession:
        """A session that is kept alive while the thread that asks for it lives."""
        return SyncSession(
            self._portal,
            self._inner,
            ttl=ttl,
            name=name,
            meta=meta,
            owner=owner,
            on_state=on_state,
        )

    def semaphore(self, name: str) -> SyncSemaphore:
        """A semaphore, to be set up or looked at."""
        return SyncSemaphore(self._portal, self._inner.semaphore(name))

    def resource(self, name: str) -> SyncResource:
        """A resource of which tickets are offered."""
        return SyncResource(self._portal, self._inner.resource(name))

    def fifo(self, name: str) -> SyncFifo:
        """A fifo: `with client.fifo("checkout").turn() as turn`."""
        return SyncFifo(self._portal, self._inner.fifo(name))

    def room(self, name: str) -> SyncRoom:
        """A waiting room."""
        return SyncRoom(self._portal, self._inner.room(name))

    def tube(self, name: str) -> SyncTube:
        """A tube of jobs."""
        return SyncTube(self._portal, self._inner.tube(name))

    def worker(
        self,
        *tubes: str,
        handle: Callable[[SyncJob], object],
        concurrency: int = 1,
        on_error: OnError = "release",
        retry: Length = "1s",
        on_lost: Callable[[Job], object] | None = None,
    ) -> SyncWorker:
        """What works jobs of these tubes off, each in a thread."""
        in_threads(handle)
        inner = Worker(
            self._inner,
            *tubes,
            handle=handle,
            concurrency=concurrency,
            on_error=on_error,
            retry=retry,
            on_lost=on_lost,
            wrap=lambda job: SyncJob(self._portal, job),
        )
        return SyncWorker(self._portal, inner)

    def pool(self, name: str) -> SyncPool:
        """A pool of tasks."""
        return SyncPool(self._portal, self._inner.pool(name))

    def runner(
        self,
        pool: str,
        *,
        concurrency: int = 1,
        ttl: Length = "30s",
        name: str | None = None,
        retry: Length = "1s",
        tick: Length = "1s",
        on_error: Callable[[Task | None, Exception], object] | None = None,
    ) -> SyncRunner:
        """What does its share of a pool's tasks, each in a thread."""
        inner = self._inner.runner(
            pool,
            concurrency=concurrency,
            ttl=ttl,
            name=name,
            retry=retry,
            tick=tick,
            on_error=on_error,
        )
        return SyncRunner(self._portal, inner)

    def election(
        self,
        group: str,
        *,
        name: str | None = None,
        ttl: Length = "10s",
        on_elected: Callable[[int], object] | None = None,
        on_deposed: Callable[[int], object] | None = None,
    ) -> SyncElection:
        """The leadership of a group, to be stood for or looked at."""
        inner = self._inner.election(
            group, name=name, ttl=ttl, on_elected=on_elected, on_deposed=on_deposed
        )
        return SyncElection(self._portal, inner)

    def watch(
        self,
        *prefixes: str,
        session: str | None = None,
        after: int | None = None,
        silent_ms: int = 40_000,
    ) -> Generator[Happening, None, None]:
        """What happens from here on, or behind a position; goes on after failures."""
        watching = self._inner.watch(*prefixes, session=session, after=after, silent_ms=silent_ms)
        return self._portal.each(watching)

    def lock(self, name: str) -> LockState:
        """Read who holds a lock and who waits for it."""
        return self._run(self._inner.lock(name))

    def cluster(self) -> ClusterState:
        """Read the state of the cluster as the asked node sees it."""
        return self._run(self._inner.cluster())

    def explain(self, session: str, want: str | None = None) -> dict[str, Any]:
        """Read who is in the way of a session, since when, and what would help."""
        return self._run(self._inner.explain(session, want))

    def batch(
        self, commands: Iterable[Mapping[str, object]], *, atomic: bool = False
    ) -> list[dict[str, Any]]:
        """Carry several commands out in one step; with `atomic`, all of them or none."""
        return self._run(self._inner.batch(commands, atomic=atomic))

    def call(self, request: Request, *, timeout_ms: int | None = None) -> Answer:
        """Send any request, as often as it takes and is right."""
        return self._run(self._inner.call(request, timeout_ms=timeout_ms))

    def _run(self, doing: Coroutine[Any, Any, T]) -> T:
        return self._portal.run(doing)
