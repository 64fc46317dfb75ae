"""The world of one seed: virtual time, nodes that live and die, and who is told of what.

RULE: one heap of events, integers of µs, no chance but the seed's, no clock but ours. The
production node runs unchanged inside a `Host`; everything it is given is made here.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from cluster.errors import CoterieError
from cluster.machine.commands import Command, RequestId
from cluster.machine.events import History
from cluster.node.pending import Answered, Failed
from cluster.replication.disk import DiskFailed
from cluster.wire import frames
from tests.simulation.disk import SimDisk, Stopped
from tests.simulation.invariants import RaftInvariants, Replica, Violation
from tests.simulation.network import MS, SECOND, Network
from tests.simulation.plan import VOTE_ANSWER_TAG, VOTE_REQUEST_TAG, Plan
from tests.simulation.timeline import Timeline
from tests.simulation.trace import Trace
from tests.simulation.workloads.base import Book, Complain

SPIN_ROUNDS_MAX = 2_000
SPIN_LOOKS_MAX = 10_000
"""More rounds within 0.1 s, or more looks at the clock in one round, are a busy loop (j4)."""

CLEAN_REFUSALS = ("JournalCorrupt", "SnapshotCorrupt", "IdentityMismatch", "EngineFault")

READ = "read"


class Subject(Protocol):
    """What the world needs of a node: the production node, or the stock library in our clothes."""

    def connected(self, peer: str) -> None: ...

    def disconnected(self, peer: str) -> None: ...

    def receive(self, peer: str, frame: bytes) -> None: ...

    def begin_round(self) -> bool:
        """All of a round before the disk; True where it must be waited for."""

    def end_round(self) -> float:
        """The rest; seconds until the next round is wanted."""

    def submit(
        self,
        command: Command,
        on_reply: Callable[[Any], None],
        *,
        timeout_ms: int = 10_000,
        key: str | None = None,
        fingerprint: bytes | None = None,
    ) -> int: ...

    def hang_up(self, seq: int) -> None: ...

    def read(self, on_ready: Callable[[Any], None], *, timeout_ms: int = 10_000) -> None: ...

    def transfer(self, to: str | None, on_reply: Callable[[Any], None]) -> None: ...

    @property
    def applied_index(self) -> int: ...


class Builder(Protocol):
    """Makes a node on a host's disk; the same for production, ablated and stock nodes."""

    synced: bool
    """Its journal syncs, so durability can be asked for."""

    def build(self, host: Host) -> tuple[Subject, Replica, int]:
        """Recover a node from the host's disk; the number is its boot, part of request ids."""

    def enter(self, host: Host) -> None:
        """Called before every call into this host's node: set what is one per process."""

    def wait_for_disk(self, subject: Subject) -> None:
        """Between the two halves of a round: write and sync."""

    def crashed(self, host: Host, subject: Subject, *, power: bool) -> None:
        """The process of this node has ended."""

    def now_ms(self, subject: Subject) -> int:
        """Cluster time, as a leader sees it."""

    def full_state(self, subject: Subject) -> bytes:
        """The whole state, for the comparison at the end."""

    def history(self, subject: Subject) -> History:
        """What it tells those who watch."""


@dataclass(slots=True)
class Call:
    """One request at one node.

    Attributes:
        what: a command, or "read".
        on_done: told of a reply (Answered, Failed) or of None: the connection broke.
        request: its name in the log, once submitted.
        floor: for a read: highest log position acknowledged to anybody when it began.
    """

    what: Command | str
    key: str | None
    timeout_ms: int
    on_done: Callable[[Answered | Failed | None], None]
    began_us: int
    due_us: int
    floor: int = 0
    request: RequestId | None = None
    replies: int = 0
    is_over: bool = False
    is_hung_up: bool = False


class Clock:
    """One machine's monotonic clock: its own origin and its own rate."""

    __slots__ = ("offset", "rate")

    def __init__(self, rng: random.Random, drift: float) -> None:
        self.rate = 1.0 + drift * (2 * rng.random() - 1)
        self.offset = rng.random() * 1e5

    def seconds(self, time_us: int) -> float:
        """Its reading at a moment of true time."""
        return self.offset + self.rate * time_us / 1e6


class Host:
    """One machine: a disk that survives, a process that may not."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.peers = tuple(n for n in world.names if n != name)
        self.lane = world.names.index(name)
        self.rng = world.lots(f"host {name}")
        self.disk = SimDisk(world.lots(f"disk {name}"))
        self.disk.on_sync = self._on_sync
        self.clock = Clock(self.rng, world.plan.drift)
        self.wall_offset_ms = self.rng.randrange(-3_600_000, 3_600_000)
        self.subject: Subject | None = None
        self.replica: Replica | None = None
        self.boot = 0  # starts, also those that failed
        self.origin_boot = 0  # the node's own count
        self.is_refused = False  # its disk was flipped: it must not start again
        self.flipped: tuple[str, int] | None = None
        self.is_flip_at_end = False
        self._synced_at_end = 0  # last entry that was on disk when the process ended
        self.paused_us = 0  # stopped until then
        self.sync_us = (20, 400)  # a sync takes so long
        self._inbox: deque[tuple[str, Any, Any]] = deque()
        self._calls: list[Call] = []
        self._replies: list[tuple[Call, Answered | Failed, int]] = []
        self._wake_us = -1  # the one valid wake-up
        self._busy_us = 0  # until then the last round lasts
        self._cost_us = 0  # of the round that runs
        self._is_syncing = False  # between two halves of a round, while a thread waits
        self._has_taken_in = False  # something came in meanwhile
        self._looks = 0  # at the clock, in the round that runs
        self._spin = 0
        self._spin_since_us = 0

    # ---- what a node is given ---------------------------------------------------------------

    def now(self) -> float:
        """The monotonic clock. A loop that waits for it to move would wait for ever."""
        self._looks += 1
        if self._looks > SPIN_LOOKS_MAX:
            raise Violation("no busy loop", f"{self.name} looks at its clock again and again")
        return self.clock.seconds(self.world.now_us + self._cost_us)

    def wall_ms(self) -> int:
        """The wall clock, which may be anything."""
        return 1_700_000_000_000 + self.wall_offset_ms + self.world.now_us // 1_000

    def send(self, peer: str, frame: bytes) -> None:
        """The transport."""
        world = self.world
        if frame[1] == VOTE_ANSWER_TAG or frame[1] == VOTE_REQUEST_TAG:
            self._note_vote(peer, frame)
        world.network.send(self.name, peer, frame, world.now_us + self._cost_us)

    def _note_vote(self, peer: str, frame: bytes) -> None:
        message = frames.decode(bytes(frame))
        assert isinstance(message, (frames.VoteAnswer, frames.VoteRequest))
        candidate = peer if isinstance(message, frames.VoteAnswer) else self.name
        self.world.note(self.world.raft.vote, self.name, message.term, candidate)

    def _on_sync(self, _: float) -> None:
        least_us, most_us = self.sync_us
        self._cost_us += least_us + int((most_us - least_us) * self.rng.random())

    # ---- life and death ---------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """A process runs (it may be paused)."""
        return self.subject is not None

    @property
    def is_paused(self) -> bool:
        """It runs, but does nothing just now."""
        return self.paused_us > self.world.now_us

    def start(self) -> None:
        """Start the process on what its disk holds."""
        world = self.world
        if self.subject is not None or self.is_refused:
            return
        self.boot += 1
        self._inbox.clear()
        self._cost_us = 0
        self._busy_us = 0
        self.disk.fail_before = 0.0 if world.is_calm else world.plan.stop_share
        world.builder.enter(self)
        try:
            self.subject, self.replica, self.origin_boot = world.builder.build(self)
        except (Stopped, DiskFailed) as death:
            self._died(f"died while it started: {death}")
            return
        except Exception as error:
            if self.flipped is None or type(error).__name__ not in CLEAN_REFUSALS:
                raise Violation(
                    "a node starts on what it wrote",
                    f"{self.name}: {type(error).__name__}: {error}",
                ) from error
            self.is_refused = True
            self.subject = None
            world.count("refusals")
            world.say(self.name, f"refuses to start: {error}")
            self.disk.crash(power=False)
            return
        world.say(self.name, f"starts, boot {self.boot}")
        if self.flipped is not None:
            self._check_flipped()
            if self.subject is None:
                return
        world.observe(self)
        world.network.node_up(self.name)
        self.wake(world.now_us + self._cost_us)

    def _check_flipped(self) -> None:
        """A node that starts in spite of a flipped bit must have lost nothing it had promised.

        Bytes at the very end of the journal cannot be told from a torn write (engine.md, risk 3),
        unless another write follows them: then the node must be set aside, which we do here for
        it, and count.
        """
        world, replica = self.world, self.replica
        assert replica is not None
        kept = world.raft.durable(self.name)
        has_all = replica.log[-1][1] >= kept and replica.hard_state[0] >= world.promised_term(self)
        if self.is_flip_at_end:
            # Also what nobody has counted yet: a leader may still hear that we have it.
            has_all = has_all and replica.log[-1][1] >= self._synced_at_end
        flipped, self.flipped = self.flipped, None
        if has_all:
            world.count("flips without effect")
            return
        if not self.is_flip_at_end:
            raise Violation(
                "rot is refused",
                f"{self.name} starts without what it had promised, though the bit that was flipped "
                f"({flipped}) is of no last write",
            )
        world.count("flips taken for a torn tail")
        world.say(self.name, "a flipped bit at the end of the journal looked like a torn write")
        self.is_refused = True
        self.subject = self.replica = None

    def kill(self, *, power: bool) -> None:
        """End the process between two rounds. Like all faults, not after the storm."""
        if self.subject is None or self.world.is_calm:
            return
        self._end(power=power)
        self.world.say(self.name, "loses power" if power else "is killed")

    def _died(self, story: str) -> None:
        """The process has ended itself, at a disk operation."""
        world = self.world
        power = not world.plan.kill_only and self.rng.random() < 0.6
        self._end(power=power)
        world.say(self.name, f"{story}{', and the power goes' if power else ''}")
        world.at(world.now_us + self.rng.randrange(20 * MS, 2 * SECOND), self.start, lane=self.lane)

    def _end(self, *, power: bool) -> None:
        world = self.world
        world.count("crashes")
        if self.replica is not None:
            self._synced_at_end = self.replica.synced_index
        subject, self.subject, self.replica = self.subject, None, None
        if subject is not None:
            world.builder.crashed(self, subject, power=power)
        self.disk.crash(power=power)
        self.disk.full = self.disk.write_fails = self.disk.sync_fails = False
        self.paused_us = 0
        self._wake_us = -1
        self._is_syncing = False
        self._inbox.clear()
        self._cost_us = 0
        world.raft.stopped(self.name)
        world.network.node_down(self.name)
        # A reply of the last round may have left the machine or not.
        for call, reply, position in self._replies:
            if self.rng.random() < 0.5:
                self._settle(call, reply, position)
        self._replies.clear()
        calls, self._calls = self._calls, []
        for call in calls:
            if not call.is_over:
                self._close(call)
                world.after(self.rng.randrange(1, 20 * MS), call.on_done, None, lane=self.lane)

    def pause(self, for_us: int) -> None:
        """Stop the process for a while; its clock runs on."""
        if self.world.is_calm:
            return
        self.paused_us = max(self.paused_us, self.world.now_us + for_us)
        self.world.say(self.name, f"is paused for {for_us / 1e6:.3f} s")
        self.wake(self.paused_us)

    def resume(self) -> None:
        """End a pause."""
        self.paused_us = min(self.paused_us, self.world.now_us)
        self.wake(self.world.now_us)

    # ---- what comes in ----------------------------------------------------------------------

    def post(self, kind: str, first: Any, second: Any = None) -> None:
        """Put something before the process; it looks at it in its next round."""
        if self.subject is None or (kind == "transfer" and self.world.is_calm):
            return
        self._inbox.append((kind, first, second))
        self.wake(self.world.now_us + 10 + int(150 * self.rng.random()))

    def ask(self, call: Call) -> bool:
        """A client's request; False when nothing listens here."""
        if self.subject is None:
            return False
        call.floor = self.world.timeline.acknowledged
        self._calls.append(call)
        self.post("call", call)
        return True

    def hang_up(self, call: Call) -> None:
        """The client has gone away."""
        call.is_hung_up = True
        if call.request is not None:
            self.world.timeline.given_up(call.request)
        self.post("hang up", call)

    def wake(self, time_us: int) -> None:
        """Have a round no later than then, if there is a process."""
        if self.subject is None:
            return
        time_us = max(time_us, self._busy_us, self.paused_us, self.world.now_us)
        if self._wake_us < 0 or time_us < self._wake_us:
            self._wake_us = time_us
            self.world.at(time_us, self._on_wake, time_us, self.boot, lane=self.lane)

    # ---- one round --------------------------------------------------------------------------

    def _on_wake(self, time_us: int, boot: int) -> None:
        if self.subject is None or boot != self.boot or time_us != self._wake_us:
            return
        self._wake_us = -1
        if max(self.paused_us, self._busy_us) > self.world.now_us:
            self.wake(self.world.now_us)
        elif self._is_syncing:
            self._guarded(self._take_in)
        else:
            self._guarded(self._round)

    def _guarded(self, work: Callable[[Subject], float | None]) -> None:
        """Let the node work; then look at it, pass its replies on, and plan its next round."""
        world, subject = self.world, self.subject
        assert subject is not None
        self._cost_us = self._looks = 0
        world.builder.enter(self)
        try:
            wait = work(subject)
        except (Stopped, DiskFailed) as death:
            world.observe(self)
            self._died(f"dies: {death}")
            return
        except Violation:
            raise
        except Exception as error:
            world.observe(self)
            raise Violation(
                "a round raises nothing", f"{self.name}: {type(error).__name__}: {error}"
            ) from error
        world.observe(self)
        for call, reply, position in self._replies:
            self._settle(call, reply, position)
        self._replies.clear()
        if wait is not None:
            self._busy_us = world.now_us + self._cost_us
            self._watch_spin()
            self.wake(self._busy_us + max(1, int(wait * 1e6 / self.clock.rate) + 1))
        self._cost_us = 0

    def _round(self, subject: Subject) -> float | None:
        """A round; None where its second half comes when the disk is done."""
        self._take_in(subject)
        if subject.begin_round():
            if self.world.plan.threaded:
                self._begin_sync(subject)
                return None
            self.world.builder.wait_for_disk(subject)
        return subject.end_round()

    def _begin_sync(self, subject: Subject) -> None:
        """A thread waits for the disk. When it is done there, before we hear of it, is a lot."""
        least_us, most_us = self.sync_us
        delay_us = least_us + int((most_us - least_us) * self.rng.random())
        is_early = self.rng.random() < 0.5
        if is_early:
            self.world.builder.wait_for_disk(subject)
            self._cost_us = 0
        self._is_syncing, self._has_taken_in = True, False
        self.world.after(delay_us, self._end_sync, is_early, self.boot, lane=self.lane)

    def _end_sync(self, is_early: bool, boot: int) -> None:
        if self.subject is None or boot != self.boot:
            return
        if self.is_paused:
            self.world.at(self.paused_us, self._end_sync, is_early, boot, lane=self.lane)
            return

        def finish(subject: Subject) -> float:
            if not is_early:
                self.world.builder.wait_for_disk(subject)
            self._cost_us = 0
            self._is_syncing = False
            wait = subject.end_round()
            return 0.0 if self._has_taken_in else wait

        self._guarded(finish)

    def _take_in(self, subject: Subject) -> None:
        """What has come in since the last look."""
        inbox = self._inbox
        while inbox:
            self._has_taken_in = True
            kind, first, second = inbox.popleft()
            if kind == "frame":
                subject.receive(first, second)
            elif kind == "call":
                self._submit(subject, first)
            elif kind == "connected":
                subject.connected(first)
            elif kind == "disconnected":
                subject.disconnected(first)
            elif kind == "hang up":
                if first.request is not None and not first.is_over:
                    subject.hang_up(first.request.seq)
            elif kind == "transfer":
                subject.transfer(first, second)

    def _submit(self, subject: Subject, call: Call) -> None:
        def on_reply(reply: Answered | Failed) -> None:
            call.replies += 1
            if call.replies > 1:
                self.world.complain("one reply", f"{self.name} answered {call.what} again: {reply}")
            position = subject.applied_index
            self._replies.append((call, reply, position))

        if call.what == READ:
            subject.read(on_reply, timeout_ms=call.timeout_ms)
            return
        assert isinstance(call.what, Command)
        try:
            seq = subject.submit(
                call.what,
                on_reply,
                timeout_ms=call.timeout_ms,
                key=call.key,
                fingerprint=None if call.key is None else call.key.encode(),
            )
        except CoterieError as error:
            on_reply(Failed(error))
            return
        call.request = RequestId(self.name, self.origin_boot, seq)
        self.world.timeline.submitted(call.request, call.began_us)

    def _settle(self, call: Call, reply: Answered | Failed, position: int) -> None:
        """A reply is on its way to the client: what it says must be true now."""
        world = self.world
        if call.is_over:
            return
        self._close(call)
        if call.what == READ:
            if isinstance(reply, Answered):
                world.timeline.read_served(self.name, call.floor, position)
                world.count("reads")
        elif isinstance(reply, Answered):
            assert call.request is not None and reply.outcome is not None
            world.timeline.acknowledge(call.request, reply.outcome, reply.index)
            world.count("acknowledged")
        elif reply.error.definite and call.request is not None:
            world.timeline.refused(call.request, reply.error)
        delay_us = 50 + int(2 * MS * self.rng.random())
        world.after(self._cost_us + delay_us, call.on_done, reply, lane=self.lane)

    def _close(self, call: Call) -> None:
        call.is_over = True
        if call.request is not None:
            self.world.timeline.given_up(call.request)

    def overdue(self) -> Call | None:
        """A request that should have had its reply by now, pauses apart."""
        self._calls = [call for call in self._calls if not call.is_over]
        now_us = self.world.now_us
        if self.subject is None or now_us < self.paused_us + 5 * SECOND:
            return None
        for call in self._calls:
            if not call.is_hung_up and call.due_us < now_us:
                return call
        return None

    def _watch_spin(self) -> None:
        now_us = self.world.now_us
        self._spin += 1
        if now_us - self._spin_since_us > 100 * MS:
            self._spin = 0
            self._spin_since_us = now_us
        elif self._spin > SPIN_ROUNDS_MAX:
            raise Violation("no busy loop", f"{self.name}: {self._spin} rounds within 0.1 s")


class World:
    """All of one seed's run."""

    def __init__(
        self,
        plan: Plan,
        builder: Builder,
        trace: Trace,
        books: Sequence[Callable[[Complain], Book]] = (),
    ) -> None:
        self.plan = plan
        self.builder = builder
        self.trace = trace
        self.now_us = 0
        self.steps = 0
        self.is_calm = False  # the storm is over
        self.disks_at_risk = 0  # flipped or about to be
        self.counts: dict[str, int] = {}
        self.names = [f"n{number}" for number in range(1, plan.nodes + 1)]
        self._heap: list[tuple[int, int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._pushed = 0
        self._complaint: Violation | None = None
        self._terms = dict.fromkeys(self.names, 0)
        self._roles = dict.fromkeys(self.names, ("down", 0))
        self.timeline = Timeline(
            lambda: self.now_us, self.complain, [make(self.complain) for make in books]
        )
        self.raft = RaftInvariants(
            self.names,
            on_commit=self.timeline.commit,
            digest_at=self.timeline.digest_at,
            synced=builder.synced,
        )
        self.network = Network(self, self.names, plan.weather, self.lots)
        self.hosts = {name: Host(self, name) for name in self.names}

    # ---- chance, time and story -------------------------------------------------------------

    def lots(self, purpose: str) -> random.Random:
        """A generator of its own for each purpose: one more draw here moves nothing there."""
        return random.Random(f"{self.plan.seed}/{purpose}")

    def at(self, time_us: int, act: Callable[..., None], *args: Any, lane: int = 99) -> None:
        """Do something later. Of two things at the same µs the lower lane goes first."""
        self._pushed += 1
        heapq.heappush(self._heap, (time_us, lane, self._pushed, act, args))

    def after(self, delay_us: int, act: Callable[..., None], *args: Any, lane: int = 99) -> None:
        """Do something so much later."""
        self.at(self.now_us + delay_us, act, *args, lane=lane)

    def spawn(self, story: Generator[int, None, None], lane: int = 99) -> None:
        """Run a generator that yields the µs until it goes on."""

        def resume() -> None:
            delay_us = next(story, None)
            if delay_us is not None:
                self.after(delay_us, resume, lane=lane)

        resume()

    def say(self, who: str, text: str) -> None:
        """Add to the story."""
        if self.trace.wanted:
            self.trace.say(self.now_us, who, text)

    def count(self, what: str, number: int = 1) -> None:
        """Add to the summary."""
        self.counts[what] = self.counts.get(what, 0) + number

    def complain(self, invariant: str, detail: str) -> None:
        """Report a violation from inside the node's own calls, which may swallow exceptions."""
        if self._complaint is None:
            self._complaint = Violation(invariant, detail)

    def note(self, check: Callable[..., None], *args: Any) -> None:
        """Run a check from inside the node's own calls."""
        try:
            check(*args)
        except Violation as violation:
            if self._complaint is None:
                self._complaint = violation

    # ---- running ----------------------------------------------------------------------------

    def run_until(self, time_us: int, is_done: Callable[[], bool] | None = None) -> bool:
        """Let time pass.

        Returns:
            True as soon as `is_done` says so; False at the end of the time.
        Raises:
            Violation: an invariant broke.
        """
        heap = self._heap
        pop = heapq.heappop
        while heap and heap[0][0] <= time_us:
            at_us, _, _, act, args = pop(heap)
            self.now_us = at_us
            self.steps += 1
            act(*args)
            if self._complaint is not None:
                raise self._complaint
            if is_done is not None and is_done():
                return True
        self.now_us = max(self.now_us, time_us)
        return False

    def observe(self, host: Host) -> None:
        """Check a node after it has done something."""
        replica = host.replica
        if replica is None:
            return
        self.raft.observe(host.name, replica)
        term, role = replica.term, replica.role
        self._terms[host.name] = term
        if (role, term) != self._roles[host.name]:
            self._roles[host.name] = (role, term)
            if self.trace.wanted:
                self.say(host.name, f"is {role} in term {term}, log ends at {replica.log[-1][1:]}")
        if self._complaint is not None:
            raise self._complaint

    def promised_term(self, host: Host) -> int:
        """The term this node was last seen in."""
        return self._terms[host.name]

    # ---- the network's receiver -------------------------------------------------------------

    def deliver(self, source: str, target: str, frame: bytes) -> None:
        """A message arrives."""
        self.trace.mark(self.now_us, frame)
        self.hosts[target].post("frame", source, frame)

    def connected(self, source: str, target: str) -> None:
        """The source's stream to the target is up."""
        self.hosts[source].post("connected", target)

    def disconnected(self, source: str, target: str) -> None:
        """The source's stream to the target is gone."""
        self.hosts[source].post("disconnected", target)

    def is_listening(self, name: str) -> bool:
        """Is there a process?"""
        return self.hosts[name].subject is not None

    # ---- who is who -------------------------------------------------------------------------

    def up(self) -> Sequence[Host]:
        """Hosts with a process."""
        return [host for host in self.hosts.values() if host.subject is not None]

    def leader(self) -> Host | None:
        """Who leads the highest term, among those alive."""
        leaders = [
            host
            for host in self.hosts.values()
            if host.replica is not None and host.replica.role == "leader"
        ]
        return max(leaders, key=lambda host: host.replica.term, default=None)  # type: ignore[union-attr]


@dataclass(slots=True)
class Result:
    """What became of a seed."""

    plan: Plan
    hash: int
    counts: dict[str, int] = field(default_factory=dict)
    invariant: str | None = None
    detail: str = ""
    at_us: int = 0
    virtual_us: int = 0
    story: str = ""
