"""Resources: the tickets of each, who holds them, and who waits, kept so that all is found at once.

RULE: keeps and finds; decides nothing. What a ticket does is in `tickets.py`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator
from operator import attrgetter
from typing import ClassVar, TypeAlias

from sortedcontainers import SortedList

from cluster.machine.deadlines import DISARMED
from cluster.machine.parked import Place

KIND = "ticket"

# What a session has of a ticket, as it stands in the third member of an Owned.
ISSUED, CLAIMED = "issued:", "claimed:"


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
        issuer: session that issued it; see `is_orphan`.
        token: of the present issue; a larger one where it was taken over.
        since_ms: of the present issue.
        claim: None while nobody holds it.
        is_orphan: its issuer was closed: it goes with the next sweep, and cannot be claimed.
    """

    __slots__ = (
        "claim",
        "data",
        "is_orphan",
        "is_text",
        "issuer",
        "name",
        "order",
        "since_ms",
        "token",
    )

    def __init__(
        self,
        name: str,
        order: int,
        issuer: str,
        token: int,
        since_ms: int,
        data: bytes | None,
        is_text: bool | None,
        is_orphan: bool = False,
    ) -> None:
        self.name = name
        self.order = order
        self.issuer = issuer
        self.token = token
        self.since_ms = since_ms
        self.data = data
        self.is_text = is_text
        self.is_orphan = is_orphan
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
        is_lock: its one ticket has its name and is the holder's, who is its issuer.
        deadline_ms: of the sweep that takes orphans away, and the resource if nothing is left of
            it; DISARMED where nothing waits for one.
        sweep: which of all timers that is; 0 before the first.
        tickets: by name, in order of first issue.
        orphans: those whose issuer was closed, by name.
        free: those that can be claimed, in order of first issue.
        claimed: by token of the claim, in order of claiming; found by links, as in semaphores.
        by_session: the tickets that each session has claimed, in that order.
        freed: those that became free in this step and may serve somebody, in order of first issue.
            Empty between steps.
        queue: everybody who waits.
        lines: the same by what they want.
        shared: places that may be asked for again, by session and what it wants.
    """

    __slots__ = (
        "by_session",
        "claimed",
        "deadline_ms",
        "free",
        "freed",
        "is_lock",
        "lines",
        "name",
        "orphans",
        "queue",
        "shared",
        "sweep",
        "tickets",
    )

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.is_lock = False
        self.deadline_ms = DISARMED
        self.sweep = 0
        self.orphans: dict[str, Ticket] = {}
        self.tickets: dict[str, Ticket] = {}
        self.free: list[Ticket] = []
        self.claimed: OrderedDict[int, Ticket] = OrderedDict()
        self.by_session: dict[str, list[Ticket]] = {}
        self.freed: list[Ticket] = []
        self.queue: Line = []
        self.lines: dict[str | None, Line] = {}
        self.shared: dict[tuple[str, str | None], ClaimPlace] = {}

    @property
    def is_swept(self) -> bool:
        """A sweep is to come, before which the resource does not go."""
        return self.deadline_ms != DISARMED

    def can_be_free(self, ticket: Ticket) -> bool:
        """Somebody could claim it, if nobody had."""
        return not self.is_lock and not ticket.is_orphan

    def own(self, session: str) -> Ticket | None:
        """The ticket that a session has held longest, of those that will stay."""
        held = self.by_session.get(session, ())
        return next((ticket for ticket in held if not ticket.is_orphan), None)

    def ahead(self, ticket: str | None, arrival: int) -> int:
        """How many stand before one who wants this, and would be served before it."""
        if ticket is None:
            return rank(self.queue, arrival)
        return sum(rank(self.lines.get(wanted, []), arrival) for wanted in (None, ticket))

    def first_for(self, ticket: str) -> ClaimPlace | None:
        """Who came first among those whom this ticket could serve."""
        anybody, named = self.lines.get(None), self.lines.get(ticket)
        if anybody and named:
            return min(anybody[0], named[0], key=_arrival)
        line = anybody or named
        return line[0] if line else None


class Resources:
    """All resources that have tickets or waiters.

    Attributes:
        names: of all of them, sorted.
        tickets: of all resources.
        claims: of all of them.
        waiters: in all queues.
        data_bytes: of all tickets.
    """

    def __init__(self) -> None:
        self._by_name: dict[str, Resource] = {}
        self.names = SortedList()
        self.tickets = 0
        self.claims = 0
        self.waiters = 0
        self.data_bytes = 0

    def __len__(self) -> int:
        return len(self._by_name)

    def __getitem__(self, name: str) -> Resource:
        return self._by_name[name]

    def __iter__(self) -> Iterator[tuple[str, Resource]]:
        """By name."""
        return ((name, self._by_name[name]) for name in self.names)

    def get(self, name: str) -> Resource | None:
        """The resource of this name, if it is there."""
        return self._by_name.get(name)

    def new(self, name: str) -> Resource:
        """Make a resource; the caller puts something into it."""
        self._by_name[name] = resource = Resource(name)
        self.names.add(name)
        return resource

    def forget_if_empty(self, name: str, resource: Resource) -> None:
        """Drop a resource that nothing is left of, and that no sweep is to take away."""
        if not resource.tickets and not resource.queue and not resource.is_swept:
            del self._by_name[name]
            self.names.remove(name)

    def add(self, resource: Resource, ticket: Ticket) -> None:
        """Take in a ticket that is younger than all others of its resource."""
        resource.tickets[ticket.name] = ticket
        if ticket.is_orphan:
            resource.orphans[ticket.name] = ticket
        self.tickets += 1
        self.data_bytes += size(ticket.data)

    def drop(self, resource: Resource, ticket: Ticket) -> None:
        """Take a ticket out that nobody holds."""
        remove(resource.free, ticket)
        if resource.freed:
            remove(resource.freed, ticket)
        del resource.tickets[ticket.name]
        resource.orphans.pop(ticket.name, None)
        self.tickets -= 1
        self.data_bytes -= size(ticket.data)

    def change(self, ticket: Ticket, data: bytes | None, is_text: bool | None) -> None:
        """Give a ticket other data."""
        self.data_bytes += size(data) - size(ticket.data)
        ticket.data, ticket.is_text = data, is_text

    def hold(self, resource: Resource, ticket: Ticket, claim: Claim) -> None:
        """Put a claim on a ticket; newer than all others of the resource."""
        ticket.claim = claim
        resource.claimed[claim.token] = ticket
        resource.by_session.setdefault(claim.session, []).append(ticket)
        self.claims += 1

    def unclaim(self, resource: Resource, ticket: Ticket) -> None:
        """Take the claim off a ticket, which is not among the free ones yet."""
        claim = ticket.claim
        assert claim is not None
        held = resource.by_session[claim.session]
        del held[bisect_left(held, claim.token, key=_claim_token)]
        if not held:
            del resource.by_session[claim.session]
        ticket.claim = None
        del resource.claimed[claim.token]
        self.claims -= 1

    def enter(self, resource: Resource, place: ClaimPlace) -> None:
        """Put a place at the end of the queue."""
        resource.queue.append(place)
        resource.lines.setdefault(place.ticket, []).append(place)
        if not place.another:
            resource.shared[place.session, place.ticket] = place
        self.waiters += 1

    def exit(self, resource: Resource, place: ClaimPlace) -> None:
        """Take a place out of the queue."""
        line = resource.lines[place.ticket]
        del resource.queue[rank(resource.queue, place.arrival)]
        del line[rank(line, place.arrival)]
        if not line:
            del resource.lines[place.ticket]
        if not place.another:
            del resource.shared[place.session, place.ticket]
        self.waiters -= 1


def is_utf8(data: bytes | None) -> bool:
    """Whether data are there, and may be called text."""
    if data is None:
        return False
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def size(data: bytes | None) -> int:
    """Bytes of a ticket's data."""
    return 0 if data is None else len(data)


def rank(line: Line, arrival: int) -> int:
    """How many of a line came before."""
    return bisect_left(line, arrival, key=_arrival)


def remove(line: list[Ticket], ticket: Ticket) -> None:
    """Take a ticket out of a list in order of first issue, if it is there."""
    rank = bisect_left(line, ticket.order, key=by_order)
    if rank < len(line) and line[rank] is ticket:
        del line[rank]


by_order = attrgetter("order")
_arrival = attrgetter("arrival")
_claim_token = attrgetter("claim.token")
