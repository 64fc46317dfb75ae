"""What every command is made of, and the entry that carries commands.

RULE: values only. A command is checked for shape where it is decoded (`wire/commands.py`) and for
sense where it is applied; it never carries a clock reading, only lengths of time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, NamedTuple

import msgspec

from cluster.machine import limits

# What a command can carry at all. Bounds are counted in characters here; `wire/commands.py` counts
# bytes, and the gateway explains either to the client before a command is made.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
LengthMs = Annotated[int, msgspec.Meta(ge=0, le=limits.LENGTH_MS_MAX)]
TtlMs = Annotated[int, msgspec.Meta(ge=1, le=limits.LENGTH_MS_MAX)]
Priority = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**32 - 1)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=limits.NAME_BYTES_MAX)]
SessionId = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
Nonce = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
MetaText = Annotated[bytes, msgspec.Meta(max_length=limits.META_BYTES_MAX)]
SessionIds = Annotated[
    tuple[SessionId, ...], msgspec.Meta(max_length=limits.SESSIONS_PER_KEEPALIVE_MAX)
]


class Command(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of all commands. The integer tag is the command's number in the log: never reuse one.

    Attributes:
        texts: fields that hold names: bounded in bytes and without control characters.
    """

    texts: ClassVar[tuple[str, ...]] = ()

    def texts_inside(self) -> Iterable[str]:
        """Names that stand deeper, in lists: they are bounded in the same way."""
        return ()


class Abandon(Command, frozen=True, tag=7):
    """The client of an earlier request of the same origin is gone: take it out of its queue."""

    seq: Count


class Origin(NamedTuple):
    """Who numbered a request: a node, and which of its lives (`boot` rises with every start)."""

    node: str
    boot: int


class RequestId(NamedTuple):
    """Cluster-wide name of one request: repeats of it, however many, take effect once."""

    node: str
    boot: int
    seq: int


class Request(msgspec.Struct, frozen=True):
    """One command as it stands in an entry.

    Attributes:
        seq: number within its origin, rising from 1.
        command: what to do; None where the body could not be decoded (then it is refused).
        key: the client's Idempotency-Key, if it sent one.
        fingerprint: digest of the client's whole request, to tell a repeat from a reused key.
    """

    seq: int
    command: Command | None
    key: str | None = None
    fingerprint: bytes | None = None


class Group(msgspec.Struct, frozen=True):
    """The requests of one origin in one entry.

    Attributes:
        origin: whose requests these are.
        ack: every request of this origin with a smaller number is settled at the origin, or the
            origin knows that it is parked. Answers below need not be remembered any more, and a
            late repeat of a settled one is void; a parked one goes on waiting, and is told once.
        requests: in order of their numbers.
    """

    origin: Origin
    ack: int
    requests: tuple[Request, ...]


class Batch(msgspec.Struct, frozen=True):
    """One log entry: a time and the commands of that time. Empty ones carry nothing but time.

    Attributes:
        now_ms: cluster (lease) time in ms; the machine takes max(its own, this).
        wall_ms: the leader's wall clock in ms since 1970, for schedules and for people.
        groups: requests by origin, in the order the leader received them.
    """

    now_ms: int
    wall_ms: int
    groups: tuple[Group, ...] = ()
