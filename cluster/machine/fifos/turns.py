"""What a fifo is made of: tickets, their clocks, the places of those who wait on them.

RULE: values that `fifos.py` keeps; they know their order and nothing of what follows from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import ClassVar, Final

from sortedcontainers import SortedKeyList

from cluster.machine.deadlines import DISARMED
from cluster.machine.fifos.holds import Holds
from cluster.machine.outcome.fifos import WAITING
from cluster.machine.parked import Place

KIND: Final = "fifo"


class Clock:
    """A timer of one ticket in one state. Each is new: what is in the heap is never moved ahead."""

    __slots__ = ("deadline_ms", "ticket")

    def __init__(self, deadline_ms: int, ticket: Ticket) -> None:
        self.deadline_ms = deadline_ms
        self.ticket = ticket


class Ticket:
    """A ticket in a fifo.

    Attributes:
        number: order among all tickets; the token at which it was taken.
        token: of the acceptance; before it, of the notification; before that, 0.
        since_ms: since when it is in its state.
        clock: the timer that ends its state; None where none runs.
        heard: how many clients were told of the acceptance and may live.
        place: where its clients wait; None while nobody does.
    """

    __slots__ = (
        "accept_timeout_ms",
        "clock",
        "done_timeout_ms",
        "fifo",
        "heard",
        "id",
        "number",
        "place",
        "since_ms",
        "state",
        "taken_ms",
        "token",
        "wait_timeout_ms",
    )

    def __init__(
        self,
        fifo: Fifo,
        id: str,
        number: int,
        taken_ms: int,
        timeouts_ms: tuple[int, int, int],
    ) -> None:
        self.fifo = fifo
        self.id = id
        self.number = number
        self.taken_ms = self.since_ms = taken_ms
        self.wait_timeout_ms, self.accept_timeout_ms, self.done_timeout_ms = timeouts_ms
        self.state: str = WAITING
        self.token = 0
        self.clock: Clock | None = None
        self.heard = 0
        self.place: FifoPlace | None = None


class FifoPlace(Place):
    """Where the clients of one ticket wait for its turn."""

    __slots__ = ("ticket",)

    kind: ClassVar[str] = KIND

    def __init__(self, ticket: Ticket, arrival: int) -> None:
        super().__init__(ticket.fifo.name, None, arrival)
        self.ticket = ticket


class Fifo:
    """One fifo.

    Attributes:
        number: order among all fifos; the token at which it was made.
        drops_tickets: as in `CreateFifo`.
        deadline_ms: when it is destroyed unless it is used before, or kept; DISARMED where it has
            no such timeout, and perhaps while it is kept.
        places: how many of its tickets somebody waits on.
        queue: tickets by number; None until there was one.
        holds: from acceptance to end.
    """

    __slots__ = (
        "accept_timeout_ms",
        "allow_overrides",
        "deadline_ms",
        "done_timeout_ms",
        "drops_tickets",
        "holds",
        "name",
        "number",
        "places",
        "queue",
        "unused_destroy_ms",
        "wait_timeout_ms",
    )

    def __init__(
        self,
        name: str,
        number: int,
        settings: tuple[int, int, int, int, bool],
        *,
        drops_tickets: bool = False,
    ) -> None:
        self.name = name
        self.number = number
        (
            self.wait_timeout_ms,
            self.accept_timeout_ms,
            self.done_timeout_ms,
            self.unused_destroy_ms,
            self.allow_overrides,
        ) = settings
        self.drops_tickets = drops_tickets
        self.deadline_ms = DISARMED
        self.places = 0
        self.queue: SortedKeyList | None = None
        self.holds = Holds()

    def __len__(self) -> int:
        return 0 if self.queue is None else len(self.queue)

    @property
    def settings(self) -> tuple[int, int, int, int, bool]:
        """The four timeouts, and whether tickets may bring their own."""
        return (
            self.wait_timeout_ms,
            self.accept_timeout_ms,
            self.done_timeout_ms,
            self.unused_destroy_ms,
            self.allow_overrides,
        )

    @property
    def is_kept(self) -> bool:
        """It is not destroyed, however long nobody uses it."""
        return self.places > 0 or (len(self) > 0 and not self.drops_tickets)

    def stand(self, place: FifoPlace) -> None:
        """Somebody waits on a ticket of it, from now on."""
        place.ticket.place = place
        self.places += 1

    def unstand(self, ticket: Ticket) -> FifoPlace | None:
        """Nobody waits on the ticket any more; gives the place where somebody did."""
        place, ticket.place = ticket.place, None
        if place is not None:
            self.places -= 1
        return place

    def add(self, ticket: Ticket) -> None:
        """Take a ticket in, at its place."""
        if self.queue is None:
            self.queue = SortedKeyList(key=attrgetter("number"))
        self.queue.add(ticket)

    def fill(self, tickets: list[Ticket]) -> None:
        """Take all its tickets in, in order: sorting them at once costs a tenth."""
        self.queue = SortedKeyList(tickets, key=attrgetter("number"))

    def tickets(self, after: int = 0) -> Iterator[Ticket]:
        """In order, from behind a number."""
        if self.queue is None:
            return iter(())
        tickets: Iterator[Ticket] = self.queue.irange_key(after + 1)
        return tickets

    def position(self, ticket: Ticket) -> int:
        """Its rank, from 1."""
        assert self.queue is not None
        return int(self.queue.bisect_key_left(ticket.number)) + 1
