"""What the state costs: bytes of one thing, and µs of one command beside a million of them.

RULE: the machine alone, without log, network or disk; each kind of thing in a process of its own,
so that nothing of another is counted. Bytes are resident memory as the kernel counts it, time is
processor time of the applying thread. The collector is set as a node sets it.

A command is measured as a leader's entry brings it (100 to an entry, already decoded), as a pair
that leaves the state as it was, while so many things of its kind are there.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.machine import limits
from cluster.machine.commands import (
    AcquireLock,
    Batch,
    Command,
    Group,
    KeepAlive,
    OpenSession,
    Origin,
    ReleaseLock,
    Request,
)
from cluster.machine.commands.fifos import CreateFifo, JoinFifo, LeaveFifo
from cluster.machine.commands.jobs import DeleteJob, PutJob, ReserveJobs
from cluster.machine.commands.semaphores import AcquireSemaphore, ReleaseSemaphore, SetSemaphore
from cluster.machine.commands.tasks import NewTask, PutTasks, RemoveTask
from cluster.machine.commands.tickets import ClaimTicket, IssueTicket, ReleaseTicket
from cluster.machine.machine import Machine
from cluster.machine.outcome import Granted, Opened, Outcome
from cluster.machine.outcome.jobs import Reserved
from cluster.wire import snapshot

SIZES = (1_000, 10_000, 100_000, 1_000_000)
PER_ENTRY = 100
PER_GROUP = 1_000
"""So many things belong to one session, semaphore, resource, fifo, tube or pool."""

MEASURED_ENTRIES = 200
TTL_MS = 3_600_000
BODY = b"x" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One kind of thing, so many of them.

    Attributes:
        bytes_each: resident memory; None below a hundred thousand, where it says nothing.
        made_us: processor time of the command that makes one.
        done_us: of each command of a pair that leaves all as it was.
        dump_s, load_s, snapshot_mb: of the whole state.
    """

    kind: str
    count: int
    bytes_each: int | None
    made_us: float
    done_us: float
    pair: str
    dump_s: float
    load_s: float
    snapshot_mb: float


class Bench:
    """A machine fed by one node, everything acknowledged at once.

    Attributes:
        spent_s: processor time of the entries so far.
    """

    def __init__(self) -> None:
        self.machine = Machine()
        self.spent_s = 0.0
        self._seq = 0

    def apply(self, commands: Sequence[Command]) -> list[Outcome]:
        """Apply one entry and give the outcomes."""
        first = self._seq + 1
        self._seq += len(commands)
        requests = tuple(Request(first + place, command) for place, command in enumerate(commands))
        group = Group(Origin("n1", 1), first, requests)
        batch = Batch(self.machine.now_ms + 1, 0, (group,))
        began_s = time.thread_time()
        answers = self.machine.apply(self.machine.index + 1, batch)
        self.spent_s += time.thread_time() - began_s
        return [answer.outcome for answer in answers]

    def all(self, commands: Iterator[Command]) -> None:
        """Apply many, entry by entry."""
        some: list[Command] = []
        for command in commands:
            some.append(command)
            if len(some) == PER_ENTRY:
                self.apply(some)
                some = []
        if some:
            self.apply(some)

    def sessions(self, count: int) -> list[str]:
        """Open sessions."""
        made: list[str] = []
        while len(made) < count:
            some = [OpenSession("0123456789abcdef", TTL_MS)] * min(PER_ENTRY, count - len(made))
            made += [one.session for one in self.apply(some) if isinstance(one, Opened)]
        return made


class Kind:
    """One kind of thing. `prepare` comes before the first weighing."""

    name = ""
    pair = ""

    def __init__(self, bench: Bench, count: int) -> None:
        self.bench = bench
        self.count = count

    def prepare(self) -> None:
        """Make what things of this kind stand on."""

    def make(self) -> None:
        """Make them all."""
        self.bench.all(self.one(number) for number in range(self.count))

    def one(self, number: int) -> Command:
        """The command that makes one of them."""
        raise NotImplementedError

    def again(self) -> None:
        """Do one entry of pairs."""
        raise NotImplementedError

    def two(self, first: Sequence[Command], then: Callable[[Outcome], Command]) -> None:
        """One entry of the first commands, and one of those that their answers lead to."""
        self.bench.apply([then(outcome) for outcome in self.bench.apply(first)])


class Sessions(Kind):
    """With a TTL of an hour."""

    name, pair = "session", "keepalive"

    def make(self) -> None:
        self.ids = self.bench.sessions(self.count)

    def again(self) -> None:
        some = self.ids[:: max(1, self.count // PER_ENTRY)][:PER_ENTRY]
        self.bench.apply([KeepAlive(session) for session in some])


class Owned(Kind):
    """Things that sessions own."""

    def prepare(self) -> None:
        self.owners = self.bench.sessions(self.count // PER_GROUP + 1)


class Locks(Owned):
    """Exclusive, a thousand to a session."""

    name, pair = "lock held", "acquire, release"

    def one(self, number: int) -> Command:
        return AcquireLock(self.owners[number // PER_GROUP], f"jobs/{number}")

    def again(self) -> None:
        session = self.owners[-1]
        first = [AcquireLock(session, f"free/{number}") for number in range(PER_ENTRY)]
        self.two(first, lambda told: ReleaseLock(session, told.name, told.token))  # type: ignore[attr-defined]


class Waiters(Owned):
    """A thousand stand behind each lock; its holder gives it to the next, and goes to the end."""

    name, pair = "lock waited for", "release to the next, wait behind all"

    def prepare(self) -> None:
        self.owners = self.bench.sessions(PER_GROUP)
        self.doors = [f"door/{number}" for number in range(max(1, self.count // PER_GROUP))]
        (holder,) = self.bench.sessions(1)
        self.held: dict[str, Granted] = {}
        for door in self.doors:
            self._note(self.bench.apply([AcquireLock(holder, door)]))

    def one(self, number: int) -> Command:
        door = self.doors[number % len(self.doors)]
        session = self.owners[number // len(self.doors) % PER_GROUP]
        return AcquireLock(session, door, wait_ms=TTL_MS)

    def again(self) -> None:
        # A short queue would be gone through within an entry.
        held = list(self.held.values())[:PER_ENTRY] * (PER_ENTRY // min(PER_ENTRY, len(self.held)))
        for some in (held[at : at + len(self.held)] for at in range(0, len(held), len(self.held))):
            now = [self.held[one.name] for one in some]
            self._note(self.bench.apply([ReleaseLock(o.session, o.name, o.token) for o in now]))
            self._note(
                self.bench.apply([AcquireLock(o.session, o.name, wait_ms=TTL_MS) for o in now])
            )

    def _note(self, outcomes: Sequence[Outcome]) -> None:
        self.held |= {one.name: one for one in outcomes if isinstance(one, Granted)}


class Grants(Owned):
    """Of one unit, a thousand to a semaphore and to a session."""

    name, pair = "semaphore grant", "acquire, release"

    def prepare(self) -> None:
        super().prepare()
        names = range(self.count // PER_GROUP + 1)
        self.bench.all(SetSemaphore(f"printers/{number}", 2 * PER_GROUP) for number in names)

    def one(self, number: int) -> Command:
        return AcquireSemaphore(self.owners[number // PER_GROUP], f"printers/{number // PER_GROUP}")

    def again(self) -> None:
        session = self.owners[-1]
        first = [AcquireSemaphore(session, "printers/0")] * PER_ENTRY
        self.two(first, lambda told: ReleaseSemaphore(session, told.name, told.token))  # type: ignore[attr-defined]


class Tickets(Owned):
    """With an address as data, a thousand to a resource."""

    name, pair = "ticket", "claim, release"

    def one(self, number: int) -> Command:
        session, name = self.owners[number // PER_GROUP], f"gpus/{number // PER_GROUP}"
        return IssueTicket(session, name, f"gpu-{number}", b"10.0.0.7:9000", True)

    def again(self) -> None:
        session = self.owners[-1]
        first = [ClaimTicket(session, "gpus/0", another=True)] * PER_ENTRY
        self.two(
            first,
            lambda told: ReleaseTicket(session, told.name, told.ticket, told.token),  # type: ignore[attr-defined]
        )


class Jobs(Kind):
    """Ready, a thousand to a tube."""

    name, pair = "job (64 bytes)", "put, reserve, delete"

    def one(self, number: int) -> Command:
        # Each its own, as they come off the wire.
        return PutJob(f"mail/{number // PER_GROUP}", b"%064d" % number)

    def again(self) -> None:
        bench = self.bench
        bench.apply([PutJob("mail/0", BODY)] * PER_ENTRY)
        told = bench.apply([ReserveJobs(("mail/0",))] * PER_ENTRY)
        held = [one for outcome in told if isinstance(outcome, Reserved) for one in outcome.jobs]
        bench.apply([DeleteJob(one.job, one.token) for one in held])


class Tasks(Kind):
    """Without a schedule and nobody at it, a thousand to a pool."""

    name, pair = "task", "put, remove"

    def make(self) -> None:
        for first in range(0, self.count, PER_GROUP):
            many = tuple(NewTask(f"report-{number}") for number in range(first, first + PER_GROUP))
            self.bench.apply([PutTasks(f"pool/{first // PER_GROUP}", many)])

    def again(self) -> None:
        names = [f"more-{number}" for number in range(PER_ENTRY)]
        self.bench.apply([PutTasks("pool/0", (NewTask(name),)) for name in names])
        self.bench.apply([RemoveTask("pool/0", name) for name in names])


class Turns(Kind):
    """A thousand to a fifo, without timeouts."""

    name, pair = "fifo ticket", "join, leave"

    def prepare(self) -> None:
        names = range(self.count // PER_GROUP + 1)
        self.bench.all(CreateFifo(f"line/{number}", 0, 0, 0, 0) for number in names)

    def one(self, number: int) -> Command:
        return JoinFifo(f"line/{number // PER_GROUP}", f"{number:032x}")

    def again(self) -> None:
        names = [f"more-{number}" for number in range(PER_ENTRY)]
        self.bench.apply([JoinFifo("line/0", name) for name in names])
        self.bench.apply([LeaveFifo("line/0", name) for name in names])


KINDS: Mapping[str, type[Kind]] = {
    kind.name: kind for kind in (Sessions, Locks, Waiters, Grants, Tickets, Jobs, Tasks, Turns)
}


def cost(name: str, count: int) -> Cost:
    """Measure one kind, in this process: a fresh one."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    for limit in ("LOCKS_MAX", "FIFO_TICKETS_MAX", "TASKS_MAX", "PARKED_MAX"):
        setattr(limits, limit, 2 * SIZES[-1])  # A pair has to fit beside a million.
    bench = Bench()
    kind = KINDS[name](bench, count)
    kind.prepare()
    bench.apply([])
    before, bench.spent_s = _resident_bytes(), 0.0
    kind.make()
    bench.apply([])
    made_s, bytes_each = bench.spent_s, (_resident_bytes() - before) // count
    bench.spent_s = 0.0
    for _ in range(MEASURED_ENTRIES):
        kind.again()
    commands = MEASURED_ENTRIES * PER_ENTRY * len(kind.pair.split(", "))
    done_s = bench.spent_s
    began_s = time.thread_time()
    chunks = list(snapshot.encode(bench.machine.dump()))
    dumped_s = time.thread_time()
    Machine.load(snapshot.decode(chunks))
    return Cost(
        kind=name,
        count=count,
        bytes_each=bytes_each if count >= SIZES[-2] else None,
        made_us=made_s / count * 1e6,
        done_us=done_s / commands * 1e6,
        pair=kind.pair,
        dump_s=dumped_s - began_s,
        load_s=time.thread_time() - dumped_s,
        snapshot_mb=sum(map(len, chunks)) / 1e6,
    )


def measure(
    say: Callable[[str], None], sizes: Sequence[int] = SIZES, names: Sequence[str] = tuple(KINDS)
) -> list[Cost]:
    """Measure every kind at every size, each in a process of its own."""
    found: list[Cost] = []
    for name in names:
        for count in sizes:
            words = [sys.executable, "-m", "benchmarks.machine", name, str(count)]
            done = subprocess.run(
                words,
                stdout=subprocess.PIPE,
                check=True,
                text=True,
                cwd=Path(__file__).parents[1],
                env={**os.environ, "PYTHONHASHSEED": "0"},
            )
            found.append(Cost(**json.loads(done.stdout)))
            say(str(found[-1]))
    return found


def report(costs: Sequence[Cost]) -> str:
    """Two tables: µs by number of things; bytes, snapshot and loading of the most."""
    sizes = sorted({cost.count for cost in costs})
    lines = [
        "µs of processor time per command, applied (made: the command that makes one of them):",
        "",
        f"| while there are | {' | '.join(f'{size:,}' for size in sizes)} | command |",
        f"| --- |{' ---: |' * len(sizes)} --- |",
    ]
    for name in dict.fromkeys(cost.kind for cost in costs):
        rows = sorted((cost for cost in costs if cost.kind == name), key=lambda cost: cost.count)
        cells = " | ".join(f"{cost.done_us:.1f} (made {cost.made_us:.1f})" for cost in rows)
        lines.append(f"| {name} | {cells} | {rows[0].pair} |")
    lines += [
        "",
        f"| {sizes[-1]:,} of them | bytes each | snapshot | written in | loaded in |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for cost in costs:
        if cost.count == sizes[-1]:
            lines.append(
                f"| {cost.kind} | {cost.bytes_each or 0:,} | {cost.snapshot_mb:,.0f} MB "
                f"| {cost.dump_s:.1f} s | {cost.load_s:.1f} s |"
            )
    return "\n".join(lines)


def _resident_bytes() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.machine")
    parser.add_argument("kind", choices=[*KINDS])
    parser.add_argument("count", type=int)
    options = parser.parse_args()
    found = cost(options.kind, options.count)
    print(json.dumps({name: getattr(found, name) for name in Cost.__slots__}))


if __name__ == "__main__":
    _main()
