"""Connections under limits: how many, and how long one may dawdle.

RULE: bookkeeping that is given the time, and no timer of its own: a slow connection only harms when
others come, so whoever comes clears the slow ones away. A connection that dawdles in a body is the
reader's business (`endpoint.py`), one that idles is closed by aiohttp's own keep-alive timeout.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, cast

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from cluster.gateway import replies
from cluster.gateway.replies import Problem


class Connections:
    """All connections of one server.

    Args:
        limit: how many at most; further ones are told 503 at once, unless an idle one can go.
        head_timeout_s: how long a new connection may take to its first whole request head.
        clock: seconds, never falling.
    """

    def __init__(self, *, limit: int, head_timeout_s: float, clock: Callable[[], float]):
        self._limit = limit
        self._head_timeout_s = head_timeout_s
        self._clock = clock
        # Insertion order is the order of time in both: the first is the one that waits longest.
        self._silent: dict[RequestHandler, float] = {}
        self._idle: dict[RequestHandler, None] = {}
        self._open: set[RequestHandler] = set()
        self.refused = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._open)

    @property
    def silent(self) -> int:
        """Connections that have not sent one whole head yet."""
        return len(self._silent)

    def make_room(self) -> bool:
        """Clear away what dawdles, then say whether one more connection may come."""
        now = self._clock()
        while self._silent:
            connection, since = next(iter(self._silent.items()))
            if now - since < self._head_timeout_s:
                break
            self._evict(connection)
        if len(self._open) >= self._limit and self._idle:
            self._evict(next(iter(self._idle)))
        if len(self._open) < self._limit:
            return True
        self.refused += 1
        return False

    def opened(self, connection: RequestHandler) -> None:
        """Take a new connection in."""
        self._open.add(connection)
        self._silent[connection] = self._clock()

    def closed(self, connection: RequestHandler) -> None:
        """Forget a connection; harmless when it is forgotten already."""
        self._open.discard(connection)
        self._silent.pop(connection, None)
        self._idle.pop(connection, None)

    def begin(self, connection: RequestHandler) -> None:
        """A whole head of a request has come: from now on others watch its pace."""
        self._silent.pop(connection, None)
        self._idle.pop(connection, None)

    def end(self, connection: RequestHandler) -> None:
        """The request is answered."""
        if connection in self._open:
            self._idle[connection] = None

    def _evict(self, connection: RequestHandler) -> None:
        self.closed(connection)
        self.evicted += 1
        connection.force_close()


class Connection(RequestHandler):
    """One HTTP connection; refuses what aiohttp cannot parse in our own words."""

    __slots__ = ("_connections",)

    def __init__(
        self,
        server: web.Server,
        connections: Connections,
        loop: asyncio.AbstractEventLoop,
        **options: Any,
    ):
        super().__init__(server, loop=loop, **options)
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connections.opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connections.closed(self)
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what never reached a handler: a head that is no HTTP, or too large."""
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            # For its line in the log; the words to the client are ours.
            super().handle_error(request, status, exc, message)
            problem = Problem("internal", "an error of ours; this node's log has more")
        else:
            detail = (message or "is not HTTP/1.1").partition("\n")[0][:200]
            is_large = isinstance(exc, LineTooLong)
            problem = Problem(
                "head_too_large" if is_large else "bad_request",
                f"head: {detail}",
                {"field": "head"},
            )
        response = plain_response(problem)
        response.force_close()
        return response


class Refusing(asyncio.Protocol):
    """What a connection over the limit gets: one answer and the door."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say why, and close."""
        # uvloop's transports are none by class, only by what they can.
        stream = cast(asyncio.Transport, transport)
        stream.write(_FULL)
        stream.close()


def plain_response(problem: Problem) -> web.Response:
    """Make the JSON answer to a request of which we know no more than that it is wrong."""
    return web.Response(
        status=problem.status,
        body=replies.encode(problem.document(), wants_cbor=False),
        headers={"Content-Type": replies.PROBLEM_JSON, "Server": SERVER, **problem.headers},
    )


def _full_answer() -> bytes:
    problem = Problem("overloaded", "this node has as many connections as it can take")
    body = msgspec.json.encode(problem.document())
    head = (
        f"HTTP/1.1 {problem.status} Service Unavailable\r\n"
        f"Content-Type: {replies.PROBLEM_JSON}\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"Server: {SERVER}\r\n"
        f"Retry-After: {problem.kind.retry_after_s}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body


SERVER: Final = "Coterie"
_FULL: Final = _full_answer()
