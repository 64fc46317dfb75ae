"""Outcomes and pictures of tickets on resources.

RULE: values only; see `base.py`. Numbers 40 to 49.
"""

from __future__ import annotations

import msgspec

from cluster.machine.outcome.base import Outcome, Refusal


class TicketIssued(Outcome, frozen=True, tag=40):
    """`session` is the ticket's issuer under `token`: a new one unless it was that already.

    Attributes:
        created: there was no such ticket.
        taken_from: session that had issued it until now; None when nobody or this one had.
        claimant: who holds it, and goes on holding it.
    """

    name: str
    ticket: str
    session: str
    token: int
    created: bool
    taken_from: str | None
    claimant: str | None


class TicketRevoked(Outcome, frozen=True, tag=41):
    """The ticket is gone; `claimant` has lost it."""

    name: str
    ticket: str
    claimant: str | None


class TicketClaimed(Outcome, frozen=True, tag=42):
    """`session` holds the ticket under `token`.

    Attributes:
        issuer: session that issued it.
        data: of the ticket; None when it has none.
        is_text: they came as text; None: as JSON.
    """

    name: str
    ticket: str
    session: str
    token: int
    issuer: str
    data: bytes | None
    is_text: bool | None


class TicketReleased(Outcome, frozen=True, tag=43):
    """The ticket was given back and can be claimed."""

    name: str
    ticket: str


class ResourceNotFound(Refusal, frozen=True, tag=44):
    """The resource has no tickets, and nobody waits for any."""

    name: str


class TicketNotFound(Refusal, frozen=True, tag=45):
    """The resource has no such ticket (any more)."""

    name: str
    ticket: str


class NotIssuer(Refusal, frozen=True, tag=46):
    """Another session issued the ticket."""

    name: str
    ticket: str
    session: str
    issuer: str


class NoTicketFree(Refusal, frozen=True, tag=47):
    """There is no free ticket of the kind asked for.

    Attributes:
        ticket: the one asked for; None for any.
        tickets: of the resource.
        claimed: how many of those are.
        holder: session with the oldest claim, or the one on the ticket asked for.
        held_for_ms: since that claim.
        holder_token: its fencing token.
        queue_length: waiters in the queue without us.
        position: the place we had (after a wait) or would get among those that want the same.
    """

    name: str
    ticket: str | None
    tickets: int
    claimed: int
    holder: str | None
    held_for_ms: int
    holder_token: int | None
    queue_length: int
    position: int


class WrongKind(Refusal, frozen=True, tag=48):
    """The resource is a lock and the command is for tickets, or the other way round."""

    name: str
    is_lock: bool


class TicketInfo(msgspec.Struct, frozen=True):
    """A read-only picture of one ticket.

    Attributes:
        issuer: session that issued it; one that has ended where the ticket stays until a sweep.
        token: of the issue.
        issued_for_ms: since its present issuer has it.
        claim: (session, token, held_for_ms); None while it is free.
    """

    name: str
    ticket: str
    issuer: str
    token: int
    issued_for_ms: int
    data: bytes | None
    is_text: bool | None
    claim: tuple[str, int, int] | None


class ResourceInfo(msgspec.Struct, frozen=True):
    """A read-only picture of one resource; without tickets where it stays until a sweep.

    tickets: in order of first issue.
    waiters: (session, ticket or None, waited_ms, expires_in_ms, position) in order of arrival.
    free: how many tickets can be claimed.
    """

    name: str
    tickets: tuple[TicketInfo, ...]
    waiters: tuple[tuple[str, str | None, int, int, int], ...]
    free: int


OUTCOMES: tuple[type[Outcome], ...] = (
    TicketIssued,
    TicketRevoked,
    TicketClaimed,
    TicketReleased,
    ResourceNotFound,
    TicketNotFound,
    NotIssuer,
    NoTicketFree,
    WrongKind,
)
