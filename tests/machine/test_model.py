"""The machine against the model, and against the laws, on thousands of random entries.

A failing walk prints its number; `--seed N` shifts all walks to other ones.
"""

from __future__ import annotations

import random

import pytest

from cluster.machine import limits
from cluster.machine.commands import AcquireLock, AcquireLocks, Batch, RequestId
from cluster.machine.machine import Machine
from cluster.machine.outcome import (
    Answer,
    Closed,
    Granted,
    GrantedMany,
    Opened,
    Outcome,
    Queued,
    Renewed,
    RenewedMany,
    Void,
)
from cluster.wire import cbor, snapshot
from tests.machine.model import Model
from tests.machine.walk import LOCKS, Walk

WALKS = range(100)
ENTRIES = 100


def reloaded(machine: Machine) -> Machine:
    """The same machine after a snapshot on disk."""
    return Machine.load(snapshot.decode(snapshot.encode(machine.dump())))


def generator(seed: int, number: int) -> random.Random:
    """The generator of one walk."""
    return random.Random(seed * 10_000 + number)


@pytest.mark.parametrize("number", WALKS)
def test_the_machine_answers_as_the_model_does(number: int, seed: int) -> None:
    """Every answer of every entry is the one the plain model gives, in the same order."""
    walk, machine, model = Walk(generator(seed, number)), Machine(), Model()
    index = 0
    for _ in range(ENTRIES):
        index += walk.rng.choice((1, 1, 1, 7))
        batch = walk.batch(machine.next_deadline_ms())
        answers = machine.apply(index, batch)
        assert answers == model.apply(index, batch)
        walk.read(answers)
        deadlines = [s.ends_ms for s in model.sessions] + [w.until_ms for w in model.waits]
        assert machine.next_deadline_ms() == min(deadlines, default=None)


@pytest.mark.parametrize("number", range(60))
def test_the_machine_answers_as_the_model_does_where_many_locks_are_asked_for_at_once(
    number: int, seed: int
) -> None:
    """Few sessions that ask for several locks and for one of them, in every order."""
    walk, machine, model = Walk(generator(seed, 2000 + number), several=0.6), Machine(), Model()
    for index in range(1, 2 * ENTRIES + 1):
        batch = walk.batch(machine.next_deadline_ms())
        answers = machine.apply(index, batch)
        assert answers == model.apply(index, batch)
        walk.read(answers)
        if index % 20 == 0:
            machine = reloaded(machine)


@pytest.mark.parametrize("number", range(20))
def test_the_machine_keeps_its_limits_as_the_model_does(
    number: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With limits so low that walks run into them, machine and model still agree."""
    monkeypatch.setattr(limits, "SESSIONS_MAX", 5)
    monkeypatch.setattr(limits, "LOCKS_MAX", 2)
    monkeypatch.setattr(limits, "OWNED_PER_SESSION_MAX", 2)
    monkeypatch.setattr(limits, "WAITERS_PER_LOCK_MAX", 2)
    monkeypatch.setattr(limits, "MULTI_WAITS_PER_SESSION_MAX", 1)
    monkeypatch.setattr(limits, "PARKED_MAX", 3)
    monkeypatch.setattr(limits, "IDEMPOTENCY_KEYS_MAX", 4)
    monkeypatch.setattr(limits, "IDEMPOTENCY_KEY_MS", 60)
    monkeypatch.setattr(limits, "RECORDS_PER_ROW_MAX", 3)
    walk, machine, model = Walk(generator(seed, 1000 + number)), Machine(), Model()
    for index in range(1, ENTRIES + 1):
        batch = walk.batch(machine.next_deadline_ms())
        answers = machine.apply(index, batch)
        assert answers == model.apply(index, batch)
        walk.read(answers)
        machine = reloaded(machine)


@pytest.mark.parametrize("number", WALKS)
def test_a_machine_from_a_snapshot_goes_on_as_the_one_it_was_taken_of(
    number: int, seed: int
) -> None:
    """Two machines fed the same log give equal answers, digests and dumps, loaded or not."""
    walk, steady, moved = Walk(generator(seed, number)), Machine(), Machine()
    moves = set(walk.rng.sample(range(ENTRIES), 5))
    for index in range(1, ENTRIES + 1):
        batch = walk.batch(steady.next_deadline_ms())
        answers = steady.apply(index, batch)
        assert moved.apply(index, batch) == answers
        assert moved.digest == steady.digest
        walk.read(answers)
        if index in moves:
            before = list(moved.dump())
            moved = reloaded(moved)
            assert list(map(cbor.encode, moved.dump())) == list(map(cbor.encode, before))
    assert moved.full_digest(cbor.encode) == steady.full_digest(cbor.encode)


@pytest.mark.parametrize("number", WALKS)
def test_the_laws_hold_on_every_walk(number: int, seed: int) -> None:
    """Exclusion, rising tokens, the TTL contract, sessions that take all along, exactly once."""
    walk, machine, laws = Walk(generator(seed, number)), Machine(), Laws()
    for index in range(1, ENTRIES + 1):
        batch = walk.batch(machine.next_deadline_ms())
        answers = machine.apply(index, batch)
        laws.look(machine, batch, answers)
        walk.read(answers)


class Laws:
    """What must be true whatever was asked, told from answers and pictures alone."""

    def __init__(self) -> None:
        self.newest_token = 0
        self.tokens: dict[int, tuple[str, str]] = {}
        self.ends_ms: dict[str, int] = {}
        self.final: dict[RequestId, Outcome] = {}
        self.lines: dict[str, list[tuple[str, int]]] = {name: [] for name in LOCKS}

    def look(self, machine: Machine, batch: Batch, answers: list[Answer]) -> None:
        """Check one entry, after it was applied."""
        self.leases(machine, batch, answers)
        self.fencing(machine, answers)
        self.locks(machine, batch)
        self.exactly_once(machine, answers)

    def exactly_once(self, machine: Machine, answers: list[Answer]) -> None:
        """One request, one final answer, which is remembered until it is acknowledged."""
        for answer in answers:
            if isinstance(answer.outcome, (Queued, Void)):
                continue
            assert self.final.setdefault(answer.request, answer.outcome) == answer.outcome
            assert machine.answer(answer.request) in {None, answer.outcome}

    def fencing(self, machine: Machine, answers: list[Answer]) -> None:
        """A token is given once, and every one is larger than all before."""
        before = self.newest_token
        for answer in answers:
            for token, whose in _given(answer.outcome):
                if token not in self.tokens:
                    assert token > before
                    assert token >= machine.index
                assert self.tokens.setdefault(token, whose) == whose
                self.newest_token = max(self.newest_token, token)
        assert self.newest_token <= machine.tokens.last

    def leases(self, machine: Machine, batch: Batch, answers: list[Answer]) -> None:
        """No session ends before its TTL unless it is closed, and all that are due end."""
        now_ms = machine.now_ms
        fresh = [a.outcome for a in answers if a.request not in self.final]
        closed = {outcome.session for outcome in fresh if isinstance(outcome, Closed)}
        renewed = {id for outcome in fresh for id in _renewed(outcome)}
        living = {info.session: info for info in machine.sessions.list(now_ms, limit=10**6)}
        for id, ends_ms in self.ends_ms.items():
            if ends_ms <= now_ms:
                assert id not in living, f"{id} should have ended at {ends_ms}, it is {now_ms}"
            elif id not in closed:
                assert id in living, f"{id} ended at {now_ms}, before {ends_ms}"
        for id, info in living.items():
            ends_ms = now_ms + info.expires_in_ms
            is_renewed = ends_ms == now_ms + info.ttl_ms
            assert is_renewed or self.ends_ms[id] == ends_ms
            assert not is_renewed or id in renewed or self.ends_ms.get(id, ends_ms) == ends_ms
            self.ends_ms[id] = ends_ms
        self.ends_ms = {id: self.ends_ms[id] for id in living}

    def locks(self, machine: Machine, batch: Batch) -> None:
        """One holder or sharers, each alive; nobody overtakes; nobody waits for nothing."""
        now_ms = machine.now_ms
        for name in LOCKS:
            info = machine.locks.info(name, now_ms)
            assert len(info.holders) <= 1 or all(shared for _, _, shared, _ in info.holders)
            tokens = [token for _, token, _, _ in info.holders]
            assert tokens == sorted(set(tokens))
            for session, token, _, _ in info.holders:
                owner = machine.sessions.info(session, now_ms)
                assert owner is not None, "a lock outlived the session that held it"
                assert ("lock", name, "", token) in owner.holds
            for position, (session, *_) in enumerate(info.waiters, 1):
                owner = machine.sessions.info(session, now_ms)
                assert owner is not None, "a waiter outlived its session"
                assert ("lock", name, position) in owner.waits
            if info.waiters:
                session, shared, _, _, _ = info.waiters[0]
                is_open = not info.holders or (shared and info.holders[0][2])
                assert not is_open or _waits_for_others(machine, session, name), (
                    f"the first in the queue of {name} waits needlessly"
                )
            line = [(session, priority) for session, _, priority, _, _ in info.waiters]
            # One session may stand there several times, with others between.
            line = [place for place in line if line.count(place) == 1]
            assert [p for _, p in line] == sorted(p for _, p in line)
            # Those who stood in line before and still do, stand in the same order.
            stayed = [place for place in self.lines[name] if place in line]
            if not _may_queue_again(batch):
                assert stayed == [place for place in line if place in stayed]
            self.lines[name] = line


def _given(outcome: Outcome) -> list[tuple[int, tuple[str, str]]]:
    """Tokens an answer gives, and for what to whom."""
    if isinstance(outcome, Granted):
        return [(outcome.token, (outcome.name, outcome.session))]
    if isinstance(outcome, Opened):
        return [(outcome.token, ("session", outcome.session))]
    if isinstance(outcome, GrantedMany):
        return [(token, (name, outcome.session)) for name, token, _ in outcome.locks]
    return []


def _waits_for_others(machine: Machine, session: str, name: str) -> bool:
    """Whether a session in the queue of a lock stands in that of another one, too."""
    owner = machine.sessions.info(session, machine.now_ms)
    assert owner is not None
    return any(kind == "lock" and other != name for kind, other, _ in owner.waits)


def _renewed(outcome: Outcome) -> list[str]:
    if isinstance(outcome, (Opened, Renewed)):
        return [outcome.session]
    return [id for id, _ in outcome.alive] if isinstance(outcome, RenewedMany) else []


def _may_queue_again(batch: Batch) -> bool:
    """Whether somebody may leave a line and join it again within the entry."""
    return any(
        isinstance(request.command, (AcquireLock, AcquireLocks))
        for group in batch.groups
        for request in group.requests
    )


def test_a_walk_meets_what_it_should_meet() -> None:
    """The walks are not idle: every kind of answer occurs in them."""
    met: set[str] = set()
    for number in WALKS:
        walk, machine = Walk(generator(0, number)), Machine()
        for index in range(1, ENTRIES + 1):
            batch = walk.batch(machine.next_deadline_ms())
            answers = machine.apply(index, batch)
            met.update(type(answer.outcome).__name__ for answer in answers)
            walk.read(answers)
    assert met == {
        "Abandoned",
        "Closed",
        "Granted",
        "GrantedMany",
        "KeyReused",
        "LockHeld",
        "LocksHeld",
        "NotHolder",
        "Opened",
        "Queued",
        "Released",
        "ReleasedMany",
        "Renewed",
        "RenewedMany",
        "SessionExpired",
        "SessionNotFound",
        "StaleToken",
        "Undecodable",
        "Void",
        "Withdrawn",
    }
