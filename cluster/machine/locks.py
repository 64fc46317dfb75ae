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
from collections.abc import Iterator
from itertools import islice

from sortedcontainers import SortedList

from cluster.machine import limits
from cluster.machine.outcome import (
    Granted,
    LockHeld,
    LockInfo,
    NotHolder,
    QueueFull,
    Released,
    StaleToken,
)
from cluster.machine.parked import Parked
from cluster.machine.tokens import Tokens

KIND = "lock"
"""Kind of a lock among the things that a session owns."""


class Grant:
    """A lock held by one session since a time, under a token."""

    __slots__ = ("session", "shared", "since_ms", "token")

    def __init__(self, session: str, token: int, shared: bool, since_ms: int) -> None:
        self.session = session
        self.token = token
        self.shared = shared
        self.since_ms = since_ms


class LockPlace:
    """A session's place in the queue of a lock. It is left when the last wait in it ends."""

    __slots__ = ("arrival", "name", "parked", "priority", "session", "shared", "since_ms")

    def __init__(
        self, name: str, session: str, shared: bool, priority: int, arrival: int, since_ms: int
    ) -> None:
        self.name = name
        self.session = session
        self.shared = shared
        self.priority = priority
        self.arrival = arrival
        self.since_ms = since_ms
        self.parked: dict[int, Parked] = {}


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


class Locks:
    """All locks that are held. A free lock leaves no trace."""

    __slots__ = ("_by_name", "_names", "_tokens", "waiters")

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._by_name: dict[str, Lock] = {}
        self._names = SortedList()
        self.waiters = 0

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[tuple[str, Lock]]:
        """By name."""
        return ((name, self._by_name[name]) for name in self._names)

    def acquire(
        self,
        name: str,
        session: str,
        *,
        held: int,
        shared: bool,
        priority: int,
        can_wait: bool,
        arrival: int,
        now_ms: int,
    ) -> Granted | LockHeld | QueueFull | LockPlace:
        """Grant the lock, say where to wait, or refuse.

        A session that holds the lock in this mode or a stronger one is given its grant again. One
        that waits already keeps its place, mode and priority, whatever it asks for now.

        Args:
            held: token under which this session holds the lock already; 0 when it does not.
            arrival: order of this request among all that ever waited, rising.
        Returns:
            A LockPlace (old or new) when the request may wait: the caller parks it there.
        """
        lock = self._by_name.get(name)
        if lock is None:
            if len(self._by_name) >= limits.LOCKS_MAX:
                return QueueFull("locks", limits.LOCKS_MAX)
            lock = self._new(name)
            return self._grant(lock, name, session, shared, now_ms)
        if held:
            grant = lock.holders[held]
            if shared or not grant.shared:
                return Granted(name, session, held, grant.shared)
            if len(lock.holders) == 1 and not lock.queue:
                del lock.holders[held]
                return self._grant(lock, name, session, shared, now_ms)
            return self._refusal(lock, name, session, now_ms, _rank(lock, priority, arrival))
        place = None if lock.places is None else lock.places.get(session)
        if place is not None:
            if can_wait:
                return place
            return self.held(place, now_ms)
        rank = _rank(lock, priority, arrival)
        if rank == 0 and _compatible(lock, shared):
            return self._grant(lock, name, session, shared, now_ms)
        if not can_wait:
            return self._refusal(lock, name, session, now_ms, rank)
        if len(lock.queue) >= limits.WAITERS_PER_LOCK_MAX:
            return QueueFull("waiters of a lock", limits.WAITERS_PER_LOCK_MAX)
        place = LockPlace(name, session, shared, priority, arrival, now_ms)
        self._enter(lock, place, rank)
        return place

    def release(
        self, name: str, session: str, token: int, *, held: int
    ) -> Released | StaleToken | NotHolder:
        """Give the lock back, if the session holds it under this very token.

        Call `grantable` afterwards: somebody may be next.

        Args:
            held: token under which this session holds the lock; 0 when it does not.
        """
        if held == token != 0:
            self.free(name, token)
            return Released(name)
        lock = self._by_name.get(name)
        if lock is None or token in lock.holders:
            return NotHolder(name, session)
        return StaleToken(name, token, _newest(lock))

    def check(self, name: str, token: int) -> tuple[bool, int | None]:
        """Whether a present grant has this token, and the newest token of the lock if it is held.

        A resource that sees tokens may refuse all but a valid one.
        """
        lock = self._by_name.get(name)
        return (False, None) if lock is None else (token in lock.holders, _newest(lock))

    def free(self, name: str, token: int) -> None:
        """Take a grant away. A lock that nobody is left for disappears."""
        lock = self._by_name[name]
        del lock.holders[token]
        if not lock.holders and not lock.queue:
            self._forget(name)

    def leave(self, name: str, session: str) -> LockPlace:
        """Take a session's place out of the queue. Call `grantable` afterwards."""
        lock = self._by_name[name]
        assert lock.places is not None
        place = lock.places.pop(session)
        del lock.queue[_rank(lock, place.priority, place.arrival)]
        self.waiters -= 1
        if not lock.holders and not lock.queue:
            self._forget(name)
        return place

    def grantable(self, name: str) -> LockPlace | None:
        """The place that the lock should be granted to now, if there is one."""
        lock = self._by_name.get(name)
        if lock is None or not lock.queue:
            return None
        place = lock.queue[0][2]
        return place if _compatible(lock, place.shared) else None

    def grant(self, place: LockPlace, now_ms: int) -> Granted:
        """Grant the lock to a place that `grantable` gave."""
        lock = self._by_name[place.name]
        assert lock.places is not None
        del lock.places[place.session]
        del lock.queue[0]
        self.waiters -= 1
        return self._grant(lock, place.name, place.session, place.shared, now_ms)

    def held(self, place: LockPlace, now_ms: int) -> LockHeld:
        """The refusal for somebody who stands in this place and will not wait (any longer)."""
        lock = self._by_name[place.name]
        rank = _rank(lock, place.priority, place.arrival)
        return self._refusal(lock, place.name, place.session, now_ms, rank)

    def position(self, name: str, session: str) -> int:
        """A waiting session's position in the queue, counted from 1."""
        lock = self._by_name[name]
        assert lock.places is not None
        place = lock.places[session]
        return _rank(lock, place.priority, place.arrival) + 1

    def restore_grant(self, name: str, grant: Grant) -> None:
        """Take in a grant from a snapshot, in order of grant."""
        lock = self._by_name.get(name)
        if lock is None:
            lock = self._new(name)
        lock.holders[grant.token] = grant

    def restore_place(self, place: LockPlace) -> None:
        """Take in a place from a snapshot; the grants of its lock are there already."""
        lock = self._by_name[place.name]
        self._enter(lock, place, _rank(lock, place.priority, place.arrival))

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
                    max(0, max(wait.deadline_ms for wait in place.parked.values()) - now_ms),
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

    def _new(self, name: str) -> Lock:
        self._by_name[name] = lock = Lock()
        self._names.add(name)
        return lock

    def _forget(self, name: str) -> None:
        del self._by_name[name]
        self._names.remove(name)

    def _grant(self, lock: Lock, name: str, session: str, shared: bool, now_ms: int) -> Granted:
        token = self._tokens.next()
        lock.holders[token] = Grant(session, token, shared, now_ms)
        return Granted(name, session, token, shared)

    def _enter(self, lock: Lock, place: LockPlace, rank: int) -> None:
        if lock.places is None:
            lock.places = {}
        lock.places[place.session] = place
        lock.queue.insert(rank, (place.priority, place.arrival, place))
        self.waiters += 1

    def _refusal(self, lock: Lock, name: str, session: str, now_ms: int, rank: int) -> LockHeld:
        """Why this session does not get the lock: who holds it, and where it would stand."""
        others = (grant for grant in lock.holders.values() if grant.session != session)
        holder = next(others, None)
        waits = lock.places is not None and session in lock.places
        return LockHeld(
            name=name,
            holder=None if holder is None else holder.session,
            held_for_ms=0 if holder is None else now_ms - holder.since_ms,
            holder_token=None if holder is None else holder.token,
            queue_length=len(lock.queue) - waits,
            position=rank + 1,
        )


def _compatible(lock: Lock, shared: bool) -> bool:
    """Whether one more holder of this mode fits. Holders are all shared, or one is alone."""
    return not lock.holders or (shared and next(iter(lock.holders.values())).shared)


def _newest(lock: Lock) -> int:
    return next(reversed(lock.holders))


def _rank(lock: Lock, priority: int, arrival: int) -> int:
    """How many stand before (priority, arrival). A shorter tuple sorts before a longer one."""
    return bisect_left(lock.queue, (priority, arrival))
