"""Batches: pairs of locks that are only ever taken and given back together.

RULE: a pair is touched by all-or-nothing batches alone, so that at no position of the log anybody
holds one lock of it without the other; plain batches work on locks of their own.
"""

from __future__ import annotations

from cluster.machine.commands import AcquireLock, Command, ReleaseLock, Several
from cluster.machine.machine import Machine
from cluster.machine.outcome import (
    Batched,
    BatchRefused,
    BatchUnfit,
    Granted,
    LockHeld,
    Outcome,
    Refusal,
    Released,
)
from tests.simulation.clients import Client, Part, Pause, Session
from tests.simulation.network import MS
from tests.simulation.workloads.base import Book, Complain, Entry, Workload

PAIRS = (("sim-left-1", "sim-right-1"), ("sim-left-2", "sim-right-2"))
OTHERS = ("sim-lone-1", "sim-lone-2")


class BatchBook(Book):
    """All or none, in order, and every lock is where the answers say."""

    def __init__(self, complain: Complain) -> None:
        super().__init__(complain)
        self._holder: dict[str, tuple[str, int]] = {}

    def applied(self, entry: Entry) -> None:
        for name, (session, _) in list(self._holder.items()):
            if session in entry.gone:
                del self._holder[name]
        for f in entry.fresh:
            if isinstance(f.command, Several):
                self._batch(entry, f.command, f.outcome)
        self.check(entry.machine)

    def _batch(self, entry: Entry, batch: Several, outcome: Outcome) -> None:
        where = f"{batch} got {outcome} at {entry.index}"
        if isinstance(outcome, BatchRefused | BatchUnfit):
            self.count("refused")
            if not batch.atomic:
                self.complain("batches", f"{where}, though not all or nothing")
            return
        if not isinstance(outcome, Batched) or len(outcome.outcomes) != len(batch.commands):
            self.complain("batches", where)
            return
        self.count("atomic" if batch.atomic else "plain")
        if batch.atomic and any(isinstance(single, Refusal) for single in outcome.outcomes):
            self.complain("all or none", where)
        for command, single in zip(batch.commands, outcome.outcomes, strict=True):
            self._single(entry, command, single)

    def _single(self, entry: Entry, command: Command, outcome: Outcome) -> None:
        where = f"{command} got {outcome} at {entry.index}"
        if isinstance(outcome, Granted):
            held = self._holder.get(outcome.name)
            if held == (outcome.session, outcome.token):
                return
            if held is not None:
                self.complain("mutual exclusion", f"{where} while {held} has it")
            entry.gave(outcome.token, outcome)
            if outcome.session not in entry.gone:
                self._holder[outcome.name] = (outcome.session, outcome.token)
        elif isinstance(outcome, Released) and isinstance(command, ReleaseLock):
            held = self._holder.pop(outcome.name, None)
            if held != (command.session, command.token) and command.session not in entry.gone:
                self.complain("batches", f"{where}, but {held} had it")
        elif isinstance(outcome, LockHeld):
            is_free = outcome.name not in self._holder
            # Somebody may have had it who ended later in this entry.
            if is_free and not entry.gone:
                self.complain("batches", f"{where}, but nobody has it")

    def check(self, machine: Machine) -> None:
        """The machine must hold what the book holds, and pairs as pairs."""
        for name in (*OTHERS, *(name for pair in PAIRS for name in pair)):
            info = machine.locks.info(name, machine.now_ms)
            said = [(session, token) for session, token, _, _ in info.holders]
            book = [self._holder[name]] if name in self._holder else []
            if said != book:
                self.complain("batches", f"{name}: machine {said}, book {book}")
        for left, right in PAIRS:
            holders = [
                [session for session, *_ in machine.locks.info(name, machine.now_ms).holders]
                for name in (left, right)
            ]
            if holders[0] != holders[1]:
                self.complain("all or none", f"{left} and {right} are held by {holders}")


def turn(client: Client, session: Session) -> Part:
    """Take a pair in one batch and give it back in one, or two lone locks as they come."""
    rng = client.rng
    is_pair = rng.random() < 0.7
    names = list(rng.choice(PAIRS) if is_pair else OTHERS)
    rng.shuffle(names)
    commands: list[Command] = [AcquireLock(session.id, name) for name in names]
    if not is_pair:
        # Refused, which changes nothing for the others.
        commands.insert(1, ReleaseLock(session.id, names[0], 0))
    outcome = yield from client.call(Several(tuple(commands), atomic=is_pair))
    if not isinstance(outcome, Batched):
        return
    for single in outcome.outcomes:
        session.note(single)
    grants = [single for single in outcome.outcomes if isinstance(single, Granted)]
    yield Pause(1 + int(rng.expovariate(1 / (60 * MS))))
    if not grants or rng.random() < 0.1:
        return  # Forgotten: the session's end frees them.
    wrong = int(rng.random() < 0.1)
    releases = [ReleaseLock(session.id, grant.name, grant.token) for grant in grants]
    last = releases[-1]
    releases[-1] = ReleaseLock(last.session, last.name, last.token - wrong)
    outcome = yield from client.call(Several(tuple(releases), atomic=is_pair))
    if isinstance(outcome, Batched):
        for single in outcome.outcomes:
            session.note(single)


WORKLOAD = Workload("batch", book=BatchBook, turn=turn)
