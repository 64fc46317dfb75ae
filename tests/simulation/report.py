"""Many seeds: run them on several cores, add them up, print what a person needs.

RULE: knows results, not worlds. A failing seed is one line that replays it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace

from tests.simulation import workloads
from tests.simulation.plan import make_plan
from tests.simulation.run import simulate
from tests.simulation.trace import Trace
from tests.simulation.world import Result


@dataclass(frozen=True, slots=True)
class Job:
    """One seed and how to run it. Everything is plain, so that it can go to another process."""

    seed: int
    profile: str = "mixed"
    nodes: int | None = None
    seconds: float = 25.0
    engine: str = "guarded"
    ablation: str | None = None
    workload: str | None = None

    @property
    def work(self) -> str:
        """The workload; drawn from the seed where none is asked for and nothing is broken."""
        if self.workload is not None:
            return self.workload
        is_whole = self.engine == "guarded" and self.ablation is None
        return workloads.draw(self.seed) if is_whole else workloads.DEFAULT

    def replay(self) -> str:
        """The command line that runs exactly this again, and tells the story."""
        words = ["python -m tests.simulation", f"--seeds {self.seed}"]
        if self.profile != "mixed" or self.ablation is not None:
            words.append(f"--profile {self.profile}")
        if self.nodes is not None:
            words.append(f"--nodes {self.nodes}")
        if self.seconds != 25.0:
            words.append(f"--seconds {self.seconds:g}")
        if self.engine != "guarded":
            words.append(f"--engine {self.engine}")
        if self.ablation is not None:
            words.append(f"--ablate {self.ablation}")
        if self.ablation is None or self.workload is not None:
            words.append(f"--workload {self.work}")
        return " ".join([*words, "--trace"])


def run_job(job: Job, trace: Trace | None = None) -> Result:
    """Run one seed here."""
    # Late, as they change what they touch only while they are used.
    from tests.simulation.ablations import ABLATIONS, prepare
    from tests.simulation.stock import StockBuilder

    is_stock = job.engine == "stock"
    plan = make_plan(
        job.seed,
        profile=job.profile,
        nodes=job.nodes,
        seconds=job.seconds,
        stock=is_stock,
        workload=job.work,
    )
    if is_stock:
        # It has no confirmed reads: shown once, where nothing else breaks.
        share = plan.read_share if job.profile == "calm" else 0.0
        with StockBuilder() as stock:
            return simulate(replace(plan, read_share=share), stock, trace=trace)
    if job.ablation is None:
        return simulate(plan, trace=trace)
    with prepare(ABLATIONS[job.ablation]) as (ablated, change):
        return simulate(change(plan), ablated, trace=trace)


def run_jobs(jobs: Sequence[Job], workers: int) -> Iterator[tuple[Job, Result]]:
    """Run many seeds, in order of the jobs, on so many processes."""
    if workers <= 1:
        for job in jobs:
            yield job, run_job(job)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from zip(jobs, pool.map(run_job, jobs, chunksize=4), strict=True)


@dataclass(slots=True)
class Summary:
    """Added up over seeds."""

    seeds: int = 0
    virtual_us: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    failures: list[tuple[Job, Result]] = field(default_factory=list)

    def add(self, job: Job, result: Result) -> None:
        """Take in one result."""
        self.seeds += 1
        self.virtual_us += result.virtual_us
        for name, number in result.counts.items():
            self.counts[name] = self.counts.get(name, 0) + number
        if result.invariant is not None:
            self.failures.append((job, result))

    def text(self) -> str:
        """A few lines for a person."""
        count: Counter[str] = Counter(self.counts)
        work: dict[str, list[str]] = {}
        for name in sorted(self.counts):
            workload, colon, what = name.partition(": ")
            if colon:
                work.setdefault(workload, []).append(f"{self.counts[name]} {what}")
        lines = "".join(f"\n  {name}: {', '.join(parts)}" for name, parts in work.items())
        return (
            f"{self.seeds} seeds, {self.virtual_us / 3.6e9:.2f} virtual hours, "
            f"{len(self.failures)} with a violation\n"
            f"  {count['acknowledged']} commands acknowledged, {count['reads']} reads, "
            f"{count['expired']} sessions expired, {count['entries']} entries committed\n"
            f"  {count['crashes']} crashes, {count['elections']} elections, "
            f"{count['hand-overs']} hand-overs of {count['hand-overs asked']} asked, "
            f"{count['snapshots installed']} snapshots installed\n"
            f"  {count['flips']} bits flipped: {count['refusals']} starts refused, "
            f"{count['flips without effect']} without effect, "
            f"{count['flips taken for a torn tail']} at the torn end of a journal"
            f"{lines}"
        )


def report(
    jobs: Iterable[tuple[Job, Result]], say: Callable[[str], None], *, failures_max: int
) -> Summary:
    """Add results up; say each violation with its replay line as it comes."""
    summary = Summary()
    for job, result in jobs:
        summary.add(job, result)
        if result.invariant is not None and len(summary.failures) <= failures_max:
            say(f"seed {job.seed}: {result.invariant}: {result.detail[:400]}")
            say(f"  at {result.at_us / 1e6:.3f} s; replay: {job.replay()}")
        elif summary.seeds % 100 == 0:
            say(f"... {summary.seeds} seeds, {len(summary.failures)} with a violation")
    return summary


def workers_default() -> int:
    """As many as there are cores."""
    return os.cpu_count() or 1
