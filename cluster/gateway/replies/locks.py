"""Answers about locks.

RULE: outcome to answer or problem, nothing else; see `base.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from cluster.gateway.replies.base import Answer, Ms, Problem, Reply, Token
from cluster.machine import outcome as outcomes
from cluster.machine.outcome import Outcome


class LockGranted(msgspec.Struct, frozen=True):
    """The lock is held. `mode` is exclusive or shared."""

    name: str
    token: Token
    mode: str
    session: str


class LockReleased(msgspec.Struct, frozen=True):
    """The lock was given back."""

    released: bool = True


class GrantedLock(msgspec.Struct, frozen=True):
    """One of several locks."""

    name: str
    token: Token
    mode: str


class LocksGranted(msgspec.Struct, frozen=True):
    """All of the locks are held, in order of name."""

    locks: list[GrantedLock]
    session: str


class LocksReleased(msgspec.Struct, frozen=True):
    """All of the locks were given back."""

    names: list[str]
    released: bool = True


class LockHeldReason(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who stands in the way. `holder` is null when only waiters do; `position` counts from 1.

    `blocked`, where several locks were asked for: all that cannot be had now, of which `name` is
    the first.
    """

    name: str
    holder: str | None
    held_for_ms: Ms
    holder_token: Token | None
    queue_length: int
    position: int
    blocked: list[str] = []


def _granted(outcome: outcomes.Granted) -> Answer:
    mode = "shared" if outcome.shared else "exclusive"
    body = LockGranted(outcome.name, outcome.token, mode, outcome.session)
    return Answer(200, body, outcome.token)


def _granted_many(outcome: outcomes.GrantedMany) -> Answer:
    locks = [
        GrantedLock(name, token, "shared" if shared else "exclusive")
        for name, token, shared in outcome.locks
    ]
    return Answer(200, LocksGranted(locks, outcome.session))


def _lock_held(outcome: outcomes.LockHeld) -> Answer:
    raise _held(outcome)


def _locks_held(outcome: outcomes.LocksHeld) -> Answer:
    problem = _held(outcome.first)
    blocked = list(outcome.blocked)
    detail = f"none of the locks was taken: {problem.detail}"
    raise Problem(problem.code, detail, {**problem.reason, "blocked": blocked})


def _held(outcome: outcomes.LockHeld) -> Problem:
    if outcome.holder is None:
        by = "waited for by others before you"
    else:
        by = (
            f"held by session {outcome.holder} for {outcome.held_for_ms} ms "
            f"under token {outcome.holder_token}"
        )
    return Problem(
        "lock_held",
        f'lock "{outcome.name}" is {by}; {outcome.queue_length} in its queue, '
        f"your position is {outcome.position}; ask with a longer wait or later",
        {
            "name": outcome.name,
            "holder": outcome.holder,
            "held_for_ms": outcome.held_for_ms,
            "holder_token": outcome.holder_token,
            "queue_length": outcome.queue_length,
            "position": outcome.position,
        },
    )


def _released(_outcome: outcomes.Released) -> Answer:
    return _RELEASED


def _released_many(outcome: outcomes.ReleasedMany) -> Answer:
    return Answer(200, LocksReleased(list(outcome.names)))


_RELEASED: Final = Answer(200, LockReleased())

REASONS: Final[Mapping[str, type[msgspec.Struct]]] = {"lock_held": LockHeldReason}

REPLIES: Final[Mapping[type[Outcome], Reply]] = {
    outcomes.Granted: _granted,
    outcomes.LockHeld: _lock_held,
    outcomes.Released: _released,
    outcomes.GrantedMany: _granted_many,
    outcomes.LocksHeld: _locks_held,
    outcomes.ReleasedMany: _released_many,
}
