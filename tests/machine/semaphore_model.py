"""Semaphores once more, written to be obviously right: flat lists, searched anew at each step."""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.machine.commands import Command
from cluster.machine.commands.semaphores import (
    AcquireSemaphore,
    DeleteSemaphore,
    ReleaseSemaphore,
    SetSemaphore,
)
from cluster.machine.outcome import NotHolder, Outcome, StaleToken
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
from tests.machine.naive import Naive, NaiveWait


@dataclass
class ModelGrant:
    """Units held."""

    name: str
    session: str
    token: int
    units: int
    since_ms: int


@dataclass
class SemaphoreModel(Naive):
    """The limit of each semaphore, all grants, all waits."""

    limits: dict[str, int] = field(default_factory=dict)
    grants: list[ModelGrant] = field(default_factory=list)

    def holders(self, name: str) -> list[ModelGrant]:
        """Grants of a semaphore, oldest first."""
        return sorted((g for g in self.grants if g.name == name), key=lambda g: g.token)

    def held(self, name: str) -> int:
        """Units of all grants."""
        return sum(g.units for g in self.holders(name))

    def line(self, name: str) -> list[NaiveWait]:
        """Who waits, in queue order; `wants` is (units, priority)."""
        return sorted(self.places(name), key=lambda w: (w.wants[1], w.arrival))

    def ahead(self, name: str, priority: int, arrival: int) -> int:
        """How many stand before (priority, arrival)."""
        return sum((w.wants[1], w.arrival) < (priority, arrival) for w in self.line(name))

    def is_impossible(self, name: str, units: int) -> bool:
        """More than there are at all, of a semaphore that is not closed."""
        return self.limits[name] != 0 and units > self.limits[name]

    def oldest(self, name: str) -> tuple[str | None, int, int | None]:
        """Session, age and token of the oldest grant."""
        for grant in self.holders(name):
            return grant.session, self.time_ms - grant.since_ms, grant.token
        return None, 0, None

    def full(self, name: str, units: int, priority: int, arrival: int) -> SemaphoreFull:
        """The refusal for one who stands, or would stand, at (priority, arrival)."""
        holder, held_for_ms, token = self.oldest(name)
        return SemaphoreFull(
            name=name,
            units=units,
            held=self.held(name),
            limit=self.limits[name],
            holders=len(self.holders(name)),
            holder=holder,
            held_for_ms=held_for_ms,
            holder_token=token,
            queue_length=sum(w.arrival != arrival for w in self.line(name)),
            position=1 + self.ahead(name, priority, arrival),
        )

    def grant(self, name: str, session: str, units: int) -> UnitsGranted:
        """Hand units out."""
        token = self.next_token()
        self.grants.append(ModelGrant(name, session, token, units, self.time_ms))
        return UnitsGranted(name, session, token, units)

    def position(self, wait: NaiveWait) -> int:
        return 1 + self.ahead(wait.name, wait.wants[1], wait.arrival)

    def too_late(self, wait: NaiveWait) -> Outcome:
        units, priority = wait.wants
        return self.full(wait.name, units, priority, wait.arrival)

    def holds(self, session: str) -> list[tuple[int, str, str]]:
        return [(g.token, g.name, str(g.token)) for g in self.grants if g.session == session]

    def free(self, session: str) -> list[str]:
        mine = sorted((g for g in self.grants if g.session == session), key=lambda g: g.token)
        self.grants = [g for g in self.grants if g.session != session]
        return [g.name for g in mine]

    def hand_out(self, names: list[str]) -> None:
        for name in names:
            while name in self.limits and (line := self.line(name)):
                place = line[0]
                units = place.wants[0]
                fits = self.held(name) + units <= self.limits[name]
                if not fits and not self.is_impossible(name, units):
                    break
                session = self.find(place.session)
                assert session is not None
                if session.ends_ms <= self.time_ms:
                    names.extend(self.end(session))
                elif fits:
                    self.tell_place(place.arrival, self.grant(name, session.id, units))
                else:
                    outcome = SemaphoreTooSmall(name, units, self.limits[name])
                    self.tell_place(place.arrival, outcome)

    def execute(self, seq: int, command: Command, freed: list[str]) -> Outcome:
        if isinstance(command, SetSemaphore):
            return self.set(command, freed)
        if isinstance(command, DeleteSemaphore):
            return self.delete(command.name)
        assert isinstance(command, (AcquireSemaphore, ReleaseSemaphore))
        session, name = self.find(command.session), command.name
        if session is None:
            return self.nobody(command.session)
        if isinstance(command, ReleaseSemaphore):
            return self.release(session.id, command, freed)
        if name not in self.limits:
            return SemaphoreNotFound(name)
        units, priority = command.units, command.priority
        if self.is_impossible(name, units):
            return SemaphoreTooSmall(name, units, self.limits[name])
        arrival = self.order + 1
        fits = self.held(name) + units <= self.limits[name]
        if fits and self.ahead(name, priority, arrival) == 0:
            return self.grant(name, session.id, units)
        if command.wait_ms == 0:
            return self.full(name, units, priority, arrival)
        return self.park(seq, name, session.id, command.wait_ms, (units, priority))

    def set(self, command: SetSemaphore, freed: list[str]) -> Outcome:
        """Make or resize."""
        name, previous = command.name, self.limits.get(command.name)
        self.limits[name] = command.limit
        freed.append(name)
        return SemaphoreSet(
            name,
            command.limit,
            previous is None,
            previous,
            self.held(name),
            len(self.holders(name)),
            len(self.line(name)),
        )

    def delete(self, name: str) -> Outcome:
        """Delete an idle one."""
        if name not in self.limits:
            return SemaphoreNotFound(name)
        if self.holders(name) or self.line(name):
            oldest = self.oldest(name)
            return SemaphoreInUse(name, len(self.holders(name)), len(self.line(name)), *oldest)
        del self.limits[name]
        return SemaphoreDeleted(name)

    def release(self, session: str, command: ReleaseSemaphore, freed: list[str]) -> Outcome:
        """Give a grant back."""
        name, token = command.name, command.token
        holders = self.holders(name)
        for grant in holders:
            if (grant.session, grant.token) == (session, token):
                freed.append(name)
                if command.units is not None and command.units < grant.units:
                    grant.units -= command.units
                    return UnitsReleased(name, command.units)
                self.grants.remove(grant)
                return UnitsReleased(name, grant.units)
        if name not in self.limits:
            return SemaphoreNotFound(name)
        if not holders or any(g.token == token for g in holders):
            return NotHolder(name, session, "semaphore")
        return StaleToken(name, token, holders[-1].token, "semaphore")

    def info(self, name: str) -> SemaphoreInfo | None:
        """The picture of one semaphore."""
        if name not in self.limits:
            return None
        return SemaphoreInfo(
            name,
            self.limits[name],
            self.held(name),
            tuple(
                (g.session, g.token, g.units, self.time_ms - g.since_ms) for g in self.holders(name)
            ),
            tuple(
                (w.session, *w.wants, self.time_ms - w.since_ms, self.expires_in_ms(w))
                for w in self.line(name)
            ),
        )
