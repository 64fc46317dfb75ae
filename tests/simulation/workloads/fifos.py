"""Fifos: turns in order, clients that forget them, hang up, share a ticket, or die with a turn.

RULE: the book follows what watchers are told, with lists of its own; every move must be lawful,
and the machine must hold what the book holds. Who was told of a turn keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass

from cluster.machine.commands import RequestId
from cluster.machine.commands.fifos import (
    AwaitTurn,
    CreateFifo,
    DestroyFifo,
    FinishTurn,
    JoinFifo,
    LeaveFifo,
)
from cluster.machine.events import Event
from cluster.machine.machine import Machine
from cluster.machine.outcome import Outcome
from cluster.machine.outcome.fifos import (
    FifoCreated,
    FifoJoined,
    FifoNotFound,
    TurnAccepted,
    TurnDropped,
    TurnFinished,
    TurnNotFound,
)
from tests.simulation.clients import Client, Part, Pause, Story, Task
from tests.simulation.network import MS
from tests.simulation.workloads.base import Book, Complain, Entry, Workload

ACCEPT_MS, DONE_MS, UNUSED_MS = 400, 900, 1_500
FIFOS = {
    name: CreateFifo(name, wait_ms, ACCEPT_MS, DONE_MS, UNUSED_MS, drops_tickets=name == "gate")
    for name, wait_ms in (("stile", 1_200), ("gate", 0))
}


@dataclass(slots=True)
class Turn:
    """One ticket as the book has it."""

    ticket: str
    state: str = "waiting"
    since_ms: int = 0
    token: int = 0


class FifoBook(Book):
    """K5: turns in the order of the tickets, one at a time, each with a cause for its end."""

    def __init__(self, complain: Complain) -> None:
        super().__init__(complain)
        self._lines: dict[str, list[Turn]] = {}
        self._turns: dict[int, tuple[str, str]] = {}  # every acceptance there was, by token
        self._told: set[int] = set()
        self._taken_back: set[int] = set()

    def applied(self, entry: Entry) -> None:
        """Follow the events in order, then look whether answers and machine agree."""
        done = {
            (f.outcome.name, f.outcome.ticket)
            for f in entry.fresh
            if isinstance(f.outcome, TurnFinished)
        }
        for event in entry.events:
            if event.kind == "fifo":
                self._follow(entry, event, done)
        for fresh in entry.fresh:
            outcome = fresh.outcome
            if isinstance(outcome, TurnAccepted):
                if self._turns.get(outcome.token) != (outcome.name, outcome.ticket):
                    self.complain("turns", f"{outcome} at {entry.index}: no such turn was given")
                self.count("told")
        for name, line in self._lines.items():
            self._judge(entry, name, line)

    def acknowledged(self, request: RequestId, outcome: Outcome) -> None:
        """Somebody who lives has heard of a turn: from now on it is not taken back."""
        if isinstance(outcome, TurnAccepted):
            self._told.add(outcome.token)
            if outcome.token in self._taken_back:
                self.complain("a turn stays with who heard of it", f"{outcome} was taken back")

    def check(self, machine: Machine) -> None:
        """No fifo beside those of the book."""
        known = sorted(name for name in self._lines)
        held = [info.name for info in machine.fifos.list(machine.now_ms)]
        if known != held:
            self.complain("turns", f"fifos: machine {held}, book {known}")

    def _follow(self, entry: Entry, event: Event, done: set[tuple[str, str]]) -> None:
        name, what = event.name, event.what
        self.count(what)
        if what == "created":
            self._lines[name] = []
            return
        line = self._lines.get(name)
        if line is None:
            self.complain("turns", f"{event} at {entry.index}: there is no such fifo")
            return
        if what in ("deleted", "unused"):
            if what == "unused" and line:
                self.complain("turns", f"{name} destroyed at {entry.index} with {line} in it")
            del self._lines[name]
            return
        ticket = dict(event.more)["ticket"]
        if what == "queued":
            line.append(Turn(ticket, since_ms=entry.now_ms))
            return
        turn = next((turn for turn in line if turn.ticket == ticket), None)
        if turn is None:
            self.complain("turns", f"{event} at {entry.index}: there is no such ticket")
            return
        if what in ("notified", "accepted", "unheard"):
            self._turn(entry, event, turn, is_first=turn is line[0])
        else:
            self._end(entry, what, turn, is_asked=(name, ticket) in done)
            line.remove(turn)

    def _turn(self, entry: Entry, event: Event, turn: Turn, *, is_first: bool) -> None:
        if not is_first:
            self.complain("turns in order", f"{event} at {entry.index} before older tickets")
        if event.what == "unheard":
            self._taken_back.add(turn.token)
            if turn.token in self._told:
                self.complain("a turn stays with who heard of it", f"{event} at {entry.index}")
            return
        if event.what == "accepted":
            if turn.state == "accepted":
                self.complain("turns", f"{event} at {entry.index}: it is accepted already")
            entry.gave(event.token, (event.name, turn.ticket))
            self._turns[event.token] = (event.name, turn.ticket)
        turn.state, turn.since_ms, turn.token = event.what, entry.now_ms, event.token

    def _end(self, entry: Entry, what: str, turn: Turn, *, is_asked: bool) -> None:
        lasted_ms = entry.now_ms - turn.since_ms
        lawful = {
            "done": turn.state == "accepted" and is_asked,
            "left": True,
            "not_accepted": turn.state == "notified" and lasted_ms >= ACCEPT_MS,
            "not_done": turn.state == "accepted" and lasted_ms >= DONE_MS,
        }
        if not lawful.get(what, False):
            self.complain("no turn ends without a cause", f"{what} of {turn} at {entry.index}")

    def _judge(self, entry: Entry, name: str, line: list[Turn]) -> None:
        """The queue moves: the first has its turn, and no turn outlasts its time."""
        if line:
            first = line[0]
            most_ms = {"notified": ACCEPT_MS, "accepted": DONE_MS}.get(first.state)
            if most_ms is None or entry.now_ms - first.since_ms >= most_ms:
                self.complain("no queue stands still", f"{name} after {entry.index}: {first}")
        turns = entry.machine.fifos.turns(name, entry.now_ms, limit=1_000_000)
        said = [(turn.ticket, turn.state) for turn in turns]
        book = [(turn.ticket, turn.state) for turn in line]
        if said != book:
            self.complain("turns", f"{name} after {entry.index}: machine {said}, book {book}")


def live(client: Client) -> Story:
    """Take a ticket, wait for its turn in one way or another, have it for a while, be done."""
    rng = client.rng
    name = rng.choice(list(FIFOS))
    created = yield from client.call(FIFOS[name])
    if not isinstance(created, FifoCreated):
        return
    ticket = f"{rng.getrandbits(64):x}"
    joined = yield from client.call(JoinFifo(name, ticket))
    if not isinstance(joined, FifoJoined):
        return
    if rng.random() < 0.25:
        Task(client.world, _wait(client, name, ticket), client.lane)
    turn = yield from _wait(client, name, ticket)
    if not isinstance(turn, TurnAccepted):
        if turn is None and rng.random() < 0.5:
            yield from client.call(LeaveFifo(name, ticket))
        elif rng.random() < 0.01:
            yield from client.call(DestroyFifo(name, force=rng.random() < 0.3))
        return
    yield Pause(1 + int(rng.expovariate(1 / (80 * MS))))
    dice = rng.random()
    if dice < 0.1:
        return  # Dead with the turn: its time ends it.
    token = turn.token if dice < 0.9 else turn.token - 1
    yield from client.call(FinishTurn(name, ticket, token if dice < 0.8 else None))


def _wait(client: Client, name: str, ticket: str) -> Part:
    """Ask for the turn again and again, sometimes hanging up on the way.

    Returns:
        the acceptance; an outcome that says that there will be none; None: given up.
    """
    rng = client.rng
    for _ in range(rng.randrange(3, 25)):
        wait_ms = rng.choice((0, 100, 500, 2_000))
        patience_us = rng.randrange(1 * MS, 600 * MS) if rng.random() < 0.3 else None
        command = AwaitTurn(name, ticket, wait_ms)
        outcome = yield from client.call(command, patience_us=patience_us)
        if isinstance(outcome, TurnAccepted | TurnNotFound | TurnDropped | FifoNotFound):
            return outcome
        if client.is_stopped:
            return None
        yield Pause(rng.randrange(1 * MS, 150 * MS))
    return None


WORKLOAD = Workload("fifos", book=FifoBook, live=live)
