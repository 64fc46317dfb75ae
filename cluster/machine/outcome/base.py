"""What every outcome is made of, and the outcomes that all primitives share.

RULE: values only. A participle for what was done, a noun for what stands against it. Refusals are
values too (`Refusal`), never exceptions: they are replicated, stored and repeated like any answer.
"""

from __future__ import annotations

import msgspec

from cluster.machine.commands import RequestId


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """Base of all outcomes. The integer tag is its number in snapshots: never reuse one."""


class Refusal(Outcome, frozen=True):
    """Base of outcomes that changed nothing: the command surely did not take effect."""


# What stands in the way of anything.


class SessionNotFound(Refusal, frozen=True, tag=5):
    """No session ever had this id."""

    session: str


class SessionExpired(Refusal, frozen=True, tag=6):
    """The session has ended (expired or closed)."""

    session: str


class Queued(Outcome, frozen=True, tag=8):
    """The request stands in a queue; its answer comes later under the same request id.

    `position` counts from 1; 0 where there is no order that the client could be told.
    """

    name: str
    position: int


class StaleToken(Refusal, frozen=True, tag=11):
    """The token is not the one of the present grant."""

    name: str
    token: int
    current_token: int
    kind: str = "lock"


class NotHolder(Refusal, frozen=True, tag=12):
    """The session does not hold the thing."""

    name: str
    session: str
    kind: str = "lock"


class QueueFull(Refusal, frozen=True, tag=13):
    """A limit is reached: `what` is in the plural, as in "sessions" or "waiters of a lock"."""

    what: str
    limit: int


# Requests.


class Abandoned(Outcome, frozen=True, tag=14):
    """The earlier request was taken out of its queue (or had left it before)."""


class Withdrawn(Refusal, frozen=True, tag=15):
    """The request left its queue because its client was gone."""


class KeyReused(Refusal, frozen=True, tag=16):
    """The Idempotency-Key belongs to another request."""

    key: str


class Void(Refusal, frozen=True, tag=17):
    """A late repeat of a settled request, or one from a former life of its node: not applied."""


class Undecodable(Refusal, frozen=True, tag=18):
    """The command's bytes make no command this version knows: not applied."""


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """What one request is told. `Queued` is followed by a second answer some entries later."""

    request: RequestId
    outcome: Outcome


OUTCOMES: tuple[type[Outcome], ...] = (
    SessionNotFound,
    SessionExpired,
    Queued,
    StaleToken,
    NotHolder,
    QueueFull,
    Abandoned,
    Withdrawn,
    KeyReused,
    Void,
    Undecodable,
)
