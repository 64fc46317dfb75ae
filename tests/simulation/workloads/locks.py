"""Locks: two kinds of holders, queues with priorities, and holders that forget.

RULE: the book moves grants by the answers alone, and compares itself with the machine's locks.
"""

from __future__ import annotations

from dataclasses import dataclass

from cluster.machine.commands import AcquireLock, ReleaseLock
from cluster.machine.machine import Machine
from cluster.machine.outcome import Granted, Released
from tests.simulation.clients import Client, Part, Pause, Session
from tests.simulation.network import MS
from tests.simulation.workloads.base import Book, Complain, Entry, Workload

LOCKS = ("orders", "mail", "cron")


@dataclass(slots=True)
class Grant:
    """One holder of a lock as the book has it."""

    session: str
    shared: bool


class LockBook(Book):
    """Mutual exclusion, and nobody loses a lock without a cause."""

    def __init__(self, complain: Complain) -> None:
        super().__init__(complain)
        self._holders: dict[str, dict[int, Grant]] = {}

    def applied(self, entry: Entry) -> None:
        """First what ended in this entry, then the grants in the order of their tokens."""
        granted = [
            f.outcome
            for f in entry.fresh
            if isinstance(f.outcome, Granted) and f.outcome.name in LOCKS
        ]
        released = {
            (f.outcome.name, f.command.token)
            for f in entry.fresh
            if isinstance(f.outcome, Released)
            and isinstance(f.command, ReleaseLock)
            and f.command.name in LOCKS
        }
        before = {name: dict(holders) for name, holders in self._holders.items()}
        for holders in self._holders.values():
            for token in [t for t, grant in holders.items() if grant.session in entry.gone]:
                del holders[token]
        passing = set(released)
        for name, token in released:
            if token in before.get(name, {}):
                passing.discard((name, token))
                self._holders[name].pop(token, None)  # gone already where its session has ended
        for grant in sorted(granted, key=lambda grant: grant.token):
            self._grant(entry, grant, before.get(grant.name, {}), passing)
        for name, token in passing:
            self.complain("locks", f"{name} released at {entry.index} under {token}, held by none")
        self.count("granted", len(granted))
        self.count("released", len(released))
        self._compare(entry.index, entry.machine)

    def _grant(
        self, entry: Entry, grant: Granted, before: dict[int, Grant], passing: set[tuple[str, int]]
    ) -> None:
        holders = self._holders.setdefault(grant.name, {})
        held = before.get(grant.token)
        if held is not None:
            if (held.session, held.shared) != (grant.session, grant.shared):
                self.complain("tokens rise", f"{grant} at {entry.index}: the token was {held}'s")
            return
        entry.gave(grant.token, grant)
        if (grant.name, grant.token) in passing or grant.session in entry.gone:
            # Granted and given back within one entry.
            passing.discard((grant.name, grant.token))
            return
        for token in [t for t, other in holders.items() if other.session == grant.session]:
            del holders[token]  # an upgrade replaces the weaker grant
        if holders and not (grant.shared and all(h.shared for h in holders.values())):
            self.complain(
                "mutual exclusion", f"{grant} at {entry.index} while {holders} hold the lock"
            )
        holders[grant.token] = Grant(grant.session, grant.shared)

    def _compare(self, index: int, machine: Machine) -> None:
        """The machine must hold what the book holds."""
        for name, holders in self._holders.items():
            info = machine.locks.info(name, machine.now_ms)
            said = {token: (session, shared) for session, token, shared, _ in info.holders}
            book = {token: (grant.session, grant.shared) for token, grant in holders.items()}
            if said != book:
                self.complain("locks", f"{name} after {index}: machine {said}, book {book}")


def turn(client: Client, session: Session) -> Part:
    """Ask for a lock, perhaps wait, hold it a while, give it back or forget it."""
    rng = client.rng
    wait_ms = 0 if rng.random() < 0.3 else rng.randrange(50, 2_500)
    patience_us = rng.randrange(10 * MS, 800 * MS) if rng.random() < 0.15 else None
    command = AcquireLock(
        session.id,
        rng.choice(LOCKS),
        shared=rng.random() < 0.25,
        priority=rng.choice((0, 0, 0, 5)),
        wait_ms=wait_ms,
    )
    outcome = yield from client.call(command, patience_us=patience_us)
    session.note(outcome)
    if not isinstance(outcome, Granted):
        return
    yield Pause(1 + int(rng.expovariate(1 / (60 * MS))))
    if rng.random() < 0.1:
        return  # Forgotten: the session's end frees it.
    token = outcome.token if rng.random() < 0.95 else outcome.token - 1
    outcome = yield from client.call(ReleaseLock(session.id, command.name, token))
    session.note(outcome)


WORKLOAD = Workload("locks", book=LockBook, turn=turn)
