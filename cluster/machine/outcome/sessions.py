"""Outcomes and pictures of sessions.

RULE: values only; see `base.py`.
"""

from __future__ import annotations

import msgspec

from cluster.machine.outcome.base import Outcome


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


class SessionInfo(msgspec.Struct, frozen=True):
    """A read-only picture of one session.

    holds: (kind, name, part, token) in order of grant; part is "" where the name says it all.
    waits: (kind, name, position) in order of arrival.
    """

    session: str
    name: str | None
    meta: bytes | None
    ttl_ms: int
    expires_in_ms: int
    token: int
    holds: tuple[tuple[str, str, str, int], ...]
    waits: tuple[tuple[str, str, int], ...]


OUTCOMES: tuple[type[Outcome], ...] = (Opened, Renewed, RenewedMany, Closed)
