"""Tickets in snapshots: records, and the laws that must hold between them.

RULE: values out and in, in an order that depends on the state alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from cluster.machine.deadlines import DISARMED, RESOURCE_SWEPT, Deadlines
from cluster.machine.primitive import Record, Table, Weighed, weight_of
from cluster.machine.restoring import Restoring, must
from cluster.machine.tickets.resources import (
    CLAIMED,
    ISSUED,
    KIND,
    Claim,
    ClaimPlace,
    Resource,
    Resources,
    Ticket,
    is_utf8,
    size,
)


class _ResourceRecord(Record):
    name: str
    is_lock: bool
    deadline_ms: int
    sweep: int


class _TicketRecord(Record):
    name: str
    ticket: str
    order: int
    issuer: str
    token: int
    since_ms: int
    data: bytes | None
    is_text: bool | None
    is_orphan: bool


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


def tables(resources: Resources, deadlines: Deadlines) -> tuple[Table, ...]:
    """The lines that tickets have in a snapshot."""
    return (
        Table(
            "resources",
            _ResourceRecord,
            partial(_dump_resources, resources),
            partial(_load_resources, resources, deadlines),
        ),
        Table(
            "tickets",
            _TicketRecord,
            partial(_dump_tickets, resources),
            partial(_load_tickets, resources),
        ),
        Table(
            "ticket claims",
            _ClaimRecord,
            partial(_dump_claims, resources),
            partial(_load_claims, resources),
        ),
        Table(
            "ticket places",
            _PlaceRecord,
            partial(_dump_places, resources),
            partial(_load_places, resources),
        ),
    )


def _dump_resources(resources: Resources) -> Weighed:
    """Those that are more than their tickets and waiters tell."""
    for name, resource in resources:
        if resource.is_lock or resource.is_swept:
            yield 1, [name, resource.is_lock, resource.deadline_ms, resource.sweep]


def _load_resources(
    resources: Resources,
    deadlines: Deadlines,
    records: Iterable[_ResourceRecord],
    restoring: Restoring,
) -> None:
    last, sweeps = "", {0}
    for record in records:
        must(last < record.name, "resources do not rise by name")
        last = record.name
        resource = resources.new(record.name)
        resource.is_lock, resource.sweep = record.is_lock, record.sweep
        if record.deadline_ms != DISARMED:
            must(record.deadline_ms >= 0, "a resource is swept at no time")
            must(record.sweep not in sweeps, "two sweeps are one")
            restoring.token(record.sweep)
            sweeps.add(record.sweep)
            resource.deadline_ms = record.deadline_ms
            deadlines.arm(RESOURCE_SWEPT, resource.sweep, resource)


def _dump_tickets(resources: Resources) -> Weighed:
    for name, resource in resources:
        for ticket in resource.tickets.values():
            yield (
                weight_of(size(ticket.data)),
                [
                    name,
                    ticket.name,
                    ticket.order,
                    ticket.issuer,
                    ticket.token,
                    ticket.since_ms,
                    ticket.data,
                    ticket.is_text,
                    ticket.is_orphan,
                ],
            )


def _load_tickets(
    resources: Resources, records: Iterable[_TicketRecord], restoring: Restoring
) -> None:
    name, resource, order = None, Resource(), 0
    for record in records:
        must(name is None or name <= record.name, "resources are not in order of name")
        if name != record.name:
            name, order = record.name, 0
            resource = resources.get(name) or resources.new(name)
        must(order < record.order <= record.token, "tickets are not in order of issue")
        must(record.ticket not in resource.tickets, "a resource has two tickets of one name")
        must(not record.is_text or is_utf8(record.data), "a ticket's text is none")
        order = record.order
        must(not resource.is_lock or name == record.ticket, "a lock has another's name")
        must(not record.is_orphan or resource.is_swept, "nothing will take an orphan away")
        if record.is_orphan:
            restoring.token(record.token)
        else:
            restoring.own(record.issuer, (KIND, name, ISSUED + record.ticket), record.token)
        resources.add(
            resource,
            Ticket(
                record.ticket,
                record.order,
                record.issuer,
                record.token,
                record.since_ms,
                record.data,
                record.is_text,
                record.is_orphan,
            ),
        )


def _dump_claims(resources: Resources) -> Weighed:
    for name, resource in resources:
        for ticket in resource.claimed.values():
            claim = ticket.claim
            assert claim is not None
            yield 1, [name, ticket.name, claim.session, claim.token, claim.since_ms]


def _load_claims(
    resources: Resources, records: Iterable[_ClaimRecord], restoring: Restoring
) -> None:
    name, newest = "", 0
    for record in records:
        must(name <= record.name, "claims are not in order of name")
        must(name != record.name or newest < record.token, "tokens of claims do not rise")
        name, newest = record.name, record.token
        resource = resources[name]
        ticket = resource.tickets[record.ticket]
        must(ticket.claim is None, "a ticket is claimed twice")
        restoring.own(record.session, (KIND, name, CLAIMED + ticket.name), record.token)
        resources.hold(resource, ticket, Claim(record.session, record.token, record.since_ms))
    for _, resource in resources:
        resource.free = [
            ticket
            for ticket in resource.tickets.values()
            if ticket.claim is None and resource.can_be_free(ticket)
        ]


def _dump_places(resources: Resources) -> Weighed:
    for name, resource in resources:
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


def _load_places(
    resources: Resources, records: Iterable[_PlaceRecord], restoring: Restoring
) -> None:
    name = None
    for record in records:
        must(name is None or name <= record.name, "claims that wait are not in order of name")
        name = record.name
        resource = resources.get(name) or resources.new(name)
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
        resources.enter(resource, place)
        restoring.stand(place)
    for _, resource in resources:
        is_there = resource.tickets or resource.queue or resource.is_swept
        must(bool(is_there), "a resource is there for nothing")


def _has_free(resource: Resource, wanted: str | None) -> bool:
    if wanted is None:
        return bool(resource.free)
    named = resource.tickets.get(wanted)
    return named is not None and named.claim is None and resource.can_be_free(named)
