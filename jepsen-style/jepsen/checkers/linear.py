"""K1: the answers about each thing are those of one thing, whose steps each lie within its request.

RULE: turns what `locks`, `semaphores` and `jobs` name into operations of `jepsen.models` and asks
`jepsen.linearizable`. Reads exactly the same fields as those.

A session's end is not answered to anybody: it is put in as an operation that may happen at any time
from the moment the session's TTL may be over, or from the moment its close was sent, until somebody
was told that it is gone. From then on nothing is done in its name.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from msgspec.structs import replace

from jepsen import models
from jepsen.checkers.reading import Call, Lives, Rates, calls, is_stale
from jepsen.history import Line, Operation, Type
from jepsen.linearizable import judge
from jepsen.verdicts import Verdict

BUDGET_S: Final = 20.0
"""For the search on one key."""

LOCK_REFUSALS: Final = frozenset({"lock_held"})
RELEASE_REFUSALS: Final = frozenset({"stale_token", "not_holder"})
SEMAPHORE_REFUSALS: Final = frozenset({"semaphore_full"})
JOB_REFUSALS: Final = frozenset({"stale_token", "job_not_found"})


class _Linear:
    """One search for each key.

    Args:
        budget_s: for one search.
    """

    def __init__(self, budget_s: float = BUDGET_S) -> None:
        self._budget_s = budget_s


class LinearLocks(_Linear):
    """K1: each lock is one lock."""

    name = "K1 linearizable locks"

    def check(self, lines: Sequence[Line]) -> Verdict:
        keys = _of_sessions(lines, _lock_operations)
        return judge(self.name, models.lock(), keys, lines, self._budget_s)


class LinearSemaphores(_Linear):
    """K1: each semaphore is one semaphore."""

    name = "K1 linearizable semaphores"

    def check(self, lines: Sequence[Line]) -> Verdict:
        keys = _of_sessions(lines, _semaphore_operations)
        return judge(self.name, models.semaphore(), keys, lines, self._budget_s)


class LinearJobs(_Linear):
    """K1: each job lives one life."""

    name = "K1 linearizable jobs"

    def check(self, lines: Sequence[Line]) -> Verdict:
        jobs: dict[str, list[Operation]] = {}
        lost: dict[tuple[str, str], Call] = {}
        found: dict[tuple[str, str], str] = {}
        for call in calls(lines):
            verb = call.f.partition(".")[2]
            if call.f == "job.put":
                if call.is_ok:
                    operation = _operation(call, verb, frozenset())
                    if operation is not None:
                        jobs.setdefault(str(call.answer["job"]), []).append(operation)
                elif call.is_open:
                    lost[call.key, str(call.value.get("body"))] = call
            elif call.f == "job.reserve" and call.is_ok:
                for job in call.answer.get("jobs", ()):
                    id = str(job["job"])
                    found[call.key, str(job.get("body"))] = id
                    jobs.setdefault(id, []).append(_made(call, verb, {}, {"token": job["token"]}))
            elif call.f in {f"job.{one}" for one in JOB_VERBS}:
                operation = _operation(call, verb, JOB_REFUSALS)
                if operation is not None:
                    jobs.setdefault(str(call.value["job"]), []).append(operation)
        for place, call in lost.items():
            if place in found:
                jobs[found[place]].append(_made(call, "put", {}, None))
        known = {id: some for id, some in jobs.items() if any(o.f == "put" for o in some)}
        return judge(self.name, models.job(), known, lines, self._budget_s)


JOB_VERBS: Final = ("touch", "release", "bury", "delete", "cancel", "read")


def _of_sessions(
    lines: Sequence[Line], operations_of: Callable[[Call], Iterator[tuple[str, Operation]]]
) -> dict[str, list[Operation]]:
    """What was done to each thing, and the ends of the sessions that did it."""
    made = calls(lines)
    keys: dict[str, list[Operation]] = {}
    sessions: dict[str, set[str]] = {}
    for call in made:
        for key, operation in operations_of(call):
            keys.setdefault(key, []).append(operation)
            if call.session:
                sessions.setdefault(key, set()).add(call.session)
    _add_ends(keys, sessions, made, lines)
    return keys


def _lock_operations(call: Call) -> Iterator[tuple[str, Operation]]:
    """What a call did to each lock."""
    room, _, verb = call.f.partition(".")
    if room != "lock" or is_stale(call):
        return
    if verb in {"acquire_many", "release_many"}:
        if not call.may_have_happened:
            return
        given = {str(lock["name"]): lock for lock in call.answer.get("locks", ())}
        for lock in call.value.get("locks", ()):
            name, one = str(lock["name"]), verb.removesuffix("_many")
            value = {**lock, "session": call.session}
            result = None if call.is_open else dict(given.get(name, {}))
            yield name, _made(call, one, value, result)
        return
    refusals = {"acquire": LOCK_REFUSALS, "release": RELEASE_REFUSALS}
    operation = _operation(call, verb, refusals.get(verb, frozenset()))
    if operation is not None:
        yield call.key, operation


def _semaphore_operations(call: Call) -> Iterator[tuple[str, Operation]]:
    """What a call did to a semaphore."""
    room, _, verb = call.f.partition(".")
    if room != "semaphore" or is_stale(call):
        return
    refusals = {"acquire": SEMAPHORE_REFUSALS, "release": RELEASE_REFUSALS}
    operation = _operation(call, verb, refusals.get(verb, frozenset()))
    if operation is not None:
        yield call.key, operation


def _operation(call: Call, f: str, refusals: frozenset[str]) -> Operation | None:
    """One operation of a model; None where the answer tells nothing of the thing."""
    if call.is_open:
        return _made(call, f, call.value, None)
    if call.is_ok:
        return _made(call, f, call.value, call.answer)
    if call.code in refusals:
        return _made(call, f, call.value, {**call.answer, "code": call.code})
    return None


def _made(call: Call, f: str, value: Any, result: Any) -> Operation:
    return Operation(
        process=call.process,
        f=f,
        key=call.key,
        value=dict(value),
        result=None if result is None else dict(result),
        outcome=Type.INFO if call.is_open else Type.OK,
        start=call.start,
        end=call.end,
        start_ns=call.start_ns,
        end_ns=None if call.end is None else call.end_ns,
    )


def _add_ends(
    keys: Mapping[str, list[Operation]],
    sessions: Mapping[str, set[str]],
    made: Sequence[Call],
    lines: Sequence[Line],
) -> None:
    """Put in the ends of sessions, at every thing they may hold."""
    lives = Lives(lines, made, Rates.of(lines))
    times = [line.time_ns for line in lines]
    closes: dict[str, list[Call]] = {}
    for call in made:
        if call.f == "session.close" and call.may_have_happened:
            closes.setdefault(call.key, []).append(call)
    for key, operations in keys.items():
        for at, operation in enumerate(operations):
            life = lives.by_session.get(str(operation.value.get("session")))
            if operation.is_open and life is not None and life.ended is not None:
                # Nothing is done in the name of a session that is gone.
                operations[at] = replace(operation, end=life.ended.index)
        for session in sorted(sessions.get(key, ())):
            life = lives.by_session.get(session)
            until_ns = 0 if life is None else life.sure_until_ns
            closings = closes.get(session, ())
            # It ends once: by a close that was asked for, or by its time.
            start = min([bisect_left(times, until_ns), *(call.start for call in closings)])
            ends = [call.end for call in closings if call.end is not None]
            if life is not None and life.ended is not None:
                ends.append(life.ended.index)
            if start < len(lines):
                operations.append(_end(session, start, min(ends, default=None)))


def _end(session: str, start: int, end: int | None) -> Operation:
    """A session takes along what it has, between two lines; open where nobody knows whether."""
    outcome = Type.INFO if end is None else Type.OK
    value = {"session": session}
    return Operation(-1, "end", "", value, None, outcome, start, end, start, end)
