"""Tickets: providers that come and go, claimants that wait in order, takeovers and revocations.

RULE: the book follows the events in their order, wants an answer or an ended session behind each,
and compares itself with the machine's tickets.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.machine.commands import RequestId
from cluster.machine.commands.tickets import ClaimTicket, IssueTicket, ReleaseTicket, RevokeTicket
from cluster.machine.events import Event
from cluster.machine.machine import Machine
from cluster.machine.outcome import Queued
from cluster.machine.outcome.tickets import TicketClaimed, TicketIssued, TicketReleased
from tests.simulation.clients import Client, Part, Pause, Session
from tests.simulation.network import MS
from tests.simulation.workloads.base import Book, Complain, Entry, Workload

RESOURCES = ("sim-lab", "sim-seats")
TICKETS = ("a", "b", "c")

Key = tuple[str, str]
"""A resource and a ticket."""


@dataclass(slots=True)
class Waiter:
    """A waiting claim; its order is not known for sure once its session has asked twice."""

    order: int
    requests: set[RequestId] = field(default_factory=set)
    is_vague: bool = False

    def is_before(self, other: Waiter) -> bool:
        """Whether it surely came before another."""
        return not self.is_vague and not other.is_vague and self.order < other.order


class TicketBook(Book):
    """One claimant, only of what was issued; its data; nobody overtakes; losses have a cause."""

    def __init__(self, complain: Complain) -> None:
        super().__init__(complain)
        self._issued: dict[Key, tuple[str | None, int]] = {}
        self._claimed: dict[Key, tuple[str | None, int]] = {}
        self._data: dict[Key, bytes | None] = {}
        self._waiting: dict[tuple[str, str, str | None], Waiter] = {}
        self._orders = 0

    def applied(self, entry: Entry) -> None:
        told = {
            f.outcome.token: f.outcome
            for f in entry.fresh
            if isinstance(f.outcome, (TicketClaimed, TicketIssued))
        }
        data: dict[Key, set[bytes | None]] = {key: {data} for key, data in self._data.items()}
        for f in entry.fresh:
            if isinstance(f.outcome, TicketIssued) and isinstance(f.command, IssueTicket):
                key = (f.outcome.name, f.outcome.ticket)
                self._data[key] = f.command.data
                data.setdefault(key, set()).add(f.command.data)
        released = {
            (f.command.name, f.command.ticket, f.command.token)
            for f in entry.fresh
            if isinstance(f.outcome, TicketReleased) and isinstance(f.command, ReleaseTicket)
        }
        for event in entry.events:
            if event.kind == "ticket":
                self._hear(entry, event, told, released)
        for f in entry.fresh:
            if isinstance(f.outcome, TicketClaimed):
                key = (f.outcome.name, f.outcome.ticket)
                if f.outcome.data not in data.get(key, set()):
                    self.complain("tickets", f"{f.outcome} at {entry.index}: no such data")
        self._queue(entry)
        for key, (session, _) in [*self._issued.items(), *self._claimed.items()]:
            if session in entry.gone:
                self.complain("a session takes all along", f"{key} is still of {session}")
        self.check(entry.machine)

    def _hear(
        self,
        entry: Entry,
        event: Event,
        told: dict[int, TicketClaimed | TicketIssued],
        released: set[tuple[str, str, int | None]],
    ) -> None:
        key: Key = (event.name, dict(event.more)["ticket"])
        whose, where = (event.session, event.token), f"{event} at {entry.index}"
        self.count(event.what)
        if event.what in {"issued", "granted"}:
            entry.gave(event.token, (event.what, key, event.session))
            answer = told.get(event.token)
            if answer is None or (answer.name, answer.ticket, answer.session) != (
                *key,
                event.session,
            ):
                self.complain("grants are told", f"{where}: {answer}")
        if event.what == "issued":
            if key in self._issued:
                self.complain("tickets", f"{where}, which is issued already")
            self._issued[key] = whose
        elif event.what == "granted":
            if key not in self._issued or key in self._claimed:
                self.complain("one claimant", f"{where}: {self._claimed.get(key)} has it")
            self._claimed[key] = whose
        elif event.what != "changed":
            if self._issued.get(key) == whose:
                del self._issued[key]
            elif self._claimed.get(key) == whose:
                del self._claimed[key]
            else:
                self.complain("tickets", f"{where}, which was not had so")
            if event.what == "released" and (*key, event.token) not in released:
                self.complain("tickets", f"{where}, which nobody asked for")

    def _queue(self, entry: Entry) -> None:
        """No ticket goes to one who came after another who waited for it all the time."""
        standing = set(self._waiting)
        # First who came: a repeat may share a wait whose first request leaves in this very entry.
        for parked in entry.queued:
            if isinstance(parked.command, ClaimTicket):
                self._enter(parked.request, parked.command)
        own = {request: waiter for waiter in self._waiting.values() for request in waiter.requests}
        for place, waiter in list(self._waiting.items()):
            # That none of them was lost is judged elsewhere.
            waiter.requests = {r for r in waiter.requests if _waits(entry.machine, r)}
            if not waiter.requests:
                del self._waiting[place]
        granted = {e.token for e in entry.events if (e.kind, e.what) == ("ticket", "granted")}
        for f in entry.fresh:
            outcome, command = f.outcome, f.command
            # Others are claims that were answered with what the session has already.
            if (
                isinstance(outcome, TicketClaimed)
                and isinstance(command, ClaimTicket)
                and outcome.token in granted
            ):
                served = own.get(f.request) or Waiter(self._orders + 1)
                for place in standing & self._waiting.keys():
                    could = place[1] == outcome.name and place[2] in {None, outcome.ticket}
                    if could and self._waiting[place].is_before(served):
                        self.complain("no barging", f"{outcome} at {entry.index} before {place}")

    def _enter(self, request: RequestId, command: ClaimTicket) -> None:
        self.count("waited")
        self._orders += 1
        place = (command.session, command.name, command.ticket)
        known = self._waiting.get(place)
        if known is None:
            known = self._waiting[place] = Waiter(self._orders)
        else:
            known.is_vague = True
        known.requests.add(request)

    def check(self, machine: Machine) -> None:
        """The machine must hold what the book holds, and keep no free ticket from a waiter."""
        issued, claimed = {}, {}
        for name in RESOURCES:
            info = machine.tickets.info(name, machine.now_ms)
            if info is None:
                continue
            for ticket in info.tickets:
                issued[name, ticket.ticket] = (ticket.issuer, ticket.token)
                if ticket.claim is not None:
                    claimed[name, ticket.ticket] = ticket.claim[:2]
                elif any(wanted in {None, ticket.ticket} for _, wanted, *_ in info.waiters):
                    self.complain("no stuck waiter", f"{ticket} is free")
        if (issued, claimed) != (self._issued, self._claimed):
            self.complain(
                "tickets",
                f"machine {issued} {claimed}, book {self._issued} {self._claimed}",
            )


def _waits(machine: Machine, request: RequestId) -> bool:
    return isinstance(machine.answer(request), Queued)


def turn(client: Client, session: Session) -> Part:
    """Provide a ticket for a while, or claim one, use it, and give it back or forget it."""
    rng = client.rng
    name, ticket = rng.choice(RESOURCES), rng.choice(TICKETS)
    dice = rng.random()
    if dice < 0.35:
        data = rng.choice((None, b"", str(rng.randrange(10**6)).encode()))
        outcome = yield from client.call(IssueTicket(session.id, name, ticket, data))
        session.note(outcome)
        yield Pause(1 + int(rng.expovariate(1 / (200 * MS))))
        if rng.random() < 0.4:
            outcome = yield from client.call(
                RevokeTicket(session.id, name, ticket, rng.random() < 0.3)
            )
            session.note(outcome)
        return
    command = ClaimTicket(
        session.id,
        name,
        wait_ms=0 if rng.random() < 0.3 else rng.randrange(50, 2_500),
        ticket=ticket if rng.random() < 0.3 else None,
        another=rng.random() < 0.2,
    )
    patience_us = rng.randrange(10 * MS, 800 * MS) if rng.random() < 0.15 else None
    outcome = yield from client.call(command, patience_us=patience_us)
    session.note(outcome)
    if not isinstance(outcome, TicketClaimed):
        return
    yield Pause(1 + int(rng.expovariate(1 / (60 * MS))))
    if rng.random() < 0.1:
        return  # Forgotten: the session's end frees it.
    token = outcome.token if rng.random() < 0.95 else outcome.token - 1
    outcome = yield from client.call(ReleaseTicket(session.id, name, outcome.ticket, token))
    session.note(outcome)


WORKLOAD = Workload("tickets", book=TicketBook, turn=turn)
