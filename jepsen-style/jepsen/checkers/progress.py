"""K13: once everything is mended, everything works again, and nobody waits for ever.

RULE: no speed is judged; a stated, generous number of election timeouts is.

Facts: `heal` (see the package; its value may have `election_ms`, the longest election timeout).
Reads every operation's `f`, `key`, `wait_ms` of its invoke, and times:

- after the last `heal` each key that is used has an answer of the cluster (ok, or a refusal by the
  machine) before it was asked for longer than the allowance, pauses between requests left out;
- no operation lasts longer than its `wait_ms` and the allowance, and none is left without an end;
- no read after it shows a lock or semaphore free with somebody waiting who could have it (`lock.read`:
  `holders` empty and `waiters` not, but for those who wait for several).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from jepsen.checkers.reading import (
    FOR_EVER_NS,
    MS,
    Call,
    Complaints,
    attempts,
    facts,
    is_stale,
    tell,
)
from jepsen.history import Line, Type
from jepsen.verdicts import Verdict, undecided

ELECTION_MS: Final = 2_000
ELECTIONS: Final = 20
CALL_MS: Final = 60_000
"""How long a request may take, its wait apart: clients here give up sooner, so that one that takes
longer has been forgotten."""


class Progress:
    """K13: everything works again, and nobody waits for ever.

    Args:
        elections: so many election timeouts after the last `heal` every key has an answer.
        call_ms: no request takes longer, its `wait_ms` apart.
    """

    name = "K13 progress"

    def __init__(self, elections: int = ELECTIONS, call_ms: int = CALL_MS) -> None:
        self._elections = elections
        self._call_ms = call_ms

    def check(self, lines: Sequence[Line]) -> Verdict:
        made = attempts(lines)
        complaints = Complaints(self.name)
        self._durations(made, complaints)
        queues = _queues(made, complaints)
        healed = facts(lines, "heal")
        if not healed:
            verdict = complaints.verdict(f"{tell(len(made), 'request')}")
            if verdict.valid:
                return undecided(self.name, "nothing was ever healed, so nothing was to recover")
            return verdict
        keys, slowest_ms, allowed_ms = self._recovered(made, healed[-1], complaints)
        return complaints.verdict(
            f"{tell(keys, 'key')} answered within {slowest_ms} ms of asking after healing "
            f"({allowed_ms} ms allowed); {tell(len(made), 'request')}, {tell(queues, 'queue')} "
            "looked at"
        )

    def _durations(self, made: Sequence[Call], complaints: Complaints) -> None:
        for call in made:
            last = call.lines[-1]
            if last.type is Type.INVOKE:
                complaints.add(f"{call.f} of {call.key!r} never came to an end", call)
                continue
            took_ms = (last.time_ns - call.start_ns) // MS - int(call.value.get("wait_ms") or 0)
            if took_ms > self._call_ms:
                complaints.add(f"{call.f} of {call.key!r} took {took_ms} ms", call)

    def _recovered(
        self, made: Sequence[Call], heal: Line, complaints: Complaints
    ) -> tuple[int, int, int]:
        value = heal.value if isinstance(heal.value, dict) else {}
        allowed_ms = self._elections * int(value.get("election_ms") or ELECTION_MS)
        asked: dict[tuple[str, str], list[Call]] = {}
        for call in made:
            # One that its own client left says nothing.
            if call.start > heal.index and call.lines[-1].error != "hung_up":
                asked.setdefault((call.f.partition(".")[0], call.key), []).append(call)
        slowest_ms = 0
        for (room, key), some in asked.items():
            answered = [call for call in some if call.is_ok or call.code]
            first = min(answered, key=lambda call: call.end_ns, default=None)
            took_ms = _asked_ms(some, FOR_EVER_NS if first is None else first.end_ns)
            if first is not None:
                took_ms -= int(first.value.get("wait_ms") or 0)
                slowest_ms = max(slowest_ms, took_ms)
            # Who was asked once and left alone was not given the time.
            if took_ms > allowed_ms:
                complaints.add(
                    f"{room} {key!r} was asked for {took_ms} ms after healing, and "
                    + ("never answered" if first is None else "answered then"),
                    heal,
                    some[0],
                    first or some[-1],
                )
        return len(asked), slowest_ms, allowed_ms


def _asked_ms(some: Sequence[Call], until_ns: int) -> int:
    """How long somebody was waiting for an answer, pauses between requests left out."""
    asked_ns = known_ns = 0
    for call in sorted(some, key=lambda call: call.start_ns):
        end_ns = min(call.lines[-1].time_ns, until_ns)
        asked_ns += max(0, end_ns - max(call.start_ns, known_ns))
        known_ns = max(known_ns, end_ns)
    return asked_ns // MS


def _queues(made: Sequence[Call], complaints: Complaints) -> int:
    """Nobody waits for what is free, unless for other locks too."""
    several = {
        str(lock["name"])
        for call in made
        if call.f == "lock.acquire_many"
        for lock in call.value.get("locks", ())
    }
    looked = 0
    for call in made:
        if not call.is_ok or is_stale(call):
            continue
        if call.f not in {"lock.read", "semaphore.read"}:
            continue
        waiters = call.answer.get("waiters") or []
        looked += bool(waiters)
        if call.f == "lock.read" and waiters and not call.answer.get("holders"):
            if call.key not in several:
                complaints.add(f"lock {call.key!r} is free, and somebody waits", call)
        elif call.f == "semaphore.read" and waiters:
            units = int(waiters[0].get("units") or 1)
            if units <= int(call.answer.get("free") or 0):
                complaints.add(
                    f"semaphore {call.key!r} has {call.answer['free']} units free, and the first "
                    f"waits for {units}",
                    call,
                )
    return looked
