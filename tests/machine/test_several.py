"""Several commands in one entry: one by one, or all or none."""

from __future__ import annotations

import random
from typing import Any

import pytest

from cluster.machine import limits
from cluster.machine.commands import (
    Abandon,
    AcquireLock,
    AcquireLocks,
    CloseSession,
    Command,
    KeepAlive,
    OpenSession,
    ReleaseLock,
    Several,
)
from cluster.machine.commands.jobs import PutJob, ReserveJob, ReserveJobs
from cluster.machine.commands.several import SINGLE_COMMANDS
from cluster.machine.commands.tasks import Work
from cluster.machine.commands.tickets import ClaimTicket
from cluster.machine.machine import Machine
from cluster.machine.outcome import (
    Batched,
    BatchRefused,
    BatchUnfit,
    Closed,
    Granted,
    LockHeld,
    NotHolder,
    Opened,
    QueueFull,
    Refusal,
    Released,
    Renewed,
)
from cluster.wire import cbor, commands, snapshot
from cluster.wire.cbor import WireError
from tests.machine.drive import Drive


def test_commands_are_carried_out_in_order_and_each_is_answered() -> None:
    """A later one sees what an earlier one did; refusals stand among the answers."""
    drive = Drive()
    (ann,) = drive.open(1000)
    batch = Several(
        (
            OpenSession("b", 500),
            AcquireLock(ann, "a"),
            ReleaseLock(ann, "b", 1),
            KeepAlive(ann),
            CloseSession(ann),
        )
    )
    assert drive.one(batch) == Batched(
        (
            Opened("2-b", 500, 2),
            Granted("a", ann, 3, False),
            NotHolder("b", ann),
            Renewed(ann, 1000),
            Closed(ann),
        )
    )
    assert len(drive.machine.locks) == 0


def test_what_a_command_frees_is_granted_before_the_next() -> None:
    """As if they had come one by one: nobody who waits is overtaken."""
    drive = Drive()
    ann, bob = drive.open(1000, 1000)
    drive.one(AcquireLock(ann, "a"))
    drive.one(AcquireLock(bob, "a", wait_ms=500))
    outcome = drive.one(Several((ReleaseLock(ann, "a", 3), AcquireLock(ann, "a"))))
    assert outcome == Batched((Released("a"), LockHeld("a", bob, 0, 4, 0, 1)))


def test_all_or_nothing_does_nothing_where_one_would_be_refused() -> None:
    """It says which, and what it would have been told."""
    drive = Drive()
    ann, bob = drive.open(1000, 1000)
    drive.one(AcquireLock(bob, "b"))
    before = list(drive.machine.dump())[1:]
    outcome = drive.one(Several((AcquireLock(ann, "a"), AcquireLock(ann, "b")), atomic=True))
    assert outcome == BatchRefused(1, LockHeld("b", bob, 0, 3, 0, 1))
    after = [row for row in list(drive.machine.dump())[1:] if row[0] != "answers"]
    assert [row for row in before if row[0] not in {"answers", "end"}] == [
        row for row in after if row[0] != "end"
    ]


def test_all_or_nothing_does_all() -> None:
    """What is freed on the way is granted when all is done."""
    drive = Drive()
    ann, bob = drive.open(1000, 1000)
    drive.one(AcquireLock(ann, "b"))
    drive.one(AcquireLocks(bob, (("a", False), ("b", False)), wait_ms=900))
    batch = Several((ReleaseLock(ann, "b", 3), AcquireLock(ann, "a", priority=-1)), atomic=True)
    assert drive.one(batch) == Batched((Released("b"), Granted("a", ann, 4, False)))
    assert drive.machine.locks.info("b", 0).holders == ()


def test_all_or_nothing_wants_each_thing_once_and_nothing_unchecked() -> None:
    """Whatever was looked at must be so when it is done."""
    drive = Drive()
    (ann,) = drive.open(1000)
    twice = (AcquireLock(ann, "a"), AcquireLock(ann, "b"), AcquireLock(ann, "a"))
    assert drive.one(Several(twice, atomic=True)) == BatchUnfit(2, 0)
    assert drive.one(Several((OpenSession("x", 9),), atomic=True)) == BatchUnfit(0, None)


@pytest.mark.parametrize(
    ("limit", "what"),
    [("LOCKS_MAX", "locks"), ("OWNED_PER_SESSION_MAX", "things of a session")],
)
def test_all_or_nothing_looks_at_limits_as_if_all_were_done(
    limit: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is room for one, not for two."""
    drive = Drive()
    (ann,) = drive.open(1000)
    monkeypatch.setattr(limits, limit, 1)
    batch = (AcquireLock(ann, "a"), AcquireLock(ann, "b"))
    assert drive.one(Several(batch, atomic=True)) == BatchRefused(0, QueueFull(what, 1))
    assert isinstance(drive.one(Several(batch[:1], atomic=True)), Batched)


def test_a_repeat_is_told_what_the_batch_was_told() -> None:
    """By number and by key, from a snapshot too."""
    drive = Drive()
    (ann,) = drive.open(1000)
    batch = Several((AcquireLock(ann, "a"), ReleaseLock(ann, "b", 1)))
    first = drive.one(batch, key="k")
    refused = drive.one(Several((ReleaseLock(ann, "b", 1),), atomic=True), key="r")
    assert isinstance(refused, BatchRefused)
    moved = Drive(Machine.load(snapshot.decode(snapshot.encode(drive.machine.dump()))))
    moved.seqs = dict(drive.seqs)
    assert moved.one(batch, key="k") == first
    assert moved.resolved(seq=2) == first
    assert moved.resolved(seq=3) == refused
    rows = map(cbor.encode, moved.machine.dump())
    drive.one(batch, key="k")
    assert list(rows) == list(map(cbor.encode, drive.machine.dump()))


@pytest.mark.parametrize(
    "value",
    [
        [150, [], False],
        [150, [[150, [[3, ["1-a"]]], False]], False],
        [150, [[7, 3]], False],
        [150, [[99, 3]], False],
        [150, [[5, "1-a", "a", False, 0, 9]], False],
        [150, [[5, "1-a", "a\n", False, 0, 0]], False],
        [150, [[30, "1-a", [["a\n", False]], 0, 0]], False],
        [150, [[5, "1-a", "a", False, 0, 0]], False, 1],
        [150, 1001 * [[2, "1-a"]], False],
        [150, 5 * [[123, "pool", "1-a"]], False],
    ],
)
def test_a_batch_with_anything_wrong_in_it_is_no_command(value: Any) -> None:
    """No batch in a batch, no abandon, no wait, and every name looked at."""
    with pytest.raises(WireError):
        commands.decode(cbor.encode(value))


@pytest.mark.parametrize(
    ("command", "most"),
    [
        (ReserveJobs(("mail",)), 4),
        (Work("1-a", "pool"), 4),
        (ReserveJob(1), 32),
        (ClaimTicket("1-a", "seats"), 512),
    ],
)
def test_the_answer_to_a_batch_is_bounded(command: Command, most: int) -> None:
    """Whatever it gives out, there is room for it in a snapshot and in one turn of a loop."""
    assert len(Several((command,) * most).commands) == most
    with pytest.raises(ValueError, match="may be too large"):
        Several((command,) * (most + 1))
    with pytest.raises(ValueError, match="may be too large"):
        Several((ReserveJobs(("mail",)),) * 4 + (command,))


def test_the_largest_answer_to_a_batch_fits_into_a_snapshot() -> None:
    """Also where it is remembered for a day."""
    drive = Drive()
    for number in range(1, 33):
        drive.one(PutJob("mail", bytes(limits.JOB_BODY_BYTES_MAX)))
        assert number in drive.machine.jobs.stock.jobs
    batch = Several(tuple(ReserveJob(number) for number in range(1, 33)))
    drive.one(batch, key="key", fingerprint=b"print")
    assert sum(map(len, snapshot.encode(drive.machine.dump()))) > 64 * 1024 * 1024


def test_a_batch_survives_the_wire() -> None:
    """As all commands do."""
    batch = Several((OpenSession("n", 5), AcquireLocks("1-a", (("ä", True),))), atomic=True)
    assert commands.decode(commands.encode(batch)) == batch
    assert Abandon not in SINGLE_COMMANDS
    assert Several not in SINGLE_COMMANDS


@pytest.mark.parametrize("number", range(50))
def test_a_plain_batch_is_as_if_its_commands_had_come_one_by_one(number: int, seed: int) -> None:
    """Two machines, one fed batches, one their commands: the same answers and the same state."""
    rng = random.Random(seed * 1000 + number)
    batched, single = Drive(), Drive()
    for drive in (batched, single):
        drive.open(*6 * [400])
    for step in range(40):
        now_ms = step * rng.choice((0, 1, 10))
        inside = tuple(command(rng, batched) for _ in range(rng.randrange(1, 6)))
        outcome = batched.one(Several(inside), now_ms=now_ms)
        singles = single.ask(*inside, now_ms=now_ms)
        assert isinstance(outcome, Batched)
        assert list(outcome.outcomes) == singles
        assert state(batched) == state(single)


@pytest.mark.parametrize("number", range(50))
def test_all_or_nothing_is_just_that(number: int, seed: int) -> None:
    """Either every command succeeds or the state is what it was, whatever the batch."""
    rng = random.Random(seed * 1000 + number)
    drive = Drive()
    drive.open(*6 * [10_000])
    done = 0
    for _ in range(60):
        if rng.random() < 0.3:
            sessions = [info.session for info in drive.machine.sessions.list(0)]
            name = rng.choice("abcde")
            drive.one(AcquireLock(rng.choice(sessions), name, rng.random() < 0.5, wait_ms=500))
        kinds = tuple(command(rng, drive) for _ in range(rng.randrange(1, 4)))
        before = state(drive)
        outcome = drive.one(Several(kinds, atomic=True))
        if isinstance(outcome, Batched):
            assert not any(isinstance(single, Refusal) for single in outcome.outcomes)
            done += 1
        else:
            assert isinstance(outcome, (BatchRefused, BatchUnfit))
            assert state(drive) == before
    assert done > 3


def command(rng: random.Random, drive: Drive) -> Command:
    """Something that is done with locks; never a wait."""
    machine = drive.machine
    sessions = [info.session for info in machine.sessions.list(0)] or ["1-s"]
    name = rng.choice("abcde")
    holders = machine.locks.info(name, 0).holders
    if holders and rng.random() < 0.6:
        session, token, _, _ = rng.choice(holders)
        return ReleaseLock(session, name, token)
    return AcquireLock(rng.choice(sessions), name, rng.random() < 0.4)


def state(drive: Drive) -> list[Any]:
    """Everything but who asked what, and what was said."""
    rows = [row for row in drive.machine.dump() if row[0] not in {"machine", "answers", "end"}]
    return [row for row in rows if row[0] not in {"origins", "asked"}]
