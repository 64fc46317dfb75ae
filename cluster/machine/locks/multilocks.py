"""Several locks in one step: all or none, and nothing is held while waiting.

RULE: a function of state, cluster time and command. Decides when several locks can be given at
once; what one lock is, and its commands, are in `locks.py`.

A request stands in the queue of each of its locks at the rank of its (priority, arrival), one
arrival for all. It is granted in the step in which it could be granted in every one of them; until
then it keeps its places, and nobody behind it passes, even where a lock is free meanwhile. Ranks
being the same order in every queue, the first of all who wait is behind nobody, and no two who wait
can stand in one another's way. A lock that the session holds already, in this mode or a stronger
one, counts as granted; its place in that queue stays, as the lock may be given back meanwhile.

A sharer that asks for the lock alone among several is treated as in `locks.py`: it gets it at once
or is refused.
Source: Havender (1968): no hold and wait, no deadlock; Courtois et al. (readers and writers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import attrgetter

from cluster.machine import limits
from cluster.machine.commands.base import Command, RequestId
from cluster.machine.commands.locks import AcquireLocks, ReleaseLocks
from cluster.machine.core import Core
from cluster.machine.events import Event
from cluster.machine.locks.book import (
    KIND,
    Grant,
    Lock,
    LockBook,
    MultiPlace,
    Wants,
    is_alone,
    is_compatible,
    is_enough,
    newest,
    rank_of,
)
from cluster.machine.outcome.base import NotHolder, Outcome, QueueFull, Refusal, StaleToken
from cluster.machine.outcome.locks import Granted, GrantedMany, LockHeld, LocksHeld, ReleasedMany
from cluster.machine.parked import Parked
from cluster.machine.primitive import Handler, Record, Table, Weighed
from cluster.machine.restoring import Restoring, must
from cluster.machine.sessions import Session


class _MultiRecord(Record):
    session: str
    names: list[str]
    shared: list[bool]
    priority: int
    arrival: int
    since_ms: int


class MultiLocks:
    """The part of the locks that is about several at once."""

    def __init__(self, core: Core, book: LockBook) -> None:
        self._core = core
        self._book = book
        # By session and what is wanted: who asks the same again shares the place.
        self._standing: dict[str, dict[Wants, MultiPlace]] = {}
        self.handlers: Mapping[type[Command], Handler] = {
            AcquireLocks: self.acquire,
            ReleaseLocks: self.release,
        }
        self.table = Table("lock multis", _MultiRecord, self._dump, self._load)

    # Commands.

    def acquire(self, command: AcquireLocks, _: RequestId) -> Outcome | Parked:
        """Grant all, have the request wait for all, or refuse."""
        core, book = self._core, self._book
        session = core.sessions.get(command.session)
        if session is None:
            return core.gone(command.session)
        wants = _merged(command.locks)
        place = self._standing.get(session.id, {}).get(wants)
        if place is None:
            rank = (command.priority, core.next_arrival())
            if (refusal := self._no_room(session, wants)) is not None:
                return refusal
        else:
            rank = (place.priority, place.arrival)
        blocked = [name for name, shared in wants if not self._is_open(session, name, shared, rank)]
        if not blocked:
            return self._grant(session, wants)
        upgrades = any(
            name in blocked and not shared and book.own(session, name) is not None
            for name, shared in wants
        )
        if command.wait_ms <= 0 or upgrades:
            return self._refusal(session.id, blocked, rank)
        if core.is_full:
            return QueueFull("parked requests", limits.PARKED_MAX)
        if place is None:
            if (refusal := self._no_queue(session, wants)) is not None:
                return refusal
            lines = tuple(
                (name, shared, book.by_name.get(name) or book.new(name)) for name, shared in wants
            )
            place = MultiPlace(lines, session.id, *rank, core.now_ms)
            self._enter(place)
        return core.park(place, command.wait_ms)

    def release(self, command: ReleaseLocks, _: RequestId) -> ReleasedMany | Refusal:
        """Give all back, if the session holds each under its token."""
        core = self._core
        session = core.sessions.get(command.session)
        if session is None:
            return core.gone(command.session)
        tokens = sorted(set(command.locks))
        for name, token in tokens:
            if session.owned.get((KIND, name, "")) != token:
                return not_released(self._book.by_name.get(name), name, session, token)
        for name, token in tokens:
            del session.owned[(KIND, name, "")]
            self._book.take(name, token)
            core.events.append(Event("released", KIND, name, session.id, token))
        return ReleasedMany(tuple(name for name, _ in tokens))

    # What `Locks` asks.

    def may_go(self, place: MultiPlace) -> bool:
        """Whether all of its locks can be given to a place now."""
        session = self._core.sessions.get(place.session)
        assert session is not None, "a place outlived its session"
        return self._may_go(place, lambda name: self._book.own(session, name))

    def serve(self, place: MultiPlace, session: Session) -> None:
        """Give a place all its locks; the caller has seen that it may go and its session lives."""
        core, book = self._core, self._book
        self._remove(place)
        core.grant(place, self._grant(session, place.wants))
        for name, _, lock in place.lines:
            # What the session wanted of a lock by itself it may have now.
            single = None if lock.places is None else lock.places.get(session.id)
            own = book.own(session, name)
            if single is not None and own is not None and is_enough(own, single.shared):
                book.remove(lock, single)
                core.grant(single, Granted(name, session.id, own.token, own.shared))
            core.unsettle(KIND, name)

    def serve_hopeful(self) -> None:
        """Look at those whose session was given a lock by another way."""
        hopeful = self._book.hopeful
        while hopeful:
            place = hopeful.pop(next(iter(hopeful)))
            if place.is_standing and self.may_go(place):
                session = self._core.living(place.session)
                if session is not None:
                    self.serve(place, session)

    def leave(self, place: MultiPlace) -> None:
        """Take a place out of all its queues."""
        self._remove(place)
        for name in place.names:
            self._core.unsettle(KIND, name)

    def position(self, place: MultiPlace) -> int:
        """The worst of its positions in the queues of locks that it lacks, from 1."""
        session = self._core.sessions.get(place.session)
        ranks = [
            rank_of(lock, place.priority, place.arrival)
            for name, shared, lock in place.lines
            # A session that is just ending holds no more than it can be told.
            if session is None or not is_enough(self._book.own(session, name), shared)
        ]
        return 1 + max(ranks, default=0)

    def too_late(self, place: MultiPlace) -> LocksHeld:
        """Who holds what, and where the session stood."""
        session = self._core.sessions.get(place.session)
        assert session is not None, "a place outlived its session"
        rank = (place.priority, place.arrival)
        blocked = [
            name for name, shared in place.wants if not self._is_open(session, name, shared, rank)
        ]
        # Its last lock may have come free in this very step, and time has the first word.
        return self._refusal(session.id, blocked or [place.name], rank)

    def places(self) -> Iterator[MultiPlace]:
        """By the first of their locks, in queue order."""
        for name, lock in self._book:
            for _, _, place in lock.queue:
                if isinstance(place, MultiPlace) and place.name == name:
                    yield place

    def verify(self) -> None:
        """See that nobody waits who need not, after a load.

        Raises:
            ValueError: somebody does.
        """
        for place in self.places():
            own: dict[str, Grant] = {}
            for name, _, lock in place.lines:
                for grant in lock.holders.values():
                    if grant.session == place.session:
                        own[name] = grant
            must(not self._may_go(place, own.get), "a place was not granted when it could")

    # How it is done.

    def _may_go(self, place: MultiPlace, own: Callable[[str], Grant | None]) -> bool:
        for name, shared, lock in place.lines:
            if is_enough(own(name), shared):
                continue
            if lock.queue[0][2] is not place or not _fits(lock, place.session, shared):
                return False
        return True

    def _is_open(self, session: Session, name: str, shared: bool, rank: tuple[int, int]) -> bool:
        """Whether this lock is given, or could be given to who stands at this rank."""
        lock = self._book.by_name.get(name)
        if lock is None or is_enough(self._book.own(session, name), shared):
            return True
        return rank_of(lock, *rank) == 0 and _fits(lock, session.id, shared)

    def _no_room(self, session: Session, wants: Wants) -> QueueFull | None:
        core, book = self._core, self._book
        new = sum((KIND, name, "") not in session.owned for name, _ in wants)
        if session.things + new - 1 + core.headroom > limits.OWNED_PER_SESSION_MAX and new:
            return QueueFull("things of a session", limits.OWNED_PER_SESSION_MAX)
        if len(book.by_name) + sum(name not in book.by_name for name, _ in wants) > (
            limits.LOCKS_MAX
        ):
            return QueueFull("locks", limits.LOCKS_MAX)
        return None

    def _no_queue(self, session: Session, wants: Wants) -> QueueFull | None:
        if len(self._standing.get(session.id, ())) >= limits.MULTI_WAITS_PER_SESSION_MAX:
            return QueueFull(
                "waits for several locks of a session", limits.MULTI_WAITS_PER_SESSION_MAX
            )
        for name, _ in wants:
            lock = self._book.by_name.get(name)
            if lock is not None and len(lock.queue) >= limits.WAITERS_PER_LOCK_MAX:
                return QueueFull("waiters of a lock", limits.WAITERS_PER_LOCK_MAX)
        return None

    def _grant(self, session: Session, wants: Wants) -> GrantedMany:
        book = self._book
        granted = []
        for name, shared in wants:
            own = book.own(session, name)
            if own is not None and is_enough(own, shared):
                granted.append((name, own.token, own.shared))
                continue
            lock = book.by_name.get(name) or book.new(name)
            if own is not None:
                del lock.holders[own.token]
            given = book.grant(lock, session, name, shared)
            granted.append((name, given.token, shared))
        return GrantedMany(tuple(granted), session.id)

    def _refusal(self, session: str, blocked: list[str], rank: tuple[int, int]) -> LocksHeld:
        name = blocked[0]
        lock = self._book.by_name[name]
        held: LockHeld = self._book.refusal(lock, name, session, rank_of(lock, *rank))
        return LocksHeld(held, tuple(blocked))

    def _enter(self, place: MultiPlace) -> None:
        self._standing.setdefault(place.session, {})[place.wants] = place
        place.is_standing = True
        for _, _, lock in place.lines:
            self._book.enter(lock, place)

    def _remove(self, place: MultiPlace) -> None:
        place.is_standing = False
        of_session = self._standing[place.session]
        del of_session[place.wants]
        if not of_session:
            del self._standing[place.session]
        for _, _, lock in place.lines:
            self._book.remove(lock, place)

    # Snapshots.

    def _dump(self) -> Weighed:
        for place in self.places():
            names = [name for name, _, _ in place.lines]
            shared = [shared for _, shared, _ in place.lines]
            yield (
                1 + len(names),
                [place.session, names, shared, place.priority, place.arrival, place.since_ms],
            )

    def _load(self, records: Iterable[_MultiRecord], restoring: Restoring) -> None:
        book = self._book
        places: list[MultiPlace] = []
        for record in records:
            wants = tuple(zip(record.names, record.shared, strict=False))
            must(len(record.names) == len(record.shared) > 0, "a place has no locks or modes")
            must(wants == _merged(wants), "the locks of a place are not in order of name")
            lines = tuple(
                (name, shared, book.by_name.get(name) or book.new(name)) for name, shared in wants
            )
            place = MultiPlace(
                lines, record.session, record.priority, record.arrival, record.since_ms
            )
            places.append(place)
            restoring.stand(place)
        # They entered in order of arrival, and those of a session are served in that order.
        for place in sorted(places, key=attrgetter("arrival")):
            must(
                place.wants not in self._standing.get(place.session, {}),
                "a session waits for the same locks twice",
            )
            self._enter(place)


def not_released(
    lock: Lock | None, name: str, session: Session, token: int
) -> NotHolder | StaleToken:
    """Why a session cannot give a lock back under this token."""
    if lock is None or not lock.holders or token in lock.holders:
        return NotHolder(name, session.id)
    return StaleToken(name, token, newest(lock))


def _fits(lock: Lock, session: str, shared: bool) -> bool:
    return is_compatible(lock, shared) or is_alone(lock, session)


def _merged(locks: Iterable[tuple[str, bool]]) -> Wants:
    """Each name once, in its stronger mode, rising."""
    wants: dict[str, bool] = {}
    for name, shared in locks:
        wants[name] = shared and wants.get(name, True)
    return tuple(sorted(wants.items()))
