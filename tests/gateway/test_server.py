"""The server against slow, broken and vanished clients, over bare sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.gateway.conftest import Api, MakeApi, until
from tests.gateway.solo_node import SoloNode
from tests.node.scarce import scarce_descriptors

pytestmark = pytest.mark.both_loops


class Wire:
    """A connection that writes what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, api: Api) -> Wire:
        return cls(*await asyncio.open_connection(api.host, api.port))

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, bytes]:
        """Read one answer with a length."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        lengths = [
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length")
        ]
        return int(head.split()[1]), await self.reader.readexactly(sum(lengths))

    async def until_closed(self) -> bytes:
        """Read to the end."""
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass


OPEN = b'POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n{"ttl":500}'


async def test_a_wait_ends_definitely_when_its_node_shuts_down(
    make_api: MakeApi, solo: Callable[[], SoloNode]
) -> None:
    """503 and not a word of doubt: the request has left its queue before it is answered."""
    node = solo()
    api = await make_api(node.node)
    first, second = await api.open(), await api.open()
    assert (await api.acquire("orders", first)).status == 200
    waiting = api.start(api.acquire("orders", second, wait="30s"))
    await api.until_queued("orders", 1)
    node.node.drain()
    got = await waiting
    assert (got.status, got.code, got.body["definite"]) == (503, "shutting_down", True)
    assert got.body["retryable"]
    assert node.node.machine.counts().waiters == 0


async def test_a_head_that_drips_does_not_hold_a_place(make_api: MakeApi) -> None:
    """Who has sent no whole head in time is closed when somebody else comes."""
    now = [0.0]
    api = await make_api(clock=lambda: now[0], head_timeout_ms=1_000)
    slow = await Wire.to(api)
    slow.send(b"POST /v1/sessions HTTP/1.1\r\nHost:")
    await until_connections(api, 1)
    now[0] = 0.5
    slow.send(b" x\r\nX-Drip: 1\r\n")
    now[0] = 1.0
    other = await Wire.to(api)
    assert await slow.until_closed() == b""
    other.send(OPEN)
    assert (await other.answer())[0] == 201
    await slow.close()
    await other.close()


async def test_a_body_that_drips_ends_in_408(make_api: MakeApi) -> None:
    """A body that does not come is given up, and others are served meanwhile."""
    api = await make_api(body_timeout_ms=50)
    slow = await Wire.to(api)
    slow.send(OPEN[:-3])
    assert (await api.post("/v1/sessions", {"ttl": "1s"})).status == 201
    status, body = await slow.answer()
    assert status == 408
    assert b"request_timeout" in body
    assert await slow.until_closed() == b""
    await slow.close()


async def test_a_full_house_says_so_and_closes(make_api: MakeApi) -> None:
    """Over the limit of connections: one answer and the door; who idles makes room first."""
    api = await make_api(connections_max=2)
    busy, idle = await Wire.to(api), await Wire.to(api)
    idle.send(OPEN)
    assert (await idle.answer())[0] == 201
    api.node.is_silent = True
    busy.send(OPEN)
    await until_inside(api, 1)
    third = await Wire.to(api)
    assert await idle.until_closed() == b""
    third.send(OPEN)
    await until_inside(api, 2)
    fourth = await Wire.to(api)
    told = await fourth.until_closed()
    assert told.startswith(b"HTTP/1.1 503 ")
    assert b'"code":"overloaded"' in told
    assert b"Coterie-Index: 1\r\n" in told
    for wire in (busy, idle, third, fourth):
        await wire.close()


async def test_what_is_kept_back_for_the_disk_and_the_peers_is_no_clients(api: Api) -> None:
    """Whoever has taken the descriptors: who idles makes room, else one answer and the door."""
    api.node.is_silent = True
    busy = await Wire.to(api)
    busy.send(OPEN)
    await until_inside(api, 1)
    with scarce_descriptors():
        second = await Wire.to(api)
        told = await second.until_closed()
    assert told.startswith(b"HTTP/1.1 503 ")
    third = await Wire.to(api)
    third.send(OPEN)
    await until_inside(api, 2)
    for wire in (busy, second, third):
        await wire.close()


async def test_a_client_that_vanishes_leaves_the_queue(api: Api) -> None:
    """Closed or reset, the parked request goes."""
    holder, waiter = await api.open(), await api.open()
    await api.acquire("orders", holder)
    body = b'{"session":"%s","wait":"1h"}' % waiter.encode()
    for is_reset in (False, True):
        wire = await Wire.to(api)
        wire.send(
            b"POST /v1/locks/orders/acquire HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
            % (len(body), body)
        )
        await api.until_queued("orders", 1)
        if is_reset:
            wire.writer.transport.abort()
        else:
            wire.writer.close()
        await api.until_queued("orders", 0)
        await wire.close()


POST = b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\n"
LIVE = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
BROKEN = {
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
    "no_http": (b"HELLO\r\n\r\n", 400),
    "version": (b"GET / HTTP/9.9\r\n\r\n", 400),
    "header_name": (LIVE + b"Bad Header: 1\r\n\r\n", 400),
    "header_value": (LIVE + b"A: \x00\r\n\r\n", 400),
    "raw_path": (b"GET /v1/locks/\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "long_header": (LIVE + b"A: " + b"a" * 20_000 + b"\r\n\r\n", 431),
    "long_path": (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
    "many_headers": (LIVE + b"A: b\r\n" * 1_000 + b"\r\n", 400),
    "negative_length": (POST + b"Content-Length: -1\r\n\r\n", 400),
    "two_lengths": (POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    "bad_chunk": (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    "large_body": (POST + b"Content-Length: 99999999\r\n\r\n{", 413),
    "expectation": (POST + b"Expect: coffee\r\n\r\n", 417),
    "expected_nowhere": (
        b"POST /v0 HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
        404,
    ),
    "large_expected": (POST + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n", 413),
}


@pytest.mark.parametrize(("head", "status"), BROKEN.values(), ids=BROKEN)
async def test_a_broken_request_is_refused_and_closed(api: Api, head: bytes, status: int) -> None:
    """A problem in our own words, never a page of the library's, and the node goes on."""
    wire = await Wire.to(api)
    wire.send(head)
    got, body = await wire.answer()
    assert got == status
    assert b'"type":"urn:coterie:problem:' in body
    assert await wire.until_closed() == b""
    await wire.close()
    assert (await api.get("/livez")).status == 200


@pytest.mark.parametrize(
    "line", ["OPTIONS *", "CONNECT host:80", "GET nowhere", "no HTTP", "GET / HTTP/9.9 x"]
)
async def test_every_answer_is_a_problem_with_a_position(api: Api, line: str) -> None:
    """Also to a target that is no path, and to what is no HTTP: nothing of our libraries."""
    await api.open()
    wire = await Wire.to(api)
    wire.send(f"{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head, _, body = (await wire.until_closed()).partition(b"\r\n\r\n")
    assert b"\r\nCoterie-Index: 1\r\n" in head + b"\r\n"
    assert b"\r\nContent-Type: application/problem+json\r\n" in head
    assert b"\r\nServer: Coterie\r\n" in head
    assert b'"definite":true' in body
    await wire.close()


async def test_a_client_may_expect_to_be_told_to_go_on(api: Api) -> None:
    """Curl asks before it sends a large body."""
    wire = await Wire.to(api)
    head, body = OPEN.split(b"\r\n\r\n")
    wire.send(head + b"\r\nExpect: 100-continue\r\n\r\n")
    assert await wire.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.send(body)
    assert (await wire.answer())[0] == 201
    await wire.close()


async def test_requests_may_come_byte_by_byte_or_all_at_once(api: Api) -> None:
    """The same answers however the bytes are cut, several requests in one write included."""
    wire = await Wire.to(api)
    for byte in OPEN:
        wire.send(bytes([byte]))
        await wire.writer.drain()
        await asyncio.sleep(0)
    assert (await wire.answer())[0] == 201
    wire.send(OPEN * 3)
    assert [(await wire.answer())[0] for _ in range(3)] == [201, 201, 201]
    wire.send(
        b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'5\r\n{"ttl\r\n6\r\n":500}\r\n0\r\n\r\n'
    )
    assert (await wire.answer())[0] == 201
    await wire.close()


async def test_a_body_that_breaks_off_is_nobodys_command(api: Api) -> None:
    """The client is gone in the middle of its body: nothing is done, nothing is left."""
    wire = await Wire.to(api)
    wire.send(OPEN[:-3])
    await until_connections(api, 1)
    await wire.close()
    await until_connections(api, 0)
    assert api.node.taken == []


async def test_a_draining_server_closes_connections_with_its_answers(api: Api) -> None:
    """No new connection is taken; an old one gets its answer and is closed."""
    wire = await Wire.to(api)
    wire.send(OPEN)
    assert (await wire.answer())[0] == 201
    api.gateway.drain()
    wire.send(OPEN)
    assert (await wire.answer())[0] == 201
    assert await wire.until_closed() == b""
    await wire.close()
    with pytest.raises(OSError):
        await Wire.to(api)


async def test_a_stopped_server_has_closed_everything(api: Api) -> None:
    """Idle connections and waiting requests end with it."""
    idle, waiting = await Wire.to(api), await Wire.to(api)
    api.node.is_silent = True
    waiting.send(OPEN)
    await until_inside(api, 1)
    await api.gateway.stop(grace_s=0.05)
    assert await idle.until_closed() == b""
    await waiting.until_closed()
    assert len(api.node.hung_up) == 1
    await idle.close()
    await waiting.close()


async def until_connections(api: Api, count: int) -> None:
    """Wait until so many connections are open."""

    async def is_so() -> bool:
        return api.gateway.connections == count

    await until(is_so)


async def until_inside(api: Api, count: int) -> None:
    """Wait until so many requests are with the node."""

    async def is_so() -> bool:
        return api.gateway.in_progress == count

    await until(is_so)
