"""Models: what one thing may answer when asked one thing after another.

RULE: pure functions over small frozen states. An answer is checked as far as it tells something; an
open operation (no answer is known) does what it would do if it happened now.

Operations are `f` without its room ("acquire"), `value` as asked, `result` as answered. A refusal
is a result with a `code`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, NamedTuple, TypeAlias, TypeVar

from jepsen.history import Operation
from jepsen.linearizable import Model, nondeterministic

UNKNOWN = 0
"""A token that was given, but never heard of."""


def refused(result: Any) -> str:
    """The code of a refusal; empty where it is none."""
    return str(result.get("code") or "") if isinstance(result, dict) else ""


# A register: "read" → value; "write" value; "cas" [from, to] → whether it did.


def _register_step(state: Any, operation: Operation) -> tuple[bool, Any]:
    if operation.f == "write":
        return True, operation.value
    if operation.f == "cas":
        wanted, new = operation.value
        swaps = state == wanted
        after = new if swaps else state
        return operation.is_open or operation.result == swaps, after
    return operation.is_open or operation.result == state, state


def _register_topics(operation: Operation) -> Iterable[Hashable]:
    if operation.f == "cas":
        return tuple(operation.value)
    return (operation.value if operation.f == "write" else operation.result,)


def _is_read(operation: Operation) -> bool:
    return operation.f == "read"


def register(initial: Hashable = None) -> Model[Any]:
    """One value, that is read, written, and compared and set."""
    return Model("register", initial, _register_step, _register_topics, _is_read)


# A set: "add" element, "remove" element, "read" → elements.


def _set_step(state: frozenset[Any], operation: Operation) -> tuple[bool, frozenset[Any]]:
    if operation.f == "add":
        return True, state | {operation.value}
    if operation.f == "remove":
        return True, state - {operation.value}
    return operation.is_open or frozenset(operation.result) == state, state


def _set_topics(operation: Operation) -> Iterable[Hashable]:
    return () if operation.f == "read" else (operation.value,)


def grow_set() -> Model[frozenset[Any]]:
    """Elements that come, go and are listed."""
    return Model("set", frozenset(), _set_step, _set_topics, _is_read)


# A counter: "add" number, "read" → sum.


def _counter_step(state: int, operation: Operation) -> tuple[bool, int]:
    if operation.f == "add":
        return True, state + int(operation.value)
    return operation.is_open or operation.result == state, state


def counter(initial: int = 0) -> Model[int]:
    """A sum that is added to."""
    return Model("counter", initial, _counter_step, is_pure=_is_read)


# A lock. Its grants, in the order of their tokens.


class Grant(NamedTuple):
    """One grant of a lock; the token is UNKNOWN until somebody heard of it."""

    session: str
    token: int
    shared: bool


class LockState(NamedTuple):
    """Grants that are out, the last token that was heard of, and the sessions that have ended."""

    grants: tuple[Grant, ...] = ()
    last: int = 0
    gone: frozenset[str] = frozenset()


LockStep: TypeAlias = tuple[bool, LockState]


def _lock_step(state: LockState, operation: Operation) -> LockStep:
    match operation.f:
        case "acquire":
            return _acquire(state, operation)
        case "release":
            return _release(state, operation)
        case "end":
            return True, _without(state, operation)
        case "check":
            return _check(state, operation), state
        case _:
            return _read(state, operation)


def _acquire(state: LockState, operation: Operation) -> LockStep:
    value, result = operation.value, operation.result
    session = value["session"]
    shared = value.get("mode", "exclusive") == "shared"
    own = next((grant for grant in state.grants if grant.session == session), None)
    others = [grant for grant in state.grants if grant.session != session]
    if refused(result):
        holder = result.get("holder_token")
        tokens = [grant.token for grant in state.grants]
        # A free lock refuses only for those who wait before, and then names no holder.
        is_possible = holder is None or holder in tokens or UNKNOWN in tokens
        return is_possible, state
    if session in state.gone:
        return False, state
    if own is not None and (shared or not own.shared):
        # It has what it asks for, and is told so.
        if operation.is_open or result["token"] == own.token:
            return True, state
        if own.token == UNKNOWN and all(result["token"] != grant.token for grant in others):
            # Sharers that came later may have newer ones.
            learned = own._replace(token=result["token"])
            return True, _with(state, others, learned, max(state.last, result["token"]))
        return False, state
    if any(not (shared and grant.shared) for grant in others):
        return False, state
    if operation.is_open:
        return True, _with(state, others, Grant(session, UNKNOWN, shared), state.last)
    token = result["token"]
    if token <= state.last:
        return False, state
    return True, _with(state, others, Grant(session, token, shared), token)


def _with(state: LockState, others: list[Grant], grant: Grant, last: int) -> LockState:
    return state._replace(grants=tuple(sorted([*others, grant])), last=last)


def _release(state: LockState, operation: Operation) -> LockStep:
    session, token = operation.value["session"], operation.value["token"]
    own = next((grant for grant in state.grants if grant.session == session), None)
    fits = own is not None and own.token in {token, UNKNOWN}
    if refused(operation.result):
        return own is None or own.token != token, state
    if not fits:
        return operation.is_open, state
    return True, state._replace(grants=tuple(g for g in state.grants if g is not own))


def _check(state: LockState, operation: Operation) -> bool:
    if operation.is_open or refused(operation.result):
        return True
    tokens = [grant.token for grant in state.grants]
    valid: bool = operation.result["valid"]
    if UNKNOWN in tokens:
        return valid or operation.value["token"] not in tokens
    current: int | None = operation.result.get("current_token")
    return valid == (operation.value["token"] in tokens) and current == max(tokens, default=None)


def _read(state: LockState, operation: Operation) -> LockStep:
    if operation.is_open or refused(operation.result):
        return True, state
    told = {holder["session"]: holder for holder in operation.result["holders"]}
    if set(told) != {grant.session for grant in state.grants}:
        return False, state
    grants, last = [], state.last
    for grant in state.grants:
        holder = told[grant.session]
        if (holder.get("mode", "exclusive") == "shared") != grant.shared:
            return False, state
        if grant.token == UNKNOWN:
            grant = grant._replace(token=holder["token"])
            last = max(last, grant.token)
        elif grant.token != holder["token"]:
            return False, state
        grants.append(grant)
    return True, state._replace(grants=tuple(sorted(grants)), last=last)


S = TypeVar("S", LockState, "SemaphoreState")


def _without(state: S, end: Operation) -> S:
    """A session ends: what it had is free, and it never gets anything again.

    The last is not held against one that may have ended, or not: an end of nothing is then nothing,
    and the search need not try it.
    """
    session = end.value["session"]
    kept = tuple(grant for grant in state.grants if grant.session != session)
    gone = state.gone if end.is_open else state.gone | {session}
    return state._replace(grants=kept, gone=gone)


def _lock_is_past(state: LockState, operation: Operation) -> bool:
    is_grant = operation.f == "acquire" and not refused(operation.result)
    return is_grant and operation.value["session"] in state.gone


def _lock_topics(operation: Operation) -> Iterable[Hashable]:
    if operation.f == "acquire" and operation.is_open:
        return (("session", operation.value["session"]),)
    if operation.f == "acquire" and not operation.is_open:
        return (("token", operation.result.get("token") or operation.result.get("holder_token")),)
    if operation.f in {"release", "check"}:
        return (("token", operation.value["token"]),)
    return _shown(operation)


def _shown(operation: Operation) -> Iterable[Hashable]:
    """Tokens of a read."""
    if operation.f != "read" or operation.is_open or refused(operation.result):
        return ()
    holders = operation.result["holders"]
    tokens = [("token", holder["token"]) for holder in holders]
    return [*tokens, *(("session", holder["session"]) for holder in holders)]


def _lock_is_pure(operation: Operation) -> bool:
    return operation.f in {"read", "check"} or bool(refused(operation.result))


def lock() -> Model[LockState]:
    """A lock with owner and token: "acquire" {session, mode}, "release" {session, token}, "check"
    {token}, "read", and "end" {session}, after which the session has nothing any more.
    """
    return Model("lock", LockState(), _lock_step, _lock_topics, _lock_is_pure, _lock_is_past)


# A semaphore.


class Units(NamedTuple):
    """One grant of units."""

    token: int
    session: str
    units: int


class SemaphoreState(NamedTuple):
    """Limit, None before it was made; the grants that are out, the last token, who has ended."""

    limit: int | None = None
    grants: tuple[Units, ...] = ()
    last: int = 0
    gone: frozenset[str] = frozenset()

    @property
    def held(self) -> int:
        """Units that are out."""
        return sum(grant.units for grant in self.grants)


def _semaphore_step(state: SemaphoreState, operation: Operation) -> tuple[bool, SemaphoreState]:
    match operation.f:
        case "set":
            return True, state._replace(limit=operation.value["limit"])
        case "acquire":
            return _take(state, operation)
        case "release":
            return _give(state, operation)
        case "end":
            return True, _without(state, operation)
        case _:
            return _look(state, operation)


def _take(state: SemaphoreState, operation: Operation) -> tuple[bool, SemaphoreState]:
    value, result = operation.value, operation.result
    units = value.get("units", 1)
    if refused(result):
        free = result.get("free")
        if free is None or state.limit is None:
            return True, state
        is_told = result.get("limit", state.limit) == state.limit
        return is_told and free == max(0, state.limit - state.held), state
    if state.limit is None or state.held + units > state.limit or value["session"] in state.gone:
        return False, state
    if operation.is_open:
        grant = Units(UNKNOWN, value["session"], units)
        return True, state._replace(grants=tuple(sorted([*state.grants, grant])))
    token = result["token"]
    if token <= state.last:
        return False, state
    grants = tuple(sorted([*state.grants, Units(token, value["session"], units)]))
    return True, state._replace(grants=grants, last=token)


def _give(state: SemaphoreState, operation: Operation) -> tuple[bool, SemaphoreState]:
    session, token = operation.value["session"], operation.value["token"]
    found = next((g for g in state.grants if g.token == token and g.session == session), None)
    if refused(operation.result):
        return found is None, state
    if found is None:
        # One that nobody heard of may have been given back by who read of it.
        found = next((g for g in state.grants if g.token == UNKNOWN and g.session == session), None)
    if found is None:
        return operation.is_open, state
    grants = list(state.grants)
    grants.remove(found)
    return True, state._replace(grants=tuple(grants))


def _look(state: SemaphoreState, operation: Operation) -> tuple[bool, SemaphoreState]:
    result = operation.result
    if operation.is_open or refused(result):
        return True, state
    told = sorted((h["session"], h.get("units", 1)) for h in result["holders"])
    if told != sorted((g.session, g.units) for g in state.grants):
        return False, state
    tokens = {h["token"] for h in result["holders"]}
    if any(g.token != UNKNOWN and g.token not in tokens for g in state.grants):
        return False, state
    return result["limit"] == state.limit, state


def _semaphore_is_past(state: SemaphoreState, operation: Operation) -> bool:
    if operation.f != "acquire" or refused(operation.result):
        return False
    token, session = operation.result["token"], operation.value["session"]
    return bool(token <= state.last) or session in state.gone


def _semaphore_topics(operation: Operation) -> Iterable[Hashable]:
    if operation.f == "acquire" and operation.is_open:
        return (("session", operation.value["session"]),)
    if operation.f == "acquire" and not operation.is_open and not refused(operation.result):
        return (("token", operation.result["token"]),)
    if operation.f == "release":
        return (("token", operation.value["token"]),)
    return _shown(operation)


def semaphore() -> Model[SemaphoreState]:
    """Units under a limit: "set" {limit}, "acquire" {session, units}, "release" {session, token},
    "read", "end" {session}.
    """
    return Model(
        "semaphore",
        SemaphoreState(),
        _semaphore_step,
        _semaphore_topics,
        _lock_is_pure,
        _semaphore_is_past,
    )


# One job.


class JobState(NamedTuple):
    """Where a job stands.

    Attributes:
        stage: "none", "idle" (ready, delayed or buried), "reserved", "gone".
        token: of its reservation; UNKNOWN if nobody heard of it.
        last: newest token that was heard of.
    """

    stage: str = "none"
    token: int = 0
    last: int = 0


def _job_steps(state: JobState, operation: Operation) -> Iterable[JobState]:
    f, result, is_open = operation.f, operation.result, operation.is_open
    if f == "put":
        return (JobState("idle"),) if state.stage == "none" else ()
    if state.stage == "none":
        return ()
    if f == "reserve":
        if state.stage == "gone" or result["token"] <= state.last:
            return ()
        # A reservation before it may be over by its time, unseen.
        return (JobState("reserved", result["token"], result["token"]),)
    if f == "cancel":
        return _cancel(state, operation)
    if f == "read":
        is_there = not refused(result)
        return (state,) if is_open or is_there == (state.stage != "gone") else ()
    # What is done to a reserved job is conditional on its token.
    is_mine = state.stage == "reserved" and state.token == operation.value["token"]
    if refused(result) or (is_open and not is_mine):
        # It may be over by its time at any moment, so a refusal is never surely wrong.
        return (state,)
    if not is_mine:
        return ()
    if f == "touch":
        return (state,)
    return (state._replace(stage="gone" if f == "delete" else "idle", token=UNKNOWN),)


def _cancel(state: JobState, operation: Operation) -> Iterable[JobState]:
    result = operation.result
    gone = state._replace(stage="gone", token=UNKNOWN)
    if operation.is_open:
        return (gone,) if state.stage == "idle" else (gone, state)
    if refused(result) or not result["cancelled"]:
        # It was reserved, or gone; or reserved by somebody whom nobody heard of.
        return (state,)
    return (gone,) if state.stage != "gone" else ()


def _job_topics(operation: Operation) -> Iterable[Hashable]:
    if operation.f == "reserve" and not operation.is_open:
        return (("token", operation.result["token"]),)
    if isinstance(operation.value, dict) and "token" in operation.value:
        return (("token", operation.value["token"]),)
    return ()


def _is_look(operation: Operation) -> bool:
    return operation.f in {"read", "touch"} or bool(refused(operation.result))


def job() -> Model[frozenset[JobState]]:
    """The life of one job: "put", "reserve" → {token}, "touch", "release", "bury" and "delete"
    {token}, "cancel" → {cancelled}, "read". It may be reserved by the unheard, and reservations end
    by time, so it is in one of several states.
    """
    return nondeterministic("job", (JobState(),), _job_steps, _job_topics, _is_look)
