"""Sessions: exact TTL, an end that takes everything along, ids that tell what they were."""

from __future__ import annotations

import pytest

from cluster.machine import limits
from cluster.machine.commands import (
    AcquireLock,
    CloseSession,
    KeepAlive,
    KeepAliveMany,
    OpenSession,
)
from cluster.machine.outcome import (
    Closed,
    Granted,
    Opened,
    Queued,
    QueueFull,
    Renewed,
    RenewedMany,
    SessionExpired,
    SessionNotFound,
)
from tests.machine.drive import Drive


def test_open_gives_an_id_made_of_token_and_nonce() -> None:
    """The id is the token in hex and the nonce that came with the command."""
    drive = Drive()
    drive.machine.skip(30)
    assert drive.one(OpenSession("abc", 500)) == Opened("1f-abc", 500, 31)


def test_lives_until_its_deadline_and_not_a_millisecond_longer() -> None:
    """Never before TTL, and at the first entry at or after it."""
    drive = Drive()
    (session,) = drive.open(100, now_ms=1000)
    assert drive.machine.next_deadline_ms() == 1100
    drive.at(1099)
    assert drive.machine.sessions.info(session, 1099) is not None
    drive.at(1100)
    assert drive.machine.sessions.info(session, 1100) is None
    assert drive.machine.next_deadline_ms() is None


def test_keepalive_counts_the_whole_ttl_from_its_entry() -> None:
    """A renewal at 50 of a TTL of 100 ends at 150."""
    drive = Drive()
    (session,) = drive.open(100, now_ms=0)
    assert drive.one(KeepAlive(session), now_ms=50) == Renewed(session, 100)
    drive.at(149)
    assert drive.machine.sessions.get(session) is not None
    assert drive.machine.next_deadline_ms() == 150
    drive.at(150)
    assert drive.machine.sessions.get(session) is None


def test_a_keepalive_at_the_deadline_is_late() -> None:
    """Deadlines come before the commands of the same entry."""
    drive = Drive()
    (session,) = drive.open(100, now_ms=0)
    assert drive.one(KeepAlive(session), now_ms=100) == SessionExpired(session)


def test_time_that_goes_back_changes_nothing() -> None:
    """A leader whose clock is behind neither shortens nor lengthens a session."""
    drive = Drive()
    (session,) = drive.open(100, now_ms=1000)
    assert drive.one(KeepAlive(session), now_ms=10) == Renewed(session, 100)
    assert drive.machine.now_ms == 1000
    assert drive.machine.next_deadline_ms() == 1100


def test_keepalive_of_many_says_who_is_gone() -> None:
    """Those that live are renewed, the others named, both in the order asked."""
    drive = Drive()
    short, first, second = drive.open(50, 100, 200, now_ms=0)
    outcome = drive.one(KeepAliveMany((second, short, "nonsense", first, second)), now_ms=60)
    assert outcome == RenewedMany(((second, 200), (first, 100), (second, 200)), (short, "nonsense"))


def test_an_ended_session_is_expired_and_an_unknown_one_not_found() -> None:
    """The id tells, without a memory of the dead: its token was given, or it was not."""
    drive = Drive()
    expired, closed = drive.open(50, 1000, now_ms=0)
    drive.at(50)
    assert drive.one(CloseSession(closed)) == Closed(closed)
    for session in (expired, closed, "1-another-nonce"):
        assert drive.one(KeepAlive(session)) == SessionExpired(session)
        assert drive.machine.sessions.existed(session)
    for session in (
        "ffff-s",
        "x",
        "",
        "-",
        "1",
        "1-",
        "-s",
        "01-s",
        "0-s",
        "1F-s",
        "0x1-s",
        " 1-s",
    ):
        assert drive.one(KeepAlive(session)) == SessionNotFound(session)
        assert not drive.machine.sessions.existed(session)


def test_closing_frees_and_leaves_everything_in_one_entry() -> None:
    """What it held goes to the next waiters, and its own waits end, before the next command."""
    drive = Drive()
    first, second, third = drive.open(1000, 1000, 1000)
    drive.ask(AcquireLock(first, "a"), AcquireLock(first, "b"), AcquireLock(third, "c"))
    drive.ask(
        AcquireLock(second, "a", wait_ms=500),
        AcquireLock(third, "b", wait_ms=500),
        AcquireLock(first, "c", wait_ms=500),
    )
    assert drive.ask(CloseSession(first)) == [
        SessionExpired(first),
        Closed(first),
        Granted("a", second, 7, False),
        Granted("b", third, 8, False),
    ]
    assert drive.machine.locks.info("c", 0).waiters == ()


def test_expiry_frees_in_order_of_grant() -> None:
    """What was granted first is handed on first, whatever it is called."""
    drive = Drive()
    first, second = drive.open(100, 1000, now_ms=0)
    drive.ask(AcquireLock(first, "z"), AcquireLock(first, "a"))
    drive.ask(AcquireLock(second, "a", wait_ms=500), AcquireLock(second, "z", wait_ms=500))
    granted = drive.at(100)
    assert [g.name for g in granted if isinstance(g, Granted)] == ["z", "a"]


def test_a_lock_is_never_granted_to_a_session_that_ends_in_the_same_entry() -> None:
    """When holder and first waiter are both due, the second waiter is next."""
    drive = Drive()
    holder, doomed, heir = drive.open(100, 150, 1000, now_ms=0)
    drive.ask(AcquireLock(holder, "door"))
    drive.ask(AcquireLock(doomed, "door", wait_ms=900), AcquireLock(heir, "door", wait_ms=900))
    token = drive.machine.tokens.last
    assert drive.at(200) == [
        SessionExpired(doomed),
        Granted("door", heir, max(token + 1, drive.machine.index), False),
    ]


def test_thousands_of_waiters_that_end_together_need_no_deep_stack() -> None:
    """A long chain of sessions that are all due is walked, not recursed into."""
    drive = Drive()
    count = 3000
    sessions = drive.open(*range(100, 100 + count), now_ms=0)
    drive.ask(*(AcquireLock(session, "door", wait_ms=10**6) for session in sessions))
    outcomes = drive.at(100 + count)
    assert len(outcomes) == count - 1
    assert drive.machine.counts().waiters == 0
    assert drive.machine.counts().locks == 0


def test_shows_what_a_session_owns() -> None:
    """Holds in order of grant, waits in order of arrival with their positions."""
    drive = Drive()
    (owner,) = drive.open(500, now_ms=0)
    drive.ask(OpenSession("x", 700, "worker 7", b"{}"))
    other = "2-x"
    drive.ask(AcquireLock(owner, "z"), AcquireLock(owner, "a"), AcquireLock(other, "m"))
    assert drive.one(AcquireLock(owner, "m", wait_ms=50)) == Queued("m", 1)
    info = drive.machine.sessions.info(owner, 100)
    assert info is not None
    assert info.holds == (("lock", "z", "", 3), ("lock", "a", "", 4))
    assert info.waits == (("lock", "m", 1),)
    assert info.expires_in_ms == 400
    named = drive.machine.sessions.info(other, 10**6)
    assert named is not None
    assert (named.name, named.meta, named.expires_in_ms) == ("worker 7", b"{}", 0)


def test_lists_in_order_of_opening_page_by_page() -> None:
    """Pages follow one another by the last id seen, even if that session has ended since."""
    drive = Drive()
    sessions = drive.open(*[1000] * 7)
    listing = drive.machine.sessions
    assert [info.session for info in listing.list(0, limit=3)] == sessions[:3]
    drive.ask(CloseSession(sessions[2]), CloseSession(sessions[4]))
    after = [info.session for info in listing.list(0, after=sessions[2], limit=3)]
    assert after == [sessions[3], sessions[5], sessions[6]]
    assert listing.list(0, after=sessions[6]) == []
    drive.ask(*(CloseSession(session) for session in sessions[:6]))
    assert [info.session for info in listing.list(0)] == sessions[6:]


def test_refuses_more_sessions_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit counts living sessions."""
    monkeypatch.setattr(limits, "SESSIONS_MAX", 2)
    drive = Drive()
    first, _ = drive.open(1000, 1000)
    assert drive.one(OpenSession("s", 1000)) == QueueFull("sessions", 2)
    drive.ask(CloseSession(first))
    assert isinstance(drive.one(OpenSession("s", 1000)), Opened)
