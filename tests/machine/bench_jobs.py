"""What jobs cost the machine: printed, not asserted. Run `python -m tests.machine.bench_jobs 1000000`.

Times are of the process, so that other work on the machine shows less.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cluster.machine.commands import Batch, Command, Group, Origin, Request
from cluster.machine.commands.jobs import (
    CancelJob,
    DeleteJob,
    PutJob,
    ReserveJobs,
    TouchJob,
)
from cluster.machine.machine import Machine
from cluster.machine.outcome import Outcome
from cluster.machine.outcome.jobs import Reserved
from cluster.wire import commands, snapshot

PER_ENTRY = 100
SAMPLE = 20_000
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Bench:
    """A machine fed with entries of many commands by one node, everything acknowledged."""

    def __init__(self, count: int) -> None:
        self.machine = Machine()
        self.count = count
        self.seq = 0

    def apply(self, made: Sequence[Command]) -> tuple[list[Outcome], float]:
        """Apply one entry as it comes off the wire; its outcomes, and how long it took."""
        first, self.seq = self.seq + 1, self.seq + len(made)
        fresh = [commands.decode(commands.encode(command)) for command in made]
        requests = tuple(Request(first + place, command) for place, command in enumerate(fresh))
        entry = Batch(self.machine.now_ms + 1, 0, (Group(Origin("n1", 1), first, requests),))
        start = time.process_time()
        answers = self.machine.apply(self.machine.index + 1, entry)
        return [answer.outcome for answer in answers], time.process_time() - start

    def timed(self, what: str, make: Callable[[int], Command], count: int) -> list[Outcome]:
        """Print what a command costs when so many are done; gives the outcomes of a sample."""
        outcomes: list[Outcome] = []
        spent_s = longest_s = 0.0
        for first in range(0, count, PER_ENTRY):
            told, took_s = self.apply([make(first + place) for place in range(PER_ENTRY)])
            if count <= SAMPLE:
                outcomes += told
            spent_s += took_s
            longest_s = max(longest_s, took_s)
        print(
            f"{self.count:>9,} {what:<14}{spent_s / count * 1e6:7.2f} us each"
            f"{longest_s * 1e3:8.2f} ms the longest entry of {PER_ENTRY}"
        )
        return outcomes


def resident_bytes() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def body(number: int) -> bytes:
    """Sixty-four bytes of its own."""
    return b"%064d" % number


def run(count: int) -> None:
    """Put so many delayed jobs, and see what everything costs beside them."""
    bench = Bench(count)
    before = resident_bytes()
    bench.timed(
        "put delayed",
        lambda n: PutJob("mail", body(n), True, 0, 3_600_000 + n * 7919 % 3_600_000),
        count,
    )
    gc.collect()
    print(f"{count:>9,} {(resident_bytes() - before) // count} bytes for each, with history")
    bench.timed("put ready", lambda n: PutJob("work", body(n), True), SAMPLE)
    told = bench.timed("reserve", lambda _: ReserveJobs(("work",)), SAMPLE)
    held = [outcome.jobs[0] for outcome in told if isinstance(outcome, Reserved)]
    bench.timed("touch", lambda n: TouchJob(held[n].job, held[n].token), SAMPLE)
    bench.timed("delete", lambda n: DeleteJob(held[n].job, held[n].token), SAMPLE)
    bench.timed("cancel", lambda n: CancelJob(n + 1), min(SAMPLE, count // 2))
    start = time.process_time()
    gc.collect()
    print(f"{count:>9,} full garbage collection {(time.process_time() - start) * 1e3:.0f} ms")
    saved(bench)


def saved(bench: Bench) -> None:
    """Print what a snapshot costs, and what happens when all jobs are due at once."""
    count, machine = bench.count, bench.machine
    chunks: list[bytes] = []
    start = last = time.process_time()
    longest_s = 0.0
    for chunk in snapshot.encode(machine.dump()):
        now = time.process_time()
        longest_s, last = max(longest_s, now - last), now
        chunks.append(chunk)
    middle = time.process_time()
    loaded = Machine.load(snapshot.decode(chunks))
    end = time.process_time()
    print(
        f"{count:>9,} dumped in {middle - start:.2f} s, {longest_s * 1e3:.0f} ms the longest step, "
        f"{sum(map(len, chunks)) / 1e6:.0f} MB; loaded in {end - middle:.2f} s"
    )
    now_ms = loaded.now_ms + 7_300_000
    entries, spent_s, longest_s = 0, 0.0, 0.0
    while loaded.next_deadline_ms() is not None:
        start = time.process_time()
        loaded.apply(loaded.index + 1, Batch(now_ms, 0))
        took_s = time.process_time() - start
        entries, spent_s, longest_s = entries + 1, spent_s + took_s, max(longest_s, took_s)
        now_ms += 1
    print(
        f"{count:>9,} all due at once: {entries} entries, {spent_s:.2f} s, "
        f"{longest_s * 1e3:.0f} ms the longest"
    )


if __name__ == "__main__":
    # As the node does it.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    for text in sys.argv[1:] or ["1000", "100000"]:
        run(int(text))
