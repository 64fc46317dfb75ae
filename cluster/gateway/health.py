"""Health for probes, metrics for Prometheus, and the document that describes all of it.

RULE: cheap and local: a probe never touches the log, and a page of metrics is made at most once a
second whoever asks.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from cluster.gateway import docs, openapi
from cluster.gateway.replies import Answer, Problem
from cluster.gateway.requests import Ask
from cluster.gateway.routes import Lane, Local, Route
from cluster.node.face import NodeFace
from cluster.telemetry.metrics import Metrics


class Live(msgspec.Struct, frozen=True):
    """The event loop turns."""

    live: bool = True


class Ready(msgspec.Struct, frozen=True):
    """The node serves."""

    ready: bool = True


async def live(_node: NodeFace, _ask: Ask) -> Answer:
    """Answer as long as the loop runs; whether the node can serve is another question."""
    return _LIVE


async def ready(node: NodeFace, _ask: Ask) -> Answer:
    """Tell whether this node can serve now, and why not."""
    status = node.status()
    if status.ready:
        return _READY
    raise Problem("not_ready", status.why_not_ready or "the node is not ready yet")


def routes(
    metrics: Metrics, clock: Callable[[], float], others: tuple[Route, ...], version: str
) -> tuple[Route, ...]:
    """Make the rows of this file, which need what the server knows.

    Args:
        metrics: what `/metrics` shows.
        clock: seconds, any start; decides when a page of metrics is too old.
        others: every other route, for the document.
        version: of the product.
    """

    async def show_metrics(_node: NodeFace, _ask: Ask) -> Answer:
        return Answer(200, raw=(metrics.page(clock()), metrics.CONTENT_TYPE))

    async def show_docs(_node: NodeFace, _ask: Ask) -> Answer:
        return Answer(200, raw=(page, docs.CONTENT_TYPE), fields=docs.FIELDS)

    async def show_openapi(_node: NodeFace, _ask: Ask) -> Answer:
        return Answer(200, raw=(document, "application/json"))

    rows: tuple[Route, ...] = (
        Local(
            method="GET",
            path="/livez",
            summary="Answer as long as the process runs.",
            tag="health",
            answer=Live,
            lane=Lane.FREE,
            ignores_query=True,
            act=live,
        ),
        Local(
            method="GET",
            path="/readyz",
            summary="Tell whether this node can serve now.",
            tag="health",
            answer=Ready,
            codes=("not_ready",),
            lane=Lane.FREE,
            ignores_query=True,
            act=ready,
        ),
        Local(
            method="GET",
            path="/metrics",
            summary="Figures for Prometheus, in base units.",
            tag="health",
            lane=Lane.FREE,
            ignores_query=True,
            act=show_metrics,
        ),
        Local(
            method="GET",
            path="/openapi.json",
            summary="This API as an OpenAPI 3.1 document.",
            tag="health",
            lane=Lane.FREE,
            ignores_query=True,
            act=show_openapi,
        ),
        Local(
            method="GET",
            path="/docs",
            summary="This API as a page to read.",
            tag="health",
            lane=Lane.FREE,
            ignores_query=True,
            act=show_docs,
        ),
    )
    document, page = _DOCUMENTS.of(others, rows, version)
    return rows


class _Documents:
    """The documents of one table of routes, made once for all servers of a process that have it:
    tests start many, and making them takes longer than most tests.
    """

    def __init__(self) -> None:
        self._last: tuple[tuple[Route, ...], str, bytes, bytes] | None = None

    def of(
        self, others: tuple[Route, ...], rows: tuple[Route, ...], version: str
    ) -> tuple[bytes, bytes]:
        """The document and the page of `others` and of our own `rows`, which are always the same."""
        last = self._last
        if last is None or last[0] is not others or last[1] != version:
            document = openapi.document((*others, *rows), version)
            self._last = last = (others, version, document, docs.page(document))
        return last[2], last[3]


_DOCUMENTS = _Documents()

_LIVE = Answer(200, Live())
_READY = Answer(200, Ready())
