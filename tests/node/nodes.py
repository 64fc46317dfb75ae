"""Three nodes in memory with the real machine: what is asked, what is answered, and when.

RULE: production nodes over simulated disks and a network that obeys; time moves only in steps of
the test. Of every request it is checked that it is answered at most once.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from cluster.errors import CoterieError
from cluster.machine.commands import AcquireLock, Command, OpenSession, ReleaseLock
from cluster.machine.outcome import Granted, Opened, Outcome
from cluster.node.node import Node
from cluster.node.pending import Answered, Failed, Reply
from cluster.node.settings import NodeSettings
from cluster.replication.engine import EngineSettings
from cluster.replication.identity import Identity
from cluster.replication.snapshots import InlineDumper
from tests.replication.group import Network, Packet, library_clock
from tests.simulation.disk import SimDisk

WALL_MS = 1_700_000_000_000


@dataclass(slots=True, eq=False)
class Ask:
    """One request and its reply.

    Attributes:
        node: who was asked. handle: for hanging up.
    """

    node: str
    handle: int = 0
    replies: list[Reply] = field(default_factory=list)

    def take(self, reply: Reply) -> None:
        """Where the reply goes."""
        self.replies.append(reply)
        assert len(self.replies) == 1, f"answered twice: {self.replies}"

    @property
    def is_over(self) -> bool:
        return bool(self.replies)

    @property
    def outcome(self) -> Outcome | None:
        """The cluster's answer."""
        (reply,) = self.replies
        assert isinstance(reply, Answered), f"failed: {reply.error!r}"
        return reply.outcome

    @property
    def index(self) -> int:
        """The log position the answer reflects."""
        (reply,) = self.replies
        assert isinstance(reply, Answered), f"failed: {reply.error!r}"
        return reply.index

    @property
    def error(self) -> CoterieError:
        """Why there is no answer."""
        (reply,) = self.replies
        assert isinstance(reply, Failed), f"answered: {reply.outcome}"
        return reply.error


class Nodes(Network):
    """Nodes a, b, c over simulated disks."""

    def __init__(
        self,
        size: int = 3,
        *,
        seed: int = 0,
        engine: EngineSettings | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(size)
        self.disks = {name: SimDisk(random.Random(f"{seed} {name}")) for name in self.names}
        self.nodes: dict[str, Node] = {}
        self.wakes = dict.fromkeys(self.names, 0)
        self._seed = seed
        self._engine = engine or EngineSettings()
        self._settings = settings

    @property
    def running(self) -> list[str]:
        return sorted(self.nodes)

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    # ---- life and death ---------------------------------------------------------------------

    def start(self, name: str) -> Node:
        """Start a node on what its disk holds, and connect it both ways."""
        assert name not in self.nodes, f"{name} runs already"
        disk = self.disks[name]
        identity = Identity.open(disk, cluster="test", node=name, fresh_unique=f"disk of {name}")

        def wake() -> None:
            self.wakes[name] += 1

        def send(peer: str, frame: bytes) -> None:
            self.send(name, peer, frame)

        node = Node(
            NodeSettings(
                node=name,
                peers=tuple(other for other in self.names if other != name),
                http=f"http://{name}",
                engine=self._engine,
                segment_bytes=1 << 16,
                **self._settings,
            ),
            identity=identity,
            disk=disk,
            clock=self.now,
            wall_ms=lambda: WALL_MS + round((self.now() - 1000) * 1000),
            rng=random.Random(f"{self._seed} {name} {identity.boot}"),
            send=send,
            dumper=InlineDumper,
            wake=wake,
        )
        self.nodes[name] = node
        for other in self.running:
            if other != name:
                self.connected(name, other)
                self.connected(other, name)
        return node

    def crash(self, name: str, *, power: bool = True) -> None:
        """End a node's process; nobody there is answered."""
        del self.nodes[name]
        self.disks[name].crash(power=power)
        self.forget_messages_to(name)
        for other in self.running:
            self.disconnected(other, name)

    # ---- what the network does with a node --------------------------------------------------

    def connected(self, source: str, target: str) -> None:
        self.nodes[source].connected(target)

    def disconnected(self, source: str, target: str) -> None:
        self.nodes[source].disconnected(target)

    def arrive(self, packet: Packet) -> None:
        self.nodes[packet.target].receive(packet.source, packet.frame)

    def round(self, name: str) -> None:
        self.nodes[name].round()

    def describe(self) -> str:
        return "; ".join(
            f"{name} {node.engine.role} term={node.engine.term} leader={node.engine.leader} "
            f"commit={node.engine.commit_index} applied={node.applied_index} "
            f"under way={node.under_way} parked={node.parked}"
            for name, node in sorted(self.nodes.items())
        )

    # ---- what most tests do -----------------------------------------------------------------

    @property
    def leader(self) -> str | None:
        """Who leads in the highest term anybody leads in."""
        leading = [name for name in self.running if self.nodes[name].engine.is_leader]
        return max(leading, key=lambda name: self.nodes[name].engine.term, default=None)

    def is_level(self) -> bool:
        """Somebody leads, all that run know it and have applied the same entries."""
        leader = self.leader
        if leader is None:
            return False
        last = self.nodes[leader].engine.last_index
        return all(
            node.engine.leader == leader and node.engine.last_index == node.applied_index == last
            for node in self.nodes.values()
        )

    def elect(self, name: str = "a") -> Node:
        """Make one node the leader, with everybody level."""
        self.until(self.is_level)
        if self.leader != name:
            assert self.leader is not None
            self.nodes[self.leader].engine.transfer(name, lambda _: None)
            self.until(lambda: self.leader == name and self.is_level())
        return self.nodes[name]

    def submit(self, name: str, command: Command, **how: Any) -> Ask:
        """Put a command before a node."""
        ask = Ask(name)
        ask.handle = self.nodes[name].submit(command, ask.take, **how)
        return ask

    def read(self, name: str, **how: Any) -> Ask:
        """Ask a node for a linearizable barrier."""
        ask = Ask(name)
        self.nodes[name].read(ask.take, **how)
        return ask

    def answer(self, ask: Ask, *, within: float = 10.0) -> Outcome | None:
        """Wait for the cluster's answer."""
        self.until(lambda: ask.is_over, within=within)
        return ask.outcome

    def session(self, name: str, *, nonce: str = "s", ttl_ms: int = 60_000) -> str:
        """Open a session through a node; its id."""
        opened = self.answer(self.submit(name, OpenSession(nonce, ttl_ms)))
        assert isinstance(opened, Opened)
        return opened.session

    def acquire(self, name: str, session: str, lock: str, *, wait_ms: int = 0) -> Ask:
        """Ask for a lock."""
        return self.submit(name, AcquireLock(session, lock, wait_ms=wait_ms))

    def granted(self, name: str, session: str, lock: str) -> Granted:
        """Get a free lock."""
        outcome = self.answer(self.acquire(name, session, lock))
        assert isinstance(outcome, Granted), outcome
        return outcome

    def release(self, name: str, grant: Granted) -> Ask:
        """Give a lock back."""
        return self.submit(name, ReleaseLock(grant.session, grant.name, grant.token))

    def holder(self, name: str, lock: str) -> str | None:
        """Who holds a lock in the local state of a node."""
        info = self.nodes[name].machine.locks.info(lock, self.nodes[name].machine.now_ms)
        return info.holders[0][0] if info is not None and info.holders else None

    def waiters(self, name: str, lock: str) -> list[str]:
        """Who waits for a lock in the local state of a node, in order."""
        info = self.nodes[name].machine.locks.info(lock, self.nodes[name].machine.now_ms)
        return [] if info is None else [waiter[0] for waiter in info.waiters]


@contextlib.contextmanager
def nodes_by_hand() -> Iterator[Callable[..., Nodes]]:
    """Give a maker of groups of nodes, all started, whose newest one moves the library's clock."""
    with library_clock() as networks:

        def make(size: int = 3, **how: Any) -> Nodes:
            nodes = Nodes(size, **how)
            networks.append(nodes)
            for name in nodes.names:
                nodes.start(name)
            return nodes

        yield make
