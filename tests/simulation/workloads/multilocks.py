"""Several locks in one step: sets that overlap, single locks among them, holders that forget.

RULE: the book follows the events in their order, wants an answer or an ended session behind each,
and compares itself with the machine's locks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.machine.commands import (
    AcquireLock,
    AcquireLocks,
    ReleaseLock,
    ReleaseLocks,
    RequestId,
)
from cluster.machine.events import Event
from cluster.machine.machine import Machine
from cluster.machine.outcome import (
    Granted,
    GrantedMany,
    Outcome,
    Queued,
    Released,
    ReleasedMany,
)
from tests.simulation.clients import Client, Part, Pause, Session
from tests.simulation.network import MS
from tests.simulation.workloads.base import Book, Complain, Entry, Workload

LOCKS = ("sim-east", "sim-north", "sim-south", "sim-west")


@dataclass(slots=True)
class Waiter:
    """One place in the queues of its locks; its order is vague once it was asked for twice."""

    session: str
    names: frozenset[str]
    order: int
    priority: int
    requests: set[RequestId] = field(default_factory=set)
    is_vague: bool = False

    def is_before(self, other: Waiter) -> bool:
        """Whether it surely stands before another."""
        is_sure = not self.is_vague and not other.is_vague
        return is_sure and (self.priority, self.order) < (other.priority, other.order)


class MultiLockBook(Book):
    """All or none, mutual exclusion, nobody overtakes, nobody loses a lock without a cause."""

    def __init__(self, complain: Complain) -> None:
        super().__init__(complain)
        self._held: dict[str, dict[int, str]] = {name: {} for name in LOCKS}
        self._waiting: dict[object, Waiter] = {}
        self._orders = 0

    def applied(self, entry: Entry) -> None:
        told: dict[tuple[str, int], str] = {}
        released: set[tuple[str, int]] = set()
        for f in entry.fresh:
            told.update(_given(f.outcome))
            if isinstance(f.outcome, ReleasedMany) and isinstance(f.command, ReleaseLocks):
                released.update(f.command.locks)
            elif isinstance(f.outcome, Released) and isinstance(f.command, ReleaseLock):
                released.add((f.command.name, f.command.token))
        granted = []
        for event in entry.events:
            if event.kind == "lock" and event.name in self._held:
                self._hear(entry, event, told, released)
                if event.what == "granted":
                    granted.append(event)
        for f in entry.fresh:
            if isinstance(f.outcome, GrantedMany) and isinstance(f.command, AcquireLocks):
                self._all(entry, f.outcome, f.command, granted)
        self._queue(entry, granted)
        for name, held in self._held.items():
            for session in held.values():
                if session in entry.gone:
                    self.complain("a session takes all along", f"{name} is held at {entry.index}")
        self.check(entry.machine)

    def _hear(
        self,
        entry: Entry,
        event: Event,
        told: dict[tuple[str, int], str],
        released: set[tuple[str, int]],
    ) -> None:
        name, token, held = event.name, event.token, self._held[event.name]
        where = f"{event} at {entry.index}"
        if event.what == "granted":
            self.count("granted")
            entry.gave(token, event.name)
            if held and set(held.values()) != {event.session}:
                self.complain("mutual exclusion", f"{where} while {held} hold it")
            held.clear()  # a lock taken anew by the session that has it
            held[token] = event.session or ""
            if told.get((name, token)) != event.session:
                self.complain("grants are told", where)
            return
        self.count(event.what)
        if held.pop(token, None) != event.session:
            self.complain("locks", f"{where}, which was not held so")
        if event.what == "released" and (name, token) not in released:
            self.complain("locks", f"{where}, which nobody asked for")
        if event.what == "lost" and event.session not in entry.gone:
            self.complain("locks", f"{where}, but the session lives")

    def _all(
        self, entry: Entry, outcome: GrantedMany, command: AcquireLocks, granted: list[Event]
    ) -> None:
        """Whoever is given several has all of them, from this entry or from before."""
        self.count("granted several")
        new = {(event.name, event.token) for event in granted}
        gone = {
            (event.name, event.token)
            for event in entry.events
            if event.what in {"released", "lost"} and event.kind == "lock"
        }
        if [name for name, _, _ in outcome.locks] != sorted({name for name, _ in command.locks}):
            self.complain("all or none", f"{command} got {outcome} at {entry.index}")
        for name, token, _ in outcome.locks:
            has = self._held[name].get(token) == outcome.session
            if not has and (name, token) not in new | gone:
                self.complain("all or none", f"{outcome} at {entry.index} without {name}")

    def _queue(self, entry: Entry, granted: list[Event]) -> None:
        """Nobody is granted a lock who stands behind one that waited all the time."""
        standing = dict(self._waiting)
        for parked in entry.queued:
            command = parked.command
            if isinstance(command, AcquireLocks):
                names = frozenset(name for name, _ in command.locks)
                place: object = (command.session, tuple(sorted(command.locks)))
                self._enter(place, command.session, names, command.priority, parked.request)
            elif isinstance(command, AcquireLock) and command.name in self._held:
                place = (command.session, command.name)
                names = frozenset((command.name,))
                self._enter(place, command.session, names, command.priority, parked.request)
        own = {request: waiter for waiter in self._waiting.values() for request in waiter.requests}
        for place, waiter in list(self._waiting.items()):
            waiter.requests = {
                r for r in waiter.requests if isinstance(entry.machine.answer(r), Queued)
            }
            if not waiter.requests:
                del self._waiting[place]
        new = {(event.name, event.token) for event in granted}
        # Who has two places in a queue is told of its grant at both: the better one counts.
        served: dict[tuple[str, int], list[Waiter]] = {}
        for f in entry.fresh:
            if not isinstance(f.command, AcquireLock | AcquireLocks):
                continue
            for grant, session in _given(f.outcome).items():
                if grant in new:
                    last = Waiter(session, frozenset(), self._orders + 1, f.command.priority)
                    served.setdefault(grant, []).append(own.get(f.request, last))
        for (name, token), places in served.items():
            for place, waiter in standing.items():
                if (
                    self._waiting.get(place) is waiter
                    and waiter.session != places[0].session
                    and name in waiter.names
                    and all(waiter.is_before(other) for other in places)
                ):
                    self.complain(
                        "no barging", f"{name} {token} at {entry.index}: {places} before {waiter}"
                    )

    def _enter(
        self, place: object, session: str, names: frozenset[str], priority: int, asked: RequestId
    ) -> None:
        self.count("waited")
        self._orders += 1
        known = self._waiting.get(place)
        if known is None:
            known = self._waiting[place] = Waiter(session, names, self._orders, priority)
        else:
            known.is_vague = True
        known.requests.add(asked)

    def check(self, machine: Machine) -> None:
        """The machine must hold what the book holds."""
        for name, held in self._held.items():
            info = machine.locks.info(name, machine.now_ms)
            said = {token: session for session, token, _, _ in info.holders}
            if said != held:
                self.complain("locks", f"{name}: machine {said}, book {held}")


def _given(outcome: Outcome) -> dict[tuple[str, int], str]:
    """Name and token of each lock an answer is about, with its session."""
    if isinstance(outcome, Granted):
        return {(outcome.name, outcome.token): outcome.session}
    if isinstance(outcome, GrantedMany):
        return {(name, token): outcome.session for name, token, _ in outcome.locks}
    return {}


def turn(client: Client, session: Session) -> Part:
    """Ask for some locks at once or for one, perhaps wait, hold a while, give back or forget."""
    rng = client.rng
    wait_ms = 0 if rng.random() < 0.3 else rng.randrange(50, 2_500)
    priority = rng.choice((0, 0, 0, 5))
    patience_us = rng.randrange(10 * MS, 800 * MS) if rng.random() < 0.15 else None
    names = rng.sample(LOCKS, rng.choice((1, 2, 2, 3)))
    command: AcquireLock | AcquireLocks
    if rng.random() < 0.25:
        command = AcquireLock(session.id, names[0], False, priority, wait_ms)
    else:
        command = AcquireLocks(
            session.id, tuple((name, False) for name in names), priority, wait_ms
        )
    outcome = yield from client.call(command, patience_us=patience_us)
    session.note(outcome)
    given = _given(outcome)
    if not given:
        return
    yield Pause(1 + int(rng.expovariate(1 / (60 * MS))))
    if rng.random() < 0.1:
        return  # Forgotten: the session's end frees them.
    wrong = int(rng.random() < 0.05)
    tokens = tuple((name, token - wrong) for name, token in given)
    outcome = yield from client.call(ReleaseLocks(session.id, tokens))
    session.note(outcome)


WORKLOAD = Workload("multilocks", book=MultiLockBook, turn=turn)
