"""The book of jobs finds planted bugs, each within a few seeds and by the right name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from cluster.machine.jobs import jobs
from cluster.machine.jobs.jobs import Jobs
from cluster.machine.jobs.stock import Stock
from cluster.machine.jobs.tubes import Hold, Job
from cluster.machine.outcome.jobs import Cancelled
from tests.simulation.report import Job as Seed
from tests.simulation.report import run_job

SEEDS = range(12)
Plant = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The library logs each of its troubles; here they are the subject."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def any_token_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes late may still do what it likes, as with old beanstalkd clients."""
    strict = Jobs._not_held_now

    def lax(self: Jobs, command: jobs.DeleteJob) -> object:
        refusal = strict(self, command)
        job = self.stock.jobs.get(command.job)
        return refusal if job is None or job.hold is None else None

    monkeypatch.setattr(Jobs, "_not_held_now", lax)


def reserved_jobs_can_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancel takes the job from its worker."""
    cancel = Jobs._cancel

    def ruthless(self: Jobs, job_id: int | None) -> Cancelled:
        job = None if job_id is None else self.stock.jobs.get(job_id)
        if job is None or job.hold is None:
            return cancel(self, job_id)
        self.stock.remove(job, "cancelled")
        return Cancelled(job.id, True, "gone", None)

    monkeypatch.setattr(Jobs, "_cancel", ruthless)


def delays_are_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth too early."""
    make_ready = Stock.make_ready

    def hasty(self: Stock, job: Job, delay_ms: int = 0) -> None:
        make_ready(self, job, delay_ms - delay_ms // 10)

    monkeypatch.setattr(Stock, "make_ready", hasty)


def reservations_end_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """At half of the TTR somebody else gets the job."""
    arm_hold = Stock.arm_hold

    def hasty(self: Stock, hold: Hold) -> None:
        hold.deadline_ms -= (hold.deadline_ms - hold.since_ms) // 2
        arm_hold(self, hold)

    monkeypatch.setattr(Stock, "arm_hold", hasty)


def a_failed_job_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of going elsewhere."""
    give_up = Stock.give_up

    def careless(self: Stock, job: Job) -> bool:
        if not give_up(self, job):
            return False
        self.step_out(job)
        del self.jobs[job.id]
        return True

    monkeypatch.setattr(Stock, "give_up", careless)


def keys_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two jobs of one key live together."""
    monkeypatch.setattr(jobs.Tube, "job_of", lambda tube, key: None)


def the_dead_keep_their_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a session held that ended is forgotten, and runs out some time."""
    monkeypatch.setattr(Jobs, "free", lambda *_: None)


@pytest.mark.parametrize(
    ("plant", "laws"),
    [
        (any_token_will_do, {"a late token is stale"}),
        (reserved_jobs_can_be_cancelled, {"a cancelled job is nobody's"}),
        (delays_are_cut_short, {"no job early"}),
        (reservations_end_early, {"one worker at a time", "jobs"}),
        (a_failed_job_is_dropped, {"jobs", "no job lost"}),
        (keys_are_not_looked_at, {"a key lives once"}),
        (the_dead_keep_their_jobs, {"jobs"}),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_planted_bug_is_found(
    plant: Plant, laws: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the first seeds breaks on it, and says on what."""
    plant(monkeypatch)
    for seed in SEEDS:
        result = run_job(Seed(seed, "mixed", None, 15.0, workload="jobs"))
        if result.invariant is not None:
            assert result.invariant in laws, result.detail
            return
    pytest.fail(f"no seed of {SEEDS} finds it")
