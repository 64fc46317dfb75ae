"""Semaphores over HTTP: make, resize, delete, acquire, release, check, get, list.

RULE: JSON or CBOR to command, state to picture; what a semaphore does is decided in
`machine/semaphores.py`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from cluster.gateway.checking import CheckToken, TokenChecked
from cluster.gateway.paging import named
from cluster.gateway.replies import Ms, Token
from cluster.gateway.replies.kinds import SESSION_GONE
from cluster.gateway.replies.semaphores import (
    SemaphoreGone,
    SemaphoreGranted,
    SemaphoreMade,
    SemaphoreReleased,
    semaphore_not_found,
)
from cluster.gateway.requests import (
    AFTER,
    LIMIT,
    PREFIX,
    WAIT,
    Ask,
    Body,
    Duration,
    Priority,
    SessionId,
    check_name,
    check_session,
    wait_ms,
)
from cluster.gateway.routes import Look, Read, Route, Write, read_query
from cluster.machine.commands.semaphores import (
    AcquireSemaphore,
    DeleteSemaphore,
    ReleaseSemaphore,
    SetSemaphore,
)
from cluster.machine.limits import SEMAPHORE_LIMIT_MAX
from cluster.machine.outcome.semaphores import SemaphoreInfo

SemaphoreLimit = Annotated[
    int,
    msgspec.Meta(
        ge=0, le=SEMAPHORE_LIMIT_MAX, description="units there are; 0 closes the semaphore"
    ),
]
Units = Annotated[int, msgspec.Meta(ge=1, le=SEMAPHORE_LIMIT_MAX, description="how many to take")]


class SetLimit(Body, frozen=True):
    """Make the semaphore with this limit, or give it this limit."""

    limit: SemaphoreLimit


class AcquireUnits(Body, frozen=True):
    """Ask for units, waiting for them at most `wait`. Each acquire is a grant of its own."""

    session: SessionId
    units: Units = 1
    wait: Duration | None = None
    priority: Priority = 0


class ReleaseUnits(Body, frozen=True):
    """Give units of a grant back, all of them by default; with fewer, the grant keeps the rest.

    `token` is the one that the grant gave.
    """

    session: SessionId
    token: Token
    units: Units | None = None


class SemaphoreHolder(msgspec.Struct, frozen=True):
    """One grant."""

    session: str
    token: Token
    units: int
    held_for_ms: Ms


class SemaphoreWaiter(msgspec.Struct, frozen=True):
    """One who waits, in queue order; `expires_in_ms` is how long it still will."""

    session: str
    units: int
    priority: int
    position: int
    waited_ms: Ms
    expires_in_ms: Ms


class SemaphoreView(msgspec.Struct, frozen=True):
    """One semaphore. `held` may be more than `limit` where that was lowered."""

    name: str
    limit: int
    held: int
    free: int
    holders: list[SemaphoreHolder]
    waiters: list[SemaphoreWaiter]
    queue_length: int
    current_token: Token | None


class SemaphorePage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Semaphores in order of name; `next` goes into `after`."""

    semaphores: list[SemaphoreView]
    next: str | None = None


def put(ask: Ask) -> SetSemaphore:
    """Make the command that makes or resizes."""
    return SetSemaphore(check_name(ask.path["name"], "name"), ask.body.limit)


def delete(ask: Ask) -> DeleteSemaphore:
    """Make the command that deletes."""
    return DeleteSemaphore(check_name(ask.path["name"], "name"))


def acquire(ask: Ask) -> AcquireSemaphore:
    """Make the command of an acquire."""
    body: AcquireUnits = ask.body
    return AcquireSemaphore(
        session=check_session(body.session),
        name=check_name(ask.path["name"], "name"),
        units=body.units,
        priority=body.priority,
        wait_ms=wait_ms(ask),
    )


def release(ask: Ask) -> ReleaseSemaphore:
    """Make the command of a release."""
    body: ReleaseUnits = ask.body
    return ReleaseSemaphore(
        session=check_session(body.session),
        name=check_name(ask.path["name"], "name"),
        token=body.token,
        units=body.units,
    )


def check(look: Look, ask: Ask) -> TokenChecked:
    """Compare a token with the present grants; without the semaphore there are none."""
    name = check_name(ask.path["name"], "name")
    valid, current_token = look.machine.semaphores.check(name, ask.body.token)
    return TokenChecked(valid, current_token)


def show(look: Look, ask: Ask) -> SemaphoreView:
    """Show one semaphore.

    Raises:
        Problem: nobody made it.
    """
    name = check_name(ask.path["name"], "name")
    info = look.machine.semaphores.info(name, look.now_ms)
    if info is None:
        raise semaphore_not_found(name)
    return _view(info)


def show_all(look: Look, ask: Ask) -> SemaphorePage:
    """Show a page of semaphores."""
    found, following = named(
        look.machine.semaphores,
        look.now_ms,
        ask.query,
        key=lambda info: info.name,
        weight=lambda info: 1 + len(info.holders) + len(info.waiters),
    )
    return SemaphorePage([_view(info) for info in found], following)


def _view(info: SemaphoreInfo) -> SemaphoreView:
    return SemaphoreView(
        name=info.name,
        limit=info.limit,
        held=info.held,
        free=max(0, info.limit - info.held),
        holders=[SemaphoreHolder(*holder) for holder in info.holders],
        waiters=[
            SemaphoreWaiter(session, units, priority, position, waited_ms, expires_in_ms)
            for position, (session, units, priority, waited_ms, expires_in_ms) in enumerate(
                info.waiters, 1
            )
        ],
        queue_length=len(info.waiters),
        current_token=info.holders[-1][1] if info.holders else None,
    )


ROUTES: tuple[Route, ...] = (
    Write(
        method="PUT",
        path="/v1/semaphores/{name}",
        summary="Make a semaphore, or give one another limit; 201 where there was none.",
        tag="semaphores",
        body=SetLimit,
        answer=SemaphoreMade,
        also=(201,),
        codes=("queue_full",),
        command=put,
    ),
    Write(
        method="DELETE",
        path="/v1/semaphores/{name}",
        summary="Delete a semaphore that nobody holds or waits for.",
        tag="semaphores",
        answer=SemaphoreGone,
        codes=("semaphore_not_found", "semaphore_in_use"),
        command=delete,
    ),
    Write(
        method="POST",
        path="/v1/semaphores/{name}/acquire",
        summary="Take units of a semaphore, or stand in its queue for at most `wait`.",
        tag="semaphores",
        body=AcquireUnits,
        answer=SemaphoreGranted,
        codes=(
            *SESSION_GONE,
            "semaphore_not_found",
            "semaphore_full",
            "semaphore_too_small",
            "queue_full",
        ),
        query=(WAIT,),
        command=acquire,
    ),
    Write(
        method="POST",
        path="/v1/semaphores/{name}/release",
        summary="Give units of a grant back, all by default, if `token` is still one.",
        tag="semaphores",
        body=ReleaseUnits,
        answer=SemaphoreReleased,
        codes=(*SESSION_GONE, "semaphore_not_found", "stale_token", "not_holder"),
        command=release,
    ),
    Read(
        method="POST",
        path="/v1/semaphores/{name}/check",
        summary="Tell whether a token is still a present grant of the semaphore.",
        tag="semaphores",
        body=CheckToken,
        answer=TokenChecked,
        query=read_query(),
        view=check,
    ),
    Read(
        method="GET",
        path="/v1/semaphores/{name}",
        summary="Show a semaphore: its limit, who holds units and who waits, in order.",
        tag="semaphores",
        answer=SemaphoreView,
        codes=("semaphore_not_found",),
        query=read_query(),
        view=show,
    ),
    Read(
        method="GET",
        path="/v1/semaphores",
        summary="List the semaphores, in order of name.",
        tag="semaphores",
        answer=SemaphorePage,
        query=read_query(PREFIX, AFTER, LIMIT),
        view=show_all,
    ),
)
