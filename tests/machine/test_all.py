"""All primitives at once, on shared sessions: what must hold whatever is asked of whom.

Replay one walk: pytest "tests/machine/test_all.py::…[number]" --seed N
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.machine import limits
from cluster.machine.commands import Batch, Several
from cluster.machine.machine import Machine
from cluster.machine.outcome import (
    Answer,
    Batched,
    BatchRefused,
    BatchUnfit,
    Queued,
    Refusal,
    Void,
    Withdrawn,
)
from cluster.wire import cbor
from tests.machine.all_walk import AllWalk

ENTRIES = 150
WALKS = 24
MEMORY = frozenset(("machine", "asked", "origins", "answers", "keys", "end"))
"""What a snapshot holds of requests; answers may tell of what is over."""

Tables = dict[str, list[Any]]


def walk_of(seed: int, number: int) -> AllWalk:
    """One walk."""
    return AllWalk(random.Random(seed * 10_000 + number))


def tables(machine: Machine) -> Tables:
    """The records of a machine by their kind."""
    found: Tables = {}
    for kind, *rest in machine.dump():
        if kind not in ("machine", "end"):
            found.setdefault(kind, []).extend(rest[0])
    return found


def state(machine: Machine) -> list[bytes]:
    """The whole state, to be compared."""
    return [cbor.encode(row) for row in machine.dump()]


def things(machine: Machine) -> dict[str, bytes]:
    """All that is no memory of requests."""
    return {
        kind: cbor.encode(records)
        for kind, records in tables(machine).items()
        if kind not in MEMORY
    }


def texts(value: Any) -> Iterator[str]:
    """Every text inside a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from texts(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from texts(item)


class Laws:
    """Looks at a machine after every entry."""

    def __init__(self) -> None:
        self.opened: set[str] = set()
        self.waiting: set[Any] = set()

    def look(self, machine: Machine, answers: list[Answer]) -> None:
        """After an entry."""
        self.of_time(machine)
        self.of_answers(answers)
        records = tables(machine)
        living = {session.id for session in machine.sessions}
        self.opened |= living
        self.of_ended_sessions(records, self.opened - living)
        self.of_sessions(machine, records, living)
        self.of_counts(machine, records)

    def of_time(self, machine: Machine) -> None:
        """Every deadline that was due was met, and what is due now is met by the next entry."""
        deadline_ms = machine.next_deadline_ms()
        assert deadline_ms is None or deadline_ms >= machine.now_ms
        if deadline_ms == machine.now_ms:
            machine = Machine.load(machine.dump())
            machine.apply(machine.index + 1, Batch(machine.now_ms, machine.core.wall_ms))
            deadline_ms = machine.next_deadline_ms()
            assert deadline_ms is None or deadline_ms > machine.now_ms

    def of_answers(self, answers: list[Answer]) -> None:
        """Who is told to wait is told once more, and only then."""
        for answer in answers:
            if isinstance(answer.outcome, Queued):
                self.waiting.add(answer.request)
            else:
                self.waiting.discard(answer.request)

    def of_ended_sessions(self, records: Tables, ended: set[str]) -> None:
        """A session that has ended has left nothing anywhere but what the next sweep takes."""
        for kind, rows in records.items():
            if kind == "tickets":
                is_orphan = -1
                rows = [row for row in rows if not row[is_orphan]]
            if kind not in MEMORY:
                left = ended.intersection(texts(rows))
                assert not left, f"{kind} still know of {left}"

    def of_sessions(self, machine: Machine, records: Tables, living: set[str]) -> None:
        """What sessions say that they hold and wait for is what primitives say."""
        held: Counter[str] = Counter()
        for session in machine.sessions:
            held.update(thing[0] for thing in session.owned)
            tokens = list(session.owned.values())
            assert all(token > session.token for token in tokens)

        def with_session(kind: str) -> int:
            return sum(bool(living.intersection(texts(row))) for row in records.get(kind, []))

        assert held["lock"] == with_session("lock grants") == len(records.get("lock grants", []))
        assert held["semaphore"] == with_session("semaphore grants")
        assert held["ticket"] == with_session("tickets") + with_session("ticket claims")
        assert held["tube"] == with_session("reservations") + with_session("kept tubes")
        assert held["task"] == with_session("pool workers") + with_session("task runs")
        assert set(held) <= {"lock", "semaphore", "ticket", "tube", "task"}

        mine = [place for s in machine.sessions for place in (s.places or {}).values()]
        theirs = [place for primitive in machine.primitives for place in primitive.places()]
        owned = [place for place in theirs if place.session is not None]
        assert sorted(map(id, mine)) == sorted(map(id, owned))
        assert machine.core.parked == sum(len(place.parked) for place in theirs)
        for place in theirs:
            assert place.parked
            assert machine.core.position(place) >= 0

    def of_counts(self, machine: Machine, records: Tables) -> None:
        """The figures are those of the snapshot."""
        counts = machine.counts()

        def number(kind: str) -> int:
            return len(records.get(kind, []))

        assert counts.sessions == number("sessions")
        assert counts.semaphores == number("semaphores")
        assert counts.semaphore_grants == number("semaphore grants")
        assert counts.tickets == number("tickets")
        assert counts.ticket_claims == number("ticket claims")
        assert counts.fifos == number("fifos")
        assert counts.fifo_tickets == number("fifo tickets")
        assert counts.rooms == number("rooms")
        assert counts.jobs == number("jobs")
        assert counts.jobs_reserved == number("reservations")
        assert counts.pools == number("pools")
        assert counts.tasks == number("tasks")
        assert counts.pool_workers == number("pool workers")
        assert counts.parked == number("waits")
        assert counts.keys == number("keys")
        assert counts.answers == number("answers")


@pytest.mark.parametrize("number", range(WALKS))
def test_the_laws_hold_whatever_is_asked(number: int, seed: int) -> None:
    """No exception, nothing left behind, nothing counted twice, nothing overdue."""
    walk, machine, laws = walk_of(seed, number), Machine(), Laws()
    for index in range(1, ENTRIES + 1):
        walk.pass_time(machine)
        answers = machine.apply(index, walk.batch(machine))
        walk.read(answers)
        laws.look(machine, answers)


@pytest.mark.parametrize("number", range(WALKS // 2))
def test_a_machine_from_a_snapshot_goes_on_as_the_other(number: int, seed: int) -> None:
    """The same answers, events and digests, and in the end the same state."""
    walk, machine = walk_of(seed, number), Machine()
    copy: Machine | None = None
    for index in range(1, ENTRIES + 1):
        walk.pass_time(machine)
        entry = walk.batch(machine)
        if copy is None or walk.rng.random() < 0.05:
            copy = Machine.load(machine.dump())
            assert state(copy) == state(machine)
        answers = machine.apply(index, entry)
        assert copy.apply(index, entry) == answers
        assert copy.digest == machine.digest
        assert list(copy.history.after(index - 1)) == list(machine.history.after(index - 1))
        assert copy.next_deadline_ms() == machine.next_deadline_ms()
        assert copy.next_wall_ms() == machine.next_wall_ms()
        assert copy.counts() == machine.counts()
        walk.read(answers)
    assert copy is not None
    assert state(copy) == state(machine)


LOW_LIMITS = {
    "SESSIONS_MAX": 6,
    "LOCKS_MAX": 3,
    "OWNED_PER_SESSION_MAX": 5,
    "WAITERS_PER_LOCK_MAX": 2,
    "MULTI_WAITS_PER_SESSION_MAX": 1,
    "SEMAPHORES_MAX": 2,
    "GRANTS_PER_SEMAPHORE_MAX": 2,
    "WAITERS_PER_SEMAPHORE_MAX": 2,
    "RESOURCES_MAX": 2,
    "TICKETS_PER_RESOURCE_MAX": 2,
    "WAITERS_PER_RESOURCE_MAX": 2,
    "FIFOS_MAX": 2,
    "TICKETS_PER_FIFO_MAX": 3,
    "FIFO_TICKETS_MAX": 5,
    "HOLDS_KEPT_MAX": 3,
    "ROOMS_MAX": 1,
    "JOBS_MAX": 8,
    "TUBES_MAX": 3,
    "WAITERS_PER_TUBE_MAX": 2,
    "RESERVED_BYTES_MAX": 3,
    "JOBS_DUE_PER_ENTRY_MAX": 1,
    "SLOTS_DUE_PER_ENTRY_MAX": 1,
    "POOLS_MAX": 2,
    "TASKS_MAX": 6,
    "TASKS_PER_POOL_MAX": 4,
    "TASKS_PER_WORKER_MAX": 2,
    "WORKERS_PER_POOL_MAX": 2,
    "PARKED_MAX": 6,
    "EVENTS_KEPT_MAX": 20,
    "IDEMPOTENCY_KEYS_MAX": 5,
    "IDEMPOTENCY_BYTES_MAX": 200,
    "IDEMPOTENCY_KEY_MS": 50,
    "KEYS_FORGOTTEN_PER_ENTRY_MAX": 1,
    "RECORDS_PER_ROW_MAX": 3,
}


@pytest.mark.parametrize("number", range(WALKS // 3))
def test_at_every_limit_the_laws_hold_and_a_loaded_machine_goes_on_alike(
    number: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is counted beside what there is, and all or nothing is just that."""
    for limit, most in LOW_LIMITS.items():
        assert hasattr(limits, limit)
        monkeypatch.setattr(limits, limit, most)
    walk, machine, laws = walk_of(seed, number), Machine(), Laws()
    copy = Machine()
    for index in range(1, ENTRIES + 1):
        walk.pass_time(machine)
        entry = walk.batch(machine)
        if walk.rng.random() < 0.1:
            copy = Machine.load(machine.dump())
        answers = machine.apply(index, entry)
        assert copy.apply(index, entry) == answers
        assert list(copy.history.after(index - 1)) == list(machine.history.after(index - 1))
        assert copy.digest == machine.digest
        asked = {r.seq: r.command for group in entry.groups for r in group.requests}
        for answer in answers:
            command, outcome = asked.get(answer.request.seq), answer.outcome
            if isinstance(command, Several) and command.atomic and isinstance(outcome, Batched):
                assert not any(isinstance(single, Refusal) for single in outcome.outcomes)
        walk.read(answers)
        laws.look(machine, answers)
    assert state(copy) == state(machine)


@pytest.mark.parametrize("number", range(WALKS))
def test_what_a_check_foretells_comes_true(number: int, seed: int) -> None:
    """Looking changes nothing; a refusal foretold is the refusal; none foretold is none."""
    walk, machine = walk_of(seed, number), Machine()
    for _ in range(ENTRIES):
        walk.pass_time(machine)
        walk.read(machine.apply(machine.index + 1, walk.of([])))
        command = walk.any_command(machine)
        check = machine.checks.get(type(command))
        foretold = None
        if check is not None:
            before = state(machine)
            foretold = check.refusal(command)
            assert isinstance(check.thing(command), tuple)
            assert state(machine) == before
        before_things = things(machine)
        request = walk.request(machine, command)
        answers = machine.apply(machine.index + 1, walk.of([request]))
        walk.read(answers)
        outcome = next(a.outcome for a in answers if a.request.seq == request.seq)
        if check is not None and not isinstance(outcome, (Void, Withdrawn)):
            if foretold is None:
                assert not isinstance(outcome, (Refusal, Queued)), (command, outcome)
            else:
                assert outcome == foretold or isinstance(outcome, Queued), (command, outcome)
        if isinstance(outcome, (BatchRefused, BatchUnfit)):
            assert things(machine) == before_things


def test_the_walks_meet_everything(seed: int) -> None:
    """Every primitive is used, refused and waited for; sessions end with their hands full."""
    met: Counter[str] = Counter()
    full = 0
    for number in range(WALKS):
        walk, machine = walk_of(seed, number), Machine()
        for index in range(1, ENTRIES + 1):
            walk.pass_time(machine)
            before = {s.id: s.things for s in machine.sessions}
            answers = machine.apply(index, walk.batch(machine))
            walk.read(answers)
            met.update(type(answer.outcome).__name__ for answer in answers)
            full += sum(
                count > 3 for id, count in before.items() if machine.sessions.get(id) is None
            )
    wanted = (
        "Granted GrantedMany UnitsGranted TicketClaimed TicketIssued TurnAccepted RoomJoined "
        "Reserved JobPut Worked Batched BatchRefused BatchUnfit Queued LockHeld"
    )
    assert not set(wanted.split()) - set(met), met
    assert full > 20
