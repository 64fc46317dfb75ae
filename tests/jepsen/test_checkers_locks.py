"""Locks, their tokens, and stores behind them: histories that must pass, and that must not."""

from __future__ import annotations

import pytest
from jepsen.checkers.fenced_store import FencedStore, UnfencedStore
from jepsen.checkers.locks import MutualExclusion, Tokens

from tests.jepsen.story import Story

EXCLUSION, TOKENS = MutualExclusion(), Tokens()


@pytest.fixture
def story() -> Story:
    """Two sessions that live long, and one that does not."""
    story = Story()
    for name in ("a", "b", "c"):
        story.session(name, 1_000 if name == "c" else 60_000)
    return story


def acquire(story: Story, lock: str, session: str, token: int, mode: str = "exclusive") -> None:
    """A grant at once."""
    story.did("lock.acquire", lock, {"session": session, "mode": mode}, token=token, mode=mode)


def release(story: Story, lock: str, session: str, token: int) -> None:
    """It is given back."""
    story.did("lock.release", lock, {"session": session, "token": token}, released=True)


def test_one_after_another_is_right(story: Story) -> None:
    """Also when the second was told before the first heard that its release was taken."""
    acquire(story, "x", "a", 5)
    leaving = story.begin("lock.release", "x", session="a", token=5)
    acquire(story, "x", "b", 6)
    story.ok(leaving, released=True)
    assert EXCLUSION.check(story.lines).passed
    assert TOKENS.check(story.lines).passed


def test_two_holders_at_a_time_are_found(story: Story) -> None:
    """The counter-example has the two grants, and why both were alive."""
    acquire(story, "x", "a", 5)
    acquire(story, "y", "a", 6)
    acquire(story, "x", "b", 7)
    verdict = EXCLUSION.check(story.lines)
    assert verdict.valid is False
    told = [line for line in verdict.counterexample if line.f == "lock.acquire"]
    assert [line.key for line in told] == ["x"] * 4
    assert len(verdict.counterexample) <= 8


def test_who_may_be_dead_holds_nothing_for_sure(story: Story) -> None:
    """After the TTL of its last renewal the lock may be another's; before that it may not."""
    acquire(story, "x", "c", 5)
    story.wait(2_000)
    acquire(story, "x", "a", 6)
    assert EXCLUSION.check(story.lines).passed


def test_a_renewal_makes_sure_for_longer(story: Story) -> None:
    """A session that was renewed later was alive all the time before."""
    acquire(story, "x", "c", 5)
    story.wait(700)
    story.did("session.keepalive", "c", expires_in_ms=1_000)
    story.wait(700)
    acquire(story, "x", "a", 6)
    assert EXCLUSION.check(story.lines).valid is False


def test_a_fast_clock_of_a_node_is_allowed_for(story: Story) -> None:
    """At a rate of 2 a TTL is over in half its time; the verdict says so."""
    story.fact("fast-clock", rate=2.0, phase="begin")
    acquire(story, "x", "c", 5)
    story.wait(600)
    acquire(story, "x", "a", 6)
    verdict = EXCLUSION.check(story.lines)
    assert verdict.passed
    assert any("1 to 2" in note for note in verdict.notes)


def test_sharers_may_be_many_but_not_with_one_alone(story: Story) -> None:
    """Two sharers are right, one more who has it alone is not."""
    acquire(story, "x", "a", 5, "shared")
    acquire(story, "x", "b", 6, "shared")
    assert EXCLUSION.check(story.lines).passed
    story.did(
        "lock.acquire_many",
        "",
        {"session": "c", "locks": [{"name": "x"}]},
        locks=[{"name": "x", "token": 7, "mode": "exclusive"}],
    )
    assert EXCLUSION.check(story.lines).valid is False


def test_attempts_of_one_request_are_one_grant(story: Story) -> None:
    """The second attempt hears the token of the first."""
    story.lose(story.begin("lock.acquire", "x", session="a", request_id="r"))
    acquire_again = story.begin("lock.acquire", "x", session="a", request_id="r")
    story.ok(acquire_again, token=5)
    release(story, "x", "a", 5)
    acquire(story, "x", "b", 6)
    assert EXCLUSION.check(story.lines).passed
    assert TOKENS.check(story.lines).passed


def test_a_token_given_to_two_is_found(story: Story) -> None:
    """Even of different locks: tokens are the cluster's."""
    acquire(story, "x", "a", 5)
    story.did("semaphore.acquire", "s", {"session": "b"}, token=5, units=1)
    verdict = TOKENS.check(story.lines)
    assert verdict.valid is False
    assert len(verdict.counterexample) == 4


def test_a_token_that_falls_is_found(story: Story) -> None:
    """A later grant has a larger one."""
    acquire(story, "x", "a", 9)
    release(story, "x", "a", 9)
    acquire(story, "x", "b", 8)
    assert TOKENS.check(story.lines).valid is False


def test_tokens_rise_over_all_that_is_locked(story: Story) -> None:
    """Also from one lock to another."""
    acquire(story, "x", "a", 9)
    acquire(story, "y", "b", 8)
    assert TOKENS.check(story.lines).valid is False


def test_who_holds_already_is_told_its_old_token(story: Story) -> None:
    """Also when it never heard of it the first time."""
    acquire(story, "x", "a", 5, "shared")
    story.lose(story.begin("lock.acquire", "x", session="b", mode="shared"))
    acquire(story, "x", "c", 7, "shared")
    acquire(story, "x", "a", 5, "shared")
    acquire(story, "x", "b", 6, "shared")
    assert TOKENS.check(story.lines).passed


def test_nothing_to_judge_is_not_passed(story: Story) -> None:
    """A run in which nobody got a lock says nothing of locks."""
    assert EXCLUSION.check(story.lines).valid is None
    assert TOKENS.check(story.lines).valid is None


def write(story: Story, item: str, token: int, read: int, value: int, previous: int) -> None:
    """One update of a store."""
    story.did(
        "store.write", item, {"token": token, "read": read, "value": value}, previous=previous
    )


def test_updates_that_have_read_what_they_overwrite_are_right(story: Story) -> None:
    """And one that was refused is nothing."""
    write(story, "fenced/x", 1, 0, 1, 0)
    story.was_refused("store.write", "fenced/x", "fenced", token=0, read=0, value=7)
    write(story, "fenced/x", 2, 1, 2, 1)
    assert FencedStore().check(story.lines).passed


def test_a_lost_update_is_found_and_the_control_wants_one(story: Story) -> None:
    """Two that have read the same, in a store that checks and in one that does not."""
    for item in ("fenced/x", "unfenced/x"):
        write(story, item, 1, 0, 1, 0)
        write(story, item, 2, 0, 2, 1)
    verdict = FencedStore().check(story.lines)
    assert verdict.valid is False
    assert len(verdict.counterexample) == 4
    assert UnfencedStore().check(story.lines).passed


def test_an_old_token_that_is_accepted_is_found(story: Story) -> None:
    """Even if nothing was lost by it."""
    write(story, "fenced/x", 2, 0, 1, 0)
    write(story, "fenced/x", 1, 1, 2, 1)
    assert FencedStore().check(story.lines).valid is False


def test_a_control_that_loses_nothing_is_not_passed(story: Story) -> None:
    """It could not have shown what the fence is for."""
    write(story, "unfenced/x", 1, 0, 1, 0)
    assert UnfencedStore().check(story.lines).valid is None
