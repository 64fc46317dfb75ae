"""Answers about semaphores.

RULE: outcome to answer or problem, nothing else; see `base.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from cluster.gateway.replies.base import Answer, Ms, Problem, Reply, Token
from cluster.machine.outcome import Outcome
from cluster.machine.outcome.semaphores import (
    SemaphoreDeleted,
    SemaphoreFull,
    SemaphoreInUse,
    SemaphoreNotFound,
    SemaphoreSet,
    SemaphoreTooSmall,
    UnitsGranted,
    UnitsReleased,
)


class SemaphoreMade(msgspec.Struct, frozen=True):
    """The semaphore has this limit now.

    `held`, `free` and `queue_length` are as they stood when the limit was set: whoever waits and
    fits now is granted right after, in the same step.
    """

    name: str
    limit: int
    created: bool
    resized: bool
    previous_limit: int | None
    held: int
    free: int
    holder_count: int
    queue_length: int


class SemaphoreGone(msgspec.Struct, frozen=True):
    """The semaphore is no more."""

    deleted: bool = True


class SemaphoreGranted(msgspec.Struct, frozen=True):
    """So many units are held, under a token of their own."""

    name: str
    token: Token
    units: int
    session: str


class SemaphoreReleased(msgspec.Struct, frozen=True):
    """So many units of the grant were given back."""

    units: int
    released: bool = True


class SemaphoreFullReason(msgspec.Struct, frozen=True):
    """Why the units are not granted.

    `holders` counts the grants, `holder` has the oldest of them (null: nobody holds any);
    `missing` units have to come back before this request fits; `position` counts from 1.
    """

    name: str
    units: int
    free: int
    missing: int
    limit: int
    holders: int
    holder: str | None
    held_for_ms: Ms
    holder_token: Token | None
    queue_length: int
    position: int


class SemaphoreTooSmallReason(msgspec.Struct, frozen=True):
    """More `units` were asked for than the `limit` allows anybody."""

    name: str
    units: int
    limit: int


class SemaphoreInUseReason(msgspec.Struct, frozen=True):
    """Who holds units (`holder` has the oldest grant), and how many wait."""

    name: str
    holders: int
    holder: str | None
    held_for_ms: Ms
    holder_token: Token | None
    queue_length: int


class SemaphoreNotFoundReason(msgspec.Struct, frozen=True):
    """The name that no semaphore has."""

    name: str


def semaphore_not_found(name: str) -> Problem:
    """Return the refusal for a semaphore that nobody made."""
    return Problem(
        "semaphore_not_found",
        f'there is no semaphore "{name}"; make it by PUT /v1/semaphores/{{name}} with a limit',
        {"name": name},
    )


def _set(outcome: SemaphoreSet) -> Answer:
    previous_limit = outcome.previous_limit
    body = SemaphoreMade(
        name=outcome.name,
        limit=outcome.limit,
        created=outcome.created,
        resized=previous_limit is not None and previous_limit != outcome.limit,
        previous_limit=previous_limit,
        held=outcome.held,
        free=max(0, outcome.limit - outcome.held),
        holder_count=outcome.holders,
        queue_length=outcome.queue_length,
    )
    return Answer(201 if outcome.created else 200, body)


def _deleted(_outcome: SemaphoreDeleted) -> Answer:
    return _DELETED


def _granted(outcome: UnitsGranted) -> Answer:
    body = SemaphoreGranted(outcome.name, outcome.token, outcome.units, outcome.session)
    return Answer(200, body, outcome.token)


def _released(outcome: UnitsReleased) -> Answer:
    return Answer(200, SemaphoreReleased(outcome.units))


def _not_found(outcome: SemaphoreNotFound) -> Answer:
    raise semaphore_not_found(outcome.name)


def _full(outcome: SemaphoreFull) -> Answer:
    free = max(0, outcome.limit - outcome.held)
    missing = max(0, outcome.held + outcome.units - outcome.limit)
    if outcome.limit == 0:
        cure = "it is closed until its limit is raised"
    elif missing:
        cure = f"{missing} have to come back first"
    else:
        cure = "others wait before you"
    held = ""
    if outcome.holder is not None:
        held = (
            f"; the oldest of {outcome.holders} grants is of session {outcome.holder}, "
            f"{outcome.held_for_ms} ms old, under token {outcome.holder_token}"
        )
    raise Problem(
        "semaphore_full",
        f'semaphore "{outcome.name}" has {free} of {outcome.limit} units free, and '
        f"{outcome.units} were asked for: {cure}{held}; {outcome.queue_length} in its queue, "
        f"your position is {outcome.position}; ask with a longer wait or later",
        {
            "name": outcome.name,
            "units": outcome.units,
            "free": free,
            "missing": missing,
            "limit": outcome.limit,
            "holders": outcome.holders,
            "holder": outcome.holder,
            "held_for_ms": outcome.held_for_ms,
            "holder_token": outcome.holder_token,
            "queue_length": outcome.queue_length,
            "position": outcome.position,
        },
    )


def _too_small(outcome: SemaphoreTooSmall) -> Answer:
    raise Problem(
        "semaphore_too_small",
        f'semaphore "{outcome.name}" has {outcome.limit} units, and {outcome.units} were asked '
        "for: that is never granted unless the limit is raised; ask for fewer",
        {"name": outcome.name, "units": outcome.units, "limit": outcome.limit},
    )


def _in_use(outcome: SemaphoreInUse) -> Answer:
    by = f"{outcome.queue_length} wait for it"
    if outcome.holder is not None:
        by = (
            f"{outcome.holders} grants are held, the oldest by session {outcome.holder} for "
            f"{outcome.held_for_ms} ms under token {outcome.holder_token}, and {by}"
        )
    raise Problem(
        "semaphore_in_use",
        f'semaphore "{outcome.name}" cannot be deleted: {by}; close it by a limit of 0 and delete '
        "it when all came back",
        {
            "name": outcome.name,
            "holders": outcome.holders,
            "holder": outcome.holder,
            "held_for_ms": outcome.held_for_ms,
            "holder_token": outcome.holder_token,
            "queue_length": outcome.queue_length,
        },
    )


_DELETED: Final = Answer(200, SemaphoreGone())

REASONS: Final[Mapping[str, type[msgspec.Struct]]] = {
    "semaphore_not_found": SemaphoreNotFoundReason,
    "semaphore_full": SemaphoreFullReason,
    "semaphore_too_small": SemaphoreTooSmallReason,
    "semaphore_in_use": SemaphoreInUseReason,
}

REPLIES: Final[Mapping[type[Outcome], Reply]] = {
    SemaphoreSet: _set,
    SemaphoreDeleted: _deleted,
    UnitsGranted: _granted,
    UnitsReleased: _released,
    SemaphoreNotFound: _not_found,
    SemaphoreFull: _full,
    SemaphoreTooSmall: _too_small,
    SemaphoreInUse: _in_use,
}
