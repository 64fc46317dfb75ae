"""What pools of tasks cost: printed, not asserted. Run `python -m tests.machine.bench_tasks`."""

from __future__ import annotations

import gc
import sys
import time
import tracemalloc
from collections.abc import Sequence

from cluster.machine.commands import Batch, Command, Group, Origin, Request
from cluster.machine.commands.tasks import (
    SKIP,
    FinishTasks,
    NewTask,
    PutTasks,
    Schedule,
    SetSlot,
    Work,
)
from cluster.machine.limits import TASKS_PER_POOL_MAX
from cluster.machine.machine import Machine
from cluster.machine.outcome import Outcome
from cluster.machine.outcome.tasks import Worked
from cluster.wire import snapshot
from tests.machine.bench import Bench

SESSIONS = 100
HOUR_MS = 3_600_000


def fill(bench: Bench, count: int, schedule: Schedule | None) -> list[str]:
    """Put tasks into as many pools as it takes; gives the pools."""
    pools = [f"p{number}" for number in range(-(-count // TASKS_PER_POOL_MAX))]
    for start in range(0, count, 1_000):
        pool = pools[start // TASKS_PER_POOL_MAX]
        many = range(start, min(count, start + 1_000))
        tasks = tuple(NewTask(f"task-{number}", b"x" * 20, True, schedule) for number in many)
        bench.apply(bench.batch([PutTasks(pool, tasks)]))
    return pools


def timed(name: str, bench: Bench, commands: Sequence[Command]) -> list[Outcome]:
    """Apply commands, a hundred to an entry; print us for each."""
    outcomes: list[Outcome] = []
    batches = [bench.batch(commands[at : at + 100]) for at in range(0, len(commands), 100)]
    start = time.process_time()
    for batch in batches:
        outcomes += bench.apply(batch)
    spent = time.process_time() - start
    print(f"  {name:<44}{spent / len(commands) * 1e6:9.2f} us")
    return outcomes


def costs(count: int) -> None:
    """Cost of each command with so many tasks around."""
    print(f"{count:,} tasks")
    bench = Bench()
    sessions = bench.open(SESSIONS)
    pools = fill(bench, count, None)
    pool = pools[-1]
    timed("join a pool and take one task", bench, [Work(s, pool, 1) for s in sessions])
    taken = [Work(s, pool, 2 + number) for number in range(4) for s in sessions]
    outcomes = timed("take one more, told up to five", bench, taken)
    held = {o.session: o.tasks for o in outcomes if isinstance(o, Worked)}
    finishes = [
        FinishTasks(session, pool, ((task.id, task.token),))
        for session, tasks in held.items()
        for task in tasks
    ]
    timed("finish one", bench, finishes)
    new = [PutTasks(pool, (NewTask(f"new-{number}", b"x" * 20),)) for number in range(500)]
    timed("put one", bench, new)
    timed("put one that is there", bench, new)


def slots(count: int) -> None:
    """Cost of slots with so many scheduled tasks around."""
    print(f"{count:,} scheduled tasks")
    bench = Bench()
    schedule = Schedule(HOUR_MS, 0, "", "", SKIP, 60_000, 0)
    fill(bench, count, schedule)
    machine = bench.machine
    wanted = machine.tasks.wanting(0, count)
    answers: list[Command] = [
        SetSlot(w.pool, w.task, w.revision, 1_000 + place // 1_000)
        for place, w in enumerate(wanted)
    ]
    timed("set a slot", bench, answers)
    start = time.process_time()
    machine.apply(machine.index + 1, Batch(machine.now_ms, 1_000, ()))
    spent = time.process_time() - start
    print(f"  {'fire a slot, of 1,000 at once':<44}{spent / min(count, 1_000) * 1e6:9.2f} us")


def memory(count: int = 100_000) -> None:
    """Bytes for each task, plain, held and scheduled, with 20 bytes of data."""
    gc.collect()
    tracemalloc.start()
    bench = Bench()

    def grown(since: int) -> int:
        bench.apply(bench.batch([]))
        gc.collect()
        return (tracemalloc.get_traced_memory()[0] - since) // count

    ids = bench.open(SESSIONS)
    base = grown(0) * count
    fill(bench, count, None)
    print(f"{'a task':<46}{grown(base):7} bytes")
    base += grown(base) * count
    each = 1_000
    for session in ids:
        bench.apply(bench.batch([Work(session, "p0", each)]))
    print(f"{'more, when it is held':<46}{grown(base):7} bytes")
    bench = Bench()
    gc.collect()
    base = tracemalloc.get_traced_memory()[0]
    fill(bench, count, Schedule(HOUR_MS, 0, "", "", SKIP, 60_000, 0))
    wanted = bench.machine.tasks.wanting(0, count)
    for start in range(0, count, 1_000):
        some = wanted[start : start + 1_000]
        bench.apply(bench.batch([SetSlot(w.pool, w.task, w.revision, HOUR_MS) for w in some]))
    del wanted, some
    print(f"{'a scheduled task':<46}{grown(base):7} bytes")
    tracemalloc.stop()


def snapshots(count: int) -> None:
    """Time to dump and load, and the longest steps there are: a whole pool at once."""
    bench = Bench()
    ids = bench.open(SESSIONS)
    fill(bench, count, None)
    for session in ids:
        bench.apply(bench.batch([Work(session, "p0", 1_000)]))
    start = time.process_time()
    chunks = list(snapshot.encode(bench.machine.dump()))
    middle = time.process_time()
    Machine.load(snapshot.decode(chunks))
    end = time.process_time()
    print(
        f"{count:,} tasks: {sum(map(len, chunks)) / 1e6:.1f} MB, dumped in {middle - start:.2f} s, "
        f"loaded in {end - middle:.2f} s"
    )
    request = Request(bench.seq + 1, PutTasks("p0", (), True))
    entry = Batch(bench.machine.now_ms, 0, (Group(Origin("n1", 1), 0, (request,)),))
    start = time.process_time()
    bench.machine.apply(bench.machine.index + 1, entry)
    spent = time.process_time() - start
    print(f"all {min(count, TASKS_PER_POOL_MAX):,} tasks of a pool replaced by none: {spent:.2f} s")


if __name__ == "__main__":
    counts = [int(word) for word in sys.argv[1:]] or [1_000, 1_000_000]
    for count in counts:
        costs(count)
        slots(count)
    memory()
    snapshots(counts[-1])
