"""Clients: what an answer means, what is repeated, and what is taken down of it."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jepsen.calls import ROUTES, call, request
from jepsen.clients import Ask, Client, Links, meaning
from jepsen.history import Recorder, Type, operations
from jepsen.workloads import Arena

from cluster.gateway.server import NATIVE_ROUTES
from tests.jepsen.calm import calm_cluster

DROP = "drop"
SILENCE = "silence"
Answer = tuple[int, Any] | str


class Scripted:
    """A node that answers each request with the next answer of its script, then the last again.

    Attributes:
        heads: of the requests that came, in order.
    """

    def __init__(self, *script: Answer):
        self._script = list(script)
        self.heads: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        answer = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        if answer == SILENCE:
            await reader.read()
        elif not isinstance(answer, str):
            status, body = answer
            raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
            fields = "Connection: close\r\nCoterie-Index: 41\r\n"
            writer.write(
                f"HTTP/1.1 {status} -\r\n{fields}Content-Length: {len(raw)}\r\n\r\n".encode()
            )
            writer.write(raw)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def asking(**nodes: Scripted) -> AsyncIterator[Client]:
    """A client of scripted nodes."""
    servers = {
        name: await asyncio.start_server(node.serve, "127.0.0.1", 0) for name, node in nodes.items()
    }
    urls = {
        name: (f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}",)
        for name, server in servers.items()
    }
    arena = Arena(Recorder(), random.Random(7), urls)
    try:
        async with Links(arena) as links:
            yield links.client(0, "client")
    finally:
        for server in servers.values():
            server.close()


def problem(code: str, *, definite: bool, **more: Any) -> dict[str, Any]:
    """A problem document, as far as it is read."""
    return {"code": code, "definite": definite, **more}


def test_only_what_the_cluster_says_for_sure_is_a_failure() -> None:
    """Definite problems fail; everything else that is no success leaves it open."""
    cases = [
        (200, {"a": 1}, Type.OK, ""),
        (204, b"", Type.OK, ""),
        (409, problem("lock_held", definite=True), Type.FAIL, "lock_held"),
        (503, problem("no_leader", definite=True), Type.FAIL, "no_leader"),
        (504, problem("timeout", definite=False), Type.INFO, "timeout"),
        (500, problem("internal", definite=False), Type.INFO, "internal"),
        (409, {"code": "without a word on it"}, Type.INFO, "without a word on it"),
        (502, {"message": "bad gateway"}, Type.INFO, "http_502"),
        (200, b"<html>", Type.INFO, "bad_answer"),
    ]
    for status, body, outcome, error in cases:
        raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
        reply = meaning(status, raw, "n1", "17")
        assert (reply.outcome, reply.error) == (outcome, error), (status, body)


async def test_an_answer_is_taken_down_with_its_position() -> None:
    """The ok has the answer's members and the index; the invoke has the fields and the key."""
    async with asking(n1=Scripted((200, {"token": 5}))) as client:
        await call(client, "lock.acquire", "a", session="s", wait_ms=10)
        [operation] = operations(client.arena.recorder.lines)
    assert operation.result == {"token": 5, "index": 41}
    assert operation.value["session"] == "s"
    assert operation.value["wait_ms"] == 10
    assert len(operation.value["request_id"]) == 32
    assert (operation.f, operation.key, operation.node) == ("lock.acquire", "a", "n1")


async def test_a_refusal_is_a_failure_with_its_problem() -> None:
    """Its code is the error, its members are kept."""
    refusal = problem("lock_held", definite=True, holder_token=3)
    async with asking(n1=Scripted((409, refusal))) as client:
        reply = await call(client, "lock.acquire", "a", session="s")
        last = client.arena.recorder.lines[-1]
    assert not reply.is_ok
    assert (last.type, last.error, last.value["holder_token"]) == (Type.FAIL, "lock_held", 3)


async def test_a_connection_that_breaks_leaves_it_open_and_the_process_ends() -> None:
    """The next operation is another process's."""
    async with asking(n1=Scripted(DROP, (200, {}))) as client:
        await call(client, "lock.release", "a", session="s", token=1)
        await call(client, "lock.release", "a", session="s", token=1)
        first, second = operations(client.arena.recorder.lines)
    assert (first.outcome, first.error) == (Type.INFO, "lost")
    assert second.outcome is Type.OK
    assert second.process != first.process


async def test_no_answer_in_time_leaves_it_open() -> None:
    """Nobody knows what a silent node has done."""
    async with asking(n1=Scripted(SILENCE)) as client:
        ask = request("lock.release", "a", {"session": "s", "token": 1})
        reply = await client.do("lock.release", "a", {}, ask, patience_s=0.02)
    assert (reply.outcome, reply.error) == (Type.INFO, "late")


async def test_nobody_at_the_address_is_a_failure() -> None:
    """No connection, nothing sent."""
    with socket.socket() as bound:
        # Bound and not listening: nobody else can get this port.
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        async with Links(Arena(Recorder(), random.Random(7), {"n1": (url,)})) as links:
            reply = await call(links.client(0, "client"), "job.put", "mail", body="b")
    assert (reply.outcome, reply.error) == (Type.FAIL, "unreachable")


async def test_a_read_leaves_nothing_open() -> None:
    """One that was not answered did not happen, and the process stays."""
    async with asking(n1=Scripted(DROP)) as client:
        await call(client, "lock.read", "a")
        await call(client, "lock.check", "a", token=1)
        first, second = operations(client.arena.recorder.lines)
    assert (first.outcome, second.outcome) == (Type.FAIL, Type.FAIL)
    assert first.process == second.process


async def test_a_client_that_hangs_up_knows_nothing() -> None:
    """A call that is cancelled ends as info before the cancellation goes on."""
    node = Scripted(SILENCE)
    async with asking(n1=node) as client:
        asked = asyncio.create_task(call(client, "job.reserve", "mail"))
        while not node.heads:
            await asyncio.sleep(0)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        [operation] = operations(client.arena.recorder.lines)
    assert asked.cancelled()
    assert (operation.outcome, operation.error) == (Type.INFO, "hung_up")


async def test_a_patient_client_asks_other_nodes_under_the_same_key() -> None:
    """All attempts are one operation; its answer says how many there were."""
    nodes = {"n1": Scripted(DROP), "n2": Scripted(DROP), "n3": Scripted((200, {"token": 1}))}
    async with asking(**nodes) as client:
        await client.do(
            "lock.acquire",
            "a",
            {},
            request("lock.acquire", "a", {"session": "s"}, request_id="k" * 32),
            at="n1",
            retry_s=5.0,
        )
        [operation] = operations(client.arena.recorder.lines)
    attempts = sum(len(node.heads) for node in nodes.values())
    assert operation.outcome is Type.OK
    assert operation.result.get("attempts", 1) == attempts > 1
    heads = [head.lower() for node in nodes.values() for head in node.heads]
    assert all(f"idempotency-key: {'k' * 32}" in head for head in heads)


async def test_a_sure_failure_after_an_open_attempt_stays_open() -> None:
    """That nobody leads now says nothing about what was sent before."""
    no_leader = (503, problem("no_leader", definite=True))
    async with asking(n1=Scripted(DROP, no_leader)) as client:
        reply = await call(client, "job.put", "mail", retry_s=0.2, body="b")
    assert (reply.outcome, reply.error) == (Type.INFO, "no_leader")


async def test_a_refusal_settles_an_open_attempt() -> None:
    """The same key gets the answer of the first."""
    refusal = (409, problem("duplicate_key", definite=True))
    async with asking(n1=Scripted(DROP, refusal)) as client:
        reply = await call(client, "job.put", "mail", retry_s=5.0, body="b")
    assert (reply.outcome, reply.error) == (Type.FAIL, "duplicate_key")


async def test_pages_are_read_as_one_operation() -> None:
    """Every page of every list, and `next` goes into `after`."""
    node = Scripted((200, {"jobs": [1], "next": "x"}), (200, {"jobs": [2]}), (200, {"jobs": [3]}))
    async with asking(n1=node) as client:
        asks = [Ask("GET", f"/v1/a?state={state}", is_read=True) for state in "rd"]
        found = await client.pages("job.list", "mail", asks, "jobs")
        [operation] = operations(client.arena.recorder.lines)
    assert found == [1, 2, 3]
    assert operation.result == {"jobs": [1, 2, 3]}
    targets = [head.split()[1] for head in node.heads]
    assert targets == ["/v1/a?state=r", "/v1/a?state=r&after=x", "/v1/a?state=d"]


def test_fields_go_where_the_api_has_them() -> None:
    """Names into the path, quoted; lengths of time without their ending; the rest as it is."""
    ask = request("fifo.wait", "a/b", {"ticket": "t 1", "wait_ms": 500}, request_id="k")
    assert (ask.method, ask.path) == ("POST", "/v1/fifos/a%2Fb/tickets/t%201/wait")
    assert (ask.body, ask.wait_ms, ask.key) == ({"wait": 500}, 500, "k")
    task = {"id": "x", "schedule": {"every_ms": 1_000, "overlap": "skip"}}
    ask = request("task.put", "p", {"tasks": [task]})
    assert ask.body == {"tasks": [{"id": "x", "schedule": {"every": 1_000, "overlap": "skip"}}]}
    ask = request("ticket.revoke", "r", {"session": "s", "ticket": "t"})
    assert (ask.path, ask.body) == ("/v1/resources/r/tickets/t?session=s", None)
    ask = request("lock.read", "a", {"consistency": "stale"})
    assert (ask.path, ask.body, ask.is_read) == ("/v1/locks/a?consistency=stale", None, True)


@pytest.mark.parametrize("f", ROUTES)
def test_every_verb_is_a_call_of_the_api(f: str) -> None:
    """Its method and its path, whatever the names in it are."""
    route = ROUTES[f]
    parts = f"/v1/{route.path.partition('?')[0]}".split("/")
    shapes = [
        [("{}" if part.startswith("{") else part) for part in row.path.split("/")]
        for row in NATIVE_ROUTES
        if row.method == route.method
    ]
    assert [("{}" if part.startswith("{") else part) for part in parts] in shapes


async def test_events_are_read_as_they_come(tmp_path: Path) -> None:
    """The opening, an event with its id, and bookmarks between them."""
    async with calm_cluster(tmp_path) as urls:
        arena = Arena(Recorder(), random.Random(7), {name: (url,) for name, url in urls.items()})
        async with Links(arena) as links:
            client = links.client(0, "client")
            async with links.stream(0, "n2", "/v1/watch?prefix=/sessions/") as events:
                opening = await anext(events)
                opened = await call(client, "session.open", retry_s=5.0, ttl_ms=60_000)
                event = await anext(events)
                while event.data is None:
                    event = await anext(events)
    assert opening.what == "open"
    assert (event.what, event.data["session"]) == ("opened", opened.body["session"])
    assert event.id == event.data["index"]


async def test_a_paused_slot_stands_still_until_it_may_go_on() -> None:
    """Its neighbours do not."""
    arena = Arena(Recorder(), random.Random(7), {"n1": ("http://a", "http://b")})
    arena.pause(0)
    await arena.breathe(1)
    waiting = asyncio.create_task(arena.breathe(0))
    await asyncio.sleep(0)
    assert not waiting.done() and arena.is_paused(0)
    arena.resume(0)
    await waiting


async def test_a_rest_ends_with_the_run() -> None:
    """And says that there is no time left."""
    arena = Arena(Recorder(), random.Random(7), {"n1": ("http://a",)})
    assert await arena.rest(0.001)
    arena.stop.set()
    assert not await arena.rest(60.0)


def test_chance_is_the_same_for_the_same_seed_and_name() -> None:
    """Whoever else draws, and whenever."""
    one, other = [Arena(Recorder(), random.Random(7), {"n1": ("http://a",)}) for _ in range(2)]
    one.lots("noise").random()
    assert one.lots("x").random() == other.lots("x").random() != other.lots("y").random()


def test_every_node_wants_a_url_for_each_slot() -> None:
    """Slots are the same at all nodes."""
    with pytest.raises(ValueError, match="one URL for each slot"):
        Arena(Recorder(), random.Random(7), {"n1": ("http://a",), "n2": ()})
