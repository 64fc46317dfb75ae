"""What a watch tells, from the bytes of a stream."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import pytest

from cluster.client.aio import Client
from cluster.client.core import Policy
from cluster.client.refusals import BadRequest
from cluster.client.watching import Event, Feed, Resync
from cluster.errors import Refused
from cluster.gateway.matching import message
from cluster.gateway.watchers import GOODBYE


def told(index: int, seq: int = 0, *, is_last: bool = True) -> bytes:
    """An event as a node tells it: only the last of its entry carries the position."""
    fields = {
        "index": index,
        "seq": seq,
        "what": "granted",
        "path": "/locks/orders",
        "kind": "lock",
        "name": "orders",
        "token": index,
    }
    return message("granted", fields, index if is_last else None)


OPENING = message("open", {"after": 4, "applied": 9}, 4, retry_ms=1_000)


def places(happenings: list[Event | Resync]) -> list[tuple[int, int]]:
    """Where events stand."""
    return [(event.index, event.seq) for event in happenings if isinstance(event, Event)]


@pytest.mark.parametrize("step", [1, 3, 10_000])
def test_bytes_come_in_any_pieces(step: int) -> None:
    """One by one, or all at once."""
    feed = Feed()
    stream = OPENING + told(5) + b": still here\nid: 8\n\n" + told(9)
    happenings = []
    for at in range(0, len(stream), step):
        happenings += feed.fed(stream[at : at + step])
    assert places(happenings) == [(5, 0), (9, 0)]
    [event, _] = happenings
    assert isinstance(event, Event)
    assert (event.what, event.name, event.token) == ("granted", "orders", 5)
    assert event.details["path"] == "/locks/orders"
    assert feed.after == 9


def test_the_beginning_is_remembered() -> None:
    """So that nothing is missed that happens before the first event comes through."""
    feed = Feed()
    assert feed.fed(OPENING) == []
    assert feed.after == 4


def test_a_sign_of_life_moves_the_position() -> None:
    """What was quiet for long is not looked at again."""
    feed = Feed(3)
    feed.fed(OPENING + b": still here\nid: 8\n\n: still here\n\n")
    assert feed.after == 8


def test_a_break_inside_of_an_entry_loses_and_repeats_nothing() -> None:
    """It is told again from its beginning, and what was told is left out."""
    feed = Feed()
    first = feed.fed(OPENING + told(5, 0, is_last=False) + told(5, 1, is_last=False)[:20])
    assert places(first) == [(5, 0)]
    assert feed.after == 4
    feed.connected()
    again = feed.fed(OPENING + told(5, 0, is_last=False) + told(5, 1) + told(6))
    assert places(again) == [(5, 1), (6, 0)]
    assert feed.after == 6


def test_what_was_missed_is_said() -> None:
    """And it goes on from where the node is."""
    feed = Feed(2)
    [resync] = feed.fed(message("resync", {"lost_after": 2, "from": 70}, 70))
    assert resync == Resync(lost_after=2, resumes_after=70)
    assert feed.after == 70


def test_a_goodbye_ends_the_connection_not_the_watch() -> None:
    """The next node goes on."""
    feed = Feed()
    assert feed.fed(OPENING + told(5) + GOODBYE)[1:] == []
    assert feed.is_over
    feed.connected()
    assert not feed.is_over
    assert feed.after == 5


def test_members_of_newer_nodes_are_kept_in_the_details() -> None:
    """Nothing of them is in the way."""
    fields = {"index": 1, "seq": 0, "what": "new", "path": "/x", "phase": "full"}
    [event] = Feed().fed(b"data: " + msgspec.json.encode(fields) + b"\n\n")
    assert isinstance(event, Event)
    assert event.details["phase"] == "full"


@pytest.mark.parametrize(
    "nonsense",
    [
        b"data: no JSON\n\n",
        b"data: [1]\n\n",
        b'data: {"index": 6}\n\n',
        b'data: {"index": "6", "seq": 0, "what": "x", "path": "/"}\n\n',
        b"event: resync\ndata: {}\n\n",
    ],
)
def test_what_is_no_stream_of_a_node_ends_the_connection(nonsense: bytes) -> None:
    """What came before it is told; the next node goes on behind that."""
    feed = Feed()
    assert places(feed.fed(OPENING + told(5) + nonsense + told(6))) == [(5, 0)]
    assert feed.is_over
    feed.connected()
    assert places(feed.fed(OPENING + told(6))) == [(6, 0)]


@pytest.mark.parametrize("endless", [b"x" * 70_000, b"data: x\n" * 10_000])
def test_an_event_without_end_is_not_kept(endless: bytes) -> None:
    """It ends the connection before it fills the memory."""
    feed = Feed()
    for _ in range(200):
        feed.fed(endless)
        if feed.is_over:
            return
    pytest.fail("more than ten megabytes were kept")


def test_a_node_that_is_behind_takes_nothing_back() -> None:
    """Its signs of life are older than what another has told."""
    feed = Feed(100)
    feed.fed(b": still here\nid: 90\n\n")
    assert feed.after == 100
    feed.fed(b": still here\nid: " + b"9" * 5_000 + b"\n\n")
    assert feed.after == 100


async def test_a_watch_goes_on_at_the_next_connection() -> None:
    """Behind what was told, whatever broke it: an end, silence, or a node that is not ready."""
    asked: list[str] = []
    ended = asyncio.Event()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    busy = b'{"code":"not_ready","definite":true,"retryable":true,"detail":"d"}'
    answers = [
        head + OPENING + told(5) + told(6, 0, is_last=False),
        b"HTTP/1.1 503 x\r\nContent-Length: %d\r\n\r\n%s" % (len(busy), busy),
        head + OPENING + told(6, 0, is_last=False) + told(6, 1) + GOODBYE,
        head + OPENING + told(7),
    ]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).split()[1].decode())
        writer.write(answers[len(asked) - 1])
        await writer.drain()
        if len(asked) == len(answers):
            await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        if len(asked) == len(answers):
            ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    policy = Policy(pause_first_ms=1, pause_most_ms=2)
    happenings = []
    async with Client(f"{host}:{port}", policy=policy) as client:
        watching = client.watch("/locks/", session="s 1")
        async for happening in watching:
            happenings.append(happening)
            if len(happenings) == 4:
                break
        await watching.aclose()
    await ended.wait()
    server.close()
    assert places(happenings) == [(5, 0), (6, 0), (6, 1), (7, 0)]
    query = "/v1/watch?prefix=%2Flocks%2F&session=s+1"
    assert asked == [query, f"{query}&after=5", f"{query}&after=5", f"{query}&after=6"]


async def test_a_watch_that_makes_no_sense_is_refused() -> None:
    """Asking again would not help."""
    body = b'{"code":"bad_request","definite":true,"retryable":false,"detail":"d","field":"prefix"}'
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 400 x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        writer.close()
        await writer.wait_closed()
        ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with Client(f"{host}:{port}") as client:
        with pytest.raises(BadRequest) as caught:
            await anext(client.watch("locks"))
    await ended.wait()
    server.close()
    assert caught.value.field == "prefix"


async def test_a_watch_follows_nobody_elsewhere() -> None:
    """A redirect is no answer of a node's, and its target is no endpoint of ours."""
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 302 x\r\nLocation: /v1/watch\r\nContent-Length: 0\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with Client(f"{host}:{port}") as client:
        with pytest.raises(Refused, match="302"):
            await anext(client.watch())
    server.close()
    assert asked == 1


async def test_a_watch_ends_with_its_client() -> None:
    """It opens no new connection behind its back."""
    connected = 0
    begun = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connected
        connected += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 x\r\nContent-Type: text/event-stream\r\n\r\n" + OPENING)
        begun.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    client = Client(f"{host}:{port}")
    watching = asyncio.ensure_future(anext(client.watch()))
    await begun.wait()
    await client.close()
    with pytest.raises(RuntimeError, match="closed"):
        await asyncio.wait_for(watching, 30)
    server.close()
    assert connected == 1
