"""What can be asked of the machine: one frozen value per command, and the entry that carries them.

RULE: values only. A command is checked for shape where it is decoded (`wire/commands.py`) and for
sense where it is applied; it never carries a clock reading, only lengths of time.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class Command(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of all commands. The integer tag is the command's number in the log: never reuse one."""


class OpenSession(Command, tag=1):
    """Open a session that expires `ttl_ms` after its last accepted renewal.

    `nonce` is drawn by the node that was asked (the machine draws no lots) and becomes part of the
    session's id. `meta` is opaque to the machine: JSON text of the client's object.
    """

    nonce: str
    ttl_ms: int
    name: str | None = None
    meta: bytes | None = None


class KeepAlive(Command, tag=2):
    """Renew one session for its whole TTL, counted from the time of this entry."""

    session: str


class KeepAliveMany(Command, tag=3):
    """Renew several sessions in one step; those that are gone are named in the outcome."""

    sessions: tuple[str, ...]


class CloseSession(Command, tag=4):
    """End a session now. Everything it holds or waits for is freed in the same entry."""

    session: str


class AcquireLock(Command, tag=5):
    """Ask for a lock; with `wait_ms` > 0 stand in its queue for at most that long.

    `priority`: smaller goes first, as in beanstalkd; equal ones in order of arrival.
    """

    session: str
    name: str
    shared: bool = False
    priority: int = 0
    wait_ms: int = 0


class ReleaseLock(Command, tag=6):
    """Give a lock back. Conditional on the fencing token of the grant."""

    session: str
    name: str
    token: int


class Abandon(Command, tag=7):
    """The client of an earlier request of the same origin is gone: take it out of its queue."""

    seq: int


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
        ack: every request of this origin with a smaller number is settled at the origin; its
            answer need not be remembered any more, and a late repeat of it is void.
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


MACHINE_COMMANDS = (
    OpenSession,
    KeepAlive,
    KeepAliveMany,
    CloseSession,
    AcquireLock,
    ReleaseLock,
    Abandon,
)
