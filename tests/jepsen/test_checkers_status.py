"""What nodes say of themselves: lies that must be found, and belated words that are none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from jepsen.checkers.status import Status

from tests.jepsen.story import MS, Story

STATUS = Status()


def look(
    story: Story,
    node: str,
    *,
    leader: str | None,
    term: int = 1,
    ready: bool = True,
    readyz: bool | None = None,
    gone_ms: int = 0,
    shut_ms: int = 0,
    late: bool = False,
) -> None:
    """One asks a node how it stands, and is answered at once."""
    asked_ns = int(story.now_ms * MS)
    story.fact(
        "node.view",
        node,
        asked_ns=asked_ns,
        role="leader" if leader == node else "follower",
        leader=leader,
        term=term,
        ready=ready,
        readyz=ready if readyz is None else readyz,
        gone_ms=gone_ms,
        shut_ms=shut_ms,
        late=late,
    )


def read(story: Story, node: str, outcome: str, *, took_ms: int = 0) -> None:
    """One reads there."""
    asked_ns = int(story.now_ms * MS)
    story.wait(took_ms)
    story.fact("node.read", node, asked_ns=asked_ns, outcome=outcome)


def every(story: Story, ms: int, times: int, do: Callable[[int], None]) -> None:
    """Do something again and again; it is told how long that has been going on."""
    began_ms = story.now_ms
    for _ in range(times):
        do(int(story.now_ms - began_ms))
        story.wait(ms)


def elected() -> Story:
    """The first of three leads in term 1, and then the second in term 2."""
    story = Story()
    for node in ("n1", "n2", "n3"):
        look(story, node, leader="n1")
    story.wait(1_000)
    look(story, "n2", leader="n2", term=2)
    return story


def test_a_change_of_leader_that_everybody_notices_is_right() -> None:
    """The old leader goes on for its election timeout; who was stopped says one old word."""
    story = elected()
    look(story, "n1", leader="n1")
    story.wait(500)
    look(story, "n1", leader="n1")
    story.wait(500)
    look(story, "n1", leader=None, ready=False)
    look(story, "n3", leader="n1")
    story.wait(20_000)
    look(story, "n3", leader="n1")
    story.wait(500)
    look(story, "n3", leader="n2", term=2)
    read(story, "n3", "ok")
    verdict = STATUS.check(story.lines)
    assert verdict.passed, verdict
    assert "10 looks at 3 nodes judged" in verdict.summary


def old_leader(*, late: bool = False) -> Story:
    """It goes on leading beside its successor."""
    story = elected()
    every(story, 500, 6, lambda _: look(story, "n1", leader="n1", late=late))
    return story


def old_follower() -> Story:
    """It goes on serving under one who has a successor."""
    story = elected()
    every(story, 500, 8, lambda _: look(story, "n3", leader="n1"))
    return story


def under_the_dead() -> Story:
    """A follower whose leader does not run, and nobody follows."""
    story = Story()
    every(story, 500, 8, lambda gone: look(story, "n2", leader="n1", gone_ms=gone))
    return story


def without_a_way() -> Story:
    """A follower that cannot reach its leader, and hears it."""
    story = Story()
    every(story, 500, 10, lambda shut: look(story, "n2", leader="n1", shut_ms=shut))
    return story


def ready_without_a_leader() -> Story:
    """It serves nobody, whatever it says."""
    story = Story()
    every(story, 500, 4, lambda _: look(story, "n2", leader=None))
    return story


def two_words(*, ready: bool) -> Callable[[], Story]:
    """The two endpoints disagree."""

    def told() -> Story:
        story = Story()
        every(
            story, 400, 5, lambda _: look(story, "n1", leader="n1", ready=ready, readyz=not ready)
        )
        return story

    return told


def ready_and_mute(outcome: str) -> Callable[[], Story]:
    """It calls itself ready, and no read is answered."""

    def told() -> Story:
        story = Story()
        look(story, "n2", leader="n1")
        read(story, "n2", "ok")
        for _ in range(12):
            story.wait(300)
            look(story, "n2", leader="n1")
            read(story, "n2", outcome, took_ms=200)
        return story

    return told


LIES = {
    "two leaders": (old_leader, "n1 leads in term 1 after n2 has led in term 2"),
    "an old follower": (old_follower, "n3 is ready in term 1 after n2 has led"),
    "a dead leader": (under_the_dead, "n2 is ready under n1, which does not run"),
    "no leader": (ready_without_a_leader, "n2 is ready, and knows of no leader"),
    "no way": (without_a_way, "n2 is ready under n1, to which there is no way"),
    "ready, readyz not": (two_words(ready=True), "n1 is ready, and /readyz says the opposite"),
    "readyz, ready not": (two_words(ready=False), "n1 is not ready, and /readyz says"),
    "ready and refuses": (ready_and_mute("no_leader"), "n2 is ready, and has answered no read"),
    "ready and silent": (ready_and_mute("late"), "n2 is ready, and has answered no read"),
}


@pytest.mark.parametrize("name", list(LIES))
def test_a_lie_that_lasts_is_found(name: str) -> None:
    """With few lines that show it."""
    tell, words = LIES[name]
    verdict = STATUS.check(tell().lines)
    assert verdict.valid is False, verdict
    assert words in verdict.summary
    assert 0 < len(verdict.counterexample) <= 3


@pytest.mark.parametrize("name", list(LIES))
def test_the_same_word_is_none_for_less_than_a_second(name: str) -> None:
    """It could still be believed, or the node had only just woken up."""
    tell, _ = LIES[name]
    lines = tell().lines
    found = next(at for at in range(len(lines)) if STATUS.check(lines[:at]).valid is False)
    assert STATUS.check(lines[: found - 1]).valid in {True, None}
    *shown, last = STATUS.check(lines).counterexample
    first = next(line for line in shown if (line.f, line.key) == (last.f, last.key))
    assert (last.time_ns - first.time_ns) / MS >= 1_000


def test_what_is_heard_late_is_not_judged() -> None:
    """Where bytes were held up, an old leader may still be told that it is followed."""
    verdict = STATUS.check(old_leader(late=True).lines)
    assert verdict.passed, verdict
    assert "4 looks at 3 nodes judged, of 10" in verdict.summary


def test_sleep_is_not_lying() -> None:
    """A node that is starved for seconds, twice, and answers from before as it wakes up."""
    story = elected()
    story.wait(2_000)
    for _ in range(2):
        look(story, "n1", leader="n1")
        story.wait(5_000)
    look(story, "n1", leader=None, ready=False)
    assert STATUS.check(story.lines).passed


def test_a_read_now_and_then_is_service_enough() -> None:
    """Slow is not dead; nor is one judged whose leader has stopped for a moment."""
    story = Story()
    for number in range(40):
        look(story, "n2", leader="n1")
        read(story, "n2", "late" if number % 8 else "ok", took_ms=500)
    for number in range(40):
        look(story, "n2", leader="n1", gone_ms=100 if number % 8 == 0 else 0)
        read(story, "n2", "late", took_ms=500)
    verdict = STATUS.check(story.lines)
    assert verdict.passed, verdict


def test_without_looks_nothing_is_decided() -> None:
    """Nobody asked."""
    assert STATUS.check([]).valid is None
