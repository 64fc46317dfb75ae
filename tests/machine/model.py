"""The machine once more, written to be obviously right: flat lists, searched anew at each step.

RULE: shares no code with `cluster/machine` but commands, outcomes and limits. No heap, no lazy
deletion, no index, no record of what a session owns: a lock's line, a position, a due deadline and
what a session holds are looked up among all grants and all waits whenever somebody asks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.machine import limits
from cluster.machine.commands import (
    Abandon,
    AcquireLock,
    Batch,
    CloseSession,
    Command,
    Group,
    KeepAlive,
    KeepAliveMany,
    OpenSession,
    ReleaseLock,
    Request,
    RequestId,
)
from cluster.machine.outcome import (
    Abandoned,
    Answer,
    Closed,
    Granted,
    KeyReused,
    LockHeld,
    NotHolder,
    Opened,
    Outcome,
    Queued,
    QueueFull,
    Released,
    Renewed,
    RenewedMany,
    SessionExpired,
    SessionNotFound,
    StaleToken,
    Undecodable,
    Void,
    Withdrawn,
)


@dataclass
class ModelSession:
    """A living session."""

    id: str
    token: int
    ttl_ms: int
    ends_ms: int


@dataclass
class ModelGrant:
    """A lock held."""

    lock: str
    session: str
    token: int
    shared: bool
    since_ms: int


@dataclass
class ModelWait:
    """One wait; waits of one session for one lock carry the same arrival, mode and priority."""

    lock: str
    session: str
    shared: bool
    priority: int
    arrival: int
    order: int
    until_ms: int
    asked: list[RequestId] = field(default_factory=list)
    key: str | None = None
    fingerprint: bytes | None = None


@dataclass
class ModelMemory:
    """What a node's present life asked."""

    boot: int
    ack: int
    said: dict[int, Outcome | ModelWait] = field(default_factory=dict)


class Model:
    """Has `apply` as the machine does; everything else is open to look at."""

    def __init__(self) -> None:
        self.index = 0
        self.time_ms = 0
        self.token = 0
        self.order = 0
        self.sessions: list[ModelSession] = []
        self.grants: list[ModelGrant] = []
        self.waits: list[ModelWait] = []
        self.memories: dict[str, ModelMemory] = {}
        self.keys: list[tuple[str, bytes | None, int, Outcome]] = []
        self.told: list[Answer] = []

    def apply(self, index: int, batch: Batch) -> list[Answer]:
        """Apply an entry."""
        self.index, self.told = index, []
        self.time_ms = max(self.time_ms, batch.now_ms)
        while True:
            due = [(s.ends_ms, 1, s.token) for s in self.sessions if s.ends_ms <= self.time_ms]
            due += [(w.until_ms, 2, w.order) for w in self.waits if w.until_ms <= self.time_ms]
            if not due:
                break
            _, kind, number = min(due)
            if kind == 1:
                (session,) = (s for s in self.sessions if s.token == number)
                self.hand_out(self.end(session))
            else:
                (wait,) = (w for w in self.waits if w.order == number)
                self.hand_out(self.give_up(wait))
        day = limits.IDEMPOTENCY_KEY_MS
        self.keys = [key for key in self.keys if key[2] + day > self.time_ms]
        for group in batch.groups:
            self.group(group)
        return self.told

    # Looking.

    def find(self, session_id: str) -> ModelSession | None:
        """The living session of this id."""
        return next((s for s in self.sessions if s.id == session_id), None)

    def holders(self, lock: str) -> list[ModelGrant]:
        """Grants of a lock, oldest first."""
        return sorted((g for g in self.grants if g.lock == lock), key=lambda g: g.token)

    def line(self, lock: str) -> list[tuple[int, int, str, bool]]:
        """Places in the queue of a lock: (priority, arrival, session, shared)."""
        return sorted(
            {(w.priority, w.arrival, w.session, w.shared) for w in self.waits if w.lock == lock}
        )

    def fits(self, lock: str, shared: bool) -> bool:
        """Whether one more holder would do no harm."""
        return all(shared and grant.shared for grant in self.holders(lock))

    def nobody(self, session_id: str) -> Outcome:
        """Why there is no such session."""
        head, dash, tail = session_id.partition("-")
        digits = "0123456789abcdef"
        is_ours = head and dash and tail and head[0] != "0" and all(c in digits for c in head)
        if is_ours and int(head, 16) <= self.token and len(head) <= 16:
            return SessionExpired(session_id)
        return SessionNotFound(session_id)

    def position(self, wait: ModelWait) -> int:
        """Position of a wait's place."""
        return 1 + sum(place[:2] < (wait.priority, wait.arrival) for place in self.line(wait.lock))

    def held(self, lock: str, session: str, priority: int, arrival: int) -> LockHeld:
        """The refusal for a session that stands, or would stand, at (priority, arrival)."""
        others = [g for g in self.holders(lock) if g.session != session]
        line = self.line(lock)
        return LockHeld(
            name=lock,
            holder=others[0].session if others else None,
            held_for_ms=self.time_ms - others[0].since_ms if others else 0,
            holder_token=others[0].token if others else None,
            queue_length=sum(place[2] != session for place in line),
            position=1 + sum(place[:2] < (priority, arrival) for place in line),
        )

    # Changing.

    def next_token(self) -> int:
        """A token above all before and not behind the log."""
        self.token = self.index if self.index > self.token else self.token + 1
        return self.token

    def grant(self, lock: str, session: str, shared: bool) -> Granted:
        """Hand a lock out."""
        self.grants.append(ModelGrant(lock, session, self.next_token(), shared, self.time_ms))
        return Granted(lock, session, self.token, shared)

    def tell(self, wait: ModelWait, outcome: Outcome) -> None:
        """Answer everybody who shares a wait."""
        self.waits.remove(wait)
        for request in wait.asked:
            memory = self.memories[request.node]
            if request.seq < memory.ack:
                del memory.said[request.seq]
            else:
                memory.said[request.seq] = outcome
            self.told.append(Answer(request, outcome))
        if wait.key is not None:
            self.remember_key(wait.key, wait.fingerprint, outcome)

    def remember_key(self, key: str, fingerprint: bytes | None, outcome: Outcome) -> None:
        """Keep the answer to a key."""
        self.keys.append((key, fingerprint, self.time_ms, outcome))
        self.keys = self.keys[-limits.IDEMPOTENCY_KEYS_MAX :]

    def end(self, session: ModelSession) -> list[str]:
        """End a session; returns the locks to look at."""
        self.sessions.remove(session)
        held = sorted((g for g in self.grants if g.session == session.id), key=lambda g: g.token)
        self.grants = [g for g in self.grants if g.session != session.id]
        waited = [w for w in self.waits if w.session == session.id]
        for wait in sorted(waited, key=lambda w: (w.arrival, w.order)):
            self.tell(wait, SessionExpired(session.id))
        left = sorted({(w.arrival, w.lock) for w in waited})
        return [g.lock for g in held] + [lock for _, lock in left]

    def give_up(self, wait: ModelWait) -> list[str]:
        """A wait has been long enough."""
        self.tell(wait, self.held(wait.lock, wait.session, wait.priority, wait.arrival))
        return [wait.lock]

    def hand_out(self, locks: list[str]) -> None:
        """Grant whatever can be granted."""
        for lock in locks:
            while (line := self.line(lock)) and self.fits(lock, line[0][3]):
                session = self.find(line[0][2])
                assert session is not None
                if session.ends_ms <= self.time_ms:
                    locks.extend(self.end(session))
                    continue
                granted = self.grant(lock, session.id, line[0][3])
                served = [w for w in self.waits if (w.lock, w.session) == (lock, session.id)]
                for wait in sorted(served, key=lambda w: w.order):
                    self.tell(wait, granted)

    # Requests.

    def group(self, group: Group) -> None:
        """Answer the requests of one node."""
        node, boot = group.origin
        old = self.memories.get(node)
        gone: list[tuple[RequestId, ModelWait]] = []
        if old is None or old.boot < boot:
            self.memories[node] = ModelMemory(boot, group.ack)
            if old is not None:
                gone = self.waiting(node, old)
        elif old.boot == boot and group.ack > old.ack:
            old.ack = group.ack
            old.said = {
                seq: said
                for seq, said in old.said.items()
                if seq >= group.ack or isinstance(said, ModelWait)
            }
        locks = []
        for request_id, wait in gone:
            wait.asked.remove(request_id)
            if not wait.asked:
                self.waits.remove(wait)
                locks.append(wait.lock)
        self.hand_out(locks)
        memory = self.memories[node]
        for request in group.requests:
            request_id = RequestId(node, boot, request.seq)
            is_settled = request.seq < memory.ack and request.seq not in memory.said
            if boot < memory.boot or is_settled:
                self.told.append(Answer(request_id, Void()))
                continue
            freed: list[str] = []
            if request.seq not in memory.said:
                answer = self.first(memory, request_id, request, freed)
                memory.said[request.seq] = answer
            said = memory.said[request.seq]
            if isinstance(said, ModelWait):
                said = Queued(said.lock, self.position(said))
            self.told.append(Answer(request_id, said))
            self.hand_out(freed)

    def waiting(self, node: str, memory: ModelMemory) -> list[tuple[RequestId, ModelWait]]:
        """Those of a node's requests that wait."""
        return [
            (RequestId(node, memory.boot, seq), said)
            for seq, said in sorted(memory.said.items(), key=lambda item: item[0])
            if isinstance(said, ModelWait)
        ]

    def first(
        self, memory: ModelMemory, request_id: RequestId, request: Request, freed: list[str]
    ) -> Outcome | ModelWait:
        """Answer a request that was not seen before under its number."""
        if request.command is None:
            return Undecodable()
        answer: Outcome | ModelWait | None = None
        if request.key is not None:
            known: list[tuple[bytes | None, Outcome | ModelWait]] = [
                (fingerprint, outcome)
                for key, fingerprint, _, outcome in self.keys
                if key == request.key
            ]
            known += [(w.fingerprint, w) for w in self.waits if w.key == request.key]
            if known:
                fingerprint, answer = known[0]
                if fingerprint != request.fingerprint:
                    return KeyReused(request.key)
        if answer is None:
            answer = self.execute(memory, request_id, request.command, freed)
            if isinstance(answer, ModelWait):
                answer.key, answer.fingerprint = request.key, request.fingerprint
            elif request.key is not None:
                self.remember_key(request.key, request.fingerprint, answer)
        if isinstance(answer, ModelWait):
            answer.asked.append(request_id)
        return answer

    def execute(
        self, memory: ModelMemory, request_id: RequestId, command: Command, freed: list[str]
    ) -> Outcome | ModelWait:
        """Do what a command says."""
        if isinstance(command, OpenSession):
            if len(self.sessions) >= limits.SESSIONS_MAX:
                return QueueFull("sessions", limits.SESSIONS_MAX)
            token = self.next_token()
            session_id = f"{token:x}-{command.nonce}"
            self.sessions.append(
                ModelSession(session_id, token, command.ttl_ms, self.time_ms + command.ttl_ms)
            )
            return Opened(session_id, command.ttl_ms, token)
        if isinstance(command, KeepAliveMany):
            found = [(id, self.find(id)) for id in command.sessions]
            for _, session in found:
                if session is not None:
                    session.ends_ms = self.time_ms + session.ttl_ms
            return RenewedMany(
                tuple((id, session.ttl_ms) for id, session in found if session is not None),
                tuple(id for id, session in found if session is None),
            )
        if isinstance(command, Abandon):
            return self.abandon(memory, request_id, command.seq, freed)
        assert isinstance(command, (KeepAlive, CloseSession, AcquireLock, ReleaseLock))
        session = self.find(command.session)
        if session is None:
            return self.nobody(command.session)
        if isinstance(command, KeepAlive):
            session.ends_ms = self.time_ms + session.ttl_ms
            return Renewed(session.id, session.ttl_ms)
        if isinstance(command, CloseSession):
            freed.extend(self.end(session))
            return Closed(session.id)
        if isinstance(command, AcquireLock):
            return self.acquire(session, command)
        return self.release(session, command, freed)

    def abandon(
        self, memory: ModelMemory, request_id: RequestId, seq: int, freed: list[str]
    ) -> Outcome:
        """Forget about an earlier request."""
        said = memory.said.get(seq)
        if isinstance(said, ModelWait):
            other = RequestId(request_id.node, request_id.boot, seq)
            if seq < memory.ack:
                del memory.said[seq]
            else:
                memory.said[seq] = Withdrawn()
            self.told.append(Answer(other, Withdrawn()))
            said.asked.remove(other)
            if not said.asked:
                self.waits.remove(said)
                freed.append(said.lock)
        elif said is None and memory.ack <= seq < request_id.seq:
            memory.said[seq] = Withdrawn()
        return Abandoned()

    def acquire(self, session: ModelSession, command: AcquireLock) -> Outcome | ModelWait:
        """Ask for a lock."""
        lock, shared = command.name, command.shared
        mine = [g for g in self.holders(lock) if g.session == session.id]
        same = [w for w in self.waits if (w.lock, w.session) == (lock, session.id)]
        owned = {g.lock for g in self.grants if g.session == session.id}
        owned |= {w.lock for w in self.waits if w.session == session.id}
        if not mine and not same and len(owned) >= limits.OWNED_PER_SESSION_MAX:
            return QueueFull("things of a session", limits.OWNED_PER_SESSION_MAX)
        can_wait = command.wait_ms > 0 and len(self.waits) < limits.PARKED_MAX
        line, arrival = self.line(lock), self.order + 1
        if mine:
            if shared or not mine[0].shared:
                return Granted(lock, session.id, mine[0].token, mine[0].shared)
            if self.holders(lock) == mine and not line:
                self.grants.remove(mine[0])
                return self.grant(lock, session.id, False)
            refusal = self.held(lock, session.id, command.priority, arrival)
            return self.too_many(command, refusal)
        if same and not can_wait:
            refusal = self.held(lock, session.id, same[0].priority, same[0].arrival)
            return self.too_many(command, refusal)
        if not same:
            is_first = all(place[:2] > (command.priority, arrival) for place in line)
            if is_first and self.fits(lock, shared):
                if (
                    not self.holders(lock)
                    and len({g.lock for g in self.grants}) >= limits.LOCKS_MAX
                ):
                    return QueueFull("locks", limits.LOCKS_MAX)
                return self.grant(lock, session.id, shared)
            if not can_wait:
                refusal = self.held(lock, session.id, command.priority, arrival)
                return self.too_many(command, refusal)
            if len(line) >= limits.WAITERS_PER_LOCK_MAX:
                return QueueFull("waiters of a lock", limits.WAITERS_PER_LOCK_MAX)
        self.order += 1
        until_ms = self.time_ms + command.wait_ms
        wait = (
            ModelWait(
                lock,
                session.id,
                same[0].shared,
                same[0].priority,
                same[0].arrival,
                self.order,
                until_ms,
            )
            if same
            else ModelWait(
                lock, session.id, shared, command.priority, arrival, self.order, until_ms
            )
        )
        self.waits.append(wait)
        return wait

    def too_many(self, command: AcquireLock, refusal: LockHeld) -> Outcome:
        """A refusal that came only because nobody may wait any more says so."""
        if command.wait_ms > 0 and len(self.waits) >= limits.PARKED_MAX:
            return QueueFull("parked requests", limits.PARKED_MAX)
        return refusal

    def release(self, session: ModelSession, command: ReleaseLock, freed: list[str]) -> Outcome:
        """Give a lock back."""
        holders = self.holders(command.name)
        for grant in holders:
            if (grant.session, grant.token) == (session.id, command.token):
                self.grants.remove(grant)
                freed.append(command.name)
                return Released(command.name)
        if not holders or command.token in [grant.token for grant in holders]:
            return NotHolder(command.name, session.id)
        return StaleToken(command.name, command.token, holders[-1].token)
