"""Tickets on resources: issued by one session, claimed by another, vanishing with their issuer.

RULE: a function of state, cluster time and command. Reads no clock, draws no lots.

A resource is there as long as it has tickets, or somebody waits for one. Issuing again replaces the
data, and the issuer where that is another session; the place in the order and the claim stay.

A claim is served with the ticket asked for, else with the free one that was issued first. Waiting
claims are served in order of arrival: a ticket that becomes free goes to the one who came first
among those it could serve. So a free ticket never has somebody waiting for it.

When an issuer's session ends, or a ticket is revoked, its claimant loses it in the same step.

Clients of ticketd know it otherwise, and their sessions say so (`Session.sweep_ms`): what one of
them closed leaves behind, tickets that are nobody's and resources without tickets, stays until the
next sweep. And they know resources that are locks: what the first command makes of a resource, a
lock or a holder of tickets, it is until it goes.
Source: ticketd (turbosquid); Gray & Cheriton (leases); Chubby (sequencers).
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from cluster.machine import limits
from cluster.machine.commands.base import Command, RequestId
from cluster.machine.commands.tickets import (
    ClaimTicket,
    IssueTicket,
    LockResource,
    ReleaseTicket,
    RevokeTicket,
    UnlockResource,
)
from cluster.machine.core import Core
from cluster.machine.deadlines import RESOURCE_SWEPT
from cluster.machine.events import Event
from cluster.machine.names import page
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
    WrongKind,
)
from cluster.machine.parked import Parked, Place
from cluster.machine.primitive import Blocker, Check, Handler, Table
from cluster.machine.sessions import Owned, Session, next_sweep
from cluster.machine.tickets.records import tables
from cluster.machine.tickets.resources import (
    CLAIMED,
    ISSUED,
    KIND,
    Claim,
    ClaimPlace,
    Resource,
    Resources,
    Ticket,
    by_order,
    is_utf8,
    remove,
    size,
)


class Tickets:
    """All tickets, by resource.

    Attributes:
        resources: where they are kept, with how many there are of everything.
    """

    kind = KIND

    def __init__(self, core: Core) -> None:
        self._core = core
        self.resources = Resources()
        self.handlers: Mapping[type[Command], Handler] = {
            IssueTicket: self.issue,
            RevokeTicket: self.revoke,
            ClaimTicket: self.claim,
            ReleaseTicket: self.release,
            LockResource: self.lock,
            UnlockResource: self.unlock,
        }
        self.timers: Mapping[int, Callable[[Any], None]] = {RESOURCE_SWEPT: self._swept}
        self.checks: Mapping[type[Command], Check] = {
            IssueTicket: Check(_thing, self._would_refuse_to_issue),
            RevokeTicket: Check(_thing, self._would_refuse_to_revoke),
            ClaimTicket: Check(_thing, self._would_refuse_to_claim),
            ReleaseTicket: Check(_thing, self._would_refuse_to_release),
            LockResource: Check(_thing, self._would_refuse_to_lock),
            UnlockResource: Check(_thing, self._would_refuse_to_unlock),
        }
        self.tables: tuple[Table, ...] = tables(self.resources, core.deadlines)

    def __len__(self) -> int:
        """How many resources there are."""
        return len(self.resources)

    # Commands.

    def issue(self, command: IssueTicket, _: RequestId) -> Outcome:
        """Issue a new ticket, or an old one again; whoever waits for it is served after this."""
        refusal = self._would_refuse_to_issue(command)
        if refusal is not None:
            return refusal
        core, name, data = self._core, command.name, command.data
        # What is no text comes back as bytes, whatever it was called.
        is_text = command.is_text and is_utf8(data)
        session = core.sessions.get(command.session)
        assert session is not None
        if command.refresh:
            session.renew(core.now_ms)
        resource = self.resources.get(name) or self.resources.new(name)
        ticket = resource.tickets.get(command.ticket)
        taken_from = None
        is_new = ticket is None
        if ticket is None:
            token = core.tokens.next()
            ticket = Ticket(command.ticket, token, session.id, token, core.now_ms, data, is_text)
            self.resources.add(resource, ticket)
            self._freed(name, resource, ticket)
            session.took(_owned(name, ISSUED, ticket), token)
            self._tell("issued", name, ticket, session.id, token)
        else:
            changed = (ticket.data, ticket.is_text) != (data, is_text)
            self.resources.change(ticket, data, is_text)
            if ticket.issuer != session.id or ticket.is_orphan:
                taken_from = None if ticket.is_orphan else ticket.issuer
                self._take_over(name, resource, ticket, session)
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
        resource = self.resources[name]
        ticket = resource.tickets[command.ticket]
        session = core.sessions.get(command.session)
        assert session is not None
        return self._revoke(name, resource, ticket, by=session)

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
        resource = self.resources.get(name)
        if found is not None:
            assert resource is not None
            return self._grant(resource, session, name, found)
        place = None
        if resource is not None and not command.another:
            place = resource.shared.get((session.id, wanted))
        if command.wait_ms <= 0:
            return self._none_free(resource, name, wanted, place)
        if core.is_full:
            return QueueFull("parked requests", limits.PARKED_MAX)
        if place is None:
            if resource is None:
                if len(self.resources) >= limits.RESOURCES_MAX:
                    return QueueFull("resources", limits.RESOURCES_MAX)
                resource = self.resources.new(name)
            if len(resource.queue) >= limits.WAITERS_PER_RESOURCE_MAX:
                return QueueFull("waiters of a resource", limits.WAITERS_PER_RESOURCE_MAX)
            place = ClaimPlace(
                name, session.id, wanted, command.another, core.next_arrival(), core.now_ms
            )
            self.resources.enter(resource, place)
        return core.park(place, command.wait_ms)

    def release(self, command: ReleaseTicket, _: RequestId) -> Outcome:
        """Give a ticket back, if the session holds it, and under this very token."""
        refusal = self._would_refuse_to_release(command)
        if refusal is not None:
            return refusal
        core, name = self._core, command.name
        session = core.sessions.get(command.session)
        assert session is not None
        resource = self.resources[name]
        ticket = resource.tickets[command.ticket]
        claim = ticket.claim
        assert claim is not None
        del session.owned[_owned(name, CLAIMED, ticket)]
        self.resources.unclaim(resource, ticket)
        self._freed(name, resource, ticket)
        self._tell("released", name, ticket, session.id, claim.token)
        return TicketReleased(name, ticket.name)

    def lock(self, command: LockResource, _: RequestId) -> Outcome:
        """Take a resource's lock; whoever holds it is told so again."""
        refusal = self._would_refuse_to_lock(command)
        if refusal is not None:
            return refusal
        core, name = self._core, command.name
        session = core.sessions.get(command.session)
        assert session is not None
        resource = self.resources.get(name) or self.resources.new(name)
        resource.is_lock = True
        ticket = resource.tickets.get(name)
        is_new = ticket is None
        if ticket is None:
            token = core.tokens.next()
            ticket = Ticket(name, token, session.id, token, core.now_ms, b"", False)
            self.resources.add(resource, ticket)
            session.took(_owned(name, ISSUED, ticket), token)
            self._tell("issued", name, ticket, session.id, token)
        elif ticket.is_orphan:
            self._take_over(name, resource, ticket, session)
        return TicketIssued(name, name, session.id, ticket.token, is_new, None, None)

    def unlock(self, command: UnlockResource, _: RequestId) -> Outcome:
        """Give a resource's lock back."""
        refusal = self._would_refuse_to_unlock(command)
        if refusal is not None:
            return refusal
        resource = self.resources[command.name]
        session = self._core.sessions.get(command.session)
        assert session is not None
        return self._revoke(command.name, resource, resource.tickets[command.name], by=session)

    # What the machine asks of every primitive.

    def free(self, session: Session, thing: Owned, token: int) -> None:
        """The issuer or the claimant is gone."""
        name, part = thing[1], thing[2]
        resource = self.resources.get(name)
        if part.startswith(ISSUED):
            assert resource is not None
            ticket = resource.tickets[part.removeprefix(ISSUED)]
            self._tell("lost", name, ticket, session.id, token)
            if session.remains_until_ms:
                self._orphan(resource, ticket, session.remains_until_ms)
            else:
                self._drop(name, resource, ticket, by=session.id)
            return
        held = None if resource is None else resource.tickets.get(part.removeprefix(CLAIMED))
        if resource is None or held is None or held.claim is None or held.claim.token != token:
            return  # It was a ticket of its own, and went just before.
        self.resources.unclaim(resource, held)
        self._freed(name, resource, held)
        self._tell("lost", name, held, session.id, token)

    def leave(self, place: Place) -> None:
        """Take a waiting claim out of the queue. It stood in nobody's way."""
        assert isinstance(place, ClaimPlace)
        resource = self.resources[place.name]
        self.resources.exit(resource, place)
        self.resources.forget_if_empty(place.name, resource)

    def settle(self, name: str) -> None:
        """Serve those who wait with what became free."""
        core, resource = self._core, self.resources.get(name)
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
            self.resources.exit(resource, place)
            core.grant(place, self._grant(resource, session, name, ticket))

    def position(self, place: Place) -> int:
        """Among those who want the same, from 1."""
        assert isinstance(place, ClaimPlace)
        return self.resources[place.name].ahead(place.ticket, place.arrival) + 1

    def too_late(self, place: Place) -> Outcome:
        """Who holds what was wanted, and where the claim stood."""
        assert isinstance(place, ClaimPlace)
        resource = self.resources[place.name]
        return self._none_free(resource, place.name, place.ticket, place)

    def places(self) -> Iterator[Place]:
        """By resource, in order of arrival."""
        return (place for _, resource in self for place in resource.queue)

    def blockers(self, name: str, session: str, place: Place | None) -> Iterator[Blocker]:
        """Those who hold what is wanted, the session itself among them, then waiters before.

        Any of the holders may free what is wanted, and so may whoever issues another ticket. Nobody
        is in the way of one who would only now ask for any, and would be given one.
        """
        resource = self.resources.get(name)
        if resource is None:
            return
        if place is None and (resource.free or resource.own(session) is not None):
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
        resource = self.resources.get(name)
        found = None if resource is None else resource.tickets.get(ticket)
        return None if found is None else _picture(name, found, now_ms)

    def info(self, name: str, now_ms: int) -> ResourceInfo | None:
        """A picture of one resource; None when there is none."""
        resource = self.resources.get(name)
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
            len(resource.free),
        )

    def list(
        self, now_ms: int, *, prefix: str = "", after: str | None = None, limit: int = 100
    ) -> list[ResourceInfo]:
        """Pictures of at most `limit` resources whose names start with `prefix`, by name.

        Args:
            after: name of the last one seen; it need not be there any more.
        """
        found = (
            self.info(name, now_ms) for name in page(self.resources.names, prefix, after, limit)
        )
        return [picture for picture in found if picture is not None]

    def __iter__(self) -> Iterator[tuple[str, Resource]]:
        """By name."""
        return iter(self.resources)

    # How it is done.

    def _would_refuse_to_issue(self, command: IssueTicket) -> Refusal | None:
        core, name = self._core, command.name
        session = core.sessions.get(command.session)
        if session is None:
            return core.gone(command.session)
        resource = self.resources.get(name)
        if resource is not None and resource.is_lock:
            return WrongKind(name, True)
        ticket = None if resource is None else resource.tickets.get(command.ticket)
        is_issuer = ticket is not None and ticket.issuer == session.id
        if not is_issuer and (refusal := core.no_room(session)) is not None:
            return refusal
        spare = core.headroom - 1
        if resource is None:
            if len(self.resources) + 1 + spare > limits.RESOURCES_MAX:
                return QueueFull("resources", limits.RESOURCES_MAX)
        elif ticket is None and len(resource.tickets) >= limits.TICKETS_PER_RESOURCE_MAX:
            return QueueFull("tickets of a resource", limits.TICKETS_PER_RESOURCE_MAX)
        grown = size(command.data) - (0 if ticket is None else size(ticket.data))
        most = limits.TICKET_DATA_BYTES_TOTAL_MAX - spare * limits.TICKET_DATA_BYTES_MAX
        if grown > 0 and self.resources.data_bytes + grown > most:
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
        resource, place = self.resources.get(command.name), None
        if resource is not None and not command.another:
            place = resource.shared.get((command.session, command.ticket))
        return self._none_free(resource, command.name, command.ticket, place)

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

    def _would_refuse_to_lock(self, command: LockResource) -> Refusal | None:
        core, name = self._core, command.name
        session = core.sessions.get(command.session)
        if session is None:
            return core.gone(command.session)
        resource = self.resources.get(name)
        if resource is not None and not resource.is_lock:
            return WrongKind(name, False)
        ticket = None if resource is None else resource.tickets.get(name)
        if ticket is not None and not ticket.is_orphan:
            if ticket.issuer == session.id:
                return None
            held_ms = core.now_ms - ticket.since_ms
            return NoTicketFree(name, name, 1, 1, ticket.issuer, held_ms, ticket.token, 0, 1)
        if (refusal := core.no_room(session)) is not None:
            return refusal
        spare = core.headroom - 1
        if resource is None and len(self.resources) + 1 + spare > limits.RESOURCES_MAX:
            return QueueFull("resources", limits.RESOURCES_MAX)
        return None

    def _would_refuse_to_unlock(self, command: UnlockResource) -> Refusal | None:
        core, name = self._core, command.name
        session = core.sessions.get(command.session)
        if session is None:
            return core.gone(command.session)
        resource = self.resources.get(name)
        if resource is None:
            return ResourceNotFound(name)
        if not resource.is_lock:
            return WrongKind(name, False)
        ticket = resource.tickets.get(name)
        if ticket is None or ticket.is_orphan:
            return TicketNotFound(name, name)
        if ticket.issuer != session.id:
            return NotIssuer(name, name, session.id, ticket.issuer)
        return None

    def _find(self, command: ClaimTicket) -> Ticket | TicketClaimed | Refusal | None:
        """A free ticket to be claimed, the answer that a claim has already, or why no wait helps.

        None where a wait may help.
        """
        core, name, wanted = self._core, command.name, command.ticket
        session = core.sessions.get(command.session)
        if session is None:
            return core.gone(command.session)
        resource = self.resources.get(name)
        if resource is None:
            return core.no_room(session)
        if resource.is_lock:
            return WrongKind(name, True)
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
        if named is None or named.claim is not None or not resource.can_be_free(named):
            return None
        return named

    def _ticket_of(self, name: str, ticket: str) -> Ticket | ResourceNotFound | TicketNotFound:
        resource = self.resources.get(name)
        if resource is None:
            return ResourceNotFound(name)
        return resource.tickets.get(ticket) or TicketNotFound(name, ticket)

    def _claim_of(self, name: str, ticket: str) -> Claim | None:
        found = self._ticket_of(name, ticket)
        return None if isinstance(found, Refusal) else found.claim

    def _take_over(self, name: str, resource: Resource, ticket: Ticket, session: Session) -> None:
        core, thing = self._core, _owned(name, ISSUED, ticket)
        if ticket.is_orphan:
            ticket.is_orphan = False
            del resource.orphans[ticket.name]
            if ticket.claim is None:
                self._freed(name, resource, ticket)
        else:
            issuer = core.sessions.get(ticket.issuer)
            assert issuer is not None, "a ticket outlived its issuer"
            del issuer.owned[thing]
            self._tell("lost", name, ticket, issuer.id, ticket.token, by=session.id)
        ticket.issuer, ticket.token, ticket.since_ms = session.id, core.tokens.next(), core.now_ms
        session.took(thing, ticket.token)
        self._tell("issued", name, ticket, session.id, ticket.token)

    def _revoke(self, name: str, resource: Resource, ticket: Ticket, *, by: Session) -> Outcome:
        """Take a ticket away, from its issuer and its claimant; the resource may stay a while."""
        if not ticket.is_orphan:
            issuer = self._core.sessions.get(ticket.issuer)
            assert issuer is not None, "a ticket outlived its issuer"
            del issuer.owned[_owned(name, ISSUED, ticket)]
            self._tell("revoked", name, ticket, issuer.id, ticket.token, by=by.id)
        if by.sweep_ms and len(resource.tickets) == 1:
            self._sweep_at(resource, next_sweep(self._core.now_ms, by.sweep_ms))
        claimant = self._drop(name, resource, ticket, by=by.id)
        return TicketRevoked(name, ticket.name, claimant)

    def _orphan(self, resource: Resource, ticket: Ticket, until_ms: int) -> None:
        """Leave a ticket of nobody's until the next sweep."""
        remove(resource.free, ticket)
        if resource.freed:
            remove(resource.freed, ticket)
        ticket.is_orphan = True
        resource.orphans[ticket.name] = ticket
        self._sweep_at(resource, until_ms)

    def _sweep_at(self, resource: Resource, until_ms: int) -> None:
        """Keep a resource until a sweep, or until the one that is to come already."""
        if not resource.is_swept:
            resource.deadline_ms, resource.sweep = until_ms, self._core.tokens.next()
            self._core.deadlines.arm(RESOURCE_SWEPT, resource.sweep, resource)

    def _swept(self, resource: Resource) -> None:
        """Take away what is nobody's, and the resource with it if nothing is left."""
        # In order of issue, not of becoming orphans: a snapshot does not tell that one.
        orphans = sorted(resource.orphans.values(), key=by_order)
        for ticket in orphans:
            self._drop(resource.name, resource, ticket, by=ticket.issuer)
        if not orphans:
            self.resources.forget_if_empty(resource.name, resource)

    def _drop(self, name: str, resource: Resource, ticket: Ticket, *, by: str) -> str | None:
        """Take a ticket away; gives its claimant, who is told. Its issuer's record is gone."""
        claim = ticket.claim
        if claim is not None:
            claimant = self._core.sessions.get(claim.session)
            if claimant is not None:
                del claimant.owned[_owned(name, CLAIMED, ticket)]
            self.resources.unclaim(resource, ticket)
            self._tell("revoked", name, ticket, claim.session, claim.token, by=by)
        self.resources.drop(resource, ticket)
        self.resources.forget_if_empty(name, resource)
        return None if claim is None else claim.session

    def _freed(self, name: str, resource: Resource, ticket: Ticket) -> None:
        """A ticket can be claimed (again), if it is for that: see whether somebody waits for it."""
        if not resource.can_be_free(ticket):
            return
        insort(resource.free, ticket, key=by_order)
        if resource.queue:
            insort(resource.freed, ticket, key=by_order)
            self._core.unsettle(KIND, name)

    def _grant(
        self, resource: Resource, session: Session, name: str, ticket: Ticket
    ) -> TicketClaimed:
        core = self._core
        remove(resource.free, ticket)
        claim = Claim(session.id, core.tokens.next(), core.now_ms)
        self.resources.hold(resource, ticket, claim)
        session.took(_owned(name, CLAIMED, ticket), claim.token)
        self._tell("granted", name, ticket, session.id, claim.token)
        return _claimed(name, ticket, claim)

    def _none_free(
        self,
        resource: Resource | None,
        name: str,
        wanted: str | None,
        place: ClaimPlace | None,
    ) -> NoTicketFree:
        """Why a session gets no ticket: who holds one, and where it stands or would stand."""
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


_Named: TypeAlias = (
    IssueTicket | RevokeTicket | ClaimTicket | ReleaseTicket | LockResource | UnlockResource
)


def _thing(command: _Named) -> tuple[str, ...]:
    return KIND, command.name


def _owned(name: str, what: str, ticket: Ticket) -> Owned:
    """A session may issue a ticket and hold it too."""
    return KIND, name, what + ticket.name
