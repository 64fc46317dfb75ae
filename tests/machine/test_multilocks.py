"""Several locks in one step: all or none, one rank in every queue, nothing held while waiting."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.machine import limits
from cluster.machine.commands import (
    Abandon,
    AcquireLock,
    AcquireLocks,
    CloseSession,
    ReleaseLock,
    ReleaseLocks,
)
from cluster.machine.machine import Machine
from cluster.machine.outcome import (
    Granted,
    GrantedMany,
    LockHeld,
    LocksHeld,
    NotHolder,
    Outcome,
    Queued,
    QueueFull,
    Released,
    ReleasedMany,
    SessionExpired,
    SessionNotFound,
    StaleToken,
    Withdrawn,
)
from cluster.machine.primitive import Blocker
from cluster.wire import cbor, commands, snapshot
from cluster.wire.cbor import WireError
from tests.machine.drive import Drive


def both(*names: str, shared: bool = False) -> tuple[tuple[str, bool], ...]:
    """Locks that are asked for in one mode."""
    return tuple((name, shared) for name in names)


def held(drive: Drive, name: str) -> list[str]:
    """Who holds a lock."""
    return [session for session, *_ in drive.machine.locks.info(name, 0).holders]


def lined(drive: Drive, name: str) -> list[str]:
    """Who stands in its queue."""
    return [session for session, *_ in drive.machine.locks.info(name, 0).waiters]


def test_free_locks_are_given_all_at_once_each_under_a_token_of_its_own() -> None:
    """The answer lists them by name, whatever the order asked in."""
    drive = Drive()
    (ann,) = drive.open(1000)
    outcome = drive.one(AcquireLocks(ann, (("b", True), ("a", False))))
    assert outcome == GrantedMany((("a", 2, False), ("b", 3, True)), ann)


def test_none_is_given_where_one_is_held() -> None:
    """The refusal names the first in the way, and all that are."""
    drive = Drive()
    ann, bob = drive.open(1000, 1000)
    drive.ask(AcquireLock(ann, "b"), AcquireLock(ann, "c"))
    outcome = drive.one(AcquireLocks(bob, both("a", "b", "c")), now_ms=5)
    assert outcome == LocksHeld(LockHeld("b", ann, 5, 3, 0, 1), ("b", "c"))
    assert held(drive, "a") == []
    assert len(drive.machine.locks) == 2


def test_a_name_that_comes_twice_is_wanted_in_its_stronger_mode() -> None:
    """Shared and alone is alone."""
    drive = Drive()
    (ann,) = drive.open(1000)
    outcome = drive.one(AcquireLocks(ann, (("a", True), ("a", False))))
    assert outcome == GrantedMany((("a", 2, False),), ann)


def test_who_waits_holds_nothing_and_is_not_overtaken() -> None:
    """While `b` is held, `a` stays free, and is kept for the one who came first."""
    drive = Drive()
    ann, bob, cid = drive.open(1000, 1000, 1000)
    drive.one(AcquireLock(ann, "b"))
    assert drive.one(AcquireLocks(bob, both("a", "b"), wait_ms=500)) == Queued("a", 1)
    assert held(drive, "a") == []
    assert drive.one(AcquireLock(cid, "a")) == LockHeld("a", None, 0, None, 1, 2)
    assert drive.one(AcquireLock(cid, "a", wait_ms=500)) == Queued("a", 2)
    outcomes = drive.ask(ReleaseLock(ann, "b", 4))
    assert outcomes == [Released("b"), GrantedMany((("a", 6, False), ("b", 7, False)), bob)]
    assert drive.ask(ReleaseLocks(bob, (("b", 7), ("a", 6)))) == [
        ReleasedMany(("a", "b")),
        Granted("a", cid, 8, False),
    ]


def test_a_smaller_priority_goes_first_even_before_one_who_waits_for_several() -> None:
    """Fair is by (priority, arrival), in every queue alike."""
    drive = Drive()
    ann, bob, cid = drive.open(1000, 1000, 1000)
    drive.one(AcquireLock(ann, "b"))
    drive.one(AcquireLocks(bob, both("a", "b"), wait_ms=500))
    assert isinstance(drive.one(AcquireLock(cid, "a", priority=-1)), Granted)


def test_two_who_ask_in_opposite_orders_do_not_block_one_another() -> None:
    """There is nothing to deadlock on: nobody holds while waiting."""
    drive = Drive()
    ann, bob, cid = drive.open(1000, 1000, 1000)
    drive.one(AcquireLocks(ann, both("a", "b")))
    drive.one(AcquireLocks(bob, both("a", "b"), wait_ms=500))
    drive.one(AcquireLocks(cid, both("b", "a"), wait_ms=500))
    (_, first) = drive.ask(CloseSession(ann))
    assert isinstance(first, GrantedMany)
    assert first.session == bob
    (_, second) = drive.ask(CloseSession(bob))
    assert isinstance(second, GrantedMany)
    assert second.session == cid


def test_locks_held_already_count_as_granted() -> None:
    """They keep their tokens; and the mode held may be the stronger one."""
    drive = Drive()
    (ann,) = drive.open(1000)
    drive.one(AcquireLock(ann, "b"))
    outcome = drive.one(AcquireLocks(ann, (("a", False), ("b", True))))
    assert outcome == GrantedMany((("a", 3, False), ("b", 2, False)), ann)


def test_what_is_given_back_meanwhile_is_wanted_again() -> None:
    """A place in the queue of a lock that was held stays good when the lock is given back."""
    drive = Drive()
    ann, bob, cid = drive.open(1000, 1000, 1000)
    drive.ask(AcquireLock(ann, "a"), AcquireLock(bob, "b"))
    drive.one(AcquireLocks(ann, both("a", "b"), wait_ms=500))
    drive.one(AcquireLock(cid, "a", wait_ms=500))
    assert drive.ask(ReleaseLock(ann, "a", 4)) == [Released("a")]
    (_, outcome) = drive.ask(ReleaseLock(bob, "b", 5))
    assert isinstance(outcome, GrantedMany)
    assert [name for name, _, _ in outcome.locks] == ["a", "b"]


def test_a_sharer_that_wants_one_alone_among_several_gets_it_only_at_once() -> None:
    """Two sharers waiting for one another to leave would wait for ever."""
    drive = Drive()
    ann, bob = drive.open(1000, 1000)
    drive.one(AcquireLock(ann, "a", shared=True))
    outcome = drive.one(AcquireLocks(ann, both("a", "b")))
    assert outcome == GrantedMany((("a", 4, False), ("b", 5, False)), ann)
    drive.one(ReleaseLocks(ann, (("a", 4), ("b", 5))))
    drive.ask(AcquireLock(ann, "a", shared=True), AcquireLock(bob, "a", shared=True))
    assert isinstance(drive.one(AcquireLocks(ann, both("a", "b"), wait_ms=500)), LocksHeld)


def test_sharers_of_several_go_together() -> None:
    """Shared is shared here, too."""
    drive = Drive()
    ann, bob = drive.open(1000, 1000)
    drive.one(AcquireLocks(ann, both("a", "b", shared=True)))
    assert isinstance(drive.one(AcquireLocks(bob, both("b", "a", shared=True))), GrantedMany)
    assert held(drive, "a") == [ann, bob]


def test_a_lock_that_the_session_comes_by_otherwise_lets_the_rest_go() -> None:
    """Somebody stands before its place, but it is lacking no more."""
    drive = Drive()
    ann, bob, cid = drive.open(1000, 1000, 1000)
    drive.one(AcquireLock(ann, "a"))
    drive.one(AcquireLock(bob, "a", wait_ms=900))
    drive.one(AcquireLocks(cid, both("a", "b"), wait_ms=900))
    drive.one(AcquireLock(cid, "a", priority=-1, wait_ms=900))
    outcomes = drive.ask(ReleaseLock(ann, "a", 4))
    assert outcomes == [
        Released("a"),
        Granted("a", cid, 6, False),
        GrantedMany((("a", 6, False), ("b", 7, False)), cid),
    ]
    assert lined(drive, "a") == [bob]


def test_places_that_are_served_together_are_in_order_of_arrival_after_a_load_too() -> None:
    """Whatever their locks are called: the tokens would differ between nodes."""
    drive = Drive()
    ann, bob, cid = drive.open(1000, 1000, 1000)
    drive.ask(AcquireLock(ann, "m"), AcquireLock(bob, "m", wait_ms=900))
    drive.ask(AcquireLocks(cid, both("m", "z"), wait_ms=900))
    drive.ask(AcquireLocks(cid, both("a", "m"), wait_ms=900))
    drive.ask(AcquireLock(cid, "m", priority=-1, wait_ms=900))
    for one in (Drive(Machine.load(drive.machine.dump())), drive):
        one.seqs = dict(drive.seqs)
        assert one.ask(ReleaseLock(ann, "m", 4)) == [
            Released("m"),
            Granted("m", cid, 6, False),
            GrantedMany((("m", 6, False), ("z", 7, False)), cid),
            GrantedMany((("a", 8, False), ("m", 6, False)), cid),
        ]


def test_what_the_session_waited_for_alone_it_may_come_by_among_several() -> None:
    """Both waits are told the same token."""
    drive = Drive()
    ann, bob, cid = drive.open(1000, 1000, 1000)
    drive.one(AcquireLock(ann, "a"))
    drive.one(AcquireLocks(cid, both("a", "b"), wait_ms=900))
    drive.one(AcquireLock(bob, "a", wait_ms=900))
    drive.one(AcquireLock(cid, "a", wait_ms=900))
    outcomes = drive.ask(ReleaseLock(ann, "a", 4))
    assert outcomes == [
        Released("a"),
        GrantedMany((("a", 6, False), ("b", 7, False)), cid),
        Granted("a", cid, 6, False),
    ]
    assert lined(drive, "a") == [bob]


def test_the_same_question_asked_again_shares_the_place() -> None:
    """Both are told when it is granted; another set of locks is another place."""
    drive = Drive()
    ann, bob = drive.open(1000, 1000)
    drive.one(AcquireLock(ann, "a"))
    drive.one(AcquireLocks(bob, both("a", "b"), wait_ms=500))
    drive.one(AcquireLocks(bob, both("b", "a"), wait_ms=900))
    drive.one(AcquireLocks(bob, both("a", "c"), wait_ms=900))
    assert lined(drive, "a") == [bob, bob]
    outcomes = drive.ask(ReleaseLock(ann, "a", 3))
    assert [type(outcome) for outcome in outcomes] == [Released] + 3 * [GrantedMany]


def test_a_wait_that_runs_out_is_told_who_was_in_the_way() -> None:
    """And those behind it are let go."""
    drive = Drive()
    ann, bob, cid = drive.open(9000, 9000, 9000)
    drive.one(AcquireLock(ann, "b"))
    drive.one(AcquireLocks(bob, both("a", "b"), wait_ms=500))
    drive.one(AcquireLock(cid, "a", wait_ms=900))
    assert drive.at(500) == [
        LocksHeld(LockHeld("b", ann, 500, 4, 0, 1), ("b",)),
        Granted("a", cid, 5, False),
    ]


def test_a_place_ends_with_its_session_and_with_its_request() -> None:
    """Whoever leaves, leaves every queue."""
    drive = Drive()
    ann, bob, cid = drive.open(9000, 100, 9000)
    drive.one(AcquireLock(ann, "b"))
    drive.one(AcquireLocks(bob, both("a", "b"), wait_ms=500))
    assert drive.at(100) == [SessionExpired(bob)]
    assert lined(drive, "b") == []
    assert len(drive.machine.locks) == 1
    drive.one(AcquireLocks(cid, both("a", "b"), wait_ms=500), node="n2")
    drive.one(Abandon(1), node="n2")
    assert drive.resolved(node="n2", seq=1) == Withdrawn()
    assert lined(drive, "b") == lined(drive, "a") == []
    assert len(drive.machine.locks) == 1


def test_one_that_is_due_at_this_very_time_is_not_granted_anything() -> None:
    """The holder's session and the first waiter's end together: the next one goes."""
    drive = Drive()
    ann, bob, cid = drive.open(100, 100, 9000)
    drive.one(AcquireLocks(ann, both("a", "b")))
    drive.one(AcquireLocks(bob, both("a", "b"), wait_ms=500))
    drive.one(AcquireLocks(cid, both("a", "b"), wait_ms=500))
    outcomes = drive.at(100)
    assert outcomes[0] == SessionExpired(bob)
    assert isinstance(outcomes[1], GrantedMany)
    assert outcomes[1].session == cid


def test_a_session_shows_every_lock_it_waits_for_with_its_position_there() -> None:
    """Its worst position is what the request was told."""
    drive = Drive()
    ann, bob, cid = drive.open(1000, 1000, 1000)
    drive.one(AcquireLocks(ann, both("a", "b")))
    drive.one(AcquireLock(bob, "b", wait_ms=500))
    assert drive.one(AcquireLocks(cid, both("a", "b"), wait_ms=500)) == Queued("a", 2)
    info = drive.machine.sessions.info(cid, 0)
    assert info is not None
    assert info.waits == (("lock", "a", 1), ("lock", "b", 2))


def test_locks_are_given_back_all_or_none() -> None:
    """One wrong token, and nothing is released."""
    drive = Drive()
    ann, bob = drive.open(1000, 1000)
    drive.one(AcquireLocks(ann, both("a", "b")))
    assert drive.one(ReleaseLocks(ann, (("a", 3), ("b", 3)))) == StaleToken("b", 3, 4)
    assert drive.one(ReleaseLocks(ann, (("a", 3), ("c", 4)))) == NotHolder("c", ann)
    assert drive.one(ReleaseLocks(bob, (("a", 3),))) == NotHolder("a", bob)
    assert drive.one(ReleaseLocks("9-no", (("a", 3),))) == SessionNotFound("9-no")
    assert held(drive, "a") == held(drive, "b") == [ann]
    assert drive.one(ReleaseLocks(ann, (("a", 3), ("b", 4)))) == ReleasedMany(("a", "b"))
    assert len(drive.machine.locks) == 0


def test_without_a_session_nothing_is_given() -> None:
    """As everywhere."""
    drive = Drive()
    assert drive.one(AcquireLocks("9-no", both("a"))) == SessionNotFound("9-no")


@pytest.mark.parametrize(
    ("limit", "most", "what"),
    [
        ("LOCKS_MAX", 2, "locks"),
        ("OWNED_PER_SESSION_MAX", 1, "things of a session"),
        ("MULTI_WAITS_PER_SESSION_MAX", 0, "waits for several locks of a session"),
        ("WAITERS_PER_LOCK_MAX", 0, "waiters of a lock"),
        ("PARKED_MAX", 0, "parked requests"),
    ],
)
def test_limits_are_told(limit: str, most: int, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is left behind by who runs into one."""
    drive = Drive()
    ann, bob = drive.open(1000, 1000)
    drive.one(AcquireLock(ann, "a"))
    monkeypatch.setattr(limits, limit, most)
    wanted = both("a", "b", "c") if limit == "LOCKS_MAX" else both("a", "b")
    assert drive.one(AcquireLocks(bob, wanted, wait_ms=500)) == QueueFull(what, most)
    assert len(drive.machine.locks) == 1


def test_who_stands_in_the_way_is_told_for_each_lock() -> None:
    """Holders first, then who waits before; never the session itself."""
    drive = Drive()
    ann, bob, cid = drive.open(1000, 1000, 1000)
    drive.one(AcquireLock(ann, "b"), now_ms=1)
    drive.one(AcquireLocks(bob, both("a", "b"), wait_ms=500), now_ms=2)
    drive.one(AcquireLocks(cid, both("a", "b"), wait_ms=500), now_ms=3)
    session = drive.machine.sessions.get(cid)
    assert session is not None
    assert session.places is not None
    (place,) = session.places.values()
    locks = drive.machine.locks
    assert list(locks.blockers("a", cid, place)) == [Blocker(bob, None, 2, 1)]
    assert list(locks.blockers("b", cid, place)) == [
        Blocker(ann, 4, 1, None),
        Blocker(bob, None, 2, 1),
    ]
    assert list(locks.blockers("b", bob, None)) == [
        Blocker(ann, 4, 1, None),
        Blocker(cid, None, 3, 2),
    ]


def waiting() -> Drive:
    """Somebody waits for two locks, of which one is held."""
    drive = Drive()
    ann, bob = drive.open(1000, 1000)
    drive.one(AcquireLock(ann, "b"))
    drive.one(AcquireLocks(bob, (("a", True), ("b", False)), wait_ms=500))
    return drive


def test_a_machine_from_a_snapshot_has_the_places() -> None:
    """Equal rows again, and the grant comes as it would have."""
    steady = waiting()
    rows = list(steady.machine.dump())
    moved = Drive(Machine.load(snapshot.decode(snapshot.encode(rows))))
    moved.seqs = dict(steady.seqs)
    assert list(map(cbor.encode, moved.machine.dump())) == list(map(cbor.encode, rows))
    outcomes: list[list[Outcome]] = [
        drive.ask(ReleaseLock("1-s", "b", 3)) for drive in (steady, moved)
    ]
    assert outcomes[0] == outcomes[1]
    assert isinstance(outcomes[0][1], GrantedMany)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        (0, "9-no", "9-no"),
        (1, ["b", "a"], "not in order of name"),
        (1, ["b"], "no locks or modes"),
        (1, ["a", "c"], "was not granted when it could"),
        (4, 9, "never given"),
    ],
)
def test_a_snapshot_that_contradicts_itself_is_refused(field: int, value: Any, said: str) -> None:
    """A node does not start from a state that never was."""
    rows = list(waiting().machine.dump())
    (row,) = (row for row in rows if row[0] == "lock multis")
    row[1][0][field] = value
    with pytest.raises(ValueError, match=said):
        Machine.load(rows)


def test_names_inside_are_bounded_as_all_names_are() -> None:
    """No control characters, and bytes counted as bytes."""
    for name in ("a\n", "ä" * 101, ""):
        with pytest.raises(WireError):
            commands.decode(commands.encode(AcquireLocks("1-s", ((name, False),))))
        with pytest.raises(WireError):
            commands.decode(commands.encode(ReleaseLocks("1-s", ((name, 1),))))
    command = AcquireLocks("1-s", (("ä" * 100, False),), 3, 4)
    assert commands.decode(commands.encode(command)) == command
