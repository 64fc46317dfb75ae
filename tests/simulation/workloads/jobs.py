"""Jobs: producers, workers that are too slow or forget, and others who change their minds.

RULE: the book knows what was put, who has what until when, and what is gone, by the answers alone;
it compares itself with the machine's jobs.
"""

from __future__ import annotations

from dataclasses import dataclass

from cluster.machine.commands import Command
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
from cluster.machine.machine import Machine
from cluster.machine.outcome import Outcome
from cluster.machine.outcome.jobs import (
    Cancelled,
    DuplicateKey,
    JobDeleted,
    JobKicked,
    JobMoved,
    JobPut,
    OneReserved,
    Reservation,
    Reserved,
    Touched,
    TubeKicked,
    TubesKept,
)
from tests.simulation.clients import Client, Part, Pause, Session, Story
from tests.simulation.network import MS
from tests.simulation.workloads.base import Book, Complain, Entry, Workload

TUBES = ("letters", "pictures")
DEAD = "undeliverable"


@dataclass(slots=True)
class Held:
    """A reservation as the book has it."""

    token: int
    session: str | None
    until_ms: int


@dataclass(slots=True)
class Live:
    """A job as the book has it; nobody may get it from its tube before `due_ms`."""

    tube: str
    key: str | None
    ttr_ms: int
    due_ms: int
    held: Held | None = None
    lost: Held | None = None  # In this entry, by the end of its session.


class JobBook(Book):
    """No job lost, none early, none twice at a time, and one outcome for each cancel."""

    def __init__(self, complain: Complain) -> None:
        super().__init__(complain)
        self._live: dict[int, Live] = {}
        self._gone: dict[int, str] = {}
        # Of each session.
        self._kept: dict[str, dict[str, None]] = {}

    def applied(self, entry: Entry) -> None:
        """What time and sessions ended, then the answers in their order."""
        for job in self._live.values():
            job.lost = None
            if job.held is None:
                continue
            if job.held.until_ms <= entry.now_ms:
                job.held = None
                self.count("timed out")
            elif job.held.session in entry.gone:
                job.held, job.lost = None, job.held
        for event in entry.events:
            if event.kind == "tube" and event.what == "dead_lettered":
                job = self._live[dict(event.more)["job"]]
                job.tube, job.key = event.name, None
                self.count("dead-lettered")
        for _, command, outcome in entry.fresh:
            self._look(entry, command, outcome)
        for job in self._live.values():
            if job.held is not None and job.held.session in entry.gone:
                job.held = None  # Given and lost within one entry.
        for session in entry.gone:
            self._kept.pop(session, None)
        self._compare(entry.index, entry.machine)

    def _look(self, entry: Entry, command: Command | None, outcome: Outcome) -> None:
        if isinstance(outcome, JobPut) and isinstance(command, PutJob):
            self._put(entry, command, outcome)
        elif isinstance(outcome, Reserved) and isinstance(command, ReserveJobs):
            for one in outcome.jobs:
                self._reserved(entry, one, command.session, is_in_turn=True)
        elif isinstance(outcome, OneReserved) and isinstance(command, ReserveJob):
            self._reserved(entry, outcome.reservation, command.session, is_in_turn=False)
        elif isinstance(outcome, DuplicateKey):
            if outcome.job not in self._live:
                self.complain("jobs", f"{outcome} at {entry.index}: there is no such job")
            self.count("duplicate")
        elif isinstance(outcome, Cancelled):
            self._cancelled(entry, outcome)
        elif isinstance(outcome, TubeKicked) and outcome.kicked:
            for job in self._live.values():
                if job.tube == outcome.tube:
                    job.due_ms = 0
        elif isinstance(outcome, JobKicked) and outcome.kicked:
            self._live[outcome.job].due_ms = 0
        elif isinstance(outcome, (JobDeleted, JobMoved, Touched)):
            self._done(entry, command, outcome)
        elif isinstance(outcome, TubesKept) and isinstance(command, KeepTubes):
            kept = self._kept.setdefault(command.session, {})
            for name in command.drop:
                kept.pop(name, None)
            kept |= dict.fromkeys(command.keep)
            self.count("tubes kept")

    def _put(self, entry: Entry, command: PutJob, outcome: JobPut) -> None:
        if outcome.job in self._live or outcome.job in self._gone:
            self.complain("jobs", f"{outcome} at {entry.index}: the id was given before")
        for number, job in self._live.items():
            if command.key is not None and (job.tube, job.key) == (command.tube, command.key):
                self.complain("a key lives once", f"{outcome} at {entry.index} beside job {number}")
        due_ms = entry.now_ms + command.delay_ms
        self._live[outcome.job] = Live(command.tube, command.key, command.ttr_ms, due_ms)
        self.count("put")

    def _reserved(
        self, entry: Entry, one: Reservation, session: str | None, *, is_in_turn: bool
    ) -> None:
        entry.gave(one.token, one)
        job = self._live.get(one.job)
        where = f"{one} at {entry.index}"
        if job is None:
            self.complain("exactly one end of a job", f"{where}: {self._gone.get(one.job)}")
            return
        if job.held is not None and job.held.session not in entry.gone:
            self.complain("one worker at a time", f"{where} while {job.held} has it")
        if is_in_turn and job.due_ms > entry.now_ms:
            self.complain("no job early", f"{where}: due at {job.due_ms}, it is {entry.now_ms}")
        job.due_ms = 0
        job.held = Held(one.token, session, entry.now_ms + one.ttr_ms)
        self.count("reserved")

    def _cancelled(self, entry: Entry, outcome: Cancelled) -> None:
        job = None if outcome.job is None else self._live.get(outcome.job)
        where = f"{outcome} at {entry.index}"
        if outcome.cancelled:
            assert outcome.job is not None
            if job is None:
                self.complain("exactly one end of a job", f"{where}: {self._gone.get(outcome.job)}")
            elif job.held is not None and job.held.session not in entry.gone:
                self.complain("a cancelled job is nobody's", f"{where} while {job.held} has it")
            self._end(outcome.job, "cancelled")
        elif outcome.state == "reserved":
            if job is None or (job.held or job.lost) is None:
                self.complain("a cancelled job is nobody's", f"{where}: nobody has it")
            self.count("too late to cancel")
        elif job is not None:
            self.complain("exactly one end of a job", f"{where}: it is there")

    def _done(
        self, entry: Entry, command: Command | None, outcome: JobDeleted | JobMoved | Touched
    ) -> None:
        """Something that takes a token, or a delete of what nobody has."""
        assert isinstance(command, (DeleteJob, ReleaseJob, BuryJob, TouchJob, ReturnJob))
        job = self._live.get(outcome.job)
        where = f"{outcome} for {command} at {entry.index}"
        if job is None:
            self.complain("exactly one end of a job", f"{where}: {self._gone.get(outcome.job)}")
            return
        tokens = [held.token for held in (job.held, job.lost) if held is not None]
        if command.token is None:
            if job.held is not None and job.held.session not in entry.gone:
                self.complain("one worker at a time", f"{where} while {job.held} has it")
        elif command.token not in tokens:
            self.complain("a late token is stale", f"{where}: {tokens} would do")
        if isinstance(outcome, JobDeleted):
            self._end(outcome.job, "deleted")
        elif isinstance(outcome, Touched):
            if job.held is not None:
                job.held.until_ms = entry.now_ms + outcome.expires_in_ms
        else:
            job.held = None
            if isinstance(command, ReleaseJob) and outcome.state == "delayed":
                job.due_ms = entry.now_ms + command.delay_ms
            self.count(type(command).__name__.removesuffix("Job").lower())

    def _end(self, number: int, why: str) -> None:
        self._live.pop(number, None)
        self._gone[number] = why
        self.count(why)

    def _compare(self, index: int, machine: Machine) -> None:
        """Total queue: what was put and has not ended is there, and had by whom the book says."""
        totals = machine.jobs.pictures.totals()
        if totals.jobs != len(self._live):
            self.complain("jobs", f"after {index}: machine {totals.jobs}, book {len(self._live)}")
        held = sum(job.held is not None for job in self._live.values())
        if totals.reserved != held:
            self.complain("jobs", f"after {index}: machine {totals.reserved} reserved, book {held}")
        for session, kept in self._kept.items():
            for name in kept:
                if name not in machine.jobs.stock.tubes:
                    self.complain("a kept tube stays", f"after {index}: {name}, kept by {session}")

    def check(self, machine: Machine) -> None:
        """Job by job."""
        pictures = machine.jobs.pictures
        for number, job in self._live.items():
            found = pictures.job(number, machine.now_ms)
            if found is None:
                self.complain("no job lost", f"job {number} of {job} is gone")
            elif found.tube != job.tube or found.token != (
                None if job.held is None else job.held.token
            ):
                self.complain("jobs", f"job {number}: machine {found}, book {job}")
        for tube in pictures.tubes(machine.now_ms):
            if tube.waiting and tube.ready and not tube.resumes_in_ms:
                self.complain("nobody waits for nothing", f"{tube}")


def turn(client: Client, session: Session) -> Part:
    """One thing done with a session."""
    yield from _do(client, session, [])


def live(client: Client) -> Story:
    """Some things done, with a session or, mostly, without."""
    rng = client.rng
    session = None
    if rng.random() < 0.4:
        session = yield from client.open(rng.choice((600, 3_000, 8_000)))
    put: list[int] = []
    for _ in range(rng.randrange(3, 12)):
        if client.is_stopped or (session is not None and session.is_over):
            break
        yield from _do(client, session, put)
        yield client.think()
    if session is not None:
        yield from session.end()


def _do(client: Client, session: Session | None, put: list[int]) -> Part:
    rng = client.rng
    lot = rng.random()
    if lot < 0.40:
        yield from _put(client, put)
    elif lot < 0.85:
        yield from _work(client, session)
    elif lot < 0.93 and put:
        job = rng.choice(put)
        yield from client.call(rng.choice((CancelJob, CancelJob, KickJob))(job))
    elif lot < 0.96:
        yield from client.call(CancelKey(rng.choice(TUBES), f"k{rng.randrange(4)}"))
    elif lot < 0.98:
        yield from client.call(KickTube(rng.choice(TUBES), rng.choice((1, 3, 100))))
    elif lot < 0.99 or session is None:
        yield from client.call(PauseTube(rng.choice(TUBES), rng.choice((0, 100, 400))))
    else:
        tubes = (TUBES[:1], TUBES[1:], (DEAD, "empty"), ())
        yield from client.call(KeepTubes(session.id, rng.choice(tubes), rng.choice(tubes)))


def _put(client: Client, put: list[int]) -> Part:
    rng = client.rng
    command = PutJob(
        rng.choice(TUBES),
        b"of %s" % client.name.encode(),
        True,
        priority=rng.choice((0, 0, 0, 9, -9)),
        delay_ms=rng.choice((0, 0, 50, 400, 2_000)),
        ttr_ms=rng.choice((1_000, 1_000, 3_000)),
        key=f"k{rng.randrange(4)}" if rng.random() < 0.2 else None,
        dead_letter=DeadLetter(DEAD, 2, True) if rng.random() < 0.2 else None,
        by_due=rng.random() < 0.2,
    )
    outcome = yield from client.call(command)
    if isinstance(outcome, JobPut):
        put.append(outcome.job)
        del put[:-5]


def _work(client: Client, session: Session | None) -> Part:
    """Reserve some, work on them, perhaps too long, and say what became of them, or nothing."""
    rng = client.rng
    tubes = rng.choice((TUBES[:1], TUBES[1:], TUBES, (*TUBES, DEAD)))
    wait_ms = 0 if rng.random() < 0.3 else rng.randrange(50, 2_000)
    patience_us = rng.randrange(10 * MS, 800 * MS) if rng.random() < 0.15 else None
    session_id = None if session is None or rng.random() < 0.2 else session.id
    hold_ms = 300 if rng.random() < 0.1 else None
    command = ReserveJobs(tubes, session_id, rng.choice((1, 1, 1, 3)), wait_ms, hold_ms)
    outcome = yield from client.call(command, patience_us=patience_us)
    if session is not None:
        session.note(outcome)
    if not isinstance(outcome, Reserved):
        return
    for one in outcome.jobs:
        yield Pause(1 + int(rng.expovariate(1 / (80 * MS))))
        if rng.random() < 0.1:
            yield Pause(1_200 * MS)
        yield from _finish(client, one)


def _finish(client: Client, one: Reservation) -> Part:
    rng = client.rng
    job, token, lot = one.job, one.token, rng.random()
    if lot < 0.1:
        return  # Forgotten: its time runs out.
    if lot < 0.2:
        yield from client.call(TouchJob(job, token))
        yield Pause(rng.randrange(200 * MS))
    if lot < 0.25:
        delay_ms = rng.choice((0, 300))
        yield from client.call(ReleaseJob(job, token, rng.choice((None, 4)), delay_ms))
    elif lot < 0.32:
        yield from client.call(BuryJob(job, token))
        if rng.random() < 0.7:
            yield from client.call(rng.choice((KickJob, ReserveJob, CancelJob))(job))
    else:
        yield from client.call(DeleteJob(job, token))


WORKLOAD = Workload("jobs", book=JobBook, turn=turn, live=live)
