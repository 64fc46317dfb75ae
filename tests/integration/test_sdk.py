"""The SDK at a real cluster of three, while nodes die and ways fall silent.

What a program of its own sees under each fault is in `test_sdk_faults.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from jepsen.progress import until

from cluster.client.aio import Client
from cluster.client.session import Session
from cluster.client.watching import Event, Resync
from tests.integration.cluster import NAMES, Cluster, started
from tests.integration.sdk_faults import Ways

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """The cluster of this module."""
    async with started(tmp_path_factory.mktemp("sdk")) as cluster:
        yield cluster


@pytest_asyncio.fixture(loop_scope="module")
async def cluster(running: Cluster) -> Cluster:
    """The same, whole."""
    await running.make_whole()
    return running


def endpoints(cluster: Cluster) -> list[str]:
    """All nodes."""
    return [cluster.members[name].url for name in NAMES]


async def test_a_killed_leader_is_not_noticed_by_who_holds(cluster: Cluster) -> None:
    """Increments under a lock, by three clients, while the leader dies: none is lost, every token
    is newer than the last, and no session falls into grace for good.
    """
    count, tokens = 0, []

    async def work(client: Client) -> None:
        nonlocal count
        async with client.session(ttl="30s") as session:
            for _ in range(4):
                async with session.lock("sdk/count", wait="5m") as lock:
                    seen = count
                    assert await lock.check()
                    tokens.append(lock.token)
                    count = seen + 1

    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(Client(endpoints(cluster), timeout_ms=120_000))
            for _ in range(3)
        ]
        working = asyncio.gather(*(work(client) for client in clients))

        async def begun() -> bool:
            return count >= 3

        await until(begun, "three increments")
        leader = await cluster.leader()
        await cluster.kill9(leader)
        await working
        await cluster.start(leader)
    assert count == 12
    assert tokens == sorted(set(tokens))


async def test_a_silent_node_is_left_in_time(cluster: Cluster) -> None:
    """The way to the node that serves us swallows everything: a renewal finds out, and what waits
    there is asked for at the next one.
    """
    told: list[str] = []
    async with (
        Ways(cluster) as ways,
        Client(endpoints(cluster), timeout_ms=120_000) as other,
        Client(list(ways.endpoints.values()), timeout_ms=120_000) as client,
        other.session(ttl="30s") as holder,
        client.session(ttl="30s", on_state=told.append) as session,
    ):
        held = holder.lock("sdk/silent")
        await held.acquire()
        waiting = asyncio.create_task(session.lock("sdk/silent", wait="10m").acquire())
        await _until_waiting(other, "sdk/silent")
        ways.silence(NAMES[0])
        await held.release()
        # Far from the ten minutes that the silent way would take.
        await asyncio.wait_for(waiting, 240)
        assert session.state == "held"
    assert told == []


async def _until_waiting(client: Client, name: str) -> None:
    async def waits() -> bool:
        return bool((await client.lock(name)).waiters)

    await until(waits, f"somebody in the queue of {name}")


async def test_sessions_of_ended_tasks_end_with_their_ttl(cluster: Cluster) -> None:
    """Nobody renews them, and the cluster frees what they held."""
    async with Client(endpoints(cluster), timeout_ms=120_000) as client:

        async def open_and_leave() -> Session:
            session = await client.session(ttl="1s").open()
            await session.lock("sdk/left").acquire()
            return session

        session = await asyncio.create_task(open_and_leave())
        assert session.state == "lost"
        async with client.session() as other, other.lock("sdk/left", wait="5m"):
            pass


async def test_a_watch_misses_nothing_and_repeats_nothing(cluster: Cluster) -> None:
    """The leader is killed and connections break in the middle of a stream: every grant is told
    once and in order, or it is said from where on some are lost.
    """
    seen: list[Event] = []
    resyncs: list[Resync] = []
    granted: list[int] = []

    async def watch(client: Client, begun: asyncio.Event) -> None:
        async for happening in client.watch("/locks/sdk/watched"):
            if isinstance(happening, Resync):
                resyncs.append(happening)
                continue
            begun.set()
            seen.append(happening)

    async def grant(session: Session) -> None:
        async with session.lock("sdk/watched", wait="2m") as lock:
            granted.append(lock.token)

    async def is_told() -> bool:
        is_lost = any(resync.resumes_after >= granted[-1] for resync in resyncs)
        return is_lost or any(event.token == granted[-1] for event in seen)

    async with (
        Ways(cluster) as ways,
        Client(list(ways.endpoints.values()), timeout_ms=120_000) as watcher,
        Client(endpoints(cluster), timeout_ms=120_000) as client,
        client.session(ttl="2m") as session,
    ):
        begun = asyncio.Event()
        watching = asyncio.create_task(watch(watcher, begun))
        while not begun.is_set():
            await grant(session)
        before = len(granted)
        for at in range(60):
            await grant(session)
            if at in {10, 40}:
                ways.break_off()
            if at == 20:
                leader = await cluster.leader()
                await cluster.kill9(leader)
            if at == 50:
                await cluster.start(leader)
        await until(is_told, "the last grant")
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    places = [(event.index, event.seq) for event in seen]
    assert places == sorted(set(places))
    told = [event.token or 0 for event in seen if event.what == "granted"]
    assert told == sorted(set(told))
    # The first ones were granted before the watch stood.
    expected = [token for token in granted if token >= granted[before - 1]]
    lost = [
        token
        for token in expected
        if any(resync.lost_after < token <= resync.resumes_after for resync in resyncs)
    ]
    assert set(expected) - set(lost) <= set(told)
    assert set(told) <= set(granted)
