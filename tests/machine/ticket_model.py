"""Tickets once more, written to be obviously right: flat lists, searched anew at each step."""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.machine.commands import Command
from cluster.machine.commands.tickets import ClaimTicket, IssueTicket, ReleaseTicket, RevokeTicket
from cluster.machine.outcome import NotHolder, Outcome, StaleToken
from cluster.machine.outcome.tickets import (
    NoTicketFree,
    NotIssuer,
    ResourceInfo,
    ResourceNotFound,
    TicketClaimed,
    TicketInfo,
    TicketIssued,
    TicketNotFound,
    TicketReleased,
    TicketRevoked,
)
from tests.machine.naive import Naive, NaiveWait


@dataclass
class ModelTicket:
    """A ticket; `claim` is (session, token, since_ms)."""

    resource: str
    name: str
    issuer: str
    token: int
    since_ms: int
    data: bytes | None
    is_text: bool
    claim: tuple[str, int, int] | None = None


@dataclass
class TicketModel(Naive):
    """All tickets in order of first issue, all waits; `wants` is (ticket, another)."""

    tickets: list[ModelTicket] = field(default_factory=list)

    def of(self, resource: str) -> list[ModelTicket]:
        """A resource's tickets."""
        return [t for t in self.tickets if t.resource == resource]

    def exists(self, resource: str) -> bool:
        """Whether the resource has tickets or waiters."""
        return bool(self.of(resource) or self.places(resource))

    def ticket(self, resource: str, name: str) -> ModelTicket | None:
        """One ticket."""
        return next((t for t in self.of(resource) if t.name == name), None)

    def ahead(self, resource: str, wanted: str | None, arrival: int) -> int:
        """Who came before and wants the same, or anything, or (of who wants anything) something."""
        return sum(
            place.arrival < arrival and (wanted is None or place.wants[0] in {None, wanted})
            for place in self.places(resource)
        )

    def none_free(self, resource: str, wanted: str | None, arrival: int) -> NoTicketFree:
        """The refusal for one who stands, or would stand, at this arrival."""
        claims = sorted(
            (t.claim[1], t.claim)
            for t in self.of(resource)
            if t.claim is not None and wanted in {None, t.name}
        )
        oldest = claims[0][1] if claims else None
        return NoTicketFree(
            name=resource,
            ticket=wanted,
            tickets=len(self.of(resource)),
            claimed=sum(t.claim is not None for t in self.of(resource)),
            holder=oldest[0] if oldest else None,
            held_for_ms=self.time_ms - oldest[2] if oldest else 0,
            holder_token=oldest[1] if oldest else None,
            queue_length=sum(place.arrival != arrival for place in self.places(resource)),
            position=1 + self.ahead(resource, wanted, arrival),
        )

    def claimed(self, ticket: ModelTicket) -> TicketClaimed:
        """The answer that a claim has."""
        assert ticket.claim is not None
        session, token, _ = ticket.claim
        return TicketClaimed(
            ticket.resource,
            ticket.name,
            session,
            token,
            ticket.issuer,
            ticket.data,
            ticket.is_text,
        )

    def grant(self, ticket: ModelTicket, session: str) -> TicketClaimed:
        """Give a ticket to a session."""
        ticket.claim = (session, self.next_token(), self.time_ms)
        return self.claimed(ticket)

    def position(self, wait: NaiveWait) -> int:
        return 1 + self.ahead(wait.name, wait.wants[0], wait.arrival)

    def too_late(self, wait: NaiveWait) -> Outcome:
        return self.none_free(wait.name, wait.wants[0], wait.arrival)

    def holds(self, session: str) -> list[tuple[int, str, str]]:
        held = [
            (t.token, t.resource, f"issued:{t.name}") for t in self.tickets if t.issuer == session
        ]
        for ticket in self.tickets:
            if ticket.claim is not None and ticket.claim[0] == session:
                held.append((ticket.claim[1], ticket.resource, f"claimed:{ticket.name}"))
        return held

    def free(self, session: str) -> list[str]:
        things = [(t.token, "issued", t) for t in self.tickets if t.issuer == session]
        things += [
            (t.claim[1], "claimed", t)
            for t in self.tickets
            if t.claim is not None and t.claim[0] == session
        ]
        names = []
        for _, what, ticket in sorted(things, key=lambda thing: thing[0]):
            if what == "issued":
                self.tickets.remove(ticket)
            else:
                ticket.claim = None
            names.append(ticket.resource)
        return names

    def hand_out(self, names: list[str]) -> None:
        for name in names:
            while match := self.match(name):
                ticket, place = match
                session = self.find(place.session)
                assert session is not None
                if session.ends_ms <= self.time_ms:
                    names.extend(self.end(session))
                else:
                    self.tell_place(place.arrival, self.grant(ticket, session.id))

    def match(self, name: str) -> tuple[ModelTicket, NaiveWait] | None:
        """The first free ticket that somebody waits for, and who came first."""
        for ticket in self.of(name):
            for place in self.places(name):
                if ticket.claim is None and place.wants[0] in {None, ticket.name}:
                    return ticket, place
        return None

    def execute(self, seq: int, command: Command, freed: list[str]) -> Outcome:
        assert isinstance(command, (IssueTicket, RevokeTicket, ClaimTicket, ReleaseTicket))
        found = self.find(command.session)
        if found is None:
            return self.nobody(command.session)
        session, name = found.id, command.name
        if isinstance(command, ClaimTicket):
            return self.claim(seq, session, command)
        ticket = self.ticket(name, command.ticket)
        if isinstance(command, IssueTicket):
            if command.refresh:
                found.ends_ms = self.time_ms + found.ttl_ms
            freed.append(name)
            return self.issue(session, ticket, command)
        if ticket is None:
            missing = TicketNotFound(name, command.ticket)
            return missing if self.exists(name) else ResourceNotFound(name)
        if isinstance(command, RevokeTicket):
            if ticket.issuer != session and not command.anybody:
                return NotIssuer(name, ticket.name, session, ticket.issuer)
            self.tickets.remove(ticket)
            claimant = None if ticket.claim is None else ticket.claim[0]
            return TicketRevoked(name, ticket.name, claimant)
        label = f"{name}/{ticket.name}"
        holder, token, _ = ticket.claim or (None, None, 0)
        if token is not None and command.token not in {None, token}:
            return StaleToken(label, command.token or 0, token, "ticket")
        if holder != session:
            return NotHolder(label, session, "ticket")
        ticket.claim = None
        freed.append(name)
        return TicketReleased(name, ticket.name)

    def issue(self, session: str, ticket: ModelTicket | None, command: IssueTicket) -> Outcome:
        """Issue a ticket."""
        is_new, taken_from = ticket is None, None
        if ticket is None:
            token = self.next_token()
            ticket = ModelTicket(
                command.name, command.ticket, session, token, self.time_ms, None, False
            )
            self.tickets.append(ticket)
        elif ticket.issuer != session:
            taken_from, ticket.issuer = ticket.issuer, session
            ticket.token, ticket.since_ms = self.next_token(), self.time_ms
        ticket.data, ticket.is_text = command.data, command.is_text
        claimant = None if ticket.claim is None else ticket.claim[0]
        return TicketIssued(
            command.name, ticket.name, session, ticket.token, is_new, taken_from, claimant
        )

    def claim(self, seq: int, session: str, command: ClaimTicket) -> Outcome:
        """Claim a ticket."""
        name, wanted = command.name, command.ticket
        fitting = [t for t in self.of(name) if wanted in {None, t.name}]
        mine = [t for t in fitting if t.claim is not None and t.claim[0] == session]
        if mine and (wanted is not None or not command.another):
            return self.claimed(min(mine, key=lambda t: (t.claim or ("", 0, 0))[1]))
        for ticket in fitting:
            if ticket.claim is None:
                return self.grant(ticket, session)
        old = None
        if not command.another:
            for place in self.places(name):
                if (place.session, place.wants) == (session, (wanted, False)):
                    old = place
        if command.wait_ms == 0:
            arrival = self.order + 1 if old is None else old.arrival
            return self.none_free(name, wanted, arrival)
        wants = (wanted, command.another)
        return self.park(seq, name, session, command.wait_ms, wants, old)

    def info(self, name: str) -> ResourceInfo | None:
        """The picture of one resource."""
        if not self.exists(name):
            return None
        tickets = [
            TicketInfo(
                name,
                t.name,
                t.issuer,
                t.token,
                self.time_ms - t.since_ms,
                t.data,
                t.is_text,
                None if t.claim is None else (t.claim[0], t.claim[1], self.time_ms - t.claim[2]),
            )
            for t in self.of(name)
        ]
        waiters = [
            (
                w.session,
                w.wants[0],
                self.time_ms - w.since_ms,
                self.expires_in_ms(w),
                self.position(w),
            )
            for w in self.places(name)
        ]
        free = sum(ticket.claim is None for ticket in tickets)
        return ResourceInfo(name, tuple(tickets), tuple(waiters), free)
