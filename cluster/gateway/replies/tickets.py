"""Answers about tickets on resources.

RULE: outcome to answer or problem, nothing else; see `base.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

import msgspec

from cluster.gateway.replies.base import Answer, Ms, Problem, Reply, Token
from cluster.gateway.replies.payloads import OptionalPayload, from_bytes
from cluster.machine.outcome import Outcome
from cluster.machine.outcome.tickets import (
    NoTicketFree,
    NotIssuer,
    ResourceNotFound,
    TicketClaimed,
    TicketIssued,
    TicketNotFound,
    TicketReleased,
    TicketRevoked,
    WrongKind,
)


class IssuedTicket(msgspec.Struct, frozen=True):
    """The session is the ticket's issuer under `token`; `claimant` goes on holding it."""

    name: str
    ticket: str
    token: Token
    session: str
    created: bool
    taken_from: str | None
    claimant: str | None


class ClaimedTicket(msgspec.Struct, frozen=True):
    """The session holds the ticket under `token`; `data` is what its issuer gave with it."""

    name: str
    ticket: str
    token: Token
    session: str
    issuer: str
    data: OptionalPayload


class RevokedTicket(msgspec.Struct, frozen=True):
    """The ticket is gone; `claimant` has lost it."""

    claimant: str | None
    revoked: bool = True


class ReleasedTicket(msgspec.Struct, frozen=True):
    """The ticket was given back."""

    released: bool = True


class NoTicketFreeReason(msgspec.Struct, frozen=True):
    """Why there is no ticket to be had.

    `holder` has the oldest claim, or the one on the `ticket` asked for (null: nobody);
    `position` counts from 1, among those who want the same.
    """

    name: str
    ticket: str | None
    tickets: int
    claimed: int
    holder: str | None
    held_for_ms: Ms
    holder_token: Token | None
    queue_length: int
    position: int


class ResourceNotFoundReason(msgspec.Struct, frozen=True):
    """The name of a resource without tickets and waiters."""

    name: str


class TicketNotFoundReason(msgspec.Struct, frozen=True):
    """A ticket that the resource does not have."""

    name: str
    ticket: str


class NotIssuerReason(msgspec.Struct, frozen=True):
    """`issuer` issued the ticket, not `session`."""

    name: str
    ticket: str
    session: str
    issuer: str


class WrongKindReason(msgspec.Struct, frozen=True):
    """What the resource is."""

    name: str
    is_lock: bool


def resource_not_found(name: str) -> Problem:
    """Return the refusal for a resource without tickets and waiters."""
    return Problem(
        "resource_not_found",
        f'resource "{name}" has no tickets; it is there as soon as one is issued',
        {"name": name},
    )


def ticket_not_found(name: str, ticket: str) -> Problem:
    """Return the refusal for a ticket that is not there."""
    return Problem(
        "ticket_not_found",
        f'resource "{name}" has no ticket "{ticket}"; it was never issued, or revoked, or went '
        "with the session that issued it",
        {"name": name, "ticket": ticket},
    )


def _issued(outcome: TicketIssued) -> Answer:
    body = IssuedTicket(
        name=outcome.name,
        ticket=outcome.ticket,
        token=outcome.token,
        session=outcome.session,
        created=outcome.created,
        taken_from=outcome.taken_from,
        claimant=outcome.claimant,
    )
    location = None
    if outcome.created:
        name, ticket = quote(outcome.name, safe=""), quote(outcome.ticket, safe="")
        location = f"/v1/resources/{name}/tickets/{ticket}"
    return Answer(201 if outcome.created else 200, body, outcome.token, location)


def _revoked(outcome: TicketRevoked) -> Answer:
    return Answer(200, RevokedTicket(outcome.claimant))


def _claimed(outcome: TicketClaimed) -> Answer:
    body = ClaimedTicket(
        name=outcome.name,
        ticket=outcome.ticket,
        token=outcome.token,
        session=outcome.session,
        issuer=outcome.issuer,
        data=from_bytes(outcome.data, outcome.is_text),
    )
    return Answer(200, body, outcome.token)


def _released(_outcome: TicketReleased) -> Answer:
    return _RELEASED


def _resource_not_found(outcome: ResourceNotFound) -> Answer:
    raise resource_not_found(outcome.name)


def _ticket_not_found(outcome: TicketNotFound) -> Answer:
    raise ticket_not_found(outcome.name, outcome.ticket)


def _not_issuer(outcome: NotIssuer) -> Answer:
    raise Problem(
        "not_issuer",
        f'ticket "{outcome.ticket}" of resource "{outcome.name}" was issued by session '
        f"{outcome.issuer}, not by {outcome.session}; issue it to take it over, then revoke it",
        {
            "name": outcome.name,
            "ticket": outcome.ticket,
            "session": outcome.session,
            "issuer": outcome.issuer,
        },
    )


def _wrong_kind(outcome: WrongKind) -> Answer:
    what = "is a lock of a ticketd client" if outcome.is_lock else "has tickets and is no lock"
    raise Problem(
        "wrong_kind",
        f'resource "{outcome.name}" {what}; use another name',
        {"name": outcome.name, "is_lock": outcome.is_lock},
    )


def _no_ticket_free(outcome: NoTicketFree) -> Answer:
    what = "no free ticket" if outcome.ticket is None else f'no free ticket "{outcome.ticket}"'
    if outcome.tickets == 0:
        why = "nobody has issued any"
    else:
        why = f"{outcome.claimed} of its {outcome.tickets} are claimed"
    if outcome.holder is not None:
        since = "the oldest" if outcome.ticket is None else "this one"
        why = (
            f"{why}, {since} by session {outcome.holder} for {outcome.held_for_ms} ms under token "
            f"{outcome.holder_token}"
        )
    raise Problem(
        "no_ticket_free",
        f'resource "{outcome.name}" has {what}: {why}; {outcome.queue_length} in its queue, your '
        f"position is {outcome.position}; ask with a longer wait or later",
        {
            "name": outcome.name,
            "ticket": outcome.ticket,
            "tickets": outcome.tickets,
            "claimed": outcome.claimed,
            "holder": outcome.holder,
            "held_for_ms": outcome.held_for_ms,
            "holder_token": outcome.holder_token,
            "queue_length": outcome.queue_length,
            "position": outcome.position,
        },
    )


_RELEASED: Final = Answer(200, ReleasedTicket())

REASONS: Final[Mapping[str, type[msgspec.Struct]]] = {
    "resource_not_found": ResourceNotFoundReason,
    "ticket_not_found": TicketNotFoundReason,
    "not_issuer": NotIssuerReason,
    "no_ticket_free": NoTicketFreeReason,
    "wrong_kind": WrongKindReason,
}

REPLIES: Final[Mapping[type[Outcome], Reply]] = {
    TicketIssued: _issued,
    TicketRevoked: _revoked,
    TicketClaimed: _claimed,
    TicketReleased: _released,
    ResourceNotFound: _resource_not_found,
    TicketNotFound: _ticket_not_found,
    NotIssuer: _not_issuer,
    NoTicketFree: _no_ticket_free,
    WrongKind: _wrong_kind,
}
