"""Watching over HTTP: everything once and in order, from any position that is remembered."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from aiohttp import ClientConnectionResetError, web

from cluster.machine import limits
from tests.gateway.conftest import Api, MakeApi, until
from tests.gateway.streams import Stream


async def test_a_stream_begins_with_the_position_and_tells_what_happens(anywhere: Api) -> None:
    """Each event with its path, its token and whom it concerns; `id` is the log position."""
    ann = await anywhere.open()
    async with Stream(anywhere, "?prefix=/locks/") as stream:
        opened = await stream.next()
        assert opened.what == "open"
        assert opened.id == opened.data["after"] == opened.data["applied"]
        granted = await anywhere.acquire("orders", ann)
        told = await stream.next()
        assert (told.what, told.id) == ("granted", int(granted.headers["Coterie-Index"]))
        assert told.data == {
            "index": told.id,
            "seq": 0,
            "what": "granted",
            "path": "/locks/orders",
            "kind": "lock",
            "name": "orders",
            "session": ann,
            "token": granted.body["token"],
        }
        await anywhere.delete(f"/v1/sessions/{ann}")
        lost = await stream.next()
        assert (lost.what, lost.data["path"]) == ("lost", "/locks/orders")


async def test_of_several_events_of_one_entry_the_last_one_has_the_id(api: Api) -> None:
    """So who comes back in between is told all of them again."""
    ann = await api.open()
    locks = [{"name": name} for name in "abc"]
    async with Stream(api, "?prefix=/locks/a&prefix=/locks/b") as stream:
        opened = await stream.next()
        await api.post("/v1/locks/acquire", {"session": ann, "locks": locks})
        first = await stream.next()
        assert (first.data["name"], first.id, stream.last_id) == ("a", None, opened.id)
        second = await stream.next()
        assert (second.data["name"], second.data["seq"]) == ("b", 1)
        assert second.id == first.data["index"] == second.data["index"]
    async with Stream(api, "?prefix=/locks/", last_id=opened.id) as again:
        await again.next()
        assert [(await again.next()).data["seq"] for _ in range(3)] == [0, 1, 2]


async def test_a_session_hears_what_concerns_it(anywhere: Api) -> None:
    """Its turn that came, what it loses, and its end."""
    ann, bob = await anywhere.open("60s"), await anywhere.open("1s")
    token = (await anywhere.acquire("a", ann)).body["token"]
    async with Stream(anywhere, f"?session={bob}") as stream:
        await stream.next()
        waiting = anywhere.start(anywhere.acquire("a", bob, wait="30s"))
        await anywhere.until_queued("a", 1)
        await anywhere.post("/v1/locks/a/release", {"session": ann, "token": token})
        await waiting
        turn = await stream.next()
        assert (turn.what, turn.data["session"]) == ("granted", bob)
        await anywhere.advance(2_000)
        assert [(await stream.next()).what for _ in range(2)] == ["expired", "lost"]


async def test_who_comes_back_is_told_what_was_missed(anywhere: Api) -> None:
    """Nothing twice, nothing left out: by header, or by `after`."""
    ann = await anywhere.open()
    async with Stream(anywhere, "?prefix=/locks/") as stream:
        await stream.next()
        await anywhere.acquire("a", ann)
        await stream.next()
        seen = stream.last_id
    await anywhere.acquire("b", ann)
    await anywhere.acquire("c", ann)
    for query, last_id in (("&after=0", seen), (f"&after={seen}", None)):
        async with Stream(anywhere, f"?prefix=/locks/{query}", last_id) as stream:
            opened = await stream.next()
            assert opened.id == seen
            assert [(await stream.next()).data["name"] for _ in range(2)] == ["b", "c"]


async def test_what_is_forgotten_is_said_to_be_lost(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream goes on from the present, and says from where."""
    monkeypatch.setattr(limits, "EVENTS_KEPT_MAX", 2)
    ann = await api.open()
    for name in "abcd":
        await api.acquire(name, ann)
    async with Stream(api, "?after=1") as stream:
        assert (await stream.next()).what == "open"
        resync = await stream.next()
        assert resync.what == "resync"
        assert resync.data == {"lost_after": 1, "from": resync.id}
        assert resync.id == api.node.applied_index
        await api.acquire("e", ann)
        assert (await stream.next()).data["name"] == "e"


async def test_a_position_of_a_node_that_was_ahead_is_waited_for(api: Api) -> None:
    """It is never gone back behind."""
    ann = await api.open()
    after = api.node.applied_index + 2
    async with Stream(api, "", last_id=after) as stream:
        assert (await stream.next()).id == after
        for name in "abc":
            await api.acquire(name, ann)
        told = await stream.next()
        assert (told.id, told.data["name"]) == (after + 1, "c")


async def test_a_quiet_stream_shows_signs_of_life_and_moves_on(make_api: MakeApi) -> None:
    """With the position, so that coming back later costs nothing."""
    api: Api = await make_api(heartbeat_ms=10)
    async with Stream(api, "?prefix=/locks/nobody") as stream:
        await stream.next()
        await stream.beat()
        ann = await api.open()
        got = await api.acquire("other", ann)
        position = int(got.headers["Coterie-Index"])
        while (stream.last_id or 0) < position:
            await stream.beat()
        assert stream.last_id == position


async def test_so_many_watchers_and_no_more(make_api: MakeApi) -> None:
    """The next one is told so, and has room when one has gone."""
    api: Api = await make_api(watchers_max=1)
    async with Stream(api) as stream:
        await stream.next()
        got = await api.get("/v1/watch")
        assert (got.status, got.code) == (503, "overloaded")
        page = (await api.get("/metrics")).body
        assert "coterie_http_watchers 1.0" in page
        assert "coterie_http_watchers_refused_total 1.0" in page

    hub = api.gateway._context.hub

    async def is_empty() -> bool:
        return len(hub) == 0

    await until(is_empty)
    async with Stream(api) as stream:
        assert (await stream.next()).what == "open"


async def test_a_server_that_leaves_says_goodbye(make_api: MakeApi) -> None:
    """With how soon to come back, which browsers do by themselves; new ones go elsewhere."""
    api: Api = await make_api()
    async with Stream(api) as stream:
        await stream.next()
        api.gateway.drain()
        bye = await stream.next()
        assert (bye.what, bye.id) == ("bye", None)
        assert await stream.ended()


async def test_who_does_not_read_is_cut(make_api: MakeApi) -> None:
    """A watcher is a position and no buffer; it can come back with the one it has."""
    api: Api = await make_api(write_timeout_ms=50)
    loop = asyncio.get_running_loop()
    with socket.create_connection((api.host, api.port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await loop.sock_sendall(client, b"GET /v1/watch HTTP/1.1\r\nHost: x\r\n\r\n")
        names = [f"{'long' * 40}-{number}" for number in range(1000)]
        hub = api.gateway._context.hub

        async def is_cut() -> bool:
            ann = await api.open()
            calls = [{"call": f"POST /v1/locks/{name}/acquire", "session": ann} for name in names]
            await api.post("/v1/batch", {"commands": calls})
            await api.delete(f"/v1/sessions/{ann}")
            return bool(hub.cut == 1)

        await until(is_cut, within_s=60.0)
        assert len(hub) == 0


async def test_events_can_be_asked_for_page_by_page(anywhere: Api) -> None:
    """The same members as in a stream; `next` goes on where the page ended."""
    ann = await anywhere.open()
    for name in "abc":
        await anywhere.acquire(name, ann)
    await anywhere.delete(f"/v1/sessions/{ann}")
    first = (await anywhere.get("/v1/events?prefix=/locks/&limit=2")).body
    assert [(event["what"], event["name"]) for event in first["events"]] == [
        ("granted", "a"),
        ("granted", "b"),
    ]
    assert (first["more"], first["lost"]) == (True, False)
    rest = (await anywhere.get(f"/v1/events?prefix=/locks/&after={first['next']}")).body
    assert [event["what"] for event in rest["events"]] == ["granted", "lost", "lost", "lost"]
    assert rest["more"] is False
    none = (await anywhere.get(f"/v1/events?after={rest['next']}")).body
    assert (none["events"], none["next"] >= rest["next"]) == ([], True)
    ahead = (await anywhere.get(f"/v1/events?after={rest['next'] + 1000}")).body
    assert ahead["next"] == rest["next"] + 1000
    of_ann = (await anywhere.get(f"/v1/events?session={ann}&prefix=/v1/sessions/")).body
    assert [event["what"] for event in of_ann["events"]] == ["opened", "closed"]


async def test_a_page_says_what_is_forgotten(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who polls too seldom is told to look at the state."""
    monkeypatch.setattr(limits, "EVENTS_KEPT_MAX", 1)
    await api.open()
    await api.open()
    assert (await api.get("/v1/events?after=1")).body["lost"] is False
    assert (await api.get("/v1/events?after=0")).body["lost"] is True


@pytest.mark.parametrize(
    ("query", "headers", "field"),
    [
        ("?prefix=locks", {}, "prefix"),
        ("?prefix=", {}, "prefix"),
        ("?session=", {}, "session"),
        ("?after=-1", {}, "after"),
        ("?after=1&after=2", {}, "after"),
        ("?limits=1", {}, "limits"),
        ("", {"Last-Event-ID": "now"}, "Last-Event-ID"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    api: Api, query: str, headers: dict[str, str], field: str
) -> None:
    """Before a stream begins."""
    got: Any = await api.get(f"/v1/watch{query}", headers=headers)
    assert (got.status, got.body["field"]) == (400, field)


async def test_who_hangs_up_before_the_stream_begins_is_no_error_of_ours(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The connection is closing, and nobody has been told of its end yet."""
    tried = asyncio.Event()

    async def prepare(*_: Any) -> None:
        tried.set()
        raise ClientConnectionResetError("Cannot write to closing transport")

    monkeypatch.setattr(web.StreamResponse, "prepare", prepare)
    reader, writer = await asyncio.open_connection(api.host, api.port)
    writer.write(b"GET /v1/watch HTTP/1.1\r\nHost: h\r\n\r\n")
    await tried.wait()
    assert await reader.read() == b""
    writer.close()
    assert not caplog.records


async def test_a_head_is_answered_without_a_stream(api: Api) -> None:
    """As for any page."""
    got = await api.call("HEAD", "/v1/watch")
    assert (got.status, got.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")


async def test_a_watcher_that_comes_before_the_first_entry_has_no_position(api: Api) -> None:
    """An id of 0 would mean something else."""
    async with Stream(api) as stream:
        opened = await stream.next()
        assert (opened.id, opened.data["after"]) == (None, 0)
