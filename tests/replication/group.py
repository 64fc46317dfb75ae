"""A group of engines in memory: hand-driven clock, disks that lose, a network that obeys.

RULE: everything is said by the test. Time moves only in `step`, a message goes astray only where a
rule of the test says so, and no lot is drawn but from seeds. After every round three laws are
checked: one leader per term, no hand-over flag of the library, no entry applied twice or skipped.
"""

from __future__ import annotations

import abc
import contextlib
import json
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pysyncobj import syncobj

from cluster.replication.engine import Engine, EngineSettings, Outcome, use_clock
from cluster.replication.journal import Journal
from cluster.replication.snapshots import Dump, InlineDumper, SnapshotId, SnapshotStore
from cluster.wire import frames
from cluster.wire.frames import Message, RaftMessage
from tests.simulation.disk import SimDisk, Stopped

STEP_S = 0.002
"""Seconds of the group's clock per step; a message takes one step unless told otherwise."""
START_S = 1000.0


class Toy:
    """A state machine that remembers what it applied, and a queue of payloads to propose.

    Attributes:
        log: (index, payload) of the state; the payload of an empty entry is None.
        applied: every call of `apply` in this life, in order.
        raise_on: payload whose `apply` raises. raise_on_outcome: whose outcome's callback raises.
    """

    def __init__(self) -> None:
        self.log: list[tuple[int, bytes | None]] = []
        self.applied: list[tuple[int, bytes]] = []
        self.queue: deque[bytes] = deque()
        self.outcomes: list[tuple[bytes, Outcome]] = []
        self.loads: list[int] = []
        self.raise_on: bytes | None = None
        self.raise_on_outcome: bytes | None = None

    @property
    def payloads(self) -> list[bytes]:
        """What the state holds, without empty entries."""
        return [payload for _, payload in self.log if payload is not None]

    def outcome_of(self, payload: bytes) -> Outcome | None:
        """What became of a payload; None while nothing was said. Said twice is an error."""
        said = [outcome for known, outcome in self.outcomes if known == payload]
        assert len(said) <= 1, f"{payload!r} was settled more than once: {said}"
        return said[0] if said else None

    # What the engine drives.

    def apply(self, index: int, payload: bytes) -> None:
        self.applied.append((index, payload))
        if payload == self.raise_on:
            raise ArithmeticError(f"apply of {payload!r}")
        self._append(index, payload)

    def skip(self, index: int) -> None:
        self._append(index, None)

    def _append(self, index: int, payload: bytes | None) -> None:
        last = self.log[-1][0] if self.log else 1
        assert index == last + 1, f"entry {index} applied after entry {last}"
        self.log.append((index, payload))

    def dump(self) -> Iterable[bytes]:
        for index, payload in self.log:
            text = None if payload is None else payload.decode("latin-1")
            yield json.dumps([index, text]).encode()

    def load(self, index: int, chunks: Iterable[bytes]) -> None:
        rows = [json.loads(chunk) for chunk in chunks]
        self.log = [(at, None if text is None else text.encode("latin-1")) for at, text in rows]
        self.loads.append(index)
        assert self.log[-1][0] == index

    def next_payload(self) -> bytes | None:
        return self.queue.popleft() if self.queue else None

    def on_outcome(self, payload: bytes, outcome: Outcome) -> None:
        self.outcomes.append((payload, outcome))
        if payload == self.raise_on_outcome:
            raise ArithmeticError(f"callback of {payload!r}")


class PatientDumper:
    """An inline dumper whose result is not there before the test says so.

    Attributes:
        is_held: `poll` says "not yet".
        cancelled: how often a dump under way was cancelled.
    """

    def __init__(self, store: SnapshotStore) -> None:
        self._inline = InlineDumper(store)
        self.is_held = False
        self.cancelled = 0

    @property
    def busy(self) -> bool:
        return self._inline.busy

    def start(
        self, index: int, term: int, previous_index: int, previous_term: int, dump: Dump
    ) -> None:
        self._inline.start(index, term, previous_index, previous_term, dump)

    def poll(self) -> SnapshotId | None:
        return None if self.is_held else self._inline.poll()

    def cancel(self) -> None:
        self.cancelled += self._inline.busy
        self._inline.cancel()


@dataclass(slots=True, eq=False)
class Packet:
    """One message on its way. `due`: the step of its arrival."""

    source: str
    target: str
    message: Any
    frame: bytes
    due: int = 0


Predicate = Callable[[Packet], bool]
Kind = type[Message] | tuple[type[Message], ...]


@dataclass(slots=True, eq=False)
class Rule:
    """What the network does with the messages that match; the first rule that matches counts.

    Attributes:
        caught: what was dropped, held back or copied so far, in order of sending.
        limit: how many messages it catches, None for all.
    """

    network: Network
    matches: Predicate
    passes: bool
    limit: int | None = None
    caught: list[Packet] = field(default_factory=list)

    def end(self) -> None:
        """Catch nothing more."""
        if self in self.network.rules:
            self.network.rules.remove(self)

    def release(self, *, backwards: bool = False) -> None:
        """Catch nothing more and send on what was held back."""
        self.end()
        caught, self.caught = self.caught, []
        for packet in reversed(caught) if backwards else caught:
            self.network.send_again(packet)


class Network(abc.ABC):
    """Members a, b, c, ..., the messages between them, and the one clock.

    Args:
        size: how many members.
        latency_steps: how long a message takes.
    """

    def __init__(self, size: int, *, latency_steps: int = 1) -> None:
        self.names = tuple("abcdefg"[:size])
        self.steps = 0
        self.latency_steps = latency_steps
        self.rules: list[Rule] = []
        self.sent: list[Packet] = []
        self._flying: list[Packet] = []
        self._cuts: set[tuple[str, str]] = set()

    @property
    @abc.abstractmethod
    def running(self) -> list[str]:
        """Names of the members that run."""

    @abc.abstractmethod
    def connected(self, source: str, target: str) -> None:
        """The stream of a member to another is up, and it learns that."""

    @abc.abstractmethod
    def disconnected(self, source: str, target: str) -> None:
        """The stream of a member to another is gone, and it learns that."""

    @abc.abstractmethod
    def arrive(self, packet: Packet) -> None:
        """Give a message to its target, which runs."""

    @abc.abstractmethod
    def round(self, name: str) -> None:
        """Let a member have a round."""

    @abc.abstractmethod
    def describe(self) -> str:
        """Where everybody stands, for messages."""

    # ---- time -------------------------------------------------------------------------------

    def now(self) -> float:
        """The clock, seconds."""
        return START_S + self.steps * STEP_S

    def step(self) -> None:
        """Let a step of time pass: messages arrive, then everybody has a round.

        Raises:
            anything that a round raises: that member's process would be over.
        """
        self.steps += 1
        arriving = [packet for packet in self._flying if packet.due <= self.steps]
        self._flying = [packet for packet in self._flying if packet.due > self.steps]
        for packet in arriving:
            if packet.target in self.running:
                self.arrive(packet)
        for name in self.running:
            self.round(name)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        for _ in range(round(seconds / STEP_S)):
            self.step()

    def until(self, condition: Callable[[], object], *, within: float = 10.0) -> None:
        """Let time pass until something holds.

        Raises:
            AssertionError: it does not hold after `within` seconds of this clock.
        """
        deadline = self.steps + round(within / STEP_S)
        while not condition():
            assert self.steps < deadline, f"not so after {within} s: {self.describe()}"
            self.step()

    # ---- messages ---------------------------------------------------------------------------

    def drop(self, matches: Predicate, *, limit: int | None = None) -> Rule:
        """Lose messages that match."""
        return self._rule(matches, passes=False, limit=limit)

    def hold(self, matches: Predicate, *, limit: int | None = None) -> Rule:
        """Hold messages that match back until the rule is released."""
        return self._rule(matches, passes=False, limit=limit)

    def copy(self, matches: Predicate, *, limit: int | None = None) -> Rule:
        """Let messages pass and keep them, to be sent again."""
        return self._rule(matches, passes=True, limit=limit)

    def _rule(self, matches: Predicate, *, passes: bool, limit: int | None) -> Rule:
        rule = Rule(self, matches, passes, limit)
        self.rules.append(rule)
        return rule

    def cut(self, source: str, target: str, *, noticed: bool = False) -> None:
        """Lose everything in one direction; noticed: the source learns that its stream is gone."""
        self._cuts.add((source, target))
        if noticed and source in self.running:
            self.disconnected(source, target)

    def isolate(self, name: str, *, noticed: bool = False) -> None:
        """Lose everything from and to one member."""
        for other in self.names:
            if other != name:
                self.cut(name, other, noticed=noticed)
                self.cut(other, name, noticed=noticed)

    def heal(self) -> None:
        """End all cuts and all rules; whoever runs is connected."""
        self._cuts.clear()
        self.rules.clear()
        for name in self.running:
            for other in self.running:
                if other != name:
                    self.connected(name, other)

    def inject(self, source: str, target: str, message: Message) -> None:
        """Have a message of the test arrive with the next step."""
        frame = frames.encode(message)
        self._flying.append(Packet(source, target, message, frame, self.steps + 1))

    def send_again(self, packet: Packet) -> None:
        """Have a message that was caught arrive with the next step, whatever rules say."""
        copy = Packet(packet.source, packet.target, packet.message, packet.frame, self.steps + 1)
        self._flying.append(copy)

    def sent_by(self, source: str, kind: Kind = Message) -> list[Packet]:
        """Messages of a kind that a member has sent so far, also those that went astray."""
        return [p for p in self.sent if p.source == source and isinstance(p.message, kind)]

    def send(self, source: str, target: str, frame: bytes) -> Packet:
        """Take a frame of a member: rules and cuts decide what becomes of it."""
        packet = Packet(
            source, target, frames.decode(frame), frame, self.steps + self.latency_steps
        )
        self.sent.append(packet)
        for rule in self.rules:
            if (rule.limit is None or len(rule.caught) < rule.limit) and rule.matches(packet):
                rule.caught.append(packet)
                if not rule.passes:
                    return packet
                break
        if (source, target) not in self._cuts:
            self._flying.append(packet)
        return packet

    def forget_messages_to(self, name: str) -> None:
        """Its process has ended, and its connections with it."""
        self._flying = [packet for packet in self._flying if packet.target != name]


@dataclass(slots=True, eq=False)
class Member:
    """One machine of the group: its disk survives, its engine may not.

    Attributes:
        doings: what it did that somebody may rely on, in order: "sync", or a packet it sent.
    """

    name: str
    disk: SimDisk
    toy: Toy = field(default_factory=Toy)
    engine: Engine | None = None
    dumper: PatientDumper | None = None
    doings: list[str | Packet] = field(default_factory=list)


class Group(Network):
    """Engines over simulated disks.

    Args:
        seed: of disks, election timeouts and nonces.
        started: start all members at once.
    """

    def __init__(
        self,
        size: int = 3,
        *,
        seed: int = 0,
        settings: EngineSettings | None = None,
        latency_steps: int = 1,
        segment_bytes: int = 16_384,
        started: bool = True,
    ) -> None:
        super().__init__(size, latency_steps=latency_steps)
        self.settings = settings or EngineSettings()
        self.leaders: dict[int, str] = {}
        self.members = {
            name: Member(name, SimDisk(random.Random(f"{seed} disk {name}"))) for name in self.names
        }
        self._seed = seed
        self._segment_bytes = segment_bytes
        for name in self.names if started else ():
            self.start(name)

    # ---- looking ----------------------------------------------------------------------------

    def engine(self, name: str) -> Engine:
        """The engine of a member that runs."""
        engine = self.members[name].engine
        assert engine is not None, f"{name} does not run"
        return engine

    def toy(self, name: str) -> Toy:
        """The state machine of a member."""
        return self.members[name].toy

    def disk(self, name: str) -> SimDisk:
        """The disk of a member."""
        return self.members[name].disk

    @property
    def running(self) -> list[str]:
        return [name for name in self.names if self.members[name].engine is not None]

    @property
    def leader(self) -> str | None:
        """Who leads in the highest term anybody leads in."""
        leading = [name for name in self.running if self.engine(name).is_leader]
        return max(leading, key=lambda name: self.engine(name).term, default=None)

    def is_level(self) -> bool:
        """Somebody leads, and all that run hold and have applied the same entries."""
        leader = self.leader
        if leader is None:
            return False
        last = self.engine(leader).last_index
        return all(
            self.engine(name).last_index == self.engine(name).applied_index == last
            for name in self.running
        )

    def describe(self) -> str:
        lines = []
        for name in self.names:
            engine = self.members[name].engine
            lines.append(
                f"{name} is down"
                if engine is None
                else f"{name} {engine.role} term={engine.term} leader={engine.leader} "
                f"log={engine.first_index}..{engine.last_index} commit={engine.commit_index} "
                f"applied={engine.applied_index}"
            )
        return "; ".join(lines)

    # ---- life and death ---------------------------------------------------------------------

    def start(self, name: str) -> Engine:
        """Start a member on what its disk holds, and connect it both ways.

        Raises:
            EngineFault, JournalCorrupt, SnapshotCorrupt: its disk is refused.
        """
        member = self.members[name]
        assert member.engine is None, f"{name} runs already"
        toy = Toy()
        toy.queue = member.toy.queue
        member.toy = toy
        member.disk.on_sync = lambda _: member.doings.append("sync")
        store = SnapshotStore(member.disk)
        dumper = PatientDumper(store)
        engine = Engine(
            node=name,
            peers=[other for other in self.names if other != name],
            journal=Journal.open(member.disk, segment_bytes=self._segment_bytes, reserve=False),
            snapshots=store,
            dumper=dumper,
            application=toy,
            rng=random.Random(f"{self._seed} {name} {member.disk.life}"),
            settings=self.settings,
        )
        member.engine, member.dumper = engine, dumper
        for other in self.running:
            if other != name:
                self.connected(name, other)
                self.connected(other, name)
        return engine

    def crash(self, name: str, *, power: bool = True) -> None:
        """End a member's process; with power, its disk loses what was not synced."""
        member = self.members[name]
        member.engine = None
        member.disk.crash(power=power)
        member.disk.stop_at = None
        self.forget_messages_to(name)
        for other in self.running:
            self.disconnected(other, name)

    def restart(self, name: str, *, power: bool = True) -> Engine:
        """Crash and start a member."""
        if self.members[name].engine is not None:
            self.crash(name, power=power)
        return self.start(name)

    # ---- what the network does with a member ------------------------------------------------

    def connected(self, source: str, target: str) -> None:
        self.engine(source).connected(target)

    def disconnected(self, source: str, target: str) -> None:
        self.engine(source).disconnected(target)

    def arrive(self, packet: Packet) -> None:
        with self._dies_at_its_disk(packet.target):
            message = frames.decode(packet.frame)
            assert isinstance(message, RaftMessage)
            self.engine(packet.target).receive(packet.source, message)

    def round(self, name: str) -> None:
        engine, doings = self.engine(name), self.members[name].doings

        def send(peer: str, frame: bytes) -> None:
            doings.append(self.send(name, peer, frame))

        with self._dies_at_its_disk(name):
            engine.tick(lambda: engine.send_ahead(send, lambda: None))
            engine.flush(send)
        assert engine._SyncObj__transferInProgress is False, f"{name}: the flag of o3 is set"
        if engine.is_leader:
            first = self.leaders.setdefault(engine.term, name)
            assert first == name, f"{first} and {name} both lead in term {engine.term}"

    @contextlib.contextmanager
    def _dies_at_its_disk(self, name: str) -> Iterator[None]:
        try:
            yield
        except Stopped:
            self.crash(name, power=True)

    # ---- what most tests begin with ---------------------------------------------------------

    def elect(self, name: str = "a") -> Engine:
        """Make one member the leader, with everybody level."""
        self.until(self.is_level)
        if self.leader != name:
            assert self.leader is not None
            self.engine(self.leader).transfer(name, lambda _: None)
            self.until(lambda: self.engine(name).is_leader and self.is_level())
        return self.engine(name)

    def propose(self, name: str, *payloads: bytes) -> None:
        """Put payloads before a member; it takes them into the log while it leads."""
        self.toy(name).queue.extend(payloads)

    def commit(self, *payloads: bytes) -> None:
        """Have the leader take payloads and everybody who runs apply them."""
        leader = self.leader
        assert leader is not None
        self.propose(leader, *payloads)
        self.until(lambda: not self.toy(leader).queue and self.is_level())


def numbered(count: int, prefix: str = "p") -> list[bytes]:
    """Payloads p0, p1, ..."""
    return [f"{prefix}{number}".encode() for number in range(count)]


def carries(kind: Kind, source: str | None = None, target: str | None = None) -> Predicate:
    """Match messages of a kind, from and to whom."""
    return lambda packet: (
        isinstance(packet.message, kind)
        and source in (None, packet.source)
        and target in (None, packet.target)
    )


@contextlib.contextmanager
def library_clock() -> Iterator[list[Network]]:
    """Let the newest network of the list given move the library's clock; restored at the end."""
    before = syncobj.monotonicTime
    networks: list[Network] = []
    # Engines read the clock while they are made.
    use_clock(lambda: networks[-1].now() if networks else START_S)
    try:
        yield networks
    finally:
        use_clock(before)


@contextlib.contextmanager
def hand_driven() -> Iterator[Callable[..., Group]]:
    """Give a maker of groups."""
    with library_clock() as networks:

        def make(size: int = 3, **how: Any) -> Group:
            group = Group(size, started=False, **how)
            networks.append(group)
            for name in group.names:
                group.start(name)
            return group

        yield make
