"""What the committed log means: sessions, locks and answers, judged by a second opinion.

RULE: fed the committed entries once, in order, and nothing else. It keeps a machine of its own that
never saw a crash, a snapshot or a restart, and beside it a small book of sessions and holders that
is written another way; every reply a client gets must agree with both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cluster.errors import CoterieError
from cluster.machine.commands import Batch, ReleaseLock, Request, RequestId
from cluster.machine.machine import Machine
from cluster.machine.outcome import (
    Answer,
    Closed,
    Granted,
    Opened,
    Outcome,
    Queued,
    Released,
    Renewed,
    RenewedMany,
    Void,
    Withdrawn,
)
from cluster.wire import batch as wire_batch
from tests.simulation.invariants import Violation

_REGULAR = b"\x00"


@dataclass(slots=True)
class Lease:
    """One session as the book has it.

    Attributes:
        deadline_ms: cluster time; before it only a close may end the session.
        asked_us: true time at which the client sent the last accepted renewal.
    """

    ttl_ms: int
    deadline_ms: int
    asked_us: int


@dataclass(slots=True)
class Grant:
    """One holder of a lock as the book has it."""

    session: str
    shared: bool


class Timeline:
    """The applied sequence and its laws.

    Args:
        now_us: true time.
        complain: told the name of a broken law and the circumstances.
        drift: no clock runs faster than 1 + this.
    """

    def __init__(
        self,
        now_us: Callable[[], int],
        complain: Callable[[str, str], None],
        *,
        drift: float = 0.1,
    ) -> None:
        self._now_us = now_us
        self._complain = complain
        self._drift = drift
        self.machine = Machine()
        self._digests: list[object] = [None, self.machine.digest]
        self._asked: dict[RequestId, int] = {}
        self._answers: dict[RequestId, tuple[Outcome, int]] = {}
        self._keys: dict[RequestId, str] = {}
        self._by_key: dict[str, Outcome] = {}
        self._refused: dict[RequestId, CoterieError] = {}
        self._awaited: set[RequestId] = set()
        self._parked: set[RequestId] = set()
        self._leases: dict[str, Lease] = {}
        self._holders: dict[str, dict[int, Grant]] = {}
        self._token = 0
        self.acknowledged = 0  # highest log position of which some client knows
        self.applied = 0  # requests with an answer
        self.expired = 0

    # ---- the log ----------------------------------------------------------------------------

    def commit(self, index: int, _: int, command: bytes) -> None:
        """Take the next committed entry."""
        machine = self.machine
        if command[:1] != _REGULAR:
            machine.skip(index)
            self._digests.append(machine.digest)
            return
        batch = wire_batch.decode(command[1:])
        before_ms = machine.now_ms
        try:
            answers = machine.apply(index, batch)
        except Exception as error:
            raise Violation("the machine raises nothing", f"entry {index}: {error!r}") from error
        self._digests.append(machine.digest)
        if machine.now_ms < before_ms:
            self._complain("cluster time", f"fell from {before_ms} to {machine.now_ms} at {index}")
        self._read(index, batch, answers)

    def digest_at(self, index: int) -> object:
        """The right digest after this entry."""
        return self._digests[index]

    # ---- the clients ------------------------------------------------------------------------

    def submitted(self, request: RequestId, asked_us: int) -> None:
        """A client has sent a request; `asked_us` is when."""
        self._asked[request] = asked_us
        self._awaited.add(request)

    def given_up(self, request: RequestId) -> None:
        """The client waits for this no longer: answered, hung up, or cut off."""
        self._awaited.discard(request)

    def acknowledge(self, request: RequestId, outcome: Outcome, position: int) -> None:
        """A client is told an outcome: the committed log must say the same."""
        known = self._answers.get(request)
        if known is None:
            self._complain(
                "acknowledged means committed", f"{request} was told {outcome}, no entry says so"
            )
            return
        right, index = known
        if right != outcome:
            self._complain(
                "acknowledged means committed", f"{request} was told {outcome}, right is {right}"
            )
        if position < index:
            self._complain(
                "acknowledged means committed",
                f"{request} was told position {position}, the entry is {index}",
            )
        self.acknowledged = max(self.acknowledged, index)

    def refused(self, request: RequestId, error: CoterieError) -> None:
        """A client is told that it surely did not happen: it must not, ever."""
        self._refused[request] = error
        known = self._answers.get(request)
        if known is not None:
            self._complain(
                "refused means never", f"{request} was told {error!r}, entry {known[1]} did it"
            )

    def read_served(self, node: str, floor: int, position: int) -> None:
        """A client has read state up to `position`; `floor` was acknowledged before it began."""
        if position < floor:
            self._complain(
                "reads miss nothing",
                f"{node} served position {position}, {floor} was acknowledged before",
            )
        self.acknowledged = max(self.acknowledged, position)

    def overdue(self, now_ms: int) -> list[str]:
        """Sessions whose deadline lies before this cluster time, and which have not ended."""
        return [name for name, lease in self._leases.items() if lease.deadline_ms < now_ms]

    # ---- the laws ---------------------------------------------------------------------------

    def _read(self, index: int, batch: Batch, answers: list[Answer]) -> None:
        """Judge what one entry did. Deadlines come before the commands of the same entry."""
        asked = {
            RequestId(group.origin.node, group.origin.boot, request.seq): request
            for group in batch.groups
            for request in group.requests
        }
        now_ms = self.machine.now_ms
        gone = self._expire(now_ms)
        released: set[tuple[str, int]] = set()
        granted: list[Granted] = []
        tokens: dict[int, Outcome] = {}  # given in this entry, and for what
        for request, outcome in self._fresh(index, asked, answers):
            if isinstance(outcome, Opened):
                tokens[outcome.token] = outcome
                self._renew(index, outcome.session, now_ms, request, opened_ttl_ms=outcome.ttl_ms)
            elif isinstance(outcome, Renewed):
                self._renew(index, outcome.session, now_ms, request)
            elif isinstance(outcome, RenewedMany):
                for session, _ in outcome.alive:
                    self._renew(index, session, now_ms, request)
            elif isinstance(outcome, Closed):
                if self._leases.pop(outcome.session, None) is None:
                    self._complain("sessions", f"{outcome.session} closed at {index}, not open")
                gone.add(outcome.session)
            elif isinstance(outcome, Granted):
                granted.append(outcome)
            elif isinstance(outcome, Released):
                command = asked[request].command
                assert isinstance(command, ReleaseLock)
                released.add((outcome.name, command.token))
        self._move_locks(index, granted, released, gone, tokens)
        self._check_tokens(index, tokens)
        self._check_waiters(index)
        self._compare(index)

    def _fresh(
        self, index: int, asked: dict[RequestId, Request], answers: list[Answer]
    ) -> list[tuple[RequestId, Outcome]]:
        """The answers that took effect now: not those repeated, not those still to come."""
        fresh: list[tuple[RequestId, Outcome]] = []
        for answer in answers:
            request, outcome = answer.request, answer.outcome
            if isinstance(outcome, (Void, Withdrawn)):
                self._parked.discard(request)
                continue
            if request in asked and asked[request].key is not None:
                self._keys[request] = str(asked[request].key)
            if request in self._refused:
                self._complain(
                    "refused means never",
                    f"{request} was told {self._refused[request]!r}, entry {index} does it",
                )
            if isinstance(outcome, Queued):
                self._parked.add(request)
                continue
            self._parked.discard(request)
            known = self._answers.get(request)
            if known is not None:
                if known[0] != outcome:
                    self._complain(
                        "exactly once", f"{request} was {known[0]} at {known[1]}, now {outcome}"
                    )
                continue
            self._answers[request] = (outcome, index)
            self.applied += 1
            key = self._keys.get(request)
            first = None if key is None else self._by_key.get(key)
            if first is None:
                fresh.append((request, outcome))
                if key is not None:
                    self._by_key[key] = outcome
            elif first != outcome:
                self._complain("exactly once", f"key {key} was {first}, now {outcome} at {index}")
        return fresh

    def _expire(self, now_ms: int) -> set[str]:
        """End the sessions whose time has come, and see that it has not come too early."""
        due = [session for session, lease in self._leases.items() if lease.deadline_ms <= now_ms]
        for session in due:
            lease = self._leases.pop(session)
            self.expired += 1
            lived_us = self._now_us() - lease.asked_us
            if lived_us < lease.ttl_ms * 1_000 / (1 + self._drift) - 2_000:
                self._complain(
                    "no session ends early",
                    f"{session} with TTL {lease.ttl_ms} ms ended {lived_us / 1e3:.0f} ms after "
                    "its last accepted renewal was sent",
                )
        return set(due)

    def _renew(
        self,
        index: int,
        session: str,
        now_ms: int,
        request: RequestId,
        *,
        opened_ttl_ms: int | None = None,
    ) -> None:
        asked_us = self._asked[request]
        lease = self._leases.get(session)
        if opened_ttl_ms is not None:
            if lease is not None:
                self._complain("sessions", f"{session} opened twice, at {index}")
            self._leases[session] = Lease(opened_ttl_ms, now_ms + opened_ttl_ms, asked_us)
        elif lease is None:
            self._complain("sessions", f"{session} renewed at {index} after its end")
        else:
            lease.deadline_ms = now_ms + lease.ttl_ms
            lease.asked_us = asked_us

    def _move_locks(
        self,
        index: int,
        granted: list[Granted],
        released: set[tuple[str, int]],
        gone: set[str],
        tokens: dict[int, Outcome],
    ) -> None:
        """First what ended in this entry, then the grants in the order of their tokens."""
        before = {name: dict(holders) for name, holders in self._holders.items()}
        for holders in self._holders.values():
            for token in [t for t, grant in holders.items() if grant.session in gone]:
                del holders[token]
        passing = set(released)
        for name, token in released:
            if token in before.get(name, {}):
                passing.discard((name, token))
                self._holders[name].pop(token, None)  # gone already where its session has ended
        for grant in sorted(granted, key=lambda grant: grant.token):
            holders = self._holders.setdefault(grant.name, {})
            held = before.get(grant.name, {}).get(grant.token)
            if held is not None:
                if (held.session, held.shared) != (grant.session, grant.shared):
                    self._complain("tokens rise", f"{grant} at {index}: the token was {held}'s")
                continue
            if tokens.setdefault(grant.token, grant) != grant:
                self._complain("tokens rise", f"{grant} and {tokens[grant.token]} at {index}")
            if (grant.name, grant.token) in passing or grant.session in gone:
                # Granted and given back within one entry.
                passing.discard((grant.name, grant.token))
                continue
            for token in [t for t, other in holders.items() if other.session == grant.session]:
                del holders[token]  # an upgrade replaces the weaker grant
            if holders and not (grant.shared and all(h.shared for h in holders.values())):
                self._complain(
                    "mutual exclusion", f"{grant} at {index} while {holders} hold the lock"
                )
            holders[grant.token] = Grant(grant.session, grant.shared)
        for name, token in passing:
            self._complain("locks", f"{name} released at {index} under {token}, held by nobody")

    def _check_tokens(self, index: int, tokens: dict[int, Outcome]) -> None:
        for token in sorted(tokens):
            if token <= self._token:
                self._complain(
                    "tokens rise", f"token {token} given at {index}, {self._token} was given before"
                )
            self._token = token

    def _check_waiters(self, index: int) -> None:
        """Nobody who still waits leaves a queue without an answer."""
        self._parked &= self._awaited
        for request in self._parked:
            if not isinstance(self.machine.answer(request), Queued):
                self._complain(
                    "no waiter is lost",
                    f"{request} stood in a queue and is gone after {index} without an answer",
                )

    def _compare(self, index: int) -> None:
        """The machine must hold what the book holds: nobody loses anything without a cause."""
        machine = self.machine
        if len(machine.sessions) != len(self._leases):
            self._complain(
                "sessions",
                f"{len(machine.sessions)} sessions after {index}, the book has "
                f"{sorted(self._leases)}",
            )
        for name, holders in self._holders.items():
            info = machine.locks.info(name, machine.now_ms)
            said = {token: (session, shared) for session, token, shared, _ in info.holders}
            book = {token: (grant.session, grant.shared) for token, grant in holders.items()}
            if said != book:
                self._complain("locks", f"{name} after {index}: machine {said}, book {book}")
