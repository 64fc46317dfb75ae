"""What a command costs the machine: printed, not asserted. Run `python -m tests.machine.bench`."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable, Sequence

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
from cluster.machine.machine import Machine
from cluster.machine.outcome import Granted, Opened, Outcome
from cluster.wire import batch as wire_batch
from cluster.wire import commands as wire_commands
from cluster.wire import snapshot
from cluster.wire.batch import EncodedGroup
from cluster.wire.frames import ForwardedRequest

ROUNDS = 200
PER_ENTRY = 100


class Bench:
    """A machine fed with entries of many commands by one node."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.seq = 0

    def batch(self, commands: Sequence[Command]) -> Batch:
        """The next entry; everything before it is acknowledged."""
        first = self.seq + 1
        self.seq += len(commands)
        requests = tuple(Request(first + place, command) for place, command in enumerate(commands))
        return Batch(self.machine.now_ms + 1, 0, (Group(Origin("n1", 1), first, requests),))

    def apply(self, batch: Batch) -> list[Outcome]:
        """Apply one entry and give the outcomes."""
        return [a.outcome for a in self.machine.apply(self.machine.index + 1, batch)]

    def open(self, count: int) -> list[str]:
        """Open sessions, many per entry."""
        ids: list[str] = []
        for start in range(0, count, 1000):
            many = [OpenSession("0123456789abcdef", 3_600_000)] * min(1000, count - start)
            ids += [o.session for o in self.apply(self.batch(many)) if isinstance(o, Opened)]
        return ids

    def acquire(self, sessions: Sequence[str]) -> list[ReleaseLock]:
        """Give each session a lock of its own; returns the way back."""
        back: list[ReleaseLock] = []
        for start in range(0, len(sessions), 1000):
            commands = [
                AcquireLock(session, f"jobs/{start + place}")
                for place, session in enumerate(sessions[start : start + 1000])
            ]
            for outcome in self.apply(self.batch(commands)):
                assert isinstance(outcome, Granted)
                back.append(ReleaseLock(outcome.session, outcome.name, outcome.token))
        return back


def encoded(batch: Batch) -> bytes:
    """The same entry as a leader writes it."""
    return wire_batch.encode(
        batch.now_ms,
        batch.wall_ms,
        [
            EncodedGroup(
                group.origin,
                group.ack,
                [
                    ForwardedRequest(r.seq, wire_commands.encode(r.command))
                    for r in group.requests
                    if r.command is not None
                ],
            )
            for group in batch.groups
        ],
    )


def timed(name: str, bench: Bench, make: Callable[[int], Sequence[Command]]) -> None:
    """Print us per command, applied alone and with decoding."""
    apply_s = decode_s = 0.0
    count = 0
    for number in range(ROUNDS):
        batch = bench.batch(make(number))
        data = encoded(batch)
        start = time.perf_counter()
        wire_batch.decode(data)
        middle = time.perf_counter()
        bench.machine.apply(bench.machine.index + 1, batch)
        end = time.perf_counter()
        decode_s += middle - start
        apply_s += end - middle
        count += sum(len(group.requests) for group in batch.groups)
    print(
        f"{name:<42}{apply_s / count * 1e6:7.2f} us applied"
        f"{(apply_s + decode_s) / count * 1e6:8.2f} us decoded and applied"
    )


def commands() -> None:
    """Cost per command, with 10,000 sessions and locks around."""
    bench = Bench()
    ids = bench.open(10_000)
    bench.acquire(ids[:5_000])
    some = ids[:PER_ENTRY]
    timed("open", bench, lambda _: [OpenSession("0123456789abcdef", 3_600_000)] * PER_ENTRY)
    timed("keepalive", bench, lambda _: [KeepAlive(session) for session in some])
    timed("keepalive, one per entry", bench, lambda _: [KeepAlive(some[0])])
    token = bench.machine.tokens.last

    def pairs(number: int) -> list[Command]:
        first = token + 1 + number * (PER_ENTRY // 2)
        made: list[Command] = []
        for place in range(PER_ENTRY // 2):
            made.append(AcquireLock(ids[place], f"free/{place}"))
            made.append(ReleaseLock(ids[place], f"free/{place}", first + place))
        return made

    timed("acquire and release, each", bench, pairs)

    crowd = Bench()
    waiting = crowd.open(1_000)
    held = [AcquireLock(waiting[0], "door")]
    crowd.apply(crowd.batch([*held, *(AcquireLock(s, "door", wait_ms=10**9) for s in waiting[1:])]))
    token = crowd.machine.tokens.last

    def hand_over(number: int) -> list[Command]:
        made: list[Command] = []
        for place in range(PER_ENTRY // 2):
            step = number * (PER_ENTRY // 2) + place
            session = waiting[step % len(waiting)]
            made.append(ReleaseLock(session, "door", token + step))
            made.append(AcquireLock(session, "door", wait_ms=10**9))
        return made

    # Of each pair one grants to the next of 999 waiters, the other queues behind them.
    timed("hand over among 1,000, each", crowd, hand_over)


def memory() -> None:
    """Bytes per session, lock and waiter, once their answers are acknowledged."""
    gc.collect()
    tracemalloc.start()
    bench = Bench()
    bench.apply(bench.batch([]))
    count = 20_000

    def grown(since: int) -> int:
        bench.apply(bench.batch([]))
        gc.collect()
        return (tracemalloc.get_traced_memory()[0] - since) // count

    base = tracemalloc.get_traced_memory()[0]
    ids = bench.open(count)
    print(f"{'a session':<42}{grown(base):7} bytes")
    base = tracemalloc.get_traced_memory()[0]
    bench.acquire(ids)
    print(f"{'a lock held':<42}{grown(base):7} bytes")
    base = tracemalloc.get_traced_memory()[0]
    for start in range(0, count, 1000):
        bench.apply(
            bench.batch(
                [
                    AcquireLock(ids[place], f"jobs/{(place + 1) % count}", wait_ms=10**9)
                    for place in range(start, start + 1000)
                ]
            )
        )
    print(f"{'a waiter':<42}{grown(base):7} bytes")
    tracemalloc.stop()


def snapshots() -> None:
    """Time to dump and load a larger state."""
    bench = Bench()
    bench.acquire(bench.open(100_000))
    start = time.perf_counter()
    chunks = list(snapshot.encode(bench.machine.dump()))
    middle = time.perf_counter()
    Machine.load(snapshot.decode(chunks))
    end = time.perf_counter()
    size = sum(map(len, chunks)) / 1e6
    print(
        f"100,000 sessions and locks: {size:.1f} MB in {len(chunks)} chunks of at most "
        f"{max(map(len, chunks)) / 1e3:.0f} kB, dumped in {middle - start:.2f} s, "
        f"loaded in {end - middle:.2f} s"
    )
    ends = bench.machine.now_ms + 3_600_000
    start = time.perf_counter()
    bench.machine.apply(bench.machine.index + 1, Batch(ends, 0))
    print(f"their end in one entry: {time.perf_counter() - start:.2f} s")


if __name__ == "__main__":
    commands()
    memory()
    snapshots()
