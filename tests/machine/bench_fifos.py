"""What fifos and waiting rooms cost: printed, not asserted.

Run `python -m tests.machine.bench_fifos`.
"""

from __future__ import annotations

import gc
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence

from cluster.machine.commands import Command
from cluster.machine.commands.fifos import AwaitTurn, CreateFifo, FinishTurn, JoinFifo
from cluster.machine.commands.rooms import JoinRoom, SetRoom
from cluster.machine.machine import Machine
from cluster.wire import snapshot
from tests.machine.bench import Bench

ROUNDS, PER_ENTRY = 100, 100
PER_FIFO = 100_000


def filled(tickets: int) -> Bench:
    """A machine with so many tickets, at most 100,000 in a fifo."""
    bench = Bench()
    fifos = -(-tickets // PER_FIFO)
    for number in range(fifos):
        bench.apply(bench.batch([CreateFifo(f"f{number}", 0, 0, 1_200_000, 0)]))
        for start in range(0, min(PER_FIFO, tickets - number * PER_FIFO), 1000):
            joins = [
                JoinFifo(f"f{number}", f"{number:04x}{place:028x}")
                for place in range(start, min(start + 1000, tickets))
            ]
            bench.apply(bench.batch(joins))
    return bench


def timed(name: str, bench: Bench, make: Callable[[int], Sequence[Command]]) -> None:
    """Print us per command of processor time, applied in entries of many."""
    spent = 0.0
    count = 0
    for number in range(ROUNDS):
        commands = make(number)
        batch = bench.batch(commands)
        start = time.process_time()
        bench.machine.apply(bench.machine.index + 1, batch)
        spent += time.process_time() - start
        count += len(commands)
    print(f"{name:<48}{spent / count * 1e6:8.2f} us")


def fifos(tickets: int) -> None:
    """Take a ticket, ask for its turn, and whole turns, among so many tickets."""
    gc.collect()
    bench = filled(tickets)
    print(f"among {tickets:,} tickets")

    def take(number: int) -> list[Command]:
        first = number * PER_ENTRY
        return [JoinFifo("g", f"g{place:031x}") for place in range(first, first + PER_ENTRY)]

    def turns(number: int) -> list[Command]:
        first = number * PER_ENTRY // 2
        pairs: list[Command] = []
        for place in range(first, first + PER_ENTRY // 2):
            pairs += (AwaitTurn("g", f"g{place:031x}"), FinishTurn("g", f"g{place:031x}"))
        return pairs

    def ask(_: int) -> list[Command]:
        last = min(tickets, PER_FIFO) - 1
        return [AwaitTurn("f0", f"{0:04x}{last - place:028x}") for place in range(PER_ENTRY)]

    timed("  ask in vain, far behind", bench, ask)
    bench.apply(bench.batch([CreateFifo("g", 0, 0, 1_200_000, 0)]))
    timed("  take a ticket", bench, take)
    timed("  accept and done, each", bench, turns)


def rooms(joined: int) -> None:
    """Join a room in which so many have joined."""
    bench = Bench()
    bench.apply(bench.batch([SetRoom("r", 10, 1000, 2)]))
    for _ in range(joined // 1000):
        bench.apply(bench.batch([JoinRoom("r")] * 1000))
    timed(f"join a room of {joined:,}", bench, lambda _: [JoinRoom("r")] * PER_ENTRY)


def memory() -> None:
    """Bytes per ticket, fifo and room, once their answers are acknowledged."""
    gc.collect()
    tracemalloc.start()
    count = 20_000

    def grown(name: str, make: Callable[[], Bench]) -> None:
        gc.collect()
        base = tracemalloc.get_traced_memory()[0]
        bench = make()
        bench.apply(bench.batch([]))
        gc.collect()
        print(f"{name:<48}{(tracemalloc.get_traced_memory()[0] - base) // count:8} bytes")

    def many(command: Callable[[int], Command]) -> Bench:
        bench = Bench()
        for start in range(0, count, 1000):
            bench.apply(bench.batch([command(place) for place in range(start, start + 1000)]))
        return bench

    grown("a ticket", lambda: filled(count))
    grown("a fifo", lambda: many(lambda place: CreateFifo(f"fifo {place}", 0, 0, 0, 60_000)))
    grown("a room", lambda: many(lambda place: SetRoom(f"room {place}", 1, 1000, 2)))
    tracemalloc.stop()


def snapshots(tickets: int) -> None:
    """Time to dump and load tickets."""
    bench = filled(tickets)
    start = time.process_time()
    chunks = list(snapshot.encode(bench.machine.dump()))
    middle = time.process_time()
    Machine.load(snapshot.decode(chunks))
    end = time.process_time()
    print(
        f"{tickets:,} tickets: {sum(map(len, chunks)) / 1e6:.1f} MB, dumped in "
        f"{middle - start:.2f} s, loaded in {end - middle:.2f} s"
    )


if __name__ == "__main__":
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 950_000
    fifos(1_000)
    fifos(most)
    rooms(1_000)
    rooms(most)
    memory()
    snapshots(100_000)
