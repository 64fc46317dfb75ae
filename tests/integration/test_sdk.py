"""The SDK at a real cluster of three, while nodes die, ways fall silent and clients are stopped.

What a caller sees under each fault; and that nothing is done under a lock once another may have it,
measured on the one clock that all processes of this machine share.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from jepsen.progress import until

from cluster.client.aio import Client, now_ms
from cluster.client.session import Session
from cluster.errors import LockLost
from tests.integration.cluster import NAMES, Cluster, started

pytestmark = pytest.mark.asyncio(loop_scope="module")

REPOSITORY = Path(__file__).parents[2]

# Holds a lock and says when it last could rely on it, until it cannot any more.
HOLDER = """
import sys, time
from cluster import LockLost, SyncClient
from cluster.client.aio import now_ms

with SyncClient(sys.argv[1]) as client:
    try:
        with client.session(ttl=sys.argv[2]) as session, session.lock("paused") as lock:
            print("held", lock.token, flush=True)
            while True:
                used_ms = now_ms()
                lock.token
                print("used", used_ms, flush=True)
                time.sleep(0.01)
    except LockLost as error:
        print("lost", error, flush=True)
"""


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


class Ways:
    """A way to each node, which can swallow everything and stay open, as a bad network does."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._open = {name: asyncio.Event() for name in NAMES}
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.endpoints: dict[str, str] = {}

    async def __aenter__(self) -> Ways:
        for name in NAMES:
            self._open[name].set()

            async def serve(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str = name
            ) -> None:
                await self._carry(name, reader, writer)

            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            self._servers.append(server)
            host, port = server.sockets[0].getsockname()
            self.endpoints[name] = f"{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def silence(self, *names: str) -> None:
        """Let nothing through, in both directions."""
        for name in names:
            self._open[name].clear()

    async def _carry(
        self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        node_writer = None
        try:
            await self._open[name].wait()
            address = self._cluster.members[name].http
            node_reader, node_writer = await asyncio.open_connection(*address)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._copy(name, reader, node_writer))
                group.create_task(self._copy(name, node_reader, writer))
        except* OSError:
            pass
        finally:
            for each in (writer, node_writer):
                if each is not None:
                    each.transport.abort()

    async def _copy(
        self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(65_536):
            await self._open[name].wait()
            writer.write(data)
            await writer.drain()
        writer.close()


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


async def test_a_list_that_is_half_dead_is_good_enough(cluster: Cluster) -> None:
    """Two of four addresses answer nobody: one refuses, one swallows."""
    with socket.socket() as closed, socket.socket() as deaf:
        closed.bind(("127.0.0.1", 0))
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(128)
        dead = [f"127.0.0.1:{each.getsockname()[1]}" for each in (closed, deaf)]
        async with (
            Client([*dead, *endpoints(cluster)[:2]], timeout_ms=120_000) as client,
            client.session(ttl="30s") as session,
            session.lock("sdk/half") as lock,
        ):
            assert await lock.check()


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


async def test_a_client_that_is_cut_off_stops_before_another_begins(cluster: Cluster) -> None:
    """All ways are silent: grace, then loss, while the other still waits."""
    told: list[str] = []
    used_ms = 0

    async with (
        Ways(cluster) as ways,
        Client(endpoints(cluster), timeout_ms=120_000) as other,
        other.session(ttl="60s") as waiter,
    ):
        client = Client(list(ways.endpoints.values()), timeout_ms=120_000)
        session = client.session(ttl="4s", on_state=told.append)

        async def work() -> None:
            nonlocal used_ms
            async with session, session.lock("sdk/cut") as lock:
                ways.silence(*NAMES)
                while True:
                    using_ms = now_ms()
                    if lock.token:
                        used_ms = using_ms
                    await asyncio.sleep(0)

        working = asyncio.create_task(work())
        await until(_holds(other, "sdk/cut"), "the client's grant")
        granting = asyncio.create_task(waiter.lock("sdk/cut", wait="5m").acquire())
        with pytest.raises(LockLost):
            await working
        stopped_ms = now_ms()
        assert not granting.done()
        await granting
        granted_ms = now_ms()
        await client.close()
    assert told[-1] == "lost"
    assert used_ms < granted_ms
    print(
        f"cut off: last use {granted_ms - used_ms} ms, stopped {granted_ms - stopped_ms} ms "
        "before the other was granted"
    )


async def test_a_client_that_is_stopped_finds_out_at_its_next_use(cluster: Cluster) -> None:
    """SIGSTOP for longer than its TTL; another has the lock meanwhile. Not once does it use its
    token after that, although nothing could tell it.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        HOLDER,
        ",".join(endpoints(cluster)),
        "3s",
        stdout=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert process.stdout is not None
    try:
        held = await process.stdout.readline()
        assert held.startswith(b"held")
        token = int(held.split()[1])
        async with (
            Client(endpoints(cluster), timeout_ms=120_000) as client,
            client.session(ttl="60s") as session,
        ):
            process.send_signal(signal.SIGSTOP)
            async with session.lock("paused", wait="5m") as lock:
                granted_ms = now_ms()
                assert lock.token > token
                process.send_signal(signal.SIGCONT)
                said = (await process.stdout.read()).decode().splitlines()
                assert lock.token
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    *uses, last = said
    assert last.startswith('lost lock "paused"')
    used_ms = [int(line.split()[1]) for line in uses]
    assert not [used for used in used_ms if used >= granted_ms]
    if used_ms:
        print(f"stopped: last use {granted_ms - used_ms[-1]} ms before the other was granted")


async def _until_waiting(client: Client, name: str) -> None:
    async def waits() -> bool:
        return bool((await client.lock(name)).waiters)

    await until(waits, f"somebody in the queue of {name}")


def _holds(client: Client, name: str) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return bool((await client.lock(name)).holders)

    return holds


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
