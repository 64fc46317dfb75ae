"""An HTTP/1.1 server that behaves as Go's does, over aiohttp's low-level one.

RULE: connections, limits and lifetime; what a request means is the handler's business.

Differences that clients of Go's server can see: a head has at most 1024 lines beside its 1 MiB in
all; a body may take a minute, and so may the reading of an answer; a connection at rest is closed
only when there are too many, the one that has rested longest first, and when the server ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias, cast

import structlog
from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_parser import HttpRequestParserPy, RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, _ErrInfo
from multidict import CIMultiDict

from cluster.errors import CoterieError
from cluster.fronts.gohttp import queries
from cluster.fronts.gohttp.exchange import (
    TEXT,
    Answer,
    BodyBroken,
    BodyTooLarge,
    Request,
    Serve,
)
from cluster.node import descriptors

CONNECTIONS_MAX: Final = 16_384
BODY_TIMEOUT_S: Final = 60.0
WRITE_TIMEOUT_S: Final = 60.0
LINGER_S: Final = 2.0
HALF_CLOSED_S: Final = 0.5
HEAD_BYTES_MAX: Final = 1024 * 1024 + 4096
"""As net/http: its DefaultMaxHeaderBytes, and what its reader may have read ahead."""

HEAD_LINES_MAX: Final = 1024
_NEVER_S: Final = 10 * 365 * 86_400.0

# aiohttp's parser refuses a target that is not ASCII, which Go takes and curl sends.
_REQUEST_LINE = re.compile(rb"\A([A-Z]+ )([^ \r\n]*)( HTTP/1\.[01]\r\n)")
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")

# So are lines that end in LF alone, which people type, and methods that it does not know.
_ODD_LINE = re.compile(
    rb"\A(?!(?:GET|HEAD|POST|PUT|DELETE|PATCH|OPTIONS|CONNECT) [^\n]*\r\n)"
    rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [^ \r\n]+ HTTP/1\.[01]\r?\n"
)

_BaseServer: TypeAlias = web.Server
_log = structlog.get_logger("cluster.fronts")


class GoServer:
    """Serves HTTP until it is stopped.

    A handler that raises a `CoterieError`, or anything else, has no answer: the connection is cut,
    which clients of Go's servers take for what it is, while an error's status may end them.

    Args:
        name: in the log.
        serve: answers each request; cancelled when its client goes away.
        connections_max: open at once. One more costs the connection that has rested longest, or is
            closed unread when none rests.
        waits: tells of a target whether requests to it may take long. Then a client that closes its
            side, even by half, is gone, as for Go's `Request.Context`. Otherwise it still gets its
            answers; where some targets wait, those that take no longer than HALF_CLOSED_S.
        write_timeout_s: how long a client may take to read an answer.
    """

    def __init__(
        self,
        name: str,
        serve: Serve,
        *,
        connections_max: int = CONNECTIONS_MAX,
        waits: Callable[[str], bool] | None = None,
        write_timeout_s: float = WRITE_TIMEOUT_S,
    ):
        self.name = name
        self.refused = 0
        self.write_timeout_s = write_timeout_s
        self._serve = serve
        self._connections_max = connections_max
        self._waits = waits
        self._server: _BaseServer | None = None
        self._listening: list[asyncio.Server] = []
        self._open: set[_Connection] = set()
        # In order of how long they have rested: the first longest.
        self._resting: dict[_Connection, None] = {}
        # Those that have asked nothing yet, in order of their age.
        self._silent: dict[_Connection, None] = {}
        self._is_draining = False

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of every socket it listens on."""
        return [sock.getsockname()[:2] for server in self._listening for sock in server.sockets]

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._open)

    @property
    def in_progress(self) -> int:
        """Requests that have no answer yet."""
        return sum(connection.is_busy for connection in self._open)

    async def start(self, host: str, port: int, *, backlog: int = 1024) -> None:
        """Listen.

        Raises:
            OSError: the address is taken or not ours.
        """
        loop = asyncio.get_running_loop()
        if self._server is None:
            self._server = web.Server(self._handle, handler_cancellation=True, loop=loop)
        self._listening.append(await loop.create_server(self._accept, host, port, backlog=backlog))

    async def newcomers(self, within_s: float) -> None:
        """Wait until everybody has asked who has connected just now.

        Args:
            within_s: how long ago that may be, and how long we wait at most.
        """
        since_s = asyncio.get_running_loop().time() - within_s
        silent: list[asyncio.Future[None]] = []
        for connection in reversed(self._silent):
            if connection.opened_s < since_s:
                break
            silent.append(connection.until_asked())
        if silent:
            await asyncio.wait(silent, timeout=within_s)

    def drain(self) -> None:
        """Take no new connections; answers from now on end theirs."""
        self._is_draining = True
        for listening in self._listening:
            listening.close()

    async def stop(self, grace_s: float) -> None:
        """End: requests in progress have so long to be answered, then everything is closed."""
        self.drain()
        for connection in tuple(self._resting):
            connection.force_close()
        busy = [connection.until_closed() for connection in self._open if connection.is_busy]
        if busy:
            await asyncio.wait(busy, timeout=grace_s)
        if self._server is not None:
            for connection in tuple(self._open):
                connection.abort()
            await self._server.shutdown(0.0)
            self._server = None

    def _accept(self) -> asyncio.Protocol:
        assert self._server is not None
        if len(self._open) >= self._connections_max or not descriptors.is_one_left():
            longest = next(iter(self._resting), None)
            if longest is None:
                self.refused += 1
                return _Refusing()
            self.closed(longest)
            longest.force_close()
        return _Connection(self, self._server, asyncio.get_running_loop(), waits=self._waits)

    # What connections tell.

    def opened(self, connection: _Connection) -> None:
        """One more connection; it rests until it has sent a whole head."""
        self._open.add(connection)
        self._resting[connection] = None
        self._silent[connection] = None

    def asked(self, connection: _Connection) -> None:
        """It has asked something: until it has all of the answer, it does not rest."""
        self._resting.pop(connection, None)
        self._silent.pop(connection, None)

    def answered(self, connection: _Connection) -> None:
        """It has its answers."""
        if connection in self._open:
            self._resting[connection] = None

    def closed(self, connection: _Connection) -> None:
        """One connection less; harmless when it was told before."""
        self._open.discard(connection)
        self._resting.pop(connection, None)
        self._silent.pop(connection, None)

    async def _handle(self, base: web.BaseRequest) -> web.StreamResponse:
        connection = cast(_Connection, base.protocol)
        try:
            answer = await self._answer(base)
        except asyncio.CancelledError:
            raise
        except (CoterieError, TimeoutError) as error:
            _log.info("a request has no answer", front=self.name, reason=str(error))
            connection.abort()
            return web.Response()
        except Exception:  # noqa: BLE001 - whatever it is, only this connection ends
            _log.exception("a connection ended by an error of ours", front=self.name)
            connection.abort()
            return web.Response()
        response = _Response(answer)
        if answer.closes or self._is_draining or connection.is_at_end:
            response.force_close()
        return response

    async def _answer(self, base: web.BaseRequest) -> Answer:
        target, _, raw_query = base.raw_path.partition("?")
        if target.startswith(("http://", "https://")):
            _, slash, rest = target.partition("://")[2].partition("/")
            target = slash + rest or "/"
        if target == "*" and base.method == hdrs.METH_OPTIONS:
            return Answer()
        try:
            path = queries.unescape(target)
        except queries.BadEscape:
            return _bad_request(400, "400 Bad Request")
        request = Request(
            method=base.method,
            path=path,
            raw_path=target,
            raw_query=raw_query,
            headers=cast("Mapping[str, str]", base.headers),
            peer=cast(_Connection, base.protocol).peer,
            read_body=_Body(base).read,
        )
        return await self._serve(request)


class _Body:
    """Reads a request's body, once."""

    __slots__ = ("_base", "_whole")

    def __init__(self, base: web.BaseRequest):
        self._base = base
        self._whole: bytes | None = None

    async def read(self, most: int) -> bytes:
        if self._whole is None:
            self._whole = await self._read(most)
        return self._whole

    async def _read(self, most: int) -> bytes:
        base = self._base
        connection = cast(_Connection, base.protocol)
        if not base.body_exists:
            return b""
        if connection.is_over and not base.content.is_eof():
            raise BodyBroken
        if base.content_length is not None and base.content_length > most:
            raise BodyTooLarge
        if base.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
            await base.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            # aiohttp takes a head to be sent once anything is.
            base.writer.output_size = 0
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                while part := await base.content.readany():
                    size += len(part)
                    if size > most:
                        raise BodyTooLarge
                    parts.append(part)
        except web.RequestPayloadError as error:
            raise BodyBroken(str(error)) from None
        return b"".join(parts)


class _LenientParser(HttpRequestParserPy):
    """Takes lines that end in LF alone, and any word as a method."""

    def feed_data(self, data: bytes, *_: Any, **__: Any) -> Any:
        """As its base, but for the end of lines."""
        return super().feed_data(data, b"\n")

    def parse_message(self, lines: list[bytes]) -> RawRequestMessage:
        """As its base, but leaves the method in its own letters."""
        return super().parse_message(lines)._replace(method=lines[0].partition(b" ")[0].decode())


class _Connection(RequestHandler):
    """aiohttp's view of a connection, with Go's words for what is no HTTP.

    Attributes:
        peer: address and port of the client.
        opened_s: when, on the loop's clock.
        is_over: nothing more comes of what a body still lacks: the client sends no more, or what
            it sent last is no HTTP.
    """

    __slots__ = (
        "_answered",
        "_asking",
        "_closing",
        "_giving_up",
        "_head_bytes",
        "_is_between",
        "_is_half_closed",
        "_is_refused",
        "_last_body",
        "_last_target",
        "_owner",
        "_waits",
        "is_over",
        "opened_s",
        "peer",
    )

    def __init__(
        self,
        owner: GoServer,
        server: _BaseServer,
        loop: asyncio.AbstractEventLoop,
        *,
        waits: Callable[[str], bool] | None,
    ):
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=_NEVER_S,
            access_log=None,  # type: ignore[arg-type]  # none at all is what its own code looks for
            auto_decompress=False,
            max_line_size=HEAD_BYTES_MAX,
            max_field_size=HEAD_BYTES_MAX,
            max_headers=HEAD_LINES_MAX,
            lingering_time=LINGER_S,
        )
        self._owner = owner
        self._waits = waits
        self._asking: asyncio.Future[None] | None = None
        self._closing: asyncio.Future[None] | None = None
        self._giving_up: asyncio.TimerHandle | None = None
        self._answered = 0
        self._is_half_closed = False
        self._last_body: StreamReader = EMPTY_PAYLOAD
        self._last_target = ""
        # Of a head that has begun and has no end yet, about.
        self._head_bytes = 0
        # The parser holds nothing: what comes is the begin of a request.
        self._is_between = True
        self._is_refused = False
        self.is_over = False
        self.opened_s = loop.time()
        self.peer = ""

    @property
    def is_busy(self) -> bool:
        """A request of it has no answer yet."""
        return self._request_count > self._answered

    @property
    def is_at_end(self) -> bool:
        """The client sends no more, and the present request is its last."""
        return self._is_half_closed and not self._messages

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take note of it, and of who it is."""
        name = transport.get_extra_info("peername")
        if isinstance(name, tuple):
            host = f"[{name[0]}]" if ":" in name[0] else name[0]
            self.peer = f"{host}:{name[1]}"
        self._owner.opened(self)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget it."""
        self._owner.closed(self)
        self._has_asked()
        if self._giving_up is not None:
            self._giving_up.cancel()
        if self._closing is not None and not self._closing.done():
            self._closing.set_result(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse; tell a body that the parser gave up, which aiohttp leaves waiting."""
        if not data.isascii() and self._last_body.is_eof():
            data = _REQUEST_LINE.sub(_escaped_line, data, count=1)
        if self._is_refused:
            return
        if self._is_between and not self.is_busy and _ODD_LINE.match(data):
            self._read_leniently()
        known = self._request_count
        super().data_received(data)
        if self._messages:
            message, self._last_body = self._messages[-1]
            self._last_target = "" if isinstance(message, _ErrInfo) else message.path
            self._owner.asked(self)
            self._has_asked()
            if isinstance(self._messages[-1][0], _ErrInfo):
                self._end_body()
        is_whole = self._request_count > known and self._last_body is EMPTY_PAYLOAD
        self._is_between = is_whole and data.endswith(b"\r\n\r\n")
        if self._request_count > known or not self._last_body.is_eof():
            self._head_bytes = 0
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES_MAX:
            self._refuse(LineTooLong(data[:100], HEAD_BYTES_MAX))

    def _read_leniently(self) -> None:
        """Have all that comes read by the slower parser that takes what Go's takes."""
        self._is_between = False
        self._parser = _LenientParser(
            self,
            self._loop,
            self._read_bufsize,
            max_line_size=self.max_line_size,
            max_headers=self.max_headers,
            max_field_size=self.max_field_size,
            payload_exception=web.RequestPayloadError,
            auto_decompress=False,
        )

    def _refuse(self, error: LineTooLong) -> None:
        """Answer what is no request, as the parser has it answered, and take in nothing more."""
        self._is_refused = True
        self._request_count += 1
        self._messages.append((_ErrInfo(400, error, str(error)), EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def eof_received(self) -> bool | None:  # type: ignore[override]  # the base closes always
        """The client sends no more; with nothing in progress that is the end."""
        if not self.is_busy:
            return None
        if self._waits is not None:
            if any(map(self._waits, self._targets())):
                return None
            # It may have closed all of its socket, which looks the same from here.
            loop = asyncio.get_running_loop()
            self._giving_up = loop.call_later(HALF_CLOSED_S, self.abort)
        self._is_half_closed = True
        self._end_body()
        return True

    def _targets(self) -> Iterator[str]:
        """Of the requests that have no answer yet."""
        # For a turn of the loop a request stands neither in the queue nor here.
        yield self._last_target
        if self._current_request is not None:
            yield self._current_request.raw_path
        for message, _ in self._messages:
            if not isinstance(message, _ErrInfo):
                yield message.path

    def _end_body(self) -> None:
        self.is_over = True
        # Nor is there anything to wait for behind the answer.
        self._lingering_time = 0.0
        request = self._current_request
        if request is not None and not request.content.is_eof():
            request.content.set_exception(web.RequestPayloadError("the body has no end"))

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Write an answer; every request ends here, also one that was no HTTP."""
        try:
            async with asyncio.timeout(self._owner.write_timeout_s):
                return await super().finish_response(request, resp, start_time)
        except TimeoutError:
            self.abort()
            return resp, True
        finally:
            self._answered += 1
            if not self.is_busy:
                self._owner.answered(self)

    def abort(self) -> None:
        """Cut it, whatever is in progress."""
        transport = self.transport
        self.force_close()
        if transport is not None:
            transport.abort()

    def until_asked(self) -> asyncio.Future[None]:
        """Return what is done when it has asked something, or is closed."""
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_future()
        return self._asking

    def _has_asked(self) -> None:
        if self._asking is not None and not self._asking.done():
            self._asking.set_result(None)

    def until_closed(self) -> asyncio.Future[None]:
        """Return what is done when the connection is closed."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_future()
        return self._closing

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what never reached a handler: a head that is no HTTP, or too large."""
        if isinstance(exc, LineTooLong):
            answer = _bad_request(431, "431 Request Header Fields Too Large")
        else:
            answer = _bad_request(400, "400 Bad Request")
        response = _Response(answer)
        response.force_close()
        # What could not be read is taken for the oldest version; Go answers in its own.
        request._version = HttpVersion11
        return response


class _Response(web.Response):
    """An answer without what aiohttp would add on its own."""

    def __init__(self, answer: Answer):
        super().__init__(
            body=answer.body, status=answer.status, headers=CIMultiDict(answer.headers)
        )
        self._is_typed = hdrs.CONTENT_TYPE in self.headers

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        # Go's server does not name itself, and guesses no type for what has none.
        self.headers.popall(hdrs.SERVER, None)
        if not self._is_typed:
            self.headers.popall(hdrs.CONTENT_TYPE, None)


class _Refusing(asyncio.Protocol):
    """What a connection over the limit gets: the door."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close it, unread."""
        with contextlib.suppress(OSError):
            cast(asyncio.Transport, transport).abort()


def _escaped_line(found: re.Match[bytes]) -> bytes:
    """A request line with its target percent-encoded."""
    method, target, version = found.groups()
    return method + _BEYOND_ASCII.sub(lambda byte: b"%%%02X" % byte[0][0], target) + version


def _bad_request(status: int, text: str) -> Answer:
    return Answer(status, text.encode(), (("Content-Type", TEXT),), closes=True)
