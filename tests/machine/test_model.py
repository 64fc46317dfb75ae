"""The machine against the model, and against the laws, on thousands of random entries.

A failing walk prints its number; `--seed N` shifts all walks to other ones.
"""

from __future__ import annotations

import random

import pytest

from cluster.machine import limits
from cluster.machine.commands import AcquireLock, Batch, RequestId
from cluster.machine.machine import Machine
from cluster.machine.outcome import (
    Answer,
    Closed,
    Granted,
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


@pytest.mark.parametrize("number", range(20))
def test_the_machine_keeps_its_limits_as_the_model_does(
    number: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With limits so low that walks run into them, machine and model still agree."""
    monkeypatch.setattr(limits, "SESSIONS_MAX", 5)
    monkeypatch.setattr(limits, "LOCKS_MAX", 2)
    monkeypatch.setattr(limits, "OWNED_PER_SESSION_MAX", 2)
    monkeypatch.setattr(limits, "WAITERS_PER_LOCK_MAX", 2)
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
        self.tokens: dict[int, Outcome] = {}
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
            outcome = answer.outcome
            if not isinstance(outcome, (Granted, Opened)):
                continue
            if outcome.token not in self.tokens:
                assert outcome.token > before
                assert outcome.token >= machine.index
            assert self.tokens.setdefault(outcome.token, outcome) == outcome
            self.newest_token = max(self.newest_token, outcome.token)
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
                assert info.holders, "somebody waits for a lock that nobody holds"
                assert not (info.waiters[0][1] and info.holders[0][2]), "a sharer waits needlessly"
            line = [(session, priority) for session, _, priority, _, _ in info.waiters]
            assert [p for _, p in line] == sorted(p for _, p in line)
            # Those who stood in line before and still do, stand in the same order.
            stayed = [place for place in self.lines[name] if place in line]
            if not _may_queue_again(batch):
                assert stayed == [place for place in line if place in stayed]
            self.lines[name] = line


def _renewed(outcome: Outcome) -> list[str]:
    if isinstance(outcome, (Opened, Renewed)):
        return [outcome.session]
    return [id for id, _ in outcome.alive] if isinstance(outcome, RenewedMany) else []


def _may_queue_again(batch: Batch) -> bool:
    """Whether somebody may leave a line and join it again within the entry."""
    return any(
        isinstance(request.command, AcquireLock)
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
        "KeyReused",
        "LockHeld",
        "NotHolder",
        "Opened",
        "Queued",
        "Released",
        "Renewed",
        "RenewedMany",
        "SessionExpired",
        "SessionNotFound",
        "StaleToken",
        "Undecodable",
        "Void",
        "Withdrawn",
    }
