"""What the whole cluster owes: repeats, streams, replicas, durability, progress, hygiene."""

from __future__ import annotations

from typing import Any

import pytest
from jepsen.checkers.durability import Durability
from jepsen.checkers.exactly_once import ExactlyOnce
from jepsen.checkers.hygiene import Hygiene
from jepsen.checkers.progress import Progress
from jepsen.checkers.replicas import Replicas
from jepsen.checkers.streams import Streams

from tests.jepsen.story import Story

ONCE, STREAMS, REPLICAS = ExactlyOnce(), Streams(), Replicas()
DURABILITY, PROGRESS, HYGIENE = Durability(), Progress(), Hygiene()


def test_a_repeated_request_gets_the_first_answer() -> None:
    """Whatever a node said in between, and whatever was lost."""
    story = Story()
    asked = {"body": "b", "request_id": "r"}
    story.lose(story.begin("job.put", "t", **asked))
    story.was_refused("job.put", "t", "no_leader", **asked)
    story.did("job.put", "t", asked, job=1, index=7)
    story.did("job.put", "t", asked, job=1, index=9, attempts=2)
    verdict = ONCE.check(story.lines)
    assert verdict.passed
    assert "1 answers compared" in verdict.summary


def bad_repeats() -> dict[str, Story]:
    """Every way for repeats to be wrong."""
    asked = {"session": "a", "request_id": "r"}
    other, refused, late, reused = Story(), Story(), Story(), Story()
    other.did("lock.acquire", "x", asked, token=5)
    other.did("lock.acquire", "x", asked, token=6)
    refused.did("lock.acquire", "x", asked, token=5)
    refused.was_refused("lock.acquire", "x", "lock_held", **asked)
    late.was_refused("lock.acquire", "x", "lock_held", **asked)
    late.did("lock.acquire", "x", asked, token=5)
    reused.did("lock.acquire", "x", asked, token=5)
    reused.was_refused("lock.acquire", "x", "idempotency_key_reused", **asked)
    return {"two answers": other, "refused later": refused, "granted later": late, "reused": reused}


@pytest.mark.parametrize("name", list(bad_repeats()))
def test_repeats_that_are_wrong_are_found(name: str) -> None:
    """With both attempts."""
    verdict = ONCE.check(bad_repeats()[name].lines)
    assert verdict.valid is False
    assert len(verdict.counterexample) == 4


def test_without_repeats_nothing_is_decided() -> None:
    """A run that repeated nothing shows nothing."""
    story = Story()
    story.did("lock.acquire", "x", {"session": "a", "request_id": "r"}, token=5)
    assert ONCE.check(story.lines).valid is None


# Streams.


def opened(story: Story, stream: str, after: int, *, asked: int | None = None) -> None:
    """It begins, or comes back."""
    story.fact("watch.ask", stream, prefix=["/locks/"], after=asked, node="n1")
    story.fact("watch.open", stream, after=after, applied=after)


def heard(story: Story, stream: str, index: int, seq: int = 0, **more: Any) -> None:
    """It is told of something."""
    event = {"what": "granted", "path": "/locks/x", "kind": "lock", "name": "x", "token": index}
    story.fact("watch.event", stream, index=index, seq=seq, **{**event, **more})


def test_streams_through_cuts_are_right() -> None:
    """One that was cut within an entry hears all of it again."""
    story = Story()
    opened(story, "one", 3)
    opened(story, "two", 3)
    for index, seq in ((5, 0), (5, 1), (8, 0)):
        heard(story, "one", index, seq)
    story.fact("watch.bookmark", "one", index=9)
    heard(story, "two", 5)
    story.fact("watch.end", "two", why="cut")
    opened(story, "two", 3, asked=3)
    for index, seq in ((5, 0), (5, 1), (8, 0)):
        heard(story, "two", index, seq)
    story.fact("watch.end", "two", why="bye")
    opened(story, "two", 8, asked=8)
    heard(story, "two", 12)
    story.fact("watch.resync", "two", lost_after=12, **{"from": 20})
    heard(story, "two", 22)
    verdict = STREAMS.check(story.lines)
    assert verdict.passed, verdict


def bad_streams() -> dict[str, Story]:
    """Every way for streams to be wrong."""
    stories: dict[str, Story] = {}

    def new(name: str) -> Story:
        story = stories[name] = Story()
        opened(story, "one", 3)
        opened(story, "two", 3)
        heard(story, "one", 5)
        heard(story, "one", 7)
        heard(story, "one", 9)
        return story

    heard(new("back"), "one", 7)
    heard(new("twice"), "one", 9)
    story = new("another content")
    heard(story, "two", 5, token=6)
    story = new("a gap")
    heard(story, "two", 7)
    heard(story, "two", 9)
    story = new("a gap up to a bookmark")
    story.fact("watch.bookmark", "two", index=5)
    story = new("a gap at a resume")
    opened(story, "one", 11, asked=9)
    story = new("before what it knows")
    opened(story, "two", 7, asked=7)
    heard(story, "two", 6)
    story = new("a bookmark that goes back")
    story.fact("watch.bookmark", "one", index=4)
    heard(new("not asked for"), "one", 10, path="/tubes/x")
    story = new("a grant that was acknowledged")
    story.did("lock.acquire", "y", {"session": "a"}, token=11, index=12)
    heard(story, "one", 14)
    return stories


@pytest.mark.parametrize("name", list(bad_streams()))
def test_streams_that_are_wrong_are_found(name: str) -> None:
    """With few lines that show it."""
    verdict = STREAMS.check(bad_streams()[name].lines)
    assert verdict.valid is False, verdict
    assert 0 < len(verdict.counterexample) <= 3


# Replicas, hygiene.


def test_states_are_compared_at_equal_positions() -> None:
    """Different positions may differ; one position may not; at the end there is one."""
    story = Story()
    story.fact("node.digest", "n1", index=5, digest="aa")
    assert REPLICAS.check(story.lines).valid is None
    story.fact("node.digest", "n2", index=5, digest="aa")
    story.fact("node.digest", "n2", index=6, digest="bb", final=True)
    assert REPLICAS.check(story.lines).passed
    story.fact("node.digest", "n1", index=7, digest="cc", final=True)
    assert REPLICAS.check(story.lines).valid is False


def test_one_position_with_two_states_is_found() -> None:
    """With the two lines."""
    story = Story()
    story.fact("node.digest", "n1", index=5, digest="aa")
    story.fact("node.digest", "n2", index=5, digest="ab")
    verdict = REPLICAS.check(story.lines)
    assert verdict.valid is False
    assert [line.key for line in verdict.counterexample] == ["n1", "n2"]


def test_any_crash_or_traceback_is_found_and_nobody_looking_is_no_pass() -> None:
    """Facts speak for themselves."""
    story = Story()
    assert HYGIENE.check(story.lines).valid is None
    story.fact("node.watched", nodes=["n1", "n2"])
    assert HYGIENE.check(story.lines).passed
    for fact in ("node.crash", "node.traceback", "node.leak"):
        bad = Story()
        bad.fact("node.watched", nodes=["n1"])
        bad.fact(fact, "n1", exit=1)
        assert HYGIENE.check(bad.lines).valid is False


# Durability.


def durable() -> Story:
    """Things that nobody has undone."""
    story = Story()
    for name in ("a", "b"):
        story.session(name, 60_000)
    story.did("lock.acquire", "x", {"session": "a"}, token=5)
    story.did("semaphore.acquire", "s", {"session": "a"}, token=6, units=1)
    story.did("ticket.issue", "r", {"session": "a", "ticket": "t", "data": "d"}, token=7)
    story.did("ticket.claim", "r", {"session": "b"}, ticket="t", token=8, issuer="a", data="d")
    story.did("job.put", "q", {"body": "b"}, job=1)
    story.did("task.put", "p", {"tasks": [{"id": "k"}]})
    return story


def test_reads_that_show_what_is_there_are_right() -> None:
    """Of everything that can be held."""
    story = durable()
    story.did("lock.read", "x", holders=[{"session": "a", "token": 5}])
    story.did("semaphore.read", "s", holders=[{"session": "a", "token": 6, "units": 1}])
    listed = {"ticket": "t", "issuer": "a", "claimant": "b", "claim_token": 8}
    story.did("ticket.read", "r", tickets=[listed], ticket_count=1)
    story.did("session.read", "a", session="a")
    story.did("job.read", "q", {"job": 1}, job=1, state="ready", body="b")
    story.did("task.read", "p", tasks=[{"id": "k"}], task_count=1)
    verdict = DURABILITY.check(story.lines)
    assert verdict.passed, verdict
    assert "7 effects" in verdict.summary


@pytest.mark.parametrize(
    ("f", "key", "answer"),
    [
        ("lock.read", "x", {"holders": []}),
        ("semaphore.read", "s", {"holders": [{"session": "a", "token": 9}]}),
        ("ticket.read", "r", {"tickets": [], "ticket_count": 0}),
        (
            "ticket.read",
            "r",
            {"tickets": [{"ticket": "t", "issuer": "a", "claimant": None}], "ticket_count": 1},
        ),
        ("session.read", "a", None),
        ("job.read", "q", None),
        ("job.read", "q", {"job": 1, "body": "other"}),
        ("task.read", "p", {"tasks": [], "task_count": 0}),
    ],
)
def test_a_read_that_misses_something_is_found(
    f: str, key: str, answer: dict[str, Any] | None
) -> None:
    """With what was acknowledged, and the read."""
    story = durable()
    asked = {"job": 1} if f == "job.read" else {}
    if answer is None:
        story.was_refused(f, key, "not_found", **asked)
    else:
        story.did(f, key, asked, **answer)
    verdict = DURABILITY.check(story.lines)
    assert verdict.valid is False
    assert len(verdict.counterexample) == 4


def test_what_may_have_been_undone_need_not_be_shown() -> None:
    """By an answer that never came, or by an end."""
    story = durable()
    story.lose(story.begin("lock.release", "x", session="a", token=5))
    story.lose(story.begin("session.close", "a"))
    story.did("lock.read", "x", holders=[])
    story.did("semaphore.read", "s", holders=[])
    story.did("ticket.read", "r", tickets=[], ticket_count=0)
    assert DURABILITY.check(story.lines).passed


# Progress.


def test_what_answers_after_healing_is_right() -> None:
    """Within the allowance; a refusal by the machine is an answer."""
    story = Story()
    story.fact("heal", election_ms=100)
    asked = story.begin("lock.acquire", "x", session="a")
    story.wait(1_000)
    story.refuse(asked, "no_leader")
    story.wait(60_000)
    story.was_refused("lock.acquire", "x", "lock_held", session="a")
    verdict = PROGRESS.check(story.lines)
    assert verdict.passed, verdict
    assert "1 key answered within 100" in verdict.summary


def bad_progress() -> dict[str, Story]:
    """Every way not to recover."""
    stories: dict[str, Story] = {}

    def new(name: str) -> Story:
        story = stories[name] = Story()
        story.fact("heal", election_ms=100)
        return story

    for name in ("no answer", "late"):
        story = new(name)
        for _ in range(3):
            asked = story.begin("lock.acquire", "x", session="a")
            story.wait(2_000)
            story.refuse(asked, "no_leader")
    story.did("lock.acquire", "x", {"session": "a"}, token=5)
    new("for ever").begin("lock.acquire", "x", session="a")
    story = new("very long")
    long = story.begin("lock.acquire", "x", session="a", wait_ms=1_000)
    story.wait(70_000)
    story.refuse(long, "lock_held")
    story = new("free, and somebody waits")
    story.did("lock.read", "x", holders=[], waiters=[{"session": "a"}])
    story = new("units free, and somebody waits")
    story.did("semaphore.read", "s", free=1, holders=[], waiters=[{"session": "a", "units": 1}])
    return stories


@pytest.mark.parametrize("name", list(bad_progress()))
def test_what_does_not_recover_is_found(name: str) -> None:
    """With few lines that show it."""
    verdict = PROGRESS.check(bad_progress()[name].lines)
    assert verdict.valid is False, verdict
    assert 0 < len(verdict.counterexample) <= 5


def test_a_run_that_was_never_healed_shows_no_recovery() -> None:
    """It is undecided."""
    story = Story()
    story.did("lock.acquire", "x", {"session": "a"}, token=5)
    assert PROGRESS.check(story.lines).valid is None
