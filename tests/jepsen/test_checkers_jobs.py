"""Jobs and tasks: nothing lost, nothing twice, nobody too early."""

from __future__ import annotations

from typing import Any

import pytest
from jepsen.checkers.jobs import Jobs
from jepsen.checkers.tasks import Tasks

from tests.jepsen.story import Story

JOBS, TASKS = Jobs(), Tasks()


def put(story: Story, job: int, **more: Any) -> None:
    """One more job."""
    story.did("job.put", "t", {"body": f"b{job}", **more}, job=job, state="ready")


def reserve(story: Story, job: int, token: int, body: str | None = None, **more: Any) -> None:
    """Somebody has it."""
    given = {"job": job, "body": body or f"b{job}", "token": token, "ttr_ms": 10_000}
    story.did("job.reserve", "t", more, jobs=[given])


def act(story: Story, verb: str, job: int, token: int = 0, **answer: Any) -> None:
    """Something is done to it."""
    story.did(f"job.{verb}", "t", {"job": job, "token": token}, **answer)


def listed(story: Story, *jobs: int) -> None:
    """All that is left."""
    left = [{"job": job, "body": f"b{job}", "state": "ready"} for job in jobs]
    story.did("job.list", "t", jobs=left)


def test_lives_of_jobs_that_are_right() -> None:
    """Done, dropped and done by another, cancelled, left over, lost on the way there."""
    story = Story()
    for job in range(1, 5):
        put(story, job)
    story.lose(story.begin("job.put", "t", body="b5"))
    reserve(story, 1, 10)
    act(story, "touch", 1, 10)
    act(story, "delete", 1, 10)
    reserve(story, 2, 11)
    act(story, "release", 2, 11)
    reserve(story, 2, 12)
    story.was_refused("job.delete", "t", "stale_token", job=2, token=11)
    act(story, "delete", 2, 12)
    act(story, "cancel", 3, cancelled=True)
    act(story, "cancel", 3, cancelled=False)
    reserve(story, 5, 13)
    story.lose(story.begin("job.delete", "t", job=5, token=13))
    story.was_refused("job.read", "t", "job_not_found", job=1)
    listed(story, 4)
    verdict = JOBS.check(story.lines)
    assert verdict.passed, verdict
    assert "4 acknowledged puts" in verdict.summary


def test_a_reservation_that_may_be_over_is_nobody_s() -> None:
    """After the TTR another may have the job; a touch makes it longer."""
    for touches, valid in ((False, True), (True, False)):
        story = Story()
        put(story, 1)
        reserve(story, 1, 10)
        story.wait(9_000)
        if touches:
            act(story, "touch", 1, 10)
        story.wait(3_000)
        reserve(story, 1, 11)
        assert JOBS.check(story.lines).valid is valid


def bad_jobs() -> dict[str, Story]:
    """Every way for jobs to be wrong."""
    stories: dict[str, Story] = {}

    def new(name: str, **more: Any) -> Story:
        story = stories[name] = Story()
        put(story, 1, **more)
        return story

    listed(new("lost"))
    story = new("given to two at a time")
    reserve(story, 1, 10)
    reserve(story, 1, 11)
    story = new("too early", delay_ms=1_000)
    reserve(story, 1, 10)
    story = new("too early after a release")
    reserve(story, 1, 10)
    story.did("job.release", "t", {"job": 1, "token": 10, "delay_ms": 1_000})
    reserve(story, 1, 11)
    story = new("given out after its end")
    reserve(story, 1, 10)
    act(story, "delete", 1, 10)
    reserve(story, 1, 11)
    story = new("given out after it was cancelled")
    act(story, "cancel", 1, cancelled=True)
    reserve(story, 1, 11)
    story = new("ended twice")
    reserve(story, 1, 10)
    act(story, "delete", 1, 10)
    act(story, "cancel", 1, cancelled=True)
    story = new("a late token does something")
    reserve(story, 1, 10)
    act(story, "release", 1, 10)
    reserve(story, 1, 11)
    act(story, "delete", 1, 10)
    story = new("cancelled while somebody has it")
    reserve(story, 1, 10)
    act(story, "cancel", 1, cancelled=True)
    story = new("there after its end")
    act(story, "cancel", 1, cancelled=True)
    act(story, "read", 1, body="b1", state="ready")
    story = new("two jobs of one put")
    reserve(story, 2, 10, "b1")
    story = new("a body that nobody put")
    reserve(story, 2, 10, "b2")
    return stories


@pytest.mark.parametrize("name", list(bad_jobs()))
def test_jobs_that_are_wrong_are_found(name: str) -> None:
    """With few lines that show it."""
    verdict = JOBS.check(bad_jobs()[name].lines)
    assert verdict.valid is False, verdict
    assert 0 < len(verdict.counterexample) <= 6


def test_a_kick_brings_a_job_before_its_delay() -> None:
    """Of the job or of the tube."""
    for kick in ({"job": 1}, None):
        story = Story()
        put(story, 1, delay_ms=1_000)
        story.did("job.kick" if kick else "job.kick_tube", "t", kick or {}, kicked=1)
        reserve(story, 1, 10)
        assert JOBS.check(story.lines).passed


# Tasks.

EVERY = {"every_ms": 1_000, "overlap": "skip"}


def pool() -> Story:
    """Two who work, and a plain and a scheduled task."""
    story = Story()
    for name in ("a", "b"):
        story.session(name, 60_000)
    tasks = [{"id": "x"}, {"id": "y"}, {"id": "tick", "schedule": EVERY}]
    story.did("task.put", "p", {"tasks": tasks})
    return story


def work(
    story: Story, session: str, *tasks: tuple[str, int], share: int = 3, slot_ms: int | None = None
) -> None:
    """Somebody asks for work."""
    given = [{"id": id, "token": token, "slot_ms": slot_ms} for id, token in tasks]
    story.did("task.work", "p", {"session": session}, share=share, tasks=given, given_back=[])


def finish(story: Story, session: str, id: str, token: int) -> None:
    """It is done."""
    tasks = [{"id": id, "token": token}]
    story.did("task.finish", "p", {"session": session, "tasks": tasks}, finished=[id], refused=[])


def read(story: Story, held: tuple[int, ...], shares: tuple[int, ...], runs: int) -> None:
    """A picture of the pool."""
    sessions = [
        {"session": name, "held": one, "share": share}
        for name, one, share in zip("ab", held, shares, strict=True)
    ]
    story.did(
        "task.read",
        "p",
        sessions=sessions,
        share=shares[0],
        run_count=runs,
        free_count=runs - sum(held),
        task_count=1,
        tasks=[{"id": "tick", "fired": 3}],
    )


def test_work_that_goes_round_is_right() -> None:
    """Held, told again, given back, held by another, done; a slot that ran."""
    story = pool()
    work(story, "a", ("x", 5), ("y", 6))
    work(story, "a", ("x", 5))
    work(story, "b", ("y", 7))
    finish(story, "a", "x", 5)
    finish(story, "b", "y", 7)
    work(story, "b", ("tick", 8), slot_ms=4_000)
    read(story, (0, 1), (1, 1), 1)
    verdict = TASKS.check(story.lines)
    assert verdict.passed, verdict


def bad_tasks() -> dict[str, Story]:
    """Every way for tasks to be wrong."""
    stories: dict[str, Story] = {}

    def new(name: str) -> Story:
        story = stories[name] = pool()
        return story

    story = new("two workers")
    work(story, "a", ("x", 5))
    work(story, "b", ("x", 6))
    story = new("two slots at a time")
    work(story, "a", ("tick", 5), slot_ms=1_000)
    work(story, "b", ("tick", 6), slot_ms=2_000)
    story = new("done twice")
    work(story, "a", ("x", 5))
    finish(story, "a", "x", 5)
    finish(story, "a", "x", 5)
    story = new("held after it was done")
    work(story, "a", ("x", 5))
    finish(story, "a", "x", 5)
    work(story, "a", ("x", 5))
    work(new("nobody put it"), "a", ("z", 5))
    work(new("no slot"), "a", ("tick", 5), slot_ms=1_500)
    work(new("more than a share"), "a", ("x", 5), ("y", 6), share=1)
    read(new("shares differ"), (0, 0), (1, 3), 4)
    read(new("a share too large"), (0, 0), (2, 2), 2)
    story = new("a read that does not add up")
    story.did(
        "task.read",
        "p",
        sessions=[{"session": "a", "held": 1, "share": 2}],
        run_count=2,
        free_count=2,
    )
    story = new("slots counted down")
    work(story, "a", ("x", 5))
    read(story, (0, 0), (1, 1), 2)
    story.did("task.read", "p", sessions=[], tasks=[{"id": "tick", "fired": 2}])
    return stories


@pytest.mark.parametrize("name", list(bad_tasks()))
def test_tasks_that_are_wrong_are_found(name: str) -> None:
    """With few lines that show it."""
    verdict = TASKS.check(bad_tasks()[name].lines)
    assert verdict.valid is False, verdict
    assert 0 < len(verdict.counterexample) <= 4


def test_slots_that_may_overlap_may_have_two_workers() -> None:
    """Where the schedule allows it."""
    story = pool()
    schedule = {"every_ms": 1_000, "overlap": "allow"}
    story.did("task.put", "p", {"tasks": [{"id": "tick", "schedule": schedule}]})
    work(story, "a", ("tick", 5), slot_ms=1_000)
    work(story, "b", ("tick", 6), slot_ms=2_000)
    assert TASKS.check(story.lines).passed


def clock(story: Story, fired: int, missed: int, next_ms: int | None, **more: Any) -> None:
    """A look at the scheduled task."""
    task = {"id": "tick", "fired": fired, "skipped": 0, "missed": missed, "schedule": EVERY}
    story.did("task.read", "p", sessions=[], tasks=[{**task, "next_slot_ms": next_ms, **more}])


def test_every_slot_is_counted_once() -> None:
    """Fired, missed or buffered; while the next is not known nothing is said."""
    story = pool()
    work(story, "a", ("x", 5))
    clock(story, 3, 0, 5_000)
    clock(story, 4, 0, None)
    clock(story, 5, 0, 7_000)
    clock(story, 5, 2, 10_000, buffered_slot_ms=9_000)
    verdict = TASKS.check(story.lines)
    assert verdict.passed, verdict
    assert "5 slots counted" in verdict.summary


@pytest.mark.parametrize("fired", [3, 5], ids=["left out", "twice"])
def test_a_slot_left_out_or_run_twice_is_found(fired: int) -> None:
    """Between two looks."""
    story = pool()
    work(story, "a", ("x", 5))
    clock(story, 3, 0, 5_000)
    clock(story, fired, 0, 6_000)
    verdict = TASKS.check(story.lines)
    assert verdict.valid is False
    assert len(verdict.counterexample) == 4


def test_a_schedule_that_was_touched_is_not_counted() -> None:
    """A pause leaves slots out, and is meant to."""
    story = pool()
    work(story, "a", ("x", 5))
    clock(story, 3, 0, 5_000)
    story.did("task.pause", "p", {"id": "tick"}, paused=True)
    clock(story, 3, 0, 9_000)
    assert TASKS.check(story.lines).passed
