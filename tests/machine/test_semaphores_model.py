"""Semaphores against the model, and against their laws, on thousands of random entries.

A failing walk prints its number; `--seed N` shifts all walks to other ones.
"""

from __future__ import annotations

import random

import pytest

from cluster.machine.commands import Command
from cluster.machine.commands.semaphores import (
    AcquireSemaphore,
    DeleteSemaphore,
    ReleaseSemaphore,
    SetSemaphore,
)
from cluster.machine.events import Event
from cluster.machine.machine import Machine
from cluster.machine.outcome import Outcome, Queued
from cluster.machine.outcome.semaphores import UnitsGranted
from cluster.wire import cbor, snapshot
from tests.machine.naive import Stroll, batch_of, records_of, step
from tests.machine.semaphore_model import SemaphoreModel

WALKS = range(60)
ENTRIES = 150
NAMES = ("door", "gate")


class SemaphoreStroll(Stroll):
    """Few semaphores with small limits, so that they are full most of the time."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self.grants: list[UnitsGranted] = []

    def command(self) -> Command:
        rng, name = self.rng, self.rng.choice(NAMES)
        dice = rng.random()
        if dice < 0.1:
            return SetSemaphore(name, rng.choice((0, 1, 2, 3, 3, 5, 8)))
        if dice < 0.11:
            return DeleteSemaphore(name)
        if dice < 0.45 and self.grants:
            grant = rng.choice(self.grants)
            session = grant.session if rng.random() < 0.9 else self.session()
            token = grant.token if rng.random() < 0.9 else rng.randrange(grant.token + 3)
            units = rng.choice((None, None, 1, 2, 9))
            return ReleaseSemaphore(session, grant.name, token, units)
        return AcquireSemaphore(
            self.session(),
            name,
            units=rng.choice((1, 1, 1, 2, 3, 4)),
            priority=rng.choice((0, 0, 0, -5, 7)),
            wait_ms=self.wait_ms(),
        )

    def learn(self, outcome: Outcome) -> None:
        if isinstance(outcome, UnitsGranted):
            self.grants = [*self.grants[-8:], outcome]


def stroll(seed: int, number: int) -> SemaphoreStroll:
    """One walk."""
    return SemaphoreStroll(random.Random(seed * 10_000 + number))


@pytest.mark.parametrize("number", WALKS)
def test_semaphores_answer_as_the_model_does(number: int, seed: int) -> None:
    """Every answer, picture and deadline is the one the plain model gives."""
    walk, machine, model = stroll(seed, number), Machine(), SemaphoreModel()
    for _ in range(ENTRIES):
        now_ms, commands = walk.entry(machine.next_deadline_ms())
        told = step(machine, now_ms, commands)
        assert told == model.apply(machine.index, now_ms, commands)
        walk.read(told)
        assert machine.next_deadline_ms() == model.next_deadline_ms()
        assert records_of(machine) == model.records()
        for name in NAMES:
            assert machine.semaphores.info(name, machine.now_ms) == model.info(name)
        counts = machine.counts()
        assert (counts.semaphores, counts.semaphore_grants) == (
            len(model.limits),
            len(model.grants),
        )
        assert counts.semaphore_waiters == sum(len(model.line(name)) for name in NAMES)


@pytest.mark.parametrize("number", WALKS)
def test_semaphores_from_a_snapshot_go_on_as_the_ones_it_was_taken_of(
    number: int, seed: int
) -> None:
    """Two machines fed the same log give equal answers, digests and dumps, loaded or not."""
    walk, steady, moved = stroll(seed, number), Machine(), Machine()
    moves = set(walk.rng.sample(range(ENTRIES), 5))
    for index in range(1, ENTRIES + 1):
        now_ms, commands = walk.entry(steady.next_deadline_ms())
        told = step(steady, now_ms, commands)
        assert step(moved, now_ms, commands) == told
        assert moved.digest == steady.digest
        walk.read(told)
        if index in moves:
            before = list(map(cbor.encode, moved.dump()))
            moved = Machine.load(snapshot.decode(snapshot.encode(moved.dump())))
            assert list(map(cbor.encode, moved.dump())) == before
    assert moved.full_digest(cbor.encode) == steady.full_digest(cbor.encode)


@pytest.mark.parametrize("number", WALKS)
def test_no_grant_ever_goes_over_the_limit(number: int, seed: int) -> None:
    """Told by the events alone: capacity, conservation, one end for each grant, rising tokens."""
    walk, machine, book = stroll(seed, number), Machine(), Book()
    for _ in range(ENTRIES):
        now_ms, commands = walk.entry(machine.next_deadline_ms())
        walk.read(step(machine, now_ms, commands))
        for event in machine.core.events:
            book.hear(event)
        for name in NAMES:
            info = machine.semaphores.info(name, machine.now_ms)
            held = {} if info is None else {token: units for _, token, units, _ in info.holders}
            assert held == book.held.get(name, {})
            assert info is None or sum(held.values()) == info.held
            if info is not None and info.waiters:
                units = info.waiters[0][1]
                assert info.held + units > info.limit, "the head waits for nothing"
                assert info.limit == 0 or units <= info.limit, "the head waits in vain"
                assert [w[2] for w in info.waiters] == sorted(w[2] for w in info.waiters)


class Book:
    """What the events say is held, and the limit of each."""

    def __init__(self) -> None:
        self.limits: dict[str, int] = {}
        self.held: dict[str, dict[int, int]] = {}
        self.newest = 0

    def hear(self, event: Event) -> None:
        """Take one event in."""
        if event.kind != "semaphore":
            return
        more, name = dict(event.more), event.name
        if event.what in {"made", "resized"}:
            self.limits[name] = more["limit"]
        elif event.what == "deleted":
            assert not self.held.pop(name, {})
        elif event.what == "granted":
            assert event.token > self.newest
            self.newest = event.token
            held = self.held.setdefault(name, {})
            held[event.token] = more["units"]
            assert sum(held.values()) <= self.limits[name]
        else:
            assert event.what in {"released", "lost"}
            held = self.held[name]
            left = more.get("left", 0)
            assert held.pop(event.token) == more["units"] + left
            if left:
                held[event.token] = left


def test_a_grant_over_the_limit_would_be_seen() -> None:
    """The book is no ornament: it complains of one unit too many, and of one given back twice."""
    made = Event("made", "semaphore", "door", more=(("limit", 1),))
    one = Event("granted", "semaphore", "door", "1-s", 1, (("units", 1),))
    book = Book()
    book.hear(made)
    book.hear(one)
    with pytest.raises(AssertionError):
        book.hear(one._replace(token=2))
    book = Book()
    for event in (made, one, one._replace(what="released")):
        book.hear(event)
    with pytest.raises(KeyError):
        book.hear(one._replace(what="lost"))


def test_a_walk_meets_what_it_should_meet() -> None:
    """The walks are not idle: every kind of answer about semaphores occurs in them."""
    met: set[str] = set()
    for number in WALKS:
        walk, machine = stroll(0, number), Machine()
        for _ in range(ENTRIES):
            now_ms, commands = walk.entry(machine.next_deadline_ms())
            told = step(machine, now_ms, commands)
            walk.read(told)
            met.update(type(outcome).__name__ for _, outcome in told)
    assert met >= {
        Queued.__name__,
        "NotHolder",
        "SemaphoreDeleted",
        "SemaphoreFull",
        "SemaphoreInUse",
        "SemaphoreNotFound",
        "SemaphoreSet",
        "SemaphoreTooSmall",
        "SessionExpired",
        "StaleToken",
        "UnitsGranted",
        "UnitsReleased",
        "Withdrawn",
    }


@pytest.mark.parametrize("number", range(20))
def test_a_check_foretells_the_refusal(number: int, seed: int) -> None:
    """What a command would be refused with is what it is refused with, and looking does nothing."""
    walk, machine = stroll(seed, number), Machine()
    for _ in range(ENTRIES):
        now_ms, commands = walk.entry(machine.next_deadline_ms())
        walk.read(step(machine, now_ms, []))
        for seq, command in commands:
            foretold = None
            check = machine.semaphores.checks.get(type(command))
            if check is not None:
                before = list(map(cbor.encode, machine.dump()))
                foretold = check.refusal(command)
                assert list(map(cbor.encode, machine.dump())) == before
            (answer,) = [
                a.outcome
                for a in machine.apply(machine.index + 1, batch_of(now_ms, [(seq, command)]))
                if a.request.seq == seq
            ]
            walk.read([(seq, answer)])
            if foretold is not None:
                assert answer == foretold or isinstance(answer, Queued)
            elif check is not None:
                assert type(answer).__name__ in {
                    "SemaphoreSet",
                    "SemaphoreDeleted",
                    "UnitsGranted",
                    "UnitsReleased",
                }
