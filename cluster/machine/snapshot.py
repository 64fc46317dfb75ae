"""Snapshots: the machine as rows of plain values, and back.

RULE: order is kept, nothing is left out. Equal machines give equal rows, and a machine loaded from
rows gives the same rows again: whatever a later entry does, it does to both alike. Rows hold
integers, booleans, texts, bytes, None and lists; bytes are made in `wire/snapshot.py`.

    ["machine", version, index, now_ms, last_token, arrivals, running digest]
    ["sessions" | "grants" | "places" | "waits" | "asked" | "origins" | "answers" | "keys", records]
    ["end", number of records]

Loading is strict: every field is checked, and the laws that hold between records are looked at, so
that a wrong snapshot stops the node at the start instead of diverging later.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from cluster.machine import limits, locks
from cluster.machine.commands import RequestId
from cluster.machine.deadlines import SESSION_ENDS, WAIT_ENDS
from cluster.machine.locks import Grant, LockPlace
from cluster.machine.outcome import (
    Abandoned,
    Closed,
    Granted,
    KeyReused,
    LockHeld,
    NotHolder,
    Opened,
    Outcome,
    QueueFull,
    Released,
    Renewed,
    RenewedMany,
    SessionExpired,
    SessionNotFound,
    StaleToken,
    Undecodable,
    Withdrawn,
)
from cluster.machine.parked import Parked
from cluster.machine.requests import Answers, Key
from cluster.machine.sessions import WAITING, Session

if TYPE_CHECKING:
    from cluster.machine.machine import Machine

VERSION = 1

# What can be stored: all outcomes but Queued (a wait is stored instead) and Void (never stored).
StoredOutcome = (
    Opened
    | Renewed
    | RenewedMany
    | Closed
    | SessionNotFound
    | SessionExpired
    | Granted
    | LockHeld
    | Released
    | StaleToken
    | NotHolder
    | QueueFull
    | Abandoned
    | Withdrawn
    | KeyReused
    | Undecodable
)

# Outcomes and texts of this many bytes or items weigh as much as a record.
_WEIGHT = 64


class _Record(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    pass


class _Head(_Record):
    kind: str
    version: int
    index: int
    now_ms: int
    last_token: int
    arrivals: int
    running_digest: bytes


class _SessionRecord(_Record):
    token: int
    id: str
    ttl_ms: int
    deadline_ms: int
    name: str | None
    meta: bytes | None


class _GrantRecord(_Record):
    name: str
    session: str
    token: int
    shared: bool
    since_ms: int


class _PlaceRecord(_Record):
    name: str
    session: str
    shared: bool
    priority: int
    arrival: int
    since_ms: int


class _WaitRecord(_Record):
    name: str
    session: str
    order: int
    deadline_ms: int
    key: str | None
    fingerprint: bytes | None


class _AskedRecord(_Record):
    order: int
    node: str
    boot: int
    seq: int


class _OriginRecord(_Record):
    node: str
    boot: int
    ack: int


class _AnswerRecord(_Record):
    node: str
    seq: int
    outcome: StoredOutcome | None


class _KeyRecord(_Record):
    key: str
    fingerprint: bytes | None
    settled_ms: int
    outcome: StoredOutcome


R = TypeVar("R", bound=_Record)
_Rows = Iterator[list[Any]]


def dump(machine: Machine) -> Iterator[list[Any]]:
    """Give the rows of a machine, in order, at most a few hundred kB of values in each."""
    yield [
        "machine",
        VERSION,
        machine.index,
        machine.now_ms,
        machine.tokens.last,
        machine.arrivals,
        machine.running_digest,
    ]
    total = 0
    for kind, records in (
        ("sessions", _sessions(machine)),
        ("grants", _grants(machine)),
        ("places", _places(machine)),
        ("waits", _waits(machine)),
        ("asked", _asked(machine)),
        ("origins", _origins(machine)),
        ("answers", _answers(machine)),
        ("keys", _keys(machine)),
    ):
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


_Weighed = Iterator[tuple[int, list[Any]]]


def _sessions(machine: Machine) -> _Weighed:
    for session in machine.sessions:
        weight = 1 if session.meta is None else 1 + len(session.meta) // _WEIGHT
        yield (
            weight,
            [
                session.token,
                session.id,
                session.ttl_ms,
                session.deadline_ms,
                session.name,
                session.meta,
            ],
        )


def _grants(machine: Machine) -> _Weighed:
    for name, lock in machine.locks:
        for grant in lock.holders.values():
            yield 1, [name, grant.session, grant.token, grant.shared, grant.since_ms]


def _places(machine: Machine) -> _Weighed:
    for name, lock in machine.locks:
        for _, _, place in lock.queue:
            yield (
                1,
                [
                    name,
                    place.session,
                    place.shared,
                    place.priority,
                    place.arrival,
                    place.since_ms,
                ],
            )


def _parked(machine: Machine) -> Iterator[Parked]:
    for _, lock in machine.locks:
        for _, _, place in lock.queue:
            yield from place.parked.values()


def _waits(machine: Machine) -> _Weighed:
    for parked in _parked(machine):
        place = parked.place
        yield (
            1,
            [
                place.name,
                place.session,
                parked.order,
                parked.deadline_ms,
                parked.key,
                parked.fingerprint,
            ],
        )


def _asked(machine: Machine) -> _Weighed:
    for parked in _parked(machine):
        for request_id in parked.requests:
            yield 1, [parked.order, *request_id]


def _origins(machine: Machine) -> _Weighed:
    for node, answers in machine.requests.origins.items():
        yield 1, [node, answers.boot, answers.ack]


def _answers(machine: Machine) -> _Weighed:
    for node, answers in machine.requests.origins.items():
        for seq, answer in answers.by_seq.items():
            if isinstance(answer, Parked):
                yield 1, [node, seq, None]
            else:
                yield _outcome_weight(answer), [node, seq, _plain(answer)]


def _keys(machine: Machine) -> _Weighed:
    for key, settled in machine.requests.keys.items():
        yield (
            _outcome_weight(settled.outcome),
            [key, settled.fingerprint, settled.settled_ms, _plain(settled.outcome)],
        )


def _plain(outcome: Outcome) -> Any:
    return msgspec.to_builtins(outcome, builtin_types=(bytes,))


def _outcome_weight(outcome: Outcome) -> int:
    if isinstance(outcome, RenewedMany):
        return 1 + len(outcome.alive) + len(outcome.gone)
    return 1


class _Reader:
    """Reads rows one kind after the other."""

    def __init__(self, rows: Iterable[list[Any]]) -> None:
        self._rows = iter(rows)
        self._row = next(self._rows, None)
        self.total = 0

    def head(self) -> _Head:
        row = self._next()
        head: _Head = _convert(row, _Head)
        _must(head.kind == "machine", f"it starts with {head.kind!r}")
        _must(
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
        _must(row == ["end", self.total], f"it does not end after {self.total} records")
        _must(self._row is None, "rows follow its end")

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
    _must(len(head.running_digest) == 8, "its digest has not 8 bytes")
    _must(
        min(head.index, head.now_ms, head.last_token, head.arrivals) >= 0,
        "a counter is below zero",
    )
    machine.index = machine.tokens.index = head.index
    machine.now_ms = head.now_ms
    machine.tokens.last = head.last_token
    machine.arrivals = head.arrivals
    machine.running_digest = head.running_digest
    try:
        _load_sessions(machine, reader)
        _load_grants(machine, reader)
        waits = _load_places(machine, reader)
        _load_requests(machine, reader, waits)
    except KeyError as error:
        raise ValueError(
            f"no snapshot of ours: a record names {error}, which is not there"
        ) from None
    reader.end()


def _load_sessions(machine: Machine, reader: _Reader) -> None:
    last = 0
    for record in reader.records("sessions", _SessionRecord):
        _must(last < record.token <= machine.tokens.last, "tokens of sessions do not rise")
        _must(record.id.startswith(f"{record.token:x}-"), "a session's id is not of its token")
        _must(record.deadline_ms >= 0, "a session has no deadline")
        last = record.token
        session = Session(
            record.id, record.token, record.ttl_ms, record.deadline_ms, record.name, record.meta
        )
        machine.sessions.add(session)
        machine.deadlines.arm(SESSION_ENDS, session.token, session)


def _load_grants(machine: Machine, reader: _Reader) -> None:
    owned: list[tuple[int, str, str]] = []
    name, newest, is_alone = None, 0, False
    for record in reader.records("grants", _GrantRecord):
        _must(name is None or name <= record.name, "locks are not in order of name")
        if name == record.name:
            _must(newest < record.token, "tokens of a lock do not rise")
            _must(record.shared and not is_alone, "an exclusive lock has two holders")
        name, newest, is_alone = record.name, record.token, not record.shared
        _must(0 < record.token <= machine.tokens.last, "a token was never given")
        grant = Grant(
            _session(machine, record.session).id, record.token, record.shared, record.since_ms
        )
        machine.locks.restore_grant(record.name, grant)
        owned.append((record.token, grant.session, record.name))
    # A session's record of what it holds is in order of grant, over all locks.
    owned.sort()
    for token, session_id, lock in owned:
        things = _session(machine, session_id).owned
        _must((locks.KIND, lock) not in things, "a session holds a lock twice")
        things[locks.KIND, lock] = token


def _load_places(machine: Machine, reader: _Reader) -> dict[int, Parked]:
    places: list[LockPlace] = []
    for place_record in reader.records("places", _PlaceRecord):
        _must(0 < place_record.arrival <= machine.arrivals, "a place was never given")
        place = LockPlace(
            place_record.name,
            _session(machine, place_record.session).id,
            place_record.shared,
            place_record.priority,
            place_record.arrival,
            place_record.since_ms,
        )
        machine.locks.restore_place(place)
        places.append(place)
    places.sort(key=_by_arrival)
    by_owner: dict[tuple[str, str], LockPlace] = {}
    for place in places:
        things = _session(machine, place.session).owned
        _must((locks.KIND, place.name) not in things, "a session holds or waits twice")
        _must(machine.locks.grantable(place.name) is None, "a place was not granted when it could")
        things[locks.KIND, place.name] = WAITING
        by_owner[place.name, place.session] = place
    waits: dict[int, Parked] = {}
    for record in reader.records("waits", _WaitRecord):
        _must(0 < record.order <= machine.arrivals, "a wait never began")
        _must(record.order not in waits, "two waits have one order")
        _must(record.deadline_ms >= 0, "a wait has no deadline")
        parked = Parked(
            record.order,
            record.deadline_ms,
            by_owner[record.name, record.session],
            record.key,
            record.fingerprint,
        )
        parked.place.parked[record.order] = parked
        waits[record.order] = parked
        machine.requests.hold_key(parked)
        machine.deadlines.arm(WAIT_ENDS, parked.order, parked)
    machine.parked = len(waits)
    _must(all(place.parked for place in places), "nobody waits in a place")
    return waits


def _load_requests(machine: Machine, reader: _Reader, waits: dict[int, Parked]) -> None:
    asked: dict[RequestId, Parked] = {}
    for asked_record in reader.records("asked", _AskedRecord):
        request_id = RequestId(asked_record.node, asked_record.boot, asked_record.seq)
        _must(request_id not in asked, "a request waits twice")
        asked[request_id] = waits[asked_record.order]
        waits[asked_record.order].requests[request_id] = None
    _must(all(parked.requests for parked in waits.values()), "nobody asked for a wait")
    origins = machine.requests.origins
    for origin in reader.records("origins", _OriginRecord):
        _must(origin.node not in origins, "an origin stands there twice")
        origins[origin.node] = Answers(origin.boot, origin.ack)
    answered = 0
    for record in reader.records("answers", _AnswerRecord):
        answers = origins[record.node]
        _must(record.seq not in answers.by_seq, "an answer stands there twice")
        if record.outcome is None:
            request_id = RequestId(record.node, answers.boot, record.seq)
            answers.by_seq[record.seq] = asked[request_id]
            answered += 1
        else:
            _must(record.seq >= answers.ack, "an answer is settled")
            answers.by_seq[record.seq] = record.outcome
    _must(answered == len(asked), "a waiting request is not among the answers")
    for key in reader.records("keys", _KeyRecord):
        _must(machine.requests.find_key(key.key) is None, "a key stands there twice")
        machine.requests.keys[key.key] = Key(key.fingerprint, key.settled_ms, key.outcome)


def _session(machine: Machine, session_id: str) -> Session:
    session = machine.sessions.get(session_id)
    if session is None:
        raise KeyError(session_id)
    return session


def _by_arrival(place: LockPlace) -> int:
    return place.arrival


def _convert(value: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(value, kind, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise ValueError(f"no snapshot of ours: {error}") from None


def _must(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise ValueError(f"no snapshot of ours: {otherwise}")
