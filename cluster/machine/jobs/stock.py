"""The stock: all jobs and tubes, and how a job gets from one state to another.

RULE: moves jobs, refuses nothing and answers nobody: who may do what is decided in `jobs.py`.
Whatever moves a job counts it, tells watchers, and sees to timers and waiters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from sortedcontainers import SortedDict

from cluster.machine import limits
from cluster.machine.core import Core
from cluster.machine.deadlines import JOB_DUE, JOB_TTR, TUBE_RESUMES
from cluster.machine.events import Event
from cluster.machine.jobs.tubes import (
    DELAYED,
    KIND,
    READY,
    Due,
    Hold,
    Job,
    Pause,
    Tube,
    TubePlace,
)
from cluster.machine.outcome.jobs import Reservation
from cluster.machine.sessions import Session


class Stock:
    """All live jobs and the tubes they are in.

    Attributes:
        jobs: by id, in order of ids.
        tubes: by name, sorted.
        last_id: of the newest job.
        skipped: numbers that no job got, as they were keys.
        tubes_made, burials: how many ever were; what comes later has a larger number.
        timeouts: reservations that ran out.
        bytes: of all bodies.
        waiters: places of reservers.
        counts: live jobs by state.
        urgent: ready jobs of a priority below Tube.URGENT_BELOW.
        timers: what happens when something is due.
    """

    def __init__(self, core: Core) -> None:
        self.core = core
        self.jobs: dict[int, Job] = {}
        self.tubes: SortedDict[str, Tube] = SortedDict()
        self.last_id = 0
        self.skipped = 0
        self.tubes_made = 0
        self.burials = 0
        self.timeouts = 0
        self.bytes = 0
        self.waiters = 0
        self.counts = [0, 0, 0, 0]
        self.urgent = 0
        # In which entry delayed jobs became ready last, and how many did.
        self._due_index = 0
        self._due_count = 0
        self.timers: Mapping[int, Callable[[Any], None]] = {
            JOB_DUE: self._fell_due,
            JOB_TTR: self._ran_out,
            TUBE_RESUMES: self.resumed,
        }

    # Tubes.

    def tube(self, name: str) -> Tube:
        """The tube of this name, made if need be."""
        tube: Tube | None = self.tubes.get(name)
        if tube is None:
            self.tubes_made += 1
            self.tubes[name] = tube = Tube(name, self.tubes_made, self.jobs)
        return tube

    def tidy(self, tube: Tube) -> None:
        """Forget a tube that nobody needs."""
        if not tube.is_needed:
            del self.tubes[tube.name]

    def keep(self, tube: Tube, session: str, token: int) -> None:
        """Let a tube stay for a session."""
        if tube.keepers is None:
            tube.keepers = {}
        tube.keepers[session] = token

    def unkeep(self, name: str, session: str) -> None:
        """A session does not want a tube to stay any more."""
        tube = self.tubes[name]
        assert tube.keepers is not None, "a tube that nobody keeps"
        del tube.keepers[session]
        if not tube.keepers:
            tube.keepers = None
            self.tidy(tube)

    def pause(self, tube: Tube, for_ms: int, ends_ms: int) -> None:
        """Pause a tube that is not paused, until then."""
        tube.pause = Pause(tube, for_ms, ends_ms)
        self.core.deadlines.arm(TUBE_RESUMES, tube.number, tube.pause)

    def resumed(self, pause: Pause) -> None:
        """A pause is over; its timer is disarmed."""
        tube = pause.tube
        tube.pause = None
        self.core.events.append(Event("resumed", KIND, tube.name))
        self._wake(tube)
        self.tidy(tube)

    def enter(self, place: TubePlace) -> None:
        """Put a place into all its queues, the last of each."""
        for tube in place.tubes:
            tube.waiters.append(place)
        self.waiters += 1

    def leave(self, place: TubePlace) -> None:
        """Take a place out of all its queues."""
        self.waiters -= 1
        for tube in place.tubes:
            del tube.waiters[tube.rank(place)]
            self.tidy(tube)

    def places(self) -> Iterator[TubePlace]:
        """By the tube they named first, in queue order."""
        return (
            place
            for name, tube in self.tubes.items()
            for place in tube.waiters
            if place.name == name
        )

    def _wake(self, tube: Tube) -> None:
        if tube.waiters and tube.gives:
            self.core.unsettle(KIND, tube.name)

    # Jobs that come and go.

    def next_id(self, tube: Tube, key: str | None) -> int:
        """The id of a new job. One without a key gets none that is a key of its tube: each of
        these is passed once, so that is soon done.
        """
        self.last_id += 1
        if key is None and tube.keys is not None:
            while str(self.last_id) in tube.keys:
                self.last_id += 1
                self.skipped += 1
        return self.last_id

    def add(self, job: Job) -> None:
        """Take a new job in; it stands nowhere yet."""
        self.jobs[job.id] = job
        self.bytes += len(job.body)
        if job.has_live_key:
            assert job.key is not None
            if job.tube.keys is None:
                job.tube.keys = {}
            job.tube.keys[job.key] = job.id

    def remove(self, job: Job, why: str) -> None:
        """Let a job go, wherever it stands."""
        hold = job.hold
        if hold is None:
            self.step_out(job)
        else:
            self.end_hold(job)
        del self.jobs[job.id]
        self.bytes -= len(job.body)
        if job.has_live_key:
            self._forget_key(job)
        self.tell(why, job, hold)
        self.tidy(job.tube)

    def _forget_key(self, job: Job) -> None:
        tube = job.tube
        assert job.key is not None
        assert tube.keys is not None
        del tube.keys[job.key]
        if not tube.keys:
            tube.keys = None

    # From one state to another. A job stands in one line, or nowhere between two of these steps.

    def step_in(self, job: Job) -> None:
        """Let a job that has its state and entry stand in its line."""
        self._count(job, 1)
        job.tube.lines[job.state].add(job)

    def step_in_all(self, jobs: Iterable[Job]) -> None:
        """The same for many, at a third of the price: they come from a snapshot."""
        lines: dict[tuple[str, int], list[int]] = {}
        for job in jobs:
            self._count(job, 1)
            lines.setdefault((job.tube.name, job.state), []).append(job.entry)
        for (name, state), entries in lines.items():
            self.tubes[name].lines[state].fill(entries)

    def step_out(self, job: Job) -> None:
        """Take a job out of its line."""
        tube, state = job.tube, job.state
        self._count(job, -1)
        tube.lines[state].remove(job)
        if state == DELAYED:
            self.arm(tube)

    def _count(self, job: Job, by: int) -> None:
        state = job.state
        self.counts[state] += by
        if state == READY and job.priority < Tube.URGENT_BELOW:
            self.urgent += by
            job.tube.urgent += by

    def make_ready(self, job: Job, delay_ms: int = 0) -> None:
        """Let a job that stands nowhere be ready, at once or later."""
        tube = job.tube
        if delay_ms <= 0:
            job.stand_ready()
            self.step_in(job)
            self._wake(tube)
        else:
            job.stand_delayed(self.core.now_ms + delay_ms)
            self.step_in(job)
            self.arm(tube)

    def bury(self, job: Job) -> None:
        """Set a job that stands nowhere aside, behind all others."""
        self.burials += 1
        job.stand_buried(self.burials)
        self.step_in(job)

    def kick(self, job: Job) -> None:
        """Make a job ready that stands in another line."""
        self.step_out(job)
        job.past.kicks += 1
        self.tell("kicked", job)
        self.make_ready(job)

    # Reservations.

    def take(
        self,
        tubes: Iterable[Tube],
        limit: int,
        session: Session | None,
        hold_ms: int | None = None,
    ) -> tuple[Reservation, ...]:
        """Reserve the first jobs over all these tubes, as many as one may have."""
        giving = [tube for tube in tubes if tube.gives]
        if not giving:
            return ()
        if session is not None:
            # Who waits has a place that counts until it gets the first one.
            room = limits.OWNED_PER_SESSION_MAX - session.things
            limit = min(limit, max(room, 1))
        taken: list[Reservation] = []
        size = 0
        while len(taken) < limit:
            best: Job | None = None
            for tube in giving:
                first = tube.ready.first()
                if first is not None and (best is None or first.entry < best.entry):
                    best = first
            if best is None:
                break
            size += len(best.body)
            if taken and size > limits.RESERVED_BYTES_MAX:
                break
            taken.append(self.reserve(best, session, hold_ms))
        return tuple(taken)

    def reserve(self, job: Job, session: Session | None, hold_ms: int | None = None) -> Reservation:
        """Give a job that stands in a line to a worker, for its TTR or for another time."""
        core, tube = self.core, job.tube
        lasts_ms = job.ttr_ms if hold_ms is None else hold_ms
        self.step_out(job)
        token = core.tokens.next()
        session_id = None if session is None else session.id
        hold = Hold(job.id, token, session_id, core.now_ms, core.now_ms + lasts_ms)
        past = job.past
        past.reserves += 1
        self.hold(job, hold)
        if session is not None:
            session.took((KIND, tube.name, str(job.id)), token)
        self.tell("reserved", job, hold)
        return Reservation(
            job.id,
            tube.name,
            job.body,
            job.is_text,
            token,
            lasts_ms,
            job.priority,
            past.reserves,
            job.key,
        )

    def hold(self, job: Job, hold: Hold) -> None:
        """Let a job that stands nowhere be reserved until the deadline."""
        job.stand_held(hold)
        self.step_in(job)
        self.arm_hold(hold)

    def arm_hold(self, hold: Hold) -> None:
        """Let a reservation end at its deadline."""
        self.core.deadlines.arm(JOB_TTR, hold.token, hold)

    def end_hold(self, job: Job) -> Hold:
        """End a job's reservation; it stands nowhere then."""
        core, hold = self.core, job.hold
        assert hold is not None, "a job that nobody has"
        core.deadlines.disarm(hold)
        self.step_out(job)
        job.hold = None
        if hold.session is not None:
            session = core.sessions.get(hold.session)
            if session is not None:
                session.owned.pop((KIND, job.tube.name, str(job.id)), None)
        return hold

    def give_up(self, job: Job) -> bool:
        """Move a job that stands nowhere, if its reservations failed too often.

        Its key stays behind: its former tube may get another job of that key. While there is no room
        for the other tube it stays, and is tried again.

        Returns:
            whether it was moved, and is ready in the other tube.
        """
        letter = job.dead_letter
        if letter is None:
            return False
        past = job.past
        failed = past.timeouts + (past.releases if letter.counts_releases else 0)
        if failed < letter.after:
            return False
        if letter.tube not in self.tubes and len(self.tubes) >= limits.TUBES_MAX:
            return False
        source = job.tube
        if job.has_live_key:
            self._forget_key(job)
        past.came_from = source.name
        job.dead_letter = None
        job.tube = tube = self.tube(letter.tube)
        tube.total += 1
        self.tell("dead_lettered", job, came_from=source.name)
        self.make_ready(job)
        self.tidy(source)
        return True

    # What time brings.

    def arm(self, tube: Tube, *, is_now: bool = False) -> None:
        """Arm the timer of a tube's first delayed job, if it is not armed for it already.

        What is due already had to wait for another entry, and does so until the next millisecond;
        only while deadlines are met it may go on now.
        """
        due, first = tube.due, tube.delayed.first()
        if due is not None:
            if first is not None and due.entry == first.entry:
                return
            self.core.deadlines.disarm(due)
            tube.due = None
        if first is not None:
            at_ms = first.rank if is_now else max(first.rank, self.core.now_ms + 1)
            tube.due = Due(tube, first.entry, at_ms)
            self.core.deadlines.arm(JOB_DUE, first.id, tube.due)

    def _fell_due(self, due: Due) -> None:
        """The first delayed job of a tube is ready, unless too many became so in this entry."""
        tube, index = due.tube, self.core.tokens.index
        tube.due = None
        if self._due_index != index:
            self._due_index, self._due_count = index, 0
        has_room = self._due_count < limits.JOBS_DUE_PER_ENTRY_MAX
        if has_room:
            self._due_count += 1
            job = tube.delayed.first()
            assert job is not None, "a timer of no job"
            self._count(job, -1)
            tube.delayed.remove(job)
            self.make_ready(job)
            self.tell("due", job)
        self.arm(tube, is_now=has_room)

    def _ran_out(self, hold: Hold) -> None:
        """A reservation is over: its TTR went by."""
        job = self.jobs[hold.job]
        self.end_hold(job)
        job.past.timeouts += 1
        self.timeouts += 1
        self.tell("timed_out", job, hold)
        if not self.give_up(job):
            self.make_ready(job)

    # Watchers.

    def tell(
        self, what: str, job: Job, hold: Hold | None = None, came_from: str | None = None
    ) -> None:
        """Tell watchers what happened to a job."""
        more: tuple[tuple[str, Any], ...] = (("job", job.id),)
        if job.key is not None:
            more = (*more, ("key", job.key))
        if came_from is not None:
            more = (*more, ("came_from", came_from))
        session, token = (None, 0) if hold is None else (hold.session, hold.token)
        self.core.events.append(Event(what, KIND, job.tube.name, session, token, more))
