"""Commands of sessions.

RULE: values only; see `base.py`.
"""

from __future__ import annotations

from typing import ClassVar

from cluster.machine.commands.base import (
    Command,
    MetaText,
    Name,
    Nonce,
    SessionId,
    SessionIds,
    TtlMs,
)


class OpenSession(Command, frozen=True, tag=1):
    """Open a session that expires `ttl_ms` after its last accepted renewal.

    `nonce` is drawn by the node that was asked (the machine draws no lots) and becomes part of the
    session's id. `meta` is opaque to the machine: JSON text of the client's object.
    """

    texts: ClassVar[tuple[str, ...]] = ("nonce", "name")

    nonce: Nonce
    ttl_ms: TtlMs
    name: Name | None = None
    meta: MetaText | None = None


class KeepAlive(Command, frozen=True, tag=2):
    """Renew one session for its whole TTL, counted from the time of this entry."""

    session: SessionId


class KeepAliveMany(Command, frozen=True, tag=3):
    """Renew several sessions in one step; those that are gone are named in the outcome."""

    sessions: SessionIds


class CloseSession(Command, frozen=True, tag=4):
    """End a session now. Everything it holds or waits for is freed in the same entry."""

    session: SessionId


COMMANDS: tuple[type[Command], ...] = (OpenSession, KeepAlive, KeepAliveMany, CloseSession)
