"""The machine: order within an entry, and a log that only goes forward."""

from __future__ import annotations

import pytest

from cluster.machine.commands import (
    AcquireLock,
    Batch,
    CloseSession,
    Group,
    KeepAlive,
    OpenSession,
    Origin,
    Request,
)
from cluster.machine.machine import Machine
from cluster.machine.outcome import (
    Answer,
    Closed,
    Granted,
    Opened,
    Queued,
    Renewed,
    SessionExpired,
)
from tests.machine.drive import Drive


def test_deadlines_come_before_the_commands_of_the_same_entry() -> None:
    """A lock whose holder is due is free for the first command of the entry."""
    drive = Drive()
    first, second = drive.open(100, 1000, now_ms=0)
    drive.ask(AcquireLock(first, "door"))
    assert drive.one(AcquireLock(second, "door"), now_ms=100) == Granted("door", second, 4, False)


def test_requests_are_applied_in_the_order_the_leader_received_them() -> None:
    """Groups and requests in order: the earlier one wins."""
    drive = Drive()
    first, second = drive.open(1000, 1000)
    drive.entry(
        0,
        Group(Origin("n2", 1), 0, (Request(1, AcquireLock(second, "door", wait_ms=50)),)),
        Group(Origin("n3", 1), 0, (Request(1, AcquireLock(first, "door", wait_ms=50)),)),
    )
    assert drive.told == [
        ("n2", 1, Granted("door", second, 3, False)),
        ("n3", 1, Queued("door", 1)),
    ]


def test_what_a_request_frees_is_granted_before_the_next_request() -> None:
    """Nobody of the same entry slips in between."""
    drive = Drive()
    first, second, third = drive.open(*[1000] * 3)
    drive.ask(AcquireLock(first, "door"))
    drive.ask(AcquireLock(second, "door", wait_ms=500))
    drive.ask(CloseSession(first), AcquireLock(third, "door", wait_ms=500))
    assert [outcome for _, _, outcome in drive.told] == [
        Closed(first),
        Granted("door", second, 5, False),
        Queued("door", 1),
    ]


def test_an_empty_batch_is_a_timer() -> None:
    """It carries nothing but the time, and does what is due."""
    drive = Drive()
    (session,) = drive.open(100, now_ms=0)
    assert drive.at(99) == []
    assert drive.machine.counts().sessions == 1
    assert drive.at(100) == []
    assert drive.machine.counts().sessions == 0
    assert drive.one(KeepAlive(session)) == SessionExpired(session)


def test_next_deadline_is_never_too_early() -> None:
    """A session that is kept alive costs no timer entries."""
    drive = Drive()
    (session,) = drive.open(100, now_ms=0)
    for now_ms in range(0, 1000, 50):
        assert drive.one(KeepAlive(session), now_ms=now_ms) == Renewed(session, 100)
        assert drive.machine.next_deadline_ms() == now_ms + 100


def test_answers_name_their_requests() -> None:
    """Node, life and number, as they stood in the entry."""
    machine = Machine()
    group = Group(Origin("n7", 3), 40, (Request(41, OpenSession("x", 10)),))
    (answer,) = machine.apply(1, Batch(0, 0, (group,)))
    assert isinstance(answer, Answer)
    assert answer.request == ("n7", 3, 41)
    assert answer.outcome == Opened("1-x", 10, 1)


def test_the_log_only_goes_forward() -> None:
    """An entry that was applied already is our own bug, and loud."""
    machine = Machine()
    machine.apply(3, Batch(0, 0))
    with pytest.raises(ValueError, match="the log goes forward"):
        machine.apply(3, Batch(0, 0))
    with pytest.raises(ValueError, match="the log goes forward"):
        machine.skip(2)
    machine.skip(9)
    assert machine.index == 9


def test_counts_what_there_is() -> None:
    """One figure for everything that can grow."""
    drive = Drive()
    first, second = drive.open(1000, 1000)
    drive.ask(AcquireLock(first, "door"), AcquireLock(first, "gate"))
    drive.ask(AcquireLock(second, "door", wait_ms=50), AcquireLock(second, "door", wait_ms=50))
    drive.ask(KeepAlive(first), key="k", fingerprint=b"f")
    counts = drive.machine.counts()
    assert (counts.sessions, counts.locks, counts.waiters, counts.parked) == (2, 2, 1, 2)
    assert (counts.answers, counts.keys) == (7, 1)
