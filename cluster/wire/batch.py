"""Batches: one log entry, its time and its requests, to bytes and back.

RULE: the leader splices the bodies in unread; every node reads them when it applies the entry. A
body that makes no command becomes a request without one and is refused by every node alike: no
command can stop a node. An envelope that makes no sense was not written by a leader of ours and
raises.

    [version, now_ms, wall_ms, [[node, boot, ack, [[seq, body, key, fingerprint], ...]], ...]]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from cluster.machine.commands import Batch, Command, Group, Origin, Request
from cluster.wire import cbor, commands
from cluster.wire.cbor import WireError
from cluster.wire.frames import Count, ForwardedRequest, NodeName

VERSION = 1

BATCH_BYTES_MAX = 64 * 1024 * 1024
"""More than any leader seals into one entry: a bound for memory, not a target."""

_DEPTH_MAX = 5

_TimeMs = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]


class EncodedGroup(msgspec.Struct, frozen=True):
    """The requests of one origin as the leader has them: numbered, the bodies still bytes."""

    origin: Origin
    ack: int
    requests: Sequence[ForwardedRequest]


class _Group(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    node: NodeName
    boot: Count
    ack: Count
    requests: tuple[ForwardedRequest, ...]


class _Envelope(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    version: int
    now_ms: Count
    wall_ms: _TimeMs
    groups: tuple[_Group, ...]


def encode(now_ms: int, wall_ms: int, groups: Sequence[EncodedGroup] = ()) -> bytes:
    """Make one entry of a time and the requests received. Without groups it is a timer."""
    return cbor.encode(
        (
            VERSION,
            now_ms,
            wall_ms,
            [
                (
                    group.origin.node,
                    group.origin.boot,
                    group.ack,
                    [
                        (request.seq, request.body, request.key, request.fingerprint)
                        for request in group.requests
                    ],
                )
                for group in groups
            ],
        )
    )


def decode(data: bytes | memoryview) -> Batch:
    """Read one entry.

    Raises:
        WireError: the envelope is malformed or of another version; bad bodies do not raise.
    """
    value = cbor.decode(data, max_bytes=BATCH_BYTES_MAX, max_depth=_DEPTH_MAX)
    envelope = cbor.convert(value, _Envelope)
    if envelope.version != VERSION:
        raise WireError(f"batch of version {envelope.version}; this node reads {VERSION}")
    return Batch(
        envelope.now_ms,
        envelope.wall_ms,
        tuple(
            Group(
                Origin(group.node, group.boot),
                group.ack,
                tuple(
                    Request(
                        request.seq,
                        _command_or_none(request.body),
                        request.key,
                        request.fingerprint,
                    )
                    for request in group.requests
                ),
            )
            for group in envelope.groups
        ),
    )


def _command_or_none(body: bytes) -> Command | None:
    try:
        return commands.decode(body)
    except WireError:
        return None
