"""Tickets on resources over HTTP: issue, revoke, claim, release, check, get, list.

RULE: JSON or CBOR to command, state to picture; what a ticket does is decided in
`machine/tickets/`.
"""

from __future__ import annotations

from typing import Final

import msgspec

from cluster.gateway.checking import CheckToken, TokenChecked
from cluster.gateway.paging import named
from cluster.gateway.payloads import (
    JSON_PER_BYTE_MAX,
    OptionalPayload,
    from_bytes,
    to_optional_bytes,
)
from cluster.gateway.replies import Ms, Token
from cluster.gateway.replies.kinds import SESSION_GONE
from cluster.gateway.replies.tickets import (
    ClaimedTicket,
    IssuedTicket,
    ReleasedTicket,
    RevokedTicket,
    resource_not_found,
    ticket_not_found,
)
from cluster.gateway.requests import (
    AFTER,
    LIMIT,
    PREFIX,
    SESSION_ID_SCHEMA,
    WAIT,
    Ask,
    Body,
    Duration,
    Name,
    Query,
    SessionId,
    bad_request,
    check_name,
    check_session,
    wait_ms,
)
from cluster.gateway.routes import BODY_BYTES_MAX, Look, Read, Route, Write, read_query
from cluster.machine.commands.tickets import ClaimTicket, IssueTicket, ReleaseTicket, RevokeTicket
from cluster.machine.limits import TICKET_DATA_BYTES_MAX
from cluster.machine.outcome.tickets import ResourceInfo, TicketInfo

SESSION: Final = Query(
    "session",
    str,
    None,
    SESSION_ID_SCHEMA,
    "the session that issued the ticket",
    is_required=True,
)


SHOWN_BYTES_MAX: Final = 1024 * 1024
"""Of the data of one resource in its picture."""

_BYTES_PER_WEIGHT: Final = 256


class Issue(Body, frozen=True):
    """Issue the ticket: anew, with other data, or taking it over from who issued it."""

    session: SessionId
    ticket: Name
    data: OptionalPayload = None


class Claim(Body, frozen=True):
    """Ask for a ticket, waiting for it at most `wait`.

    Without `ticket` the free one that was issued first. Who holds one already is given it again,
    unless it asks for `another`.
    """

    session: SessionId
    wait: Duration | None = None
    ticket: Name | None = None
    another: bool = False


class ReleaseClaim(Body, frozen=True):
    """Give a ticket back. `token` is the one that the claim gave."""

    session: SessionId
    ticket: Name
    token: Token


class TicketView(msgspec.Struct, frozen=True):
    """One ticket: `token` is of its issue, `claim_token` of its claim.

    What concerns the claim is null while the ticket is free.
    `data_bytes` is the length of its data, null without. In the picture of a whole resource `data`
    is null where there would be too many of them: ask for the ticket alone.
    """

    ticket: str
    issuer: str
    token: Token
    issued_for_ms: Ms
    data: OptionalPayload
    data_bytes: int | None
    claimant: str | None
    claim_token: Token | None
    held_for_ms: Ms | None


class ClaimWaiter(msgspec.Struct, frozen=True):
    """One who waits for a ticket, or for the one that is named.

    `position` counts from 1 among those who want the same; `expires_in_ms` is how long it still
    will wait.
    """

    session: str
    ticket: str | None
    position: int
    waited_ms: Ms
    expires_in_ms: Ms


class ResourceView(msgspec.Struct, frozen=True):
    """One resource: its tickets in order of first issue, its waiters in order of arrival."""

    name: str
    tickets: list[TicketView]
    waiters: list[ClaimWaiter]
    ticket_count: int
    free_count: int
    queue_length: int


class ResourcePage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Resources that have tickets or waiters, in order of name; `next` goes into `after`."""

    resources: list[ResourceView]
    next: str | None = None


def issue(ask: Ask) -> IssueTicket:
    """Make the command of an issue."""
    body: Issue = ask.body
    data, is_text = to_optional_bytes(body.data, "data", TICKET_DATA_BYTES_MAX)
    return IssueTicket(
        session=check_session(body.session),
        name=_resource(ask),
        ticket=check_name(body.ticket, "ticket"),
        data=data,
        is_text=is_text,
    )


def revoke(ask: Ask) -> RevokeTicket:
    """Make the command of a revocation."""
    session = ask.query["session"]
    if session is None:
        raise bad_request("session", "is missing; add ?session= with the session that issued it")
    return RevokeTicket(
        session=check_session(session),
        name=_resource(ask),
        ticket=_ticket(ask),
    )


def claim(ask: Ask) -> ClaimTicket:
    """Make the command of a claim."""
    body: Claim = ask.body
    return ClaimTicket(
        session=check_session(body.session),
        name=_resource(ask),
        wait_ms=wait_ms(ask),
        ticket=None if body.ticket is None else check_name(body.ticket, "ticket"),
        another=body.another,
    )


def release(ask: Ask) -> ReleaseTicket:
    """Make the command of a release."""
    body: ReleaseClaim = ask.body
    return ReleaseTicket(
        session=check_session(body.session),
        name=_resource(ask),
        ticket=check_name(body.ticket, "ticket"),
        token=body.token,
    )


def check(look: Look, ask: Ask) -> TokenChecked:
    """Compare a token with the present claim; a ticket that is gone has none."""
    found = look.machine.tickets.check(_resource(ask), _ticket(ask), ask.body.token)
    return TokenChecked(*found)


def show_ticket(look: Look, ask: Ask) -> TicketView:
    """Show one ticket.

    Raises:
        Problem: it is not there.
    """
    name, ticket = _resource(ask), _ticket(ask)
    info = look.machine.tickets.ticket(name, ticket, look.now_ms)
    if info is None:
        raise ticket_not_found(name, ticket)
    return _ticket_view(info)


def show(look: Look, ask: Ask) -> ResourceView:
    """Show one resource.

    Raises:
        Problem: it has no tickets, and nobody waits.
    """
    name = _resource(ask)
    info = look.machine.tickets.info(name, look.now_ms)
    if info is None:
        raise resource_not_found(name)
    return _view(info)


def show_all(look: Look, ask: Ask) -> ResourcePage:
    """Show a page of resources."""
    found, following = named(
        look.machine.tickets, look.now_ms, ask.query, key=lambda info: info.name, weight=_weight
    )
    return ResourcePage([_view(info) for info in found], following)


def _resource(ask: Ask) -> str:
    return check_name(ask.path["name"], "name")


def _ticket(ask: Ask) -> str:
    return check_name(ask.path["ticket"], "ticket")


def _weight(info: ResourceInfo) -> int:
    """Entries, and what is shown of their data."""
    data = sum(len(ticket.data) for ticket in info.tickets if ticket.data is not None)
    shown = min(data, SHOWN_BYTES_MAX) // _BYTES_PER_WEIGHT
    return 1 + len(info.tickets) + len(info.waiters) + shown


def _view(info: ResourceInfo) -> ResourceView:
    tickets, left = [], SHOWN_BYTES_MAX
    for ticket in info.tickets:
        left -= 0 if ticket.data is None else len(ticket.data)
        tickets.append(_ticket_view(ticket, with_data=left >= 0))
    return ResourceView(
        name=info.name,
        tickets=tickets,
        waiters=[
            ClaimWaiter(session, ticket, position, waited_ms, expires_in_ms)
            for session, ticket, waited_ms, expires_in_ms, position in info.waiters
        ],
        ticket_count=len(info.tickets),
        free_count=info.free,
        queue_length=len(info.waiters),
    )


def _ticket_view(info: TicketInfo, *, with_data: bool = True) -> TicketView:
    claimant, claim_token, held_for_ms = info.claim or (None, None, None)
    return TicketView(
        ticket=info.ticket,
        issuer=info.issuer,
        token=info.token,
        issued_for_ms=info.issued_for_ms,
        data=from_bytes(info.data, info.is_text) if with_data else None,
        data_bytes=None if info.data is None else len(info.data),
        claimant=claimant,
        claim_token=claim_token,
        held_for_ms=held_for_ms,
    )


ROUTES: tuple[Route, ...] = (
    Write(
        method="POST",
        path="/v1/resources/{name}/tickets",
        summary="Issue a ticket, or one that is there again: a claim on it stays.",
        tag="tickets",
        body=Issue,
        answer=IssuedTicket,
        status=201,
        also=(200,),
        codes=(*SESSION_GONE, "wrong_kind", "queue_full"),
        body_bytes_max=TICKET_DATA_BYTES_MAX * JSON_PER_BYTE_MAX + BODY_BYTES_MAX,
        command=issue,
    ),
    Write(
        method="DELETE",
        path="/v1/resources/{name}/tickets/{ticket}",
        summary="Revoke a ticket: whoever holds it loses it, and is told.",
        tag="tickets",
        answer=RevokedTicket,
        codes=(*SESSION_GONE, "resource_not_found", "ticket_not_found", "not_issuer"),
        query=(SESSION,),
        command=revoke,
    ),
    Write(
        method="POST",
        path="/v1/resources/{name}/claim",
        summary="Claim a ticket, or wait for one for at most `wait`.",
        tag="tickets",
        body=Claim,
        answer=ClaimedTicket,
        codes=(*SESSION_GONE, "no_ticket_free", "wrong_kind", "queue_full"),
        query=(WAIT,),
        command=claim,
    ),
    Write(
        method="POST",
        path="/v1/resources/{name}/release",
        summary="Give a ticket back, if `token` is still its claim.",
        tag="tickets",
        body=ReleaseClaim,
        answer=ReleasedTicket,
        codes=(
            *SESSION_GONE,
            "resource_not_found",
            "ticket_not_found",
            "stale_token",
            "not_holder",
        ),
        command=release,
    ),
    Read(
        method="POST",
        path="/v1/resources/{name}/tickets/{ticket}/check",
        summary="Tell whether a token is still the claim of a ticket.",
        tag="tickets",
        body=CheckToken,
        answer=TokenChecked,
        query=read_query(),
        view=check,
    ),
    Read(
        method="GET",
        path="/v1/resources/{name}/tickets/{ticket}",
        summary="Show a ticket: who issued it, who holds it, its data.",
        tag="tickets",
        answer=TicketView,
        codes=("ticket_not_found",),
        query=read_query(),
        view=show_ticket,
    ),
    Read(
        method="GET",
        path="/v1/resources/{name}",
        summary="Show a resource: its tickets and who waits for one.",
        tag="tickets",
        answer=ResourceView,
        codes=("resource_not_found",),
        query=read_query(),
        view=show,
    ),
    Read(
        method="GET",
        path="/v1/resources",
        summary="List the resources that have tickets or waiters, in order of name.",
        tag="tickets",
        answer=ResourcePage,
        query=read_query(PREFIX, AFTER, LIMIT),
        view=show_all,
    ),
)
