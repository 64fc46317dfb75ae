"""Locks: one holder or several sharers, waiters in fair order, a fencing token per grant.

RULE: a function of state, cluster time and command. Reads no clock, draws no lots.

Fair: a request is granted at once only when it is compatible with the holders and nobody waits
before it; smaller priority first, equal ones in order of arrival. When a place at the head can be
granted, it is; compatible ones right behind it follow.

A sharer that asks for the lock alone gets it (under a new token) only when nobody else holds or
waits; otherwise it is refused even if it would wait: two sharers waiting for one another to leave
would wait for ever.
Source: Gray & Cheriton (leases); Chubby (sequencers); Courtois et al. (readers and writers).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, ClassVar

from sortedcontainers import SortedList

from cluster.machine import limits
from cluster.machine.commands.base import Command, RequestId
from cluster.machine.commands.locks import AcquireLock, ReleaseLock
from cluster.machine.core import Core
from cluster.machine.events import Event
from cluster.machine.outcome.base import NotHolder, Outcome, QueueFull, Refusal, StaleToken
from cluster.machine.outcome.locks import Granted, LockHeld, LockInfo, Released
from cluster.machine.parked import Parked, Place
from cluster.machine.primitive import Blocker, Check, Handler, Record, Table, Weighed
from cluster.machine.restoring import Restoring, must
from cluster.machine.sessions import Owned, Session

KIND = "lock"


class Grant:
    """A lock held by one session since a time, under a token."""

    __slots__ = ("session", "shared", "since_ms", "token")

    def __init__(self, session: str, token: int, shared: bool, since_ms: int) -> None:
        self.session = session
        self.token = token
        self.shared = shared
        self.since_ms = since_ms


class LockPlace(Place):
    """A session's place in the queue of a lock."""

    __slots__ = ("priority", "shared", "since_ms")

    kind: ClassVar[str] = KIND
    session: str

    def __init__(
        self, name: str, session: str, shared: bool, priority: int, arrival: int, since_ms: int
    ) -> None:
        super().__init__(name, session, arrival)
        self.shared = shared
        self.priority = priority
        self.since_ms = since_ms


class Lock:
    """One lock that somebody holds.

    Attributes:
        holders: by token, in order of grant; more than one only when all are shared.
        queue: (priority, arrival, place), sorted. Invariant: only while somebody holds.
        places: by session; None until somebody has waited.
    """

    __slots__ = ("holders", "places", "queue")

    def __init__(self) -> None:
        self.holders: dict[int, Grant] = {}
        self.queue: list[tuple[int, int, LockPlace]] = []
        self.places: dict[str, LockPlace] | None = None


class _GrantRecord(Record):
    name: str
    session: str
    token: int
    shared: bool
    since_ms: int


class _PlaceRecord(Record):
    name: str
    session: str
    shared: bool
    priority: int
    arrival: int
    since_ms: int


class Locks:
    """All locks that are held. A free lock leaves no trace.

    Attributes:
        waiters: in all queues.
    """

    kind = KIND

    def __init__(self, core: Core) -> None:
        self._core = core
        self._by_name: dict[str, Lock] = {}
        self._names = SortedList()
        self.waiters = 0
        self.handlers: Mapping[type[Command], Handler] = {
            AcquireLock: self.acquire,
            ReleaseLock: self.release,
        }
        self.timers: Mapping[int, Callable[[Any], None]] = {}
        self.checks: Mapping[type[Command], Check] = {
            AcquireLock: Check(_thing, self._would_refuse_to_grant),
            ReleaseLock: Check(_thing, self._would_refuse_to_release),
        }
        self.tables: tuple[Table, ...] = (
            Table("lock grants", _GrantRecord, self._dump_grants, self._load_grants),
            Table("lock places", _PlaceRecord, self._dump_places, self._load_places),
        )

    def __len__(self) -> int:
        return len(self._by_name)

    # Commands.

    def acquire(self, command: AcquireLock, _: RequestId) -> Outcome | Parked:
        """Grant the lock, have the request wait for it, or refuse.

        A session that holds the lock in this mode or a stronger one is given its grant again. One
        that waits already keeps its place, mode and priority, whatever it asks for now.
        """
        core, name, shared = self._core, command.name, command.shared
        session = core.sessions.get(command.session)
        if session is None:
            return core.gone(command.session)
        token = session.owned.get((KIND, name, ""))
        if token is not None:
            return self._acquire_again(session, command, token)
        lock = self._by_name.get(name)
        place = None if lock is None or lock.places is None else lock.places.get(session.id)
        if place is None and (refusal := core.no_room(session)) is not None:
            return refusal
        if lock is None:
            if len(self._by_name) >= limits.LOCKS_MAX:
                return QueueFull("locks", limits.LOCKS_MAX)
            return self._grant(self._new(name), session, name, shared)
        if place is None:
            rank = _rank(lock, command.priority, core.next_arrival())
            if rank == 0 and _compatible(lock, shared):
                return self._grant(lock, session, name, shared)
        else:
            rank = _rank(lock, place.priority, place.arrival)
        if command.wait_ms <= 0:
            return self._refusal(lock, name, session.id, rank)
        if core.is_full:
            return QueueFull("parked requests", limits.PARKED_MAX)
        if place is None:
            if len(lock.queue) >= limits.WAITERS_PER_LOCK_MAX:
                return QueueFull("waiters of a lock", limits.WAITERS_PER_LOCK_MAX)
            place = LockPlace(
                name, session.id, shared, command.priority, core.next_arrival(), core.now_ms
            )
            self._enter(lock, place, rank)
        return core.park(place, command.wait_ms)

    def release(self, command: ReleaseLock, _: RequestId) -> Released | Refusal:
        """Give the lock back, if the session holds it under this very token."""
        core, name, token = self._core, command.name, command.token
        session = core.sessions.get(command.session)
        if session is None:
            return core.gone(command.session)
        thing = (KIND, name, "")
        if session.owned.get(thing) != token:
            return self._not_released(name, session, token)
        del session.owned[thing]
        self._take(name, token)
        core.events.append(Event("released", KIND, name, session.id, token))
        return Released(name)

    # What the machine asks of every primitive.

    def free(self, session: Session, thing: Owned, token: int) -> None:
        """The holder is gone."""
        name = thing[1]
        self._take(name, token)
        self._core.events.append(Event("lost", KIND, name, session.id, token))

    def leave(self, place: Place) -> None:
        """Take a session's place out of the queue."""
        name = place.name
        lock = self._by_name[name]
        assert isinstance(place, LockPlace)
        assert lock.places is not None
        del lock.places[place.session]
        del lock.queue[_rank(lock, place.priority, place.arrival)]
        self.waiters -= 1
        self._core.unsettle(KIND, name)

    def settle(self, name: str) -> None:
        """Grant to the head of the queue, and to compatible ones right behind it."""
        core, lock = self._core, self._by_name.get(name)
        while lock is not None and lock.queue and _compatible(lock, lock.queue[0][2].shared):
            place = lock.queue[0][2]
            session = core.living(place.session)
            if session is None:
                continue  # It took its place along.
            assert lock.places is not None
            del lock.places[place.session]
            del lock.queue[0]
            self.waiters -= 1
            core.grant(place, self._grant(lock, session, name, place.shared))
        if lock is not None and not lock.holders and not lock.queue and name in self._by_name:
            self._forget(name)

    def position(self, place: Place) -> int:
        """Rank in the queue, from 1."""
        assert isinstance(place, LockPlace)
        return _rank(self._by_name[place.name], place.priority, place.arrival) + 1

    def too_late(self, place: Place) -> LockHeld:
        """Who holds the lock, and where the session stood."""
        assert isinstance(place, LockPlace)
        lock = self._by_name[place.name]
        rank = _rank(lock, place.priority, place.arrival)
        return self._refusal(lock, place.name, place.session, rank)

    def places(self) -> Iterator[Place]:
        """By lock, in queue order."""
        return (place for _, lock in self for _, _, place in lock.queue)

    def blockers(self, name: str, session: str, place: Place | None) -> Iterator[Blocker]:
        """All holders that are in the way, then all waiters before."""
        lock = self._by_name.get(name)
        if lock is None:
            return
        for grant in lock.holders.values():
            if grant.session != session:
                yield Blocker(grant.session, grant.token, grant.since_ms, None)
        for position, (_, _, other) in enumerate(lock.queue, 1):
            if other is place:
                return
            yield Blocker(other.session, None, other.since_ms, position)

    # Reading.

    def check(self, name: str, token: int) -> tuple[bool, int | None]:
        """Whether a present grant has this token, and the newest token of the lock if it is held.

        A resource that sees tokens may refuse all but a valid one.
        """
        lock = self._by_name.get(name)
        if lock is None or not lock.holders:
            return False, None
        return token in lock.holders, _newest(lock)

    def info(self, name: str, now_ms: int) -> LockInfo:
        """A picture of one lock; empty when nobody holds it."""
        lock = self._by_name.get(name)
        if lock is None:
            return LockInfo(name, (), ())
        return LockInfo(
            name,
            tuple(
                (grant.session, grant.token, grant.shared, max(0, now_ms - grant.since_ms))
                for grant in lock.holders.values()
            ),
            tuple(
                (
                    place.session,
                    place.shared,
                    place.priority,
                    max(0, now_ms - place.since_ms),
                    place.expires_in_ms(now_ms),
                )
                for _, _, place in lock.queue
            ),
        )

    def list(
        self, now_ms: int, *, prefix: str = "", after: str | None = None, limit: int = 100
    ) -> list[LockInfo]:
        """Pictures of at most `limit` locks whose names start with `prefix`, in order of name.

        Args:
            after: name of the last one seen; it need not be held any more.
        """
        if after is not None and after >= prefix:
            names = self._names.irange(minimum=after, inclusive=(False, True))
        else:
            names = self._names.irange(minimum=prefix)
        pictures = []
        for name in islice(names, limit):
            if not name.startswith(prefix):
                break
            pictures.append(self.info(name, now_ms))
        return pictures

    def __iter__(self) -> Iterator[tuple[str, Lock]]:
        """By name."""
        return ((name, self._by_name[name]) for name in self._names)

    # How it is done.

    def _acquire_again(self, session: Session, command: AcquireLock, token: int) -> Outcome:
        name = command.name
        lock = self._by_name[name]
        grant = lock.holders[token]
        if command.shared or not grant.shared:
            return Granted(name, session.id, token, grant.shared)
        if len(lock.holders) == 1 and not lock.queue:
            del lock.holders[token]
            return self._grant(lock, session, name, False)
        rank = _rank(lock, command.priority, self._core.next_arrival())
        return self._refusal(lock, name, session.id, rank)

    def _not_released(self, name: str, session: Session, token: int) -> Refusal:
        lock = self._by_name.get(name)
        if lock is None or not lock.holders or token in lock.holders:
            return NotHolder(name, session.id)
        return StaleToken(name, token, _newest(lock))

    def _would_refuse_to_grant(self, command: AcquireLock) -> Refusal | None:
        core, name = self._core, command.name
        session = core.sessions.get(command.session)
        if session is None:
            return core.gone(command.session)
        lock = self._by_name.get(name)
        token = session.owned.get((KIND, name, ""))
        if token is not None:
            assert lock is not None
            is_enough = command.shared or not lock.holders[token].shared
            if is_enough or (len(lock.holders) == 1 and not lock.queue):
                return None
        place = None if lock is None or lock.places is None else lock.places.get(session.id)
        if token is None and place is None and (refusal := core.no_room(session)) is not None:
            return refusal
        if lock is None:
            if len(self._by_name) + core.headroom > limits.LOCKS_MAX:
                return QueueFull("locks", limits.LOCKS_MAX)
            return None
        if place is None:
            rank = _rank(lock, command.priority, core.next_arrival())
            if token is None and rank == 0 and _compatible(lock, command.shared):
                return None
        else:
            rank = _rank(lock, place.priority, place.arrival)
        return self._refusal(lock, name, session.id, rank)

    def _would_refuse_to_release(self, command: ReleaseLock) -> Refusal | None:
        session = self._core.sessions.get(command.session)
        if session is None:
            return self._core.gone(command.session)
        if session.owned.get((KIND, command.name, "")) == command.token:
            return None
        return self._not_released(command.name, session, command.token)

    def _new(self, name: str) -> Lock:
        self._by_name[name] = lock = Lock()
        self._names.add(name)
        return lock

    def _forget(self, name: str) -> None:
        del self._by_name[name]
        self._names.remove(name)

    def _take(self, name: str, token: int) -> None:
        """Take a grant away. A lock that nobody is left for disappears."""
        lock = self._by_name[name]
        del lock.holders[token]
        if lock.queue:
            self._core.unsettle(KIND, name)
        elif not lock.holders:
            self._forget(name)

    def _grant(self, lock: Lock, session: Session, name: str, shared: bool) -> Granted:
        core = self._core
        token = core.tokens.next()
        lock.holders[token] = Grant(session.id, token, shared, core.now_ms)
        session.took((KIND, name, ""), token)
        core.events.append(Event("granted", KIND, name, session.id, token))
        return Granted(name, session.id, token, shared)

    def _enter(self, lock: Lock, place: LockPlace, rank: int) -> None:
        if lock.places is None:
            lock.places = {}
        lock.places[place.session] = place
        lock.queue.insert(rank, (place.priority, place.arrival, place))
        self.waiters += 1

    def _refusal(self, lock: Lock, name: str, session: str, rank: int) -> LockHeld:
        """Why this session does not get the lock: who holds it, and where it would stand."""
        others = (grant for grant in lock.holders.values() if grant.session != session)
        holder = next(others, None)
        waits = lock.places is not None and session in lock.places
        return LockHeld(
            name=name,
            holder=None if holder is None else holder.session,
            held_for_ms=0 if holder is None else self._core.now_ms - holder.since_ms,
            holder_token=None if holder is None else holder.token,
            queue_length=len(lock.queue) - waits,
            position=rank + 1,
        )

    # Snapshots.

    def _dump_grants(self) -> Weighed:
        for name, lock in self:
            for grant in lock.holders.values():
                yield 1, [name, grant.session, grant.token, grant.shared, grant.since_ms]

    def _load_grants(self, records: Iterable[_GrantRecord], restoring: Restoring) -> None:
        name, newest, is_alone = None, 0, False
        for record in records:
            must(name is None or name <= record.name, "locks are not in order of name")
            if name == record.name:
                must(newest < record.token, "tokens of a lock do not rise")
                must(record.shared and not is_alone, "an exclusive lock has two holders")
                lock = self._by_name[record.name]
            else:
                lock = self._new(record.name)
            name, newest, is_alone = record.name, record.token, not record.shared
            restoring.own(record.session, (KIND, record.name, ""), record.token)
            lock.holders[record.token] = Grant(
                record.session, record.token, record.shared, record.since_ms
            )

    def _dump_places(self) -> Weighed:
        for name, lock in self:
            for _, _, place in lock.queue:
                yield (
                    1,
                    [
                        name,
                        place.session,
                        place.shared,
                        place.priority,
                        place.arrival,
                        place.since_ms,
                    ],
                )

    def _load_places(self, records: Iterable[_PlaceRecord], restoring: Restoring) -> None:
        holders: dict[str, set[str]] = {}
        for record in records:
            place = LockPlace(
                record.name,
                record.session,
                record.shared,
                record.priority,
                record.arrival,
                record.since_ms,
            )
            lock = self._by_name[record.name]
            must(
                lock.places is None or record.session not in lock.places,
                "a session waits for a lock twice",
            )
            if record.name not in holders:
                holders[record.name] = {grant.session for grant in lock.holders.values()}
            must(
                record.session not in holders[record.name],
                "a session holds a lock and waits for it",
            )
            self._enter(lock, place, _rank(lock, place.priority, place.arrival))
            restoring.stand(place)
        for _, lock in self:
            must(
                not lock.queue or not _compatible(lock, lock.queue[0][2].shared),
                "a place was not granted when it could",
            )


def _thing(command: AcquireLock | ReleaseLock) -> tuple[str, ...]:
    return KIND, command.name


def _compatible(lock: Lock, shared: bool) -> bool:
    """Whether one more holder of this mode fits. Holders are all shared, or one is alone."""
    return not lock.holders or (shared and next(iter(lock.holders.values())).shared)


def _newest(lock: Lock) -> int:
    return next(reversed(lock.holders))


def _rank(lock: Lock, priority: int, arrival: int) -> int:
    """How many stand before (priority, arrival). A shorter tuple sorts before a longer one."""
    return bisect_left(lock.queue, (priority, arrival))
