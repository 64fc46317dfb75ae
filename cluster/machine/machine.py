"""The machine: one entry in, answers out. Here the primitives meet, and only here.

RULE: a table from command to primitive, and the order in which things happen. Nothing raises for
an entry that could be decoded; what does raise is our own bug and stops the process. The laws of
order: time first, then due deadlines in the order (deadline, kind, order), then requests as the
leader received them; whatever a step frees is granted before the next step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from cluster.machine import digest, limits, snapshot
from cluster.machine.commands.base import (
    Abandon,
    Batch,
    Command,
    Group,
    Origin,
    Request,
    RequestId,
)
from cluster.machine.commands.sessions import CloseSession, KeepAlive, KeepAliveMany, OpenSession
from cluster.machine.commands.several import Several
from cluster.machine.core import Core
from cluster.machine.deadlines import SESSION_ENDS, WAIT_ENDS
from cluster.machine.events import Event, History
from cluster.machine.fifos.fifos import Fifos
from cluster.machine.jobs.jobs import Jobs
from cluster.machine.jobs.tubes import DELAYED, RESERVED
from cluster.machine.locks.locks import Locks
from cluster.machine.outcome.base import (
    Abandoned,
    Answer,
    KeyReused,
    Outcome,
    QueueFull,
    Undecodable,
    Void,
    Withdrawn,
)
from cluster.machine.outcome.sessions import Closed, Opened, Renewed, RenewedMany
from cluster.machine.parked import Parked
from cluster.machine.primitive import Check, Handler, Primitive
from cluster.machine.requests import Answers
from cluster.machine.rooms import Rooms
from cluster.machine.semaphores import Semaphores
from cluster.machine.sessions import Session, next_sweep
from cluster.machine.several import Batches
from cluster.machine.tasks.tasks import Tasks
from cluster.machine.tickets.tickets import Tickets

_VOID = Void()
_UNDECODABLE = Undecodable()
_WITHDRAWN = Withdrawn()
_ABANDONED = Abandoned()


class Counts(msgspec.Struct, frozen=True):
    """Sizes, for metrics."""

    sessions: int
    locks: int
    waiters: int
    semaphores: int
    semaphore_grants: int
    semaphore_waiters: int
    resources: int
    tickets: int
    ticket_claims: int
    ticket_waiters: int
    ticket_bytes: int
    fifos: int
    fifo_tickets: int
    rooms: int
    jobs: int
    job_bytes: int
    jobs_delayed: int
    jobs_reserved: int
    tubes: int
    tube_waiters: int
    pools: int
    tasks: int
    pool_workers: int
    parked: int
    answers: int
    keys: int


class Machine:
    """The replicated state and what an entry does to it.

    Attributes:
        index: last entry applied or skipped.
        core: time, sessions and what else primitives share; for reading.
        locks: for reading, as all primitives are.
        history: what the last entries did. No part of the state.
        checks: of the commands that may stand in an all-or-nothing batch.
    """

    def __init__(self) -> None:
        self.index = 0
        self.running_digest = digest.START
        self.core = core = Core()
        self.sessions = core.sessions
        self.requests = core.requests
        self.deadlines = core.deadlines
        self.tokens = core.tokens
        self.locks = Locks(core)
        self.semaphores = Semaphores(core)
        self.tickets = Tickets(core)
        self.fifos = Fifos(core)
        self.rooms = Rooms(core)
        self.jobs = Jobs(core)
        self.tasks = Tasks(core)
        self.primitives: tuple[Primitive, ...] = (
            self.locks,
            self.semaphores,
            self.tickets,
            self.fifos,
            self.rooms,
            self.jobs,
            self.tasks,
        )
        core.add(self.primitives)
        self.history = History()
        self.checks: dict[type[Command], Check] = {}
        self._handlers: dict[type[Command], Handler] = {
            OpenSession: self._open_session,
            KeepAlive: self._keep_alive,
            KeepAliveMany: self._keep_alive_many,
            CloseSession: self._close_session,
            Abandon: self._abandon,
        }
        self._timers: dict[int, Callable[[Any], None]] = {
            SESSION_ENDS: self._session_expired,
            WAIT_ENDS: core.wait_ended,
        }
        for primitive in self.primitives:
            self._handlers.update(primitive.handlers)
            self._timers.update(primitive.timers)
            self.checks.update(primitive.checks)
        self._handlers[Several] = Batches(core, self._handlers, self.checks).carry_out

    @property
    def now_ms(self) -> int:
        """Cluster time of the last entry, never falling."""
        return self.core.now_ms

    # Entries.

    def apply(self, index: int, batch: Batch) -> list[Answer]:
        """Apply one entry.

        Args:
            index: its position in the log, larger than that of any entry before.
            batch: time and requests; without requests it is a timer.
        Returns:
            Answers to the requests of this entry, in their order and with Queued among them, and
            answers to parked requests at the step that resolved them.
        """
        self.skip(index)
        core = self.core
        core.now_ms = max(core.now_ms, batch.now_ms)
        core.wall_ms = batch.wall_ms
        core.tokens.index = index
        answers = core.answers = []
        core.events = []
        self._meet_deadlines()
        core.requests.forget_keys(core.now_ms)
        for group in batch.groups:
            self._apply_group(group)
        if core.events:
            self.history.add(index, core.events)
        self.running_digest = digest.after_entry(
            self.running_digest, index, core.now_ms, core.tokens.last, answers
        )
        return answers

    def skip(self, index: int) -> None:
        """Pass an entry of the log that is not for the machine."""
        if index <= self.index:
            raise ValueError(f"entry {index} after entry {self.index}: the log goes forward")
        self.index = index

    def next_deadline_ms(self) -> int | None:
        """Cluster time at which an entry, even an empty one, will have something to do."""
        return self.deadlines.next_ms()

    def next_wall_ms(self) -> int | None:
        """Wall time at which an entry will have something to do for a schedule.

        Apart from `next_deadline_ms`, as only the leader's own clock tells how long that is: the
        pair of times of the last entry would be wrong as soon as the wall clock is set.
        """
        return self.core.wall_deadlines.next_ms()

    # Reading.

    def answer(self, request: RequestId) -> Outcome | None:
        """The answer of a request as far as it is remembered; Queued while it stands in a queue."""
        known = self.requests.answer(request)
        return self.core.queued(known) if isinstance(known, Parked) else known

    def waits_of(self, origin: Origin) -> list[int]:
        """Numbers of an origin's requests that stand in a queue, rising.

        A node that finds one it does not wait for (any more) should say so by an Abandon.
        """
        return self.requests.waits_of(origin)

    @property
    def digest(self) -> str:
        """Running digest over all entries so far, 16 hex digits. Equal machines, equal digests."""
        return self.running_digest.hex()

    def full_digest(self, encode: Callable[[object], bytes]) -> str:
        """SHA-256 over the whole state, through a codec (`wire.cbor.encode`). Slow."""
        return digest.of_rows(self.dump(), encode)

    def counts(self) -> Counts:
        """How much there is of everything."""
        return Counts(
            sessions=len(self.sessions),
            locks=len(self.locks),
            waiters=self.locks.waiters,
            semaphores=len(self.semaphores),
            semaphore_grants=self.semaphores.grants,
            semaphore_waiters=self.semaphores.waiters,
            resources=len(self.tickets),
            tickets=self.tickets.resources.tickets,
            ticket_claims=self.tickets.resources.claims,
            ticket_waiters=self.tickets.resources.waiters,
            ticket_bytes=self.tickets.resources.data_bytes,
            fifos=len(self.fifos),
            fifo_tickets=self.fifos.tickets,
            rooms=len(self.rooms),
            jobs=len(self.jobs),
            job_bytes=self.jobs.stock.bytes,
            jobs_delayed=self.jobs.stock.counts[DELAYED],
            jobs_reserved=self.jobs.stock.counts[RESERVED],
            tubes=len(self.jobs.stock.tubes),
            tube_waiters=self.jobs.stock.waiters,
            pools=len(self.tasks),
            tasks=self.tasks.tasks,
            pool_workers=self.tasks.workers,
            parked=self.core.parked,
            answers=sum(len(answers.by_seq) for answers in self.requests.origins.values()),
            keys=len(self.requests.keys),
        )

    def dump(self) -> Iterator[list[Any]]:
        """The whole state as rows of plain values; the machine must stand still meanwhile."""
        return snapshot.dump(self)

    @classmethod
    def load(cls, rows: Iterable[list[Any]]) -> Machine:
        """Make a machine from a dump.

        Raises:
            ValueError: the rows are no dump of a machine, or not a whole one.
        """
        machine = cls()
        snapshot.load(machine, rows)
        machine.history.start(machine.index)
        return machine

    # Requests.

    def _apply_group(self, group: Group) -> None:
        core = self.core
        memory, left = core.requests.admit(group)
        for request_id, parked in left:
            core.withdraw(request_id, parked)
        core.settle()
        node, boot = group.origin
        for request in group.requests:
            request_id = RequestId(node, boot, request.seq)
            outcome = _VOID if memory is None else self._answer(memory, request_id, request)
            core.answers.append(Answer(request_id, outcome))
            core.settle()

    def _answer(self, memory: Answers, request_id: RequestId, request: Request) -> Outcome:
        known = memory.by_seq.get(request.seq)
        if known is None:
            if request.seq < memory.ack:
                return _VOID
            known = self._first_answer(request_id, request)
            memory.by_seq[request.seq] = known
        return self.core.queued(known) if isinstance(known, Parked) else known

    def _first_answer(self, request_id: RequestId, request: Request) -> Outcome | Parked:
        command, key = request.command, request.key
        if command is None:
            return _UNDECODABLE
        if key is None:
            answer = self._handlers[type(command)](command, request_id)
        elif (found := self.requests.find_key(key)) is not None:
            fingerprint, answer = found
            if fingerprint != request.fingerprint:
                return KeyReused(key)
        else:
            answer = self._handlers[type(command)](command, request_id)
            if isinstance(answer, Parked):
                answer.key, answer.fingerprint = key, request.fingerprint
                self.requests.hold_key(answer)
            else:
                self.requests.settle_key(key, request.fingerprint, answer, self.core.now_ms)
        if isinstance(answer, Parked):
            answer.requests[request_id] = None
        return answer

    def _open_session(self, command: OpenSession, _: RequestId) -> Outcome:
        core = self.core
        known = core.sessions.taken_over(command)
        if known is not None:
            return Opened(known.id, known.ttl_ms, known.token)
        if len(core.sessions) >= limits.SESSIONS_MAX:
            return QueueFull("sessions", limits.SESSIONS_MAX)
        session = core.sessions.open(command, core.now_ms)
        core.deadlines.arm(SESSION_ENDS, session.token, session)
        core.events.append(Event("opened", "session", session.id, session.id, session.token))
        return Opened(session.id, session.ttl_ms, session.token)

    def _keep_alive(self, command: KeepAlive, _: RequestId) -> Outcome:
        session = self.sessions.get(command.session)
        if session is None:
            return self.sessions.refusal(command.session)
        session.renew(self.core.now_ms)
        return Renewed(session.id, session.deadline_ms - self.core.now_ms)

    def _keep_alive_many(self, command: KeepAliveMany, _: RequestId) -> Outcome:
        alive: list[tuple[str, int]] = []
        gone: list[str] = []
        for session_id in command.sessions:
            session = self.sessions.get(session_id)
            if session is None:
                gone.append(session_id)
            else:
                session.renew(self.core.now_ms)
                alive.append((session.id, session.deadline_ms - self.core.now_ms))
        return RenewedMany(tuple(alive), tuple(gone))

    def _close_session(self, command: CloseSession, _: RequestId) -> Outcome:
        session = self.sessions.get(command.session)
        if session is None:
            return self.sessions.refusal(command.session)
        session.remains_until_ms = next_sweep(self.core.now_ms, session.sweep_ms)
        self.core.end(session, "closed")
        return Closed(session.id)

    def _abandon(self, command: Abandon, request_id: RequestId) -> Outcome:
        memory = self.requests.origins[request_id.node]
        abandoned = request_id._replace(seq=command.seq)
        known = memory.by_seq.get(command.seq)
        if isinstance(known, Parked):
            self.requests.store(abandoned, _WITHDRAWN)
            self.core.answers.append(Answer(abandoned, _WITHDRAWN))
            self.core.withdraw(abandoned, known)
        elif known is None and memory.ack <= command.seq < request_id.seq:
            # Overtaken on its way: when it comes, nobody will wait for it.
            memory.by_seq[command.seq] = _WITHDRAWN
        # A request that has been granted stays so: a repeat under its key gets the same token, and
        # otherwise the grant ends with its session.
        return _ABANDONED

    # What time brings.

    def _meet_deadlines(self) -> None:
        core = self.core
        while (due := core.deadlines.pop_due(core.now_ms)) is not None:
            kind, target = due
            self._timers[kind](target)
            core.settle()
        for _ in range(limits.SLOTS_DUE_PER_ENTRY_MAX):
            if (due := core.wall_deadlines.pop_due(core.wall_ms)) is None:
                break
            kind, target = due
            self._timers[kind](target)
            core.settle()

    def _session_expired(self, session: Session) -> None:
        self.core.end(session, "expired")
