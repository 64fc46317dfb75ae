"""The machine: one entry in, answers out. Here the primitives meet, and only here.

RULE: a table from command to primitive, and what follows when a session ends or a lock falls free.
Nothing raises for an entry that could be decoded; what does raise is our own bug and stops the
process. The laws of order: time first, then due deadlines in the order (deadline, kind, order),
then requests as the leader received them; whatever a step frees is granted before the next step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from cluster.machine import digest, limits, locks, snapshot
from cluster.machine.commands import (
    Abandon,
    AcquireLock,
    Batch,
    CloseSession,
    Group,
    KeepAlive,
    KeepAliveMany,
    OpenSession,
    Origin,
    ReleaseLock,
    Request,
    RequestId,
)
from cluster.machine.deadlines import SESSION_ENDS, WAIT_ENDS, Deadlines
from cluster.machine.locks import LockPlace, Locks
from cluster.machine.outcome import (
    Abandoned,
    Answer,
    Closed,
    Granted,
    KeyReused,
    LockHeld,
    Opened,
    Outcome,
    Queued,
    QueueFull,
    Refusal,
    Renewed,
    RenewedMany,
    Undecodable,
    Void,
    Withdrawn,
)
from cluster.machine.parked import Parked
from cluster.machine.requests import Answers, Requests
from cluster.machine.sessions import WAITING, Owned, Session, Sessions
from cluster.machine.tokens import Tokens

_VOID = Void()
_UNDECODABLE = Undecodable()
_WITHDRAWN = Withdrawn()
_ABANDONED = Abandoned()


class Counts(msgspec.Struct, frozen=True):
    """Sizes, for metrics."""

    sessions: int
    locks: int
    waiters: int
    parked: int
    answers: int
    keys: int


class Machine:
    """The replicated state and what an entry does to it.

    Attributes:
        index: last entry applied or skipped.
        now_ms: cluster time of the last entry, never falling.
        sessions: for reading.
        locks: for reading.
    """

    def __init__(self) -> None:
        self.index = 0
        self.now_ms = 0
        self.arrivals = 0
        self.parked = 0
        self.running_digest = digest.START
        self.tokens = Tokens()
        self.deadlines = Deadlines()
        self.sessions = Sessions(self.tokens, self._position)
        self.locks = Locks(self.tokens)
        self.requests = Requests()
        self._answers: list[Answer] = []
        self._unsettled: deque[str] = deque()
        self._handlers: dict[type, Callable[[Any, RequestId], Outcome | Parked]] = {
            OpenSession: self._open_session,
            KeepAlive: self._keep_alive,
            KeepAliveMany: self._keep_alive_many,
            CloseSession: self._close_session,
            AcquireLock: self._acquire_lock,
            ReleaseLock: self._release_lock,
            Abandon: self._abandon,
        }

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
        self.now_ms = max(self.now_ms, batch.now_ms)
        self.tokens.index = index
        answers = self._answers = []
        self._meet_deadlines()
        self.requests.forget_keys(self.now_ms)
        for group in batch.groups:
            self._apply_group(group)
        self.running_digest = digest.after_entry(
            self.running_digest, index, self.now_ms, self.tokens.last, answers
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

    # Reading.

    def answer(self, request: RequestId) -> Outcome | None:
        """The answer of a request as far as it is remembered; Queued while it stands in a queue."""
        known = self.requests.answer(request)
        return self._queued(known) if isinstance(known, Parked) else known

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
            parked=self.parked,
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
        return machine

    # Requests.

    def _apply_group(self, group: Group) -> None:
        memory, left = self.requests.admit(group)
        for request_id, parked in left:
            self._withdraw(request_id, parked)
        if left:
            self._settle()
        node, boot = group.origin
        for request in group.requests:
            request_id = RequestId(node, boot, request.seq)
            outcome = _VOID if memory is None else self._answer(memory, request_id, request)
            self._answers.append(Answer(request_id, outcome))
            if self._unsettled:
                self._settle()

    def _answer(self, memory: Answers, request_id: RequestId, request: Request) -> Outcome:
        known = memory.by_seq.get(request.seq)
        if known is None:
            if request.seq < memory.ack:
                return _VOID
            known = self._first_answer(request_id, request)
            memory.by_seq[request.seq] = known
        return self._queued(known) if isinstance(known, Parked) else known

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
                self.requests.settle_key(key, request.fingerprint, answer, self.now_ms)
        if isinstance(answer, Parked):
            answer.requests[request_id] = None
        return answer

    def _open_session(self, command: OpenSession, _: RequestId) -> Outcome:
        if len(self.sessions) >= limits.SESSIONS_MAX:
            return QueueFull("sessions", limits.SESSIONS_MAX)
        session = self.sessions.open(
            command.nonce, command.ttl_ms, command.name, command.meta, self.now_ms
        )
        self.deadlines.arm(SESSION_ENDS, session.token, session)
        return Opened(session.id, session.ttl_ms, session.token)

    def _keep_alive(self, command: KeepAlive, _: RequestId) -> Outcome:
        session = self.sessions.get(command.session)
        if session is None:
            return self.sessions.refusal(command.session)
        session.deadline_ms = self.now_ms + session.ttl_ms
        return Renewed(session.id, session.ttl_ms)

    def _keep_alive_many(self, command: KeepAliveMany, _: RequestId) -> Outcome:
        alive: list[tuple[str, int]] = []
        gone: list[str] = []
        for session_id in command.sessions:
            session = self.sessions.get(session_id)
            if session is None:
                gone.append(session_id)
            else:
                session.deadline_ms = self.now_ms + session.ttl_ms
                alive.append((session.id, session.ttl_ms))
        return RenewedMany(tuple(alive), tuple(gone))

    def _close_session(self, command: CloseSession, _: RequestId) -> Outcome:
        session = self.sessions.get(command.session)
        if session is None:
            return self.sessions.refusal(command.session)
        self._end(session)
        return Closed(session.id)

    def _acquire_lock(self, command: AcquireLock, _: RequestId) -> Outcome | Parked:
        session = self.sessions.get(command.session)
        if session is None:
            return self.sessions.refusal(command.session)
        thing = (locks.KIND, command.name)
        held = session.owned.get(thing)
        if held is None and len(session.owned) >= limits.OWNED_PER_SESSION_MAX:
            return QueueFull("things of a session", limits.OWNED_PER_SESSION_MAX)
        wants_to_wait = command.wait_ms > 0
        is_full = self.parked >= limits.PARKED_MAX
        result = self.locks.acquire(
            command.name,
            session.id,
            held=held or 0,
            shared=command.shared,
            priority=command.priority,
            can_wait=wants_to_wait and not is_full,
            arrival=self.arrivals + 1,
            now_ms=self.now_ms,
        )
        if isinstance(result, Granted):
            session.took(thing, result.token)
        elif isinstance(result, LockPlace):
            return self._park(session, thing, result, command.wait_ms)
        elif is_full and wants_to_wait and isinstance(result, LockHeld):
            return QueueFull("parked requests", limits.PARKED_MAX)
        return result

    def _release_lock(self, command: ReleaseLock, _: RequestId) -> Outcome:
        session = self.sessions.get(command.session)
        if session is None:
            return self.sessions.refusal(command.session)
        thing = (locks.KIND, command.name)
        held = session.owned.get(thing, WAITING)
        outcome = self.locks.release(command.name, session.id, command.token, held=held)
        if not isinstance(outcome, Refusal):
            del session.owned[thing]
            self._unsettled.append(command.name)
        return outcome

    def _abandon(self, command: Abandon, request_id: RequestId) -> Outcome:
        memory = self.requests.origins[request_id.node]
        abandoned = request_id._replace(seq=command.seq)
        known = memory.by_seq.get(command.seq)
        if isinstance(known, Parked):
            self.requests.store(abandoned, _WITHDRAWN)
            self._answers.append(Answer(abandoned, _WITHDRAWN))
            self._withdraw(abandoned, known)
        elif known is None and memory.ack <= command.seq < request_id.seq:
            # Overtaken on its way: when it comes, nobody will wait for it.
            memory.by_seq[command.seq] = _WITHDRAWN
        # A request that has been granted stays so: a repeat under its key gets the same token, and
        # otherwise the grant ends with its session.
        return _ABANDONED

    # Waiting.

    def _park(self, session: Session, thing: Owned, place: LockPlace, wait_ms: int) -> Parked:
        self.arrivals += 1
        self.parked += 1
        parked = Parked(self.arrivals, self.now_ms + wait_ms, place)
        place.parked[parked.order] = parked
        session.owned.setdefault(thing, WAITING)
        self.deadlines.arm(WAIT_ENDS, parked.order, parked)
        return parked

    def _queued(self, parked: Parked) -> Queued:
        place = parked.place
        return Queued(place.name, self.locks.position(place.name, place.session))

    def _position(self, session_id: str, thing: Owned) -> int:
        return self.locks.position(thing[1], session_id)

    def _resolve(self, parked: Parked, outcome: Outcome) -> None:
        """Tell everybody who shares this wait."""
        self._unpark(parked)
        for request_id in parked.requests:
            self.requests.store(request_id, outcome)
            self._answers.append(Answer(request_id, outcome))
        if parked.key is not None:
            self.requests.settle_key(parked.key, parked.fingerprint, outcome, self.now_ms)

    def _withdraw(self, request_id: RequestId, parked: Parked) -> None:
        """One who shared this wait is gone; the last one takes the wait along."""
        del parked.requests[request_id]
        if not parked.requests:
            self._unpark(parked)
            self.requests.release_key(parked)
            self._leave(parked)

    def _unpark(self, parked: Parked) -> None:
        self.parked -= 1
        self.deadlines.disarm(parked)

    def _leave(self, parked: Parked) -> None:
        """A wait is over without a grant: the last one in a place gives the place up."""
        place = parked.place
        del place.parked[parked.order]
        if not place.parked:
            session = self.sessions.get(place.session)
            assert session is not None, "a place outlived its session"
            del session.owned[locks.KIND, place.name]
            self.locks.leave(place.name, place.session)
            self._unsettled.append(place.name)

    # What time brings, and what follows.

    def _meet_deadlines(self) -> None:
        while (due := self.deadlines.pop_due(self.now_ms)) is not None:
            _, target = due
            if isinstance(target, Session):
                self._end(target)
            elif isinstance(target, Parked):
                place = target.place
                assert isinstance(place, LockPlace)
                self._resolve(target, self.locks.held(place, self.now_ms))
                self._leave(target)
            self._settle()

    def _end(self, session: Session) -> None:
        """End a session: free what it holds in order of grant, leave the queues it stands in."""
        self.deadlines.disarm(session)
        self.sessions.remove(session)
        for (_, name), token in session.owned.items():
            if token != WAITING:
                self.locks.free(name, token)
                self._unsettled.append(name)
        expired = self.sessions.refusal(session.id)
        for (_, name), token in session.owned.items():
            if token == WAITING:
                place = self.locks.leave(name, session.id)
                for parked in place.parked.values():
                    self._resolve(parked, expired)
                self._unsettled.append(name)

    def _settle(self) -> None:
        """Grant what has become free, until nothing more can be granted."""
        while self._unsettled:
            name = self._unsettled.popleft()
            while (place := self.locks.grantable(name)) is not None:
                session = self.sessions.get(place.session)
                assert session is not None, "a place outlived its session"
                # Two may be due at the same time: never grant to a session that is over as well.
                if session.deadline_ms <= self.now_ms:
                    self._end(session)
                    continue
                granted = self.locks.grant(place, self.now_ms)
                session.took((locks.KIND, name), granted.token)
                for parked in place.parked.values():
                    self._resolve(parked, granted)
