"""How fifos stand in a snapshot.

RULE: records to values and back, and the laws between them; what a fifo does is in `fifos.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from cluster.machine import limits
from cluster.machine.deadlines import DISARMED, FIFO_ACCEPT, FIFO_DONE, FIFO_UNUSED
from cluster.machine.fifos.holds import Holds
from cluster.machine.fifos.turns import Clock, Fifo, FifoPlace, Ticket
from cluster.machine.outcome.fifos import ACCEPTED, NOTIFIED, WAITING
from cluster.machine.primitive import Record, Weighed
from cluster.machine.restoring import Restoring, must

if TYPE_CHECKING:
    from cluster.machine.core import Core

# The very constants: states are compared all the time, and told in answers.
_STATES: Final = {state: state for state in (WAITING, NOTIFIED, ACCEPTED)}


class FifoRecord(Record):
    """One fifo; `deadline_ms` as in `turns.Fifo`, the three after it as in `Holds`."""

    name: str
    number: int
    wait_timeout_ms: int
    accept_timeout_ms: int
    done_timeout_ms: int
    unused_destroy_ms: int
    allow_overrides: bool
    deadline_ms: int
    holds: int
    scaled: int
    recent: list[int]
    drops_tickets: bool


class TicketRecord(Record):
    """One ticket; `deadline_ms` is that of its clock, `arrival` that of its place, or 0."""

    name: str
    ticket: str
    number: int
    taken_ms: int
    wait_timeout_ms: int
    accept_timeout_ms: int
    done_timeout_ms: int
    state: str
    since_ms: int
    token: int
    deadline_ms: int
    heard: int
    arrival: int


def dump_fifos(fifos: Iterable[Fifo]) -> Weighed:
    """Give the records of all fifos, in order of name."""
    for fifo in fifos:
        holds = fifo.holds
        yield (
            2,
            [
                fifo.name,
                fifo.number,
                *fifo.settings,
                fifo.deadline_ms,
                holds.count,
                holds.scaled,
                list(holds.recent),
                fifo.drops_tickets,
            ],
        )


def load_fifos(core: Core, records: Iterable[FifoRecord], restoring: Restoring) -> Iterator[Fifo]:
    """Make fifos of their records.

    Raises:
        ValueError: they make no sense.
    """
    last = ""
    numbers: dict[int, None] = {}
    for record in records:
        must(last < record.name, "fifos are not in order of name")
        last = record.name
        restoring.token(record.number)
        must(record.number not in numbers, "two fifos have one number")
        numbers[record.number] = None
        settings = (
            record.wait_timeout_ms,
            record.accept_timeout_ms,
            record.done_timeout_ms,
            record.unused_destroy_ms,
            record.allow_overrides,
        )
        must(min(settings) >= 0, "a timeout of a fifo is below zero")
        kept = min(record.holds, limits.HOLDS_KEPT_MAX)
        must(
            record.holds >= 0
            and len(record.recent) == kept
            and min(record.recent, default=0) >= 0
            and record.scaled >= 0,
            "hold times of a fifo make no sense",
        )
        fifo = Fifo(record.name, record.number, settings, drops_tickets=record.drops_tickets)
        fifo.holds = Holds(record.holds, record.scaled, tuple(record.recent))
        fifo.deadline_ms = record.deadline_ms
        if record.unused_destroy_ms:
            # Whether one may be without a deadline its tickets tell.
            must(
                record.deadline_ms >= 0 or record.deadline_ms == DISARMED, "a fifo was due before 0"
            )
            if record.deadline_ms != DISARMED:
                core.deadlines.arm(FIFO_UNUSED, fifo.number, fifo)
        else:
            must(record.deadline_ms == DISARMED, "a fifo has a deadline and no timeout")
        yield fifo


def dump_tickets(fifos: Iterable[Fifo]) -> Weighed:
    """Give the records of all tickets, in order of fifo and queue."""
    for fifo in fifos:
        for ticket in fifo.tickets():
            clock, place = ticket.clock, ticket.place
            yield (
                1,
                [
                    fifo.name,
                    ticket.id,
                    ticket.number,
                    ticket.taken_ms,
                    ticket.wait_timeout_ms,
                    ticket.accept_timeout_ms,
                    ticket.done_timeout_ms,
                    ticket.state,
                    ticket.since_ms,
                    ticket.token,
                    DISARMED if clock is None else clock.deadline_ms,
                    ticket.heard,
                    0 if place is None else place.arrival,
                ],
            )


def load_tickets(
    core: Core, fifos: Mapping[str, Fifo], records: Iterable[TicketRecord], restoring: Restoring
) -> Iterator[Ticket]:
    """Make tickets of their records, in the queues of their fifos.

    Raises:
        ValueError, KeyError: they make no sense.
    """
    name, last = "", 0
    tokens: dict[int, None] = {}
    lines: dict[str, list[Ticket]] = {}
    for record in records:
        must(name <= record.name, "tickets are not in order of their fifos")
        is_head = name != record.name
        last = 0 if is_head else last
        must(last < record.number, "tickets of a fifo are not in order")
        restoring.token(record.number)
        name, last = record.name, record.number
        timeouts_ms = (
            record.wait_timeout_ms,
            record.accept_timeout_ms,
            record.done_timeout_ms,
        )
        must(min(timeouts_ms) >= 0, "a timeout of a ticket is below zero")
        must(0 <= record.taken_ms <= record.since_ms, "a ticket's state is older than it")
        fifo = fifos[record.name]
        ticket = Ticket(fifo, record.ticket, record.number, record.taken_ms, timeouts_ms)
        must(record.state in _STATES, "a ticket is in no state")
        ticket.state = _STATES[record.state]
        ticket.since_ms, ticket.token, ticket.heard = (
            record.since_ms,
            record.token,
            record.heard,
        )
        must((ticket.state != WAITING) == is_head, "the oldest ticket alone has its turn")
        must((ticket.heard > 0) == (ticket.state == ACCEPTED), "an acceptance nobody heard of")
        must(ticket.heard >= 0, "less than nobody heard of an acceptance")
        if is_head:
            must(record.arrival == 0, "somebody waits for a turn that has come")
            must(record.number < record.token, "a turn came before its ticket")
            restoring.token(record.token)
            must(record.token not in tokens, "two turns have one token")
            tokens[record.token] = None
            _load_clock(core, ticket, record.deadline_ms)
        else:
            must((record.token, record.deadline_ms) == (0, DISARMED), "a turn before its time")
        lines.setdefault(name, []).append(ticket)
        if record.arrival:
            place = FifoPlace(ticket, record.arrival)
            fifo.stand(place)
            restoring.stand(place)
        yield ticket
    for name, line in lines.items():
        fifos[name].fill(line)


def _load_clock(core: Core, ticket: Ticket, deadline_ms: int) -> None:
    is_accepted = ticket.state == ACCEPTED
    timeout_ms = ticket.done_timeout_ms if is_accepted else ticket.accept_timeout_ms
    must(
        deadline_ms == (ticket.since_ms + timeout_ms if timeout_ms else DISARMED),
        "a turn does not end when it should",
    )
    if timeout_ms:
        kind = FIFO_DONE if is_accepted else FIFO_ACCEPT
        ticket.clock = Clock(deadline_ms, ticket)
        core.deadlines.arm(kind, ticket.token, ticket.clock)
