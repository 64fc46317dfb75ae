"""Batches: one log entry, its time and its requests, to bytes and back.

RULE: the leader splices the bodies in unread; every node reads them when it applies the entry. A
body that makes no command becomes a request without one and is refused by every node alike: no
command can stop a node. An envelope that makes no sense was not written by a leader of ours and
raises.

    [version, now_ms, wall_ms, [[node, boot, ack, [[seq, body, key, fingerprint], ...]], ...]]
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Annotated

import msgspec

from cluster.machine.commands import Batch, Group, Origin, Request
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
    # A list's head tells its length only: what follows it may be made apart.
    times = cbor.encode((VERSION, now_ms, wall_ms))[1:]
    parts = [b"\x84", times, _array_head(len(groups))]
    for group in groups:
        names = cbor.encode((*group.origin, group.ack))[1:]
        parts += (b"\x84", names, _array_head(len(group.requests)))
        for request in group.requests:
            seq, body, key = request.seq, request.body, request.key
            # By hand, as there are many: a head with room for nearly all there are.
            if seq < _SEQ_END and len(body) < _BODY_END:
                parts.append(_REQUEST_HEAD(0x84, 0x1A, seq, 0x59, len(body)))
                parts.append(body)
            else:
                parts += (b"\x84", cbor.encode(seq), cbor.encode(body))
            if key is None and request.fingerprint is None:
                parts.append(b"\xf6\xf6")
            else:
                parts += (cbor.encode(key), cbor.encode(request.fingerprint))
    return b"".join(parts)


def decode(data: bytes | memoryview) -> Batch:
    """Read one entry.

    Raises:
        WireError: the envelope is malformed or of another version; bad bodies do not raise.
    """
    value = cbor.decode(data, max_bytes=BATCH_BYTES_MAX, max_depth=_DEPTH_MAX)
    envelope = cbor.convert(value, _Envelope)
    if envelope.version != VERSION:
        raise WireError(f"batch of version {envelope.version}; this node reads {VERSION}")
    return Batch(envelope.now_ms, envelope.wall_ms, tuple([_read(g) for g in envelope.groups]))


def _read(group: _Group) -> Group:
    requests = group.requests
    found = commands.decode_each([request.body for request in requests])
    return Group(
        Origin(group.node, group.boot),
        group.ack,
        # Of lists: a generator costs as much again as what it generates.
        tuple(
            [
                Request(request.seq, command, request.key, request.fingerprint)
                for request, command in zip(requests, found, strict=True)
            ]
        ),
    )


def _array_head(count: int) -> bytes:
    return bytes([0x80 + count]) if count < 24 else _ARRAY_HEAD(0x9A, count)


_ARRAY_HEAD = struct.Struct(">BI").pack
_REQUEST_HEAD = struct.Struct(">BBIBH").pack
_SEQ_END = 1 << 32
_BODY_END = 1 << 16
