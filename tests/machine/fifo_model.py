"""Fifos once more, written to be obviously right: flat lists, searched anew at each step.

RULE: shares no code with `cluster/machine` but commands, outcomes and limits. No heap, no index, no
clock that is armed: what is due, who is first and how long one waits is looked up among all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cluster.machine import limits
from cluster.machine.commands import Abandon, Command
from cluster.machine.commands.fifos import (
    AwaitTurn,
    CreateFifo,
    DestroyFifo,
    FinishTurn,
    JoinFifo,
    LeaveFifo,
    UnhearTurn,
)
from cluster.machine.outcome import Abandoned, Outcome, Queued, QueueFull, StaleToken, Withdrawn
from cluster.machine.outcome.fifos import (
    FifoCreated,
    FifoDestroyed,
    FifoExists,
    FifoInUse,
    FifoJoined,
    FifoLeft,
    FifoNotFound,
    HoldInfo,
    NotYourTurn,
    OverridesNotAllowed,
    TurnAccepted,
    TurnDropped,
    TurnFinished,
    TurnNotAccepted,
    TurnNotFound,
    TurnUnheard,
)


@dataclass
class ModelFifo:
    """One fifo; `used_ms`: when it was used last, or a ticket left it, or a wait on one ended."""

    name: str
    number: int
    settings: tuple[int, int, int, int, bool]
    used_ms: int
    drops: bool = False
    holds: list[int] = field(default_factory=list)


@dataclass
class ModelTicket:
    """One ticket."""

    fifo: str
    id: str
    number: int
    wait_ms: int
    accept_ms: int
    done_ms: int
    state: str = "waiting"
    since_ms: int = 0
    token: int = 0
    heard: int = 0


@dataclass
class ModelWait:
    """One request that waits."""

    seq: int
    ticket: ModelTicket
    order: int
    until_ms: int


class FifoModel:
    """Fifos and those who wait in them; one node asks."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.index = 0
        self.token = 0
        self.order = 0
        self.fifos: list[ModelFifo] = []
        self.tickets: list[ModelTicket] = []
        self.waits: list[ModelWait] = []
        self.told: list[tuple[int, Outcome]] = []

    def entry(
        self, index: int, now_ms: int, asked: list[tuple[int, Command]]
    ) -> list[tuple[int, Outcome]]:
        """Apply one entry; answers in order."""
        self.index, self.told = index, []
        self.now_ms = max(self.now_ms, now_ms)
        while due := [one for one in self.timers() if one[0] <= self.now_ms]:
            _, kind, _, what = min(due, key=lambda one: one[:3])
            if kind == 2:
                self.told.append((what.seq, self.not_yet(what.ticket)))
                self.ended(what)
            elif kind == 5:
                self.tickets = [one for one in self.tickets if one.fifo != what.name]
                self.fifos.remove(what)
            else:
                self.remove(what)
            self.promote()
        for seq, command in asked:
            outcome = self.do(seq, command)
            self.told.append((seq, outcome))
            self.promote()
        return self.told

    def timers(self) -> list[tuple[int, int, int, Any]]:
        """All that time will bring: when, what, in which order."""
        found: list[tuple[int, int, int, Any]] = [
            (wait.until_ms, 2, wait.order, wait) for wait in self.waits
        ]
        for one in self.tickets:
            if one.state == "notified" and one.accept_ms:
                found.append((one.since_ms + one.accept_ms, 3, one.token, one))
            if one.state == "accepted" and one.done_ms:
                found.append((one.since_ms + one.done_ms, 4, one.token, one))
        for fifo in self.fifos:
            left_ms = self.destroyed_in_ms(fifo.name)
            if left_ms is not None:
                found.append((fifo.used_ms + fifo.settings[3], 5, fifo.number, fifo))
        return found

    def destroyed_in_ms(self, name: str) -> int | None:
        """When a fifo goes unless it is used; None where it is kept."""
        fifo = self.fifo(name)
        assert fifo is not None
        waited_on = any(wait.ticket.fifo == name for wait in self.waits)
        is_kept = waited_on or (self.line(name) and not fifo.drops)
        if not fifo.settings[3] or is_kept:
            return None
        return max(0, fifo.used_ms + fifo.settings[3] - self.now_ms)

    # Looking.

    def fifo(self, name: str) -> ModelFifo | None:
        """The fifo of this name."""
        return next((fifo for fifo in self.fifos if fifo.name == name), None)

    def line(self, name: str) -> list[ModelTicket]:
        """Tickets of a fifo, oldest first."""
        return sorted((t for t in self.tickets if t.fifo == name), key=lambda t: t.number)

    def position(self, ticket: ModelTicket) -> int:
        """From 1."""
        return self.line(ticket.fifo).index(ticket) + 1

    def holds(self, name: str) -> HoldInfo:
        """Hold times, from all there were."""
        fifo = self.fifo(name)
        assert fifo is not None
        last = sorted(fifo.holds[-32:])
        if not last:
            return HoldInfo(0, None, None)
        return HoldInfo(len(fifo.holds), self.mean_ms(fifo), last[-(-9 * len(last) // 10) - 1])

    def mean_ms(self, fifo: ModelFifo) -> int:
        """Of all holds, the later ones weighing more."""
        scaled = 0
        for count, hold_ms in enumerate(fifo.holds, 1):
            scaled += (hold_ms * 1024 - scaled) // min(count, 8)
        return (scaled + 512) // 1024

    def eta(self, ticket: ModelTicket) -> tuple[int | None, int]:
        """When a ticket's turn may come, and from how many holds that is told."""
        fifo = self.fifo(ticket.fifo)
        assert fifo is not None
        position = self.position(ticket)
        if position == 1:
            return 0, len(fifo.holds)
        if not fifo.holds:
            return None, 0
        mean_ms, first = self.mean_ms(fifo), self.line(ticket.fifo)[0]
        rest_ms = mean_ms
        if first.state == "accepted":
            rest_ms = max(0, mean_ms - (self.now_ms - first.since_ms))
        return rest_ms + (position - 2) * mean_ms, len(fifo.holds)

    def not_yet(self, ticket: ModelTicket) -> NotYourTurn:
        """Others are ahead."""
        return NotYourTurn(ticket.fifo, ticket.id, self.position(ticket), *self.eta(ticket))

    # Changing.

    def next_token(self) -> int:
        """Above all before, and not behind the log."""
        self.token = max(self.token + 1, self.index)
        return self.token

    def notify(self, ticket: ModelTicket) -> None:
        """Its turn has come."""
        ticket.state, ticket.since_ms, ticket.heard = "notified", self.now_ms, 0
        ticket.token = self.next_token()

    def accept(self, ticket: ModelTicket, told: int) -> TurnAccepted:
        """Somebody is there."""
        ticket.state, ticket.since_ms, ticket.heard = "accepted", self.now_ms, told
        ticket.token = self.next_token()
        return TurnAccepted(ticket.fifo, ticket.id, ticket.token)

    def promote(self) -> None:
        """Give every first ticket its turn that has not got it."""
        for fifo in self.fifos:
            line = self.line(fifo.name)
            if line and line[0].state == "waiting":
                waits = sorted(
                    (w for w in self.waits if w.ticket is line[0]), key=lambda w: w.order
                )
                if not waits:
                    self.notify(line[0])
                    continue
                accepted = self.accept(line[0], len(waits))
                for wait in waits:
                    self.ended(wait)
                    self.told.append((wait.seq, accepted))

    def ended(self, wait: ModelWait) -> None:
        """A wait is over, and with it a use of its fifo."""
        self.waits.remove(wait)
        fifo = self.fifo(wait.ticket.fifo)
        assert fifo is not None
        fifo.used_ms = self.now_ms

    def remove(self, ticket: ModelTicket) -> None:
        """A ticket is gone."""
        fifo = self.fifo(ticket.fifo)
        assert fifo is not None
        if ticket.state == "accepted":
            fifo.holds.append(self.now_ms - ticket.since_ms)
        fifo.used_ms = self.now_ms
        self.tickets.remove(ticket)

    def tell(self, ticket: ModelTicket, outcome: Outcome) -> None:
        """End all waits on a ticket."""
        for wait in sorted(self.waits, key=lambda w: w.order):
            if wait.ticket is ticket:
                self.waits.remove(wait)
                self.told.append((wait.seq, outcome))

    def do(self, seq: int, command: Command) -> Outcome:
        """Carry a command out."""
        match command:
            case CreateFifo():
                return self.create(command)
            case Abandon(abandoned):
                for wait in self.waits:
                    if wait.seq == abandoned:
                        self.ended(wait)
                        self.told.append((abandoned, Withdrawn()))
                        break
                return Abandoned()
            case UnhearTurn(name, id, token):
                return self.unhear(name, id, token)
        fifo = self.fifo(command.name)  # type: ignore[attr-defined]
        if fifo is None:
            return FifoNotFound(command.name)  # type: ignore[attr-defined]
        line = self.line(fifo.name)
        if isinstance(command, DestroyFifo):
            if line and not command.force:
                return FifoInUse(fifo.name, len(line))
            for ticket in line:
                self.tell(ticket, FifoNotFound(fifo.name))
                self.tickets.remove(ticket)
            self.fifos.remove(fifo)
            return FifoDestroyed(fifo.name, len(line))
        if isinstance(command, JoinFifo):
            return self.join(fifo, command)
        assert isinstance(command, AwaitTurn | FinishTurn | LeaveFifo)
        found = next((ticket for ticket in line if ticket.id == command.ticket), None)
        if found is None:
            return TurnNotFound(fifo.name, command.ticket)
        if isinstance(command, AwaitTurn):
            return self.wait(seq, fifo, found, command.wait_ms)
        if isinstance(command, LeaveFifo):
            self.remove(found)
            self.tell(found, TurnDropped(fifo.name, found.id))
            return FifoLeft(fifo.name, found.id)
        if found.state != "accepted":
            return TurnNotAccepted(fifo.name, found.id, found.state, self.position(found))
        if command.token not in (None, found.token):
            assert command.token is not None
            return StaleToken(fifo.name, command.token, found.token, "fifo")
        self.remove(found)
        return TurnFinished(fifo.name, found.id)

    def create(self, command: CreateFifo) -> Outcome:
        """Make a fifo, or find it."""
        _, *settings, drops = (getattr(command, name) for name in command.__struct_fields__)
        fifo = self.fifo(command.name)
        if fifo is None:
            if len(self.fifos) >= limits.FIFOS_MAX:
                return QueueFull("fifos", limits.FIFOS_MAX)
            times = tuple(settings)
            new = ModelFifo(command.name, self.next_token(), times, self.now_ms, drops)
            self.fifos.append(new)
            return FifoCreated(command.name, *settings, is_new=True)
        if fifo.settings != tuple(settings):
            return FifoExists(command.name, *fifo.settings)
        fifo.used_ms = self.now_ms
        return FifoCreated(command.name, *settings, is_new=False)

    def join(self, fifo: ModelFifo, command: JoinFifo) -> Outcome:
        """Take a ticket."""
        own = [command.wait_timeout_ms, command.accept_timeout_ms, command.done_timeout_ms]
        if not fifo.settings[4]:
            if not command.lenient and any(one is not None for one in own):
                return OverridesNotAllowed(fifo.name)
            own = [None, None, None]
        ticket = next((t for t in self.tickets if t.id == command.ticket), None)
        if ticket is not None and ticket.fifo != fifo.name:
            return TurnNotFound(fifo.name, command.ticket)
        if ticket is None:
            if len(self.line(fifo.name)) >= limits.TICKETS_PER_FIFO_MAX:
                return QueueFull("tickets of a fifo", limits.TICKETS_PER_FIFO_MAX)
            if len(self.tickets) >= limits.FIFO_TICKETS_MAX:
                return QueueFull("tickets of fifos", limits.FIFO_TICKETS_MAX)
            times = [b if a is None else a for a, b in zip(own, fifo.settings, strict=False)]
            ticket = ModelTicket(fifo.name, command.ticket, self.next_token(), *times)
            self.tickets.append(ticket)
            if self.position(ticket) == 1:
                self.notify(ticket)
        fifo.used_ms = self.now_ms
        return FifoJoined(
            fifo.name, ticket.id, ticket.state, self.position(ticket), *self.eta(ticket)
        )

    def wait(self, seq: int, fifo: ModelFifo, ticket: ModelTicket, wait_ms: int) -> Outcome:
        """Accept, wait, or neither."""
        fifo.used_ms = self.now_ms
        if ticket.state == "accepted":
            ticket.heard += 1
            return TurnAccepted(fifo.name, ticket.id, ticket.token)
        if ticket.state == "notified":
            return self.accept(ticket, 1)
        if ticket.wait_ms:
            wait_ms = min(wait_ms, ticket.wait_ms)
        if wait_ms == 0:
            return self.not_yet(ticket)
        if len(self.waits) >= limits.PARKED_MAX:
            return QueueFull("parked requests", limits.PARKED_MAX)
        self.order += 1
        self.waits.append(ModelWait(seq, ticket, self.order, self.now_ms + wait_ms))
        return Queued(fifo.name, self.position(ticket))

    def unhear(self, name: str, id: str, token: int) -> Outcome:
        """One who was told was gone."""
        for ticket in self.line(name):
            if (ticket.id, ticket.state, ticket.token) == (id, "accepted", token):
                ticket.heard -= 1
                if ticket.heard == 0:
                    self.notify(ticket)
                    return TurnUnheard(name, id, True)
        return TurnUnheard(name, id, False)
