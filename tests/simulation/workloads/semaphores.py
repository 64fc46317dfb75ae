"""Semaphores: units under limits that change, queues with priorities, holders that forget.

RULE: the book follows the events in their order, wants an answer or an ended session behind each,
and compares itself with the machine's semaphores.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.machine.commands import RequestId
from cluster.machine.commands.semaphores import (
    AcquireSemaphore,
    DeleteSemaphore,
    ReleaseSemaphore,
    SetSemaphore,
)
from cluster.machine.events import Event
from cluster.machine.machine import Machine
from cluster.machine.outcome import Queued
from cluster.machine.outcome.semaphores import (
    SemaphoreNotFound,
    SemaphoreSet,
    UnitsGranted,
    UnitsReleased,
)
from tests.simulation.clients import Client, Part, Pause, Session
from tests.simulation.network import MS
from tests.simulation.workloads.base import Book, Complain, Entry, Workload

SEMAPHORES = ("sim-dock", "sim-pier")


@dataclass(slots=True)
class Waiter:
    """A session that waits; its order is not known for sure once it has asked twice."""

    order: int
    priority: int
    requests: set[RequestId] = field(default_factory=set)
    is_vague: bool = False

    def is_before(self, other: Waiter) -> bool:
        """Whether it surely stands before another."""
        is_sure = not self.is_vague and not other.is_vague
        return is_sure and (self.priority, self.order) < (other.priority, other.order)


class SemaphoreBook(Book):
    """Capacity, conservation, nobody overtakes, and nobody loses units without a cause."""

    def __init__(self, complain: Complain) -> None:
        super().__init__(complain)
        self._limits: dict[str, int] = {}
        self._held: dict[str, dict[int, tuple[str | None, int]]] = {}
        self._waiting: dict[tuple[str, str], Waiter] = {}
        self._orders = 0

    def applied(self, entry: Entry) -> None:
        granted = {
            f.outcome.token: f.outcome for f in entry.fresh if isinstance(f.outcome, UnitsGranted)
        }
        released = {
            f.command.token: f.outcome.units
            for f in entry.fresh
            if isinstance(f.outcome, UnitsReleased) and isinstance(f.command, ReleaseSemaphore)
        }
        limits = {
            f.outcome.name: f.outcome.limit
            for f in entry.fresh
            if isinstance(f.outcome, SemaphoreSet)
        }
        for token, outcome in granted.items():
            entry.gave(token, outcome)
        for event in entry.events:
            if event.kind == "semaphore":
                self._hear(entry, event, granted, released)
        self._queue(entry)
        for name, limit in limits.items():
            self.count("limits set")
            if self._limits.get(name) not in {limit, None}:
                self.complain("semaphores", f"{name} has not the limit {limit} at {entry.index}")
        for name, held in self._held.items():
            for token, (session, _) in held.items():
                if session in entry.gone:
                    self.complain("a session takes all along", f"{name} under {token} is held")
        self.check(entry.machine)

    def _hear(
        self,
        entry: Entry,
        event: Event,
        granted: dict[int, UnitsGranted],
        released: dict[int, int],
    ) -> None:
        name, token, more = event.name, event.token, dict(event.more)
        held = self._held.setdefault(name, {})
        where = f"{event} at {entry.index}"
        if event.what in {"made", "resized"}:
            self._limits[name] = more["limit"]
        elif event.what == "deleted":
            del self._limits[name]
            if held:
                self.complain("semaphores", f"{where} while {held} are held")
        elif event.what == "granted":
            self.count("granted")
            held[token] = (event.session, more["units"])
            units = sum(units for _, units in held.values())
            if units > self._limits.get(name, 0):
                self.complain("capacity", f"{where}: {units} of {self._limits.get(name)}")
            told = granted.get(token)
            if told is None or (told.session, told.units) != held[token]:
                self.complain("grants are told", f"{where}: {told}")
        else:
            self.count(event.what)
            if held.pop(token, None) != (event.session, more["units"]):
                self.complain("semaphores", f"{where}, which was not held so")
            if event.what == "released" and released.get(token) != more["units"]:
                self.complain("semaphores", f"{where}, which nobody asked for")
            if event.what == "lost" and event.session not in entry.gone:
                self.complain("semaphores", f"{where}, but the session lives")

    def _queue(self, entry: Entry) -> None:
        """Nobody is granted who stands behind one that waited all the time of this entry."""
        standing = set(self._waiting)
        # First who came: a repeat may share a wait whose first request leaves in this very entry.
        for parked in entry.queued:
            if isinstance(parked.command, AcquireSemaphore):
                self._enter(parked.request, parked.command)
        own = {request: waiter for waiter in self._waiting.values() for request in waiter.requests}
        for place, waiter in list(self._waiting.items()):
            # That none of them was lost is judged elsewhere.
            waiter.requests = {r for r in waiter.requests if _waits(entry.machine, r)}
            if not waiter.requests:
                del self._waiting[place]
        for f in entry.fresh:
            if isinstance(f.outcome, UnitsGranted) and isinstance(f.command, AcquireSemaphore):
                served = own.get(f.request) or Waiter(self._orders + 1, f.command.priority)
                for place in standing & self._waiting.keys():
                    if place[1] == f.command.name and self._waiting[place].is_before(served):
                        self.complain("no barging", f"{f.outcome} at {entry.index} before {place}")

    def _enter(self, request: RequestId, command: AcquireSemaphore) -> None:
        self.count("waited")
        self._orders += 1
        place = (command.session, command.name)
        known = self._waiting.get(place)
        if known is None:
            known = self._waiting[place] = Waiter(self._orders, command.priority)
        else:
            known.is_vague = True
        known.requests.add(request)

    def check(self, machine: Machine) -> None:
        """The machine must hold what the book holds."""
        for name in SEMAPHORES:
            info = machine.semaphores.info(name, machine.now_ms)
            limit = None if info is None else info.limit
            holders = () if info is None else info.holders
            said = {token: (session, units) for session, token, units, _ in holders}
            if said != self._held.get(name, {}) or limit != self._limits.get(name):
                self.complain(
                    "semaphores",
                    f"{name}: machine {limit} {said}, book {self._limits} {self._held}",
                )


def _waits(machine: Machine, request: RequestId) -> bool:
    return isinstance(machine.answer(request), Queued)


def turn(client: Client, session: Session) -> Part:
    """Set a limit now and then; else take units, perhaps after a wait, and give them back."""
    rng, name = client.rng, client.rng.choice(SEMAPHORES)
    dice = rng.random()
    if dice < 0.08:
        yield from client.call(SetSemaphore(name, rng.choice((0, 1, 2, 3, 5))))
        return
    if dice < 0.1:
        yield from client.call(DeleteSemaphore(name))
        return
    command = AcquireSemaphore(
        session.id,
        name,
        units=rng.choice((1, 1, 2, 3)),
        priority=rng.choice((0, 0, 0, 5)),
        wait_ms=0 if rng.random() < 0.3 else rng.randrange(50, 2_500),
    )
    patience_us = rng.randrange(10 * MS, 800 * MS) if rng.random() < 0.15 else None
    outcome = yield from client.call(command, patience_us=patience_us)
    session.note(outcome)
    if isinstance(outcome, SemaphoreNotFound):
        yield from client.call(SetSemaphore(name, rng.choice((1, 3, 4))))
    if not isinstance(outcome, UnitsGranted):
        return
    yield Pause(1 + int(rng.expovariate(1 / (60 * MS))))
    if rng.random() < 0.1:
        return  # Forgotten: the session's end frees it.
    token = outcome.token if rng.random() < 0.95 else outcome.token - 1
    outcome = yield from client.call(ReleaseSemaphore(session.id, name, token))
    session.note(outcome)


WORKLOAD = Workload("semaphores", book=SemaphoreBook, turn=turn)
