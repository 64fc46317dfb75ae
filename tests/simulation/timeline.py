"""What the committed log means: sessions, tokens and answers, judged by a second opinion.

RULE: fed the committed entries once, in order, and nothing else. It keeps a machine of its own that
never saw a crash, a snapshot or a restart, and beside it a small book of sessions that is written
another way; every reply a client gets must agree with both. What a workload does it tells that
workload's book.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cluster.errors import CoterieError
from cluster.machine.commands import Batch, Command, RequestId
from cluster.machine.commands.tasks import Work
from cluster.machine.machine import Machine
from cluster.machine.outcome import (
    Answer,
    Closed,
    Opened,
    Outcome,
    Queued,
    Renewed,
    RenewedMany,
    Void,
    Withdrawn,
)
from cluster.machine.outcome.tasks import Worked
from cluster.machine.parked import Parked as StandingRequest
from cluster.wire import batch as wire_batch
from tests.simulation.invariants import Violation
from tests.simulation.workloads.base import Book, Complain, Entry, Fresh, Parked

_REGULAR = b"\x00"

CHECK_EVERY = 16
"""Books compare whole states after every so many entries."""


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


class Timeline:
    """The applied sequence and its laws.

    Args:
        now_us: true time.
        complain: told the name of a broken law and the circumstances.
        books: of the workloads.
        drift: no clock runs faster than 1 + this.
    """

    def __init__(
        self,
        now_us: Callable[[], int],
        complain: Complain,
        books: Sequence[Book] = (),
        *,
        drift: float = 0.1,
    ) -> None:
        self._now_us = now_us
        self._complain = complain
        self._drift = drift
        self.books = books
        self.machine = Machine()
        self._digests: list[object] = [None, self.machine.digest]
        self._asked: dict[RequestId, int] = {}
        self._answers: dict[RequestId, tuple[Outcome, int]] = {}
        self._keys: dict[RequestId, str] = {}
        self._by_key: dict[str, Outcome] = {}
        self._refused: dict[RequestId, CoterieError] = {}
        self._awaited: set[RequestId] = set()
        self._parked: set[RequestId] = set()
        self._waited: set[RequestId] = set()
        self._arrivals = 0  # of waits, before the present entry
        self._leases: dict[str, Lease] = {}
        self._commands: dict[RequestId, Command | None] = {}
        self._token = 0
        self.acknowledged = 0  # highest log position of which some client knows
        self.applied = 0  # requests with an answer
        self.expired = 0
        self._entries = 0

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
        for book in self.books:
            book.acknowledged(request, outcome)

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

    def finish(self) -> None:
        """All is over and agreed: the last comparisons."""
        for book in self.books:
            book.check(self.machine)
            book.finish(self.machine)

    # ---- the laws ---------------------------------------------------------------------------

    def _read(self, index: int, batch: Batch, answers: list[Answer]) -> None:
        """Judge what one entry did. Deadlines come before the commands of the same entry."""
        for group in batch.groups:
            for request in group.requests:
                name = RequestId(group.origin.node, group.origin.boot, request.seq)
                self._commands.setdefault(name, request.command)
                if request.key is not None:
                    self._keys[name] = request.key
        now_ms = self.machine.now_ms
        expired = self._expire(now_ms)
        closed: set[str] = set()
        tokens: dict[int, object] = {}
        fresh, queued, left, working = self._sort(index, answers)
        for request_id, session in working:
            self._renew(index, session, now_ms, request_id)
        for request_id, _, outcome in fresh:
            if isinstance(outcome, Opened):
                tokens[outcome.token] = outcome
                self._renew(
                    index, outcome.session, now_ms, request_id, opened_ttl_ms=outcome.ttl_ms
                )
            elif isinstance(outcome, Renewed):
                self._renew(index, outcome.session, now_ms, request_id)
            elif isinstance(outcome, RenewedMany):
                for session, _ in outcome.alive:
                    self._renew(index, session, now_ms, request_id)
            elif isinstance(outcome, Closed):
                if self._leases.pop(outcome.session, None) is None:
                    self._complain("sessions", f"{outcome.session} closed at {index}, not open")
                closed.add(outcome.session)
        entry = Entry(
            index=index,
            now_ms=now_ms,
            now_us=self._now_us(),
            fresh=fresh,
            queued=queued,
            left=left,
            gone=frozenset(expired | closed),
            expired=frozenset(expired),
            events=self.machine.core.events,
            machine=self.machine,
            complain=self._complain,
            tokens=tokens,
        )
        for book in self.books:
            book.applied(entry)
        self._arrivals = self.machine.core.arrivals
        self._check_tokens(index, tokens)
        self._check_waiters(index)
        self._check_sessions(index)
        self._entries += 1
        if self._entries % CHECK_EVERY == 0:
            for book in self.books:
                book.check(self.machine)

    def _sort(
        self, index: int, answers: list[Answer]
    ) -> tuple[list[Fresh], list[Parked], list[RequestId], list[tuple[RequestId, str]]]:
        """Answers that took effect now, not those repeated; waits that began; waits given up.

        And requests for work, with their sessions: such a request is a keepalive, when it is first
        heard of, whether it is answered or has to wait.
        """
        working: list[tuple[RequestId, str]] = []
        fresh: list[Fresh] = []
        queued: list[Parked] = []
        left: list[RequestId] = []
        for answer in answers:
            request, outcome = answer.request, answer.outcome
            if isinstance(outcome, (Void, Withdrawn)):
                if request in self._parked:
                    self._parked.discard(request)
                    left.append(request)
                continue
            if request in self._refused:
                self._complain(
                    "refused means never",
                    f"{request} was told {self._refused[request]!r}, entry {index} does it",
                )
            if isinstance(outcome, Queued):
                if request not in self._parked:
                    self._parked.add(request)
                    self._waited.add(request)
                    command = self._commands.get(request)
                    queued.append(Parked(request, command))
                    if isinstance(command, Work) and self._began_to_wait(request):
                        working.append((request, command.session))
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
                fresh.append(Fresh(request, self._commands.get(request), outcome))
                if isinstance(outcome, Worked) and request not in self._waited:
                    working.append((request, outcome.session))
                if key is not None:
                    self._by_key[key] = outcome
            elif first != outcome:
                self._complain("exactly once", f"key {key} was {first}, now {outcome} at {index}")
        return fresh, queued, left, working

    def _began_to_wait(self, request: RequestId) -> bool:
        """Whether a wait began with this request in this entry; no repeat that joined an old one."""
        parked = self.machine.requests.answer(request)
        return not isinstance(parked, StandingRequest) or parked.order > self._arrivals

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

    def _check_tokens(self, index: int, tokens: dict[int, object]) -> None:
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

    def _check_sessions(self, index: int) -> None:
        """The machine must hold what the book holds: nobody loses anything without a cause."""
        machine = self.machine
        if len(machine.sessions) != len(self._leases):
            self._complain(
                "sessions",
                f"{len(machine.sessions)} sessions after {index}, the book has "
                f"{sorted(self._leases)}",
            )
