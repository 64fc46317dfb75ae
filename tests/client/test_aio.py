"""The asyncio shell, over real sockets."""

from __future__ import annotations

import asyncio
import socket

import pytest
from aiohttp import web

from cluster.client.aio import Client, now_ms
from cluster.client.core import Policy
from cluster.errors import ConnectionLost, Definite, Indefinite, NoLeader, Refused, Timeout
from tests.client.small_server import Gate, SmallServer, problem

HURRIED = Policy(attempt_ms=2_000, connect_ms=500, pause_first_ms=1, pause_most_ms=5)


def unused_endpoint() -> str:
    """An address that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


async def test_a_session_holds_a_lock_from_opening_to_closing() -> None:
    """The whole life, with times on the client's clock."""
    async with SmallServer() as server, Client(server.endpoint) as client:
        before_ms = now_ms()
        session = await client.open_session(ttl_ms=9_000, name="me", meta={"host": "h"})
        grant = await client.acquire(session.session, "a/../b", priority=1)
        renewed = await client.keepalive(session.session)
        assert (grant.session, grant.name) == (session.session, "a/../b")
        assert before_ms <= session.sent_ms <= renewed.sent_ms <= now_ms()
        assert (session.ttl_ms, renewed.expires_in_ms) == (9_000, 9_000)
        assert (await client.check("a/../b", grant.token)).valid
        assert (await client.lock("a/../b")).holders[0].session == session.session

        await client.release(session.session, "a/../b", grant.token)
        await client.close_session(session.session)

        assert not (await client.check("a/../b", grant.token)).valid
        assert not server.sessions


async def test_every_write_but_a_renewal_carries_a_key_of_its_own() -> None:
    """A renewal must not be answered by an earlier one."""
    async with SmallServer() as server, Client(server.endpoint) as client:
        session = (await client.open_session(ttl_ms=9_000)).session
        await client.keepalive(session)
        await client.close_session(session)
    keys = [key for _, _, key in server.seen]
    assert keys[1] is None
    assert None not in (keys[0], keys[2])
    assert keys[0] != keys[2]


async def test_a_kept_connection_that_breaks_is_not_tried_again_behind_our_back() -> None:
    """A DELETE, which aiohttp would repeat, finding nobody: we would believe that it never left."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).split()[0])
        body = b'{"nodes":[]}'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        asked.append((await reader.readuntil(b"\r\n\r\n")).split()[0])
        server.close()
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with Client(f"{host}:{port}", policy=Policy(attempts_max=1)) as client:
        with pytest.raises(Indefinite):
            await client.cluster()
        with pytest.raises(ConnectionLost):
            await client.close_session("s")
    assert asked == [b"GET", b"DELETE"]


async def test_a_node_that_is_down_is_passed_over() -> None:
    """The next one serves, and the client stays with it."""
    async with SmallServer() as server:
        endpoints = [unused_endpoint(), server.endpoint]
        client = Client(endpoints, policy=HURRIED)
        await client.open_session(ttl_ms=9_000)
        await client.open_session(ttl_ms=9_000)
        await client.close()
    assert len(server.seen) == 2


async def test_an_answer_that_was_lost_is_asked_for_again_under_its_key() -> None:
    """The connection breaks after the request took effect: the repeat finds the first answer."""
    async with SmallServer() as server, Client(server.endpoint, policy=HURRIED) as client:
        session = (await client.open_session(ttl_ms=9_000)).session
        server.gate = breaks_after_acquire(server)
        grant = await client.acquire(session, "a")
        assert grant.token == 2
    acquires = [key for _, path, key in server.seen if path.endswith("acquire")]
    assert len(acquires) == 2
    assert len(set(acquires)) == 1


def breaks_after_acquire(server: SmallServer) -> Gate:
    """A gate that applies the first acquire, and then answers 502 as a broken proxy would."""

    async def gate(path: str) -> web.Response | None:
        if path.endswith("acquire") and server.count("POST", "acquire") == 1:
            server.hold("a", next(iter(server.sessions)))
            return web.Response(status=502)
        return None

    return gate


async def test_a_waiter_whose_connection_broke_asks_anew() -> None:
    """A node that took it for a client that hung up has withdrawn the first request."""
    async with SmallServer() as server, Client(server.endpoint, policy=HURRIED) as client:
        session = (await client.open_session(ttl_ms=9_000)).session

        async def gate(path: str) -> web.Response | None:
            first = path.endswith("acquire") and server.count("POST", "acquire") == 1
            return problem(409, "withdrawn") if first else None

        server.gate = gate
        assert (await client.acquire(session, "a", wait_ms=60_000)).name == "a"
    keys = {key for _, path, key in server.seen if path.endswith("acquire")}
    assert len(keys) == 2


async def test_a_lock_that_is_held_is_refused_with_who_holds_it() -> None:
    """The refusal's reason is passed on."""
    async with SmallServer() as server, Client(server.endpoint) as client:
        token = server.hold("a")
        session = (await client.open_session(ttl_ms=9_000)).session
        with pytest.raises(Refused) as caught:
            await client.acquire(session, "a")
    assert caught.value.code == "lock_held"
    assert (caught.value.reason["holder"], caught.value.reason["holder_token"]) == ("other", token)


async def test_a_waiter_gets_the_lock_when_it_is_passed_on() -> None:
    """The long poll ends with the grant."""
    async with SmallServer() as server, Client(server.endpoint) as client:
        server.hold("a")
        session = (await client.open_session(ttl_ms=9_000)).session
        waiting = asyncio.ensure_future(client.acquire(session, "a", wait_ms=60_000))
        await server.until_seen("POST", "acquire")
        while not server.locks["a"].waiters:
            await asyncio.sleep(0)
        server.pass_on(server.locks["a"])
        assert (await waiting).session == session


async def test_no_node_in_reach_is_definite() -> None:
    """Nothing was sent anywhere."""
    async with Client(unused_endpoint(), policy=HURRIED, timeout_ms=50) as client:
        with pytest.raises(Definite) as caught:
            await client.open_session(ttl_ms=9_000)
    assert caught.value.code == "unreachable"


async def test_a_cluster_without_a_leader_is_asked_until_the_deadline() -> None:
    """And then the error says so."""
    async with SmallServer() as server:

        async def gate(path: str) -> web.Response | None:
            return problem(503, "no_leader")

        server.gate = gate
        async with Client(server.endpoint, policy=HURRIED, timeout_ms=50) as client:
            with pytest.raises(NoLeader) as caught:
                await client.open_session(ttl_ms=9_000)
    assert caught.value.definite
    assert len(server.seen) > 1


async def test_a_node_that_never_answers_is_a_timeout() -> None:
    """It may have happened."""
    async with SmallServer() as server:

        async def gate(path: str) -> web.Response | None:
            await asyncio.Event().wait()
            return None

        server.gate = gate
        async with Client(server.endpoint, policy=HURRIED, timeout_ms=50) as client:
            with pytest.raises(Timeout):
                await client.transfer("n2")


async def test_a_connection_that_breaks_before_the_answer_is_indefinite() -> None:
    """A server that reads and hangs up."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    async with server, Client(f"{host}:{port}", policy=HURRIED) as client:
        with pytest.raises(ConnectionLost):
            await client.transfer()


async def test_an_answer_of_another_shape_is_indefinite() -> None:
    """It is not taken for what it is not; unknown members are no matter."""
    async with SmallServer() as server, Client(server.endpoint) as client:
        server.cluster = {"cluster": "c", "node": "n1"}
        with pytest.raises(Indefinite, match="makes no ClusterState"):
            await client.cluster()
        server.cluster |= {"term": 1, "commit": 2, "applied": 2, "nodes": [{"id": "n1", "x": 1}]}
        assert (await client.cluster()).nodes[0].id == "n1"


async def test_leadership_is_handed_over() -> None:
    """The answer says who leads now."""
    async with SmallServer() as server, Client(server.endpoint) as client:
        assert (await client.transfer("n3")).leader == "n3"
        assert (await client.transfer()).leader == "n2"
