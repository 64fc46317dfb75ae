"""One seed from start to end: the storm, the healing, and what must be true afterwards."""

from __future__ import annotations

import gc
import random
from collections.abc import Sequence
from dataclasses import replace

from cluster.machine.events import History
from cluster.machine.machine import Machine
from cluster.node.node import Node
from cluster.node.settings import NodeSettings
from cluster.replication.engine import EngineSettings, use_clock
from cluster.replication.identity import Identity
from cluster.replication.snapshots import InlineDumper
from cluster.wire import snapshot
from tests.simulation import faults, workloads
from tests.simulation.clients import Client, Probe
from tests.simulation.invariants import Entry, Violation
from tests.simulation.laws import LATE_SESSION_MS, LAWS
from tests.simulation.network import MS, SECOND, TCP
from tests.simulation.plan import Plan
from tests.simulation.trace import Trace
from tests.simulation.workloads.base import Workload
from tests.simulation.world import Builder, Host, Result, Subject, World

CALM = replace(TCP, name="calm", slow=0.0)

HEAL_US = 15 * SECOND
"""So long after the last fault everything must work and agree again."""


GAIN_MS = 700
"""Cluster time gains at least so much in a second while somebody leads: clocks drift, by a tenth."""


class GuardedReplica:
    """The production node as the checker sees it."""

    __slots__ = ("_engine", "_node")

    def __init__(self, node: Node) -> None:
        self._node = node
        self._engine = node.engine

    @property
    def role(self) -> str:
        return self._engine.role

    @property
    def term(self) -> int:
        return self._engine.term

    @property
    def voted_for(self) -> str | None:
        return self._engine.voted_for

    @property
    def hard_state(self) -> tuple[int, str | None]:
        journal = self._engine.journal
        return journal.getCurrentTerm(), journal.getVotedForNodeId()

    @property
    def commit_index(self) -> int:
        return self._engine.commit_index

    @property
    def applied_index(self) -> int:
        return self._engine.applied_index

    @property
    def synced_index(self) -> int:
        return self._engine.journal.synced_index

    @property
    def snapshot_index(self) -> int:
        latest = self._engine.snapshots.latest
        return 0 if latest is None else latest.index

    @property
    def log(self) -> list[Entry]:
        # The list itself: it is looked at after every step.
        return self._engine.journal

    @property
    def is_transferring(self) -> bool:
        return bool(self._engine._SyncObj__transferInProgress)

    @property
    def digest(self) -> object:
        machine = self._node.machine
        # A machine that stands elsewhere than the engine believes has no right digest.
        return machine.digest if machine.index == self._engine.applied_index else None


class GuardedBuilder:
    """Builds the production node, or a subclass of it with a guard switched off."""

    synced = True

    def __init__(self, node_type: type[Node] = Node) -> None:
        self._node_type = node_type

    def enter(self, host: Host) -> None:
        """The library's clock is one per process."""
        use_clock(host.now)

    def settings(self, host: Host) -> NodeSettings:
        """Small segments and chunks, so that rotation and transfer happen all the time."""
        plan = host.world.plan
        entries = plan.snapshot_entries
        return NodeSettings(
            node=host.name,
            peers=host.peers,
            http=f"{host.name}:7101",
            segment_bytes=4096,
            forward_bytes_max=plan.append_bytes_max // 64,
            engine=EngineSettings(
                window=plan.window,
                append_bytes_max=plan.append_bytes_max,
                append_window_bytes=plan.append_bytes_max // 4,
                apply_bytes_max=plan.append_bytes_max // 32,
                election_max=plan.election_max,
                snapshot_entries=50_000 if entries is None else entries,
                snapshot_chunk_bytes=300,
                snapshot_window_bytes=1_200,
            ),
        )

    def build(self, host: Host) -> tuple[Subject, GuardedReplica, int]:
        """Recover a node."""
        world = host.world
        identity = Identity.open(
            host.disk, cluster="simulation", node=host.name, fresh_unique=f"unique-{host.name}"
        )
        node = self._node_type(
            self.settings(host),
            identity=identity,
            disk=host.disk,
            clock=host.now,
            wall_ms=host.wall_ms,
            rng=random.Random(f"{world.plan.seed}/node {host.name} {host.boot}"),
            send=host.send,
            dumper=InlineDumper,
        )
        return node, GuardedReplica(node), identity.boot

    def wait_for_disk(self, subject: Subject) -> None:
        """The journal's write and sync."""
        assert isinstance(subject, Node)
        subject.engine.wait_for_disk()

    def crashed(self, host: Host, subject: Subject, *, power: bool) -> None:
        """Count what the node had done."""
        assert isinstance(subject, Node)
        host.world.count("snapshots installed", subject.engine.snapshots_installed)

    def now_ms(self, subject: Subject) -> int:
        """Cluster time, as a leader sees it."""
        assert isinstance(subject, Node)
        return subject.now_ms()

    def full_state(self, subject: Subject) -> bytes:
        """The snapshot it would write."""
        assert isinstance(subject, Node)
        return b"".join(snapshot.encode(subject.machine.dump()))

    def history(self, subject: Subject) -> History:
        """What it tells those who watch."""
        assert isinstance(subject, Node)
        return subject.machine.history


def simulate(
    plan: Plan,
    builder: Builder | None = None,
    *,
    trace: Trace | None = None,
) -> Result:
    """Run one seed. Never raises for what it finds: the result says what broke first."""
    trace = trace or Trace()
    found = workloads.find(plan.workload)
    world = World(plan, builder or GuardedBuilder(), trace, [workload.book for workload in found])
    world.say("world", f"seed {plan.seed}: {plan.describe()}")
    was_enabled = gc.isenabled()
    gc.disable()
    result = Result(plan, 0)
    try:
        _run(world, found)
    except Violation as violation:
        result.invariant, result.detail = violation.invariant, violation.detail
        result.at_us = world.now_us
        world.say("world", f"VIOLATION {violation}")
    finally:
        if was_enabled:
            gc.enable()
    world.counts["elections"] = world.raft.elections
    world.counts["entries"] = world.raft.top
    world.counts["applied"] = world.timeline.applied
    world.counts["expired"] = world.timeline.expired
    world.counts["frames"] = world.network.sent
    world.counts["steps"] = world.steps
    for workload, book in zip(found, world.timeline.books, strict=True):
        for what, number in book.counts.items():
            world.count(f"{workload.name}: {what}", number)
    result.counts = world.counts
    result.virtual_us = world.now_us
    result.hash = trace.hash
    result.story = trace.story()
    return result


def _run(world: World, found: Sequence[Workload]) -> None:
    plan = world.plan
    rng = world.lots("start")
    for host in world.hosts.values():
        world.at(rng.randrange(100 * MS), host.start, lane=host.lane)
    clients = [Client(world, number, found) for number in range(plan.clients)]
    until_us = int(plan.seconds * SECOND)
    world.spawn(faults.run(world, until_us), lane=40)
    world.spawn(_watch_replies(world), lane=41)
    for law in plan.laws:
        world.spawn(LAWS[law](world), lane=42)
    world.run_until(until_us)

    world.is_calm = True
    for client in clients:
        client.stop()
    world.network.calm(CALM)
    world.say("world", "the storm is over: everything is mended")
    faults.heal(world)
    _settle(world)


def _watch_replies(world: World) -> faults.Nemesis:
    """Every request gets its one reply, in time."""
    while True:
        yield SECOND
        for host in world.hosts.values():
            call = host.overdue()
            if call is not None:
                world.complain("every request is answered", f"{host.name} never answered {call}")


def _settle(world: World) -> None:
    """Wait until everybody agrees and works again, then compare whole states."""
    hosts = [host for host in world.hosts.values() if not host.is_refused]
    rng = world.lots("probes")
    probes = [Probe(world, host, rng) for host in hosts]
    timeline, raft = world.timeline, world.raft

    def agrees() -> bool:
        if not all(probe.is_answered for probe in probes):
            return False
        top = raft.top
        for host in hosts:
            # What started while the weather changed may still die of an old fault.
            if host.replica is None or host.replica.applied_index != top:
                return host.is_refused
        return True

    deadline_us = world.now_us + HEAL_US
    # Look now and then: asking after every step would cost more than the steps.
    while world.now_us < deadline_us:
        world.run_until(world.now_us + 20 * MS)
        hosts = [host for host in hosts if not host.is_refused]
        probes = [probe for probe in probes if not probe.host.is_refused]
        if agrees():
            break
    else:
        state = {
            host.name: None
            if host.replica is None
            else (host.replica.role, host.replica.term, host.replica.applied_index)
            for host in hosts
        }
        answered = [probe.host.name for probe in probes if probe.is_answered]
        raise Violation(
            "works again after healing",
            f"top {raft.top}, nodes {state}, writes answered through {answered}",
        )
    _check_expiry(world)
    if not world.run_until(world.now_us + SECOND, agrees):
        raise Violation("works again after healing", "a timer entry is not applied everywhere")
    timeline.finish()
    right = b"".join(snapshot.encode(timeline.machine.dump()))
    if b"".join(snapshot.encode(Machine.load(timeline.machine.dump()).dump())) != right:
        raise Violation("snapshots lose nothing", "a loaded machine dumps another state")
    for host in hosts:
        assert host.subject is not None
        world.builder.crashed(host, host.subject, power=False)
        if world.builder.full_state(host.subject) != right:
            raise Violation(
                "equal states", f"{host.name} ends with another state than the log says"
            )
        _check_events(host.name, world.builder.history(host.subject), timeline.machine.history)
    world.say("world", f"all agree at {raft.top}")


def _check_events(name: str, told: History, right: History) -> None:
    """Who watches at one node hears what is heard at any other, from where it remembers."""
    first = max(told.first, right.first) - 1
    if list(told.after(first)) != list(right.after(first)):
        raise Violation("equal events", f"{name} tells others than the log says, after {first}")


def _clock(world: World, host: Host) -> int:
    assert host.subject is not None
    return world.builder.now_ms(host.subject)


def _check_expiry(world: World) -> None:
    """A leader exists: sessions end soon after their deadline, though nobody asks anything."""
    first = world.leader()
    before_ms = 0 if first is None or first.subject is None else _clock(world, first)
    world.run_until(world.now_us + SECOND)
    leader = world.leader()
    if leader is None or leader.subject is None:
        raise Violation("works again after healing", "the leader is gone, without a fault")
    now_ms = _clock(world, leader)
    if leader is first and not world.plan.stock and now_ms - before_ms < GAIN_MS:
        raise Violation(
            "cluster time goes on",
            f"{leader.name} leads, and its clock went from {before_ms} to {now_ms} ms in a second",
        )
    late = world.timeline.overdue(now_ms - LATE_SESSION_MS)
    if late:
        raise Violation("sessions end in time", f"at {now_ms} ms these live still: {late}")
