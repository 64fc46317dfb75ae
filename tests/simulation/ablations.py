"""Every guard switched off in turn: does anybody notice?

RULE: production code has no switches; each ablation replaces methods of production classes for the
time of one run, from outside. What nothing notices needs a better fault, or is no guard.

What is switched off, and the bugs planted above the engine, stand in the zoo
(`jepsen-style/jepsen/zoo`), which hunts them by their names and writes the table that is published;
here they get the words of the simulator, for `--ablate` and for a quick table of seeds.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# The zoo is also real processes' and lives with them; from a checkout, wherever one stands.
sys.path.append(str(Path(__file__).resolve().parents[2] / "jepsen-style"))

from jepsen.zoo.registry import ZOO
from jepsen.zoo.species import Simulated

from tests.simulation.plan import Plan
from tests.simulation.run import GuardedBuilder
from tests.simulation.world import Builder

Change = Callable[[Plan], Plan]


@dataclass(frozen=True, slots=True)
class Ablation:
    """One guard off.

    Attributes:
        guard: its number in the engine's notes, or the room a planted bug lives in.
        what: what is switched off, in a few words.
        off: context manager that does it.
        profile: the faults that show it best.
        nodes: how many; None as the profile says.
        change: a last word on the plan.
        workload: what clients do.
    """

    guard: str
    what: str
    off: Callable[[], contextlib.AbstractContextManager[Any]]
    profile: str
    nodes: int | None
    change: Change
    workload: str


def change_of(hunt: Simulated) -> Change:
    """What a hunt wants of a plan over what its profile says."""

    def changed(plan: Plan) -> Plan:
        return replace(plan, **{"faults": {**plan.faults, **hunt.faults}, **hunt.settings})

    return changed


ABLATIONS: Mapping[str, Ablation] = {
    name: Ablation(
        plant.layer,
        plant.what,
        plant.plant,
        plant.simulated.profile,
        plant.simulated.nodes,
        change_of(plant.simulated),
        plant.simulated.workload,
    )
    for name, plant in ZOO.items()
    if plant.simulated is not None
}


STOCK_PROFILES = ("calm", "calm-compacting", "storm-tcp", "storm-harsh")


@contextlib.contextmanager
def prepare(ablation: Ablation) -> Iterator[tuple[Builder, Change]]:
    """Switch one guard off; gives the builder and the change to the plan."""
    with ablation.off():
        yield GuardedBuilder(), ablation.change


def table(
    seeds: Sequence[int], seconds: float, workers: int, only: str | None = None
) -> Iterator[str]:
    """Run every ablation, and the stock library, over the seeds; lines of a table as they come.

    `only`: names that begin so, with commas between; "stock" is the library.
    """
    from tests.simulation.report import Job, run_jobs

    yield "| switched off | guard | faults | hit/run | first seed | what breaks (seeds) |"
    yield "|---|---|---|---|---|---|"
    runs: list[tuple[str, str, list[Job]]] = [
        (
            f"{ablation.what} (`{name}`)",
            ablation.guard,
            [
                Job(
                    seed,
                    ablation.profile,
                    ablation.nodes,
                    seconds,
                    ablation=name,
                    workload=ablation.workload,
                )
                for seed in seeds
            ],
        )
        for name, ablation in ABLATIONS.items()
        if only is None or name.startswith(tuple(only.split(",")))
    ]
    is_stock_wanted = only is None or "stock" in only.split(",")
    for profile in STOCK_PROFILES if is_stock_wanted else ():
        jobs = [Job(seed, profile, None, seconds, engine="stock") for seed in seeds]
        runs.append(("everything: the stock library", "all", jobs))
    for what, guard, jobs in runs:
        broken: Counter[str] = Counter()
        first: int | None = None
        for job, result in run_jobs(jobs, workers):
            if result.invariant is not None:
                broken[result.invariant] += 1
                first = job.seed if first is None else first
        laws = ", ".join(f"{law} ({count})" for law, count in broken.most_common())
        hit = f"{broken.total()}/{len(jobs)}"
        yield f"| {what} | {guard} | {jobs[0].profile} | {hit} | {first} | {laws or 'nothing'} |"


if __name__ == "__main__":
    from tests.simulation.__main__ import main

    main(["--table", *sys.argv[1:]])
