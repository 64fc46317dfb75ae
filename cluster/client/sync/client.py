"""The client without `async`.

RULE: words of `cluster.client.aio.Client`, each run through the portal.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from cluster.client.aio import Client, ClusterState, LockState, now_ms
from cluster.client.core import DEFAULT_ENDPOINTS, Answer, Policy, Request
from cluster.client.durations import Length
from cluster.client.keeping import OnState
from cluster.client.sync.holdings import SyncSession
from cluster.client.sync.portal import Portal

T = TypeVar("T")


class SyncClient:
    """A way to one cluster. Use it as a context manager, or close it.

    Args:
        endpoints: `host:port` or URLs, as text with commas or one by one.
        policy: how patient it is.
        timeout_ms: how long a call may take in all; the wait of a long poll comes on top.
        clock: ms of a clock that never goes back, the same in all threads.
    """

    def __init__(
        self,
        endpoints: str | Iterable[str] = DEFAULT_ENDPOINTS,
        *,
        policy: Policy | None = None,
        timeout_ms: int = 10_000,
        clock: Callable[[], int] = now_ms,
    ):
        self._portal = Portal()
        self._inner = Client(endpoints, policy=policy, timeout_ms=timeout_ms, clock=clock)

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
        """Close the sessions that `session` made, the connections and the background thread."""
        if not self._portal.is_closed:
            self._portal.run(self._inner.close())
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
