"""Sessions: not too early, not too late, and with all they have."""

from __future__ import annotations

from jepsen.checkers.sessions import Sessions

from tests.jepsen.story import Story

SESSIONS = Sessions(late_ms=500)


def story_of(ttl_ms: int = 1_000) -> Story:
    """One session."""
    story = Story()
    story.session("a", ttl_ms)
    return story


def gone(story: Story) -> None:
    """Somebody hears that it has ended."""
    story.was_refused("session.read", "a", "session_expired")


def test_an_end_after_the_ttl_is_right() -> None:
    """Counted from when the last renewal was sent."""
    story = story_of()
    story.wait(500)
    story.did("session.keepalive", "a", expires_in_ms=1_000)
    story.wait(1_000)
    gone(story)
    assert SESSIONS.check(story.lines).passed


def test_an_end_before_the_ttl_is_found() -> None:
    """With the renewal that promised more."""
    story = story_of()
    story.wait(500)
    story.did("session.keepalive", "a", expires_in_ms=1_000)
    story.wait(600)
    gone(story)
    verdict = SESSIONS.check(story.lines)
    assert verdict.valid is False
    assert "before its TTL" in verdict.summary
    assert [line.f for line in verdict.counterexample] == ["session.keepalive"] * 2 + [
        "session.read"
    ] * 2


def test_an_early_event_is_as_good_as_an_answer() -> None:
    """Watchers hear of ends too."""
    story = story_of()
    story.fact("watch.event", "w", index=7, seq=0, what="expired", kind="session", name="a")
    assert SESSIONS.check(story.lines).valid is False


def test_a_session_that_was_closed_may_end_at_once() -> None:
    """Even if nobody heard the answer to the close."""
    story = story_of()
    story.lose(story.begin("session.close", "a"))
    gone(story)
    assert SESSIONS.check(story.lines).passed


def test_a_renewal_after_the_end_is_found() -> None:
    """The dead stay dead."""
    story = story_of()
    story.wait(1_500)
    gone(story)
    story.did("session.keepalive", "a", expires_in_ms=1_000)
    assert SESSIONS.check(story.lines).valid is False


def test_many_renewed_at_once_count_for_each() -> None:
    """Those who are named alive, and those who are named expired."""
    story = story_of()
    story.session("b", 1_000)
    story.wait(900)
    story.did("session.keepalive_many", "", {"sessions": ["a", "b"]}, alive={"a": 1}, expired=[])
    story.wait(500)
    story.did("session.keepalive_many", "", {"sessions": ["a", "b"]}, alive={"a": 1}, expired=["b"])
    assert SESSIONS.check(story.lines).passed
    story.did("session.keepalive_many", "", {"sessions": ["a"]}, alive={}, expired=["a"])
    assert SESSIONS.check(story.lines).valid is False


def test_a_life_too_long_is_found_in_the_calm_only() -> None:
    """While things are broken time may stand still."""
    for is_healed, valid in ((False, True), (True, False)):
        story = story_of()
        if is_healed:
            story.fact("heal", election_ms=500)
        story.wait(1_600)
        story.did("session.read", "a", session="a", expires_in_ms=0)
        assert SESSIONS.check(story.lines).valid is valid


def test_all_of_the_ttl_may_be_left_at_the_healing() -> None:
    """Then it is judged from there."""
    story = story_of()
    story.wait(5_000)
    story.fact("heal", election_ms=500)
    story.wait(1_200)
    story.did("session.read", "a", session="a", expires_in_ms=0)
    assert SESSIONS.check(story.lines).passed


def test_what_may_have_been_renewed_is_not_late() -> None:
    """A renewal that nobody answered may have come late."""
    story = story_of()
    story.fact("heal", election_ms=500)
    story.lose(story.begin("session.keepalive", "a"))
    story.wait(5_000)
    story.did("session.read", "a", session="a", expires_in_ms=0)
    assert SESSIONS.check(story.lines).passed


def test_a_dead_session_that_still_holds_or_waits_is_found() -> None:
    """Everything goes in the same step."""
    for shown in ({"holders": [{"session": "a", "token": 3}]}, {"waiters": [{"session": "a"}]}):
        story = story_of()
        story.wait(1_500)
        gone(story)
        story.did("lock.read", "x", **shown)
        verdict = SESSIONS.check(story.lines)
        assert verdict.valid is False
        assert len(verdict.counterexample) == 4


def test_what_is_lost_at_another_position_is_found() -> None:
    """The end of a session and its losses are one entry."""
    for index, valid in ((7, True), (8, False)):
        story = story_of()
        story.wait(1_500)
        story.fact("watch.event", "w", index=7, seq=0, what="expired", kind="session", name="a")
        story.fact(
            "watch.event", "w", index=index, seq=1, what="lost", kind="lock", name="x", session="a"
        )
        assert SESSIONS.check(story.lines).valid is valid


def test_work_renews_its_session() -> None:
    """Asking for work is a keepalive too."""
    story = story_of()
    story.wait(900)
    story.did("task.work", "p", {"session": "a"}, tasks=[], share=1)
    story.wait(500)
    gone(story)
    assert SESSIONS.check(story.lines).valid is False
