"""Outcomes and pictures of semaphores.

RULE: values only; see `base.py`. Numbers 20 to 29.
"""

from __future__ import annotations

import msgspec

from cluster.machine.outcome.base import Outcome, Refusal


class SemaphoreSet(Outcome, frozen=True, tag=20):
    """A semaphore has this limit now.

    The numbers are as they stood when the limit was set: whoever waits and fits now is granted
    right after, in the same entry.

    Attributes:
        created: there was none of this name.
        previous_limit: None for a new one.
        held: units, over all grants; more than the limit where that was lowered.
        holders: grants.
        queue_length: waiters.
    """

    name: str
    limit: int
    created: bool
    previous_limit: int | None
    held: int
    holders: int
    queue_length: int


class SemaphoreDeleted(Outcome, frozen=True, tag=21):
    """The semaphore is gone."""

    name: str


class UnitsGranted(Outcome, frozen=True, tag=22):
    """`session` holds so many units under `token`, which is larger than any given before."""

    name: str
    session: str
    token: int
    units: int


class UnitsReleased(Outcome, frozen=True, tag=23):
    """All units of a grant were given back."""

    name: str
    units: int


class SemaphoreNotFound(Refusal, frozen=True, tag=24):
    """Nobody made this semaphore, or it was deleted."""

    name: str


class SemaphoreFull(Refusal, frozen=True, tag=25):
    """There are not enough units free, or others wait before us, or the semaphore is closed.

    Attributes:
        units: asked for.
        held: units, over all grants.
        holders: grants.
        holder: session of the oldest grant; None when nobody holds any.
        held_for_ms: since that grant.
        holder_token: its fencing token.
        queue_length: waiters in the queue without us.
        position: the place we had (after a wait) or would get, counted from 1.
    """

    name: str
    units: int
    held: int
    limit: int
    holders: int
    holder: str | None
    held_for_ms: int
    holder_token: int | None
    queue_length: int
    position: int


class SemaphoreTooSmall(Refusal, frozen=True, tag=26):
    """More units were asked for than there are at all: no wait would help, only another limit."""

    name: str
    units: int
    limit: int


class SemaphoreInUse(Refusal, frozen=True, tag=27):
    """Somebody holds units of the semaphore or waits for them.

    `holder` has the oldest grant; None when nobody holds any and somebody waits.
    """

    name: str
    holders: int
    queue_length: int
    holder: str | None
    held_for_ms: int
    holder_token: int | None


class SemaphoreInfo(msgspec.Struct, frozen=True):
    """A read-only picture of one semaphore, made for GET and list.

    holders: (session, token, units, held_for_ms) in order of grant.
    waiters: (session, units, priority, waited_ms, expires_in_ms) in queue order.
    """

    name: str
    limit: int
    held: int
    holders: tuple[tuple[str, int, int, int], ...]
    waiters: tuple[tuple[str, int, int, int, int], ...]


OUTCOMES: tuple[type[Outcome], ...] = (
    SemaphoreSet,
    SemaphoreDeleted,
    UnitsGranted,
    UnitsReleased,
    SemaphoreNotFound,
    SemaphoreFull,
    SemaphoreTooSmall,
    SemaphoreInUse,
)
