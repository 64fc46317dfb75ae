"""Random entries of everything at once: the primitives' own walks, over the same few sessions.

RULE: all chance comes from the generator given. What a walk draws is its own business; here they
are mixed, batched, repeated under keys, and given up by nodes that start anew.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgspec

from cluster.machine.commands import (
    Abandon,
    Batch,
    CloseSession,
    Command,
    Group,
    KeepAlive,
    KeepAliveMany,
    OpenSession,
    Origin,
    Request,
    RequestId,
)
from cluster.machine.commands.jobs import ReserveJobs
from cluster.machine.commands.several import Several
from cluster.machine.commands.tasks import Work
from cluster.machine.commands.tickets import LockResource, UnlockResource
from cluster.machine.machine import Machine
from cluster.machine.outcome import Answer, Batched, Opened, Queued, SessionExpired
from cluster.wire import commands as wire
from tests.machine.test_fifos_model import FifoWalk
from tests.machine.test_jobs_model import Walk as JobWalk
from tests.machine.test_rooms_model import RoomWalk
from tests.machine.test_semaphores_model import SemaphoreStroll
from tests.machine.test_tasks_model import Walk as TaskWalk
from tests.machine.test_tickets_model import TicketStroll
from tests.machine.walk import Asker
from tests.machine.walk import Walk as LockWalk

NOT_ALONE = (OpenSession, Abandon, Several)
"""What walks draw themselves, and what stands in no batch."""


class AllWalk:
    """One random entry after the other, of one node with several lives."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.now_ms = 0
        self.wall_ms = 1_000
        self.boot = 1
        self.seq = 0
        self.drawn = 1
        self.sessions: list[str] = []
        self.keyed: list[Request] = []
        self.parked: list[int] = []
        self.locks = LockWalk(rng)
        self.tasks = TaskWalk(rng)
        self.others: tuple[Any, ...] = (
            SemaphoreStroll(rng),
            TicketStroll(rng),
            FifoWalk(rng),
            RoomWalk(rng),
            JobWalk(rng),
        )

    def pass_time(self, machine: Machine) -> None:
        """Move both clocks, often to just before or after something is due."""
        rng, before = self.rng, self.now_ms
        deadline, due = machine.next_deadline_ms(), machine.next_wall_ms()
        # With timers of all kinds, time would fly if each of them were looked at.
        if deadline is not None and rng.random() < 0.1:
            self.now_ms = max(self.now_ms, deadline + rng.choice((-1, 0, 0, 1)))
        else:
            self.now_ms += rng.choice((0, 0, 0, 1, 2, 5))
        self.wall_ms += self.now_ms - before
        if due is not None and rng.random() < 0.3:
            self.wall_ms = max(0, due + rng.choice((-1, 0, 0, 1, 60)))
        elif rng.random() < 0.03:
            self.wall_ms = max(0, self.wall_ms + rng.choice((-500, 500)))

    def batch(self, machine: Machine) -> Batch:
        """The next entry, its time passed already."""
        rng = self.rng
        if rng.random() < 0.01:
            self.boot, self.seq, self.parked = self.boot + 1, 0, []
        requests = [self.request(machine) for _ in range(rng.choice((0, 1, 2, 4, 6)))]
        return self.of(requests)

    def of(self, requests: Sequence[Request]) -> Batch:
        """An entry with these requests."""
        ack = max(1, min([self.seq - 30, *self.parked])) if self.seq > 30 else 1
        groups = (Group(Origin("n1", self.boot), ack, tuple(requests)),) if requests else ()
        return Batch(self.now_ms, self.wall_ms, groups)

    def request(self, machine: Machine, command: Command | None = None) -> Request:
        """A new request: sometimes a repeat under its key."""
        rng = self.rng
        self.seq += 1
        if command is None and self.keyed and rng.random() < 0.1:
            first = rng.choice(self.keyed)
            return msgspec.structs.replace(first, seq=self.seq)
        command = command or self.any_command(machine)
        if rng.random() < 0.15:
            key = f"key {rng.getrandbits(40):x}"
            request = Request(self.seq, command, key, b"print")
            self.keyed = [*self.keyed[-5:], request]
            return request
        return Request(self.seq, command)

    def any_command(self, machine: Machine) -> Command:
        """Something to do, as it comes out of the log."""
        rng = self.rng
        dice = rng.random()
        command: Command
        if dice < 0.06 or not self.sessions:
            sweep_ms = rng.choice((0, 0, 0, 100))
            command = OpenSession("s", rng.choice((60, 300, 800, 800)), sweep_ms=sweep_ms)
        elif dice < 0.14:
            command = KeepAlive(rng.choice(self.sessions))
        elif dice < 0.16:
            command = KeepAliveMany(tuple(self.sessions))
        elif dice < 0.18:
            command = CloseSession(rng.choice(self.sessions))
        elif dice < 0.21:
            command = Abandon(rng.choice([*self.parked, max(1, self.seq - 3)]))
        elif dice < 0.33:
            command = self.several(machine)
        else:
            command = self.of_a_primitive(machine)
        return wire.decode(wire.encode(command))

    def of_a_primitive(self, machine: Machine) -> Command:
        """What one of the walks draws."""
        while True:
            number = self.rng.randrange(len(self.others) + 2)
            if self.rng.random() < 0.03:
                # As only the front of ticketd asks.
                kind = self.rng.choice((LockResource, UnlockResource))
                command = kind(self.rng.choice(self.sessions), self.rng.choice(("bolt", "seats")))
            elif number == 0:
                command = self.locks.command(Asker("n1"))
            elif number == 1:
                command = self.tasks.command(machine)
            else:
                walk = self.others[number - 2]
                # Ids of tickets are made of it, and drawn ones are never the same.
                self.drawn += 1
                walk.seq = self.drawn
                command = walk.command()
            if not isinstance(command, NOT_ALONE):
                return command

    def several(self, machine: Machine) -> Several:
        """A batch; of an all-or-nothing one each command could stand alone in it."""
        is_atomic = self.rng.random() < 0.6
        commands: list[Command] = []
        large = 0
        while len(commands) < self.rng.choice((1, 2, 3, 5)):
            command = self.of_a_primitive(machine)
            is_one = type(command) in machine.checks if is_atomic else True
            large += isinstance(command, ReserveJobs | Work)
            if not is_one or (isinstance(command, ReserveJobs | Work) and large > 1):
                continue
            if getattr(command, "wait_ms", 0):
                command = msgspec.structs.replace(command, wait_ms=0)
            commands.append(command)
        return Several(tuple(commands), is_atomic)

    def read(self, answers: list[Answer]) -> None:
        """Learn from the answers."""
        more: list[Answer] = []
        for answer in answers:
            seq, outcome = answer.request.seq, answer.outcome
            if answer.request.boot == self.boot:
                if isinstance(outcome, Queued):
                    self.parked.append(seq)
                elif seq in self.parked:
                    self.parked.remove(seq)
            if isinstance(outcome, Opened):
                self.sessions = [*self.sessions[-5:], outcome.session]
            elif isinstance(outcome, SessionExpired) and self.rng.random() < 0.7:
                self.sessions = [id for id in self.sessions if id != outcome.session]
            elif isinstance(outcome, Batched):
                more += [Answer(answer.request, single) for single in outcome.outcomes]
        answers = [*answers, *more]
        told = [(answer.request.seq, answer.outcome) for answer in answers]
        for walk in self.others:
            if not isinstance(walk, RoomWalk):
                walk.read(told)
            walk.sessions = list(self.sessions)
        self.tasks.read(answers)
        here = [Answer(RequestId("n1", 1, a.request.seq), a.outcome) for a in answers]
        self.locks.read(here)
        self.tasks.sessions = self.locks.sessions = list(self.sessions)
