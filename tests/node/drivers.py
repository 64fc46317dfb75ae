"""Drivers over real sockets of the loopback, in the test's own event loop.

RULE: production driver, transport and node; the disks are in memory unless a test gives others.
No test measures time: each waits for a fact, with a deadline that only a broken run reaches.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from cluster.machine.commands import Command, OpenSession
from cluster.machine.outcome import Opened, Outcome
from cluster.node.driver import Driver
from cluster.node.pending import Answered, Reply
from cluster.node.settings import NodeSettings
from cluster.replication.disk import Disk
from cluster.replication.engine import EngineSettings
from cluster.replication.identity import Identity
from cluster.replication.snapshots import InlineDumper
from tests.simulation.disk import SimDisk

SECRET = b"correct horse battery staple"
DEADLINE_S = 30.0
SETTINGS = EngineSettings(snapshot_entries=50, snapshot_chunk_bytes=1000)


async def until(fact: Callable[[], object]) -> None:
    """Let the loop run until the fact holds."""
    async with asyncio.timeout(DEADLINE_S):
        while not fact():
            await asyncio.sleep(0.002)


class Trio:
    """Three drivers a, b, c; each stays at its port and on its disk over restarts.

    Attributes:
        fatal: what ended rounds, by node, in order.
    """

    def __init__(self, disks: dict[str, Disk] | None = None) -> None:
        self.disks: dict[str, Disk] = disks or {
            name: SimDisk(random.Random(name)) for name in "abc"
        }
        self.names = tuple(self.disks)
        self.ports: dict[str, int] = {}
        self.drivers: dict[str, Driver] = {}
        self.fatal: list[tuple[str, BaseException]] = []
        # Kept until the first start, so that nobody else gets the port meanwhile.
        self._bound: dict[str, socket.socket] = {}
        for name in self.names:
            self._bound[name] = bound = socket.socket()
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(("127.0.0.1", 0))
            self.ports[name] = bound.getsockname()[1]

    def __getitem__(self, name: str) -> Driver:
        return self.drivers[name]

    async def start(self, name: str, *, disk: Disk | None = None) -> Driver:
        """Start a node on its disk (from now on this one, if one is given)."""
        if disk is not None:
            self.disks[name] = disk
        identity = Identity.open(
            self.disks[name],
            cluster="test",
            node=name,
            fresh_unique=f"disk {id(self.disks[name])} of {name}",
        )
        peers = tuple(other for other in self.names if other != name)
        listen: tuple[str, int] | socket.socket = ("127.0.0.1", self.ports[name])
        if name in self._bound:
            listen = self.take(name)
        driver = Driver(
            NodeSettings(node=name, peers=peers, engine=SETTINGS, segment_bytes=1 << 16),
            identity=identity,
            disk=self.disks[name],
            dumper=InlineDumper,
            listen=listen,
            dial={other: ("127.0.0.1", self.ports[other]) for other in peers},
            secret=SECRET,
            on_fatal=lambda error: self.fatal.append((name, error)),
            rng=random.Random(f"{name} {identity.boot}"),
        )
        self.drivers[name] = driver
        await driver.start()
        return driver

    def take(self, name: str) -> socket.socket:
        """The socket bound to a node's port, for somebody else."""
        return self._bound.pop(name)

    async def close(self) -> None:
        """Stop all nodes and let the ports go."""
        for name in list(self.drivers):
            await self.stop(name)
        for bound in self._bound.values():
            bound.close()

    async def stop(self, name: str) -> None:
        """Stop a node."""
        await self.drivers.pop(name).stop()

    @property
    def leader(self) -> str | None:
        """Who leads in the highest term anybody leads in."""
        engines = {name: driver.node.engine for name, driver in self.drivers.items()}
        leading = [name for name, engine in engines.items() if engine.is_settled_leader]
        return max(leading, key=lambda name: engines[name].term, default=None)

    def is_level(self) -> bool:
        """Somebody leads, all know it and have applied the same entries."""
        leader = self.leader
        if leader is None:
            return False
        last = self[leader].node.engine.last_index
        return all(
            driver.node.engine.leader == leader and driver.node.applied_index == last
            for driver in self.drivers.values()
        )

    async def ask(self, name: str, command: Command) -> Outcome | None:
        """The cluster's answer to a command."""
        replies: list[Reply] = []
        self[name].node.submit(command, replies.append, timeout_ms=60_000)
        await until(lambda: replies)
        reply = replies[0]
        assert isinstance(reply, Answered), reply
        return reply.outcome

    async def session(self, name: str, nonce: str = "s") -> str:
        """Open a session; its id."""
        opened = await self.ask(name, OpenSession(nonce, 600_000))
        assert isinstance(opened, Opened)
        return opened.session


@asynccontextmanager
async def trio(disks: dict[str, Disk] | None = None) -> AsyncIterator[Trio]:
    """Three drivers, started and level; stopped at the end."""
    three = Trio(disks)
    try:
        for name in three.names:
            await three.start(name)
        await until(three.is_level)
        yield three
    finally:
        await three.close()
