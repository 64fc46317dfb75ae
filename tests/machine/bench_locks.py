"""What several locks, batches and explanations cost. Run `python -m tests.machine.bench_locks`."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

from cluster.machine.commands import AcquireLock, AcquireLocks, Command, ReleaseLocks, Several
from cluster.machine.explain import explain
from cluster.machine.machine import Machine
from tests.machine.bench import Bench

ROUNDS = 50


def timed(name: str, machine: Machine, count: int, work: Callable[[], object]) -> None:
    """Print µs for one of `count` things that `work` does."""
    # What is there already is not what is measured.
    gc.collect()
    gc.freeze()
    start = time.process_time()
    work()
    spent = time.process_time() - start
    gc.unfreeze()
    print(f"{name:<60}{spent / count * 1e6:9.2f} us")


def pairs(around: int) -> None:
    """Two locks taken and given back in one step, while others are held."""
    bench = Bench()
    ids = bench.open(max(around // 1000, 100))
    for start in range(0, around, 1000):
        session = ids[start // 1000 % len(ids)]
        bench.apply(bench.batch([AcquireLock(session, f"held/{start + n}") for n in range(1000)]))
    token = bench.machine.tokens.last

    def work() -> None:
        nonlocal token
        for _ in range(ROUNDS):
            commands: list[Command] = []
            token = max(token, bench.machine.index)
            for place in range(50):
                names = (f"a/{place}", f"b/{place}")
                commands.append(AcquireLocks(ids[place], tuple((name, False) for name in names)))
                given = tuple(zip(names, (token + 1, token + 2), strict=True))
                commands.append(ReleaseLocks(ids[place], given))
                token += 2
            bench.apply(bench.batch(commands))
        assert len(bench.machine.locks) == around

    timed(f"two locks in one step, each, {around:,} held", bench.machine, ROUNDS * 100, work)


def crowd(waiters: int) -> None:
    """All wait for the same two locks, and are served one after the other."""
    bench = Bench()
    ids = bench.open(waiters)
    wants = (("left", False), ("right", False))
    for start in range(0, waiters, 1000):
        bench.apply(
            bench.batch([AcquireLocks(s, wants, wait_ms=10**9) for s in ids[start : start + 1000]])
        )
    token = bench.machine.tokens.last - 1

    def work() -> None:
        nonlocal token
        for place in range(ROUNDS):
            held = (("left", token), ("right", token + 1))
            bench.apply(bench.batch([ReleaseLocks(ids[place], held)]))
            token = bench.machine.tokens.last - 1

    timed(f"hand two locks over among {waiters:,}", bench.machine, ROUNDS, work)
    timed(
        f"explain the last of {waiters:,}",
        bench.machine,
        1,
        lambda: explain(bench.machine.core, ids[-1], bench.machine.now_ms),
    )


def batches(atomic: bool) -> None:
    """A thousand locks taken in one batch."""
    bench = Bench()
    (session,) = bench.open(1)

    def work() -> None:
        for number in range(10):
            batch = [AcquireLock(session, f"{number}/{place}") for place in range(1000)]
            bench.apply(bench.batch([Several(tuple(batch), atomic)]))

    kind = "all or nothing" if atomic else "plain"
    timed(f"a lock in a batch of 1,000, {kind}", bench.machine, 10_000, work)


if __name__ == "__main__":
    for size in (1_000, 1_000_000 - 1_000):
        pairs(size)
    for size in (100, 9_000):
        crowd(size)
    for is_atomic in (False, True):
        batches(is_atomic)
