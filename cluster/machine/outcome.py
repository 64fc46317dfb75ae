"""What the machine answers: one frozen value per outcome.

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


# Sessions.


class Opened(Outcome, frozen=True, tag=1):
    """A session was opened; `token` is its fencing token."""

    session: str
    ttl_ms: int
    token: int


class Renewed(Outcome, frozen=True, tag=2):
    """A session now expires `expires_in_ms` after the time of this entry."""

    session: str
    expires_in_ms: int


class RenewedMany(Outcome, frozen=True, tag=3):
    """Sessions renewed, in the order asked, as (id, expires_in_ms); `gone` are ended or unknown."""

    alive: tuple[tuple[str, int], ...]
    gone: tuple[str, ...]


class Closed(Outcome, frozen=True, tag=4):
    """A session was ended on request."""

    session: str


class SessionNotFound(Refusal, frozen=True, tag=5):
    """No session ever had this id."""

    session: str


class SessionExpired(Refusal, frozen=True, tag=6):
    """The session has ended (expired or closed)."""

    session: str


# Locks.


class Granted(Outcome, frozen=True, tag=7):
    """A lock is held by `session` under `token`; the token is larger than any given before."""

    name: str
    session: str
    token: int
    shared: bool


class Queued(Outcome, frozen=True, tag=8):
    """The request stands in the lock's queue; its answer comes later under the same request id.

    `position` counts from 1.
    """

    name: str
    position: int


class LockHeld(Refusal, frozen=True, tag=9):
    """Somebody else holds the lock, or waits before us.

    Attributes:
        holder: session that has held it longest; None when only waiters stand before us.
        held_for_ms: since its grant.
        holder_token: its fencing token.
        queue_length: waiters in the queue without us.
        position: the place we had (after a wait) or would get, counted from 1.
    """

    name: str
    holder: str | None
    held_for_ms: int
    holder_token: int | None
    queue_length: int
    position: int


class Released(Outcome, frozen=True, tag=10):
    """The lock was given back."""

    name: str


class StaleToken(Refusal, frozen=True, tag=11):
    """The token is not the one of the present grant."""

    name: str
    token: int
    current_token: int


class NotHolder(Refusal, frozen=True, tag=12):
    """The session does not hold the lock."""

    name: str
    session: str


class QueueFull(Refusal, frozen=True, tag=13):
    """A limit is reached: `what` is in the plural.

    One of "sessions", "locks", "waiters of a lock", "things of a session", "parked requests".
    """

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


class LockInfo(msgspec.Struct, frozen=True):
    """A read-only picture of one lock, made for GET and list.

    holders: (session, token, shared, held_for_ms) in order of grant.
    waiters: (session, shared, priority, waited_ms, expires_in_ms) in queue order; the last is how
        long it will still wait.
    """

    name: str
    holders: tuple[tuple[str, int, bool, int], ...]
    waiters: tuple[tuple[str, bool, int, int, int], ...]


class SessionInfo(msgspec.Struct, frozen=True):
    """A read-only picture of one session.

    holds: (kind, name, token) in order of grant, kind is "lock".
    waits: (kind, name, position) in order of arrival.
    """

    session: str
    name: str | None
    meta: bytes | None
    ttl_ms: int
    expires_in_ms: int
    token: int
    holds: tuple[tuple[str, str, int], ...]
    waits: tuple[tuple[str, str, int], ...]


MACHINE_OUTCOMES = (
    Opened,
    Renewed,
    RenewedMany,
    Closed,
    SessionNotFound,
    SessionExpired,
    Granted,
    Queued,
    LockHeld,
    Released,
    StaleToken,
    NotHolder,
    QueueFull,
    Abandoned,
    Withdrawn,
    KeyReused,
    Void,
    Undecodable,
)
