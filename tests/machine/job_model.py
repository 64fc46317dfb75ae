"""Jobs once more, written to be obviously right: one flat list, searched anew at each step."""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.machine import limits
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
from cluster.machine.outcome import Outcome, QueueFull, StaleToken
from cluster.machine.outcome.jobs import (
    Cancelled,
    DuplicateKey,
    JobDeleted,
    JobInfo,
    JobKicked,
    JobMoved,
    JobNotFound,
    JobPut,
    JobReserved,
    NotReserved,
    OneReserved,
    Reservation,
    Reserved,
    Touched,
    TubeInfo,
    TubeKicked,
    TubePaused,
    TubesKept,
)
from tests.machine.naive import Naive, NaiveSession, NaiveWait

NOBODY = ""


@dataclass
class ModelJob:
    """One live job; `at` is when it is due, or which burial it had."""

    id: int
    tube: str
    body: bytes
    is_text: bool
    key: str | None
    priority: int
    delay_ms: int
    ttr_ms: int
    put_ms: int
    due_ms: int | None
    letter: DeadLetter | None
    state: str = "ready"
    at: int = 0
    token: int = 0
    session: str | None = None
    since_ms: int = 0
    until_ms: int = 0
    reserves: int = 0
    timeouts: int = 0
    releases: int = 0
    buries: int = 0
    kicks: int = 0
    came_from: str | None = None

    @property
    def rank(self) -> tuple[int, int, int]:
        """What it stands by among those of its state."""
        if self.state == "ready":
            return self.priority, -(10**30) if self.due_ms is None else self.due_ms, self.id
        return (self.token if self.state == "reserved" else self.at), 0, self.id


@dataclass
class ModelTube:
    """What is remembered of a tube beside its jobs."""

    number: int
    total: int = 0
    deletes: int = 0
    pauses: int = 0
    paused_for_ms: int = 0
    resumes_ms: int | None = None
    keepers: list[str] = field(default_factory=list)


@dataclass
class JobModel(Naive):
    """All jobs, all tubes."""

    jobs: list[ModelJob] = field(default_factory=list)
    tubes: dict[str, ModelTube] = field(default_factory=dict)
    last_id: int = 0
    skipped: int = 0
    made: int = 0
    burials: int = 0
    timeouts: int = 0

    # Time.

    def apply(
        self, index: int, now_ms: int, commands: list[tuple[int, Command]]
    ) -> list[tuple[int, Outcome]]:
        before_ms = self.time_ms
        self.index, self.told = index, []
        self.time_ms = max(self.time_ms, now_ms)
        # What was too much for an entry waits until the next millisecond.
        held_up = [job.id for job in self.heads() if job.at <= before_ms]
        fell = 0
        while True:
            due = self.due()
            if fell < limits.JOBS_DUE_PER_ENTRY_MAX:
                for job in self.heads():
                    at = before_ms + 1 if job.id in held_up else job.at
                    if at <= self.time_ms:
                        due.append((at, 7, job.id))
            if not due:
                break
            _, kind, number = min(due)
            fell += kind == 7
            self.meet(kind, number)
            self.tidy()
        for seq, command in commands:
            freed: list[str] = []
            answer = self.answer(seq, command, freed)
            self.told.append((seq, answer))
            self.hand_out(freed)
            self.tidy()
        return self.told

    def heads(self) -> list[ModelJob]:
        """The first delayed job of each tube."""
        lines = [self.line(name, "delayed") for name in self.tubes]
        return [line[0] for line in lines if line]

    def due(self) -> list[tuple[int, int, int]]:
        return [
            *super().due(),
            *(
                (job.until_ms, 8, job.token)
                for job in self.jobs
                if job.state == "reserved" and job.until_ms <= self.time_ms
            ),
            *(
                (tube.resumes_ms, 9, tube.number)
                for tube in self.tubes.values()
                if tube.resumes_ms is not None and tube.resumes_ms <= self.time_ms
            ),
        ]

    def meet(self, kind: int, number: int) -> None:
        """One deadline."""
        if kind == 1:
            (session,) = (s for s in self.sessions if s.token == number)
            self.hand_out(self.end(session))
        elif kind == 2:
            (wait,) = (w for w in self.waits if w.order == number)
            self.tell(wait, Reserved(()))
        elif kind == 7:
            (job,) = (j for j in self.jobs if j.id == number)
            job.state = "ready"
            self.hand_out([job.tube])
        elif kind == 8:
            (job,) = (j for j in self.jobs if j.state == "reserved" and j.token == number)
            job.timeouts += 1
            self.timeouts += 1
            self.back(job)
            self.hand_out([job.tube])
        else:
            ((name, tube),) = ((n, t) for n, t in self.tubes.items() if t.number == number)
            tube.resumes_ms = None
            self.hand_out([name])

    def next_deadline_ms(self) -> int | None:
        ends = [job.until_ms for job in self.jobs if job.state == "reserved"]
        ends += [max(job.at, self.time_ms + 1) for job in self.heads()]
        ends += [tube.resumes_ms for tube in self.tubes.values() if tube.resumes_ms is not None]
        other = super().next_deadline_ms()
        return min(ends if other is None else [*ends, other], default=None)

    # Looking.

    def job(self, job_id: int) -> ModelJob | None:
        """The live job of this id."""
        return next((job for job in self.jobs if job.id == job_id), None)

    def job_of(self, tube: str, key: str) -> ModelJob | None:
        """The live job of a tube that keeps others from having this key."""
        return next(
            (j for j in self.jobs if (j.tube, j.key) == (tube, key) and j.came_from is None), None
        )

    def line(self, tube: str, state: str) -> list[ModelJob]:
        """Jobs of a tube in one state, in order."""
        found = [job for job in self.jobs if (job.tube, job.state) == (tube, state)]
        return sorted(found, key=lambda job: job.rank)

    def queue(self, tube: str) -> list[NaiveWait]:
        """Who waits for a tube, in order."""
        return sorted((w for w in self.waits if tube in w.wants[0]), key=lambda w: w.arrival)

    def gives(self, tube: str) -> bool:
        """It has something to give out."""
        known = self.tubes.get(tube)
        return known is not None and known.resumes_ms is None and bool(self.line(tube, "ready"))

    def things(self, session: str) -> int:
        """How much a session holds and waits for."""
        jobs = sum(job.session == session for job in self.jobs)
        waits = sum(wait.session == session for wait in self.waits)
        return jobs + waits + sum(session in tube.keepers for tube in self.tubes.values())

    def tube_info(self, name: str) -> TubeInfo | None:
        """The picture of a tube."""
        tube = self.tubes.get(name)
        if tube is None:
            return None
        queue = self.queue(name)
        ready = self.line(name, "ready")
        return TubeInfo(
            tube=name,
            ready=len(ready),
            delayed=len(self.line(name, "delayed")),
            reserved=len(self.line(name, "reserved")),
            buried=len(self.line(name, "buried")),
            urgent=sum(job.priority < 1024 for job in ready),
            waiting=len(queue),
            total_jobs=tube.total,
            deletes=tube.deletes,
            pauses=tube.pauses,
            paused_for_ms=0 if tube.resumes_ms is None else tube.paused_for_ms,
            resumes_in_ms=0 if tube.resumes_ms is None else tube.resumes_ms - self.time_ms,
            oldest_wait_ms=self.time_ms - queue[0].since_ms if queue else None,
        )

    def job_info(self, job: ModelJob, entry: int) -> JobInfo:
        """The picture of a job; its entry is the machine's own business."""
        is_held = job.state == "reserved"
        left_ms = job.until_ms if is_held else job.at if job.state == "delayed" else self.time_ms
        return JobInfo(
            job=job.id,
            tube=job.tube,
            state=job.state,
            body=job.body,
            is_text=job.is_text,
            key=job.key,
            priority=job.priority,
            age_ms=self.time_ms - job.put_ms,
            delay_ms=job.delay_ms,
            ttr_ms=job.ttr_ms,
            time_left_ms=max(0, left_ms - self.time_ms),
            reserves=job.reserves,
            timeouts=job.timeouts,
            releases=job.releases,
            buries=job.buries,
            kicks=job.kicks,
            came_from=job.came_from,
            dead_letter=job.letter,
            token=job.token if is_held else None,
            session=job.session if is_held else None,
            reserved_for_ms=self.time_ms - job.since_ms if is_held else None,
            due_in_ms=None if job.due_ms is None else job.due_ms - self.time_ms,
            entry=entry,
        )

    # Changing.

    def tube(self, name: str) -> ModelTube:
        """A tube, made if need be."""
        if name not in self.tubes:
            self.made += 1
            self.tubes[name] = ModelTube(self.made)
        return self.tubes[name]

    def tidy(self) -> None:
        """Forget tubes that nobody needs."""
        for name, tube in list(self.tubes.items()):
            has_jobs = any(job.tube == name for job in self.jobs)
            is_busy = has_jobs or self.queue(name) or tube.resumes_ms is not None
            if not is_busy and not tube.keepers:
                del self.tubes[name]

    def stand(self, job: ModelJob, delay_ms: int) -> None:
        """Ready, or delayed."""
        job.session, job.token = None, 0
        job.state = "delayed" if delay_ms > 0 else "ready"
        job.at = self.time_ms + delay_ms

    def back(self, job: ModelJob, delay_ms: int = 0) -> None:
        """A reservation failed."""
        letter = job.letter
        if letter is not None:
            failed = job.timeouts + (job.releases if letter.counts_releases else 0)
            has_room = letter.tube in self.tubes or len(self.tubes) < limits.TUBES_MAX
            if failed >= letter.after and has_room:
                job.came_from, job.letter, job.tube = job.tube, None, letter.tube
                self.tube(letter.tube).total += 1
                delay_ms = 0
        self.stand(job, delay_ms)

    def reserve(self, job: ModelJob, session: str, hold_ms: int | None = None) -> Reservation:
        """Give a job to somebody."""
        lasts_ms = hold_ms or job.ttr_ms
        job.state, job.token, job.session = "reserved", self.next_token(), session or None
        job.since_ms, job.until_ms = self.time_ms, self.time_ms + lasts_ms
        job.reserves += 1
        return Reservation(
            job.id,
            job.tube,
            job.body,
            job.is_text,
            job.token,
            lasts_ms,
            job.priority,
            job.reserves,
            job.key,
        )

    def take(
        self, tubes: tuple[str, ...], limit: int, session: str, hold_ms: int | None
    ) -> tuple[Reservation, ...]:
        """Give the first jobs of all these tubes to somebody."""
        if session:
            limit = min(limit, max(1, limits.OWNED_PER_SESSION_MAX - self.things(session)))
        taken: list[Reservation] = []
        while len(taken) < limit:
            ready = [job for name in tubes if self.gives(name) for job in self.line(name, "ready")]
            if not ready:
                break
            best = min(ready, key=lambda job: job.rank)
            size = sum(len(one.body) for one in taken) + len(best.body)
            if taken and size > limits.RESERVED_BYTES_MAX:
                break
            taken.append(self.reserve(best, session, hold_ms))
        return tuple(taken)

    def free(self, session: str) -> list[str]:
        mine = sorted((j for j in self.jobs if j.session == session), key=lambda job: job.token)
        for job in mine:
            self.stand(job, 0)
        for tube in self.tubes.values():
            tube.keepers = [keeper for keeper in tube.keepers if keeper != session]
        return [job.tube for job in mine]

    def hand_out(self, names: list[str]) -> None:
        for name in names:
            while self.gives(name) and (queue := self.queue(name)):
                wait = queue[0]
                tubes, limit, hold_ms = wait.wants
                if wait.session:
                    session = self.find(wait.session)
                    assert session is not None
                    if session.ends_ms <= self.time_ms:
                        names.extend(self.end(session))
                        continue
                taken = self.take(tubes, limit, wait.session, hold_ms)
                self.tell(wait, Reserved(taken))

    def position(self, wait: NaiveWait) -> int:
        return 1 + [w.order for w in self.queue(wait.name)].index(wait.order)

    def remove(self, job: ModelJob) -> None:
        """Gone."""
        self.jobs.remove(job)

    # Commands.

    def execute(self, seq: int, command: Command, freed: list[str]) -> Outcome:
        if isinstance(command, PutJob):
            return self.put(command, freed)
        if isinstance(command, ReserveJobs):
            return self.reserve_some(seq, command)
        if isinstance(command, KickTube):
            name = command.tube
            line = self.line(name, "buried") or self.line(name, "delayed")
            line = line[: min(command.bound, limits.JOBS_PER_KICK_MAX)]
            for job in line:
                job.kicks += 1
                self.stand(job, 0)
            freed.append(name)
            return TubeKicked(name, len(line))
        if isinstance(command, CancelKey):
            found = self.job_of(command.tube, command.key)
            return self.cancel(None if found is None else found.id)
        if isinstance(command, CancelJob):
            return self.cancel(command.job)
        if isinstance(command, PauseTube):
            return self.pause(command, freed)
        if isinstance(command, KeepTubes):
            return self.keep(command)
        if isinstance(command, (ReserveJob, KickJob)):
            return self.one(command, freed)
        assert isinstance(command, (DeleteJob, ReleaseJob, BuryJob, TouchJob, ReturnJob))
        return self.held(command, freed)

    def put(self, command: PutJob, freed: list[str]) -> Outcome:
        """Put a job."""
        if command.tube not in self.tubes and len(self.tubes) >= limits.TUBES_MAX:
            return QueueFull("tubes", limits.TUBES_MAX)
        if command.key is not None and (other := self.job_of(command.tube, command.key)):
            return DuplicateKey(command.tube, command.key, other.id, other.state)
        if command.is_id:
            for other in self.jobs:
                if (other.tube, other.key, str(other.id)) == (command.tube, None, command.key):
                    return DuplicateKey(command.tube, command.key, other.id, other.state)
        if len(self.jobs) >= limits.JOBS_MAX:
            return QueueFull("jobs", limits.JOBS_MAX)
        if sum(len(job.body) for job in self.jobs) + len(command.body) > limits.JOB_BYTES_MAX:
            return QueueFull("bytes of jobs", limits.JOB_BYTES_MAX)
        self.last_id += 1
        while command.key is None and self.job_of(command.tube, str(self.last_id)):
            self.last_id += 1
            self.skipped += 1
        job = ModelJob(
            self.last_id,
            command.tube,
            command.body,
            command.is_text,
            command.key,
            command.priority,
            command.delay_ms,
            max(command.ttr_ms, limits.JOB_TTR_MS_MIN),
            self.time_ms,
            self.time_ms + command.delay_ms - command.overdue_ms if command.by_due else None,
            command.dead_letter,
        )
        self.tube(command.tube).total += 1
        self.stand(job, command.delay_ms)
        self.jobs.append(job)
        freed.append(job.tube)
        return JobPut(job.id, job.tube, job.state)

    def session_of(self, session: str | None) -> tuple[NaiveSession | None, Outcome | None]:
        """A session, or why there is none, or why it gets nothing more."""
        if session is None:
            return None, None
        found = self.find(session)
        if found is None:
            return None, self.nobody(session)
        if self.things(session) + 1 > limits.OWNED_PER_SESSION_MAX:
            return None, QueueFull("things of a session", limits.OWNED_PER_SESSION_MAX)
        return found, None

    def reserve_some(self, seq: int, command: ReserveJobs) -> Outcome:
        """Reserve, or wait."""
        _, refusal = self.session_of(command.session)
        if refusal is not None:
            return refusal
        taken = self.take(command.tubes, command.limit, command.session or NOBODY, command.hold_ms)
        if taken or command.wait_ms <= 0:
            return Reserved(taken)
        if len(self.waits) >= limits.PARKED_MAX:
            return QueueFull("parked requests", limits.PARKED_MAX)
        for name in command.tubes:
            if len(self.queue(name)) >= limits.WAITERS_PER_TUBE_MAX:
                return QueueFull("waiters of a tube", limits.WAITERS_PER_TUBE_MAX)
        tubes = tuple(dict.fromkeys(command.tubes))
        if len({*self.tubes, *tubes}) > max(limits.TUBES_MAX, len(self.tubes)):
            return QueueFull("tubes", limits.TUBES_MAX)
        for name in tubes:
            self.tube(name)
        wants = (tubes, command.limit, command.hold_ms)
        return self.park(seq, tubes[0], command.session or NOBODY, command.wait_ms, wants)

    def taken(self, job: ModelJob) -> JobReserved:
        """Somebody else has it."""
        return JobReserved(
            job.id,
            job.session,
            self.time_ms - job.since_ms,
            job.until_ms - self.time_ms,
            job.token,
        )

    def one(self, command: ReserveJob | KickJob, freed: list[str]) -> Outcome:
        """Reserve or kick one job."""
        session = NOBODY
        if isinstance(command, ReserveJob):
            _, refusal = self.session_of(command.session)
            if refusal is not None:
                return refusal
            session = command.session or NOBODY
        job = self.job(command.job)
        if job is None:
            return JobNotFound(command.job)
        if job.state == "reserved":
            return self.taken(job)
        if isinstance(command, ReserveJob):
            return OneReserved(self.reserve(job, session))
        was_ready = job.state == "ready"
        if not was_ready:
            job.kicks += 1
            self.stand(job, 0)
            freed.append(job.tube)
        return JobKicked(job.id, job.tube, not was_ready)

    def held(
        self, command: DeleteJob | ReleaseJob | BuryJob | TouchJob | ReturnJob, freed: list[str]
    ) -> Outcome:
        """What is done under a token."""
        job = self.job(command.job)
        if job is None:
            return JobNotFound(command.job)
        if command.token is None:
            if job.state == "reserved":
                return self.taken(job)
        elif job.state != "reserved":
            return NotReserved(job.id, command.token, job.state)
        elif job.token != command.token:
            return StaleToken(str(job.id), command.token, job.token, "job")
        if isinstance(command, DeleteJob):
            self.tube(job.tube).deletes += 1
            self.remove(job)
            return JobDeleted(job.id, job.tube)
        if isinstance(command, TouchJob):
            job.until_ms = max(job.until_ms, self.time_ms + job.ttr_ms)
            return Touched(job.id, job.tube, job.until_ms - self.time_ms)
        if isinstance(command, (ReleaseJob, BuryJob)) and command.priority is not None:
            job.priority = command.priority
        if isinstance(command, ReleaseJob):
            job.releases += 1
            job.delay_ms = command.delay_ms
            if job.due_ms is not None and command.delay_ms > 0:
                job.due_ms = self.time_ms + command.delay_ms
            self.back(job, command.delay_ms)
        elif isinstance(command, BuryJob):
            job.buries += 1
            self.burials += 1
            self.stand(job, 0)
            job.state, job.at = "buried", self.burials
        else:
            job.reserves -= 1
            self.stand(job, 0)
        freed.append(job.tube)
        return JobMoved(job.id, job.tube, job.state)

    def cancel(self, job_id: int | None) -> Cancelled:
        """End a job that nobody has."""
        job = None if job_id is None else self.job(job_id)
        if job is None:
            return Cancelled(job_id, False, "gone", None)
        if job.state == "reserved":
            return Cancelled(job.id, False, "reserved", job.until_ms - self.time_ms)
        self.remove(job)
        return Cancelled(job.id, True, "gone", None)

    def keep(self, command: KeepTubes) -> Outcome:
        """Keep tubes, and drop others."""
        session = command.session
        if self.find(session) is None:
            return self.nobody(session)
        mine = [name for name, tube in self.tubes.items() if session in tube.keepers]
        new = [name for name in dict.fromkeys(command.keep) if name not in mine]
        if self.things(session) + len(new) > limits.OWNED_PER_SESSION_MAX:
            return QueueFull("things of a session", limits.OWNED_PER_SESSION_MAX)
        if len({*self.tubes, *new}) > max(limits.TUBES_MAX, len(self.tubes)):
            return QueueFull("tubes", limits.TUBES_MAX)
        for name in new:
            self.next_token()
            self.tube(name).keepers.append(session)
        for name in command.drop:
            if name in mine and name not in command.keep:
                mine.remove(name)
                self.tubes[name].keepers.remove(session)
        return TubesKept(session)

    def pause(self, command: PauseTube, freed: list[str]) -> Outcome:
        """Pause or resume a tube."""
        name = command.tube
        if name not in self.tubes:
            if command.for_ms == 0:
                return TubePaused(name, 0)
            if len(self.tubes) >= limits.TUBES_MAX:
                return QueueFull("tubes", limits.TUBES_MAX)
        tube = self.tube(name)
        tube.pauses += 1
        tube.paused_for_ms = command.for_ms
        tube.resumes_ms = self.time_ms + command.for_ms if command.for_ms else None
        freed.append(name)
        return TubePaused(name, command.for_ms)
