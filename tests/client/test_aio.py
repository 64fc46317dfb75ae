"""The asyncio shell, over real sockets."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
import trustme
from aiohttp import web
from msgspec.structs import replace

from cluster.client import aio
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
    async with Client(unused_endpoint(), policy=replace(HURRIED, attempts_max=3)) as client:
        with pytest.raises(Definite) as caught:
            await client.open_session(ttl_ms=9_000)
    assert caught.value.code == "unreachable"


async def test_a_cluster_without_a_leader_is_asked_until_the_deadline() -> None:
    """And then the error says so."""
    passed_ms = 0
    async with SmallServer() as server:

        async def gate(path: str) -> web.Response | None:
            nonlocal passed_ms
            passed_ms += 20_000
            return problem(503, "no_leader")

        server.gate = gate
        patient = {"policy": HURRIED, "timeout_ms": 50_000, "clock": lambda: passed_ms}
        async with Client(server.endpoint, **patient) as client:
            with pytest.raises(NoLeader) as caught:
                await client.open_session(ttl_ms=9_000)
    assert caught.value.definite
    assert len(server.seen) == 3


async def test_a_node_that_never_answers_is_a_timeout() -> None:
    """It may have happened."""
    async with SmallServer() as server:

        async def gate(path: str) -> web.Response | None:
            await asyncio.Event().wait()
            return None

        server.gate = gate
        async with Client(server.endpoint, policy=HURRIED, timeout_ms=300) as client:
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


async def test_a_member_that_is_missing_is_indefinite() -> None:
    """Somebody between us and the node answered, and what was asked for may have happened."""
    async with SmallServer() as server, Client(server.endpoint) as client:

        async def gate(path: str) -> web.Response | None:
            return web.json_response({})

        server.gate = gate
        with pytest.raises(Indefinite, match='no member "answers"'):
            await client.batch([])
        with pytest.raises(Indefinite, match="makes no PutJob"):
            await client.tube("t").put("x")


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b"null", b'"x"', b"\xff"])
async def test_an_answer_that_is_no_object_is_indefinite(body: bytes) -> None:
    """And other nodes are asked before it is given up."""
    async with SmallServer() as server:

        async def gate(path: str) -> web.Response | None:
            return web.Response(body=body, headers={"Coterie-Index": "9" * 5_000})

        server.gate = gate
        async with Client(server.endpoint, policy=HURRIED, timeout_ms=50) as client:
            with pytest.raises(Indefinite):
                await client.cluster()


async def test_an_answer_without_end_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it fills the memory."""
    monkeypatch.setattr(aio, "ANSWER_BYTES_MAX", 100_000)
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
        try:
            while True:
                writer.write(b" " * 65_536)
                sent += 65_536
                await writer.drain()
        except ConnectionError:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    policy = Policy(attempts_max=1)
    async with Client(f"{host}:{port}", policy=policy, timeout_ms=30_000) as client:
        with pytest.raises(ConnectionLost, match="larger than"):
            await client.cluster()
    server.close()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    """No node sends one; where it leads is no endpoint of ours."""
    async with SmallServer() as server, Client(server.endpoint) as client:

        async def gate(path: str) -> web.Response | None:
            return web.Response(status=status, headers={"Location": path})

        server.gate = gate
        with pytest.raises(Refused, match=str(status)):
            await client.cluster()
    assert len(server.seen) == 1


async def test_a_closed_client_asks_nobody() -> None:
    """It says so, and opens nothing that nobody would close."""
    async with SmallServer() as server:
        client = Client(server.endpoint)
        await client.open_session(ttl_ms=9_000)
        await client.close()
        await client.close()
        with pytest.raises(RuntimeError, match="the client is closed"):
            await client.cluster()
    assert len(server.seen) == 1


async def test_a_call_under_way_ends_with_its_client() -> None:
    """It is not sent again, by connections that nobody would close."""
    async with SmallServer() as server:

        async def gate(path: str) -> web.Response | None:
            await asyncio.sleep(3_600)
            return None

        server.gate = gate
        client = Client(server.endpoint, policy=HURRIED)
        calling = asyncio.ensure_future(client.cluster())
        await server.until_seen("GET", "cluster")
        await client.close()
        with pytest.raises(RuntimeError, match="the client is closed"):
            await calling


async def test_closing_goes_on_behind_who_is_cancelled() -> None:
    """Sessions are ended and connections closed all the same."""
    async with SmallServer() as server:
        client = Client(server.endpoint)
        session = await client.session(owner="process").open()
        may_end = asyncio.Event()

        async def gate(path: str) -> web.Response | None:
            await may_end.wait()
            return None

        server.gate = gate
        closing = asyncio.ensure_future(client.close())
        await server.until_seen("DELETE", "-s")
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        may_end.set()
        await client.close()
        assert session.state == "free"
    assert server.sessions == {}


async def test_closing_does_not_wait_for_what_may_take_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What goes on behind the callers has some seconds; after that it is broken off."""
    monkeypatch.setattr(aio, "FAREWELL_MS", 10)

    async def hours() -> None:
        try:
            await asyncio.sleep(3_600)
        finally:
            ended.set()

    ended = asyncio.Event()
    client = Client("127.0.0.1:1")
    behind = client.behind(hours())
    closing = asyncio.ensure_future(client.close())
    await asyncio.wait_for(closing, 60)
    assert ended.is_set()
    assert behind.cancelled()


def test_a_client_of_another_loop_says_so() -> None:
    """Its connections belong to the loop in which they were made."""
    client = Client("127.0.0.1:1", policy=Policy(attempts_max=1))

    async def ask() -> None:
        with pytest.raises(Definite):
            await client.cluster()

    async def ask_elsewhere() -> None:
        with pytest.raises(RuntimeError, match="another event loop"):
            await client.cluster()

    with asyncio.Runner() as first:
        first.run(ask())
        with asyncio.Runner() as second:
            second.run(ask_elsewhere())
        first.run(client.close())


async def serve_tls(certificate: trustme.LeafCert) -> tuple[web.AppRunner, str]:
    """A node behind something that speaks TLS."""

    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"leader": "n2", "term": 7})

    app = web.Application()
    app.router.add_post("/v1/cluster/transfer", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    return runner, f"127.0.0.1:{runner.addresses[0][1]}"


async def test_tls_trusts_whom_it_is_told_to_trust(tmp_path: Path) -> None:
    """By the file of an authority or by a context; nobody else, and nothing unencrypted."""
    authority = trustme.CA()
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    runner, endpoint = await serve_tls(authority.issue_cert("127.0.0.1"))
    try:
        for tls in (str(file), file, context):
            async with Client(endpoint, tls=tls) as client:
                assert (await client.transfer()).leader == "n2"
        async with Client(f"https://{endpoint}", policy=Policy(attempts_max=1)) as client:
            with pytest.raises(Definite) as caught:
                await client.transfer()
            assert caught.value.code == "unreachable"
    finally:
        await runner.cleanup()
    with pytest.raises(ValueError, match="not encrypted"):
        Client(f"http://{endpoint}", tls=context)
    with pytest.raises(OSError, match="No such file"):
        Client(endpoint, tls=tmp_path / "none.pem")


async def test_who_does_not_listen_is_told_in_plain_words() -> None:
    """The address once, and what the system says."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        host, port = taken.getsockname()
    async with Client(f"{host}:{port}", policy=Policy(attempts_max=1)) as client:
        with pytest.raises(Definite) as caught:
            await client.open_session(ttl_ms=9_000)
    assert str(caught.value).endswith(f"http://{host}:{port}: connection refused")
