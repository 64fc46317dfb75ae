"""How histories become calls, and calls the operations of a model."""

from __future__ import annotations

import pytest
from jepsen.checkers.linear import LinearJobs, LinearLocks, LinearSemaphores
from jepsen.checkers.reading import FOR_EVER_NS, Rates, calls

from tests.jepsen.story import Story

LOCKS, SEMAPHORES, JOBS = LinearLocks(), LinearSemaphores(), LinearJobs()


@pytest.fixture
def story() -> Story:
    """One that lives long, and one that does not."""
    story = Story()
    story.session("a", 60_000)
    story.session("c", 1_000)
    return story


def acquire(story: Story, session: str, token: int, mode: str = "exclusive") -> None:
    """A grant of one lock."""
    story.did("lock.acquire", "x", {"session": session, "mode": mode}, token=token, mode=mode)


def test_attempts_of_one_request_are_one_call() -> None:
    """From its first beginning to its first answer by the cluster."""
    story = Story()
    story.lose(story.begin("job.put", "t", request_id="r"))
    story.was_refused("job.put", "t", "no_leader", request_id="r")
    story.did("job.put", "t", {"request_id": "r"}, job=1)
    story.did("job.put", "t", {"request_id": "r"}, job=1)
    (call,) = calls(story.lines)
    assert (call.is_ok, call.start, call.end) == (True, 0, 5)
    assert call.is_repeated


def test_a_request_without_an_answer_by_the_cluster_is_open_if_any_attempt_is() -> None:
    """What a node refuses says nothing of the attempt before."""
    story = Story()
    story.was_refused("job.put", "t", "no_leader", request_id="r")
    (call,) = calls(story.lines)
    assert not call.is_open
    assert not call.code
    story.lose(story.begin("job.put", "t", request_id="r"))
    (call,) = calls(story.lines)
    assert call.is_open
    assert call.end_ns == FOR_EVER_NS


def test_a_refusal_may_be_recorded_as_an_answer() -> None:
    """With its code among the members of an ok."""
    story = Story()
    story.did("lock.acquire", "x", {"session": "a"}, code="lock_held", holder_token=5)
    (call,) = calls(story.lines)
    assert not call.is_ok
    assert call.code == "lock_held"


def test_only_clocks_have_rates() -> None:
    """A bandwidth has one too, and it is another."""
    story = Story()
    story.fact("bandwidth", rate=40)
    assert Rates.of(story.lines) == Rates()
    story.fact("slow-clock", rate=0.8, phase="begin")
    assert Rates.of(story.lines) == Rates(1.0, 0.8)


def test_a_session_may_end_once_its_ttl_may_be_over() -> None:
    """Then its lock may be another's; before that it may not."""
    for wait_ms, valid in ((0, False), (1_500, True)):
        told = Story()
        told.session("a", 60_000)
        told.session("c", 1_000)
        acquire(told, "c", 5)
        told.wait(wait_ms)
        acquire(told, "a", 6)
        assert LOCKS.check(told.lines).valid is valid


def test_a_closed_session_gives_up_everything(story: Story) -> None:
    """Within its close, and not without it."""
    acquire(story, "a", 5)
    closing = story.begin("session.close", "a")
    acquire(story, "c", 6)
    story.ok(closing)
    assert LOCKS.check(story.lines).passed
    story.did("lock.read", "x", holders=[{"session": "a", "token": 5, "mode": "exclusive"}])
    assert LOCKS.check(story.lines).valid is False


def test_several_locks_are_each_one_lock(story: Story) -> None:
    """What was granted together is out in each."""
    locks = [{"name": "x", "mode": "exclusive"}, {"name": "y", "mode": "shared"}]
    given = [{**lock, "token": token} for token, lock in enumerate(locks, 5)]
    story.did("lock.acquire_many", "", {"session": "a", "locks": locks}, locks=given)
    story.did("lock.check", "y", {"token": 6}, valid=True, current_token=6)
    assert LOCKS.check(story.lines).passed
    acquire(story, "c", 7)
    verdict = LOCKS.check(story.lines)
    assert verdict.valid is False
    assert '"x"' in verdict.summary


def test_a_refusal_names_a_holder(story: Story) -> None:
    """One that has the lock at that time."""
    acquire(story, "a", 5)
    asked = story.begin("lock.acquire", "x", session="c")
    story.refuse(asked, "lock_held", holder_token=5)
    assert LOCKS.check(story.lines).passed
    story.did("lock.release", "x", {"session": "a", "token": 5})
    asked = story.begin("lock.acquire", "x", session="c")
    story.refuse(asked, "lock_held", holder_token=5)
    assert LOCKS.check(story.lines).valid is False


def test_a_stale_token_is_refused_only_when_it_is_stale(story: Story) -> None:
    """Who holds under it may give it back."""
    acquire(story, "a", 5)
    story.was_refused("lock.release", "x", "stale_token", session="a", token=4)
    assert LOCKS.check(story.lines).passed
    story.was_refused("lock.release", "x", "stale_token", session="a", token=5)
    assert LOCKS.check(story.lines).valid is False


def test_a_sharer_may_come_to_have_it_alone(story: Story) -> None:
    """Under a new token, when nobody else is there."""
    acquire(story, "a", 5, "shared")
    acquire(story, "a", 6)
    story.did("lock.check", "x", {"token": 5}, valid=False, current_token=6)
    assert LOCKS.check(story.lines).passed


def test_reads_of_what_a_node_happens_to_know_are_not_judged(story: Story) -> None:
    """They asked for it."""
    acquire(story, "a", 5)
    story.did("lock.read", "x", {"consistency": "stale"}, holders=[])
    assert LOCKS.check(story.lines).passed


def test_units_that_are_not_there_are_found(story: Story) -> None:
    """And a refusal that says what is free must be right."""
    story.did("semaphore.set", "s", {"limit": 2}, limit=2)
    story.did("semaphore.acquire", "s", {"session": "a", "units": 2}, token=5, units=2)
    asked = story.begin("semaphore.acquire", "s", session="c", units=1)
    story.refuse(asked, "semaphore_full", free=0)
    assert SEMAPHORES.check(story.lines).passed
    asked = story.begin("semaphore.acquire", "s", session="c", units=1)
    story.refuse(asked, "semaphore_full", free=1)
    assert SEMAPHORES.check(story.lines).valid is False


def test_a_job_whose_put_was_lost_may_live(story: Story) -> None:
    """Its body says which it was; and once it is deleted it is gone."""
    story.lose(story.begin("job.put", "t", body="b"))
    story.did("job.reserve", "t", {}, jobs=[{"job": 1, "body": "b", "token": 5}])
    story.did("job.touch", "t", {"job": 1, "token": 5})
    story.did("job.delete", "t", {"job": 1, "token": 5})
    story.was_refused("job.read", "t", "job_not_found", job=1)
    assert JOBS.check(story.lines).passed
    story.did("job.reserve", "t", {}, jobs=[{"job": 1, "body": "b", "token": 6}])
    verdict = JOBS.check(story.lines)
    assert verdict.valid is False
    assert len(verdict.counterexample) <= 8
