"""A cluster of real processes for tests: killed, paused, cut apart, made whole again.

RULE: does things to a cluster and reports what is so; what must be so is said by the tests.

`LocalCluster` starts the processes and lets none outlive us. Here it gets ports that stay its own
while a node is down, settings per test module, and, where asked for, a toxiproxy link on every way
from one node to another: then a node's dial address is the link, and its identity is not.

A module's tests share one cluster, as starting one costs more than most tests. Each test begins
with `make_whole`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import signal
import time
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from jepsen.ports import claimed_ports
from jepsen.progress import STILL_S, progress, until

from cluster.cli import processes
from cluster.cli.local import HOST, LocalCluster, Member
from cluster.client.aio import Client, ClusterState
from cluster.client.core import Policy, path_of
from cluster.errors import CoterieError
from cluster.node.config import Address
from tests.integration.toxiproxy import Link, Server

# One answer. Far beyond what load can do, so that only what hangs is cut off.
CALL_S = 300.0
# Asked once: who does not listen does not run, and who is slow is waited for.
LOOK = Policy(attempt_ms=60_000, connect_ms=60_000, attempts_max=1)
NAMES = ("n1", "n2", "n3")

# As asked, a data folder that must not be used, killed.
EXPECTED_ENDS = (0, 65, -signal.SIGKILL)

_clusters: list[Cluster] = []


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer.

    Attributes:
        asked_s: when its request was about to be sent, by `time.monotonic`.
        told_s: when the answer was here.
        index: log position that it reflects.
    """

    node: str
    status: int
    body: dict[str, Any]
    headers: Mapping[str, str]
    asked_s: float
    told_s: float

    @property
    def code(self) -> str | None:
        """Code of the problem; None for a success."""
        return self.body.get("code")

    @property
    def index(self) -> int:
        return int(self.headers["Coterie-Index"])


class Line:
    """A connection for one request, which may be sent to a node that does not run at the time: the
    kernel takes it, and the node finds it when it wakes up.
    """

    def __init__(self, node: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self._node = node
        self._reader = reader
        self._writer = writer
        self._asked_s = 0.0

    async def ask(self, method: str, path: str, body: object = None) -> None:
        """Send the request, whole."""
        self._asked_s = time.monotonic()
        data = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
        )
        self._writer.write(head.encode() + data)
        await self._writer.drain()

    def hang_up(self) -> None:
        """Break the connection, without a word."""
        self._writer.transport.abort()

    async def answer(self) -> Reply:
        """Wait for the answer, which ends the connection."""
        try:
            async with asyncio.timeout(CALL_S):
                head, _, data = (await self._reader.read()).partition(b"\r\n\r\n")
        finally:
            self._writer.close()
            await self._writer.wait_closed()
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        status, told_s = int(first.split()[1]), time.monotonic()
        return Reply(self._node, status, json.loads(data), headers, self._asked_s, told_s)


class Cluster(LocalCluster):
    """Three nodes, with everything that may be done to them.

    Args:
        settings: of every node, over those of a local cluster.
        server: where to make links; without one nodes dial each other directly.
        ports: claimed ones, two for each node and one for each link.
    """

    def __init__(
        self,
        folder: Path,
        ports: list[int],
        *,
        settings: Mapping[str, object],
        server: Server | None = None,
    ):
        members = [
            Member(name, Address(HOST, ports.pop()), Address(HOST, ports.pop())) for name in NAMES
        ]
        super().__init__(folder, members, on_line=self._heard, on_end=self._ended)
        self.lines: dict[str, list[str]] = {name: [] for name in NAMES}
        self.links: dict[tuple[str, str], Link] = {}
        self.crashed: list[str] = []
        self._extra = dict(settings)
        self._paused: set[str] = set()
        self._http: aiohttp.ClientSession | None = None
        if server is not None:
            for source, target in _pairs():
                self.links[source, target] = server.link(
                    f"{folder.name} {source}-{target}",
                    self.members[target].listen,
                    port=ports.pop(),
                )

    async def __aenter__(self) -> Cluster:
        self._http = aiohttp.ClientSession(
            # A connection for each request: one that is kept may be a dead node's.
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=CALL_S),
        )
        _clusters.append(self)
        self.prepare()
        await self.start()
        await self.until_ready()
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.kill()
        finally:
            _clusters.remove(self)
            if self._http is not None:
                await self._http.close()
        self.check_none_crashed()

    def prepare(self, *, log_level: str = "info") -> None:
        """Write the settings; dial addresses are the links where there are any."""
        super().prepare(log_level=log_level)
        for name in self.members:
            file = self.folder / f"{name}.toml"
            table = tomllib.loads(file.read_text(encoding="utf-8")) | self._extra
            peers: dict[str, str] = table.pop("peers")
            for (source, target), link in self.links.items():
                if source == name:
                    peers[target] = str(Address(*link.address))
            lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
            lines += ["[peers]", *(f'{peer} = "{at}"' for peer, at in peers.items())]
            file.write_text("\n".join(lines) + "\n", encoding="utf-8")

    async def make_whole(self) -> None:
        """Heal and start what is not, and wait until all serve under one leader."""
        self.heal()
        for name in tuple(self._paused):
            self.resume(name)
        down = [name for name in self.members if name not in self.running]
        if down:
            await self.start(*down)
        await self.until_ready(*self.members)
        # Of the test before, after its last look; told once.
        crashed, self.crashed = self.crashed, []
        assert not crashed, crashed

    def check_none_crashed(self) -> None:
        """See that no node ended that was not told to, by a signal or by a damaged folder."""
        assert not self.crashed, self.crashed

    def pid_of(self, name: str) -> int:
        """A node's process."""
        return self._processes[name].pid

    # What happens to nodes.

    async def kill9(self, *names: str) -> None:
        """End these nodes by SIGKILL, all at once."""
        for name in names:
            self.signal(name, signal.SIGKILL)
            self._paused.discard(name)
        for name in names:
            await self.ended(name)

    def pause(self, name: str) -> None:
        """Stop a node's clockwork: it keeps its memory and its connections, and does nothing."""
        self._paused.add(name)
        self.signal(name, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let a paused node go on."""
        self._paused.discard(name)
        self.signal(name, signal.SIGCONT)

    # What happens to links. Only with a server.

    def cut(self, source: str, target: str) -> None:
        """One way is closed: its connection breaks, and a new one is refused."""
        self.links[source, target].cut()

    def silence(self, source: str, target: str) -> None:
        """One way swallows everything, in both streams of its connection, and stays open."""
        link = self.links[source, target]
        link.silence("upstream")
        link.silence("downstream")

    def isolate(self, name: str, *, silently: bool = False) -> None:
        """Take one node away from all others, in both directions."""
        for source, target in self.links:
            if name in (source, target):
                (self.silence if silently else self.cut)(source, target)

    def slow_down(self, *, latency_ms: int, jitter_ms: int = 0) -> None:
        """Delay both streams of every way."""
        for link in self.links.values():
            link.slow("upstream", latency_ms=latency_ms, jitter_ms=jitter_ms)
            link.slow("downstream", latency_ms=latency_ms, jitter_ms=jitter_ms)

    def heal(self) -> None:
        """Open every link again and take everything off it."""
        for link in self.links.values():
            link.heal()

    # What is so.

    async def state(self, name: str) -> ClusterState | None:
        """The cluster as one node sees it; None where no process listens."""
        url, most_ms = self.members[name].url, LOOK.attempt_ms
        try:
            async with Client(url, policy=LOOK, timeout_ms=most_ms) as client:
                state = await client.cluster()
        except CoterieError:
            return None
        progress.reached((self.folder, name, "applied"), state.applied)
        progress.reached((self.folder, name, "commit"), state.commit)
        return state

    async def until_ready(self, *names: str, within_s: float = STILL_S) -> ClusterState:
        """Wait until these nodes (all that run when none is named) know one leader and serve.

        Args:
            within_s: fail when nothing has moved for so long.
        """
        expected = names or self.running

        async def ready() -> ClusterState | None:
            self.check_none_crashed()
            ended = [name for name in expected if name not in self.running]
            assert not ended, f"{ended} ended"
            states = await asyncio.gather(*(self.state(name) for name in expected))
            found = [state for state in states if state is not None and state.ready]
            leaders = {state.leader for state in found}
            is_level = len(found) == len(expected) and len(leaders) == 1 and None not in leaders
            return found[0] if is_level else None

        return await until(ready, f"{expected} ready", still_s=within_s)

    async def leader(self, *among: str, other_than: str | None = None) -> str:
        """Wait until these nodes (all when none is named) serve under one leader among them."""
        names = among or tuple(self.members)

        async def found() -> str | None:
            self.check_none_crashed()
            states = await asyncio.gather(*(self.state(name) for name in names))
            leaders = {state.leader if state and state.ready else None for state in states}
            leader = leaders.pop()
            return leader if not leaders and leader in names and leader != other_than else None

        return await until(found, f"{names} under one leader among them, not {other_than}")

    async def roles(self) -> tuple[str, list[str]]:
        """The leader, and the others by name, once all agree."""
        leader = await self.leader()
        return leader, [name for name in self.members if name != leader]

    async def see(self, name: str) -> ClusterState:
        """The cluster as one node sees it; that node must answer."""

        async def seen() -> ClusterState | None:
            return await self.state(name)

        return await until(seen, f"an answer of {name}")

    async def agree(self) -> ClusterState:
        """Wait until all nodes have applied the same position, and see that their state is equal.

        Nothing must be going on meanwhile.
        """

        async def level() -> ClusterState | None:
            self.check_none_crashed()
            states = await asyncio.gather(*(self.state(name) for name in self.members))
            found = [state for state in states if state is not None]
            digests: dict[int, set[str | None]] = {}
            for state in found:
                digests.setdefault(state.applied, set()).add(state.digest)
            assert all(len(equal) == 1 for equal in digests.values()), f"diverged: {found}"
            return found[0] if len(found) == len(states) and len(digests) == 1 else None

        return await until(level, "all nodes at one position")

    async def figures(self, name: str) -> dict[str, float]:
        """A node's metrics that have no labels. They may be a second old."""
        assert self._http is not None
        async with self._http.get(f"{self.members[name].url}/metrics") as response:
            text = await response.text()
        found = re.findall(r"^(\w+) ([0-9.e+-]+)$", text, re.MULTILINE)
        return {name: float(value) for name, value in found}

    def snapshot_index(self, name: str) -> int:
        """Last entry of the newest snapshot that a node has on its disk; 0 without any."""
        files = (self.folder / name).glob("snapshot-*-*.snap")
        return max((int(file.name.split("-")[1]) for file in files), default=0)

    # Requests. Each goes to one node, once.

    async def ask(
        self,
        node: str,
        method: str,
        path: str,
        body: object = None,
        *,
        key: str | None = None,
        url: str | None = None,
    ) -> Reply:
        """Send one request to one node; it is never repeated.

        Args:
            key: its Idempotency-Key.
            url: base URL to reach the node at, where it is not the node's own.
        Raises:
            aiohttp.ClientError: the connection broke, or there was none.
            TimeoutError: no answer within the deadline of all tests.
        """
        assert self._http is not None
        asked_s = time.monotonic()
        async with self._http.request(
            method,
            (url or self.members[node].url) + path,
            json=body,
            headers={} if key is None else {"Idempotency-Key": key},
        ) as response:
            data = await response.read()
            return Reply(
                node,
                response.status,
                json.loads(data) if data else {},
                response.headers,
                asked_s,
                time.monotonic(),
            )

    async def line(self, node: str) -> Line:
        """Connect to a node without asking anything yet."""
        reader, writer = await asyncio.open_connection(*self.members[node].http)
        return Line(node, reader, writer)

    async def get(self, node: str, path: str) -> Reply:
        return await self.ask(node, "GET", path)

    async def open_session(self, node: str, *, ttl: str = "10m") -> str:
        """Open a session through one node."""
        reply = await self.ask(node, "POST", "/v1/sessions", {"ttl": ttl})
        assert reply.status == 201, reply
        return str(reply.body["session"])

    async def acquire(
        self, node: str, name: str, session: str, *, key: str | None = None, wait: str = "0s"
    ) -> Reply:
        path, body = path_of("locks", name, "acquire"), {"session": session, "wait": wait}
        return await self.ask(node, "POST", path, body, key=key)

    async def release(
        self, node: str, name: str, session: str, token: int, *, key: str | None = None
    ) -> Reply:
        path, body = path_of("locks", name, "release"), {"session": session, "token": token}
        return await self.ask(node, "POST", path, body, key=key)

    async def granted(self, node: str, name: str, session: str) -> int:
        """Take a lock that is free, and return its token."""
        reply = await self.acquire(node, name, session)
        assert reply.status == 200, reply
        return int(reply.body["token"])

    async def released(self, node: str, name: str, session: str, token: int) -> None:
        """Give a lock back that is held under this token."""
        reply = await self.release(node, name, session, token)
        assert reply.status == 200, reply

    async def holders(self, node: str, name: str) -> list[tuple[str, int]]:
        """Session and token of each who holds a lock, read linearizably."""
        reply = await self.get(node, path_of("locks", name))
        assert reply.status == 200, reply
        return [(holder["session"], holder["token"]) for holder in reply.body["holders"]]

    async def waiters(self, node: str, name: str) -> list[str]:
        """Sessions in the queue of a lock, in order, read linearizably."""
        reply = await self.get(node, path_of("locks", name))
        assert reply.status == 200, reply
        return [waiter["session"] for waiter in reply.body["waiters"]]

    async def until_queued(self, node: str, name: str, *sessions: str) -> None:
        """Wait until these and no others stand in the queue of a lock, in this order."""

        async def queued() -> bool:
            return await self.waiters(node, name) == list(sessions)

        await until(queued, f"{sessions} in the queue of {name}")

    def _ended(self, name: str, returncode: int) -> None:
        if returncode not in EXPECTED_ENDS:
            self.crashed.append(f"{name} {processes.ending_of(returncode)}")

    def _heard(self, name: str, line: str) -> None:
        """Keep what a node says; pytest shows it where the test fails."""
        self.lines[name].append(line)
        if '"event":"serving"' in line:
            progress.mark()
        print(f"{name} | {line[:400]}")


@contextlib.asynccontextmanager
async def started(
    folder: Path, *, server: Server | None = None, **settings: object
) -> AsyncIterator[Cluster]:
    """Run a cluster that serves; it ends with the block, and with us however we end."""
    with contextlib.ExitStack() as claims:
        ports = claimed_ports(2 * len(NAMES) + len(_pairs()), claims)
        cluster = Cluster(folder, ports, settings=settings, server=server)
        try:
            async with cluster:
                yield cluster
        finally:
            # Journals reserve their space: many clusters would fill a small disk.
            shutil.rmtree(folder)


def shared_processes() -> set[int]:
    """Nodes of clusters that outlive the test that (re)started them."""
    return {
        process.pid
        for cluster in _clusters
        for process in cluster._processes.values()
        if process.returncode is None
    }


def _pairs() -> list[tuple[str, str]]:
    """Every way from one node to another."""
    return [(source, target) for source in NAMES for target in NAMES if source != target]


def repeated(times: int, attempt: Callable[[], Awaitable[bool]]) -> Awaitable[None]:
    """See that something holds in one of so many attempts.

    For what a slow machine may spoil now and then (an election because a heartbeat was late), and
    a defect of ours would spoil every time.
    """

    async def attempts() -> None:
        for _ in range(times):
            if await attempt():
                return
        raise AssertionError(f"it held in none of {times} attempts")

    return attempts()
