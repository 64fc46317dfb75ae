"""Tickets on resources: issued by one session, claimed by another, vanishing with their issuer.

RULE: a function of state, cluster time and command. Reads no clock, draws no lots.

A resource is there as long as it has tickets, or somebody waits for one. Issuing again replaces the
data, and the issuer where that is another session; the place in the order and the claim stay.

A claim is served with the ticket asked for, else with the free one that was issued first. Waiting
claims are served in order of arrival: a ticket that becomes free goes to the one who came first
among those it could serve. So a free ticket never has somebody waiting for it.

When an issuer's session ends, or a ticket is revoked, its claimant loses it in the same step.
Source: ticketd (turbosquid); Gray & Cheriton (leases); Chubby (sequencers).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from operator import attrgetter
from typing import Any, ClassVar, TypeAlias

from sortedcontainers import SortedList

from cluster.machine import limits
from cluster.machine.commands.base import Command, RequestId
from cluster.machine.commands.tickets import ClaimTicket, IssueTicket, ReleaseTicket, RevokeTicket
from cluster.machine.core import Core
from cluster.machine.events import Event
from cluster.machine.outcome.base import NotHolder, Outcome, QueueFull, Refusal, StaleToken
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
from cluster.machine.parked import Parked, Place
from cluster.machine.primitive import Blocker, Check, Handler, Record, Table, Weighed
from cluster.machine.restoring import Restoring, must
from cluster.machine.sessions import Owned, Session

KIND = "ticket"

# What a session has of a ticket, as it stands in the third member of an Owned.
_ISSUED, _CLAIMED = "issued:", "claimed:"

_BYTES_PER_WEIGHT = 64


class Claim:
    """A ticket held by one session since a time, under a token."""

    __slots__ = ("session", "since_ms", "token")

    def __init__(self, session: str, token: int, since_ms: int) -> None:
        self.session = session
        self.token = token
        self.since_ms = since_ms


class Ticket:
    """One ticket.

    Attributes:
        order: token of its first issue: its place among the resource's tickets.
        token: of the present issue; a larger one where it was taken over.
        since_ms: of the present issue.
        claim: None while it is free.
    """

    __slots__ = ("claim", "data", "is_text", "issuer", "name", "order", "since_ms", "token")

    def __init__(
        self,
        name: str,
        order: int,
        issuer: str,
        token: int,
        since_ms: int,
        data: bytes | None,
        is_text: bool,
    ) -> None:
        self.name = name
        self.order = order
        self.issuer = issuer
        self.token = token
        self.since_ms = since_ms
        self.data = data
        self.is_text = is_text
        self.claim: Claim | None = None


class ClaimPlace(Place):
    """A waiting claim.

    Attributes:
        ticket: the one wanted; None for any.
        another: a place of its own; otherwise a session that asks again shares the one it has.
    """

    __slots__ = ("another", "since_ms", "ticket")

    kind: ClassVar[str] = KIND
    session: str

    def __init__(
        self,
        name: str,
        session: str,
        ticket: str | None,
        another: bool,
        arrival: int,
        since_ms: int,
    ) -> None:
        super().__init__(name, session, arrival)
        self.ticket = ticket
        self.another = another
        self.since_ms = since_ms


Line: TypeAlias = list[ClaimPlace]
"""Places in order of arrival."""


class Resource:
    """One resource.

    Attributes:
        tickets: by name, in order of first issue.
        free: those without a claim, in that order.
        claimed: by token of the claim, in order of claiming; found by links, as in semaphores.
        by_session: the tickets that each session has claimed, in that order.
        freed: those that became free in this step and may serve somebody, in order of first issue.
            Empty between steps.
        queue: everybody who waits.
        lines: the same by what they want.
        shared: places that may be asked for again, by session and what it wants.
    """

    __slots__ = ("by_session", "claimed", "free", "freed", "lines", "queue", "shared", "tickets")

    def __init__(self) -> None:
        self.tickets: dict[str, Ticket] = {}
        self.free: list[Ticket] = []
        self.claimed: OrderedDict[int, Ticket] = OrderedDict()
        self.by_session: dict[str, list[Ticket]] = {}
        self.freed: list[Ticket] = []
        self.queue: Line = []
        self.lines: dict[str | None, Line] = {}
        self.shared: dict[tuple[str, str | None], ClaimPlace] = {}

    def own(self, session: str) -> Ticket | None:
        """The ticket that a session has held longest."""
        held = self.by_session.get(session)
        return held[0] if held else None

    def ahead(self, ticket: str | None, arrival: int) -> int:
        """How many stand before one who wants this, and would be served before it."""
        if ticket is None:
            return _rank(self.queue, arrival)
        return sum(_rank(self.lines.get(wanted, []), arrival) for wanted in (None, ticket))

    def first_for(self, ticket: str) -> ClaimPlace | None:
        """Who came first among those whom this ticket could serve."""
        anybody, named = self.lines.get(None), self.lines.get(ticket)
        if anybody and named:
            return min(anybody[0], named[0], key=_arrival)
        line = anybody or named
        return line[0] if line else None


class _TicketRecord(Record):
    name: str
    ticket: str
    order: int
    issuer: str
    token: int
    since_ms: int
    data: bytes | None
    is_text: bool


class _ClaimRecord(Record):
    name: str
    ticket: str
    session: str
    token: int
    since_ms: int


class _PlaceRecord(Record):
    name: str
    session: str
    ticket: str | None
    another: bool
    arrival: int
    since_ms: int


class Tickets:
    """All tickets, by resource.

    Attributes:
        tickets: of all resources.
        claims: of all of them.
        waiters: in all queues.
        data_bytes: of all tickets.
    """

    kind = KIND

    def __init__(self, core: Core) -> None:
        self._core = core
        self._by_name: dict[str, Resource] = {}
        self._names = SortedList()
        self.tickets = 0
        self.claims = 0
        self.waiters = 0
        self.data_bytes = 0
        self.handlers: Mapping[type[Command], Handler] = {
            IssueTicket: self.issue,
            RevokeTicket: self.revoke,
            ClaimTicket: self.claim,
            ReleaseTicket: self.release,
        }
        self.timers: Mapping[int, Callable[[Any], None]] = {}
        self.checks: Mapping[type[Command], Check] = {
            IssueTicket: Check(_thing, self._would_refuse_to_issue),
            RevokeTicket: Check(_thing, self._would_refuse_to_revoke),
            ClaimTicket: Check(_thing, self._would_refuse_to_claim),
            ReleaseTicket: Check(_thing, self._would_refuse_to_release),
        }
        self.tables: tuple[Table, ...] = (
            Table("tickets", _TicketRecord, self._dump_tickets, self._load_tickets),
            Table("ticket claims", _ClaimRecord, self._dump_claims, self._load_claims),
            Table("ticket places", _PlaceRecord, self._dump_places, self._load_places),
        )

    def __len__(self) -> int:
        """How many resources there are."""
        return len(self._by_name)

    # Commands.

    def issue(self, command: IssueTicket, _: RequestId) -> Outcome:
        """Issue a new ticket, or an old one again; whoever waits for it is served after this."""
        refusal = self._would_refuse_to_issue(command)
        if refusal is not None:
            return refusal
        core, name, data = self._core, command.name, command.data
        # What is no text comes back as bytes, whatever it was called.
        is_text = command.is_text and _is_utf8(data)
        session = core.sessions.get(command.session)
        assert session is not None
        if command.refresh:
            session.deadline_ms = core.now_ms + session.ttl_ms
        resource = self._by_name.get(name) or self._new(name)
        ticket = resource.tickets.get(command.ticket)
        taken_from = None
        is_new = ticket is None
        if ticket is None:
            token = core.tokens.next()
            ticket = Ticket(command.ticket, token, session.id, token, core.now_ms, data, is_text)
            self._add(resource, ticket)
            self._freed(name, resource, ticket)
            core.took(session, _owned(name, _ISSUED, ticket), token)
            self._tell("issued", name, ticket, session.id, token)
        else:
            changed = (ticket.data, ticket.is_text) != (data, is_text)
            self.data_bytes += _size(data) - _size(ticket.data)
            ticket.data, ticket.is_text = data, is_text
            if ticket.issuer != session.id:
                taken_from = ticket.issuer
                self._take_over(name, ticket, session)
            elif changed:
                self._tell("changed", name, ticket, session.id, ticket.token)
        return TicketIssued(
            name=name,
            ticket=ticket.name,
            session=session.id,
            token=ticket.token,
            created=is_new,
            taken_from=taken_from,
            claimant=None if ticket.claim is None else ticket.claim.session,
        )

    def revoke(self, command: RevokeTicket, _: RequestId) -> Outcome:
        """Take a ticket away, from its claimant too."""
        refusal = self._would_refuse_to_revoke(command)
        if refusal is not None:
            return refusal
        core, name = self._core, command.name
        resource = self._by_name[name]
        ticket = resource.tickets[command.ticket]
        issuer = core.sessions.get(ticket.issuer)
        assert issuer is not None, "a ticket outlived its issuer"
        del issuer.owned[_owned(name, _ISSUED, ticket)]
        self._tell("revoked", name, ticket, issuer.id, ticket.token, by=command.session)
        claimant = self._drop(name, resource, ticket, by=command.session)
        return TicketRevoked(name, ticket.name, claimant)

    def claim(self, command: ClaimTicket, _: RequestId) -> Outcome | Parked:
        """Give the session a ticket, have the request wait for one, or refuse.

        A session that holds one already is given it again, unless it asks for another. One that
        waits already keeps its place.
        """
        found = self._find(command)
        if isinstance(found, Outcome):
            return found
        core, name, wanted = self._core, command.name, command.ticket
        session = core.sessions.get(command.session)
        assert session is not None
        resource = self._by_name.get(name)
        if found is not None:
            assert resource is not None
            return self._grant(resource, session, name, found)
        place = None
        if resource is not None and not command.another:
            place = resource.shared.get((session.id, wanted))
        if command.wait_ms <= 0:
            return self._none_free(resource, name, session.id, wanted, place)
        if core.is_full:
            return QueueFull("parked requests", limits.PARKED_MAX)
        if place is None:
            if resource is None:
                if len(self._by_name) >= limits.RESOURCES_MAX:
                    return QueueFull("resources", limits.RESOURCES_MAX)
                resource = self._new(name)
            if len(resource.queue) >= limits.WAITERS_PER_RESOURCE_MAX:
                return QueueFull("waiters of a resource", limits.WAITERS_PER_RESOURCE_MAX)
            place = ClaimPlace(
                name, session.id, wanted, command.another, core.next_arrival(), core.now_ms
            )
            self._enter(resource, place)
        return core.park(place, command.wait_ms)

    def release(self, command: ReleaseTicket, _: RequestId) -> Outcome:
        """Give a ticket back, if the session holds it, and under this very token."""
        refusal = self._would_refuse_to_release(command)
        if refusal is not None:
            return refusal
        core, name = self._core, command.name
        session = core.sessions.get(command.session)
        assert session is not None
        resource = self._by_name[name]
        ticket = resource.tickets[command.ticket]
        claim = ticket.claim
        assert claim is not None
        del session.owned[_owned(name, _CLAIMED, ticket)]
        self._unclaim(resource, ticket)
        self._freed(name, resource, ticket)
        self._tell("released", name, ticket, session.id, claim.token)
        return TicketReleased(name, ticket.name)

    # What the machine asks of every primitive.

    def free(self, session: Session, thing: Owned, token: int) -> None:
        """The issuer or the claimant is gone."""
        name, part = thing[1], thing[2]
        resource = self._by_name.get(name)
        if part.startswith(_ISSUED):
            assert resource is not None
            ticket = resource.tickets[part.removeprefix(_ISSUED)]
            self._tell("lost", name, ticket, session.id, token)
            self._drop(name, resource, ticket, by=session.id)
            return
        held = None if resource is None else resource.tickets.get(part.removeprefix(_CLAIMED))
        if resource is None or held is None or held.claim is None or held.claim.token != token:
            return  # It was a ticket of its own, and went just before.
        self._unclaim(resource, held)
        self._freed(name, resource, held)
        self._tell("lost", name, held, session.id, token)

    def leave(self, place: Place) -> None:
        """Take a waiting claim out of the queue. It stood in nobody's way."""
        assert isinstance(place, ClaimPlace)
        resource = self._by_name[place.name]
        self._exit(resource, place)
        self._forget_if_empty(place.name, resource)

    def settle(self, name: str) -> None:
        """Serve those who wait with what became free."""
        core, resource = self._core, self._by_name.get(name)
        if resource is None:
            return
        freed = resource.freed
        while freed:
            ticket = freed[0]
            place = resource.first_for(ticket.name)
            if place is None:
                del freed[0]
                continue
            session = core.living(place.session)
            if session is None:
                continue  # It took its places along, and perhaps this ticket.
            del freed[0]
            self._exit(resource, place)
            core.grant(place, self._grant(resource, session, name, ticket))

    def position(self, place: Place) -> int:
        """Among those who want the same, from 1."""
        assert isinstance(place, ClaimPlace)
        return self._by_name[place.name].ahead(place.ticket, place.arrival) + 1

    def too_late(self, place: Place) -> Outcome:
        """Who holds what was wanted, and where the claim stood."""
        assert isinstance(place, ClaimPlace)
        resource = self._by_name[place.name]
        return self._none_free(resource, place.name, place.session, place.ticket, place)

    def places(self) -> Iterator[Place]:
        """By resource, in order of arrival."""
        return (place for _, resource in self for place in resource.queue)

    def blockers(self, name: str, session: str, place: Place | None) -> Iterator[Blocker]:
        """Those who hold what is wanted, the session itself among them, then waiters before.

        Any of the holders may free what is wanted, and so may whoever issues another ticket.
        """
        resource = self._by_name.get(name)
        if resource is None:
            return
        wanted = place.ticket if isinstance(place, ClaimPlace) else None
        if wanted is None:
            held = list(resource.claimed.values())
        else:
            named = resource.tickets.get(wanted)
            held = [] if named is None else [named]
        for ticket in held:
            if ticket.claim is not None:
                claim = ticket.claim
                yield Blocker(claim.session, claim.token, claim.since_ms, None)
        position = 0
        for other in resource.queue:
            if other is place:
                return
            if wanted is None or other.ticket is None or other.ticket == wanted:
                position += 1
                yield Blocker(other.session, None, other.since_ms, position)

    # Reading.

    def check(self, name: str, ticket: str, token: int) -> tuple[bool, int | None]:
        """Whether the present claim of a ticket has this token, and the token it has if any."""
        claim = self._claim_of(name, ticket)
        return (False, None) if claim is None else (claim.token == token, claim.token)

    def ticket(self, name: str, ticket: str, now_ms: int) -> TicketInfo | None:
        """A picture of one ticket; None when there is none."""
        resource = self._by_name.get(name)
        found = None if resource is None else resource.tickets.get(ticket)
        return None if found is None else _picture(name, found, now_ms)

    def info(self, name: str, now_ms: int) -> ResourceInfo | None:
        """A picture of one resource; None when it has no tickets and nobody waits."""
        resource = self._by_name.get(name)
        if resource is None:
            return None
        return ResourceInfo(
            name,
            tuple(_picture(name, ticket, now_ms) for ticket in resource.tickets.values()),
            tuple(
                (
                    place.session,
                    place.ticket,
                    max(0, now_ms - place.since_ms),
                    place.expires_in_ms(now_ms),
                    resource.ahead(place.ticket, place.arrival) + 1,
                )
                for place in resource.queue
            ),
        )

    def list(
        self, now_ms: int, *, prefix: str = "", after: str | None = None, limit: int = 100
    ) -> list[ResourceInfo]:
        """Pictures of at most `limit` resources whose names start with `prefix`, by name.

        Args:
            after: name of the last one seen; it need not be there any more.
        """
        if after is not None and after >= prefix:
            names = self._names.irange(minimum=after, inclusive=(False, True))
        else:
            names = self._names.irange(minimum=prefix)
        pictures = []
        for name in islice(names, limit):
            if not name.startswith(prefix):
                break
            picture = self.info(name, now_ms)
            assert picture is not None
            pictures.append(picture)
        return pictures

    def __iter__(self) -> Iterator[tuple[str, Resource]]:
        """By name."""
        return ((name, self._by_name[name]) for name in self._names)

    # How it is done.

    def _would_refuse_to_issue(self, command: IssueTicket) -> Refusal | None:
        core, name = self._core, command.name
        session = core.sessions.get(command.session)
        if session is None:
            return core.gone(command.session)
        resource = self._by_name.get(name)
        ticket = None if resource is None else resource.tickets.get(command.ticket)
        is_issuer = ticket is not None and ticket.issuer == session.id
        if not is_issuer and (refusal := core.no_room(session)) is not None:
            return refusal
        spare = core.headroom - 1
        if resource is None:
            if len(self._by_name) + 1 + spare > limits.RESOURCES_MAX:
                return QueueFull("resources", limits.RESOURCES_MAX)
        elif ticket is None and len(resource.tickets) >= limits.TICKETS_PER_RESOURCE_MAX:
            return QueueFull("tickets of a resource", limits.TICKETS_PER_RESOURCE_MAX)
        grown = _size(command.data) - (0 if ticket is None else _size(ticket.data))
        most = limits.TICKET_DATA_BYTES_TOTAL_MAX - spare * limits.TICKET_DATA_BYTES_MAX
        if grown > 0 and self.data_bytes + grown > most:
            return QueueFull("bytes of ticket data", limits.TICKET_DATA_BYTES_TOTAL_MAX)
        return None

    def _would_refuse_to_revoke(self, command: RevokeTicket) -> Refusal | None:
        session = self._core.sessions.get(command.session)
        if session is None:
            return self._core.gone(command.session)
        ticket = self._ticket_of(command.name, command.ticket)
        if isinstance(ticket, Refusal):
            return ticket
        if ticket.issuer != session.id and not command.anybody:
            return NotIssuer(command.name, ticket.name, session.id, ticket.issuer)
        return None

    def _would_refuse_to_claim(self, command: ClaimTicket) -> Refusal | None:
        found = self._find(command)
        if isinstance(found, Refusal):
            return found
        if found is not None:
            return None
        resource, place = self._by_name.get(command.name), None
        if resource is not None and not command.another:
            place = resource.shared.get((command.session, command.ticket))
        return self._none_free(resource, command.name, command.session, command.ticket, place)

    def _would_refuse_to_release(self, command: ReleaseTicket) -> Refusal | None:
        name, token = command.name, command.token
        session = self._core.sessions.get(command.session)
        if session is None:
            return self._core.gone(command.session)
        ticket = self._ticket_of(name, command.ticket)
        if isinstance(ticket, Refusal):
            return ticket
        claim, label = ticket.claim, f"{name}/{ticket.name}"
        if claim is not None and claim.session == session.id and token in {None, claim.token}:
            return None
        if claim is None or token is None or token == claim.token:
            return NotHolder(label, session.id, KIND)
        return StaleToken(label, token, claim.token, KIND)

    def _find(self, command: ClaimTicket) -> Ticket | TicketClaimed | Refusal | None:
        """A free ticket to be claimed, the answer that a claim has already, or why no wait helps.

        None where a wait may help.
        """
        core, name, wanted = self._core, command.name, command.ticket
        session = core.sessions.get(command.session)
        if session is None:
            return core.gone(command.session)
        resource = self._by_name.get(name)
        if resource is None:
            return core.no_room(session)
        named = None if wanted is None else resource.tickets.get(wanted)
        held = named
        if wanted is None:
            held = None if command.another else resource.own(session.id)
        if held is not None and held.claim is not None and held.claim.session == session.id:
            return _claimed(name, held, held.claim)
        has_place = not command.another and (session.id, wanted) in resource.shared
        if not has_place and (refusal := core.no_room(session)) is not None:
            return refusal
        if wanted is None:
            return resource.free[0] if resource.free else None
        return named if named is not None and named.claim is None else None

    def _ticket_of(self, name: str, ticket: str) -> Ticket | ResourceNotFound | TicketNotFound:
        resource = self._by_name.get(name)
        if resource is None:
            return ResourceNotFound(name)
        return resource.tickets.get(ticket) or TicketNotFound(name, ticket)

    def _claim_of(self, name: str, ticket: str) -> Claim | None:
        found = self._ticket_of(name, ticket)
        return None if isinstance(found, Refusal) else found.claim

    def _new(self, name: str) -> Resource:
        self._by_name[name] = resource = Resource()
        self._names.add(name)
        return resource

    def _forget_if_empty(self, name: str, resource: Resource) -> None:
        if not resource.tickets and not resource.queue:
            del self._by_name[name]
            self._names.remove(name)

    def _add(self, resource: Resource, ticket: Ticket) -> None:
        """Take in a ticket that is younger than all others of its resource."""
        resource.tickets[ticket.name] = ticket
        self.tickets += 1
        self.data_bytes += _size(ticket.data)

    def _take_over(self, name: str, ticket: Ticket, session: Session) -> None:
        core, thing = self._core, _owned(name, _ISSUED, ticket)
        issuer = core.sessions.get(ticket.issuer)
        assert issuer is not None, "a ticket outlived its issuer"
        del issuer.owned[thing]
        self._tell("lost", name, ticket, issuer.id, ticket.token, by=session.id)
        ticket.issuer, ticket.token, ticket.since_ms = session.id, core.tokens.next(), core.now_ms
        core.took(session, thing, ticket.token)
        self._tell("issued", name, ticket, session.id, ticket.token)

    def _drop(self, name: str, resource: Resource, ticket: Ticket, *, by: str) -> str | None:
        """Take a ticket away; gives its claimant, who is told. Its issuer's record is gone."""
        claim = ticket.claim
        if claim is None:
            _remove(resource.free, ticket)
            if resource.freed:
                _remove(resource.freed, ticket)
        else:
            claimant = self._core.sessions.get(claim.session)
            if claimant is not None:
                del claimant.owned[_owned(name, _CLAIMED, ticket)]
            self._unclaim(resource, ticket)
            self._tell("revoked", name, ticket, claim.session, claim.token, by=by)
        del resource.tickets[ticket.name]
        self.tickets -= 1
        self.data_bytes -= _size(ticket.data)
        self._forget_if_empty(name, resource)
        return None if claim is None else claim.session

    def _freed(self, name: str, resource: Resource, ticket: Ticket) -> None:
        """A ticket can be claimed (again): see whether somebody waits for it."""
        insort(resource.free, ticket, key=_order)
        if resource.queue:
            insort(resource.freed, ticket, key=_order)
            self._core.unsettle(KIND, name)

    def _grant(
        self, resource: Resource, session: Session, name: str, ticket: Ticket
    ) -> TicketClaimed:
        core = self._core
        _remove(resource.free, ticket)
        claim = Claim(session.id, core.tokens.next(), core.now_ms)
        self._hold(resource, ticket, claim)
        core.took(session, _owned(name, _CLAIMED, ticket), claim.token)
        self._tell("granted", name, ticket, session.id, claim.token)
        return _claimed(name, ticket, claim)

    def _hold(self, resource: Resource, ticket: Ticket, claim: Claim) -> None:
        ticket.claim = claim
        resource.claimed[claim.token] = ticket
        resource.by_session.setdefault(claim.session, []).append(ticket)
        self.claims += 1

    def _unclaim(self, resource: Resource, ticket: Ticket) -> None:
        claim = ticket.claim
        assert claim is not None
        held = resource.by_session[claim.session]
        del held[bisect_left(held, claim.token, key=_claim_token)]
        if not held:
            del resource.by_session[claim.session]
        ticket.claim = None
        del resource.claimed[claim.token]
        self.claims -= 1

    def _enter(self, resource: Resource, place: ClaimPlace) -> None:
        resource.queue.append(place)
        resource.lines.setdefault(place.ticket, []).append(place)
        if not place.another:
            resource.shared[place.session, place.ticket] = place
        self.waiters += 1

    def _exit(self, resource: Resource, place: ClaimPlace) -> None:
        line = resource.lines[place.ticket]
        del resource.queue[_rank(resource.queue, place.arrival)]
        del line[_rank(line, place.arrival)]
        if not line:
            del resource.lines[place.ticket]
        if not place.another:
            del resource.shared[place.session, place.ticket]
        self.waiters -= 1

    def _none_free(
        self,
        resource: Resource | None,
        name: str,
        session: str,
        wanted: str | None,
        place: ClaimPlace | None,
    ) -> NoTicketFree:
        """Why this session gets no ticket: who holds one, and where it stands or would stand."""
        if resource is None:
            return NoTicketFree(name, wanted, 0, 0, None, 0, None, 0, 1)
        if wanted is None:
            oldest = next(iter(resource.claimed.values()), None)
        else:
            oldest = resource.tickets.get(wanted)
        claim = None if oldest is None else oldest.claim
        arrival = self._core.next_arrival() if place is None else place.arrival
        return NoTicketFree(
            name=name,
            ticket=wanted,
            tickets=len(resource.tickets),
            claimed=len(resource.claimed),
            holder=None if claim is None else claim.session,
            held_for_ms=0 if claim is None else self._core.now_ms - claim.since_ms,
            holder_token=None if claim is None else claim.token,
            queue_length=len(resource.queue) - (place is not None),
            position=resource.ahead(wanted, arrival) + 1,
        )

    def _tell(
        self,
        what: str,
        name: str,
        ticket: Ticket,
        session: str,
        token: int,
        *,
        by: str | None = None,
    ) -> None:
        more: tuple[tuple[str, Any], ...] = (("ticket", ticket.name),)
        if by is not None:
            more = (*more, ("by", by))
        self._core.events.append(Event(what, KIND, name, session, token, more))

    # Snapshots.

    def _dump_tickets(self) -> Weighed:
        for name, resource in self:
            for ticket in resource.tickets.values():
                yield (
                    1 + _size(ticket.data) // _BYTES_PER_WEIGHT,
                    [
                        name,
                        ticket.name,
                        ticket.order,
                        ticket.issuer,
                        ticket.token,
                        ticket.since_ms,
                        ticket.data,
                        ticket.is_text,
                    ],
                )

    def _load_tickets(self, records: Iterable[_TicketRecord], restoring: Restoring) -> None:
        name, resource, order = None, Resource(), 0
        for record in records:
            must(name is None or name <= record.name, "resources are not in order of name")
            if name != record.name:
                name, resource, order = record.name, self._new(record.name), 0
            must(order < record.order <= record.token, "tickets are not in order of issue")
            must(record.ticket not in resource.tickets, "a resource has two tickets of one name")
            must(not record.is_text or _is_utf8(record.data), "a ticket's text is none")
            order = record.order
            restoring.own(record.issuer, (KIND, name, _ISSUED + record.ticket), record.token)
            self._add(
                resource,
                Ticket(
                    record.ticket,
                    record.order,
                    record.issuer,
                    record.token,
                    record.since_ms,
                    record.data,
                    record.is_text,
                ),
            )

    def _dump_claims(self) -> Weighed:
        for name, resource in self:
            for ticket in resource.claimed.values():
                claim = ticket.claim
                assert claim is not None
                yield 1, [name, ticket.name, claim.session, claim.token, claim.since_ms]

    def _load_claims(self, records: Iterable[_ClaimRecord], restoring: Restoring) -> None:
        name, newest = "", 0
        for record in records:
            must(name <= record.name, "claims are not in order of name")
            must(name != record.name or newest < record.token, "tokens of claims do not rise")
            name, newest = record.name, record.token
            resource = self._by_name[name]
            ticket = resource.tickets[record.ticket]
            must(ticket.claim is None, "a ticket is claimed twice")
            restoring.own(record.session, (KIND, name, _CLAIMED + ticket.name), record.token)
            self._hold(resource, ticket, Claim(record.session, record.token, record.since_ms))
        for _, resource in self:
            resource.free = [t for t in resource.tickets.values() if t.claim is None]

    def _dump_places(self) -> Weighed:
        for name, resource in self:
            for place in resource.queue:
                yield (
                    1,
                    [
                        name,
                        place.session,
                        place.ticket,
                        place.another,
                        place.arrival,
                        place.since_ms,
                    ],
                )

    def _load_places(self, records: Iterable[_PlaceRecord], restoring: Restoring) -> None:
        name = None
        for record in records:
            must(name is None or name <= record.name, "claims that wait are not in order of name")
            name = record.name
            resource = self._by_name.get(name) or self._new(name)
            place = ClaimPlace(
                name,
                record.session,
                record.ticket,
                record.another,
                record.arrival,
                record.since_ms,
            )
            must(
                not resource.queue or resource.queue[-1].arrival < place.arrival,
                "claims do not wait in order of arrival",
            )
            must(
                place.another or (place.session, place.ticket) not in resource.shared,
                "a session waits for a ticket twice",
            )
            must(
                not _has_free(resource, place.ticket),
                "somebody waits for a ticket that is free",
            )
            self._enter(resource, place)
            restoring.stand(place)


def _has_free(resource: Resource, wanted: str | None) -> bool:
    if wanted is None:
        return bool(resource.free)
    named = resource.tickets.get(wanted)
    return named is not None and named.claim is None


def _picture(name: str, ticket: Ticket, now_ms: int) -> TicketInfo:
    claim = ticket.claim
    return TicketInfo(
        name=name,
        ticket=ticket.name,
        issuer=ticket.issuer,
        token=ticket.token,
        issued_for_ms=max(0, now_ms - ticket.since_ms),
        data=ticket.data,
        is_text=ticket.is_text,
        claim=None
        if claim is None
        else (claim.session, claim.token, max(0, now_ms - claim.since_ms)),
    )


def _claimed(name: str, ticket: Ticket, claim: Claim) -> TicketClaimed:
    return TicketClaimed(
        name, ticket.name, claim.session, claim.token, ticket.issuer, ticket.data, ticket.is_text
    )


def _thing(
    command: IssueTicket | RevokeTicket | ClaimTicket | ReleaseTicket,
) -> tuple[str, ...]:
    return KIND, command.name


def _owned(name: str, what: str, ticket: Ticket) -> Owned:
    """A session may issue a ticket and hold it too."""
    return KIND, name, what + ticket.name


def _size(data: bytes | None) -> int:
    return 0 if data is None else len(data)


def _is_utf8(data: bytes | None) -> bool:
    if data is None:
        return False
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _rank(line: Line, arrival: int) -> int:
    return bisect_left(line, arrival, key=_arrival)


def _remove(line: list[Ticket], ticket: Ticket) -> None:
    """Take a ticket out of a list in order of first issue, if it is there."""
    rank = bisect_left(line, ticket.order, key=_order)
    if rank < len(line) and line[rank] is ticket:
        del line[rank]


_arrival = attrgetter("arrival")
_order = attrgetter("order")
_claim_token = attrgetter("claim.token")
