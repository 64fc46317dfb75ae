"""Jobs: put into tubes, reserved by workers for a time, done, given back, buried or cancelled.

RULE: a function of state, cluster time and command. Reads no clock, draws no lots.

A live job is ready, delayed, reserved or buried, and in one tube. Ready ones are given out by
(priority, id) over all tubes that a reserver names and that are not paused; reservers without luck
wait in order of arrival. A reservation has a token and lasts for the job's TTR unless it is
touched; whatever is done to a reserved job is conditional on the token, so a worker that comes too
late finds its token stale for ever. When a reservation ends without the job being done, by TTR,
release or the end of its session, the job is ready again: delivery is at least once. A job that is
cancelled was not reserved, and never will be.

An id is never used again. A tube is there while it has jobs or waiters, is paused, or a session keeps
it; what was counted of it goes with it.
Source: beanstalkd's protocol.txt; goyaad for cancelling and keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from cluster.machine import limits
from cluster.machine.commands.base import Command, RequestId
from cluster.machine.commands.jobs import (
    BuryJob,
    CancelJob,
    CancelKey,
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
from cluster.machine.core import Core
from cluster.machine.events import Event
from cluster.machine.jobs import records as job_records
from cluster.machine.jobs.pictures import JobPictures
from cluster.machine.jobs.stock import Stock
from cluster.machine.jobs.tubes import (
    BURIED,
    KIND,
    NOT_BY_DUE,
    READY,
    RESERVED,
    STATES,
    Hold,
    Job,
    Tube,
    TubePlace,
)
from cluster.machine.outcome.base import Outcome, QueueFull, Refusal, StaleToken
from cluster.machine.outcome.jobs import (
    Cancelled,
    DuplicateKey,
    JobDeleted,
    JobKicked,
    JobMoved,
    JobNotFound,
    JobPut,
    JobReserved,
    NotReserved,
    OneReserved,
    Reserved,
    Touched,
    TubeKicked,
    TubePaused,
    TubesKept,
)
from cluster.machine.parked import Parked, Place
from cluster.machine.primitive import Blocker, Check, Handler, Table
from cluster.machine.sessions import Owned, Session

GONE = "gone"
_NUMBER = re.compile("[1-9][0-9]{0,18}")
_NOTHING = Reserved(())


class Jobs:
    """All live jobs.

    Attributes:
        stock: the jobs and tubes; for reading.
        pictures: of them, for people.
    """

    kind = KIND

    def __init__(self, core: Core) -> None:
        self._core = core
        self.stock = Stock(core)
        self.pictures = JobPictures(self.stock)
        self.handlers: Mapping[type[Command], Handler] = {
            PutJob: self.put,
            ReserveJobs: self.reserve,
            ReserveJob: self.reserve_one,
            DeleteJob: self.delete,
            ReleaseJob: self.release,
            BuryJob: self.bury,
            TouchJob: self.touch,
            KickJob: self.kick,
            KickTube: self.kick_tube,
            CancelJob: self.cancel,
            CancelKey: self.cancel_key,
            PauseTube: self.pause,
            ReturnJob: self.give_back,
            KeepTubes: self.keep,
        }
        self.timers = self.stock.timers
        self.checks: Mapping[type[Command], Check] = {
            PutJob: Check(_put_thing, self._would_refuse_to_put),
            DeleteJob: Check(_job_thing, self._would_refuse_to_delete),
            ReleaseJob: Check(_job_thing, self._not_held_now),
            BuryJob: Check(_job_thing, self._not_held_now),
            TouchJob: Check(_job_thing, self._not_held_now),
            CancelJob: Check(_job_thing, _never_refused),
        }
        self.tables: tuple[Table, ...] = job_records.tables(self.stock)

    def __len__(self) -> int:
        return len(self.stock.jobs)

    # Commands.

    def put(self, command: PutJob, _: RequestId) -> JobPut | Refusal:
        """Take a job in; a waiter may have it before the answer is given."""
        core, name = self._core, command.tube
        refusal = self._would_refuse_to_put(command)
        if refusal is not None:
            return refusal
        stock = self.stock
        tube = stock.tube(name)
        due_ms = core.now_ms + command.delay_ms - command.overdue_ms
        job = Job(
            stock.next_id(tube, command.key),
            tube,
            command.body,
            command.is_text,
            command.key,
            command.priority,
            command.delay_ms,
            max(command.ttr_ms, limits.JOB_TTR_MS_MIN),
            core.now_ms,
            due_ms if command.by_due else NOT_BY_DUE,
            command.dead_letter,
        )
        stock.add(job)
        tube.total += 1
        self.stock.tell("put", job)
        self.stock.make_ready(job, command.delay_ms)
        return JobPut(job.id, name, STATES[job.state])

    def reserve(self, command: ReserveJobs, _: RequestId) -> Outcome | Parked:
        """Give out what is ready, have the request wait, or answer that there is nothing."""
        core = self._core
        session = None
        if command.session is not None:
            session = core.sessions.get(command.session)
            if session is None:
                return core.gone(command.session)
            if (refusal := core.no_room(session)) is not None:
                return refusal
        stock, names = self.stock, tuple(dict.fromkeys(command.tubes))
        known = [tube for name in names if (tube := stock.tubes.get(name)) is not None]
        taken = stock.take(known, command.limit, session, command.hold_ms)
        if taken:
            return Reserved(taken)
        if command.wait_ms <= 0:
            return _NOTHING
        if core.is_full:
            return QueueFull("parked requests", limits.PARKED_MAX)
        if any(len(tube.waiters) >= limits.WAITERS_PER_TUBE_MAX for tube in known):
            return QueueFull("waiters of a tube", limits.WAITERS_PER_TUBE_MAX)
        new = len(names) - len(known)
        if new and len(stock.tubes) + new > limits.TUBES_MAX:
            return QueueFull("tubes", limits.TUBES_MAX)
        tubes = tuple(stock.tube(name) for name in names)
        place = TubePlace(
            tubes,
            command.session,
            command.limit,
            core.next_arrival(),
            core.now_ms,
            command.hold_ms,
        )
        stock.enter(place)
        return core.park(place, command.wait_ms)

    def reserve_one(self, command: ReserveJob, _: RequestId) -> OneReserved | Refusal:
        """Reserve a job by its id, in whatever state but reserved."""
        core = self._core
        session = None
        if command.session is not None:
            session = core.sessions.get(command.session)
            if session is None:
                return core.gone(command.session)
            if (refusal := core.no_room(session)) is not None:
                return refusal
        job = self.stock.jobs.get(command.job)
        if job is None:
            return JobNotFound(command.job)
        if job.hold is not None:
            return self._reserved(job.id, job.hold)
        return OneReserved(self.stock.reserve(job, session))

    def delete(self, command: DeleteJob, _: RequestId) -> JobDeleted | Refusal:
        """End a job: by who has it, or by anybody while nobody has it."""
        refusal = self._would_refuse_to_delete(command)
        if refusal is not None:
            return refusal
        job = self.stock.jobs[command.job]
        job.tube.deletes += 1
        self.stock.remove(job, "deleted")
        return JobDeleted(job.id, job.tube.name)

    def release(self, command: ReleaseJob, _: RequestId) -> JobMoved | Refusal:
        """Give a job back."""
        refusal = self._not_held_now(command)
        if refusal is not None:
            return refusal
        job = self.stock.jobs[command.job]
        hold = self.stock.end_hold(job)
        if command.priority is not None:
            job.priority = command.priority
        job.delay_ms = command.delay_ms
        if job.due_ms != NOT_BY_DUE and command.delay_ms > 0:
            job.due_ms = self._core.now_ms + command.delay_ms
        job.past.releases += 1
        self.stock.tell("released", job, hold)
        if not self.stock.give_up(job):
            self.stock.make_ready(job, command.delay_ms)
        return self._moved(job)

    def bury(self, command: BuryJob, _: RequestId) -> JobMoved | Refusal:
        """Set a job aside."""
        refusal = self._not_held_now(command)
        if refusal is not None:
            return refusal
        job = self.stock.jobs[command.job]
        hold = self.stock.end_hold(job)
        if command.priority is not None:
            job.priority = command.priority
        job.past.buries += 1
        self.stock.tell("buried", job, hold)
        self.stock.bury(job)
        return self._moved(job)

    def touch(self, command: TouchJob, _: RequestId) -> Touched | Refusal:
        """Let a reservation last for a whole TTR from now; one that lasts longer anyhow still does.

        A deadline may only be moved to a later time: see `Deadlines.arm`.
        """
        refusal = self._not_held_now(command)
        if refusal is not None:
            return refusal
        job = self.stock.jobs[command.job]
        hold, now_ms = job.hold, self._core.now_ms
        assert hold is not None
        hold.deadline_ms = max(hold.deadline_ms, now_ms + job.ttr_ms)
        return Touched(job.id, job.tube.name, hold.deadline_ms - now_ms)

    def give_back(self, command: ReturnJob, _: RequestId) -> JobMoved | Refusal:
        """Undo a reservation, as its client never heard of it."""
        refusal = self._not_held_now(command)
        if refusal is not None:
            return refusal
        job = self.stock.jobs[command.job]
        hold = self.stock.end_hold(job)
        job.past.reserves -= 1
        self.stock.tell("returned", job, hold)
        self.stock.make_ready(job)
        return self._moved(job)

    def kick(self, command: KickJob, _: RequestId) -> JobKicked | Refusal:
        """Make a buried or delayed job ready."""
        job = self.stock.jobs.get(command.job)
        if job is None:
            return JobNotFound(command.job)
        if job.hold is not None:
            return self._reserved(job.id, job.hold)
        kicked = job.state != READY
        if kicked:
            self.stock.kick(job)
        return JobKicked(job.id, job.tube.name, kicked)

    def kick_tube(self, command: KickTube, _: RequestId) -> TubeKicked:
        """Make many jobs ready, buried ones before all delayed ones."""
        name = command.tube
        tube = self.stock.tubes.get(name)
        if tube is None:
            return TubeKicked(name, 0)
        buried = tube.lines[BURIED]
        line = buried or tube.delayed
        count = min(command.bound, len(line), limits.JOBS_PER_KICK_MAX)
        for job in line.after(None, count):
            self.stock.kick(job)
        return TubeKicked(name, count)

    def cancel(self, command: CancelJob, _: RequestId) -> Cancelled:
        """End a job if nobody has it: one outcome, whoever else asks for it at the same time."""
        return self._cancel(command.job)

    def cancel_key(self, command: CancelKey, _: RequestId) -> Cancelled:
        """As `cancel`, by key."""
        tube = self.stock.tubes.get(command.tube)
        return self._cancel(None if tube is None else tube.job_of(command.key))

    def pause(self, command: PauseTube, _: RequestId) -> TubePaused | Refusal:
        """Pause a tube, make its pause another one, or end it."""
        core, name, for_ms = self._core, command.tube, command.for_ms
        tube = self.stock.tubes.get(name)
        if tube is None:
            if for_ms == 0:
                return TubePaused(name, 0)
            if len(self.stock.tubes) >= limits.TUBES_MAX:
                return QueueFull("tubes", limits.TUBES_MAX)
            tube = self.stock.tube(name)
        tube.pauses += 1
        before, tube.pause = tube.pause, None
        if before is not None:
            core.deadlines.disarm(before)
        if for_ms > 0:
            self.stock.pause(tube, for_ms, core.now_ms + for_ms)
            core.events.append(Event("paused", KIND, name, None, 0, (("for_ms", for_ms),)))
        elif before is not None:
            self.stock.resumed(before)
        return TubePaused(name, for_ms)

    def keep(self, command: KeepTubes, _: RequestId) -> TubesKept | Refusal:
        """Let a session keep tubes, and others no longer."""
        core, stock = self._core, self.stock
        session = core.sessions.get(command.session)
        if session is None:
            return core.gone(command.session)
        kept = dict.fromkeys(command.keep)
        new = [name for name in kept if _kept(name) not in session.owned]
        if session.things + len(new) > limits.OWNED_PER_SESSION_MAX:
            return QueueFull("things of a session", limits.OWNED_PER_SESSION_MAX)
        absent = sum(name not in stock.tubes for name in new)
        if absent and len(stock.tubes) + absent > limits.TUBES_MAX:
            return QueueFull("tubes", limits.TUBES_MAX)
        for name in new:
            token = core.tokens.next()
            stock.keep(stock.tube(name), session.id, token)
            session.took(_kept(name), token)
        for name in command.drop:
            if name not in kept and session.owned.pop(_kept(name), None) is not None:
                stock.unkeep(name, session.id)
        return TubesKept(session.id)

    # What the machine asks of every primitive.

    def free(self, session: Session, thing: Owned, token: int) -> None:
        """A worker is gone: its job is ready at once, and this counts neither way."""
        if thing == _kept(thing[1]):
            self.stock.unkeep(thing[1], session.id)
            return
        job = self.stock.jobs[int(thing[2])]
        hold = self.stock.end_hold(job)
        assert hold.token == token
        self.stock.tell("lost", job, hold)
        self.stock.make_ready(job)

    def leave(self, place: Place) -> None:
        """Take a reserver out of all its queues."""
        assert isinstance(place, TubePlace)
        self.stock.leave(place)

    def settle(self, name: str) -> None:
        """Give ready jobs to those who wait for them."""
        core, tube = self._core, self.stock.tubes.get(name)
        while tube is not None and tube.waiters and tube.gives:
            place = tube.waiters[0]
            session = None
            if place.session is not None:
                session = core.living(place.session)
                if session is None:
                    continue  # It took its place along.
            # First what it takes, then its place: a tube that it waits for may be gone without it.
            taken = self.stock.take(place.tubes, place.limit, session, place.hold_ms)
            self.stock.leave(place)
            core.grant(place, Reserved(taken))

    def position(self, place: Place) -> int:
        """Where it stands in the queue of the tube it named first, from 1."""
        assert isinstance(place, TubePlace)
        tube: Tube = self.stock.tubes[place.name]
        return tube.rank(place) + 1

    def too_late(self, place: Place) -> Reserved:
        """Nothing became ready: that is an answer like any other."""
        assert isinstance(place, TubePlace)
        return _NOTHING

    def places(self) -> Iterator[Place]:
        """By the tube they named first, in queue order."""
        return self.stock.places()

    def blockers(self, name: str, session: str, place: Place | None) -> Iterator[Blocker]:
        """All waiters before; who has jobs of this tube is in nobody's way."""
        tube = self.stock.tubes.get(name)
        if tube is None:
            return
        for position, other in enumerate(tube.waiters, 1):
            if other is place:
                return
            yield Blocker(other.session, None, other.since_ms, position)

    # How it is done.

    def _cancel(self, job_id: int | None) -> Cancelled:
        job = None if job_id is None else self.stock.jobs.get(job_id)
        if job is None:
            return Cancelled(job_id, False, GONE, None)
        if job.hold is not None:
            left_ms = job.hold.deadline_ms - self._core.now_ms
            return Cancelled(job.id, False, STATES[RESERVED], left_ms)
        self.stock.remove(job, "cancelled")
        return Cancelled(job.id, True, GONE, None)

    def _moved(self, job: Job) -> JobMoved:
        return JobMoved(job.id, job.tube.name, STATES[job.state])

    # Refusals.

    def _reserved(self, job_id: int, hold: Hold) -> JobReserved:
        now_ms = self._core.now_ms
        return JobReserved(
            job_id,
            hold.session,
            now_ms - hold.since_ms,
            max(0, hold.deadline_ms - now_ms),
            hold.token,
        )

    def _would_refuse_to_put(self, command: PutJob) -> Refusal | None:
        headroom = self._core.headroom
        tube = self.stock.tubes.get(command.tube)
        if tube is None:
            if len(self.stock.tubes) + headroom > limits.TUBES_MAX:
                return QueueFull("tubes", limits.TUBES_MAX)
        elif command.key is not None and (job_id := tube.job_of(command.key)) is not None:
            state = STATES[self.stock.jobs[job_id].state]
            return DuplicateKey(command.tube, command.key, job_id, state)
        if command.is_id and (other := self._numbered(command)) is not None:
            return DuplicateKey(command.tube, command.key or "", other.id, STATES[other.state])
        if len(self.stock.jobs) + headroom > limits.JOBS_MAX:
            return QueueFull("jobs", limits.JOBS_MAX)
        # Of a batch, the others may be as large as a command can be.
        others = (headroom - 1) * limits.JOB_BODY_BYTES_MAX
        if self.stock.bytes + len(command.body) + others > limits.JOB_BYTES_MAX:
            return QueueFull("bytes of jobs", limits.JOB_BYTES_MAX)
        return None

    def _numbered(self, command: PutJob) -> Job | None:
        """The job without a key whose number, as people write it, is the key of this one."""
        key = command.key
        if key is None or not _NUMBER.fullmatch(key):
            return None
        job = self.stock.jobs.get(int(key))
        is_other = job is None or job.key is not None or job.tube.name != command.tube
        return None if is_other else job

    def _would_refuse_to_delete(self, command: DeleteJob) -> Refusal | None:
        if command.token is not None:
            return self._not_held_now(command)
        job = self.stock.jobs.get(command.job)
        if job is None:
            return JobNotFound(command.job)
        return None if job.hold is None else self._reserved(job.id, job.hold)

    def _not_held_now(
        self, command: DeleteJob | ReleaseJob | BuryJob | TouchJob | ReturnJob
    ) -> Refusal | None:
        """The refusal for a token that is not the one of a present reservation."""
        job, token = self.stock.jobs.get(command.job), command.token
        assert token is not None
        if job is None:
            return JobNotFound(command.job)
        hold = job.hold
        if hold is None:
            return NotReserved(job.id, token, STATES[job.state])
        if hold.token != token:
            return StaleToken(str(job.id), token, hold.token, "job")
        return None


def _put_thing(command: PutJob) -> tuple[str, ...]:
    """What a put touches: its key. Without one, nothing that another could touch."""
    return () if command.key is None else (KIND, command.tube, "key", command.key)


def _job_thing(
    command: DeleteJob | ReleaseJob | BuryJob | TouchJob | CancelJob,
) -> tuple[str, ...]:
    return KIND, "job", str(command.job)


def _kept(name: str) -> Owned:
    """A tube as a thing that a session keeps; its jobs have their ids as their parts."""
    return KIND, name, ""


def _never_refused(_: Command) -> None:
    return None
