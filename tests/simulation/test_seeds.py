"""Seeds of the simulator, a hundred and more, on every run of the tests.

A failing one prints its replay line. More of them: `make simulate SEEDS=0:3000`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.simulation import workloads
from tests.simulation.ablations import ABLATIONS
from tests.simulation.network import HARSH, TCP
from tests.simulation.plan import ALL_FAULTS, PROFILES, make_plan
from tests.simulation.report import Job, Summary, report, run_job
from tests.simulation.trace import Trace
from tests.simulation.world import Result

CHUNK = 10

OTHERS = [name for name in workloads.names() if name != workloads.DEFAULT]


def check(jobs: list[Job]) -> Summary:
    """Run seeds; fail with every violation and its replay line."""
    lines: list[str] = []
    summary = report(((job, run_job(job)) for job in jobs), lines.append, failures_max=5)
    assert not summary.failures, "\n".join(lines)
    return summary


@pytest.mark.parametrize("first", range(0, 40, CHUNK))
def test_no_invariant_breaks_on_mixed_seeds(first: int) -> None:
    """Everything drawn from the seed: network, size, faults, compaction."""
    seeds = range(first, first + CHUNK)
    summary = check([Job(seed, seconds=12.0, workload=workloads.DEFAULT) for seed in seeds])
    assert summary.counts["acknowledged"] > 20 * CHUNK


@pytest.mark.parametrize("workload", [*OTHERS, workloads.MIXED])
def test_no_invariant_breaks_under_any_workload(workload: str) -> None:
    """Each of them alone, and all of them on one machine."""
    seeds = range(10 if workload == workloads.MIXED else 4)
    summary = check([Job(seed, seconds=12.0, workload=workload) for seed in seeds])
    assert summary.counts["acknowledged"] > 10 * len(seeds)
    for name in OTHERS if workload == workloads.MIXED else [workload]:
        counts = [what for what in summary.counts if what.startswith(f"{name}: ")]
        assert counts, f"the workload {name} did nothing"


def test_a_seed_draws_its_workload_and_locks_lead() -> None:
    """All of them are drawn; what breaks on purpose is judged by locks, as its record says."""
    drawn = Counter(workloads.draw(seed, ["jobs", "locks", "tasks"]) for seed in range(400))
    assert drawn.keys() == {"jobs", "locks", "tasks", workloads.MIXED}
    assert max(drawn, key=drawn.__getitem__) == workloads.DEFAULT
    assert workloads.draw(3, ["locks"]) == workloads.DEFAULT
    assert Job(1, ablation="g4").work == Job(1, engine="stock").work == workloads.DEFAULT


def test_a_workload_has_something_to_do() -> None:
    """A turn or a life; every module has its own name, and several make one run."""
    with pytest.raises(ValueError, match="clients of idle have nothing to do"):
        workloads.Workload("idle", book=workloads.Book)
    assert [found.name for found in workloads.find(workloads.MIXED)] == workloads.names()
    assert [found.name for found in workloads.find("locks")] == ["locks"]


def test_rot_of_what_only_a_paused_leader_was_told_of_sets_a_node_aside() -> None:
    """In the last write of a journal it looks like a torn end: such a disk counts for nothing."""
    result = run_job(Job(6060, "rot", seconds=15.0, workload="locks"))
    assert result.invariant is None, result.detail
    assert result.counts["flips taken for a torn tail"] == 1


def test_an_unknown_workload_is_refused_by_name() -> None:
    """With those that there are."""
    with pytest.raises(KeyError, match=r"no workload 'locs'; there are .*locks.*, mixed"):
        workloads.find("locks,locs")


@pytest.mark.parametrize("profile", sorted(set(PROFILES) - {"mixed"}))
def test_no_invariant_breaks_under_any_profile(profile: str) -> None:
    """Each named mix of faults, a little."""
    check([Job(seed, profile, seconds=8.0, workload=workloads.DEFAULT) for seed in range(2)])


def test_a_calm_cluster_elects_once_and_answers_everything() -> None:
    """Without faults nothing is lost, refused or elected twice."""
    result = run_job(Job(1, "calm", nodes=3, seconds=10.0, workload=workloads.DEFAULT))
    assert result.invariant is None, result.detail
    assert result.counts["elections"] == 1
    assert result.counts["acknowledged"] > 50


def test_a_seed_run_twice_is_the_same_run() -> None:
    """Step by step and byte by byte, with and without its story."""
    first, second = (run_job(Job(11, seconds=8.0)) for _ in range(2))
    told = run_job(Job(11, seconds=8.0), Trace(keep=True))
    assert first.hash == second.hash == told.hash
    assert first.counts == second.counts
    assert told.story


def test_the_order_of_hashed_sets_changes_nothing() -> None:
    """Two processes with different string hashes run the same seed alike."""
    code = (
        "from tests.simulation.report import Job, run_job\n"
        "for seed in (3, 4):\n"
        "    print(run_job(Job(seed, seconds=6.0)).hash)\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert len(outputs.pop().split()) == 2


def test_a_plan_is_a_function_of_its_seed() -> None:
    """Equal when drawn again, and all kinds are drawn."""
    plans = [make_plan(seed) for seed in range(60)]
    assert plans == [make_plan(seed) for seed in range(60)]
    assert {plan.nodes for plan in plans} == {3, 5}
    assert {plan.weather.name for plan in plans} == {TCP.name, HARSH.name}
    assert set().union(*(plan.faults for plan in plans)) == set(ALL_FAULTS)


def test_what_the_caller_fixes_is_not_drawn() -> None:
    """Profile, size and length."""
    plan = make_plan(5, profile="storm-harsh", nodes=5, seconds=3.0)
    assert (plan.weather, plan.nodes, plan.seconds) == (HARSH, 5, 3.0)


@pytest.mark.parametrize("name", ["g2-no-sync", "g4", "g5-spin", "plant-keys", "plant-hint"])
def test_a_guard_switched_off_is_noticed(name: str) -> None:
    """The simulator can see: a few ablations that break within a few seeds."""
    ablation = ABLATIONS[name]
    results = [
        run_job(Job(seed, ablation.profile, ablation.nodes, seconds=12.0, ablation=name))
        for seed in range(5)
    ]
    assert any(result.invariant for result in results)


def test_a_failing_seed_prints_the_line_that_replays_it() -> None:
    """As one would type it."""
    job = Job(7, "harsh", 5, 12.0, ablation="g4")
    result = Result(make_plan(7), 0, invariant="durability", detail="entry 5")
    lines: list[str] = []
    summary = report([(job, result)], lines.append, failures_max=5)
    assert summary.failures == [(job, result)]
    assert "seed 7: durability: entry 5" in lines[0]
    assert lines[1].endswith(
        "replay: python -m tests.simulation --seeds 7 --profile harsh --nodes 5 --seconds 12 "
        "--ablate g4 --trace"
    )


def test_a_replay_line_names_the_workload_that_was_drawn() -> None:
    """Another day there may be more of them to draw from."""
    assert Job(7).replay() == (
        f"python -m tests.simulation --seeds 7 --workload {workloads.draw(7)} --trace"
    )
