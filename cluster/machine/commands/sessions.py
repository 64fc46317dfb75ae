"""Commands of sessions.

RULE: values only; see `base.py`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from cluster.machine import ksuids
from cluster.machine.commands.base import (
    Command,
    LengthMs,
    MetaText,
    Name,
    Nonce,
    SessionId,
    SessionIds,
    TtlMs,
)

KsuidSeed = Annotated[bytes, msgspec.Meta(min_length=ksuids.SEED_BYTES, max_length=ksuids.BYTES)]


class OpenSession(Command, frozen=True, tag=1):
    """Open a session that expires `ttl_ms` after its last accepted renewal.

    `nonce` is drawn by the node that was asked (the machine draws no lots) and becomes part of the
    session's id. `meta` is opaque to the machine: JSON text of the client's object.

    Attributes:
        sweep_ms: above 0 it ends at multiples of this only, the first at or after its deadline; and
            what it leaves behind when it is closed goes at the next one.
        ksuid: seed of an id of that kind (`ksuids.py`), in which case `nonce` plays no part; or,
            with all its bytes, the id of a session that is taken over from elsewhere: opening it
            again while it lives changes nothing.
    """

    texts: ClassVar[tuple[str, ...]] = ("nonce", "name")

    nonce: Nonce
    ttl_ms: TtlMs
    name: Name | None = None
    meta: MetaText | None = None
    sweep_ms: LengthMs = 0
    ksuid: KsuidSeed | None = None


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
