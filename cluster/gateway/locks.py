"""Locks over HTTP: acquire, release, check, get, list.

RULE: JSON or CBOR to command, state to picture; what a lock does is decided in `machine/locks/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from cluster.gateway.checking import CheckToken, TokenChecked
from cluster.gateway.paging import named
from cluster.gateway.replies import LockGranted, LockReleased, Ms, Token
from cluster.gateway.replies.kinds import SESSION_GONE
from cluster.gateway.replies.locks import LocksGranted, LocksReleased
from cluster.gateway.requests import (
    AFTER,
    LIMIT,
    PREFIX,
    WAIT,
    Ask,
    Body,
    Duration,
    Name,
    Priority,
    SessionId,
    bad_request,
    check_name,
    check_session,
    wait_ms,
)
from cluster.gateway.routes import Look, Read, Route, Write, read_query
from cluster.machine import limits
from cluster.machine.commands import AcquireLock, AcquireLocks, ReleaseLock, ReleaseLocks
from cluster.machine.outcome import LockInfo

Mode = Literal["exclusive", "shared"]


class Acquire(Body, frozen=True):
    """Ask for the lock, waiting for it at most `wait`."""

    session: SessionId
    wait: Duration | None = None
    mode: Mode = "exclusive"
    priority: Priority = 0


class Release(Body, frozen=True):
    """Give the lock back. `token` is the one that the grant gave."""

    session: SessionId
    token: Token


class Wanted(Body, frozen=True):
    """One of several locks, and how it is wanted."""

    name: Name
    mode: Mode = "exclusive"


class AcquireMany(Body, frozen=True):
    """Ask for several locks, all or none, waiting for them at most `wait`."""

    session: SessionId
    locks: Annotated[
        list[Wanted], msgspec.Meta(min_length=1, max_length=limits.LOCKS_PER_COMMAND_MAX)
    ]
    wait: Duration | None = None
    priority: Priority = 0


class Given(Body, frozen=True):
    """One of several locks, and the token that its grant gave."""

    name: Name
    token: Token


class ReleaseMany(Body, frozen=True):
    """Give several locks back, all or none."""

    session: SessionId
    locks: Annotated[
        list[Given], msgspec.Meta(min_length=1, max_length=limits.LOCKS_PER_COMMAND_MAX)
    ]


class LockHolder(msgspec.Struct, frozen=True):
    """One who holds the lock."""

    session: str
    token: Token
    mode: Mode
    held_for_ms: Ms


class LockWaiter(msgspec.Struct, frozen=True):
    """One who waits, in queue order; `expires_in_ms` is how long it still will."""

    session: str
    mode: Mode
    priority: int
    position: int
    waited_ms: Ms
    expires_in_ms: Ms


class LockView(msgspec.Struct, frozen=True):
    """One lock; a free one has `mode` null and nobody in it."""

    name: str
    mode: Mode | None
    holders: list[LockHolder]
    waiters: list[LockWaiter]
    queue_length: int
    current_token: Token | None


class LockPage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Locks that are held or waited for, in order of name; `next` goes into `after`."""

    locks: list[LockView]
    next: str | None = None


def acquire(ask: Ask) -> AcquireLock:
    """Make the command of an acquire."""
    body: Acquire = ask.body
    return AcquireLock(
        session=check_session(body.session),
        name=check_name(ask.path["name"], "name"),
        shared=body.mode == "shared",
        priority=body.priority,
        wait_ms=wait_ms(ask),
    )


def release(ask: Ask) -> ReleaseLock:
    """Make the command of a release."""
    body: Release = ask.body
    return ReleaseLock(
        session=check_session(body.session),
        name=check_name(ask.path["name"], "name"),
        token=body.token,
    )


def acquire_many(ask: Ask) -> AcquireLocks:
    """Make the command of an acquire of several."""
    body: AcquireMany = ask.body
    names = _names(body.locks)
    shared = [lock.mode == "shared" for lock in body.locks]
    return AcquireLocks(
        session=check_session(body.session),
        # In order of name: equal questions are equal commands.
        locks=tuple(sorted(zip(names, shared, strict=True))),
        priority=body.priority,
        wait_ms=wait_ms(ask),
    )


def release_many(ask: Ask) -> ReleaseLocks:
    """Make the command of a release of several."""
    body: ReleaseMany = ask.body
    names = _names(body.locks)
    tokens = [lock.token for lock in body.locks]
    return ReleaseLocks(
        session=check_session(body.session),
        locks=tuple(sorted(zip(names, tokens, strict=True))),
    )


def _names(locks: Sequence[Wanted | Given]) -> list[str]:
    """Check the names, each of which may come once."""
    names: dict[str, int] = {}
    for index, lock in enumerate(locks):
        field = f"locks[{index}].name"
        first = names.setdefault(check_name(lock.name, field), index)
        if first != index:
            raise bad_request(field, f"is the same as locks[{first}].name; name each lock once")
    return list(names)


def check(look: Look, ask: Ask) -> TokenChecked:
    """Compare a token with the present grants."""
    name = check_name(ask.path["name"], "name")
    valid, current_token = look.machine.locks.check(name, ask.body.token)
    return TokenChecked(valid, current_token)


def show(look: Look, ask: Ask) -> LockView:
    """Show one lock; a lock that nobody holds or waits for is free, not missing."""
    return _view(look.machine.locks.info(check_name(ask.path["name"], "name"), look.now_ms))


def show_all(look: Look, ask: Ask) -> LockPage:
    """Show a page of locks."""
    found, following = named(
        look.machine.locks,
        look.now_ms,
        ask.query,
        key=lambda info: info.name,
        weight=lambda info: len(info.holders) + len(info.waiters),
    )
    return LockPage([_view(info) for info in found], following)


def _view(info: LockInfo) -> LockView:
    holders = [
        LockHolder(session, token, _mode(shared), held_for_ms)
        for session, token, shared, held_for_ms in info.holders
    ]
    waiters = [
        LockWaiter(session, _mode(shared), priority, position, waited_ms, expires_in_ms)
        for position, (session, shared, priority, waited_ms, expires_in_ms) in enumerate(
            info.waiters, 1
        )
    ]
    mode = holders[0].mode if holders else None
    newest = max((holder.token for holder in holders), default=None)
    return LockView(info.name, mode, holders, waiters, len(waiters), newest)


def _mode(shared: bool) -> Mode:
    return "shared" if shared else "exclusive"


ROUTES: tuple[Route, ...] = (
    Write(
        method="POST",
        path="/v1/locks/acquire",
        summary="Take several locks in one step, all or none, waiting for them at most `wait`.",
        tag="locks",
        body=AcquireMany,
        answer=LocksGranted,
        codes=(*SESSION_GONE, "lock_held", "queue_full", "withdrawn"),
        query=(WAIT,),
        command=acquire_many,
    ),
    Write(
        method="POST",
        path="/v1/locks/release",
        summary="Give several locks back, all or none.",
        tag="locks",
        body=ReleaseMany,
        answer=LocksReleased,
        codes=(*SESSION_GONE, "stale_token", "not_holder"),
        command=release_many,
    ),
    Write(
        method="POST",
        path="/v1/locks/{name}/acquire",
        summary="Take a lock, or stand in its queue for at most `wait`.",
        tag="locks",
        body=Acquire,
        answer=LockGranted,
        codes=(*SESSION_GONE, "lock_held", "queue_full"),
        query=(WAIT,),
        command=acquire,
    ),
    Write(
        method="POST",
        path="/v1/locks/{name}/release",
        summary="Give a lock back, if `token` is still its grant.",
        tag="locks",
        body=Release,
        answer=LockReleased,
        codes=(*SESSION_GONE, "stale_token", "not_holder"),
        command=release,
    ),
    Read(
        method="POST",
        path="/v1/locks/{name}/check",
        summary="Tell whether a token is still a present grant of the lock.",
        tag="locks",
        body=CheckToken,
        answer=TokenChecked,
        query=read_query(),
        view=check,
    ),
    Read(
        method="GET",
        path="/v1/locks/{name}",
        summary="Show who holds a lock and who waits for it, in order.",
        tag="locks",
        answer=LockView,
        query=read_query(),
        view=show,
    ),
    Read(
        method="GET",
        path="/v1/locks",
        summary="List the locks that are held or waited for, in order of name.",
        tag="locks",
        answer=LockPage,
        query=read_query(PREFIX, AFTER, LIMIT),
        view=show_all,
    ),
)
