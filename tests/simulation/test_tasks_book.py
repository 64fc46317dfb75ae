"""The book of tasks finds planted bugs, each within a few seeds and by the right name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from cluster.machine.sessions import Owned, Session
from cluster.machine.tasks import tasks
from cluster.machine.tasks.pools import Pool, Run, Slot
from cluster.machine.tasks.slots import Slots
from cluster.machine.tasks.tasks import Tasks
from cluster.node import schedules
from tests.simulation.report import Job, run_job

SEEDS = range(12)
Plant = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The library logs each of its troubles; here they are the subject."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def any_token_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Finishing is not conditional on the token, as in go-session-lock."""
    find = tasks._find

    def lax(pool: Pool, id: str, session: str | None, token: int | None) -> object:
        return find(pool, id, None, None)

    monkeypatch.setattr(tasks, "_find", lax)


def everything_for_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks gets all there is."""
    monkeypatch.setattr(Pool, "most", lambda pool, limit: 1_000)


def shares_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """The share is three times too large."""
    share = Pool.share.fget
    assert share is not None
    monkeypatch.setattr(Pool, "share", property(lambda pool: 3 * share(pool) + 1))


def the_dead_keep_their_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that ends frees its place as a worker only."""
    free = Tasks.free

    def forgetful(self: Tasks, session: Session, thing: Owned, token: int) -> None:
        if not thing[2]:
            free(self, session, thing, token)

    monkeypatch.setattr(Tasks, "free", forgetful)


def a_given_back_task_has_two_holders(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is given away is still the former holder's in its own list."""
    let_go = Tasks._let_go

    def keep(self: Tasks, run: Run) -> None:
        worker = run.task.pool.workers.get(run.session or "")
        kept = None if worker is None else dict(worker.held)
        let_go(self, run)
        if worker is not None and kept is not None and run.slot_ms is None:
            run.session = worker.session

    monkeypatch.setattr(Tasks, "_let_go", keep)


def slots_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The leader passes over a slot and says nothing."""
    following = schedules.following

    def hasty(*asked: object) -> schedules.Next:
        found = following(*asked)  # type: ignore[arg-type]
        every_ms = asked[0].every_ms  # type: ignore[attr-defined]
        return found if found.slot_ms is None else found._replace(slot_ms=found.slot_ms + every_ms)

    monkeypatch.setattr(schedules, "following", hasty)


def late_slots_are_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks at the catch-up window."""
    due = Slots.due

    def eager(self: Slots, slot: Slot) -> None:
        slot.due_ms = self._core.wall_ms
        due(self, slot)

    monkeypatch.setattr(Slots, "due", eager)


def slots_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task forgets which slot was its last one."""
    due = Slots.due

    def amnesiac(self: Slots, slot: Slot) -> None:
        due(self, slot)
        assert slot.task.timing is not None
        slot.task.timing.after_ms -= 5_000

    monkeypatch.setattr(Slots, "due", amnesiac)


@pytest.mark.parametrize(
    ("plant", "laws"),
    [
        (any_token_will_do, {"one holder of a task"}),
        (everything_for_the_first, {"fair shares"}),
        (shares_are_wrong, {"fair shares"}),
        (the_dead_keep_their_tasks, {"tasks", "the machine raises nothing"}),
        (a_given_back_task_has_two_holders, {"tasks", "the machine raises nothing"}),
        (slots_are_left_out, {"slots"}),
        (late_slots_are_run, {"slots"}),
        (slots_come_again, {"slots"}),
    ],
)
def test_a_planted_bug_is_found(
    plant: Plant, laws: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some seed finds it, and calls it by its name."""
    plant(monkeypatch)
    for seed in SEEDS:
        result = run_job(Job(seed, "mixed", None, 15.0, workload="tasks"))
        if result.invariant is not None:
            assert result.invariant in laws, result.detail
            return
    pytest.fail(f"no seed of {SEEDS} finds it")
