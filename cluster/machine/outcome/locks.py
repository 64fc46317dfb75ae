"""Outcomes and pictures of locks.

RULE: values only; see `base.py`. Numbers 7, 9, 10 and 30 to 39.
"""

from __future__ import annotations

import msgspec

from cluster.machine.outcome.base import Outcome, Refusal


class Granted(Outcome, frozen=True, tag=7):
    """A lock is held by `session` under `token`; the token is larger than any given before."""

    name: str
    session: str
    token: int
    shared: bool


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


class GrantedMany(Outcome, frozen=True, tag=30):
    """Several locks are held by `session`. `locks`: (name, token, shared), rising by name."""

    locks: tuple[tuple[str, int, bool], ...]
    session: str


class LocksHeld(Refusal, frozen=True, tag=31):
    """One of several locks is not to be had now, so none of them was given.

    Attributes:
        first: about the first of them by name that is in the way.
        blocked: all that are in the way.
    """

    first: LockHeld
    blocked: tuple[str, ...]


class ReleasedMany(Outcome, frozen=True, tag=32):
    """The locks were given back; `names` are rising."""

    names: tuple[str, ...]


class LockInfo(msgspec.Struct, frozen=True):
    """A read-only picture of one lock, made for GET and list.

    holders: (session, token, shared, held_for_ms) in order of grant.
    waiters: (session, shared, priority, waited_ms, expires_in_ms) in queue order; the last is how
        long it will still wait.
    """

    name: str
    holders: tuple[tuple[str, int, bool, int], ...]
    waiters: tuple[tuple[str, bool, int, int, int], ...]


OUTCOMES: tuple[type[Outcome], ...] = (
    Granted,
    LockHeld,
    Released,
    GrantedMany,
    LocksHeld,
    ReleasedMany,
)
