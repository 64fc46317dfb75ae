"""Fifos: tickets in the order they were taken, one at a time has its turn.

RULE: a function of state, cluster time and command. Reads no clock, draws no lots.

A ticket is *waiting*, *notified* once it is the oldest, *accepted* once one of its clients was there
to hear of it, and then gone: done, given up, or over its time. Whoever knows its id may use it;
many may wait on one ticket, and all of them are told of its turn under one token.

A clock runs in each state that blocks the others: a turn that nobody accepts is lost, one that is
not done is over. It is armed by the very step that brings the state, so that no queue stands still.

An acceptance is heard of by those who are answered. When a client turns out to be gone, its node
says so (`UnhearTurn`); once nobody is left who heard of it, the turn is to be accepted again.
Source: katexochen/sync (FIFO as a service), whose done timeout was often never armed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from sortedcontainers import SortedList

from cluster.machine import limits
from cluster.machine.commands.base import Command, RequestId
from cluster.machine.commands.fifos import (
    AwaitTurn,
    CreateFifo,
    DestroyFifo,
    FinishTurn,
    JoinFifo,
    LeaveFifo,
    UnhearTurn,
)
from cluster.machine.core import Core
from cluster.machine.deadlines import DISARMED, FIFO_ACCEPT, FIFO_DONE, FIFO_UNUSED
from cluster.machine.events import Event
from cluster.machine.fifos.records import (
    FifoRecord,
    TicketRecord,
    dump_fifos,
    dump_tickets,
    load_fifos,
    load_tickets,
)
from cluster.machine.fifos.turns import KIND, Clock, Fifo, FifoPlace, Ticket
from cluster.machine.names import page
from cluster.machine.outcome.base import Outcome, QueueFull, Refusal, StaleToken
from cluster.machine.outcome.fifos import (
    ACCEPTED,
    NOTIFIED,
    WAITING,
    FifoCreated,
    FifoDestroyed,
    FifoExists,
    FifoInfo,
    FifoInUse,
    FifoJoined,
    FifoLeft,
    FifoNotFound,
    NotYourTurn,
    OverridesNotAllowed,
    TurnAccepted,
    TurnDropped,
    TurnFinished,
    TurnInfo,
    TurnNotAccepted,
    TurnNotFound,
    TurnUnheard,
)
from cluster.machine.parked import Parked, Place
from cluster.machine.primitive import Blocker, Check, Handler, Table
from cluster.machine.restoring import Restoring, must
from cluster.machine.sessions import Owned, Session


class Fifos:
    """All fifos.

    Attributes:
        tickets: in all queues.
    """

    kind = KIND

    def __init__(self, core: Core) -> None:
        self._core = core
        self._by_name: dict[str, Fifo] = {}
        self._names = SortedList()
        self._tickets: dict[str, Ticket] = {}
        self.handlers: Mapping[type[Command], Handler] = {
            CreateFifo: self.create,
            DestroyFifo: self.destroy,
            JoinFifo: self.join,
            AwaitTurn: self.wait,
            FinishTurn: self.finish,
            LeaveFifo: self.give_up,
            UnhearTurn: self.unhear,
        }
        self.timers: Mapping[int, Callable[[Any], None]] = {
            FIFO_ACCEPT: self._not_accepted,
            FIFO_DONE: self._not_done,
            FIFO_UNUSED: self._unused,
        }
        self.checks: Mapping[type[Command], Check] = {
            CreateFifo: Check(_thing, self._against_creating),
            DestroyFifo: Check(_thing, self._against_destroying),
            # A ticket touches no other fifo: its id is drawn.
            JoinFifo: Check(_thing, self._against_joining),
            FinishTurn: Check(_thing, self._against_finishing),
            LeaveFifo: Check(_thing, self._against_leaving),
        }
        self.tables: tuple[Table, ...] = (
            Table("fifos", FifoRecord, lambda: dump_fifos(self), self._load_fifos),
            Table("fifo tickets", TicketRecord, lambda: dump_tickets(self), self._load_tickets),
        )

    def __len__(self) -> int:
        return len(self._by_name)

    @property
    def tickets(self) -> int:
        """How many there are in all queues."""
        return len(self._tickets)

    # Commands.

    def create(self, command: CreateFifo, _: RequestId) -> Outcome:
        """Make a fifo, or find the one that is there: that is a use of it."""
        if (refusal := self._against_creating(command)) is not None:
            return refusal
        core, name, settings = self._core, command.name, _settings(command)
        fifo = self._by_name.get(name)
        if fifo is not None:
            self._use(fifo)
            return FifoCreated(name, *settings, is_new=False)
        fifo = Fifo(name, core.tokens.next(), settings, drops_tickets=command.drops_tickets)
        self._add(fifo)
        self._use(fifo)
        core.events.append(Event("created", KIND, name))
        return FifoCreated(name, *settings, is_new=True)

    def destroy(self, command: DestroyFifo, _: RequestId) -> Outcome:
        """Take a fifo away; who waits in it is told that it is gone."""
        if (refusal := self._against_destroying(command)) is not None:
            return refusal
        fifo = self._by_name[command.name]
        tickets = len(fifo)
        self._destroy(fifo, "deleted")
        return FifoDestroyed(command.name, tickets)

    def join(self, command: JoinFifo, _: RequestId) -> Outcome:
        """Put a ticket at the end of the queue; the first one is notified at once.

        An id that is in the queue already is that ticket again, whatever else is asked.
        """
        if (refusal := self._against_joining(command)) is not None:
            return refusal
        core, fifo = self._core, self._by_name[command.name]
        self._use(fifo)
        ticket = self._tickets.get(command.ticket)
        if ticket is None:
            wait_ms, accept_ms, done_ms, _unused, allowed = fifo.settings
            own = allowed or not command.lenient
            ticket = Ticket(
                fifo,
                command.ticket,
                core.tokens.next(),
                core.now_ms,
                (
                    _override(command.wait_timeout_ms, wait_ms, own),
                    _override(command.accept_timeout_ms, accept_ms, own),
                    _override(command.done_timeout_ms, done_ms, own),
                ),
            )
            self._tickets[ticket.id] = ticket
            fifo.add(ticket)
            core.events.append(_event("queued", ticket))
            if len(fifo) == 1:
                self._notify(ticket)
        position = fifo.position(ticket)
        eta_ms, samples = self._eta(fifo, position, core.now_ms)
        return FifoJoined(fifo.name, ticket.id, ticket.state, position, eta_ms, samples)

    def wait(self, command: AwaitTurn, _: RequestId) -> Outcome | Parked:
        """Accept the ticket's turn if it has come, have the request wait for it, or refuse."""
        core, ticket = self._core, self._find(command.name, command.ticket)
        if not isinstance(ticket, Ticket):
            return ticket
        self._use(ticket.fifo)
        if ticket.state == ACCEPTED:
            ticket.heard += 1
            return TurnAccepted(command.name, ticket.id, ticket.token)
        if ticket.state == NOTIFIED:
            return self._accept(ticket, 1)
        wait_ms = command.wait_ms
        if ticket.wait_timeout_ms:
            wait_ms = min(wait_ms, ticket.wait_timeout_ms)
        if wait_ms <= 0:
            return self._not_yet(ticket)
        if core.is_full:
            return QueueFull("parked requests", limits.PARKED_MAX)
        if ticket.place is None:
            ticket.fifo.stand(FifoPlace(ticket, core.next_arrival()))
            assert ticket.place is not None
        return core.park(ticket.place, wait_ms)

    def finish(self, command: FinishTurn, _: RequestId) -> Outcome:
        """The turn is over; the next ticket's comes in this step."""
        if (refusal := self._against_finishing(command)) is not None:
            return refusal
        ticket = self._tickets[command.ticket]
        self._remove(ticket, "done")
        return TurnFinished(command.name, ticket.id)

    def give_up(self, command: LeaveFifo, _: RequestId) -> Outcome:
        """Take a ticket away, in whatever state; who waits on it is told."""
        if (refusal := self._against_leaving(command)) is not None:
            return refusal
        ticket = self._tickets[command.ticket]
        place = ticket.fifo.unstand(ticket)
        self._remove(ticket, "left")
        if place is not None:
            self._core.grant(place, TurnDropped(command.name, ticket.id))
        return FifoLeft(command.name, ticket.id)

    def unhear(self, command: UnhearTurn, _: RequestId) -> Outcome:
        """One who was told of an acceptance was gone; the last one takes it along."""
        core, ticket = self._core, self._tickets.get(command.ticket)
        if (
            ticket is None
            or ticket.fifo.name != command.name
            or (ticket.state, ticket.token) != (ACCEPTED, command.token)
        ):
            return TurnUnheard(command.name, command.ticket, is_back=False)
        ticket.heard -= 1
        if ticket.heard:
            return TurnUnheard(command.name, ticket.id, is_back=False)
        core.events.append(_event("unheard", ticket))
        self._stop(ticket)
        self._notify(ticket)
        return TurnUnheard(command.name, ticket.id, is_back=True)

    # What the machine asks of every primitive.

    def free(self, session: Session, thing: Owned, token: int) -> None:
        """Tickets belong to whoever knows them, never to a session."""
        raise AssertionError(f"{session.id} holds {thing}, which nobody can hold")

    def leave(self, place: Place) -> None:
        """Nobody waits on the ticket any more; it keeps its place in the queue."""
        assert isinstance(place, FifoPlace)
        fifo = place.ticket.fifo
        fifo.unstand(place.ticket)
        self._use(fifo)

    def settle(self, name: str) -> None:
        """Give the oldest ticket its turn: to who waits on it, or to be accepted in time."""
        fifo = self._by_name.get(name)
        if fifo is None or not fifo.queue:
            return
        ticket: Ticket = fifo.queue[0]
        if ticket.state != WAITING:
            return
        place = fifo.unstand(ticket)
        if place is None:
            self._notify(ticket)
        else:
            self._use(fifo)
            told = sum(len(parked.requests) for parked in place.parked.values())
            self._core.grant(place, self._accept(ticket, told))

    def position(self, place: Place) -> int:
        """Rank of the ticket, from 1."""
        assert isinstance(place, FifoPlace)
        return place.ticket.fifo.position(place.ticket)

    def too_late(self, place: Place) -> NotYourTurn:
        """How many are ahead of the ticket, which keeps its place."""
        assert isinstance(place, FifoPlace)
        return self._not_yet(place.ticket)

    def places(self) -> Iterator[Place]:
        """By fifo, in queue order."""
        return (
            ticket.place for fifo in self for ticket in fifo.tickets() if ticket.place is not None
        )

    def blockers(self, name: str, session: str, place: Place | None) -> Iterator[Blocker]:
        """The ticket whose turn it is, then all between it and this one. None has a session."""
        fifo = self._by_name.get(name)
        if fifo is None:
            return
        for position, ticket in enumerate(fifo.tickets(), 1):
            if ticket.place is not None and ticket.place is place:
                return
            if position == 1:
                yield Blocker(None, ticket.token, ticket.since_ms, None)
            else:
                yield Blocker(None, None, ticket.taken_ms, position)

    # Reading.

    def fifo_of(self, ticket: str) -> str | None:
        """The fifo that a ticket is in."""
        found = self._tickets.get(ticket)
        return None if found is None else found.fifo.name

    def info(self, name: str, now_ms: int) -> FifoInfo | None:
        """A picture of one fifo."""
        fifo = self._by_name.get(name)
        if fifo is None:
            return None
        destroyed_in_ms = None
        if fifo.deadline_ms != DISARMED and not fifo.is_kept:
            destroyed_in_ms = max(0, fifo.deadline_ms - now_ms)
        return FifoInfo(name, *fifo.settings, len(fifo), destroyed_in_ms, fifo.holds.info())

    def turn(self, name: str, ticket: str, now_ms: int) -> TurnInfo | None:
        """A picture of one ticket."""
        found = self._tickets.get(ticket)
        if found is None or found.fifo.name != name:
            return None
        return self._turn(found, found.fifo.position(found), now_ms)

    def turns(self, name: str, now_ms: int, *, after: int = 0, limit: int = 100) -> list[TurnInfo]:
        """Pictures of at most `limit` tickets of a fifo, in order, from behind a number."""
        fifo = self._by_name.get(name)
        if fifo is None:
            return []
        pictures: list[TurnInfo] = []
        first = 0
        for ticket in islice(fifo.tickets(after), limit):
            first = first or fifo.position(ticket)
            pictures.append(self._turn(ticket, first + len(pictures), now_ms))
        return pictures

    def list(
        self, now_ms: int, *, prefix: str = "", after: str | None = None, limit: int = 100
    ) -> list[FifoInfo]:
        """Pictures of at most `limit` fifos whose names start with `prefix`, in order of name.

        Args:
            after: name of the last one seen; it need not be there any more.
        """
        found = (self.info(name, now_ms) for name in page(self._names, prefix, after, limit))
        return [picture for picture in found if picture is not None]

    def __iter__(self) -> Iterator[Fifo]:
        """By name."""
        return (self._by_name[name] for name in self._names)

    # What stands against a command; None where nothing does.

    def _against_creating(self, command: CreateFifo) -> Refusal | None:
        fifo = self._by_name.get(command.name)
        if fifo is None:
            if len(self._by_name) + self._core.headroom > limits.FIFOS_MAX:
                return QueueFull("fifos", limits.FIFOS_MAX)
        elif fifo.settings != _settings(command):
            return FifoExists(command.name, *fifo.settings)
        return None

    def _against_destroying(self, command: DestroyFifo) -> Refusal | None:
        fifo = self._by_name.get(command.name)
        if fifo is None:
            return FifoNotFound(command.name)
        if len(fifo) and not command.force:
            return FifoInUse(command.name, len(fifo))
        return None

    def _against_joining(self, command: JoinFifo) -> Refusal | None:
        core, fifo = self._core, self._by_name.get(command.name)
        if fifo is None:
            return FifoNotFound(command.name)
        given = (command.wait_timeout_ms, command.accept_timeout_ms, command.done_timeout_ms)
        if given != (None, None, None) and not (fifo.allow_overrides or command.lenient):
            return OverridesNotAllowed(command.name)
        ticket = self._tickets.get(command.ticket)
        if ticket is not None:
            # Ids are drawn: one that stands in another fifo was made up.
            return None if ticket.fifo is fifo else TurnNotFound(command.name, command.ticket)
        if len(fifo) >= limits.TICKETS_PER_FIFO_MAX:
            return QueueFull("tickets of a fifo", limits.TICKETS_PER_FIFO_MAX)
        if len(self._tickets) + core.headroom > limits.FIFO_TICKETS_MAX:
            return QueueFull("tickets of fifos", limits.FIFO_TICKETS_MAX)
        return None

    def _against_finishing(self, command: FinishTurn) -> Refusal | None:
        ticket = self._find(command.name, command.ticket)
        if not isinstance(ticket, Ticket):
            return ticket
        if ticket.state != ACCEPTED:
            position = ticket.fifo.position(ticket)
            return TurnNotAccepted(command.name, ticket.id, ticket.state, position)
        if command.token is not None and command.token != ticket.token:
            return StaleToken(command.name, command.token, ticket.token, KIND)
        return None

    def _against_leaving(self, command: LeaveFifo) -> Refusal | None:
        ticket = self._find(command.name, command.ticket)
        return None if isinstance(ticket, Ticket) else ticket

    def _find(self, name: str, ticket: str) -> Ticket | FifoNotFound | TurnNotFound:
        found = self._tickets.get(ticket)
        if found is not None and found.fifo.name == name:
            return found
        return TurnNotFound(name, ticket) if name in self._by_name else FifoNotFound(name)

    # How it is done.

    def _load_fifos(self, records: Iterable[FifoRecord], restoring: Restoring) -> None:
        for fifo in load_fifos(self._core, records, restoring):
            self._add(fifo)

    def _load_tickets(self, records: Iterable[TicketRecord], restoring: Restoring) -> None:
        for ticket in load_tickets(self._core, self._by_name, records, restoring):
            must(ticket.id not in self._tickets, "a ticket stands there twice")
            self._tickets[ticket.id] = ticket
        for fifo in self:
            is_watched = fifo.deadline_ms != DISARMED
            must(is_watched or fifo.is_kept or not fifo.unused_destroy_ms, "a fifo has no deadline")

    def _add(self, fifo: Fifo) -> None:
        self._by_name[fifo.name] = fifo
        self._names.add(fifo.name)

    def _use(self, fifo: Fifo) -> None:
        """Its time without use begins anew, also when what kept it is gone: call it after that."""
        is_armed = fifo.deadline_ms != DISARMED
        if not fifo.unused_destroy_ms or (fifo.is_kept and not is_armed):
            return
        fifo.deadline_ms = self._core.now_ms + fifo.unused_destroy_ms
        if not is_armed:
            self._core.deadlines.arm(FIFO_UNUSED, fifo.number, fifo)

    def _notify(self, ticket: Ticket) -> None:
        """Its turn has come; somebody is to accept it in time."""
        core = self._core
        ticket.state, ticket.since_ms, ticket.heard = NOTIFIED, core.now_ms, 0
        ticket.token = core.tokens.next()
        self._start(ticket, FIFO_ACCEPT, ticket.accept_timeout_ms)
        core.events.append(_event("notified", ticket))

    def _accept(self, ticket: Ticket, told: int) -> TurnAccepted:
        """Somebody was there: the turn is the ticket's until it is done."""
        core = self._core
        self._stop(ticket)
        ticket.state, ticket.since_ms, ticket.heard = ACCEPTED, core.now_ms, told
        ticket.token = core.tokens.next()
        self._start(ticket, FIFO_DONE, ticket.done_timeout_ms)
        core.events.append(_event("accepted", ticket))
        return TurnAccepted(ticket.fifo.name, ticket.id, ticket.token)

    def _start(self, ticket: Ticket, kind: int, timeout_ms: int) -> None:
        core = self._core
        if timeout_ms:
            ticket.clock = Clock(core.now_ms + timeout_ms, ticket)
            # A token is given once, so no two clocks have the same order.
            core.deadlines.arm(kind, ticket.token, ticket.clock)

    def _stop(self, ticket: Ticket) -> None:
        if ticket.clock is not None:
            self._core.deadlines.disarm(ticket.clock)
            ticket.clock = None

    def _remove(self, ticket: Ticket, why: str) -> None:
        """Take a ticket out of its fifo; the next one gets its turn when things settle."""
        core, fifo = self._core, ticket.fifo
        assert fifo.queue is not None
        self._stop(ticket)
        if ticket.state == ACCEPTED:
            fifo.holds.add(core.now_ms - ticket.since_ms)
        fifo.queue.remove(ticket)
        del self._tickets[ticket.id]
        self._use(fifo)
        core.events.append(_event(why, ticket))
        core.unsettle(KIND, fifo.name)

    def _destroy(self, fifo: Fifo, why: str) -> None:
        core = self._core
        core.deadlines.disarm(fifo)
        del self._by_name[fifo.name]
        self._names.remove(fifo.name)
        gone = FifoNotFound(fifo.name)
        for ticket in fifo.tickets():
            self._stop(ticket)
            del self._tickets[ticket.id]
            place = fifo.unstand(ticket)
            if place is not None:
                core.grant(place, gone)
        core.events.append(Event(why, KIND, fifo.name))

    def _not_accepted(self, clock: Clock) -> None:
        clock.ticket.clock = None
        self._remove(clock.ticket, "not_accepted")

    def _not_done(self, clock: Clock) -> None:
        clock.ticket.clock = None
        self._remove(clock.ticket, "not_done")

    def _unused(self, fifo: Fifo) -> None:
        # One that is kept is looked at no more until it is not.
        if not fifo.is_kept:
            self._destroy(fifo, "unused")

    def _eta(self, fifo: Fifo, position: int, now_ms: int) -> tuple[int | None, int]:
        assert fifo.queue is not None
        head: Ticket = fifo.queue[0]
        held_ms = max(0, now_ms - head.since_ms) if head.state == ACCEPTED else 0
        return fifo.holds.eta_ms(position - 1, held_ms), fifo.holds.count

    def _not_yet(self, ticket: Ticket) -> NotYourTurn:
        fifo = ticket.fifo
        position = fifo.position(ticket)
        eta_ms, samples = self._eta(fifo, position, self._core.now_ms)
        return NotYourTurn(fifo.name, ticket.id, position, eta_ms, samples)

    def _turn(self, ticket: Ticket, position: int, now_ms: int) -> TurnInfo:
        fifo, place, clock = ticket.fifo, ticket.place, ticket.clock
        eta_ms, samples = self._eta(fifo, position, now_ms)
        return TurnInfo(
            name=fifo.name,
            ticket=ticket.id,
            number=ticket.number,
            state=ticket.state,
            position=position,
            token=ticket.token if ticket.state == ACCEPTED else None,
            eta_ms=eta_ms,
            eta_samples=samples,
            waiters=0 if place is None else sum(len(p.requests) for p in place.parked.values()),
            age_ms=max(0, now_ms - ticket.taken_ms),
            since_ms=max(0, now_ms - ticket.since_ms),
            ends_in_ms=None if clock is None else max(0, clock.deadline_ms - now_ms),
        )


def _thing(
    command: CreateFifo | DestroyFifo | JoinFifo | FinishTurn | LeaveFifo,
) -> tuple[str, ...]:
    return KIND, command.name


def _settings(command: CreateFifo) -> tuple[int, int, int, int, bool]:
    return (
        command.wait_timeout_ms,
        command.accept_timeout_ms,
        command.done_timeout_ms,
        command.unused_destroy_ms,
        command.allow_overrides,
    )


def _override(given_ms: int | None, own_ms: int, allowed: bool) -> int:
    return given_ms if given_ms is not None and allowed else own_ms


def _event(what: str, ticket: Ticket) -> Event:
    return Event(what, KIND, ticket.fifo.name, None, ticket.token, (("ticket", ticket.id),))
