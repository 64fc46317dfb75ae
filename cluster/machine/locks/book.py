"""The book of locks: who holds which under what token, and who stands in line for it.

RULE: keeps and changes records, decides nothing: who may have a lock is decided in `locks.py` (one
at a time) and `multilocks.py` (several in one step), which both write into this one book.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import ClassVar, TypeAlias

from sortedcontainers import SortedList

from cluster.machine.core import Core
from cluster.machine.events import Event
from cluster.machine.outcome.locks import Granted, LockHeld
from cluster.machine.parked import Place
from cluster.machine.sessions import Session

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


class MultiPlace(Place):
    """A session's place in the queues of several locks at once, at the same rank in each.

    Attributes:
        lines: (name, shared, lock), by name; the place is called after the first.
        is_standing: it is in the queues.
    """

    __slots__ = ("is_standing", "lines", "priority", "since_ms")

    kind: ClassVar[str] = KIND
    session: str

    def __init__(
        self,
        lines: tuple[tuple[str, bool, Lock], ...],
        session: str,
        priority: int,
        arrival: int,
        since_ms: int,
    ) -> None:
        super().__init__(lines[0][0], session, arrival)
        self.lines = lines
        self.priority = priority
        self.since_ms = since_ms
        self.is_standing = False

    @property
    def wants(self) -> Wants:
        """What it is for."""
        return tuple((name, shared) for name, shared, _ in self.lines)

    @property
    def names(self) -> tuple[str, ...]:
        """All locks it is for."""
        return tuple(name for name, _, _ in self.lines)

    def stands(self, position: Callable[[Place], int]) -> Iterator[tuple[str, int]]:
        """Its position in each queue."""
        for name, _, lock in self.lines:
            yield name, rank_of(lock, self.priority, self.arrival) + 1


Standing: TypeAlias = LockPlace | MultiPlace
Wants: TypeAlias = tuple[tuple[str, bool], ...]
"""(name, shared), rising by name, each name once."""


class Lock:
    """One lock that somebody holds or waits for.

    Attributes:
        holders: by token, in order of grant; more than one only when all are shared.
        queue: (priority, arrival, place), sorted. While nobody holds, the first is one who waits
            for other locks as well.
        places: of those who wait for this lock alone, by session; None until there was one.
        multis: of those who wait for several, by session and arrival; None while there is none.
    """

    __slots__ = ("holders", "multis", "places", "queue")

    def __init__(self) -> None:
        self.holders: dict[int, Grant] = {}
        self.queue: list[tuple[int, int, Standing]] = []
        self.places: dict[str, LockPlace] | None = None
        self.multis: dict[str, dict[int, MultiPlace]] | None = None


class LockBook:
    """All locks that are held or waited for. A free lock leaves no trace.

    Attributes:
        waiters: in all queues; one who waits for several counts in each.
        hopeful: waits for several whose session was given one of them by another way.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self.by_name: dict[str, Lock] = {}
        self.names = SortedList()
        self.waiters = 0
        self.hopeful: dict[int, MultiPlace] = {}

    def __iter__(self) -> Iterator[tuple[str, Lock]]:
        """By name."""
        return ((name, self.by_name[name]) for name in self.names)

    def new(self, name: str) -> Lock:
        """Open the page of a lock that is free."""
        self.by_name[name] = lock = Lock()
        self.names.add(name)
        return lock

    def forget(self, name: str) -> None:
        """Close the page of a lock that nobody holds or waits for."""
        del self.by_name[name]
        self.names.remove(name)

    def own(self, session: Session, name: str) -> Grant | None:
        """What a session holds of a lock."""
        token = session.owned.get((KIND, name, ""))
        return None if token is None else self.by_name[name].holders[token]

    def grant(self, lock: Lock, session: Session, name: str, shared: bool) -> Granted:
        """Write a grant down; the caller has seen that it fits."""
        core = self._core
        token = core.tokens.next()
        lock.holders[token] = Grant(session.id, token, shared, core.now_ms)
        session.took((KIND, name, ""), token)
        core.events.append(Event("granted", KIND, name, session.id, token))
        if lock.multis is not None and session.id in lock.multis:
            # It lacks one less now, wherever it stands in this queue.
            self.hopeful.update(lock.multis[session.id])
            core.unsettle(KIND, name)
        return Granted(name, session.id, token, shared)

    def take(self, name: str, token: int) -> None:
        """Take a grant away. A lock that nobody is left for disappears."""
        lock = self.by_name[name]
        del lock.holders[token]
        if lock.queue:
            self._core.unsettle(KIND, name)
        elif not lock.holders:
            self.forget(name)

    def enter(self, lock: Lock, place: Standing) -> None:
        """Put a place into the queue of a lock."""
        if isinstance(place, LockPlace):
            if lock.places is None:
                lock.places = {}
            lock.places[place.session] = place
        else:
            if lock.multis is None:
                lock.multis = {}
            lock.multis.setdefault(place.session, {})[place.arrival] = place
        rank = rank_of(lock, place.priority, place.arrival)
        lock.queue.insert(rank, (place.priority, place.arrival, place))
        self.waiters += 1

    def remove(self, lock: Lock, place: Standing) -> None:
        """Take a place out of the queue of a lock; the caller sees to what that makes possible."""
        if isinstance(place, LockPlace):
            assert lock.places is not None
            del lock.places[place.session]
        else:
            assert lock.multis is not None
            del lock.multis[place.session][place.arrival]
            if not lock.multis[place.session]:
                del lock.multis[place.session]
            if not lock.multis:
                lock.multis = None
        del lock.queue[rank_of(lock, place.priority, place.arrival)]
        self.waiters -= 1

    def refusal(self, lock: Lock, name: str, session: str, rank: int) -> LockHeld:
        """Why this session does not get the lock: who holds it, and where it would stand."""
        others = (grant for grant in lock.holders.values() if grant.session != session)
        holder = next(others, None)
        own = int(lock.places is not None and session in lock.places)
        if lock.multis is not None:
            own += len(lock.multis.get(session, ()))
        return LockHeld(
            name=name,
            holder=None if holder is None else holder.session,
            held_for_ms=0 if holder is None else self._core.now_ms - holder.since_ms,
            holder_token=None if holder is None else holder.token,
            queue_length=len(lock.queue) - own,
            position=rank + 1,
        )


def is_enough(own: Grant | None, shared: bool) -> bool:
    """Whether who holds this needs no more of the lock."""
    return own is not None and (shared or not own.shared)


def is_compatible(lock: Lock, shared: bool) -> bool:
    """Whether one more holder of this mode fits. Holders are all shared, or one is alone."""
    return not lock.holders or (shared and next(iter(lock.holders.values())).shared)


def is_alone(lock: Lock, session: str) -> bool:
    """Whether a session is the only holder."""
    return len(lock.holders) == 1 and next(iter(lock.holders.values())).session == session


def newest(lock: Lock) -> int:
    """The newest present token of a lock that is held."""
    return next(reversed(lock.holders))


def rank_of(lock: Lock, priority: int, arrival: int) -> int:
    """How many stand before (priority, arrival). A shorter tuple sorts before a longer one."""
    return bisect_left(lock.queue, (priority, arrival))
