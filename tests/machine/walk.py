"""Random entries for a machine: what nodes and clients do, and what they should not do.

RULE: all chance comes from the generator given. The walk learns ids and tokens from the answers, so
that most of what it asks makes sense; the rest is stale, repeated, made up or too late.
"""

from __future__ import annotations

import random

from cluster.machine.commands import (
    Abandon,
    AcquireLock,
    AcquireLocks,
    Batch,
    CloseSession,
    Command,
    Group,
    KeepAlive,
    KeepAliveMany,
    OpenSession,
    Origin,
    ReleaseLock,
    ReleaseLocks,
    Request,
)
from cluster.machine.outcome import Answer, Granted, GrantedMany, Opened, Queued

NODES = ("n1", "n2", "n3")
LOCKS = ("door", "gate", "hatch")
STRANGE_SESSIONS = ("1-nobody", "ffff-nobody", "01-a", "-", "nonsense", "0-a")
TTLS_MS = (20, 50, 100, 100, 400)
WAITS_MS = (0, 0, 10, 40, 100, 1000)


class Asker:
    """A node's side: its life, its numbers, what it still waits for."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.boot = 1
        self.seq = 0
        self.ack = 1
        self.open: dict[int, Request] = {}
        self.parked: set[int] = set()

    def restart(self) -> None:
        """Begin another life."""
        self.boot += 1
        self.seq, self.ack, self.open, self.parked = 0, 1, {}, set()


class Walk:
    """Gives one random entry after the other and reads the answers."""

    def __init__(self, rng: random.Random, *, several: float = 0.2) -> None:
        """Start with nothing.

        Args:
            several: how often several locks are asked for at once, by few sessions if it is often.
        """
        self.rng = rng
        self.several = several
        self.now_ms = 0
        self.askers = {name: Asker(name) for name in NODES}
        self.sessions: list[str] = []
        self.grants: list[Granted] = []
        self.keyed: list[Request] = []
        self.nonces = 0

    def batch(self, next_deadline_ms: int | None) -> Batch:
        """Make the next entry: often at, just before or just after the next deadline."""
        rng = self.rng
        dice = rng.random()
        if next_deadline_ms is not None and dice < 0.3:
            self.now_ms = max(self.now_ms, next_deadline_ms + rng.choice((-1, 0, 0, 1)))
        elif dice < 0.9:
            self.now_ms += rng.choice((0, 0, 1, 5, 20))
        elif dice < 0.92:
            self.now_ms += 1000
        # Sometimes a new leader's clock is behind.
        now_ms = self.now_ms - (rng.randrange(50) if rng.random() < 0.05 else 0)
        if rng.random() < 0.15:
            return Batch(max(0, now_ms), 0)
        groups = [self.group(rng.choice(NODES)) for _ in range(rng.choice((1, 1, 2)))]
        return Batch(max(0, now_ms), 0, tuple(groups))

    def read(self, answers: list[Answer]) -> None:
        """Learn from the answers of an entry."""
        for answer in answers:
            outcome = answer.outcome
            if isinstance(outcome, Opened):
                self.sessions.append(outcome.session)
            elif isinstance(outcome, Granted):
                self.grants.append(outcome)
            elif isinstance(outcome, GrantedMany):
                self.grants += [
                    Granted(name, outcome.session, token, shared)
                    for name, token, shared in outcome.locks
                ]
            asker = self.askers[answer.request.node]
            if answer.request.boot != asker.boot:
                continue
            if isinstance(outcome, Queued):
                asker.parked.add(answer.request.seq)
            else:
                asker.open.pop(answer.request.seq, None)
                asker.parked.discard(answer.request.seq)
        self.sessions = self.sessions[-8 if self.several < 0.5 else -3 :]
        self.grants = self.grants[-12:]
        self.keyed = self.keyed[-6:]

    def group(self, node: str) -> Group:
        """What one node has in the entry."""
        rng, asker = self.rng, self.askers[node]
        boot = asker.boot
        if rng.random() < 0.02:
            asker.restart()
        elif rng.random() < 0.02:
            boot = max(0, boot - 1)
        requests = []
        for _ in range(rng.choice((0, 1, 1, 2, 4))):
            if asker.open and rng.random() < 0.15:
                requests.append(rng.choice(list(asker.open.values())))
            elif rng.random() < 0.03:
                requests.append(Request(rng.randrange(asker.seq + 2), KeepAlive("1-late")))
            else:
                requests.append(self.request(asker))
        if rng.random() < 0.5:
            unknown = [seq for seq in asker.open if seq not in asker.parked]
            asker.ack = max(asker.ack, min(unknown, default=asker.seq + 1))
        elif rng.random() < 0.02:
            asker.ack = max(asker.ack, asker.seq - 1)
        return Group(Origin(node, boot), asker.ack, tuple(requests))

    def request(self, asker: Asker) -> Request:
        """A new request of a node: sometimes a client's repeat under its key."""
        rng = self.rng
        asker.seq += rng.choice((1, 1, 1, 2))
        if self.keyed and rng.random() < 0.15:
            first = rng.choice(self.keyed)
            fingerprint = first.fingerprint if rng.random() < 0.8 else b"other"
            request = Request(asker.seq, first.command, first.key, fingerprint)
        else:
            command = self.command(asker) if rng.random() < 0.98 else None
            if rng.random() < 0.3:
                key = f"key-{rng.randrange(10**9)}"
                request = Request(asker.seq, command, key, b"print")
                self.keyed.append(request)
            else:
                request = Request(asker.seq, command)
        asker.open[request.seq] = request
        return request

    def command(self, asker: Asker) -> Command:
        """Something to do."""
        rng = self.rng
        dice = rng.random()
        if dice < 0.12 or not self.sessions:
            self.nonces += 1
            return OpenSession(f"s{self.nonces}", rng.choice(TTLS_MS))
        if dice < 0.25:
            return KeepAlive(self.session())
        if dice < 0.30:
            return KeepAliveMany(tuple(self.session() for _ in range(rng.randrange(4))))
        if dice < 0.33:
            return CloseSession(self.session())
        if dice < 0.38:
            return Abandon(rng.choice([*asker.open, rng.randrange(asker.seq + 2)]))
        if dice < 0.62 and self.grants:
            grant = rng.choice(self.grants)
            session = grant.session if rng.random() < 0.9 else self.session()
            token = grant.token if rng.random() < 0.9 else rng.randrange(grant.token + 3)
            if rng.random() < self.several:
                more = [g for g in self.grants if g.session == session and rng.random() < 0.8]
                return ReleaseLocks(
                    session, ((grant.name, token), *((g.name, g.token) for g in more))
                )
            return ReleaseLock(session, grant.name, token)
        if rng.random() < self.several:
            names = [rng.choice(LOCKS) for _ in range(rng.choice((1, 2, 2, 3)))]
            return AcquireLocks(
                self.session(),
                tuple((name, rng.random() < 0.4) for name in names),
                priority=rng.choice((0, 0, 0, -5, 7)),
                wait_ms=rng.choice(WAITS_MS),
            )
        return AcquireLock(
            self.session(),
            rng.choice(LOCKS),
            shared=rng.random() < 0.4,
            priority=rng.choice((0, 0, 0, -5, 7)),
            wait_ms=rng.choice(WAITS_MS),
        )

    def session(self) -> str:
        """A session's id, mostly of a living one."""
        rng = self.rng
        return rng.choice(self.sessions if rng.random() < 0.97 else STRANGE_SESSIONS)
