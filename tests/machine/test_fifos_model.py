"""Fifos against a plain model, and against their laws, on thousands of random entries.

A failing walk prints its number; `--seed N` shifts all walks to other ones.
"""

from __future__ import annotations

import random

import pytest

from cluster.machine import limits
from cluster.machine.commands import Abandon, Batch, Command, Group, Origin, Request
from cluster.machine.commands.fifos import (
    AwaitTurn,
    CreateFifo,
    DestroyFifo,
    FinishTurn,
    JoinFifo,
    LeaveFifo,
    UnhearTurn,
)
from cluster.machine.machine import Machine
from cluster.machine.outcome import Outcome, Queued
from cluster.machine.outcome.fifos import TurnAccepted
from cluster.wire import cbor, commands, snapshot
from tests.machine.fifo_model import FifoModel

WALKS = range(30)
ENTRIES = 100
NAMES = ("p", "q")
SETTINGS = ((60, 30, 50, 200, True), (0, 20, 40, 0, False), (100, 0, 0, 90, False))


class FifoWalk:
    """One random entry after the other; learns from the answers what makes sense to ask."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.now_ms = 0
        self.seq = 0
        self.tickets: list[tuple[str, str]] = []
        self.turns: list[TurnAccepted] = []
        self.parked: list[int] = []
        self.again: Command | None = None

    def entry(self, next_deadline_ms: int | None) -> list[tuple[int, Command]]:
        """What is asked next, and when."""
        rng = self.rng
        if next_deadline_ms is not None and rng.random() < 0.4:
            self.now_ms = max(self.now_ms, next_deadline_ms + rng.choice((-1, 0, 0, 1)))
        else:
            self.now_ms += rng.choice((0, 0, 1, 5, 15, 100))
        asked = []
        for _ in range(rng.choice((0, 1, 1, 2, 4))):
            self.seq += 1
            # As the log has it: every command fits through the wire.
            command = self.again if self.again and rng.random() < 0.3 else self.command()
            # Several wait on one ticket, and several of those turn out to be gone.
            self.again = command if isinstance(command, AwaitTurn | UnhearTurn) else None
            asked.append((self.seq, commands.decode(commands.encode(command))))
        return asked

    def command(self) -> Command:
        """Something to do."""
        rng = self.rng
        dice = rng.random()
        name = rng.choice(NAMES)
        if dice < 0.10:
            settings = SETTINGS[rng.choice((NAMES.index(name), 2))]
            return CreateFifo(name, *settings, drops_tickets=self.seq % 3 == 0)
        if dice < 0.11:
            return DestroyFifo(name, rng.random() < 0.5)
        if dice < 0.33 or not self.tickets:
            self.tickets = [*self.tickets, (name, f"t{self.seq}")][-8:]
            own = [rng.choice((None, None, None, 0, 25)) for _ in range(3)]
            if rng.random() < 0.7:
                own = [None, None, None]
            again = rng.random() < 0.05
            name, ticket = rng.choice(self.tickets) if again else self.tickets[-1]
            return JoinFifo(name, ticket, *own, lenient=rng.random() < 0.5)
        name, ticket = rng.choice(self.tickets)
        if rng.random() < 0.03:
            name = rng.choice(NAMES)
        if dice < 0.38 and self.parked:
            return Abandon(rng.choice(self.parked))
        if dice < 0.55 and self.turns:
            turn = rng.choice(self.turns[-2:])
            token = rng.choice((None, turn.token, turn.token, turn.token - 1))
            return FinishTurn(turn.name, turn.ticket, token)
        if dice < 0.62 and self.turns:
            turn = rng.choice(self.turns[-3:])
            return UnhearTurn(turn.name, turn.ticket, turn.token - (rng.random() < 0.1))
        if dice < 0.66:
            return LeaveFifo(name, ticket)
        if dice < 0.68:
            return FinishTurn(name, ticket)
        return AwaitTurn(name, ticket, rng.choice((0, 5, 30, 80, 1000)))

    def read(self, answers: list[tuple[int, Outcome]]) -> None:
        """Learn."""
        for seq, outcome in answers:
            if isinstance(outcome, Queued):
                self.parked.append(seq)
            elif seq in self.parked:
                self.parked.remove(seq)
            if isinstance(outcome, TurnAccepted):
                self.turns = [*self.turns, outcome][-6:]


def reloaded(machine: Machine) -> Machine:
    """The same machine after a snapshot on disk."""
    return Machine.load(snapshot.decode(snapshot.encode(machine.dump())))


def applied(
    machine: Machine, index: int, now_ms: int, asked: list[tuple[int, Command]]
) -> list[tuple[int, Outcome]]:
    """Apply an entry; answers by number."""
    requests = tuple(Request(seq, command) for seq, command in asked)
    groups = (Group(Origin("n1", 1), 0, requests),) if requests else ()
    answers = machine.apply(index, Batch(now_ms, 0, groups))
    return [(answer.request.seq, answer.outcome) for answer in answers]


def same_pictures(machine: Machine, model: FifoModel) -> None:
    """Everything a reader can see is what the model has."""
    fifos, now_ms = machine.fifos, machine.now_ms
    assert [info.name for info in fifos.list(now_ms)] == sorted(f.name for f in model.fifos)
    assert machine.counts().fifo_tickets == len(model.tickets)
    for info in fifos.list(now_ms):
        line = model.line(info.name)
        assert info.length == len(line)
        assert info.holds == model.holds(info.name)
        assert info.destroyed_in_ms == model.destroyed_in_ms(info.name)
        turns = fifos.turns(info.name, now_ms)
        assert [(t.ticket, t.number, t.state) for t in turns] == [
            (t.id, t.number, t.state) for t in line
        ]
        for turn, ticket in zip(turns, line, strict=True):
            assert (turn.eta_ms, turn.eta_samples) == model.eta(ticket)
            assert turn.position == model.position(ticket)
            assert turn.token == (ticket.token if ticket.state == "accepted" else None)
            assert turn.waiters == sum(wait.ticket is ticket for wait in model.waits)
            assert turn == fifos.turn(info.name, ticket.id, now_ms)


@pytest.mark.parametrize("number", WALKS)
def test_fifos_answer_as_the_model_does(number: int, seed: int) -> None:
    """Every answer of every entry, and every picture after it."""
    walk, machine, model = FifoWalk(random.Random(seed * 10_000 + number)), Machine(), FifoModel()
    for index in range(1, ENTRIES + 1):
        asked = walk.entry(machine.next_deadline_ms())
        answers = applied(machine, index, walk.now_ms, asked)
        assert answers == model.entry(index, walk.now_ms, asked)
        same_pictures(machine, model)
        walk.read(answers)


@pytest.mark.parametrize("number", range(10))
def test_fifos_keep_their_limits_as_the_model_does(
    number: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With limits that walks run into, and a machine that is loaded anew after every entry."""
    monkeypatch.setattr(limits, "FIFOS_MAX", 1)
    monkeypatch.setattr(limits, "TICKETS_PER_FIFO_MAX", 3)
    monkeypatch.setattr(limits, "FIFO_TICKETS_MAX", 3)
    monkeypatch.setattr(limits, "PARKED_MAX", 2)
    monkeypatch.setattr(limits, "RECORDS_PER_ROW_MAX", 3)
    walk, machine, model = FifoWalk(random.Random(seed * 10_000 + number)), Machine(), FifoModel()
    for index in range(1, ENTRIES + 1):
        asked = walk.entry(machine.next_deadline_ms())
        answers = applied(machine, index, walk.now_ms, asked)
        assert answers == model.entry(index, walk.now_ms, asked)
        walk.read(answers)
        machine = reloaded(machine)


@pytest.mark.parametrize("number", range(10))
def test_a_machine_from_a_snapshot_goes_on_as_the_one_it_was_taken_of(
    number: int, seed: int
) -> None:
    """Equal answers, digests and dumps, loaded or not."""
    walk = FifoWalk(random.Random(seed * 10_000 + 500 + number))
    steady, moved = Machine(), Machine()
    for index in range(1, ENTRIES + 1):
        asked = walk.entry(steady.next_deadline_ms())
        answers = applied(steady, index, walk.now_ms, asked)
        assert applied(moved, index, walk.now_ms, asked) == answers
        assert moved.digest == steady.digest
        walk.read(answers)
        if walk.rng.random() < 0.05:
            moved = reloaded(moved)
            assert list(map(cbor.encode, moved.dump())) == list(map(cbor.encode, steady.dump()))
    assert moved.full_digest(cbor.encode) == steady.full_digest(cbor.encode)


@pytest.mark.parametrize("number", range(10))
def test_the_laws_of_a_fifo_hold_on_every_walk(number: int, seed: int) -> None:
    """One turn at a time, the oldest's; tokens rise; nobody blocks for ever; order is kept."""
    walk, machine = FifoWalk(random.Random(seed * 10_000 + 900 + number)), Machine()
    tokens: dict[int, tuple[str, str]] = {}
    lines: dict[str, list[int]] = {}
    for index in range(1, ENTRIES + 1):
        asked = walk.entry(machine.next_deadline_ms())
        answers = applied(machine, index, walk.now_ms, asked)
        walk.read(answers)
        for _, outcome in answers:
            if isinstance(outcome, TurnAccepted):
                if outcome.token not in tokens:
                    assert outcome.token > max(tokens, default=0)
                mine = (outcome.name, outcome.ticket)
                assert tokens.setdefault(outcome.token, mine) == mine
        for info in machine.fifos.list(machine.now_ms):
            turns = machine.fifos.turns(info.name, machine.now_ms)
            assert [turn.state == "waiting" for turn in turns] == [
                place > 0 for place in range(len(turns))
            ]
            assert all(turn.waiters == 0 for turn in turns[:1]), "somebody waits for its own turn"
            line = [turn.number for turn in turns]
            assert line == sorted(line)
            stayed = [number for number in lines.get(info.name, []) if number in line]
            assert stayed == line[: len(stayed)], "somebody got in before"
            lines[info.name] = line
            if turns and info.accept_timeout_ms and info.done_timeout_ms:
                assert turns[0].ends_in_ms is not None or info.allow_overrides


def test_a_walk_meets_what_it_should_meet() -> None:
    """The walks are not idle: every kind of answer occurs in them."""
    met: set[str] = set()
    for number in range(3 * len(WALKS)):
        walk, machine = FifoWalk(random.Random(number)), Machine()
        for index in range(1, ENTRIES + 1):
            asked = walk.entry(machine.next_deadline_ms())
            answers = applied(machine, index, walk.now_ms, asked)
            met.update(type(outcome).__name__ for _, outcome in answers)
            met.update(event.what for event in machine.core.events)
            walk.read(answers)
    assert met >= {
        "FifoCreated",
        "FifoDestroyed",
        "FifoExists",
        "FifoInUse",
        "FifoJoined",
        "FifoLeft",
        "FifoNotFound",
        "NotYourTurn",
        "OverridesNotAllowed",
        "Queued",
        "StaleToken",
        "TurnAccepted",
        "TurnDropped",
        "TurnFinished",
        "TurnNotAccepted",
        "TurnNotFound",
        "TurnUnheard",
        "Withdrawn",
        "unused",
        "not_accepted",
        "not_done",
        "unheard",
    }
