"""Locks: one holder or sharers, fair order, tokens, and refusals that explain themselves."""

from __future__ import annotations

import pytest

from cluster.machine import limits
from cluster.machine.commands import Abandon, AcquireLock, ReleaseLock
from cluster.machine.outcome import (
    Abandoned,
    Granted,
    LockHeld,
    LockInfo,
    NotHolder,
    Queued,
    QueueFull,
    Released,
    SessionExpired,
    SessionNotFound,
    StaleToken,
    Withdrawn,
)
from tests.machine.drive import Drive


def exclusive(session: str, wait_ms: int = 0, priority: int = 0) -> AcquireLock:
    """Ask for the door alone."""
    return AcquireLock(session, "door", priority=priority, wait_ms=wait_ms)


def shared(session: str, wait_ms: int = 0, priority: int = 0) -> AcquireLock:
    """Ask for the door with others."""
    return AcquireLock(session, "door", shared=True, priority=priority, wait_ms=wait_ms)


class TestAcquire:
    def test_grants_a_free_lock(self) -> None:
        """A lock nobody holds is granted at once, under a new token."""
        drive = Drive()
        (session,) = drive.open(1000)
        assert drive.one(exclusive(session)) == Granted("door", session, 2, False)

    def test_refuses_a_held_lock_and_says_why(self) -> None:
        """Who holds it, since when, under which token, how many wait, where one would stand."""
        drive = Drive()
        first, second, third = drive.open(1000, 1000, 1000)
        drive.ask(exclusive(first), now_ms=10)
        drive.ask(exclusive(second, wait_ms=500), now_ms=20)
        assert drive.one(exclusive(third), now_ms=50) == LockHeld("door", first, 40, 4, 1, 2)
        assert drive.one(exclusive(third, priority=-1)) == LockHeld("door", first, 40, 4, 1, 1)

    def test_again_by_the_holder_gives_the_same_grant(self) -> None:
        """A retry is harmless: same token, in the mode held, which may be the stronger one."""
        drive = Drive()
        first, second = drive.open(1000, 1000)
        granted = drive.one(exclusive(first))
        assert drive.one(exclusive(first)) == granted
        assert drive.one(shared(first, wait_ms=100)) == granted
        drive.ask(ReleaseLock(first, "door", 3))
        granted = drive.one(shared(second))
        assert drive.one(shared(second)) == granted

    def test_needs_a_living_session(self) -> None:
        """Expired and unknown sessions get nothing."""
        drive = Drive()
        (session,) = drive.open(100, now_ms=0)
        assert drive.one(exclusive("ff-x")) == SessionNotFound("ff-x")
        assert drive.one(exclusive(session), now_ms=100) == SessionExpired(session)

    def test_refuses_more_locks_than_the_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The limit counts locks that are held; a held one is not one more."""
        monkeypatch.setattr(limits, "LOCKS_MAX", 1)
        drive = Drive()
        first, second = drive.open(1000, 1000)
        drive.ask(exclusive(first))
        assert drive.one(AcquireLock(second, "gate")) == QueueFull("locks", 1)
        assert isinstance(drive.one(exclusive(second)), LockHeld)

    def test_refuses_a_session_that_owns_too_much(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What it holds and what it waits for count together; a retry is no new thing."""
        monkeypatch.setattr(limits, "OWNED_PER_SESSION_MAX", 2)
        drive = Drive()
        first, second = drive.open(1000, 1000)
        drive.ask(exclusive(first), AcquireLock(second, "gate"))
        drive.ask(exclusive(second, wait_ms=100))
        assert drive.one(AcquireLock(second, "hatch")) == QueueFull("things of a session", 2)
        assert isinstance(drive.one(AcquireLock(second, "gate")), Granted)
        assert isinstance(drive.one(exclusive(second, wait_ms=100)), Queued)


class TestShared:
    def test_sharers_hold_together_under_tokens_of_their_own(self) -> None:
        """Each sharer has a token; releasing one leaves the others."""
        drive = Drive()
        first, second = drive.open(1000, 1000)
        assert drive.one(shared(first)) == Granted("door", first, 3, True)
        assert drive.one(shared(second)) == Granted("door", second, 4, True)
        assert drive.one(ReleaseLock(first, "door", 3)) == Released("door")
        assert drive.machine.locks.info("door", 0).holders == ((second, 4, True, 0),)

    def test_a_sharer_waits_behind_one_who_wants_it_alone(self) -> None:
        """Sharers cannot starve a writer: nobody passes one who waits before."""
        drive = Drive()
        first, writer, late = drive.open(1000, 1000, 1000)
        drive.ask(shared(first))
        drive.ask(exclusive(writer, wait_ms=500))
        assert drive.one(shared(late)) == LockHeld("door", first, 0, 4, 1, 2)
        assert drive.one(shared(late, wait_ms=500)) == Queued("door", 2)

    def test_a_more_urgent_sharer_is_granted_beside_sharers(self) -> None:
        """Nobody waits before it: it stands before the writer by priority."""
        drive = Drive()
        first, writer, urgent = drive.open(1000, 1000, 1000)
        drive.ask(shared(first))
        drive.ask(exclusive(writer, wait_ms=500))
        assert isinstance(drive.one(shared(urgent, priority=-1)), Granted)

    def test_a_row_of_sharers_is_granted_together(self) -> None:
        """The head and all sharers right behind it, up to the next writer."""
        drive = Drive()
        sessions = drive.open(*[1000] * 5)
        drive.ask(exclusive(sessions[0]))
        drive.ask(
            shared(sessions[1], 500),
            shared(sessions[2], 500),
            exclusive(sessions[3], 500),
            shared(sessions[4], 500),
        )
        assert drive.ask(ReleaseLock(sessions[0], "door", 6)) == [
            Released("door"),
            Granted("door", sessions[1], 7, True),
            Granted("door", sessions[2], 8, True),
        ]
        assert [waiter[0] for waiter in drive.machine.locks.info("door", 0).waiters] == sessions[3:]

    def test_sharers_follow_when_the_writer_before_them_gives_up(self) -> None:
        """A wait that ends may let those behind it in."""
        drive = Drive()
        first, writer, second = drive.open(1000, 1000, 1000, now_ms=0)
        drive.ask(shared(first))
        drive.ask(exclusive(writer, wait_ms=50), shared(second, wait_ms=500))
        assert drive.at(50) == [
            LockHeld("door", first, 50, 4, 1, 1),
            Granted("door", second, 5, True),
        ]

    def test_the_only_sharer_may_take_it_alone(self) -> None:
        """An upgrade has a new token: who saw the old one knows that something changed."""
        drive = Drive()
        (session,) = drive.open(1000)
        drive.ask(shared(session), now_ms=10)
        assert drive.one(exclusive(session), now_ms=30) == Granted("door", session, 3, False)
        assert drive.one(ReleaseLock(session, "door", 2)) == StaleToken("door", 2, 3)
        assert drive.machine.locks.info("door", 30).holders == ((session, 3, False, 0),)
        info = drive.machine.sessions.info(session, 30)
        assert info is not None
        assert info.holds == (("lock", "door", "", 3),)

    def test_an_upgrade_beside_others_is_refused_even_if_it_would_wait(self) -> None:
        """Two that wait for one another to leave would wait for ever."""
        drive = Drive()
        first, second = drive.open(1000, 1000)
        drive.ask(shared(first), shared(second))
        assert drive.one(exclusive(second, wait_ms=500)) == LockHeld("door", first, 0, 3, 0, 1)
        assert drive.machine.counts().waiters == 0

    def test_an_upgrade_does_not_pass_those_who_wait(self) -> None:
        """The only sharer is refused when a writer waits; nobody else holds, and it says so."""
        drive = Drive()
        first, writer = drive.open(1000, 1000)
        drive.ask(shared(first))
        drive.ask(exclusive(writer, wait_ms=500))
        assert drive.one(exclusive(first)) == LockHeld("door", None, 0, None, 1, 2)


class TestQueue:
    def test_grants_in_order_of_priority_then_arrival(self) -> None:
        """Smaller numbers first, equal ones as they came."""
        drive = Drive()
        sessions = drive.open(*[10_000] * 5)
        drive.ask(exclusive(sessions[0]))
        for session, priority, position in zip(
            sessions[1:], (5, 0, 5, -1), (1, 1, 3, 1), strict=True
        ):
            assert drive.one(exclusive(session, 5000, priority)) == Queued("door", position)
        order = []
        holder, token = sessions[0], 6
        for _ in range(4):
            _, granted = drive.ask(ReleaseLock(holder, "door", token))
            assert isinstance(granted, Granted)
            holder, token = granted.session, granted.token
            order.append(holder)
        assert order == [sessions[4], sessions[2], sessions[1], sessions[3]]

    def test_answers_the_waiter_when_its_turn_comes(self) -> None:
        """The grant is told under the number of the request that was parked."""
        drive = Drive()
        first, second = drive.open(1000, 1000)
        drive.ask(exclusive(first))
        drive.ask(exclusive(second, wait_ms=500), node="n2")
        assert drive.told == [("n2", 1, Queued("door", 1))]
        drive.ask(ReleaseLock(first, "door", 3))
        assert drive.told == [
            ("n1", 4, Released("door")),
            ("n2", 1, Granted("door", second, 4, False)),
        ]

    def test_a_wait_that_is_over_is_refused_with_reasons(self) -> None:
        """At its deadline, with the place it had; and it leaves the queue."""
        drive = Drive()
        sessions = drive.open(*[1000] * 3, now_ms=0)
        drive.ask(exclusive(sessions[0]))
        drive.ask(exclusive(sessions[1], 500), exclusive(sessions[2], 100))
        assert drive.machine.next_deadline_ms() == 100
        assert drive.at(99) == []
        assert drive.at(100) == [LockHeld("door", sessions[0], 100, 4, 1, 2)]
        assert len(drive.machine.locks.info("door", 100).waiters) == 1

    def test_the_end_of_a_holder_comes_before_the_end_of_a_wait_at_the_same_time(self) -> None:
        """Who waits exactly as long as the holder lives gets the lock."""
        drive = Drive()
        first, second = drive.open(100, 1000, now_ms=0)
        drive.ask(exclusive(first))
        drive.ask(exclusive(second, wait_ms=100))
        assert drive.at(500) == [Granted("door", second, 4, False)]

    def test_a_second_request_of_a_waiting_session_joins_its_place(self) -> None:
        """Both are told the grant; each has its own deadline; mode and priority stay."""
        drive = Drive()
        first, second, third = drive.open(*[1000] * 3, now_ms=0)
        drive.ask(exclusive(first))
        drive.ask(exclusive(second, 100), exclusive(third, 500))
        assert drive.one(shared(second, 300, priority=9), node="n2") == Queued("door", 1)
        assert drive.at(100) == [LockHeld("door", first, 100, 4, 1, 1)]
        assert drive.ask(ReleaseLock(first, "door", 4))[1:] == [Granted("door", second, 6, False)]
        assert drive.told[1][:2] == ("n2", 1)

    def test_a_place_is_left_with_the_last_wait_in_it(self) -> None:
        """Two waits in one place: the place stays until both are over."""
        drive = Drive()
        first, second = drive.open(1000, 1000, now_ms=0)
        drive.ask(exclusive(first))
        drive.ask(exclusive(second, 100), exclusive(second, 300))
        info = drive.machine.locks.info("door", 50)
        assert info.waiters == ((second, False, 0, 50, 250),)
        drive.at(100)
        assert drive.machine.counts().waiters == 1
        drive.at(300)
        assert drive.machine.counts().waiters == 0
        owner = drive.machine.sessions.info(second, 300)
        assert owner is not None
        assert owner.waits == ()

    def test_a_waiting_session_that_will_not_wait_is_told_its_position(self) -> None:
        """Asking again without waiting does not give the place up."""
        drive = Drive()
        first, second = drive.open(1000, 1000)
        drive.ask(exclusive(first))
        drive.ask(exclusive(second, 100))
        assert drive.one(exclusive(second)) == LockHeld("door", first, 0, 3, 0, 1)
        assert drive.machine.counts().waiters == 1

    def test_refuses_more_waiters_than_the_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A full queue says so; whoever stands in it may still join its own place."""
        monkeypatch.setattr(limits, "WAITERS_PER_LOCK_MAX", 1)
        drive = Drive()
        first, second, third = drive.open(*[1000] * 3)
        drive.ask(exclusive(first))
        drive.ask(exclusive(second, 100))
        assert drive.one(exclusive(third, 100)) == QueueFull("waiters of a lock", 1)
        assert drive.one(exclusive(second, 100)) == Queued("door", 1)
        assert isinstance(drive.one(exclusive(third)), LockHeld)

    def test_refuses_more_parked_requests_than_the_limit(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody more may wait anywhere; what needs no waiting goes on."""
        monkeypatch.setattr(limits, "PARKED_MAX", 1)
        drive = Drive()
        first, second, third = drive.open(*[1000] * 3)
        drive.ask(exclusive(first))
        drive.ask(exclusive(second, 100))
        assert drive.one(exclusive(third, 100)) == QueueFull("parked requests", 1)
        assert isinstance(drive.one(AcquireLock(third, "gate", wait_ms=100)), Granted)

    def test_an_abandoned_request_leaves_the_queue(self) -> None:
        """It is told Withdrawn, and those behind it move up."""
        drive = Drive()
        first, writer, sharer = drive.open(*[1000] * 3)
        drive.ask(shared(first))
        drive.ask(exclusive(writer, 500), shared(sharer, 500))
        assert drive.ask(Abandon(5)) == [
            Withdrawn(),
            Abandoned(),
            Granted("door", sharer, 5, True),
        ]

    def test_an_abandoned_request_that_was_granted_keeps_the_grant(self) -> None:
        """The hang-up crossed the grant: the session still owns it, and a retry gets it."""
        drive = Drive()
        (session,) = drive.open(1000)
        granted = drive.one(exclusive(session))
        assert drive.ask(Abandon(2)) == [Abandoned()]
        assert drive.one(exclusive(session)) == granted


class TestRelease:
    def test_is_conditional_on_the_token(self) -> None:
        """Only the very grant is given back."""
        drive = Drive()
        first, second = drive.open(1000, 1000)
        drive.ask(exclusive(first))
        assert drive.one(ReleaseLock(first, "door", 2)) == StaleToken("door", 2, 3)
        assert drive.one(ReleaseLock(second, "door", 2)) == StaleToken("door", 2, 3)
        assert drive.one(ReleaseLock(second, "door", 3)) == NotHolder("door", second)
        assert drive.one(ReleaseLock(first, "door", 3)) == Released("door")
        assert drive.one(ReleaseLock(first, "door", 3)) == NotHolder("door", first)

    def test_a_late_release_does_not_take_the_next_grant(self) -> None:
        """A retried release of an older grant of the same session is stale (etcd#22082)."""
        drive = Drive()
        (session,) = drive.open(1000)
        drive.ask(exclusive(session))
        drive.ask(ReleaseLock(session, "door", 2))
        granted = drive.one(exclusive(session))
        assert drive.one(ReleaseLock(session, "door", 2)) == StaleToken("door", 2, 4)
        assert drive.one(exclusive(session)) == granted

    def test_looks_at_the_session_first(self) -> None:
        """Whoever has expired is told that, whatever it asks to release."""
        drive = Drive()
        (session,) = drive.open(100, now_ms=0)
        drive.ask(exclusive(session))
        assert drive.one(ReleaseLock(session, "door", 2), now_ms=100) == SessionExpired(session)
        assert drive.one(ReleaseLock("ff-x", "door", 2)) == SessionNotFound("ff-x")

    def test_a_waiter_cannot_release(self) -> None:
        """Standing in the queue is no grant: token 0 is nobody's."""
        drive = Drive()
        first, second = drive.open(1000, 1000)
        drive.ask(exclusive(first))
        drive.ask(exclusive(second, 100))
        assert drive.one(ReleaseLock(second, "door", 0)) == StaleToken("door", 0, 3)

    def test_a_free_lock_leaves_no_trace(self) -> None:
        """A lock nobody holds is forgotten."""
        drive = Drive()
        (session,) = drive.open(1000)
        drive.ask(exclusive(session))
        drive.ask(ReleaseLock(session, "door", 2))
        assert drive.machine.counts().locks == 0
        assert drive.machine.locks.info("door", 0) == LockInfo("door", (), ())


class TestReading:
    def test_check_compares_a_token_with_the_present_grants(self) -> None:
        """Any present grant is valid; the newest token is told."""
        drive = Drive()
        first, second = drive.open(1000, 1000)
        locks = drive.machine.locks
        assert locks.check("door", 3) == (False, None)
        drive.ask(shared(first), shared(second))
        assert locks.check("door", 3) == (True, 4)
        assert locks.check("door", 4) == (True, 4)
        assert locks.check("door", 5) == (False, 4)

    def test_lists_by_name_page_by_page(self) -> None:
        """Names in order, within a prefix, after the last one seen, which may be free by now."""
        drive = Drive()
        (session,) = drive.open(1000)
        names = ("b/2", "a/1", "b/10", "b/1", "c")
        drive.ask(*(AcquireLock(session, name) for name in names))
        locks = drive.machine.locks
        assert [info.name for info in locks.list(0)] == ["a/1", "b/1", "b/10", "b/2", "c"]
        assert [info.name for info in locks.list(0, prefix="b/")] == ["b/1", "b/10", "b/2"]
        page = locks.list(0, prefix="b/", limit=1)
        assert [info.name for info in page] == ["b/1"]
        drive.ask(ReleaseLock(session, "b/1", 5))
        page = locks.list(0, prefix="b/", after="b/1")
        assert [info.name for info in page] == ["b/10", "b/2"]
        assert locks.list(0, prefix="b/", after="a") == page
        assert locks.list(0, prefix="b/", after="c") == []
        assert locks.list(0, prefix="zz") == []

    def test_shows_holders_and_waiters_in_order(self) -> None:
        """Since when, under which token, for how long still."""
        drive = Drive()
        first, second, third = drive.open(*[10_000] * 3, now_ms=0)
        drive.ask(exclusive(first), now_ms=100)
        drive.ask(shared(second, 500), exclusive(third, 900, priority=-1), now_ms=200)
        assert drive.machine.locks.info("door", 300) == LockInfo(
            "door",
            ((first, 4, False, 200),),
            ((third, False, -1, 100, 800), (second, True, 0, 100, 400)),
        )
