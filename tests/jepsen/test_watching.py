"""Streams and stores: what a watcher takes down and comes back with, and what a fence refuses."""

from __future__ import annotations

import random

import msgspec
import pytest
from jepsen.clients import Links
from jepsen.history import Recorder
from jepsen.workloads import Arena
from jepsen.workloads.fenced import Refused, Store
from jepsen.workloads.watching import Stream

from tests.jepsen.test_clients import Scripted, asking


def sse(*messages: tuple[str, int | None, object]) -> tuple[int, bytes]:
    """An answer that is a whole stream: what, id, data; without data only the position moves."""
    text = ""
    for what, id, data in messages:
        text += "" if data is None else f"event: {what}\n"
        text += "" if id is None else f"id: {id}\n"
        text += (
            ": still here\n" if data is None else f"data: {msgspec.json.encode(data).decode()}\n"
        )
        text += "\n"
    return 200, text.encode()


async def test_a_stream_comes_back_behind_what_it_heard() -> None:
    """At its next life it sends the last id; all it hears is taken down in order."""
    first = {"index": 7, "seq": 0, "what": "granted", "token": 7}
    last = {"index": 12, "seq": 0, "what": "released", "token": 9}
    node = Scripted(
        sse(("open", 5, {"after": 5, "applied": 5}), ("granted", 7, first), ("", 9, None)),
        sse(("open", 9, {"after": 9, "applied": 12}), ("released", 12, last)),
    )
    async with asking(n1=node) as client:
        stream = Stream(client.links, 0, "s", ["/locks/a"])
        await stream.follow(client.links, until=9)
        lines = client.arena.recorder.lines
    assert [line.f.removeprefix("watch.") for line in lines] == [
        *("ask", "open", "event", "bookmark", "end"),
        *("ask", "open", "event", "end"),
    ]
    assert [line.value["after"] for line in lines if line.f == "watch.ask"] == [None, 9]
    assert [line.value for line in lines if line.f == "watch.event"] == [first, last]
    assert [line.value["why"] for line in lines if line.f == "watch.end"] == ["ended", "stopped"]
    assert all(line.process < 0 and line.key == "s" for line in lines)
    assert "last-event-id" not in node.heads[0].lower()
    assert "last-event-id: 9" in node.heads[1].lower()
    assert node.heads[0].split()[1] == "/v1/watch?prefix=/locks/a"


async def test_events_that_are_lost_are_said_to_be() -> None:
    """A resync moves the position on."""
    lost = {"lost_after": 5, "from": 40}
    node = Scripted(sse(("open", 5, {}), ("resync", 40, lost), ("granted", 41, {"token": 41})))
    async with asking(n1=node) as client:
        stream = Stream(client.links, 0, "s")
        await stream.follow(client.links, until=41)
        told = [line.value for line in client.arena.recorder.lines if line.f == "watch.resync"]
    assert told == [lost]
    assert stream.last_id == 41


async def test_a_goodbye_is_no_event() -> None:
    """A node that leaves says so; the stream goes on elsewhere."""
    leaving = sse(("open", 5, {"after": 5}), ("bye", None, {"why": "this node is leaving"}))
    node = Scripted(leaving, sse(("open", 5, {}), ("granted", 6, {"token": 6})))
    async with asking(n1=node) as client:
        await Stream(client.links, 0, "s").follow(client.links, until=6)
        lines = client.arena.recorder.lines
    assert [line.value["why"] for line in lines if line.f == "watch.end"] == ["bye", "stopped"]
    assert [line.value for line in lines if line.f == "watch.event"] == [{"token": 6}]


async def test_a_stream_ends_with_the_run() -> None:
    """Before it was even opened, where the run is over."""
    arena = Arena(Recorder(), random.Random(7), {"n1": ("http://127.0.0.1:9",)})
    arena.stop.set()
    async with Links(arena) as links:
        await Stream(links, 0, "s").follow(links)
    assert not arena.recorder.lines


def test_a_fenced_store_refuses_who_was_overtaken() -> None:
    """In reads as in writes, per item; the newest token may go on."""
    store = Store(is_fenced=True)
    assert store.read("a", 3) is None
    assert store.write("a", 3, "x") is None
    assert store.read("a", 5) == "x"
    with pytest.raises(Refused) as refused:
        store.write("a", 3, "y")
    assert refused.value.newest == 5
    with pytest.raises(Refused):
        store.read("a", 4)
    assert store.write("a", 5, "z") == "x"
    assert store.write("b", 1, "other") is None


def test_an_unfenced_store_takes_everything() -> None:
    """That is what is wrong with it."""
    store = Store(is_fenced=False)
    store.read("a", 5)
    assert store.write("a", 3, "late") is None
    assert store.read("a", 5) == "late"
