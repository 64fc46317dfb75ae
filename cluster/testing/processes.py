"""A cluster of real processes on this machine, for tests of what happens when nodes die.

RULE: does things to a cluster and tells what is so. What a node is, and how its process starts and
ends, is told by `cluster.cli.local`.

Every method is a plain call that returns when it is done; in a coroutine, those that take long
(`restart`, `leader`, `wait_ready`) are best called by `asyncio.to_thread`, as the loop has clients
to keep alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
import threading
import warnings
from collections import deque
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from cluster.cli import local
from cluster.client.aio import Client, ClusterState
from cluster.client.core import Policy
from cluster.client.durations import Length, ms_of
from cluster.client.sync.client import SyncClient
from cluster.client.sync.portal import Closing, Portal
from cluster.node.config import Address

T = TypeVar("T")

LEADER = "leader"
"""What may stand for the name of the node that leads."""

READY_WITHIN = "60s"
STARTS_MAX = 3
TAKEN = os.strerror(errno.EADDRINUSE).lower()
LINES_KEPT = 10_000
LOOK_EVERY_S = 0.05

CannotStart: TypeAlias = local.CannotStart


class ProcessCluster(Closing):
    """Nodes n1, n2, … in processes of their own. Use it as a context manager, or close it.

        with ProcessCluster(folder) as cluster, cluster.sync_client() as client:
            killed = cluster.kill("leader")
            ...
            cluster.restart(killed)

    All that it starts ends with it, and with this process, however that ends (on Linux).

    Args:
        folder: for settings, data and the cluster's secret; empty.
        nodes: how many.
        log_level: of the nodes.

    Raises:
        CannotStart: it did not come up; the message has what its nodes said last.
    """

    def __init__(self, folder: Path, *, nodes: int = 3, log_level: str = "info"):
        if nodes < 1:
            raise ValueError(f"a cluster of {nodes} nodes: there must be one at least")
        self._folder = folder
        self._log_level = log_level
        self._portal = Portal()
        self._claims = contextlib.ExitStack()
        self._lines: deque[tuple[int, str, str]] = deque(maxlen=LINES_KEPT)
        self._lines_heard = 0
        self._lock = threading.Lock()
        self._paused: set[str] = set()
        self._sync_clients: list[SyncClient] = []
        try:
            self._local = self._portal.run(self._started(nodes))
        except BaseException:
            self._portal.close()
            self._claims.close()
            raise

    def close(self) -> None:
        """Close the sync clients that are still open, and end all nodes. May be called again."""
        if self._portal.is_closed:
            return
        try:
            # The clients first: whoever says farewell to nodes that are gone waits for an answer.
            for client in self._sync_clients:
                client.close()
        finally:
            try:
                self._portal.run(self._local.kill())
            finally:
                self._portal.close()
                self._claims.close()

    # Clients.

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of all nodes."""
        return tuple(self._local.members)

    @property
    def urls(self) -> tuple[str, ...]:
        """Base URL of each node's API, in order of `nodes`."""
        return self._local.endpoints

    def url_of(self, node: str) -> str:
        """Base URL of one node's API."""
        return self._local.members[self._named(node)].url

    def client(self, *, policy: Policy | None = None, timeout_ms: int = 10_000) -> Client:
        """An asyncio client that knows all nodes."""
        return Client(self.urls, policy=policy, timeout_ms=timeout_ms)

    def sync_client(self, *, policy: Policy | None = None, timeout_ms: int = 10_000) -> SyncClient:
        """As `client`, without `async`. Whoever does not close it has it closed with the cluster."""
        made = SyncClient(self.urls, policy=policy, timeout_ms=timeout_ms)
        self._sync_clients.append(made)
        return made

    # What is so.

    @property
    def running(self) -> tuple[str, ...]:
        """Nodes whose processes run, paused ones among them."""
        return self._local.running

    def state(self, node: str) -> ClusterState | None:
        """The cluster as one node sees it; None where it does not answer."""
        return self._run(self._local.state(self._named(node)))

    def leader(self, *, within: Length = READY_WITHIN) -> str:
        """The node that leads, once all that run and are not paused agree on one of them.

        Raises:
            TimeoutError: they did not.
        """
        return self._run(self._led(ms_of(within, "within")))

    def wait_ready(self, *, within: Length = READY_WITHIN) -> None:
        """Return once all nodes that run and are not paused serve under one leader among them.

        Raises:
            TimeoutError: they do not.
        """
        self.leader(within=within)

    def log(self, node: str | None = None, *, since: int = 0) -> list[str]:
        """What the nodes, or one of them, have written: JSON lines, each behind its node's name.

        Args:
            since: leave out what had been heard when `lines_heard` was this.
        """
        with self._lock:
            lines = list(self._lines)
        return [
            f"{name} | {line}"
            for number, name, line in lines
            if number >= since and node in {None, name}
        ]

    @property
    def lines_heard(self) -> int:
        """How many lines the nodes have written."""
        return self._lines_heard

    # What is done.

    def kill(self, node: str = LEADER) -> str:
        """End a node at once, by SIGKILL; returns its name."""
        return self._run(self._killed(self._named(node)))

    def stop(self, node: str = LEADER) -> str:
        """Ask a node to end, by SIGTERM, and wait for it: it hands over first; returns its name."""
        return self._run(self._stopped(self._named(node)))

    def restart(self, *nodes: str, within: Length = READY_WITHIN) -> None:
        """Start nodes that have ended (all of them, where none is named), and wait until ready.

        Raises:
            ValueError: one of them runs.
        """
        down = [name for name in self.nodes if name not in self.running]
        for name in nodes:
            if name not in down:
                raise ValueError(f'node "{name}" is not down; down are {down}')
        self._run(self._start(*(nodes or down)))
        self.wait_ready(within=within)

    def pause(self, node: str = LEADER) -> str:
        """Stop a node's clockwork, by SIGSTOP: its connections stay, and nothing is answered.

        Raises:
            ValueError: it does not run.
        """
        name = self._named(node)
        if name not in self.running:
            raise ValueError(f'node "{name}" is down; running are {list(self.running)}')
        self._paused.add(name)
        self._local.signal(name, signal.SIGSTOP)
        return name

    def resume(self, *nodes: str) -> None:
        """Let paused nodes go on; all of them, where none is named."""
        for name in nodes or tuple(self._paused):
            self._paused.discard(name)
            self._local.signal(name, signal.SIGCONT)

    def make_whole(self) -> None:
        """Resume what is paused, start what is down, and wait until all serve."""
        self.resume()
        self.restart()

    # In the portal's thread.

    def _run(self, doing: Coroutine[Any, Any, T]) -> T:
        if self._portal.is_closed:
            doing.close()
            raise RuntimeError("this cluster is closed")
        return self._portal.run(doing)

    def _named(self, node: str) -> str:
        if node == LEADER:
            return self.leader()
        if node not in self._local.members:
            raise ValueError(f'there is no node "{node}"; there are {", ".join(self.nodes)}')
        return node

    async def _started(self, nodes: int) -> local.LocalCluster:
        for attempt in range(1, STARTS_MAX + 1):
            members = self._planned(nodes)
            cluster = local.LocalCluster(
                self._folder / f"cluster-{attempt}", members, on_line=self._heard
            )
            try:
                cluster.prepare(log_level=self._log_level)
                await _start_quietly(cluster)
                await cluster.until_ready(within_s=ms_of(READY_WITHIN) / 1_000)
            except (CannotStart, TimeoutError) as error:
                await cluster.kill()
                self._claims.close()
                said = "\n".join(self.log()[-20:])
                # Somebody else may have taken a port meanwhile; nothing else gets better.
                if attempt == STARTS_MAX or TAKEN not in f"{error}\n{said}".lower():
                    message = f"the cluster did not come up: {error or 'not in time'}\n{said}"
                    raise CannotStart(message) from error
            except BaseException:
                await cluster.kill()
                raise
            else:
                return cluster
        raise AssertionError("unreachable")

    async def _start(self, *names: str) -> None:
        if names:
            await _start_quietly(self._local, *names)

    async def _killed(self, name: str) -> str:
        self._local.signal(name, signal.SIGKILL)
        self._paused.discard(name)
        await self._local.ended(name)
        return name

    async def _stopped(self, name: str) -> str:
        self._local.signal(name, signal.SIGTERM)
        if name in self._paused:
            self.resume(name)
        await self._local.ended(name)
        return name

    async def _led(self, within_ms: int) -> str:
        found: list[ClusterState | None] = []
        try:
            async with asyncio.timeout(within_ms / 1_000):
                while True:
                    names = [name for name in self.running if name not in self._paused]
                    found = await asyncio.gather(*(self._local.state(name) for name in names))
                    leaders = {state.leader if state and state.ready else None for state in found}
                    leader = leaders.pop() if len(leaders) == 1 else None
                    # One that has just died is still believed to lead.
                    if leader is not None and leader in names:
                        return leader
                    await asyncio.sleep(LOOK_EVERY_S)
        except TimeoutError:
            seen = [state and (state.node, state.leader, state.ready) for state in found]
            message = (
                f"of {len(self.nodes)} nodes {len(self.running)} run, {len(self._paused)} of them "
                f"paused, and they do not agree on a leader; they say: {seen}"
            )
            raise TimeoutError(message) from None

    def _heard(self, name: str, line: str) -> None:
        with self._lock:
            self._lines.append((self._lines_heard, name, line))
            self._lines_heard += 1

    def _planned(self, nodes: int) -> tuple[local.Member, ...]:
        if sys.platform != "linux":
            return local.planned_anywhere(nodes)
        return tuple(
            local.Member(f"n{number + 1}", self._claimed(), self._claimed())
            for number in range(nodes)
        )

    def _claimed(self) -> Address:
        """A port that stays ours while its node is down.

        Bound but never listening: nobody else is given it, nor does the kernel take it for an
        outgoing connection, while a server may bind it as well, as both allow that.
        """
        claim = self._claims.enter_context(socket.socket())
        claim.bind((local.HOST, 0))
        claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return Address(*claim.getsockname())


async def _start_quietly(cluster: local.LocalCluster, *names: str) -> None:
    """Start processes. Python 3.12 and up warn of forks where threads run; between fork and exec
    nothing of ours takes a lock.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        await cluster.start(*names)


def readable(lines: list[str]) -> str:
    """Lines of `log` as people read them."""
    from cluster.cli.dev import pretty  # noqa: PLC0415 - of no use before something fails

    return "\n".join(
        f"{name} | {pretty(line)}" for name, _, line in (each.partition(" | ") for each in lines)
    )
