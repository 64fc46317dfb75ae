"""The short way beside aiohttp's: the same bytes get the same answers, however they come."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.errors import NoLeader, Overloaded, Timeout
from cluster.gateway import heads, shortway
from cluster.gateway.server import Gateway, GatewaySettings
from cluster.gateway.shortway import ShortWay
from cluster.machine.commands import AcquireLock, OpenSession, ReleaseLock
from cluster.testing.local_node import LocalNode
from cluster.wire import cbor
from tests.gateway.conftest import Api, MakeApi, until
from tests.gateway.test_server import OPEN, Wire, until_inside

T = TypeVar("T")

TURNS = 40
"""Of the loop, after which nothing more happens by itself: there are no sockets to wait for."""

ONE, TWO, GONE = "1-1111111111111111", "2-2222222222222222", "3-3333333333333333"
"""Two live sessions and one that has ended, on every node below. ONE holds the lock `held`."""


class Pipe(asyncio.Transport):
    """A transport that ends here: keeps what was written, and lets the test say when it is full."""

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self.written = b""
        self.is_reading = True
        self.breaks_with: Exception | None = None
        self._protocol = protocol
        self._is_closing = False
        protocol.connection_made(self)

    def write(self, data: Any) -> None:
        if self.breaks_with is not None:
            raise self.breaks_with
        assert not self._is_closing
        self.written += bytes(data)

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


class Side:
    """One server and the node behind it."""

    def __init__(self, *, short: bool, **more: Any) -> None:
        self.node = LocalNode()
        self.gateway = Gateway(
            self.node, GatewaySettings(short_way=short, **{"linger_ms": 20} | more)
        )

    async def open(self) -> None:
        await self.gateway.start("127.0.0.1", 0)
        for command in (
            OpenSession("1" * 16, 60_000),
            OpenSession("2" * 16, 60_000),
            OpenSession("3" * 16, 1_000),
        ):
            await self.order(command)
        self.node.advance(2_000)
        await self.order(AcquireLock(ONE, "held"))
        self.node.taken.clear()

    async def order(self, command: Any) -> None:
        """Have a command applied, past the gateway."""
        self.node.submit(command, lambda reply: None)
        await turns()

    def connect(self) -> tuple[Any, Pipe]:
        """Open a connection without a socket."""
        protocol = self.gateway.accept()
        return protocol, Pipe(protocol)

    async def tell(self, pieces: Iterable[bytes], then: Any = None) -> tuple[bytes, bool]:
        """Send pieces, do something, hang up; return what was written and whether it was closed."""
        protocol, pipe = self.connect()
        for piece in pieces:
            if not pipe.is_closing():
                protocol.data_received(piece)
            await turns()
        if then is not None:
            await then(self)
        told = plain(pipe.written), pipe.is_closing()
        pipe.close()
        await turns()
        return told

    async def close(self) -> None:
        await self.gateway.stop(grace_s=0.1)


class Pair:
    """The same server twice, with the short way and without."""

    def __init__(self, **more: Any) -> None:
        self.short, self.long = Side(short=True, **more), Side(short=False, **more)

    async def open(self) -> Pair:
        await self.short.open()
        await self.long.open()
        return self

    async def same(self, *pieces: bytes, then: Any = None) -> bytes:
        """Tell both the same; return the answer that both gave.

        aiohttp alone is told request by request, as long as they are plain: where one is broken it
        drops those that came with it, unanswered, so that its answers depend on packets.
        """
        got, closed = await self.short.tell(pieces, then)
        wanted, wanted_closed = await self.long.tell(apart(pieces), then)
        assert got == wanted
        assert closed == wanted_closed
        assert self.short.node.parked == self.long.node.parked == 0
        assert asked(self.short) == asked(self.long)
        assert len(self.short.node.hung_up) == len(self.long.node.hung_up)
        assert self.short.gateway.in_progress == self.long.gateway.in_progress == 0
        return got

    async def close(self) -> None:
        await self.short.close()
        await self.long.close()


def apart(pieces: Iterable[bytes]) -> list[bytes]:
    """Cut pieces further, where one plain request ends and another begins."""
    pieces = list(pieces)
    data, at, reader = b"".join(pieces), 0, heads.HeadReader()
    ends = [0, *accumulate(map(len, pieces))]
    while (request := reader.read(data[at:], data[at:].find(heads.END))) is not None:
        at += request.size
        ends.append(at)
    return [data[start:end] for start, end in pairwise(sorted(set(ends))) if start < len(data)]


def asked(side: Side) -> str:
    """What the node was asked, without what is drawn by lot."""
    return re.sub(r"nonce='\w*'", "", repr(side.node.taken))


def plain(answer: bytes) -> bytes:
    """An answer without what differs between two runs: dates, and ids drawn by lot."""
    answer = re.sub(rb"Date: [^\r]*", b"Date: now", answer)
    answer = re.sub(rb'"digest":"\w*"', b'"digest":""', answer)
    return re.sub(rb"([0-9a-f]+)-(?!(\d)\2{15})[0-9a-f]{16}", rb"\1-drawn", answer)


async def turns() -> None:
    """Let the loop turn until all that was begun is done."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


@pytest.fixture
async def pair() -> Any:
    """Two servers to compare."""
    made = await Pair().open()
    yield made
    await made.close()


@pytest.fixture
async def side() -> Any:
    """One server with the short way."""
    made = Side(short=True)
    await made.open()
    yield made
    await made.close()


def ask(line: str, body: bytes | None = None, *fields: str | bytes, host: str = "x") -> bytes:
    """Spell a request."""
    lines = [line.encode("latin-1") + b" HTTP/1.1", b"Host: " + host.encode()]
    lines += [field if isinstance(field, bytes) else field.encode("latin-1") for field in fields]
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", b""]) + (body or b"")


def acquire(name: str = "a", session: str = ONE, *fields: str) -> bytes:
    """Spell a request for a lock."""
    return ask(f"POST /v1/locks/{name}/acquire", b'{"session":"%s"}' % session.encode(), *fields)


JSON, CBOR = "Content-Type: application/json", "Content-Type: application/cbor"
BODY = b'{"session":"%s"}' % ONE.encode()
SESSION = b'{"ttl":"30s","name":"n","meta":{"b":1,"a":[null,"\xc3\xa9"]}}'

# Served the short way, each alone on a fresh connection.
PLAIN = {
    "open": ask("POST /v1/sessions", SESSION, JSON),
    "open_bare": ask("POST /v1/sessions", b'{"ttl":500}'),
    "open_curl": ask(
        "POST /v1/sessions", b'{"ttl":500}', "Content-Type: application/x-www-form-urlencoded"
    ),
    "open_keep_alive": ask("POST /v1/sessions", b'{"ttl":500}', "Connection: Keep-Alive"),
    "acquire": acquire(),
    "acquire_shared": ask("POST /v1/locks/s/acquire", BODY[:-1] + b',"mode":"shared"}', JSON),
    "acquire_held": acquire("held", TWO),
    "acquire_gone": acquire("a", GONE),
    "acquire_unknown": acquire("a", "nobody"),
    "acquire_query": ask("POST /v1/locks/a/acquire?wait=0", BODY),
    "wait_twice": ask("POST /v1/locks/a/acquire?wait=5s", BODY[:-1] + b',"wait":"5s"}'),
    "wait_long": ask("POST /v1/locks/a/acquire?wait=5000h", BODY),
    "wait_unspelled": ask("POST /v1/locks/a/acquire?wiat=5s", BODY),
    "query_twice": ask("POST /v1/locks/a/acquire?wait=0&wait=0", BODY),
    "query_empty": ask("POST /v1/locks/a/acquire?", BODY),
    "query_of_marks": ask("POST /v1/locks/a/acquire???", BODY),
    "query_encoded": ask("POST /v1/locks/a/acquire?w%61it=0+ms", BODY),
    "query_broken": ask("POST /v1/locks/a/acquire?wait=%f", BODY),
    "query_no_utf8": ask("POST /v1/locks/a/acquire?wait=%ff", BODY),
    "release": ask("POST /v1/locks/held/release", BODY[:-1] + b',"token":5}'),
    "release_stale": ask("POST /v1/locks/held/release", BODY[:-1] + b',"token":4}'),
    "release_free": ask("POST /v1/locks/free/release", BODY[:-1] + b',"token":4}'),
    "check": ask("POST /v1/locks/held/check", b'{"token":5}', JSON),
    "check_stale": ask("POST /v1/locks/held/check?consistency=stale", b'{"token":5}'),
    "keepalive": ask(f"POST /v1/sessions/{ONE}/keepalive"),
    "keepalive_empty": ask(f"POST /v1/sessions/{ONE}/keepalive", b""),
    "keepalive_gone": ask(f"POST /v1/sessions/{GONE}/keepalive", b"{}"),
    "keepalive_many": ask(
        "POST /v1/sessions/keepalive", b'{"sessions":["%s","x"]}' % TWO.encode(), JSON
    ),
    "close_gone": ask(f"DELETE /v1/sessions/{GONE}"),
    "close_unknown": ask("DELETE /v1/sessions/nobody"),
    "close_with_body": ask("DELETE /v1/sessions/nobody", b"{}"),
    "close_with_nonsense": ask("DELETE /v1/sessions/nobody", b"[1]"),
    "show": ask("GET /v1/locks/held"),
    "show_stale": ask("GET /v1/locks/held?consistency=stale", None, "Accept: */*"),
    "show_wrongly": ask("GET /v1/locks/held?consistency=perhaps"),
    "show_with_body": ask("GET /v1/locks/held", b"{}"),
    "show_session": ask(f"GET /v1/sessions/{ONE}"),
    "show_word": ask("GET /v1/sessions/keepalive"),
    "show_nobody": ask("GET /v1/sessions/nobody"),
    "show_gone": ask(f"GET /v1/sessions/{GONE}"),
    "list": ask("GET /v1/locks?prefix=h&limit=3"),
    "list_wrongly": ask("GET /v1/locks?limit=0"),
    "list_sessions": ask("GET /v1/sessions", None, "Accept: application/cbor"),
    "cbor": ask("POST /v1/locks/c/acquire", cbor.encode({"session": ONE}), CBOR),
    "cbor_asked": ask("POST /v1/locks/c/acquire", BODY, JSON, "Accept: application/cbor;q=0.9"),
    "cbor_refused": ask("POST /v1/locks/c/acquire", cbor.encode({"session": 1}), CBOR),
    "cbor_broken": ask("POST /v1/locks/c/acquire", b"\xff\x00", CBOR),
    "cbor_problem": ask("POST /v1/locks/held/acquire", cbor.encode({"session": TWO}), CBOR),
    "cbor_to_json": ask(
        "POST /v1/locks/c/acquire", cbor.encode({"session": ONE}), CBOR, "Accept: application/json"
    ),
    "type_unknown": ask("POST /v1/locks/a/acquire", BODY, "Content-Type: text/plain; a=b"),
    "type_with_charset": ask("POST /v1/locks/a/acquire", BODY, f"{JSON}; charset=utf-8"),
    "body_none": ask("POST /v1/locks/a/acquire"),
    "body_broken": ask("POST /v1/locks/a/acquire", b'{"session":'),
    "body_no_utf8": ask("POST /v1/locks/a/acquire", b'{"session":"\xff"}'),
    "body_unknown_field": ask("POST /v1/locks/a/acquire", BODY[:-1] + b',"sesion":1}'),
    "body_wrong_type": ask("POST /v1/locks/a/acquire", b'{"session":1}'),
    "body_line_ends": ask("POST /v1/locks/a/acquire", b'\r\n\r\n{"session":1}\r\n\r\n'),
    "name_encoded": acquire("a%2Fb%20%C3%A9"),
    "name_lower_hex": acquire("a%2fb"),
    "name_of_percent": acquire("%25"),
    "name_encoded_dots": acquire("%2e%2e"),
    "name_no_utf8": acquire("%ff"),
    "name_broken": acquire("%zz"),
    "name_control": acquire("%00"),
    "name_line_end": acquire("%0d%0a"),
    "name_empty": acquire(""),
    "name_long": acquire("x" * 201),
    "name_of_marks": acquire("!$&'()*+,;=:@~_-."),
    "key": acquire("k", ONE, "Idempotency-Key: one"),
    "key_bad": acquire("k", ONE, "Idempotency-Key: one two"),
    "fields": acquire("a", ONE, "User-Agent: test (1.0)", "X-Trace: a\x7eb", "Accept: */*"),
    "field_spaced": acquire("a", ONE, "X-Trace:    a  b"),
    "field_unspaced": acquire("a", ONE, "X-Trace:a"),
    "field_in_capitals": acquire("a", ONE, "ACCEPT: application/cbor"),
    "host_odd": ask("GET /v1/locks/held", host="[::1]:7101"),
    "authorization": acquire("a", ONE, "Authorization: Bearer x"),
    "pass_none": ask("GET /v1/rooms/lobby/status"),
    "pass_odd": ask("GET /v1/rooms/lobby/status", None, "authorization:   Basic eDp5"),
    "pass_bad": ask("GET /v1/rooms/lobby/status", None, "Authorization: Bearer a.b.c"),
}

# Left to aiohttp, whatever it makes of them.
ODD = {
    "livez": ask("GET /livez"),
    "cluster": ask("GET /v1/cluster"),
    "head": ask("HEAD /v1/locks/held"),
    "not_found": ask("GET /v1/nothing"),
    "wrong_method": ask("GET /v1/locks/a/acquire"),
    "wrong_method_body": ask("PUT /v1/locks/a/acquire", BODY),
    "options": ask("OPTIONS /v1/locks/a/acquire"),
    "options_all": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "connect": b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "absolute": ask("GET http://x/v1/locks/held"),
    "fragment": ask("GET /v1/locks/held#there"),
    "word_encoded": ask("POST /v1/locks/a/%61cquire", BODY),
    "word_or_name": ask("POST /v1/sessions/%6beepalive", b'{"sessions":[]}'),
    "version_encoded": ask("GET /v%31/locks/held"),
    "slash_more": ask("POST /v1/locks/a/acquire/", BODY),
    "slash_twice": ask("POST /v1/locks//a/acquire", BODY),
    "dots": ask("POST /v1/locks/../locks/acquire", BODY),
    "dot_name": acquire("."),
    "dots_name": acquire(".."),
    "raw_path": b"GET /v1/locks/\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "bar_path": ask("GET /v1/locks/a|b"),
    "path_long": ask("GET /v1/locks/" + "a" * 3000),
    "close": acquire("a", ONE, "Connection: close"),
    "upgrade": acquire("a", ONE, "Connection: Upgrade", "Upgrade: websocket"),
    "connection_list": acquire("a", ONE, "Connection: keep-alive, X-Trace"),
    "origin": ask(
        "POST /v1/sessions",
        b'{"ttl":500}',
        "Content-Type: application/x-www-form-urlencoded",
        "Origin: http://elsewhere.example",
    ),
    "cookie": acquire("a", ONE, "Cookie: a=b"),
    "encoding": acquire("a", ONE, "Content-Encoding: identity"),
    "encoding_gzip": acquire("a", ONE, "Content-Encoding: gzip"),
    "expect": acquire("a", ONE, "Expect: 100-continue"),
    "expect_odd": acquire("a", ONE, "Expect: coffee"),
    "host_none": b"GET /v1/locks/held HTTP/1.1\r\nAccept: */*\r\n\r\n",
    "no_fields": b"GET /v1/locks/held HTTP/1.1\r\n\r\n",
    "field_empty": acquire("a", ONE, "Accept:"),
    "field_trailing": acquire("a", ONE, "Accept: */*  "),
    "field_tab": acquire("a", ONE, "X-Trace:\ta\tb"),
    "field_latin": acquire("a", ONE, "X-Trace: \xe9"),
    "field_control": acquire("a", ONE, "X-Trace: \x01"),
    "field_nul": acquire("a", ONE, "X-Trace: \x00"),
    "field_twice": acquire("a", ONE, "X-Trace: a", "x-trace: b"),
    "accept_twice": acquire("a", ONE, "Accept: */*", "Accept: application/cbor"),
    "key_twice": acquire("a", ONE, "Idempotency-Key: a", "Idempotency-Key: b"),
    "key_empty": acquire("a", ONE, "Idempotency-Key:"),
    "type_twice": acquire("a", ONE, JSON, CBOR),
    "type_latin": acquire("a", ONE, "Content-Type: text/\xe9"),
    "fields_many": acquire("a", ONE, *(f"X-{number}: a" for number in range(70))),
    "fields_too_many": acquire("a", ONE, *(f"X-{number}: a" for number in range(200))),
    "field_long": acquire("a", ONE, "X-Trace: " + "a" * 5000),
    "field_too_long": acquire("a", ONE, "X-Trace: " + "a" * 9000),
    "body_large": ask("POST /v1/locks/a/acquire", b" " * 70_000),
    "body_huge": ask("POST /v1/locks/a/acquire", None, "Content-Length: 99999999") + b"{",
    "version_old": b"GET /v1/locks/held HTTP/1.0\r\nHost: x\r\n\r\n",
    "version_new": b"GET /v1/locks/held HTTP/1.2\r\nHost: x\r\n\r\n",
    "method_small": ask("get /v1/locks/held"),
    "method_unknown": ask("FETCH /v1/locks/held"),
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    "line_only": b"HELLO\r\n\r\n",
    "lines_before": b"\r\n\r\n" + acquire(),
}

# What two readers of HTTP may take for different requests: SMUGGLED must never be seen twice, and
# the body of one request never as another.
SMUGGLED = acquire("smuggled")
LENGTH = b"POST /v1/locks/a/acquire HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % len(BODY)
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
SMUGGLING = {
    "length_twice_same": LENGTH + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY + SMUGGLED,
    "length_twice": LENGTH + b"Content-Length: 0\r\n\r\n" + BODY + SMUGGLED,
    "length_list": ask("POST /v1/locks/a/acquire", None, f"Content-Length: {len(BODY)}, 0")
    + BODY
    + SMUGGLED,
    "length_signed": ask("POST /v1/locks/a/acquire", None, f"Content-Length: +{len(BODY)}")
    + BODY
    + SMUGGLED,
    "length_negative": ask("POST /v1/locks/a/acquire", None, "Content-Length: -1") + SMUGGLED,
    "length_hex": ask("POST /v1/locks/a/acquire", None, "Content-Length: 0x0") + SMUGGLED,
    "length_zeros": ask("POST /v1/locks/a/acquire", None, f"Content-Length: 00{len(BODY)}")
    + BODY
    + SMUGGLED,
    "length_spaced": ask("POST /v1/locks/a/acquire", None, "Content-Length: 2 6") + BODY + SMUGGLED,
    "length_too_short": ask("POST /v1/locks/a/acquire", None, "Content-Length: 3") + BODY,
    "length_without": ask("POST /v1/locks/a/acquire") + BODY + SMUGGLED,
    "length_of_get": ask("GET /v1/locks/held", SMUGGLED) + SMUGGLED,
    "length_of_delete": ask("DELETE /v1/sessions/nobody", SMUGGLED) + SMUGGLED,
    "chunked": ask("POST /v1/locks/a/acquire", None, "Transfer-Encoding: chunked")
    + CHUNKS
    + SMUGGLED,
    "chunked_and_length": LENGTH + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS + SMUGGLED,
    "length_and_chunked": ask(
        "POST /v1/locks/a/acquire", CHUNKS + SMUGGLED, "Transfer-Encoding: chunked"
    ),
    "chunked_oddly": ask("POST /v1/locks/a/acquire", None, "Transfer-Encoding: xchunked")
    + CHUNKS
    + SMUGGLED,
    "chunked_spaced": ask("POST /v1/locks/a/acquire", None, "Transfer-Encoding : chunked")
    + CHUNKS
    + SMUGGLED,
    "chunked_folded": LENGTH
    + b"X-Trace: a\r\n Transfer-Encoding: chunked\r\n\r\n"
    + BODY
    + SMUGGLED,
    "chunked_after_nul": LENGTH
    + b"X-Trace: a\x00\r\nTransfer-Encoding: chunked\r\n\r\n"
    + SMUGGLED,
    "chunked_te": ask("POST /v1/locks/a/acquire", BODY, "TE: trailers, chunked") + SMUGGLED,
    "colon_spaced": LENGTH.replace(b"Content-Length:", b"Content-Length :")
    + b"\r\n"
    + BODY
    + SMUGGLED,
    "name_spaced": LENGTH + b" X-Trace: a\r\n\r\n" + BODY + SMUGGLED,
    "name_none": LENGTH + b": a\r\n\r\n" + BODY + SMUGGLED,
    "no_colon": LENGTH + b"X-Trace\r\n\r\n" + BODY + SMUGGLED,
    "folded": LENGTH + b"X-Trace: a\r\n b\r\n\r\n" + BODY + SMUGGLED,
    "bare_lf": LENGTH.replace(b"\r\n", b"\n") + b"\n" + BODY + SMUGGLED,
    "bare_lf_once": LENGTH + b"X-Trace: a\nContent-Length: 0\r\n\r\n" + BODY + SMUGGLED,
    "bare_lf_at_end": LENGTH + b"\n" + BODY + SMUGGLED,
    "bare_cr": LENGTH + b"X-Trace: a\rContent-Length: 0\r\n\r\n" + BODY + SMUGGLED,
    "crlf_doubled": LENGTH.replace(b"\r\n", b"\r\r\n") + b"\r\n" + BODY + SMUGGLED,
    "host_twice": LENGTH + b"Host: y\r\n\r\n" + BODY + SMUGGLED,
    "line_spaced": LENGTH.replace(b" /v1", b"  /v1") + b"\r\n" + BODY + SMUGGLED,
    "line_tabbed": LENGTH.replace(b" /v1", b"\t/v1") + b"\r\n" + BODY + SMUGGLED,
    "line_trailing": LENGTH.replace(b"/1.1", b"/1.1 ") + b"\r\n" + BODY + SMUGGLED,
    "lines_after": LENGTH + b"\r\n" + BODY + b"\r\n\r\n" + SMUGGLED,
    "upgrade": LENGTH + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n" + BODY + SMUGGLED,
    "expect": LENGTH + b"Expect: 100-continue\r\n\r\n" + BODY + SMUGGLED,
}


@pytest.mark.parametrize("name", PLAIN)
async def test_a_plain_request_is_answered_as_by_aiohttp(pair: Pair, name: str) -> None:
    """Byte for byte but for the date, and without aiohttp's help."""
    assert (await pair.same(PLAIN[name])).startswith(b"HTTP/1.1 ")
    protocol, pipe = pair.short.connect()
    protocol.data_received(PLAIN[name])
    await turns()
    assert pipe.written
    assert protocol._inner is None
    pipe.close()


@pytest.mark.parametrize("name", ODD)
async def test_an_odd_request_is_left_to_aiohttp(pair: Pair, name: str) -> None:
    """Whatever it makes of it, the connection's end included."""
    await pair.same(ODD[name])
    protocol, pipe = pair.short.connect()
    protocol.data_received(ODD[name])
    await turns()
    assert protocol._inner is not None
    pipe.close()


@pytest.mark.parametrize("name", SMUGGLING)
async def test_a_smuggled_request_is_seen_as_aiohttp_alone_sees_it(pair: Pair, name: str) -> None:
    """Once or not at all, in one write and in two, cut anywhere."""
    data = SMUGGLING[name]
    await pair.same(data)
    for at in range(1, len(data), 7):
        await pair.same(data[:at], data[at:])
    # Behind a plain request, too, which is answered by itself.
    await pair.same(PLAIN["show"] + data)
    taken = len(pair.short.node.taken)
    await pair.same(data)
    assert len(pair.short.node.taken) - taken <= 2


@pytest.mark.parametrize(
    "name",
    ["open", "acquire", "cbor", "key", "show", "body_broken", "close_gone", "body_line_ends"],
)
async def test_a_plain_request_may_be_cut_anywhere(pair: Pair, name: str) -> None:
    """In two writes, wherever the cut is, and what comes behind it in the second one."""
    data = PLAIN[name]
    for at in range(1, len(data)):
        await pair.same(data[:at], data[at:] + PLAIN["show"])


@pytest.mark.parametrize("name", ["livez", "body_large", "close", "expect", "not_found", "head"])
async def test_an_odd_request_may_be_cut_anywhere(pair: Pair, name: str) -> None:
    """In two writes, with a plain request in front and one behind."""
    data = ODD[name]
    for at in range(0, min(len(data), 200), 3):
        await pair.same(PLAIN["show"] + data[:at], data[at:] + PLAIN["show"])


requests = st.sampled_from([*PLAIN.values(), *ODD.values()])
several = st.lists(requests, min_size=1, max_size=4).map(b"".join)


@contextmanager
def compared() -> Iterator[Callable[[Callable[[Pair], Awaitable[T]]], T]]:
    """Run what awaits from a test that draws, with one pair of servers for all examples."""
    with asyncio.Runner() as runner:
        pair = runner.run(Pair().open())

        def run(do: Callable[[Pair], Awaitable[T]]) -> T:
            async def main() -> T:
                return await do(pair)

            return runner.run(main())

        try:
            yield run
        finally:
            runner.run(pair.close())


def cut(data: bytes, places: Iterable[float]) -> list[bytes]:
    """Cut at some places between 0 and 1."""
    at = sorted({int(place * len(data)) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(at)]


def test_requests_in_a_row_are_answered_in_order_by_whoever_serves_them() -> None:
    """Pairs, triples and more of every kind mixed, written ahead and cut anywhere."""
    with compared() as run:

        @settings(max_examples=250, suppress_health_check=list(HealthCheck))
        @given(several, st.lists(st.floats(0, 1), max_size=3))
        def same(data: bytes, places: list[float]) -> None:
            run(lambda pair: pair.same(*cut(data, places)))

        same()


field_bytes = st.one_of(
    st.sampled_from([b"\r\n", b"\n", b"\r", b" ", b":", b"\t", b"\x00", b"\r\n\r\n", b"0", b","]),
    st.binary(min_size=1, max_size=3),
)


def test_a_damaged_request_is_read_as_by_aiohttp() -> None:
    """A few bytes put in, taken out or doubled anywhere, with another request behind it."""
    with compared() as run:

        @settings(max_examples=400, suppress_health_check=list(HealthCheck))
        @given(
            st.sampled_from([*PLAIN.values()]),
            st.floats(0, 1),
            st.integers(0, 3),
            field_bytes,
        )
        def same(data: bytes, place: float, less: int, more: bytes) -> None:
            at = int(place * len(data))
            damaged = data[:at] + more + data[at + less :]
            run(lambda pair: pair.same(damaged + SMUGGLED))

        same()


async def test_a_key_is_answered_alike_the_first_time_the_second_and_for_another_body(
    pair: Pair,
) -> None:
    """Repeats get the first answer again; the key with another body is refused."""
    first = await pair.same(acquire("k", ONE, "Idempotency-Key: one"))
    again = await pair.same(acquire("k", ONE, "Idempotency-Key: one") * 2)
    assert again.count(first.partition(b"\r\n\r\n")[2]) == 2
    other = await pair.same(acquire("other", ONE, "Idempotency-Key: one"))
    assert b"idempotency_key_reused" in other


WAITING = ask("POST /v1/locks/held/acquire?wait=30s", b'{"session":"%s"}' % TWO.encode())
RELEASE = ReleaseLock(ONE, "held", 5)


async def test_a_long_poll_is_answered_when_it_is_granted(pair: Pair) -> None:
    """What came behind it is answered after it, on whichever way."""

    async def grant(side: Side) -> None:
        assert side.node.parked == 1
        await side.order(RELEASE)
        await side.order(ReleaseLock(TWO, "held", 7))
        await side.order(AcquireLock(ONE, "held"))

    got = await pair.same(WAITING, PLAIN["show"] + ODD["livez"], acquire(), then=grant)
    assert got.count(b"HTTP/1.1 200 OK") == got.count(b"HTTP/1.1") == 4
    assert got.index(b'"token":7') < got.index(b'"live":true') < got.index(b'"name":"a"')


async def test_a_long_poll_that_ends_is_answered(pair: Pair) -> None:
    """The wait is over: 409, and the place in the queue is gone."""

    async def pass_time(side: Side) -> None:
        side.node.advance(30_000)
        await turns()

    assert b"lock_held" in await pair.same(WAITING, then=pass_time)


async def test_a_client_that_hangs_up_leaves_the_queue(pair: Pair) -> None:
    """Its wait is given up in both, and what it had written ahead is nobody's command."""

    async def look(side: Side) -> None:
        assert side.node.parked == 1

    assert await pair.same(WAITING + acquire(), then=look) == b""
    assert len(pair.short.node.hung_up) == 1
    assert len(pair.short.node.taken) == 1


@pytest.mark.parametrize("error", [NoLeader("nobody"), Timeout("late"), Overloaded("full")])
async def test_the_nodes_failures_are_answered_alike(pair: Pair, error: Any) -> None:
    """Of commands and of reads."""
    for side in (pair.short, pair.long):
        side.node.fail_with = error
    await pair.same(acquire() + PLAIN["show"] + PLAIN["check"])
    for side in (pair.short, pair.long):
        side.node.refuse_with = error
    await pair.same(acquire() + PLAIN["cbor"])
    for side in (pair.short, pair.long):
        side.node.refuse_with = RuntimeError("ours")  # type: ignore[assignment]
    assert b'"code":"internal"' in await pair.same(acquire() + acquire())


async def test_a_full_node_refuses_alike() -> None:
    """Every lane has its limit on either way; what is refused leaves no trace in the count."""
    pair = await Pair(requests_max=0, keepalives_max=0, waits_max=0).open()
    for request in (acquire(), WAITING, PLAIN["keepalive"], PLAIN["show"], PLAIN["show_stale"]):
        assert b'"code":"overloaded"' in await pair.same(request * 2)
    await pair.close()


async def test_answers_close_the_connection_while_the_server_drains(pair: Pair) -> None:
    """The first answer is the last, refusals too; what came behind it is nobody's command."""
    for side in (pair.short, pair.long):
        side.gateway.drain()
    got = await pair.same(acquire() + acquire("b"))
    assert got.count(b"Connection: close") == got.count(b"HTTP/1.1") == 1
    assert b"Connection: close" in await pair.same(PLAIN["body_broken"])
    assert b"Connection: close" in await pair.same(PLAIN["show"])
    assert len(pair.short.node.taken) == 1


async def test_a_connection_comes_back_from_aiohttp(side: Side) -> None:
    """Once all it was given was plain and is answered; what follows goes the short way."""
    protocol, pipe = side.connect()
    data = acquire()
    protocol.data_received(ODD["livez"])
    assert protocol._is_inners
    for pieces in ([], [data[:30], data[30:]], [data[:-5], data[-5:]], [ODD["livez"] * 3]):
        for piece in pieces:
            protocol.data_received(piece)
            await turns()
        await turns()
        assert not protocol._is_inners
        count = protocol._inner._request_count
        protocol.data_received(data)
        await turns()
        assert protocol._inner._request_count == count
    assert pipe.written.count(b"HTTP/1.1 200 OK") == 10
    pipe.close()


@pytest.mark.parametrize("name", ["chunked", "folded", "chunked_te"])
async def test_a_connection_that_was_odd_once_stays_with_aiohttp(side: Side, name: str) -> None:
    """Where the next request begins is then only aiohttp's to say."""
    protocol, pipe = side.connect()
    protocol.data_received(SMUGGLING[name].removesuffix(SMUGGLED))
    await turns()
    assert protocol._is_inners_for_good
    if not pipe.is_closing():
        protocol.data_received(acquire())
        await turns()
        assert protocol._service is None
    pipe.close()


async def test_what_is_written_ahead_is_bounded(side: Side) -> None:
    """While a request waits, reading stops at 64 KiB and goes on when that is worked off."""
    protocol, pipe = side.connect()
    protocol.data_received(WAITING)
    await turns()
    count = 0
    while pipe.is_reading:
        protocol.data_received(PLAIN["show"])
        count += 1
    assert len(protocol._kept) < shortway.KEPT_BYTES_HIGH + len(PLAIN["show"]) + 1
    await side.order(RELEASE)
    while not pipe.is_reading:
        assert len(protocol._kept) > 0
        await asyncio.sleep(0)
    assert 0 < len(protocol._kept) <= shortway.KEPT_BYTES_LOW
    while protocol._kept:
        await asyncio.sleep(0)
    await turns()
    assert pipe.written.count(b"HTTP/1.1 200 OK") == 1 + count
    pipe.close()


async def test_one_chunk_of_many_requests_stops_the_reading_too(side: Side) -> None:
    """Also where they go to aiohttp in the end, which then holds the reins."""
    protocol, pipe = side.connect()
    protocol.data_received(acquire() + ODD["livez"] * 3_000)
    assert not pipe.is_reading
    await turns()
    for _ in range(3_000):
        await turns()
        if pipe.written.count(b'"live":true') == 3_000:
            break
    assert pipe.written.count(b'"live":true') == 3_000
    assert pipe.is_reading
    pipe.close()


async def test_who_does_not_read_answers_is_not_asked_for_more(side: Side) -> None:
    """While the client's side is full nothing of it is begun; a full one is closed at once."""
    protocol, pipe = side.connect()
    protocol.data_received(acquire())
    protocol.pause_writing()
    protocol.data_received(acquire("b"))
    await turns()
    assert len(side.node.taken) == 1
    protocol.resume_writing()
    await turns()
    assert len(side.node.taken) == 2
    assert pipe.written.count(b"HTTP/1.1 200 OK") == 2
    protocol.data_received(ODD["livez"])
    await turns()
    protocol.pause_writing()
    protocol.data_received(acquire("c"))
    protocol.force_close()
    await turns()
    assert len(side.node.taken) == 2
    assert side.gateway.connections == 0


async def test_an_answer_that_cannot_be_written_is_that_clients_misfortune(
    side: Side, caplog: pytest.LogCaptureFixture
) -> None:
    """The others have theirs, and the node knows nothing of it."""
    (broken, broken_pipe), (other, other_pipe) = side.connect(), side.connect()
    broken_pipe.breaks_with = RuntimeError("the transport is broken")
    broken.data_received(acquire())
    other.data_received(acquire("b"))
    await turns()
    assert other_pipe.written.startswith(b"HTTP/1.1 200 OK")
    assert broken_pipe.is_closing()
    other_pipe.close()
    await turns()
    assert side.gateway.in_progress == side.gateway.connections == 0


async def test_requests_on_both_ways_are_counted_alike(pair: Pair) -> None:
    """By route and status, hang-ups as 499."""
    pair.short.node.advance(1_000)
    pair.long.node.advance(1_000)
    await pair.same(acquire() + PLAIN["acquire_held"] + PLAIN["body_broken"] + PLAIN["show"])
    await pair.same(WAITING)

    def counts(side: Side) -> list[str]:
        page = side.gateway.metrics.page(float("inf")).decode()
        return sorted(
            line
            for line in page.splitlines()
            if line.startswith(("coterie_http_requests_total", "coterie_http_in_progress"))
        )

    assert counts(pair.short) == counts(pair.long)
    assert any('status="499"} 1.0' in line for line in counts(pair.short))


async def test_few_heads_are_remembered(side: Side) -> None:
    """However many names there are; keys and long heads never."""
    protocol, pipe = side.connect()
    house = side.gateway._house
    assert house is not None
    for field in ("Idempotency-Key: k", "X-Trace: " + "a" * shortway.PLAN_BYTES_MAX):
        protocol.data_received(acquire("a", ONE, field))
        await turns()
    assert len(house._plans) == 0
    for number in range(shortway.PLANS_KEPT_MAX + 2):
        house.plan(acquire(f"n{number}"))
    assert len(house._plans) == 2
    assert pipe.written.count(b"HTTP/1.1 200 OK") == 2
    pipe.close()


@pytest.mark.both_loops
async def test_a_client_that_closes_its_side_has_hung_up(api: Api) -> None:
    """Who waits is gone then, whichever way: the place in the queue goes with it."""
    holder, waiter = await api.open(), await api.open()
    await api.acquire("orders", holder)
    body = b'{"session":"%s","wait":"1h"}' % waiter.encode()
    for number, fields in enumerate(((), ("Connection: close",)), 1):
        wire = await Wire.to(api)
        wire.send(ask("POST /v1/locks/orders/acquire", body, *fields))
        await api.until_queued("orders", 1)
        wire.writer.write_eof()
        await api.until_queued("orders", 0)
        assert len(api.node.hung_up) == number
        assert await wire.until_closed() == b""
        await wire.close()


@pytest.mark.both_loops
async def test_who_closes_its_side_is_answered_what_needs_no_waiting(api: Api) -> None:
    """As `printf … | nc` does; the connection ends behind the last answer, whichever way."""
    show, body = ask("GET /v1/locks/orders"), b'{"ttl":"30s"}'
    lively = ask("GET /livez", b"", "Connection: close")
    for sent, statuses in (
        (show, [200]),
        (ODD["livez"], [200]),
        (lively, [200]),
        (OPEN, [201]),
        (ask("POST /v1/sessions", body, "Connection: close"), [201]),
        (ask("GET /nowhere"), [404]),
        (b"no HTTP\r\n\r\n", [400]),
        (show + OPEN + show, [200, 201, 200]),
        (show + ODD["livez"] + show, [200, 200, 200]),
        (ODD["livez"] + show + lively, [200, 200, 200]),
    ):
        wire = await Wire.to(api)
        wire.send(sent)
        wire.writer.write_eof()
        said = await wire.until_closed()
        assert [int(found) for found in re.findall(rb"HTTP/1\.[01] (\d+)", said)] == statuses
        await wire.close()
    assert len(api.node.hung_up) == 0


@pytest.mark.both_loops
async def test_who_closed_its_side_before_does_not_wait(api: Api) -> None:
    """Not even behind a request that was answered; and what is missing is not waited for."""
    holder, waiter = await api.open(), await api.open()
    await api.acquire("orders", holder)
    body = b'{"session":"%s","wait":"1h"}' % waiter.encode()
    wait = ask("POST /v1/locks/orders/acquire", body)
    for sent in (OPEN + wait, ODD["livez"] + wait, wait[:-5], wait[:20], b"", OPEN + wait[:-5]):
        wire = await Wire.to(api)
        wire.send(sent)
        wire.writer.write_eof()
        assert b'"token"' not in (await wire.until_closed()).partition(b'"expires_in_ms"')[0]
        await wire.close()
    await api.until_queued("orders", 0)


@pytest.mark.both_loops
async def test_who_idles_for_too_long_is_closed(make_api: MakeApi) -> None:
    """Whichever way its last request went, and also when it never asked; who waits stays."""
    api = await make_api(idle_timeout_ms=200)
    holder, waiter = await api.open(), await api.open()
    await api.acquire("orders", holder)
    wires = [await Wire.to(api) for _ in range(4)]
    short, long, silent, waiting = wires
    body = b'{"session":"%s","wait":"1h"}' % waiter.encode()
    waiting.send(ask("POST /v1/locks/orders/acquire", body))
    short.send(OPEN)
    assert (await short.answer())[0] == 201
    long.send(ODD["livez"])
    assert (await long.answer())[0] == 200
    for wire in (short, long, silent):
        assert await wire.until_closed() == b""
    assert api.node.parked == 1
    for wire in wires:
        await wire.close()


@pytest.mark.both_loops
async def test_a_server_that_stops_waits_for_the_short_way_too(make_api: MakeApi) -> None:
    """A request in progress has its answer within the grace; idle connections end at once."""
    api = await make_api()
    holder, waiter = await api.open(), await api.open()
    token = (await api.acquire("orders", holder)).body["token"]
    body = b'{"session":"%s","wait":"1h"}' % waiter.encode()
    waiting, idle = await Wire.to(api), await Wire.to(api)
    waiting.send(ODD["livez"])
    assert (await waiting.answer())[0] == 200
    waiting.send(ask("POST /v1/locks/orders/acquire", body))
    await api.until_queued("orders", 1)
    stopping = asyncio.get_running_loop().create_task(api.gateway.stop(grace_s=60.0))
    assert await idle.until_closed() == b""
    assert not stopping.done()
    api.node.submit(ReleaseLock(holder, "orders", token), lambda reply: None)
    status, answer = await waiting.answer()
    assert status == 200
    assert b'"token"' in answer
    await stopping
    assert await waiting.until_closed() == b""
    await waiting.close()
    await idle.close()


@pytest.mark.both_loops
async def test_many_clients_write_ahead_and_each_has_its_own_answers(api: Api) -> None:
    """Over real sockets, in order, and nothing is left behind."""
    session = await api.open()
    wires = [await Wire.to(api) for _ in range(10)]
    for number, wire in enumerate(wires):
        wire.send(
            b"".join(acquire(f"l{number}-{count}", session) for count in range(20))
            + ODD["livez"]
            + acquire(f"l{number}-last", session)
        )
    for number, wire in enumerate(wires):
        for count in range(20):
            assert b'"l%d-%d"' % (number, count) in (await wire.answer())[1]
        assert (await wire.answer())[1] == b'{"live":true}'
        assert b'"l%d-last"' % number in (await wire.answer())[1]
        await wire.close()
    await until_inside(api, 0)

    async def is_empty() -> bool:
        return api.gateway.connections <= 1

    await until(is_empty)


async def test_the_switch_is_off_where_it_is_off() -> None:
    """Without the short way everything is aiohttp's: what the comparisons above compare with."""
    side = Side(short=False)
    await side.open()
    protocol, pipe = side.connect()
    assert isinstance(protocol, ShortWay)
    protocol.data_received(acquire())
    await turns()
    assert protocol._inner is not None
    assert pipe.written.startswith(b"HTTP/1.1 200 OK")
    pipe.close()
    await side.close()
