"""Locks: one holder or several sharers, waiters in fair order, a fencing token per grant.

RULE: a function of state, cluster time and command. Reads no clock, draws no lots.

Fair: a request is granted at once only when it is compatible with the holders and nobody waits
before it; smaller priority first, equal ones in order of arrival. When a place at the head can be
granted, it is; compatible ones right behind it follow.

A sharer that asks for the lock alone gets it (under a new token) only when nobody else holds or
waits; otherwise it is refused even if it would wait: two sharers waiting for one another to leave
would wait for ever. (One that waited for it alone before it came to share it keeps waiting.)

Several locks at once are asked for in `multilocks.py`. While somebody waits for this lock and for
others, it may be free and have a queue; so free does not mean that nobody is before us.
Source: Gray & Cheriton (leases); Chubby (sequencers); Courtois et al. (readers and writers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from cluster.machine import limits
from cluster.machine.commands.base import Command, RequestId
from cluster.machine.commands.locks import AcquireLock, ReleaseLock
from cluster.machine.core import Core
from cluster.machine.events import Event
from cluster.machine.locks.book import (
    KIND,
    Grant,
    Lock,
    LockBook,
    LockPlace,
    MultiPlace,
    is_alone,
    is_compatible,
    is_enough,
    newest,
    rank_of,
)
from cluster.machine.locks.multilocks import MultiLocks, not_released
from cluster.machine.names import page
from cluster.machine.outcome.base import Outcome, QueueFull, Refusal
from cluster.machine.outcome.locks import Granted, LockHeld, LockInfo, LocksHeld, Released
from cluster.machine.parked import Parked, Place
from cluster.machine.primitive import Blocker, Check, Handler, Record, Table, Weighed
from cluster.machine.restoring import Restoring, must
from cluster.machine.sessions import Owned, Session


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
    """All locks that are held or waited for. A free lock leaves no trace."""

    kind = KIND

    def __init__(self, core: Core) -> None:
        self._core = core
        self._book = LockBook(core)
        self._by_name = self._book.by_name
        self._several = MultiLocks(core, self._book)
        self.handlers: Mapping[type[Command], Handler] = {
            AcquireLock: self.acquire,
            ReleaseLock: self.release,
            **self._several.handlers,
        }
        self.timers: Mapping[int, Callable[[Any], None]] = {}
        self.checks: Mapping[type[Command], Check] = {
            AcquireLock: Check(_thing, self._would_refuse_to_grant),
            ReleaseLock: Check(_thing, self._would_refuse_to_release),
        }
        self.tables: tuple[Table, ...] = (
            Table("lock grants", _GrantRecord, self._dump_grants, self._load_grants),
            self._several.table,
            Table("lock places", _PlaceRecord, self._dump_places, self._load_places),
        )

    def __len__(self) -> int:
        return len(self._by_name)

    @property
    def waiters(self) -> int:
        """In all queues; one who waits for several locks counts in each."""
        return self._book.waiters

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
            return self._book.grant(self._book.new(name), session, name, shared)
        if place is None:
            rank = rank_of(lock, command.priority, core.next_arrival())
            if rank == 0 and is_compatible(lock, shared):
                return self._book.grant(lock, session, name, shared)
        else:
            rank = rank_of(lock, place.priority, place.arrival)
        if command.wait_ms <= 0:
            return self._book.refusal(lock, name, session.id, rank)
        if core.is_full:
            return QueueFull("parked requests", limits.PARKED_MAX)
        if place is None:
            if len(lock.queue) >= limits.WAITERS_PER_LOCK_MAX:
                return QueueFull("waiters of a lock", limits.WAITERS_PER_LOCK_MAX)
            place = LockPlace(
                name, session.id, shared, command.priority, core.next_arrival(), core.now_ms
            )
            self._book.enter(lock, place)
        return core.park(place, command.wait_ms)

    def release(self, command: ReleaseLock, _: RequestId) -> Released | Refusal:
        """Give the lock back, if the session holds it under this very token."""
        core, name, token = self._core, command.name, command.token
        session = core.sessions.get(command.session)
        if session is None:
            return core.gone(command.session)
        thing = (KIND, name, "")
        if session.owned.get(thing) != token:
            return not_released(self._by_name.get(name), name, session, token)
        del session.owned[thing]
        self._book.take(name, token)
        core.events.append(Event("released", KIND, name, session.id, token))
        return Released(name)

    # What the machine asks of every primitive.

    def free(self, session: Session, thing: Owned, token: int) -> None:
        """The holder is gone."""
        name = thing[1]
        self._book.take(name, token)
        self._core.events.append(Event("lost", KIND, name, session.id, token))

    def leave(self, place: Place) -> None:
        """Take a session's place out of the queue, or out of all its queues."""
        if isinstance(place, MultiPlace):
            self._several.leave(place)
            return
        assert isinstance(place, LockPlace)
        self._book.remove(self._by_name[place.name], place)
        self._core.unsettle(KIND, place.name)

    def settle(self, name: str) -> None:
        """Grant to the head of the queue, and to compatible ones right behind it."""
        core, book, lock = self._core, self._book, self._by_name.get(name)
        while lock is not None and lock.queue:
            place = lock.queue[0][2]
            if isinstance(place, MultiPlace):
                if not self._several.may_go(place):
                    break
            elif not is_compatible(lock, place.shared) and not is_alone(lock, place.session):
                break
            session = core.living(place.session)
            if session is None:
                continue  # It took its place along.
            if isinstance(place, MultiPlace):
                self._several.serve(place, session)
            else:
                self._serve(lock, place, session)
        if book.hopeful:
            self._several.serve_hopeful()
        if lock is not None and not lock.holders and not lock.queue and name in self._by_name:
            book.forget(name)

    def position(self, place: Place) -> int:
        """Rank in the queue, from 1; of several queues, the worst."""
        if isinstance(place, MultiPlace):
            return self._several.position(place)
        assert isinstance(place, LockPlace)
        return rank_of(self._by_name[place.name], place.priority, place.arrival) + 1

    def too_late(self, place: Place) -> LockHeld | LocksHeld:
        """Who holds the lock, and where the session stood."""
        if isinstance(place, MultiPlace):
            return self._several.too_late(place)
        assert isinstance(place, LockPlace)
        lock = self._by_name[place.name]
        rank = rank_of(lock, place.priority, place.arrival)
        return self._book.refusal(lock, place.name, place.session, rank)

    def places(self) -> Iterator[Place]:
        """By lock, in queue order; then those who wait for several."""
        singles = (
            place for _, lock in self for _, _, place in lock.queue if isinstance(place, LockPlace)
        )
        return chain(singles, self._several.places())

    def blockers(self, name: str, session: str, place: Place | None) -> Iterator[Blocker]:
        """All holders that are in the way, then all waiters before.

        Who would only now ask does so for the lock alone, with the usual priority; all who wait are
        in the way of a sharer that does.
        """
        lock, owner = self._by_name.get(name), self._core.sessions.get(session)
        if lock is None or owner is None:
            return
        shared = isinstance(place, LockPlace | MultiPlace) and _mode(place, name)
        own = self._book.own(owner, name)
        if is_enough(own, shared):
            return
        is_new = place is None and own is None
        for grant in lock.holders.values():
            if grant.session != session:
                yield Blocker(grant.session, grant.token, grant.since_ms, None)
        for position, (priority, _, other) in enumerate(lock.queue, 1):
            if other is place or (is_new and priority > 0):
                return
            if other.session != session:
                yield Blocker(other.session, None, other.since_ms, position)

    # Reading.

    def check(self, name: str, token: int) -> tuple[bool, int | None]:
        """Whether a present grant has this token, and the newest token of the lock if it is held.

        A resource that sees tokens may refuse all but a valid one.
        """
        lock = self._by_name.get(name)
        if lock is None or not lock.holders:
            return False, None
        return token in lock.holders, newest(lock)

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
                    _mode(place, name),
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
        return [self.info(name, now_ms) for name in page(self._book.names, prefix, after, limit)]

    def __iter__(self) -> Iterator[tuple[str, Lock]]:
        """By name."""
        return iter(self._book)

    # How it is done.

    def _acquire_again(self, session: Session, command: AcquireLock, token: int) -> Outcome:
        name = command.name
        lock = self._by_name[name]
        grant = lock.holders[token]
        if command.shared or not grant.shared:
            return Granted(name, session.id, token, grant.shared)
        if len(lock.holders) == 1 and not lock.queue:
            del lock.holders[token]
            return self._book.grant(lock, session, name, False)
        rank = rank_of(lock, command.priority, self._core.next_arrival())
        return self._book.refusal(lock, name, session.id, rank)

    def _serve(self, lock: Lock, place: LockPlace, session: Session) -> None:
        book, name = self._book, place.name
        book.remove(lock, place)
        if (own := book.own(session, name)) is not None:
            # A sharer that was first to ask for it alone, and is alone now.
            del lock.holders[own.token]
        self._core.grant(place, book.grant(lock, session, name, place.shared))

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
            rank = rank_of(lock, command.priority, core.next_arrival())
            if token is None and rank == 0 and is_compatible(lock, command.shared):
                return None
        else:
            rank = rank_of(lock, place.priority, place.arrival)
        return self._book.refusal(lock, name, session.id, rank)

    def _would_refuse_to_release(self, command: ReleaseLock) -> Refusal | None:
        session = self._core.sessions.get(command.session)
        if session is None:
            return self._core.gone(command.session)
        if session.owned.get((KIND, command.name, "")) == command.token:
            return None
        lock = self._by_name.get(command.name)
        return not_released(lock, command.name, session, command.token)

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
                lock = self._book.new(record.name)
            name, newest, is_alone = record.name, record.token, not record.shared
            restoring.own(record.session, (KIND, record.name, ""), record.token)
            lock.holders[record.token] = Grant(
                record.session, record.token, record.shared, record.since_ms
            )

    def _dump_places(self) -> Weighed:
        for name, lock in self:
            for _, _, place in lock.queue:
                if isinstance(place, MultiPlace):
                    continue
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
        holders: dict[str, dict[str, Grant]] = {}
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
                holders[record.name] = {grant.session: grant for grant in lock.holders.values()}
            must(
                not is_enough(holders[record.name].get(record.session), record.shared),
                "a session holds a lock and waits for it",
            )
            self._book.enter(lock, place)
            restoring.stand(place)
        for _, lock in self:
            head = lock.queue[0][2] if lock.queue else None
            must(
                not isinstance(head, LockPlace)
                or not (is_compatible(lock, head.shared) or is_alone(lock, head.session)),
                "a place was not granted when it could",
            )
        self._several.verify()


def _mode(place: LockPlace | MultiPlace, name: str) -> bool:
    if isinstance(place, LockPlace):
        return place.shared
    return next(shared for own, shared, _ in place.lines if own == name)


def _thing(command: AcquireLock | ReleaseLock) -> tuple[str, ...]:
    return KIND, command.name
