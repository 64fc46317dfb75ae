"""The hunt: seed after seed, or run after run, until a check finds the bug; then without the bug.

RULE: finds and compares, prints nothing. A bug counts as found when a check that it names complains;
one that something else complains of first is told as such. The same seeds must be silent without
the bug: a check that always complains finds everything.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from jepsen import runner
from jepsen.runner import Plan, Tools
from jepsen.system import COTERIE, System
from jepsen.verdicts import Verdict
from jepsen.zoo import serve
from jepsen.zoo.registry import ZOO
from jepsen.zoo.species import Plant, Real, Simulated, planted


class Found(msgspec.Struct, frozen=True):
    """What came of one hunt.

    Attributes:
        where: "simulator", or the workload and nemesis of real runs.
        by: the check that complained first; empty where none did in the whole budget.
        right: it is one of those that the plant names.
        after: seeds or runs it took, the last of them included; the budget where nothing did.
        detail: the complaint, shortened.
        replay: the command that shows it again.
        false_alarm: what complained though nothing was planted; empty is as it should be.
        spent: virtual seconds of all seeds, or real seconds under faults.
    """

    name: str
    where: str
    by: str
    right: bool
    after: int
    detail: str
    replay: str
    false_alarm: str
    spent: float

    @property
    def passed(self) -> bool:
        """Found, by what should find it, and by nothing when it was not there."""
        return self.right and not self.false_alarm


Take = Callable[[Found], None]
"""Is told of each finding as it comes."""


def place_of(plant: Plant, *, real: bool) -> str:
    """Where a plant is hunted, in a few words; empty where it is not."""
    if real:
        return "" if plant.real is None else f"{plant.real.workload}, {plant.real.nemesis}"
    return "" if plant.simulated is None else f"simulator, {plant.simulated.profile}"


def in_simulator(name: str, *, budget: int | None = None) -> Found:
    """Hunt one plant in the simulator.

    Args:
        budget: seeds; the plant's own when none is given.
    """
    plant = ZOO[name]
    hunt = plant.simulated
    assert hunt is not None, f"{name} is not hunted in the simulator"
    with _unlogged():
        return _hunted(name, plant, hunt, budget or hunt.budget)


def _hunted(name: str, plant: Plant, hunt: Simulated, budget: int) -> Found:
    """Seed after seed until the bug shows, and the same seeds without it."""
    spent, after = 0.0, 0
    for seed in range(budget):
        result = simulated(hunt, seed, plant)
        after += 1
        spent += result.virtual_us / 1e6
        if result.invariant is not None:
            break
    else:
        return Found(name, "simulator", "", False, after, "", replay(plant, 0), "", spent)
    false_alarm = ""
    for clean in range(seed + 1):
        without = simulated(hunt, clean, None)
        if without.invariant is not None:
            false_alarm = f"seed {clean}: {without.invariant}: {without.detail}"[:300]
            break
    return Found(
        name,
        "simulator",
        result.invariant,
        result.invariant in hunt.laws,
        after,
        result.detail[:300],
        replay(plant, seed),
        false_alarm,
        spent,
    )


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    """The simulator logs each trouble of the library; here they are the subject."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def simulated(hunt: Simulated, seed: int, plant: Plant | None) -> Any:
    """Run one seed of a hunt, with the bug or without; gives the simulator's result."""
    # Not imported by name: the simulator belongs to the tests, and real nodes need none of it.
    plans = importlib.import_module("tests.simulation.plan")
    runs = importlib.import_module("tests.simulation.run")
    ablations = importlib.import_module("tests.simulation.ablations")
    plan = ablations.change_of(hunt)(
        plans.make_plan(
            seed,
            profile=hunt.profile,
            nodes=hunt.nodes,
            seconds=hunt.seconds,
            workload=hunt.workload,
        )
    )
    with planted(plant):
        return runs.simulate(plan)


def replay(plant: Plant, seed: int) -> str:
    """The command line that runs this seed of the simulator again, and tells its story."""
    hunt = plant.simulated
    assert hunt is not None
    words = [
        "python -m tests.simulation",
        f"--ablate {plant.name}",
        f"--profile {hunt.profile}",
        f"--workload {hunt.workload}",
        f"--seeds {seed}",
    ]
    if hunt.nodes is not None:
        words.append(f"--nodes {hunt.nodes}")
    if hunt.seconds != 25.0:
        words.append(f"--seconds {hunt.seconds:g}")
    return " ".join([*words, "--trace"])


async def on_processes(
    name: str,
    tools: Tools,
    out: Path,
    *,
    budget: int | None = None,
    calm: dict[tuple[str, str, int, float], str] | None = None,
) -> Found:
    """Hunt one plant with real processes.

    Args:
        out: where the runs leave their folders.
        budget: runs; the plant's own when none is given.
        calm: what runs without any bug said, by workload, nemesis, seed and seconds; filled here.
            Plants that are hunted alike share these.
    """
    plant = ZOO[name]
    hunt = plant.real
    assert hunt is not None, f"{name} is not hunted with real processes"
    calm = {} if calm is None else calm
    most = budget or hunt.budget
    where = f"{hunt.workload}, {hunt.nemesis}"
    wrong: list[Verdict] = []
    first = ""
    for seed in range(most):
        outcome = await runner.run(
            plan_of(hunt, seed, out, serve.system_of(name)), tools, say=_nothing
        )
        first = first or outcome.plan.replay
        wrong = [verdict for verdict in outcome.verdicts if verdict.valid is False]
        if wrong:
            break
    else:
        spent = most * hunt.seconds
        return Found(name, where, "", False, most, "", first, "", spent)
    # What should find it comes first; much else may notice as well.
    wrong.sort(key=lambda verdict: verdict.check not in hunt.checks)
    false_alarm = ""
    for clean in range(seed + 1):
        key = (hunt.workload, hunt.nemesis, clean, hunt.seconds)
        if key not in calm:
            without = await runner.run(plan_of(hunt, clean, out, COTERIE), tools, say=_nothing)
            calm[key] = "; ".join(
                f"{verdict.check}: {verdict.summary}"
                for verdict in without.verdicts
                if verdict.valid is False
            )
        false_alarm = false_alarm or (f"seed {clean}: {calm[key]}"[:300] if calm[key] else "")
    return Found(
        name,
        where,
        wrong[0].check,
        wrong[0].check in hunt.checks,
        seed + 1,
        wrong[0].summary[:300],
        outcome.plan.replay,
        false_alarm,
        (seed + 1) * hunt.seconds,
    )


def plan_of(hunt: Real, seed: int, out: Path, system: System) -> Plan:
    """The run of one seed of a hunt."""
    return Plan(
        workload=hunt.workload,
        nemesis=hunt.nemesis,
        seed=seed,
        minutes=round(hunt.seconds / 60, 4),
        out=out,
        system=system,
    )


def _nothing(_: str) -> None:
    """Runs of a hunt say nothing."""
