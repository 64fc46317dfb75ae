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
    AcquireLocks,
    Batch,
    CloseSession,
    Command,
    Group,
    KeepAlive,
    KeepAliveMany,
    OpenSession,
    ReleaseLock,
    ReleaseLocks,
    Request,
    RequestId,
)
from cluster.machine.outcome import (
    Abandoned,
    Answer,
    Closed,
    Granted,
    GrantedMany,
    KeyReused,
    LockHeld,
    LocksHeld,
    NotHolder,
    Opened,
    Outcome,
    Queued,
    QueueFull,
    Released,
    ReleasedMany,
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
    """One wait; waits in one place carry the same arrival, wants and priority.

    `wants` is (lock, shared) for each lock, rising; `several` tells how they were asked for.
    """

    wants: tuple[tuple[str, bool], ...]
    several: bool
    session: str
    priority: int
    arrival: int
    order: int
    until_ms: int
    asked: list[RequestId] = field(default_factory=list)
    key: str | None = None
    fingerprint: bytes | None = None

    @property
    def lock(self) -> str:
        """The first of them."""
        return self.wants[0][0]

    @property
    def rank(self) -> tuple[int, int]:
        """Its order in every line."""
        return self.priority, self.arrival


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
        # Locks to look at, in order; and waits for several whose session was given one of them.
        self.look: list[str] = []
        self.hopeful: list[tuple[int, str]] = []

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
            {
                (w.priority, w.arrival, w.session, shared)
                for w in self.waits
                for name, shared in w.wants
                if name == lock
            }
        )

    def fits(self, lock: str, session: str, shared: bool) -> bool:
        """Whether one more holder would do no harm."""
        others = [grant for grant in self.holders(lock) if grant.session != session]
        return all(shared and grant.shared for grant in others)

    def has(self, session: str, lock: str, shared: bool) -> bool:
        """Whether a session holds a lock in this mode or a stronger one."""
        return any(g.session == session and (shared or not g.shared) for g in self.holders(lock))

    def lacks(
        self, session: str, wants: tuple[tuple[str, bool], ...], rank: tuple[int, int]
    ) -> list[str]:
        """Which locks are in the way of who stands, or would stand, at this rank."""
        return [
            lock
            for lock, shared in wants
            if not self.has(session, lock, shared)
            and (
                any(place[:2] < rank for place in self.line(lock))
                or not self.fits(lock, session, shared)
            )
        ]

    def nobody(self, session_id: str) -> Outcome:
        """Why there is no such session."""
        head, dash, tail = session_id.partition("-")
        digits = "0123456789abcdef"
        is_ours = head and dash and tail and head[0] != "0" and all(c in digits for c in head)
        if is_ours and int(head, 16) <= self.token and len(head) <= 16:
            return SessionExpired(session_id)
        return SessionNotFound(session_id)

    def position(self, wait: ModelWait) -> int:
        """Position of a wait's place; the worst of several."""
        return 1 + max(
            (
                sum(place[:2] < wait.rank for place in self.line(lock))
                for lock, shared in wait.wants
                if not self.has(wait.session, lock, shared)
            ),
            default=0,
        )

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
        several = {
            (w.arrival, session)
            for w in self.waits
            if w.several and w.session == session and lock in dict(w.wants)
        }
        if several:
            self.hopeful += [wait for wait in sorted(several) if wait not in self.hopeful]
            self.look.append(lock)
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
        freed = [g.lock for g in held if self.stood(g.lock, waited)]
        left = {w.arrival: [lock for lock, _ in w.wants] for w in waited}
        return freed + [lock for _, locks in sorted(left.items()) for lock in locks]

    def stood(self, lock: str, also: list[ModelWait]) -> bool:
        """Whether anybody stands, or just stood, in the line of a lock."""
        return bool(self.line(lock)) or any(lock in dict(w.wants) for w in also)

    def give_up(self, wait: ModelWait) -> list[str]:
        """A wait has been long enough."""
        lacking = self.lacks(wait.session, wait.wants, wait.rank) or [wait.lock]
        refusal = self.held(lacking[0], wait.session, *wait.rank)
        self.tell(wait, LocksHeld(refusal, tuple(lacking)) if wait.several else refusal)
        return self.after_leaving(wait)

    def after_leaving(self, wait: ModelWait) -> list[str]:
        """The locks to look at when a wait is over, unless others share its place."""
        if any(w.arrival == wait.arrival for w in self.waits):
            return []
        return [lock for lock, _ in wait.wants]

    def hand_out(self, locks: list[str]) -> None:
        """Grant whatever can be granted."""
        self.look += locks
        while self.look:
            lock = self.look.pop(0)
            while line := self.line(lock):
                wait = next(w for w in self.waits if w.rank == line[0][:2])
                if self.lacks(wait.session, wait.wants, wait.rank):
                    break
                self.serve(wait)
            while self.hopeful:
                arrival, _ = self.hopeful.pop(0)
                for wait in self.waits:
                    if wait.arrival == arrival:
                        if not self.lacks(wait.session, wait.wants, wait.rank):
                            self.serve(wait)
                        break

    def serve(self, wait: ModelWait) -> None:
        """Give a place all it wants, if its session may still be given anything."""
        session = self.find(wait.session)
        assert session is not None
        if session.ends_ms <= self.time_ms:
            self.look.extend(self.end(session))
            return
        served = [w for w in self.waits if w.arrival == wait.arrival]
        # Their place is theirs no longer: they do not hope for what they are being given.
        for each in served:
            self.waits.remove(each)
        granted = self.grant_all(session.id, wait.wants)
        self.waits += served
        outcome: Outcome = granted
        if not wait.several:
            name, token, shared = granted.locks[0]
            outcome = Granted(name, session.id, token, shared)
        for each in sorted(served, key=lambda w: w.order):
            self.tell(each, outcome)
        if not wait.several:
            return
        for lock, _ in wait.wants:
            self.serve_singles(session.id, lock)
            self.look.append(lock)

    def serve_singles(self, session: str, lock: str) -> None:
        """What a session wanted of a lock by itself, it may have come by among several."""
        (own,) = (g for g in self.holders(lock) if g.session == session)
        singles = [
            w
            for w in self.waits
            if not w.several and (w.session, w.lock) == (session, lock)
            if self.has(session, lock, w.wants[0][1])
        ]
        for single in sorted(singles, key=lambda w: w.order):
            self.tell(single, Granted(lock, session, own.token, own.shared))

    def grant_all(self, session: str, wants: tuple[tuple[str, bool], ...]) -> GrantedMany:
        """Hand out what a session does not hold yet."""
        for lock, shared in wants:
            if not self.has(session, lock, shared):
                self.grants = [g for g in self.grants if (g.lock, g.session) != (lock, session)]
                self.grant(lock, session, shared)
        own = {g.lock: g for g in self.grants if g.session == session}
        return GrantedMany(
            tuple((lock, own[lock].token, own[lock].shared) for lock, _ in wants), session
        )

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
                locks += self.after_leaving(wait)
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
        assert isinstance(
            command,
            (KeepAlive, CloseSession, AcquireLock, ReleaseLock, AcquireLocks, ReleaseLocks),
        )
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
        if isinstance(command, AcquireLocks):
            return self.acquire_all(session, command)
        if isinstance(command, ReleaseLocks):
            return self.release_all(session, command, freed)
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
                freed += self.after_leaving(said)
        elif said is None and memory.ack <= seq < request_id.seq:
            memory.said[seq] = Withdrawn()
        return Abandoned()

    def acquire(self, session: ModelSession, command: AcquireLock) -> Outcome | ModelWait:
        """Ask for a lock."""
        lock, shared = command.name, command.shared
        mine = [g for g in self.holders(lock) if g.session == session.id]
        same = [
            w for w in self.waits if not w.several and (w.lock, w.session) == (lock, session.id)
        ]
        if not mine and not same and self.things(session.id) >= limits.OWNED_PER_SESSION_MAX:
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
            if is_first and self.fits(lock, session.id, shared):
                known = self.known()
                if lock not in known and len(known) >= limits.LOCKS_MAX:
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
                same[0].wants,
                False,
                session.id,
                same[0].priority,
                same[0].arrival,
                self.order,
                until_ms,
            )
            if same
            else ModelWait(
                ((lock, shared),),
                False,
                session.id,
                command.priority,
                arrival,
                self.order,
                until_ms,
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
                if self.line(command.name):
                    freed.append(command.name)
                return Released(command.name)
        if not holders or command.token in [grant.token for grant in holders]:
            return NotHolder(command.name, session.id)
        return StaleToken(command.name, command.token, holders[-1].token)

    # Several at once.

    def things(self, session: str) -> int:
        """How much a session holds and waits for."""
        places = {w.arrival for w in self.waits if w.session == session}
        return sum(g.session == session for g in self.grants) + len(places)

    def known(self) -> set[str]:
        """Locks that somebody holds or waits for."""
        return {g.lock for g in self.grants} | {name for w in self.waits for name, _ in w.wants}

    def acquire_all(self, session: ModelSession, command: AcquireLocks) -> Outcome | ModelWait:
        """Ask for several locks."""
        modes: dict[str, bool] = {}
        for lock, shared in command.locks:
            modes[lock] = shared and modes.get(lock, True)
        wants = tuple(sorted(modes.items()))
        same = [w for w in self.waits if w.several and (w.session, w.wants) == (session.id, wants)]
        rank = same[0].rank if same else (command.priority, self.order + 1)
        own = {g.lock: g for g in self.grants if g.session == session.id}
        if not same:
            new = [lock for lock in modes if lock not in own]
            if new and self.things(session.id) + len(new) > limits.OWNED_PER_SESSION_MAX:
                return QueueFull("things of a session", limits.OWNED_PER_SESSION_MAX)
            if len(self.known() | set(modes)) > limits.LOCKS_MAX:
                return QueueFull("locks", limits.LOCKS_MAX)
        lacking = self.lacks(session.id, wants, rank)
        if not lacking:
            return self.grant_all(session.id, wants)
        refusal = LocksHeld(self.held(lacking[0], session.id, *rank), tuple(lacking))
        if command.wait_ms <= 0 or any(lock in own and not modes[lock] for lock in lacking):
            return refusal
        if len(self.waits) >= limits.PARKED_MAX:
            return QueueFull("parked requests", limits.PARKED_MAX)
        if not same:
            of_session = {w.arrival for w in self.waits if w.several and w.session == session.id}
            most = limits.MULTI_WAITS_PER_SESSION_MAX
            if len(of_session) >= most:
                return QueueFull("waits for several locks of a session", most)
            if any(len(self.line(lock)) >= limits.WAITERS_PER_LOCK_MAX for lock in modes):
                return QueueFull("waiters of a lock", limits.WAITERS_PER_LOCK_MAX)
        self.order += 1
        wait = ModelWait(wants, True, session.id, *rank, self.order, self.time_ms + command.wait_ms)
        self.waits.append(wait)
        return wait

    def release_all(
        self, session: ModelSession, command: ReleaseLocks, freed: list[str]
    ) -> Outcome:
        """Give several locks back."""
        asked = sorted(set(command.locks))
        for lock, token in asked:
            holders = self.holders(lock)
            if (session.id, token) in [(g.session, g.token) for g in holders]:
                continue
            if not holders or token in [grant.token for grant in holders]:
                return NotHolder(lock, session.id)
            return StaleToken(lock, token, holders[-1].token)
        tokens = [token for _, token in asked]
        self.grants = [grant for grant in self.grants if grant.token not in tokens]
        freed += [lock for lock, _ in asked if self.line(lock)]
        return ReleasedMany(tuple(lock for lock, _ in asked))
