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


class LockHeldReason(msgspec.Struct, frozen=True):
    """Who stands in the way. `holder` is null when only waiters do; `position` counts from 1."""

    name: str
    holder: str | None
    held_for_ms: Ms
    holder_token: Token | None
    queue_length: int
    position: int


def _granted(outcome: outcomes.Granted) -> Answer:
    mode = "shared" if outcome.shared else "exclusive"
    body = LockGranted(outcome.name, outcome.token, mode, outcome.session)
    return Answer(200, body, outcome.token)


def _lock_held(outcome: outcomes.LockHeld) -> Answer:
    if outcome.holder is None:
        by = "waited for by others before you"
    else:
        by = (
            f"held by session {outcome.holder} for {outcome.held_for_ms} ms "
            f"under token {outcome.holder_token}"
        )
    raise Problem(
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


_RELEASED: Final = Answer(200, LockReleased())

REASONS: Final[Mapping[str, type[msgspec.Struct]]] = {"lock_held": LockHeldReason}

REPLIES: Final[Mapping[type[Outcome], Reply]] = {
    outcomes.Granted: _granted,
    outcomes.LockHeld: _lock_held,
    outcomes.Released: _released,
}
