"""Crowds and strangers at a live cluster: those who ask properly notice nothing."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import random
import re
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from jepsen.progress import progress, until

from cluster.client.core import path_of
from cluster.fronts.registry import MAKERS
from cluster.node.config import Address
from tests.integration.cluster import NAMES, Cluster, Reply
from tests.integration.crowds import descriptors, many_files, opened, until_freed
from tests.integration.fronts.cluster import FrontCluster, started
from tests.integration.history import Traffic

pytestmark = pytest.mark.asyncio(loop_scope="module")

WAITERS = 2_000
ASKED_AT_A_TIME = 64
STRANGERS = 80


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FrontCluster]:
    """The cluster of this module, with every front on every node."""
    with many_files():
        async with started(tmp_path_factory.mktemp("limits")) as cluster:
            yield cluster


@pytest_asyncio.fixture(loop_scope="module")
async def cluster(running: FrontCluster) -> FrontCluster:
    """The same, whole."""
    await running.make_whole()
    return running


async def test_garbage_at_the_api_is_refused_while_others_are_served(
    cluster: Cluster, rng: random.Random
) -> None:
    """Heads that are none, bodies that do not fit, noise: a 4xx in our words, or the door."""
    before = {name: descriptors(cluster, name) for name in NAMES}
    async with Traffic(cluster) as traffic:
        for _ in range(3):
            await traffic.grow(6)
            told = await asyncio.gather(
                *(
                    tell(cluster.members[name].http, words)
                    for name in NAMES
                    for words in http_garbage(rng)
                )
            )
            for answer in told:
                assert not answer or re.match(rb"HTTP/1.[01] 4", answer), answer
                assert not answer or b"application/problem+json" in answer, answer
        await traffic.grow(6)
    await until_freed(cluster, before)


async def test_clients_that_dawdle_hold_nobody_up(cluster: Cluster) -> None:
    """Connections that stop in the middle of a head, or of a body, while others are served."""
    before = {name: descriptors(cluster, name) for name in NAMES}
    head = b"POST /v1/sessions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    async with contextlib.AsyncExitStack() as crowd, Traffic(cluster) as traffic:
        for name in NAMES:
            for number in range(STRANGERS):
                _, writer = await crowd.enter_async_context(opened(cluster.members[name].http))
                writer.write([b"", b"G", head, head + b"Content-Length: 9\r\n\r\n{"][number % 4])
        await traffic.grow(60)
    await until_freed(cluster, before)


async def test_clients_that_hang_up_at_once_stop_nobody(
    cluster: Cluster, rng: random.Random
) -> None:
    """Requests for a held lock on connections that break before, while and after they are applied:
    nobody keeps a place in the queue, and no node minds.
    """
    lock = "hung up"
    before = {name: descriptors(cluster, name) for name in NAMES}
    holder, *sessions = [await cluster.open_session(name) for name in (*NAMES, "n1")]
    token = await cluster.granted("n1", lock, holder)
    path = path_of("locks", lock, "acquire")

    async def hangs_up(name: str, session: str, turns: int) -> None:
        for _ in range(30):
            line = await cluster.line(name)
            await line.ask("POST", path, {"session": session, "wait": "5m"})
            for _ in range(turns):
                await asyncio.sleep(0)
            line.hang_up()

    async with Traffic(cluster) as traffic:
        await asyncio.gather(
            *(
                hangs_up(name, rng.choice(sessions), rng.randrange(1, 200))
                for name in NAMES
                for _ in range(16)
            )
        )
        await traffic.grow(6)
    await cluster.until_queued("n1", lock)
    assert await cluster.holders("n2", lock) == [(holder, token)]
    await until_freed(cluster, before)
    await cluster.agree()
    cluster.check_none_crashed()


async def test_strangers_at_the_peer_port_do_not_disturb_the_peers(
    cluster: Cluster, rng: random.Random
) -> None:
    """More than there is room for, silent or noisy: no peer is lost, nobody is let in."""
    before = {name: descriptors(cluster, name) for name in NAMES}
    connects = {name: count_of(cluster, name, "connected to peer") for name in NAMES}
    async with contextlib.AsyncExitStack() as crowd, Traffic(cluster) as traffic:
        for number in range(STRANGERS):
            for name in NAMES:
                _, writer = await crowd.enter_async_context(opened(cluster.members[name].listen))
                writer.write(peer_garbage(rng, number))
        await traffic.grow(60)
        told = await asyncio.gather(
            *(tell(cluster.members[name].listen, peer_garbage(rng, 1)) for name in NAMES)
        )
        assert all(len(answer) < 4_096 for answer in told)
        await traffic.grow(6)
    for name in NAMES:
        assert count_of(cluster, name, "connected to peer") == connects[name], name
    await until_freed(cluster, before)
    await cluster.agree()


async def test_strangers_at_the_fronts_disturb_nobody(
    cluster: FrontCluster, rng: random.Random
) -> None:
    """Noise, other protocols, frames and lines without end, and silence, at every front of every
    node: clients of the same fronts and of the API are served, and no node minds or grows.
    """
    doors = [(name, front, cluster.at(name, front)) for name in NAMES for front in MAKERS]
    before = {name: descriptors(cluster, name) for name in NAMES}
    resident = {name: memory_mib(cluster, name) for name in NAMES}
    said = {name: len(cluster.lines[name]) for name in NAMES}
    async with contextlib.AsyncExitStack() as crowd, Traffic(cluster) as traffic:
        workers = [
            await crowd.enter_async_context(opened(cluster.at(name, "beanstalkd")))
            for name in NAMES
        ]
        for _, _, address in doors:
            for words in front_garbage(rng)[:6]:
                # Nothing follows, and they do not hang up either.
                _, writer = await crowd.enter_async_context(opened(address))
                writer.write(words[: len(words) // 2])
        for number in range(3):
            asked = [(address, words) for _, _, address in doors for words in front_garbage(rng)]
            told = await asyncio.gather(*(tell(*one) for one in asked))
            for (address, words), answer in zip(asked, told, strict=True):
                assert len(answer) < 4 * len(words) + 4_096, (address, words[:80], answer[:80])
            for reader, writer in workers:
                body = b"%d" % number
                writer.write(b"put 0 0 60 %d\r\n%s\r\nreserve\r\n" % (len(body), body))
                assert (await reader.readline()).startswith(b"INSERTED ")
                reserved = (await reader.readline()).split()
                assert (reserved[0], await reader.readline()) == (b"RESERVED", body + b"\r\n")
                writer.write(b"delete %s\r\n" % reserved[1])
                assert await reader.readline() == b"DELETED\r\n"
            await traffic.grow(6)
    await until_freed(cluster, before)
    for name in NAMES:
        assert memory_mib(cluster, name) < resident[name] + 200
        complaints = [line for line in cluster.lines[name][said[name] :] if '"exception"' in line]
        assert not complaints, complaints[0][:2_000]
    await cluster.agree()
    cluster.check_none_crashed()


async def test_an_oversized_body_is_refused_unread(cluster: Cluster) -> None:
    """By its announced length, and by its real one where none is announced."""
    head = b"POST /v1/sessions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    told = await tell(
        cluster.members["n1"].http,
        head + b"Content-Length: 99999999999\r\n\r\n" + b"x" * 100_000,
        is_all=False,
    )
    assert told.startswith(b"HTTP/1.1 413 "), told
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    told = await tell(
        cluster.members["n1"].http,
        head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 40 + b"0\r\n\r\n",
        is_all=False,
    )
    assert told.startswith(b"HTTP/1.1 413 "), told
    await cluster.agree()


@pytest.mark.slow
async def test_two_thousand_waiters_get_the_lock_in_the_order_of_the_queue(
    cluster: Cluster,
) -> None:
    """Through all nodes; each gives it back as soon as it has it."""
    lock = "crowd"
    count = min(WAITERS, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200) // 2)
    few = asyncio.Semaphore(ASKED_AT_A_TIME)

    async def opened_session(number: int) -> str:
        async with few:
            return await cluster.open_session(NAMES[number % 3])

    sessions = await asyncio.gather(*(opened_session(number) for number in range(count)))
    holder = await cluster.open_session("n1")
    token = await cluster.granted("n1", lock, holder)
    path = path_of("locks", lock, "acquire")

    async def waited(number: int) -> Reply:
        node, session = NAMES[number % 3], sessions[number]
        # A node waits ten seconds for the head of a request. With all connections made at once, a
        # slow machine takes longer than that to come from the first one's to its request.
        async with few:
            line = await cluster.line(node)
            await line.ask("POST", path, {"session": session, "wait": "10m"})
        granted = await line.answer()
        assert granted.status == 200, granted
        await cluster.released(node, lock, session, granted.body["token"])
        return granted

    waits = [asyncio.create_task(waited(number)) for number in range(count)]

    async def is_full() -> bool:
        for wait in waits:
            assert not wait.done(), wait.result()
        figures = [await cluster.figures(name) for name in NAMES]
        parked = sum(int(figure["coterie_requests_parked"]) for figure in figures)
        progress.reached(lock, parked)
        return parked == count

    await until(is_full, f"{count} waiters")
    queue = await cluster.waiters("n2", lock)
    assert sorted(queue) == sorted(sessions)
    await cluster.released("n1", lock, holder, token)
    granted = await asyncio.gather(*waits)
    order = sorted(granted, key=lambda reply: int(reply.body["token"]))
    assert [reply.body["session"] for reply in order] == queue
    assert await cluster.holders("n3", lock) == []
    await cluster.agree()


def http_garbage(rng: random.Random) -> list[bytes]:
    """Requests that no client of ours would send, each to be told on a connection of its own."""
    post = b"POST /v1/sessions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    return [
        rng.randbytes(rng.randrange(1, 3_000)) + b"\r\n\r\n",
        pickle.dumps({"ttl": "30s"}) + b"\r\n\r\n",
        # A client that speaks TLS.
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(500) + b"\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET http://[::bad/v1/locks HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v1/locks/" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v1/locks HTTP/1.1\r\nHost: a\r\n" + b"X-A: b\r\n" * 4_000 + b"\r\n",
        post + b"Content-Length: -1\r\n\r\n{}",
        post + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        post + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        post + b"Content-Length: 40\r\nConnection: close\r\n\r\n" + rng.randbytes(40),
        post + b"Content-Length: 2\r\nConnection: close\r\n\r\n{}",
    ]


def peer_garbage(rng: random.Random, number: int) -> bytes:
    """Nothing, noise, a frame of a gigabyte, or a pickle that would run a program."""

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            import os

            return os.abort, ()

    return [
        b"",
        rng.randbytes(200),
        (1 << 30).to_bytes(4, "big") + rng.randbytes(100),
        pickle.dumps(Bomb()),
    ][number % 4]


def front_garbage(rng: random.Random) -> list[bytes]:
    """What no client of any front would send, or only one of another front."""
    post = b"POST /api/v1/sessions HTTP/1.1\r\nHost: a\r\n"
    return [
        rng.randbytes(rng.randrange(1, 3_000)),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(500),
        pickle.dumps({"ttl": "30s"}) + b"\r\n\r\n",
        # A job of a terabyte, a message of two gigabytes, a value of 2^64 bytes, a body of a petabyte.
        b"put 0 0 60 1099511627776\r\n" + b"x" * 100_000,
        b"\x7f\xff\xff\xff\x00\x03\x00\x00user\x00" + rng.randbytes(50_000),
        b"\xf8" + b"\xff" * 8 + rng.randbytes(50_000),
        post + b"Content-Length: 1125899906842624\r\n\r\n" + b"x" * 100_000,
        post + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n" + b"x" * 100_000,
        # A line and a head that do not end.
        b"reserve" * 100_000,
        b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 20_000,
        b"Q\x00\x00\x00\x04" * 100,
    ]


async def tell(address: Address, words: bytes, *, is_all: bool = True) -> bytes:
    """Send bytes and return all that comes back until the end.

    Args:
        is_all: say that nothing follows. In the middle of a body a server may take that for a
            client that hung up, and owes it no answer.
    """
    async with opened(address) as (reader, writer):
        answer = b""
        with contextlib.suppress(ConnectionError):
            writer.write(words)
            await writer.drain()
            if is_all:
                writer.write_eof()
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(60.0):
                while part := await reader.read(65_536):
                    answer += part
        return answer


def count_of(cluster: Cluster, name: str, words: str) -> int:
    """How many lines of a node's log say this."""
    return sum(words in line for line in cluster.lines[name])


def memory_mib(cluster: Cluster, name: str) -> int:
    """What a node has resident, in MiB; 0 where the kernel does not tell."""
    listing = Path(f"/proc/{cluster.pid_of(name)}/statm")
    pages = int(listing.read_text().split()[1]) if listing.exists() else 0
    return pages * resource.getpagesize() >> 20
