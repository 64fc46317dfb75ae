"""Sessions, time and waiting, written to be obviously right: what simple models stand on.

RULE: shares no code with `cluster/machine` but commands and outcomes. Flat lists, searched anew at
each step. One node, no keys, no acknowledgements: those are the business of `model.py`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from cluster.machine.commands import (
    Abandon,
    Batch,
    CloseSession,
    Command,
    Group,
    KeepAlive,
    OpenSession,
    Origin,
    Request,
)
from cluster.machine.machine import Machine
from cluster.machine.outcome import (
    Abandoned,
    Closed,
    Opened,
    Outcome,
    Queued,
    Renewed,
    SessionExpired,
    SessionNotFound,
    Withdrawn,
)


@dataclass
class NaiveSession:
    """A living session."""

    id: str
    token: int
    ttl_ms: int
    ends_ms: int


@dataclass
class NaiveWait:
    """One waiting request; those that share a place have one arrival."""

    seq: int
    name: str
    session: str
    arrival: int
    order: int
    until_ms: int
    since_ms: int
    wants: Any


@dataclass
class Naive:
    """Has `apply`; a primitive's model adds what its commands do."""

    index: int = 0
    time_ms: int = 0
    token: int = 0
    order: int = 0
    sessions: list[NaiveSession] = field(default_factory=list)
    waits: list[NaiveWait] = field(default_factory=list)
    told: list[tuple[int, Outcome]] = field(default_factory=list)

    def apply(
        self, index: int, now_ms: int, commands: list[tuple[int, Command]]
    ) -> list[tuple[int, Outcome]]:
        """Apply an entry: time, due deadlines, then commands; what is freed is handed out."""
        self.index, self.told = index, []
        self.time_ms = max(self.time_ms, now_ms)
        while due := self.due():
            _, kind, number = min(due)
            if kind == 1:
                (session,) = (s for s in self.sessions if s.token == number)
                self.hand_out(self.end(session))
            else:
                (wait,) = (w for w in self.waits if w.order == number)
                self.tell(wait, self.too_late(wait))
                self.hand_out([wait.name])
        for seq, command in commands:
            freed: list[str] = []
            answer = self.answer(seq, command, freed)
            self.told.append((seq, answer))
            self.hand_out(freed)
        return self.told

    def due(self) -> list[tuple[int, int, int]]:
        """Deadlines at or before now."""
        due = [(s.ends_ms, 1, s.token) for s in self.sessions if s.ends_ms <= self.time_ms]
        return due + [(w.until_ms, 2, w.order) for w in self.waits if w.until_ms <= self.time_ms]

    def next_deadline_ms(self) -> int | None:
        """The earliest deadline there is."""
        ends = [s.ends_ms for s in self.sessions] + [w.until_ms for w in self.waits]
        return min(ends, default=None)

    def find(self, id: str) -> NaiveSession | None:
        """The living session of this id."""
        return next((s for s in self.sessions if s.id == id), None)

    def nobody(self, id: str) -> Outcome:
        """Why there is no such session; ids of the walks are well formed."""
        is_old = int(id.partition("-")[0], 16) <= self.token
        return SessionExpired(id) if is_old else SessionNotFound(id)

    def next_token(self) -> int:
        """A token above all before and not behind the log."""
        self.token = max(self.token + 1, self.index)
        return self.token

    def tell(self, wait: NaiveWait, outcome: Outcome) -> None:
        """Answer a wait, which is over."""
        self.waits.remove(wait)
        self.told.append((wait.seq, outcome))

    def tell_place(self, arrival: int, outcome: Outcome) -> None:
        """Answer everybody in a place."""
        for wait in sorted(self.waits, key=lambda w: w.order):
            if wait.arrival == arrival:
                self.tell(wait, outcome)

    def park(
        self,
        seq: int,
        name: str,
        session: str,
        wait_ms: int,
        wants: Any,
        old: NaiveWait | None = None,
    ) -> Outcome:
        """Begin to wait, in a place that is there already or in a new one."""
        self.order += 1
        wait = NaiveWait(
            seq=seq,
            name=name,
            session=session,
            arrival=self.order if old is None else old.arrival,
            order=self.order,
            until_ms=self.time_ms + wait_ms,
            since_ms=self.time_ms if old is None else old.since_ms,
            wants=wants,
        )
        self.waits.append(wait)
        return Queued(name, self.position(wait))

    def places(self, name: str) -> list[NaiveWait]:
        """One wait for each place in a queue, in order of arrival."""
        first: dict[int, NaiveWait] = {}
        for wait in sorted(self.waits, key=lambda w: (w.arrival, w.order)):
            if wait.name == name:
                first.setdefault(wait.arrival, wait)
        return list(first.values())

    def expires_in_ms(self, place: NaiveWait) -> int:
        """How long somebody will still wait in a place."""
        return max(w.until_ms for w in self.waits if w.arrival == place.arrival) - self.time_ms

    def end(self, session: NaiveSession) -> list[str]:
        """End a session; gives the names to look at."""
        self.sessions.remove(session)
        names = self.free(session.id)
        waited = [w for w in self.waits if w.session == session.id]
        for wait in sorted(waited, key=lambda w: (w.arrival, w.order)):
            self.tell(wait, SessionExpired(session.id))
            names.append(wait.name)
        return names

    def answer(self, seq: int, command: Command, freed: list[str]) -> Outcome:
        """Carry a command out."""
        if isinstance(command, OpenSession):
            token = self.next_token()
            session = NaiveSession(
                f"{token:x}-{command.nonce}", token, command.ttl_ms, self.time_ms + command.ttl_ms
            )
            self.sessions.append(session)
            return Opened(session.id, session.ttl_ms, token)
        if isinstance(command, Abandon):
            for wait in [w for w in self.waits if w.seq == command.seq]:
                self.tell(wait, Withdrawn())
                freed.append(wait.name)
            return Abandoned()
        if isinstance(command, (KeepAlive, CloseSession)):
            found = self.find(command.session)
            if found is None:
                return self.nobody(command.session)
            if isinstance(command, KeepAlive):
                found.ends_ms = self.time_ms + found.ttl_ms
                return Renewed(found.id, found.ttl_ms)
            freed += self.end(found)
            return Closed(found.id)
        return self.execute(seq, command, freed)

    # What a primitive adds.

    def execute(self, seq: int, command: Command, freed: list[str]) -> Outcome:
        """Carry a command of the primitive out; names that may have become grantable go to
        `freed`.
        """
        raise NotImplementedError

    def free(self, session: str) -> list[str]:
        """Take away what a session held, oldest first; gives the names to look at."""
        raise NotImplementedError

    def hand_out(self, names: list[str]) -> None:
        """Grant whatever can be granted; ends of sessions met on the way add to `names`."""
        raise NotImplementedError

    def position(self, wait: NaiveWait) -> int:
        """Where a wait's place stands, from 1."""
        raise NotImplementedError

    def too_late(self, wait: NaiveWait) -> Outcome:
        """What a wait is told that ran out."""
        raise NotImplementedError

    def holds(self, session: str) -> list[tuple[int, str, str]]:
        """What a session holds, as (token, name, part), in any order."""
        raise NotImplementedError

    def records(self) -> list[tuple[Any, ...]]:
        """What every session's record should say: what it holds and where it waits, in order."""
        records: list[tuple[Any, ...]] = []
        for session in self.sessions:
            held = [(name, part, token) for token, name, part in sorted(self.holds(session.id))]
            waits = {w.arrival: (w.name, self.position(w)) for w in self.waits_of(session.id)}
            records.append((session.id, held, [waits[arrival] for arrival in sorted(waits)]))
        return records

    def waits_of(self, session: str) -> list[NaiveWait]:
        """The waits of a session."""
        return [wait for wait in self.waits if wait.session == session]


class Stroll:
    """Random entries of one node; a primitive's stroll adds its commands.

    All chance comes from the generator given. It learns from the answers, so that most of what it
    asks makes sense; the rest is stale, made up or too late.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.now_ms = 0
        self.seq = 0
        self.sessions: list[str] = []

    def entry(self, next_deadline_ms: int | None) -> tuple[int, list[tuple[int, Command]]]:
        """The next entry: its time, often at or around the next deadline, and its commands."""
        rng = self.rng
        dice = rng.random()
        if next_deadline_ms is not None and dice < 0.2:
            self.now_ms = max(self.now_ms, next_deadline_ms + rng.choice((-1, 0, 0, 1)))
        elif dice < 0.9:
            self.now_ms += rng.choice((0, 0, 1, 5, 10))
        # Sometimes a new leader's clock is behind.
        now_ms = max(0, self.now_ms - (rng.randrange(50) if rng.random() < 0.05 else 0))
        commands = []
        for _ in range(rng.choice((0, 1, 1, 2, 4))):
            self.seq += 1
            commands.append((self.seq, self.any_command()))
        return now_ms, commands

    def any_command(self) -> Command:
        """Something about sessions, or something of the primitive."""
        rng = self.rng
        dice = rng.random()
        if dice < 0.08 or not self.sessions:
            return OpenSession("s", rng.choice((50, 100, 400, 1000)))
        if dice < 0.22:
            return KeepAlive(self.session())
        if dice < 0.24:
            return CloseSession(self.session())
        if dice < 0.28 and self.seq > 1:
            return Abandon(rng.randrange(max(1, self.seq - 20), self.seq))
        return self.command()

    def session(self) -> str:
        """A session's id, mostly of a living one."""
        return self.rng.choice(self.sessions if self.rng.random() < 0.97 else ["1-no", "ffff-no"])

    def wait_ms(self) -> int:
        """How long to wait."""
        return self.rng.choice((0, 0, 10, 40, 100, 1000))

    def read(self, told: list[tuple[int, Outcome]]) -> None:
        """Learn from the answers of an entry."""
        for _, outcome in told:
            if isinstance(outcome, Opened):
                self.sessions.append(outcome.session)
            elif isinstance(outcome, SessionExpired) and self.rng.random() < 0.7:
                self.sessions = [id for id in self.sessions if id != outcome.session]
            self.learn(outcome)
        self.sessions = self.sessions[-6:]

    def command(self) -> Command:
        """A command of the primitive."""
        raise NotImplementedError

    def learn(self, outcome: Outcome) -> None:
        """Remember names and tokens."""


def batch_of(now_ms: int, commands: list[tuple[int, Command]]) -> Batch:
    """The entry as a machine takes it."""
    requests = tuple(Request(seq, command) for seq, command in commands)
    return Batch(now_ms, 0, (Group(Origin("n1", 1), 0, requests),) if requests else ())


def records_of(machine: Machine) -> list[tuple[Any, ...]]:
    """What every session's record says, as `Naive.records` gives it."""
    return [
        (
            info.session,
            [(name, part, token) for _, name, part, token in info.holds],
            [(name, position) for _, name, position in info.waits],
        )
        for info in machine.sessions.list(machine.now_ms, limit=10**6)
    ]


def step(
    machine: Machine, now_ms: int, commands: list[tuple[int, Command]]
) -> list[tuple[int, Outcome]]:
    """Apply an entry to a machine, and give what was told as a model gives it."""
    answers = machine.apply(machine.index + 1, batch_of(now_ms, commands))
    return [(answer.request.seq, answer.outcome) for answer in answers]
