"""Jobs against a plain model and against their laws, on thousands of random entries.

A failing walk prints its number; `--seed N` shifts all walks to other ones.
"""

from __future__ import annotations

import random

import pytest

from cluster.machine import limits
from cluster.machine.commands import (
    Abandon,
    Batch,
    CloseSession,
    Command,
    Group,
    KeepAlive,
    OpenSession,
    Origin,
    Request,
)
from cluster.machine.commands.jobs import (
    BuryJob,
    CancelJob,
    CancelKey,
    DeadLetter,
    DeleteJob,
    KeepTubes,
    KickJob,
    KickTube,
    PauseTube,
    PutJob,
    ReleaseJob,
    ReserveJob,
    ReserveJobs,
    ReturnJob,
    TouchJob,
)
from cluster.machine.jobs.tubes import STATES
from cluster.machine.machine import Machine
from cluster.machine.outcome import Opened, Outcome
from cluster.machine.outcome.jobs import (
    Cancelled,
    JobDeleted,
    JobPut,
    OneReserved,
    Reservation,
    Reserved,
)
from cluster.wire import cbor, commands, snapshot
from tests.machine.job_model import JobModel

WALKS = range(25)
ENTRIES = 100
TUBES = ("mail", "pics", "dead")
KEYS = ("k1", "k2", "3", "9", "10", "12")
PRIORITIES = (0, 0, 0, -3, 5, 2000)
DELAYS_MS = (0, 0, 0, 3, 20, 80)
TTRS_MS = (0, 15, 40, 40, 200)
WAITS_MS = (0, 0, 10, 60, 300)


class Walk:
    """Random entries of one node, which learns ids and tokens from the answers."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.now_ms = 0
        self.seq = 0
        self.sessions: list[str] = []
        self.jobs: list[int] = [1]
        self.held: list[tuple[int, int]] = [(1, 1)]

    def entry(self, next_deadline_ms: int | None) -> tuple[int, list[tuple[int, Command]]]:
        """The next entry: often at, just before or just after the next deadline."""
        rng = self.rng
        dice = rng.random()
        if next_deadline_ms is not None and dice < 0.3:
            self.now_ms = max(self.now_ms, next_deadline_ms + rng.choice((-1, 0, 0, 1)))
        elif dice < 0.95:
            self.now_ms += rng.choice((0, 0, 1, 4, 15))
        else:
            self.now_ms += 150
        made = []
        for _ in range(rng.choice((0, 1, 1, 2, 3, 5))):
            self.seq += 1
            made.append((self.seq, self.command()))
        return self.now_ms, made

    def command(self) -> Command:
        rng = self.rng
        dice = rng.random()
        if dice < 0.06 or not self.sessions:
            return OpenSession("s", rng.choice((20, 60, 200)))
        if dice < 0.12:
            return rng.choice((KeepAlive, KeepAlive, CloseSession))(rng.choice(self.sessions))
        if dice < 0.15:
            return Abandon(max(1, self.seq - rng.randrange(1, 6)))
        if dice < 0.40:
            return self.put()
        session = rng.choice(self.sessions) if rng.random() < 0.5 else None
        if dice < 0.62:
            tubes = tuple(rng.choices(TUBES, k=rng.choice((1, 1, 2, 3))))
            limit, hold_ms = rng.choice((1, 1, 1, 2, 4)), rng.choice((None, None, 1, 90, 1500))
            return ReserveJobs(tubes, session, limit, rng.choice(WAITS_MS), hold_ms)
        job, token = rng.choice(self.held[-6:])
        if rng.random() < 0.1:
            token += rng.choice((-1, 1))
        some = rng.choice(self.jobs[-8:])
        priority = rng.choice((None, None, *PRIORITIES))
        return rng.choice(
            (
                ReserveJob(some, session),
                DeleteJob(job, max(0, token)),
                DeleteJob(some),
                ReleaseJob(job, max(0, token), priority, rng.choice(DELAYS_MS)),
                ReleaseJob(job, max(0, token)),
                BuryJob(job, max(0, token), priority),
                TouchJob(job, max(0, token)),
                ReturnJob(job, max(0, token)),
                KickJob(some),
                KickTube(rng.choice(TUBES), rng.choice((0, 1, 2, 9))),
                CancelJob(some),
                CancelKey(rng.choice(TUBES), rng.choice(KEYS)),
                PauseTube(rng.choice(TUBES), rng.choice((0, 0, 10, 40))),
                KeepTubes(
                    rng.choice(self.sessions),
                    tuple(rng.choices((*TUBES, "kept"), k=rng.choice((0, 1, 2)))),
                    tuple(rng.choices((*TUBES, "kept"), k=rng.choice((0, 1, 2)))),
                ),
            )
        )

    def put(self) -> PutJob:
        rng = self.rng
        letter = DeadLetter("dead", rng.choice((1, 2)), rng.random() < 0.5)
        return PutJob(
            rng.choice(TUBES),
            b"x" * rng.choice((0, 1, 10, 70)),
            rng.random() < 0.5,
            rng.choice(PRIORITIES),
            rng.choice(DELAYS_MS),
            rng.choice(TTRS_MS),
            rng.choice((None, None, None, *KEYS)),
            letter if rng.random() < 0.3 else None,
            rng.random() < 0.2,
            rng.choice((0, 0, 5, 10_000)),
            rng.random() < 0.5,
        )

    def read(self, told: list[tuple[int, Outcome]]) -> None:
        """Learn from the answers."""
        for _, outcome in told:
            if isinstance(outcome, Opened):
                self.sessions = [*self.sessions[-4:], outcome.session]
            elif isinstance(outcome, JobPut):
                self.jobs.append(outcome.job)
            for one in reservations(outcome):
                self.held.append((one.job, one.token))


def reservations(outcome: Outcome) -> tuple[Reservation, ...]:
    """What an answer gave out."""
    if isinstance(outcome, Reserved):
        return outcome.jobs
    return (outcome.reservation,) if isinstance(outcome, OneReserved) else ()


def applied(
    machine: Machine, index: int, now_ms: int, made: list[tuple[int, Command]]
) -> list[tuple[int, Outcome]]:
    """Apply an entry as it comes over the wire."""
    requests = tuple(Request(seq, commands.decode(commands.encode(one))) for seq, one in made)
    groups = (Group(Origin("n1", 1), 0, requests),) if requests else ()
    answers = machine.apply(index, Batch(now_ms, 0, groups))
    return [(answer.request.seq, answer.outcome) for answer in answers]


def reloaded(machine: Machine) -> Machine:
    """The same machine after a snapshot on disk."""
    return Machine.load(snapshot.decode(snapshot.encode(machine.dump())))


def generator(seed: int, number: int) -> random.Random:
    """The generator of one walk."""
    return random.Random(seed * 10_000 + number)


@pytest.fixture(autouse=True)
def short_ttrs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reservations that run out within a walk, and a kick that is bounded."""
    monkeypatch.setattr(limits, "JOB_TTR_MS_MIN", 10)
    monkeypatch.setattr(limits, "JOBS_PER_KICK_MAX", 5)


@pytest.fixture
def low_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits so low that walks run into them."""
    for name, limit in (
        ("JOBS_MAX", 8),
        ("JOB_BYTES_MAX", 200),
        ("TUBES_MAX", 2),
        ("WAITERS_PER_TUBE_MAX", 2),
        ("OWNED_PER_SESSION_MAX", 3),
        ("PARKED_MAX", 3),
        ("RESERVED_BYTES_MAX", 12),
        ("JOBS_DUE_PER_ENTRY_MAX", 1),
        ("RECORDS_PER_ROW_MAX", 3),
    ):
        monkeypatch.setattr(limits, name, limit)


def look_the_same(machine: Machine, model: JobModel) -> None:
    """Every picture is the one that the model draws."""
    pictures, now_ms = machine.jobs.pictures, model.time_ms
    names = sorted(model.tubes)
    assert pictures.tubes(now_ms) == [model.tube_info(name) for name in names]
    seen = 0
    for name in names:
        for state in STATES:
            found = pictures.jobs(name, state, now_ms, limit=100)
            line = model.line(name, state)
            assert found == [
                model.job_info(job, info.entry) for job, info in zip(line, found, strict=True)
            ]
            seen += len(found)
    assert seen == len(machine.jobs) == len(model.jobs)
    totals = pictures.totals()
    assert (totals.put, totals.timeouts) == (model.last_id - model.skipped, model.timeouts)
    assert totals.bytes == sum(len(job.body) for job in model.jobs)
    for state in STATES:
        assert getattr(totals, state) == sum(job.state == state for job in model.jobs)
    assert totals.waiting == machine.core.parked == len(model.waits)
    assert machine.next_deadline_ms() == model.next_deadline_ms()


@pytest.mark.parametrize("number", WALKS)
def test_jobs_are_what_the_model_says(number: int, seed: int) -> None:
    """Every answer in the same order, every picture, every deadline."""
    walk, machine, model = Walk(generator(seed, number)), Machine(), JobModel()
    index = 0
    for _ in range(ENTRIES):
        index += walk.rng.choice((1, 1, 9))
        now_ms, made = walk.entry(machine.next_deadline_ms())
        told = applied(machine, index, now_ms, made)
        assert told == model.apply(index, now_ms, made)
        look_the_same(machine, model)
        walk.read(told)


@pytest.mark.usefixtures("low_limits")
@pytest.mark.parametrize("number", range(15))
def test_jobs_keep_their_limits_as_the_model_does(number: int, seed: int) -> None:
    """Also when the machine is loaded from a snapshot after every entry."""
    walk, machine, model = Walk(generator(seed, 1000 + number)), Machine(), JobModel()
    for index in range(1, ENTRIES + 1):
        now_ms, made = walk.entry(machine.next_deadline_ms())
        told = applied(machine, index, now_ms, made)
        assert told == model.apply(index, now_ms, made)
        walk.read(told)
        machine = reloaded(machine)
        look_the_same(machine, model)


@pytest.mark.parametrize("number", range(15))
def test_jobs_from_a_snapshot_go_on_as_they_were(number: int, seed: int) -> None:
    """Two machines fed the same log give equal answers, digests and dumps, loaded or not."""
    walk, steady, moved = Walk(generator(seed, number)), Machine(), Machine()
    moves = set(walk.rng.sample(range(ENTRIES), 6))
    for index in range(1, ENTRIES + 1):
        now_ms, made = walk.entry(steady.next_deadline_ms())
        told = applied(steady, index, now_ms, made)
        assert applied(moved, index, now_ms, made) == told
        assert moved.digest == steady.digest
        assert moved.next_deadline_ms() == steady.next_deadline_ms()
        walk.read(told)
        if index in moves:
            before = list(moved.dump())
            moved = reloaded(moved)
            assert list(map(cbor.encode, moved.dump())) == list(map(cbor.encode, before))
    assert moved.full_digest(cbor.encode) == steady.full_digest(cbor.encode)


class Laws:
    """What must be true whatever was asked, told from commands and answers alone (K7)."""

    def __init__(self) -> None:
        self.live: dict[int, int] = {}
        self.cancelled: set[int] = set()
        self.newest = 0

    def look(
        self, machine: Machine, asked: dict[int, Command], told: list[tuple[int, Outcome]]
    ) -> None:
        """Check one entry, after it was applied."""
        now_ms = machine.now_ms
        for seq, outcome in told:
            command = asked[seq]
            if isinstance(outcome, JobPut):
                assert isinstance(command, PutJob)
                assert outcome.job not in self.live, "an id was given twice"
                self.live[outcome.job] = now_ms + command.delay_ms
            elif isinstance(outcome, Cancelled) and outcome.cancelled:
                assert outcome.job is not None
                assert outcome.job not in self.cancelled, "a job was cancelled twice"
                self.cancelled.add(outcome.job)
                del self.live[outcome.job]
            elif isinstance(outcome, JobDeleted):
                del self.live[outcome.job]
            for one in reservations(outcome):
                assert one.job not in self.cancelled, "a cancelled job was reserved"
                assert one.job in self.live
                assert one.token > self.newest, "a token that is not the newest"
                self.newest = max(self.newest, one.token)
                if isinstance(command, ReserveJobs):
                    assert now_ms >= self.live[one.job], "a job was given out early"
                # Reserved before its time, it is ready when that is over.
                self.live[one.job] = 0
            if isinstance(command, (ReleaseJob, KickJob)) and hasattr(outcome, "state"):
                delay_ms = command.delay_ms if isinstance(command, ReleaseJob) else 0
                if outcome.state == "delayed":
                    self.live[command.job] = now_ms + delay_ms
            if type(outcome).__name__ in {"JobKicked", "TubeKicked"}:
                # Kicked: whatever it was delayed for does not count any more.
                self.live = dict.fromkeys(self.live, 0)
        # Total queue: what was put and neither deleted nor cancelled is there, in one line only.
        found = [
            info.job
            for tube in machine.jobs.pictures.tubes(now_ms)
            for state in STATES
            for info in machine.jobs.pictures.jobs(tube.tube, state, now_ms, limit=1000)
        ]
        assert sorted(found) == sorted(self.live)
        for tube in machine.jobs.pictures.tubes(now_ms):
            is_idle = tube.waiting and tube.ready and not tube.paused_for_ms
            assert not is_idle, "somebody waits for a job that is there"


@pytest.mark.parametrize("number", WALKS)
def test_the_laws_of_jobs_hold_on_every_walk(number: int, seed: int) -> None:
    """No job lost, none early, none after its cancel, one holder, nobody waits for nothing."""
    walk, machine, laws = Walk(generator(seed, number)), Machine(), Laws()
    asked: dict[int, Command] = {}
    for index in range(1, ENTRIES + 1):
        now_ms, made = walk.entry(machine.next_deadline_ms())
        asked |= dict(made)
        told = applied(machine, index, now_ms, made)
        laws.look(machine, asked, told)
        walk.read(told)


def test_a_walk_meets_what_it_should_meet() -> None:
    """The walks are not idle: every kind of answer occurs in them."""
    met: set[str] = set()
    for number in WALKS:
        walk, machine = Walk(generator(0, number)), Machine()
        for index in range(1, ENTRIES + 1):
            now_ms, made = walk.entry(machine.next_deadline_ms())
            told = applied(machine, index, now_ms, made)
            met.update(type(outcome).__name__ for _, outcome in told)
            walk.read(told)
    assert met >= {
        "Cancelled",
        "DuplicateKey",
        "JobDeleted",
        "JobKicked",
        "JobMoved",
        "JobNotFound",
        "JobPut",
        "JobReserved",
        "NotReserved",
        "OneReserved",
        "Queued",
        "Reserved",
        "StaleToken",
        "Touched",
        "TubeKicked",
        "TubePaused",
        "TubesKept",
    }
