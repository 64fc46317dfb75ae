"""Commands of tickets on resources.

RULE: values only; see `base.py`. Numbers 40 to 49.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from cluster.machine import limits
from cluster.machine.commands.base import Command, Count, LengthMs, Name, SessionId

TicketData = Annotated[bytes, msgspec.Meta(max_length=limits.TICKET_DATA_BYTES_MAX)]


class IssueTicket(Command, frozen=True, tag=40):
    """Issue a ticket, or issue it again: with other data, or taking it over from its issuer.

    Attributes:
        name: of the resource, which need not exist.
        data: opaque to the machine; None takes away what there was.
        is_text: the data came as text, and are to be given back so; None: as JSON.
        refresh: issuing renews the session as a keepalive does.
    """

    texts: ClassVar[tuple[str, ...]] = ("name", "ticket")

    session: SessionId
    name: Name
    ticket: Name
    data: TicketData | None = None
    is_text: bool | None = False
    refresh: bool = False


class RevokeTicket(Command, frozen=True, tag=41):
    """Take a ticket away, from its claimant too. `anybody`: not only its issuer may."""

    texts: ClassVar[tuple[str, ...]] = ("name", "ticket")

    session: SessionId
    name: Name
    ticket: Name
    anybody: bool = False


class ClaimTicket(Command, frozen=True, tag=42):
    """Ask for a ticket of a resource; with `wait_ms` > 0 wait for it at most that long.

    Attributes:
        ticket: this one; None for any.
        another: one beside those the session holds; otherwise it is given one of those again.
    """

    texts: ClassVar[tuple[str, ...]] = ("name", "ticket")

    session: SessionId
    name: Name
    wait_ms: LengthMs = 0
    ticket: Name | None = None
    another: bool = False


class ReleaseTicket(Command, frozen=True, tag=43):
    """Give a claimed ticket back. Conditional on the fencing token of the claim, if one is given;
    else it is enough that the session holds the ticket.
    """

    texts: ClassVar[tuple[str, ...]] = ("name", "ticket")

    session: SessionId
    name: Name
    ticket: Name
    token: Count | None = None


class LockResource(Command, frozen=True, tag=44):
    """Make a resource a lock, held by the session: its one ticket has its name, and nobody can
    claim it. Whoever holds it may ask again.
    """

    texts: ClassVar[tuple[str, ...]] = ("name",)

    session: SessionId
    name: Name


class UnlockResource(Command, frozen=True, tag=45):
    """Give a resource's lock back, if this session holds it."""

    texts: ClassVar[tuple[str, ...]] = ("name",)

    session: SessionId
    name: Name


COMMANDS: tuple[type[Command], ...] = (
    IssueTicket,
    RevokeTicket,
    ClaimTicket,
    ReleaseTicket,
    LockResource,
    UnlockResource,
)
