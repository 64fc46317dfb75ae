"""Snapshots: the machine as rows of plain values, and back.

RULE: order is kept, nothing is left out. Equal machines give equal rows, and a machine loaded from
rows gives the same rows again: whatever a later entry does, it does to both alike. Rows hold
integers, booleans, texts, bytes, None and lists; bytes are made in `wire/snapshot.py`.

    ["machine", version, index, now_ms, last_token, arrivals, running digest]
    [kind, records] for "sessions", then the tables of each primitive, then
    "waits", "asked", "origins", "answers", "keys"
    ["end", number of records]

Loading is strict: every field is checked, and the laws that hold between records are looked at, so
that a wrong snapshot stops the node at the start instead of diverging later.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from cluster.machine import ksuids, limits
from cluster.machine.commands.base import RequestId
from cluster.machine.deadlines import SESSION_ENDS, WAIT_ENDS
from cluster.machine.outcome import MACHINE_OUTCOMES
from cluster.machine.outcome.base import Outcome, Queued, Void
from cluster.machine.parked import Parked
from cluster.machine.primitive import Record, Weighed, weight_of
from cluster.machine.requests import Answers, size_of
from cluster.machine.restoring import Restoring, must
from cluster.machine.sessions import Session, token_of

if TYPE_CHECKING:
    from cluster.machine.machine import Machine

VERSION = 2

# What can be stored: all outcomes but Queued (a wait is stored instead) and Void (never stored).
_StoredOutcome: Any = reduce(
    or_, (outcome for outcome in MACHINE_OUTCOMES if outcome not in {Queued, Void})
)


class _Head(Record):
    kind: str
    version: int
    index: int
    now_ms: int
    last_token: int
    arrivals: int
    running_digest: bytes


class _SessionRecord(Record):
    token: int
    id: str
    ttl_ms: int
    deadline_ms: int
    name: str | None
    meta: bytes | None
    sweep_ms: int


class _WaitRecord(Record):
    arrival: int
    order: int
    deadline_ms: int
    key: str | None
    fingerprint: bytes | None


class _AskedRecord(Record):
    order: int
    node: str
    boot: int
    seq: int


class _OriginRecord(Record):
    node: str
    boot: int
    ack: int


class _AnswerRecord(Record):
    node: str
    seq: int
    outcome: Any


class _KeyRecord(Record):
    key: str
    fingerprint: bytes | None
    settled_ms: int
    outcome: Any


R = TypeVar("R", bound=Record)


def dump(machine: Machine) -> Iterator[list[Any]]:
    """Give the rows of a machine, in order, at most a few hundred kB of values in each."""
    yield [
        "machine",
        VERSION,
        machine.index,
        machine.now_ms,
        machine.tokens.last,
        machine.core.arrivals,
        machine.running_digest,
    ]
    total = 0
    for kind, records in _tables(machine):
        row: list[Any] = []
        weight = 0
        for record_weight, record in records:
            row.append(record)
            weight += record_weight
            if weight >= limits.RECORDS_PER_ROW_MAX:
                total += len(row)
                yield [kind, row]
                row, weight = [], 0
        if row:
            total += len(row)
            yield [kind, row]
    yield ["end", total]


def _tables(machine: Machine) -> Iterator[tuple[str, Weighed]]:
    yield "sessions", _sessions(machine)
    for primitive in machine.primitives:
        for table in primitive.tables:
            yield table.kind, table.dump()
    yield "waits", _waits(machine)
    yield "asked", _asked(machine)
    yield "origins", _origins(machine)
    yield "answers", _answers(machine)
    yield "keys", _keys(machine)


def _sessions(machine: Machine) -> Weighed:
    for session in machine.sessions:
        weight = weight_of(0 if session.meta is None else len(session.meta))
        yield (
            weight,
            [
                session.token,
                session.id,
                session.ttl_ms,
                session.deadline_ms,
                session.name,
                session.meta,
                session.sweep_ms,
            ],
        )


def _parked(machine: Machine) -> Iterator[Parked]:
    for primitive in machine.primitives:
        for place in primitive.places():
            yield from place.parked.values()


def _waits(machine: Machine) -> Weighed:
    for parked in _parked(machine):
        yield (
            1,
            [
                parked.place.arrival,
                parked.order,
                parked.deadline_ms,
                parked.key,
                parked.fingerprint,
            ],
        )


def _asked(machine: Machine) -> Weighed:
    for parked in _parked(machine):
        for request_id in parked.requests:
            yield 1, [parked.order, *request_id]


def _origins(machine: Machine) -> Weighed:
    for node, answers in machine.requests.origins.items():
        yield 1, [node, answers.boot, answers.ack]


def _answers(machine: Machine) -> Weighed:
    for node, answers in machine.requests.origins.items():
        for seq, answer in answers.by_seq.items():
            if isinstance(answer, Parked):
                yield 1, [node, seq, None]
            else:
                yield weight_of(size_of(answer)), [node, seq, _plain(answer)]


def _keys(machine: Machine) -> Weighed:
    for key, settled in machine.requests.keys.items():
        yield (
            weight_of(settled.size),
            [key, settled.fingerprint, settled.settled_ms, _plain(settled.outcome)],
        )


def _plain(outcome: Outcome) -> Any:
    return msgspec.to_builtins(outcome, builtin_types=(bytes,))


class _Reader:
    """Reads rows one kind after the other."""

    def __init__(self, rows: Iterable[list[Any]]) -> None:
        self._rows = iter(rows)
        self._row = next(self._rows, None)
        self.total = 0

    def head(self) -> _Head:
        row = self._next()
        head: _Head = _convert(row, _Head)
        must(head.kind == "machine", f"it starts with {head.kind!r}")
        must(
            head.version == VERSION,
            f"it has version {head.version}, this node reads {VERSION}",
        )
        return head

    def records(self, kind: str, record: type[R]) -> Iterator[R]:
        while isinstance(self._row, list) and len(self._row) == 2 and self._row[0] == kind:
            _, records = self._next()
            converted = _convert(records, list[record])  # type: ignore[valid-type]
            self.total += len(converted)
            yield from converted

    def end(self) -> None:
        row = self._next()
        must(row == ["end", self.total], f"it does not end after {self.total} records")
        must(self._row is None, "rows follow its end")

    def _next(self) -> Any:
        row, self._row = self._row, next(self._rows, None)
        return row


def load(machine: Machine, rows: Iterable[list[Any]]) -> None:
    """Fill a new machine from the rows of a dump.

    Raises:
        ValueError: says what is wrong; the machine is of no use then.
    """
    reader = _Reader(rows)
    head = reader.head()
    must(len(head.running_digest) == 8, "its digest has not 8 bytes")
    must(
        min(head.index, head.now_ms, head.last_token, head.arrivals) >= 0,
        "a counter is below zero",
    )
    core = machine.core
    machine.index = core.tokens.index = head.index
    core.now_ms = head.now_ms
    core.tokens.last = head.last_token
    core.arrivals = head.arrivals
    machine.running_digest = head.running_digest
    restoring = Restoring(core)
    try:
        _load_sessions(machine, reader)
        for primitive in machine.primitives:
            for table in primitive.tables:
                table.load(reader.records(table.kind, table.record), restoring)
        restoring.finish()
        _load_requests(machine, reader, _load_waits(machine, reader, restoring))
    except KeyError as error:
        raise ValueError(
            f"no snapshot of ours: a record names {error}, which is not there"
        ) from None
    reader.end()


def _load_sessions(machine: Machine, reader: _Reader) -> None:
    last = 0
    for record in reader.records("sessions", _SessionRecord):
        must(last < record.token <= machine.tokens.last, "tokens of sessions do not rise")
        is_ours = token_of(record.id) == record.token or ksuids.bytes_of(record.id) is not None
        must(is_ours, "a session's id is not of its token")
        must(machine.sessions.get(record.id) is None, "two sessions have one id")
        must(record.sweep_ms >= 0, "a session is swept at no time")
        must(record.deadline_ms >= 0, "a session has no deadline")
        last = record.token
        session = Session(
            record.id,
            record.token,
            record.ttl_ms,
            record.deadline_ms,
            record.name,
            record.meta,
            record.sweep_ms,
        )
        machine.sessions.add(session)
        machine.deadlines.arm(SESSION_ENDS, session.token, session)


def _load_waits(machine: Machine, reader: _Reader, restoring: Restoring) -> dict[int, Parked]:
    core = machine.core
    waits: dict[int, Parked] = {}
    for record in reader.records("waits", _WaitRecord):
        must(0 < record.order <= core.arrivals, "a wait never began")
        must(record.order not in waits, "two waits have one order")
        must(record.deadline_ms >= 0, "a wait has no deadline")
        place = restoring.places[record.arrival]
        parked = Parked(record.order, record.deadline_ms, place, record.key, record.fingerprint)
        place.parked[record.order] = parked
        waits[record.order] = parked
        core.requests.hold_key(parked)
        core.deadlines.arm(WAIT_ENDS, parked.order, parked)
    core.parked = len(waits)
    must(all(place.parked for place in restoring.places.values()), "nobody waits in a place")
    return waits


def _load_requests(machine: Machine, reader: _Reader, waits: dict[int, Parked]) -> None:
    asked: dict[RequestId, Parked] = {}
    for asked_record in reader.records("asked", _AskedRecord):
        request_id = RequestId(asked_record.node, asked_record.boot, asked_record.seq)
        must(request_id not in asked, "a request waits twice")
        asked[request_id] = waits[asked_record.order]
        waits[asked_record.order].requests[request_id] = None
    must(all(parked.requests for parked in waits.values()), "nobody asked for a wait")
    origins = machine.requests.origins
    for origin in reader.records("origins", _OriginRecord):
        must(origin.node not in origins, "an origin stands there twice")
        origins[origin.node] = Answers(origin.boot, origin.ack)
    answered = 0
    for record in reader.records("answers", _AnswerRecord):
        answers = origins[record.node]
        must(record.seq not in answers.by_seq, "an answer stands there twice")
        if record.outcome is None:
            request_id = RequestId(record.node, answers.boot, record.seq)
            answers.by_seq[record.seq] = asked[request_id]
            answered += 1
        else:
            must(record.seq >= answers.ack, "an answer is settled")
            answers.by_seq[record.seq] = _outcome(record.outcome)
    must(answered == len(asked), "a waiting request is not among the answers")
    for key in reader.records("keys", _KeyRecord):
        must(machine.requests.find_key(key.key) is None, "a key stands there twice")
        machine.requests.add_key(key.key, key.fingerprint, _outcome(key.outcome), key.settled_ms)


def _outcome(plain: object) -> Outcome:
    outcome: Outcome = _convert(plain, _StoredOutcome)
    return outcome


def _convert(value: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(value, kind, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise ValueError(f"no snapshot of ours: {error}") from None
