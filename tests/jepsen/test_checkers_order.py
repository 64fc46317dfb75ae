"""Turns and queues: who came first is served first."""

from __future__ import annotations

from jepsen.checkers.order import Turns, Waiters

from tests.jepsen.story import Asked, Story

TURNS, WAITERS = Turns(), Waiters()


def fifo(done_ms: int = 60_000) -> Story:
    """A fifo that leaves turns alone for a time."""
    story = Story()
    story.did("fifo.make", "f", {"accept_timeout_ms": 1_000, "done_timeout_ms": done_ms})
    return story


def join(story: Story, ticket: str, position: int) -> None:
    """One more in line."""
    story.did("fifo.join", "f", ticket=ticket, position=position, state="waiting")


def turn(story: Story, ticket: str, token: int, *, is_done: bool = True) -> None:
    """Its turn comes, and goes."""
    story.did("fifo.wait", "f", {"ticket": ticket, "wait_ms": 100}, state="accepted", token=token)
    if is_done:
        story.did("fifo.done", "f", {"ticket": ticket, "token": token}, done=True)


def test_turns_in_order_are_right() -> None:
    """Also when one walks away, and when two hear of one turn."""
    story = fifo()
    for number, ticket in enumerate("abc", 1):
        join(story, ticket, number)
    story.did("fifo.leave", "f", {"ticket": "b"})
    turn(story, "a", 5, is_done=False)
    turn(story, "a", 5)
    turn(story, "c", 6)
    assert TURNS.check(story.lines).passed


def test_who_overtakes_is_found() -> None:
    """The counter-example has both arrivals and both turns."""
    story = fifo()
    join(story, "a", 1)
    join(story, "b", 2)
    turn(story, "b", 5)
    turn(story, "a", 6)
    verdict = TURNS.check(story.lines)
    assert verdict.valid is False
    assert {line.f for line in verdict.counterexample} == {"fifo.join", "fifo.wait"}
    assert len(verdict.counterexample) == 8


def test_two_turns_at_a_time_are_found() -> None:
    """Unless the first may be over by its time."""
    for done_ms, valid in ((60_000, False), (1, True)):
        story = fifo(done_ms)
        join(story, "a", 1)
        join(story, "b", 2)
        turn(story, "a", 5, is_done=False)
        turn(story, "b", 6)
        assert TURNS.check(story.lines).valid is valid


def test_a_position_that_grows_is_found() -> None:
    """In a refusal, a read, or the first answer."""
    story = fifo()
    join(story, "a", 1)
    join(story, "b", 2)
    turn(story, "a", 5)
    waiting = story.begin("fifo.wait", "f", ticket="b", wait_ms=0)
    story.refuse(waiting, "not_your_turn", position=3)
    verdict = TURNS.check(story.lines)
    assert verdict.valid is False
    assert len(verdict.counterexample) == 4


class Queue(Story):
    """Somebody is seen waiting before another asks."""

    first: Asked
    later: Asked


def queue(room: str) -> Queue:
    """That story, so far."""
    story = Queue()
    story.did(f"{room}.acquire", "x", {"session": "h"}, token=4)
    story.first = story.begin(f"{room}.acquire", "x", session="a", wait_ms=1_000)
    story.did(
        f"{room}.read", "x", holders=[{"session": "h", "token": 4}], waiters=[{"session": "a"}]
    )
    story.later = story.begin(f"{room}.acquire", "x", session="b", wait_ms=1_000)
    return story


def test_who_was_seen_waiting_is_served_first() -> None:
    """Of locks and of semaphores; the other way round is found."""
    for room in ("lock", "semaphore"):
        for first, later, valid in ((5, 6, True), (6, 5, False)):
            story = queue(room)
            story.ok(story.first, token=first)
            story.ok(story.later, token=later)
            verdict = WAITERS.check(story.lines)
            assert verdict.valid is valid
            assert "behind them" in verdict.summary


def test_a_better_priority_may_overtake() -> None:
    """Smaller goes first."""
    story = queue("lock")
    urgent = story.begin("lock.acquire", "x", session="c", wait_ms=1_000, priority=-1)
    story.ok(urgent, token=5)
    story.ok(story.first, token=6)
    story.ok(story.later, token=7)
    assert WAITERS.check(story.lines).passed


def test_who_had_to_ask_again_may_have_lost_its_place() -> None:
    """A repeated request is not judged."""
    story = queue("lock")
    story.ok(story.first, token=6, attempts=2)
    story.ok(story.later, token=5)
    assert WAITERS.check(story.lines).passed
