"""Connections under limits: how many, and how long one may dawdle.

RULE: bookkeeping that is given the time, and no timer of its own: a slow connection only harms when
others come, so whoever comes clears the slow ones away. A connection that dawdles in a body is the
reader's business (`endpoint.py`); one that idles is closed by `sweep`, which the server calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any, Protocol, cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from cluster.gateway import rendering
from cluster.gateway.replies import Problem
from cluster.node import descriptors


class Owner(Protocol):
    """Who owns a client's connection (`shortway.py`).

    Attributes:
        has_ended: the client writes no more, and may still read.
        is_waiting: aiohttp's request in progress is one that waits: such a client has hung up when
            it writes no more.
    """

    has_ended: bool
    is_waiting: bool

    @property
    def is_idle(self) -> bool:
        """No request of it is in progress."""

    def force_close(self) -> None:
        """Close it, whatever is in progress."""

    def until_answered(self) -> asyncio.Future[None] | None:
        """Return what is done once its request on the short way is; None where there is none."""

    def inner_answered(self, *, goes_on: bool) -> None:
        """One more request that aiohttp was given has its answer, which has been written."""


class Connections:
    """All connections of one server.

    Args:
        limit: how many at most; further ones are told 503 at once, unless an idle one can go.
        head_timeout_s: how long a new connection may take to its first whole request head.
        idle_timeout_s: how long a connection may stay between two requests.
        clock: seconds, never falling.
    """

    def __init__(
        self,
        *,
        limit: int,
        head_timeout_s: float,
        idle_timeout_s: float = 75.0,
        clock: Callable[[], float],
    ):
        self._limit = limit
        self._head_timeout_s = head_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._clock = clock
        # Insertion order is the order of time in both: the first is the one that waits longest.
        self._silent: dict[Owner, float] = {}
        self._idle: dict[Owner, float] = {}
        self._open: set[Owner] = set()
        self.refused = 0
        self.evicted = 0

    def __iter__(self) -> Iterator[Owner]:
        return iter(list(self._open))

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
        is_full = len(self._open) >= self._limit or not descriptors.is_one_left()
        if is_full and self._idle:
            self._evict(next(iter(self._idle)))
            is_full = len(self._open) >= self._limit
        if not is_full:
            return True
        self.refused += 1
        return False

    def sweep(self) -> None:
        """Close what has been idle, or silent from the start, for longer than is allowed."""
        before = self._clock() - self._idle_timeout_s
        for waiting in (self._silent, self._idle):
            while waiting:
                connection, since = next(iter(waiting.items()))
                if since > before:
                    break
                self.closed(connection)
                connection.force_close()

    def opened(self, connection: Owner) -> None:
        """Take a new connection in."""
        self._open.add(connection)
        self._silent[connection] = self._clock()

    def closed(self, connection: Owner) -> None:
        """Forget a connection; harmless when it is forgotten already."""
        self._open.discard(connection)
        self._silent.pop(connection, None)
        self._idle.pop(connection, None)

    def begin(self, connection: Owner) -> None:
        """A whole head of a request has come: from now on others watch its pace."""
        self._silent.pop(connection, None)
        self._idle.pop(connection, None)

    def end(self, connection: Owner, now: float | None = None) -> None:
        """The request is answered, just now or at `now`."""
        if connection in self._open:
            self._idle[connection] = self._clock() if now is None else now

    def _evict(self, connection: Owner) -> None:
        self.closed(connection)
        self.evicted += 1
        connection.force_close()


class Connection(RequestHandler):
    """aiohttp's view of a connection; refuses what aiohttp cannot parse in our own words.

    Attributes:
        owner: has the connection; gives it the bytes that are aiohttp's.

    Args:
        position: of the log, as the node has applied it now.
    """

    __slots__ = ("_position", "owner")

    def __init__(
        self,
        owner: Owner,
        position: Callable[[], int],
        server: web.Server,
        loop: asyncio.AbstractEventLoop,
        **options: Any,
    ):
        super().__init__(server, loop=loop, **options)
        self.owner = owner
        self._position = position

    @property
    def has_more(self) -> bool:
        """Requests have come that are not begun yet."""
        return bool(self._messages)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Write an answer; every request ends here, also one that was no HTTP."""
        sent, is_broken = await super().finish_response(request, resp, start_time)
        self.owner.inner_answered(goes_on=bool(sent.keep_alive) and not is_broken)
        return sent, is_broken

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
        finished = rendering.of_problem(problem, False, self._position(), is_last=True)
        response = web.Response(
            status=finished.status,
            body=finished.body,
            headers=rendering.header_fields(finished),
        )
        response.force_close()
        return response


class Refusing(asyncio.Protocol):
    """What a connection over the limit gets: one answer and the door.

    Args:
        position: of the log, as the node has applied it.
    """

    def __init__(self, position: int) -> None:
        self._position = position

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say why, and close."""
        # uvloop's transports are none by class, only by what they can.
        stream = cast(asyncio.Transport, transport)
        problem = Problem("overloaded", "this node has as many connections as it can take")
        finished = rendering.of_problem(problem, False, self._position, is_last=True)
        stream.write(rendering.message(finished))
        stream.close()


def hung_up() -> Problem:
    """Return the answer to who would wait, and has closed its side."""
    return Problem("withdrawn", "the client has closed its side, and waits no more; ask again")
