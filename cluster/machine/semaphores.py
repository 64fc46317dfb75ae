"""Semaphores: a limit of units, held in grants of several, waiters in fair order, a token per grant.

RULE: a function of state, cluster time and command. Reads no clock, draws no lots.

A semaphore is made by giving it a limit, and stays until it is deleted. Each acquire is a grant of
its own under a token of its own; a session may have many.

Fair: a request is granted at once only when its units are free and nobody waits before it; smaller
priority first, equal ones in order of arrival. Who waits at the head for more units than are free
holds up those behind it, however few they want: otherwise it might wait for ever.

Lowering the limit takes nothing away: nothing is granted until enough came back. A limit of 0
closes the semaphore: requests wait for another limit. Who wants more units than any other limit
allows is refused, and so is one that waits when it comes to the head.
Source: Dijkstra, EWD 123 (semaphores); Gray & Cheriton (leases); Chubby (sequencers).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

from sortedcontainers import SortedList

from cluster.machine import limits
from cluster.machine.commands.base import Command, RequestId
from cluster.machine.commands.semaphores import (
    AcquireSemaphore,
    DeleteSemaphore,
    ReleaseSemaphore,
    SetSemaphore,
)
from cluster.machine.core import Core
from cluster.machine.events import Event
from cluster.machine.names import page
from cluster.machine.outcome.base import NotHolder, Outcome, QueueFull, Refusal, StaleToken
from cluster.machine.outcome.semaphores import (
    SemaphoreDeleted,
    SemaphoreFull,
    SemaphoreInfo,
    SemaphoreInUse,
    SemaphoreNotFound,
    SemaphoreSet,
    SemaphoreTooSmall,
    UnitsGranted,
    UnitsReleased,
)
from cluster.machine.parked import Parked, Place
from cluster.machine.primitive import Blocker, Check, Handler, Record, Table, Weighed
from cluster.machine.restoring import Restoring, must
from cluster.machine.sessions import Owned, Session

KIND = "semaphore"


class UnitsGrant:
    """Units held by one session since a time; the token is its key."""

    __slots__ = ("session", "since_ms", "units")

    def __init__(self, session: str, units: int, since_ms: int) -> None:
        self.session = session
        self.units = units
        self.since_ms = since_ms


class SemaphorePlace(Place):
    """A place in the queue of a semaphore. A session may have several: one for each request."""

    __slots__ = ("priority", "since_ms", "units")

    kind: ClassVar[str] = KIND
    session: str

    def __init__(
        self, name: str, session: str, units: int, priority: int, arrival: int, since_ms: int
    ) -> None:
        super().__init__(name, session, arrival)
        self.units = units
        self.priority = priority
        self.since_ms = since_ms


class Semaphore:
    """One semaphore.

    Attributes:
        held: units of all grants together; above the limit only where that was lowered.
        holders: by token, in order of grant. Ordered by links: the oldest is found at once, however
            many before it are gone.
        queue: (priority, arrival, place), sorted. Invariant: the head does not fit.
    """

    __slots__ = ("held", "holders", "limit", "queue")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self.holders: OrderedDict[int, UnitsGrant] = OrderedDict()
        self.queue: list[tuple[int, int, SemaphorePlace]] = []

    def fits(self, units: int) -> bool:
        """Whether a grant of so many can be made, were nobody waiting."""
        return (
            self.held + units <= self.limit and len(self.holders) < limits.GRANTS_PER_SEMAPHORE_MAX
        )

    def rank(self, priority: int, arrival: int) -> int:
        """How many stand before (priority, arrival). A shorter tuple sorts before a longer one."""
        return bisect_left(self.queue, (priority, arrival))


class _SemaphoreRecord(Record):
    name: str
    limit: int


class _GrantRecord(Record):
    name: str
    session: str
    token: int
    units: int
    since_ms: int


class _PlaceRecord(Record):
    name: str
    session: str
    units: int
    priority: int
    arrival: int
    since_ms: int


class Semaphores:
    """All semaphores that were made and not deleted.

    Attributes:
        grants: of all of them.
        waiters: in all queues.
    """

    kind = KIND

    def __init__(self, core: Core) -> None:
        self._core = core
        self._by_name: dict[str, Semaphore] = {}
        self._names = SortedList()
        self.grants = 0
        self.waiters = 0
        self.handlers: Mapping[type[Command], Handler] = {
            SetSemaphore: self.set,
            DeleteSemaphore: self.delete,
            AcquireSemaphore: self.acquire,
            ReleaseSemaphore: self.release,
        }
        self.timers: Mapping[int, Callable[[Any], None]] = {}
        self.checks: Mapping[type[Command], Check] = {
            SetSemaphore: Check(_thing, self._would_refuse_to_set),
            DeleteSemaphore: Check(_thing, self._would_refuse_to_delete),
            AcquireSemaphore: Check(_thing, self._would_refuse_to_grant),
            ReleaseSemaphore: Check(_thing, self._would_refuse_to_release),
        }
        self.tables: tuple[Table, ...] = (
            Table("semaphores", _SemaphoreRecord, self._dump_semaphores, self._load_semaphores),
            Table("semaphore grants", _GrantRecord, self._dump_grants, self._load_grants),
            Table("semaphore places", _PlaceRecord, self._dump_places, self._load_places),
        )

    def __len__(self) -> int:
        return len(self._by_name)

    # Commands.

    def set(self, command: SetSemaphore, _: RequestId) -> Outcome:
        """Make the semaphore, or give it another limit; who fits now is granted after this."""
        refusal = self._would_refuse_to_set(command)
        if refusal is not None:
            return refusal
        core, name = self._core, command.name
        semaphore = self._by_name.get(name)
        if semaphore is None:
            semaphore, previous_limit = self._new(name, command.limit), None
            core.events.append(Event("made", KIND, name, more=(("limit", command.limit),)))
        else:
            previous_limit, semaphore.limit = semaphore.limit, command.limit
            if command.limit != previous_limit:
                more = (("limit", command.limit), ("previous_limit", previous_limit))
                core.events.append(Event("resized", KIND, name, more=more))
                if semaphore.queue:
                    core.unsettle(KIND, name)
        return SemaphoreSet(
            name=name,
            limit=command.limit,
            created=previous_limit is None,
            previous_limit=previous_limit,
            held=semaphore.held,
            holders=len(semaphore.holders),
            queue_length=len(semaphore.queue),
        )

    def delete(self, command: DeleteSemaphore, _: RequestId) -> Outcome:
        """Take the semaphore away, if nobody holds or waits."""
        refusal = self._would_refuse_to_delete(command)
        if refusal is not None:
            return refusal
        name = command.name
        del self._by_name[name]
        self._names.remove(name)
        self._core.events.append(Event("deleted", KIND, name))
        return SemaphoreDeleted(name)

    def acquire(self, command: AcquireSemaphore, _: RequestId) -> Outcome | Parked:
        """Grant the units, have the request wait for them, or refuse."""
        core, name, units = self._core, command.name, command.units
        found = self._find(command)
        if isinstance(found, Refusal):
            return found
        session, semaphore = found
        rank = semaphore.rank(command.priority, core.next_arrival())
        if rank == 0 and semaphore.fits(units):
            return self._grant(semaphore, session, name, units)
        if command.wait_ms <= 0:
            return self._full(semaphore, name, units, rank, len(semaphore.queue))
        if core.is_full:
            return QueueFull("parked requests", limits.PARKED_MAX)
        if len(semaphore.queue) >= limits.WAITERS_PER_SEMAPHORE_MAX:
            return QueueFull("waiters of a semaphore", limits.WAITERS_PER_SEMAPHORE_MAX)
        place = SemaphorePlace(
            name, session.id, units, command.priority, core.next_arrival(), core.now_ms
        )
        self._enter(semaphore, place, rank)
        return core.park(place, command.wait_ms)

    def release(self, command: ReleaseSemaphore, _: RequestId) -> Outcome:
        """Give units of a grant back, if the session has it under this very token."""
        refusal = self._would_refuse_to_release(command)
        if refusal is not None:
            return refusal
        core, name, token = self._core, command.name, command.token
        session = core.sessions.get(command.session)
        assert session is not None
        units = command.units
        more: tuple[tuple[str, int], ...]
        if units is not None and units < self._by_name[name].holders[token].units:
            more = (("units", units), ("left", self._take_some(name, token, units)))
        else:
            del session.owned[_owned(name, token)]
            units = self._take(name, token)
            more = (("units", units),)
        core.events.append(Event("released", KIND, name, session.id, token, more))
        return UnitsReleased(name, units)

    # What the machine asks of every primitive.

    def free(self, session: Session, thing: Owned, token: int) -> None:
        """The holder is gone."""
        name = thing[1]
        more = (("units", self._take(name, token)),)
        self._core.events.append(Event("lost", KIND, name, session.id, token, more))

    def leave(self, place: Place) -> None:
        """Take a place out of the queue."""
        semaphore = self._by_name[place.name]
        assert isinstance(place, SemaphorePlace)
        del semaphore.queue[semaphore.rank(place.priority, place.arrival)]
        self.waiters -= 1
        if semaphore.queue:
            self._core.unsettle(KIND, place.name)

    def settle(self, name: str) -> None:
        """Grant to the head of the queue as long as it fits; refuse it if it never will."""
        core, semaphore = self._core, self._by_name.get(name)
        if semaphore is None:
            return
        while semaphore.queue:
            place = semaphore.queue[0][2]
            is_too_small = _is_too_small(semaphore, place.units)
            if not is_too_small and not semaphore.fits(place.units):
                return
            session = core.living(place.session)
            if session is None:
                continue  # It took its places along.
            del semaphore.queue[0]
            self.waiters -= 1
            if is_too_small:
                core.grant(place, SemaphoreTooSmall(name, place.units, semaphore.limit))
            else:
                core.grant(place, self._grant(semaphore, session, name, place.units))

    def position(self, place: Place) -> int:
        """Rank in the queue, from 1."""
        assert isinstance(place, SemaphorePlace)
        return self._by_name[place.name].rank(place.priority, place.arrival) + 1

    def too_late(self, place: Place) -> Outcome:
        """Who holds the units, and where the request stood."""
        assert isinstance(place, SemaphorePlace)
        semaphore = self._by_name[place.name]
        rank = semaphore.rank(place.priority, place.arrival)
        return self._full(semaphore, place.name, place.units, rank, len(semaphore.queue) - 1)

    def places(self) -> Iterator[Place]:
        """By semaphore, in queue order."""
        return (place for _, semaphore in self for _, _, place in semaphore.queue)

    def blockers(self, name: str, session: str, place: Place | None) -> Iterator[Blocker]:
        """All holders, the session itself among them if it is one, then all waiters before.

        Any of the holders may free what is wanted; each of the waiters before has to be served.
        Who would only now ask does so for one unit, with the usual priority.
        """
        semaphore = self._by_name.get(name)
        if semaphore is None:
            return
        if place is None and semaphore.fits(1) and not semaphore.rank(0, self._core.next_arrival()):
            return
        for token, grant in semaphore.holders.items():
            yield Blocker(grant.session, token, grant.since_ms, None)
        for position, (priority, _, other) in enumerate(semaphore.queue, 1):
            if other is place or (place is None and priority > 0):
                return
            yield Blocker(other.session, None, other.since_ms, position)

    # Reading.

    def check(self, name: str, token: int) -> tuple[bool, int | None]:
        """Whether a present grant has this token, and the newest token if anybody holds any."""
        semaphore = self._by_name.get(name)
        if semaphore is None or not semaphore.holders:
            return False, None
        return token in semaphore.holders, _newest(semaphore)

    def info(self, name: str, now_ms: int) -> SemaphoreInfo | None:
        """A picture of one semaphore; None when there is none."""
        semaphore = self._by_name.get(name)
        if semaphore is None:
            return None
        return SemaphoreInfo(
            name,
            semaphore.limit,
            semaphore.held,
            tuple(
                (grant.session, token, grant.units, max(0, now_ms - grant.since_ms))
                for token, grant in semaphore.holders.items()
            ),
            tuple(
                (
                    place.session,
                    place.units,
                    place.priority,
                    max(0, now_ms - place.since_ms),
                    place.expires_in_ms(now_ms),
                )
                for _, _, place in semaphore.queue
            ),
        )

    def list(
        self, now_ms: int, *, prefix: str = "", after: str | None = None, limit: int = 100
    ) -> list[SemaphoreInfo]:
        """Pictures of at most `limit` semaphores whose names start with `prefix`, by name.

        Args:
            after: name of the last one seen; it need not be there any more.
        """
        found = (self.info(name, now_ms) for name in page(self._names, prefix, after, limit))
        return [picture for picture in found if picture is not None]

    def __iter__(self) -> Iterator[tuple[str, Semaphore]]:
        """By name."""
        return ((name, self._by_name[name]) for name in self._names)

    # How it is done.

    def _would_refuse_to_set(self, command: SetSemaphore) -> Refusal | None:
        is_new = command.name not in self._by_name
        if is_new and len(self._by_name) + self._core.headroom > limits.SEMAPHORES_MAX:
            return QueueFull("semaphores", limits.SEMAPHORES_MAX)
        return None

    def _would_refuse_to_delete(self, command: DeleteSemaphore) -> Refusal | None:
        name = command.name
        semaphore = self._by_name.get(name)
        if semaphore is None:
            return SemaphoreNotFound(name)
        if not semaphore.holders and not semaphore.queue:
            return None
        holder, held_for_ms, holder_token = self._oldest(semaphore)
        return SemaphoreInUse(
            name,
            len(semaphore.holders),
            len(semaphore.queue),
            holder,
            held_for_ms,
            holder_token,
        )

    def _would_refuse_to_grant(self, command: AcquireSemaphore) -> Refusal | None:
        found = self._find(command)
        if isinstance(found, Refusal):
            return found
        _, semaphore = found
        rank = semaphore.rank(command.priority, self._core.next_arrival())
        if rank == 0 and semaphore.fits(command.units):
            return None
        return self._full(semaphore, command.name, command.units, rank, len(semaphore.queue))

    def _would_refuse_to_release(self, command: ReleaseSemaphore) -> Refusal | None:
        name, token = command.name, command.token
        session = self._core.sessions.get(command.session)
        if session is None:
            return self._core.gone(command.session)
        if session.owned.get(_owned(name, token)) == token:
            return None
        semaphore = self._by_name.get(name)
        if semaphore is None:
            return SemaphoreNotFound(name)
        if not semaphore.holders or token in semaphore.holders:
            return NotHolder(name, session.id, KIND)
        return StaleToken(name, token, _newest(semaphore), KIND)

    def _find(self, command: AcquireSemaphore) -> tuple[Session, Semaphore] | Refusal:
        """The session and the semaphore, or why no wait would help."""
        core, name = self._core, command.name
        session = core.sessions.get(command.session)
        if session is None:
            return core.gone(command.session)
        semaphore = self._by_name.get(name)
        if semaphore is None:
            return SemaphoreNotFound(name)
        if _is_too_small(semaphore, command.units):
            return SemaphoreTooSmall(name, command.units, semaphore.limit)
        if (refusal := core.no_room(session)) is not None:
            return refusal
        if len(semaphore.holders) >= limits.GRANTS_PER_SEMAPHORE_MAX:
            return QueueFull("grants of a semaphore", limits.GRANTS_PER_SEMAPHORE_MAX)
        return session, semaphore

    def _new(self, name: str, limit: int) -> Semaphore:
        self._by_name[name] = semaphore = Semaphore(limit)
        self._names.add(name)
        return semaphore

    def _take(self, name: str, token: int) -> int:
        """Take a grant away; gives its units."""
        semaphore = self._by_name[name]
        units = semaphore.holders.pop(token).units
        semaphore.held -= units
        self.grants -= 1
        if semaphore.queue:
            self._core.unsettle(KIND, name)
        return units

    def _take_some(self, name: str, token: int, units: int) -> int:
        """Take fewer units than all from a grant; gives what it has left."""
        semaphore = self._by_name[name]
        grant = semaphore.holders[token]
        grant.units -= units
        semaphore.held -= units
        if semaphore.queue:
            self._core.unsettle(KIND, name)
        return grant.units

    def _grant(self, semaphore: Semaphore, session: Session, name: str, units: int) -> UnitsGranted:
        core = self._core
        token = core.tokens.next()
        self._hold(semaphore, token, UnitsGrant(session.id, units, core.now_ms))
        session.took(_owned(name, token), token)
        more = (("units", units),)
        core.events.append(Event("granted", KIND, name, session.id, token, more))
        return UnitsGranted(name, session.id, token, units)

    def _hold(self, semaphore: Semaphore, token: int, grant: UnitsGrant) -> None:
        semaphore.holders[token] = grant
        semaphore.held += grant.units
        self.grants += 1

    def _enter(self, semaphore: Semaphore, place: SemaphorePlace, rank: int) -> None:
        semaphore.queue.insert(rank, (place.priority, place.arrival, place))
        self.waiters += 1

    def _full(
        self, semaphore: Semaphore, name: str, units: int, rank: int, queue_length: int
    ) -> SemaphoreFull:
        holder, held_for_ms, holder_token = self._oldest(semaphore)
        return SemaphoreFull(
            name=name,
            units=units,
            held=semaphore.held,
            limit=semaphore.limit,
            holders=len(semaphore.holders),
            holder=holder,
            held_for_ms=held_for_ms,
            holder_token=holder_token,
            queue_length=queue_length,
            position=rank + 1,
        )

    def _oldest(self, semaphore: Semaphore) -> tuple[str | None, int, int | None]:
        """Session, age in ms and token of the oldest grant."""
        if not semaphore.holders:
            return None, 0, None
        token, grant = next(iter(semaphore.holders.items()))
        return grant.session, self._core.now_ms - grant.since_ms, token

    # Snapshots.

    def _dump_semaphores(self) -> Weighed:
        for name, semaphore in self:
            yield 1, [name, semaphore.limit]

    def _load_semaphores(self, records: Iterable[_SemaphoreRecord], restoring: Restoring) -> None:
        name = None
        for record in records:
            must(name is None or name < record.name, "semaphores are not in order of name")
            must(record.limit >= 0, "a limit is below zero")
            name = record.name
            self._new(record.name, record.limit)

    def _dump_grants(self) -> Weighed:
        for name, semaphore in self:
            for token, grant in semaphore.holders.items():
                yield 1, [name, grant.session, token, grant.units, grant.since_ms]

    def _load_grants(self, records: Iterable[_GrantRecord], restoring: Restoring) -> None:
        name, newest = "", 0
        for record in records:
            must(name <= record.name, "grants are not in order of name")
            must(name != record.name or newest < record.token, "tokens of a semaphore do not rise")
            must(record.units > 0, "a grant has no units")
            name, newest = record.name, record.token
            restoring.own(record.session, _owned(record.name, record.token), record.token)
            self._hold(
                self._by_name[record.name],
                record.token,
                UnitsGrant(record.session, record.units, record.since_ms),
            )

    def _dump_places(self) -> Weighed:
        for name, semaphore in self:
            for _, _, place in semaphore.queue:
                yield (
                    1,
                    [
                        name,
                        place.session,
                        place.units,
                        place.priority,
                        place.arrival,
                        place.since_ms,
                    ],
                )

    def _load_places(self, records: Iterable[_PlaceRecord], restoring: Restoring) -> None:
        for record in records:
            must(record.units > 0, "a place is for no units")
            place = SemaphorePlace(
                record.name,
                record.session,
                record.units,
                record.priority,
                record.arrival,
                record.since_ms,
            )
            semaphore = self._by_name[record.name]
            self._enter(semaphore, place, semaphore.rank(place.priority, place.arrival))
            restoring.stand(place)
        for _, semaphore in self:
            if semaphore.queue:
                units = semaphore.queue[0][2].units
                must(
                    not semaphore.fits(units) and not _is_too_small(semaphore, units),
                    "a place was not answered when it could be",
                )


def _thing(
    command: SetSemaphore | DeleteSemaphore | AcquireSemaphore | ReleaseSemaphore,
) -> tuple[str, ...]:
    return KIND, command.name


def _owned(name: str, token: int) -> Owned:
    """A session may have many grants of one semaphore: their tokens tell them apart."""
    return KIND, name, str(token)


def _is_too_small(semaphore: Semaphore, units: int) -> bool:
    """Whether so many will never be granted under this limit; a closed one says nothing yet."""
    return 0 < semaphore.limit < units


def _newest(semaphore: Semaphore) -> int:
    return next(reversed(semaphore.holders))
