"""What one node says to another: one frozen value per message, and its bytes.

RULE: values and their bytes, no I/O. A message is a CBOR array whose first item is the tag; every
field of what a peer sent is checked for type and range before a message leaves this module.

Raft terms follow Ongaro & Ousterhout, "In Search of an Understandable Consensus Algorithm" (2014)
and Ongaro's thesis (pre-vote 9.6, read index 6.4, leadership transfer 3.10).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from cluster.wire import cbor
from cluster.wire.cbor import WireError

# Log positions, terms, counters: what a signed 64 bit field holds, with room to add one.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
NodeName = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Key = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Fingerprint = Annotated[bytes, msgspec.Meta(max_length=64)]
Word = Annotated[str, msgspec.Meta(max_length=64)]
Text = Annotated[str, msgspec.Meta(max_length=1024)]


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of all peer messages."""


class RaftMessage(Message, frozen=True):
    """Base of the messages that go to the engine; `term` is the sender's term when it was made."""

    term: Count


class Append(RaftMessage, frozen=True, tag=1):
    """AppendEntries. `beat` numbers the leader's heartbeats; the answer echoes it (read index).

    Beat 0 is a notice of a commit: without entries it is answered only where the logs differ.

    entries: (index, term, command), contiguous, starting at prev_index + 1.
    """

    beat: Count
    commit_index: Count
    prev_index: Count
    prev_term: Count
    entries: tuple[tuple[Count, Count, bytes], ...]


class SnapshotHead(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Identity of a snapshot file: last entry it includes, the one before, size in bytes, CRC-32."""

    index: Count
    term: Count
    previous_index: Count
    previous_term: Count
    size: Count
    crc: Annotated[int, msgspec.Meta(ge=0, lt=2**32)]


class Snapshot(RaftMessage, frozen=True, tag=2):
    """InstallSnapshot, one chunk; with `head` None it only says "a snapshot is needed, wait"."""

    beat: Count
    head: SnapshotHead | None
    offset: Count
    data: bytes


class AppendAnswer(RaftMessage, frozen=True, tag=3):
    """Answer to Append: where the leader should go on, and whether the entries were taken."""

    beat: Count
    next_index: Count
    reset: bool
    success: bool


class SnapshotAnswer(RaftMessage, frozen=True, tag=4):
    """Acknowledges snapshot bytes below `offset` of the snapshot whose last entry is `index`."""

    beat: Count
    index: Count
    offset: Count


class VoteRequest(RaftMessage, frozen=True, tag=5):
    """RequestVote. `handover`: the leader itself asked for this election."""

    last_index: Count
    last_term: Count
    handover: bool


class VoteAnswer(RaftMessage, frozen=True, tag=6):
    """A granted vote in `term` (refusals are not sent)."""


class PreVoteRequest(RaftMessage, frozen=True, tag=7):
    """Would you vote for me in `next_term`? Changes nothing at the receiver."""

    next_term: Count
    last_index: Count
    last_term: Count
    nonce: Count


class PreVoteAnswer(RaftMessage, frozen=True, tag=8):
    """A granted pre-vote; `nonce` is the one of the question."""

    nonce: Count


class TimeoutNow(RaftMessage, frozen=True, tag=9):
    """TimeoutNow: start an election at once, if your log ends at `last_index`."""

    last_index: Count


class TermNotice(RaftMessage, frozen=True, tag=10):
    """Your term is old; mine is `term`."""


# Between nodes, above Raft.


class ForwardedRequest(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One encoded command on its way to the leader (see `Request`)."""

    seq: Count
    body: bytes
    key: Key | None = None
    fingerprint: Fingerprint | None = None


class Forward(Message, frozen=True, tag=20):
    """Commands for the leader's log, from the node that took them. No answer: see `Refused`."""

    boot: Count
    ack: Count
    requests: tuple[ForwardedRequest, ...]


class Refused(Message, frozen=True, tag=21):
    """The receiver of a Forward did not take these requests: `reason` is an error code."""

    boot: Count
    seqs: tuple[Count, ...]
    reason: Word


class ReadRequest(Message, frozen=True, tag=22):
    """Ask the leader up to which index a read must wait to be linearizable."""

    id: Count


class ReadAnswer(Message, frozen=True, tag=23):
    """Read at or after `index`; None: not the leader (any more)."""

    id: Count
    index: Count | None


class Status(Message, frozen=True, tag=24):
    """A node about itself, sent to every peer about twice a second and on each change of role.

    now_ms: cluster time on a leader's clock; 0 on anybody else.
    """

    boot: Count
    role: Word
    term: Count
    commit_index: Count
    applied_index: Count
    digest: Text
    http: Text
    version: Word
    fronts: Annotated[dict[Word, Text], msgspec.Meta(max_length=64)] = {}
    now_ms: Count = 0


class TransferRequest(Message, frozen=True, tag=25):
    """Ask the leader to hand leadership over to `to` (None: to whoever is best)."""

    id: Count
    to: NodeName | None


class TransferAnswer(Message, frozen=True, tag=26):
    """`error` None: leadership was handed to `leader`."""

    id: Count
    leader: NodeName | None
    error: Text | None


RAFT_MESSAGES = (
    Append,
    Snapshot,
    AppendAnswer,
    SnapshotAnswer,
    VoteRequest,
    VoteAnswer,
    PreVoteRequest,
    PreVoteAnswer,
    TimeoutNow,
    TermNotice,
)
NODE_MESSAGES = (
    Forward,
    Refused,
    ReadRequest,
    ReadAnswer,
    Status,
    TransferRequest,
    TransferAnswer,
)


# Bytes.

# Every message fits: an append carries less than 4 MiB of commands before its last entry, an entry
# is below 4 MiB, and 200,000 timer entries of 20 bytes need as much again for their heads.
FRAME_BYTES_MAX = 16 * 2**20

# A hostile frame of empty arrays would become sixty times its size in memory. Below this size that
# does not matter; above it the items are counted before anything is built.
_UNCOUNTED_BYTES = 256 * 2**10
_ITEMS_MAX = 2**20
_DEPTH_MAX = 6

_TYPES: dict[int, type[Message]] = {
    kind.__struct_config__.tag: kind  # type: ignore[misc]
    for kind in RAFT_MESSAGES + NODE_MESSAGES
}
_TAGS = {kind: tag for tag, kind in _TYPES.items()}

# Messages that carry bulk are packed by hand with integers of fixed width, which any CBOR reader
# accepts: one call per entry instead of one per integer, and the command bytes are copied once.
_APPEND_HEAD = struct.Struct(">3sQsQsQsQsQsI").pack
_ENTRY_HEAD = struct.Struct(">2sQsQsI").pack
_BYTES_HEAD = struct.Struct(">sI").pack
_FORWARD_HEAD = struct.Struct(">3sQsQsI").pack
_REQUEST_HEAD = struct.Struct(">2sQsI").pack


def encode(message: Message) -> bytes:
    """One message as the payload of a frame.

    Values are not checked here, the receiver does that: a message out of range is our own bug, and
    costs the frame, not the peer.

    Raises:
        WireError: an integer that no CBOR field of ours holds.
    """
    kind = type(message)
    try:
        if kind is Append:
            return _encode_append(message)  # type: ignore[arg-type]
        if kind is Snapshot:
            return _encode_snapshot(message)  # type: ignore[arg-type]
        if kind is Forward:
            return _encode_forward(message)  # type: ignore[arg-type]
        return cbor.encode([_TAGS[kind], *msgspec.structs.astuple(message)])
    except struct.error as error:
        raise WireError(f"{kind.__name__}: {error}") from None


def decode(data: bytes) -> Message:
    """The message in one frame's payload, every field checked.

    Raises:
        WireError: anything but one well-formed message. Nothing else is ever raised for any bytes.
    """
    if len(data) > _UNCOUNTED_BYTES:
        _count_items(data)
    value = cbor.decode(data, max_bytes=FRAME_BYTES_MAX, max_depth=_DEPTH_MAX)
    # bool is an int to a dictionary: True would find the first message.
    if type(value) is not list or not value or type(value[0]) is not int:
        raise WireError("a peer message is an array that starts with its tag")
    kind = _TYPES.get(value[0])
    if kind is None:
        raise WireError(f"unknown peer message {value[0]}")
    try:
        # Without builtin_types text would pass for bytes, as base64.
        message = msgspec.convert(value, kind, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise WireError(f"{kind.__name__}: {error}") from None
    check = _CHECKS.get(kind)
    if check is not None:
        check(message)
    return message


def _encode_append(message: Append) -> bytes:
    parts = [
        _APPEND_HEAD(
            b"\x87\x01\x1b",
            message.term,
            b"\x1b",
            message.beat,
            b"\x1b",
            message.commit_index,
            b"\x1b",
            message.prev_index,
            b"\x1b",
            message.prev_term,
            b"\x9a",
            len(message.entries),
        )
    ]
    for index, term, command in message.entries:
        parts.append(_ENTRY_HEAD(b"\x83\x1b", index, b"\x1b", term, b"\x5a", len(command)))
        parts.append(command)
    return b"".join(parts)


def _encode_snapshot(message: Snapshot) -> bytes:
    head = message.head
    fields = (message.term, message.beat, None if head is None else msgspec.structs.astuple(head))
    parts = [b"\x86\x02", *map(cbor.encode, fields), cbor.encode(message.offset)]
    return b"".join((*parts, _BYTES_HEAD(b"\x5a", len(message.data)), message.data))


def _encode_forward(message: Forward) -> bytes:
    parts = [
        _FORWARD_HEAD(
            b"\x84\x14\x1b", message.boot, b"\x1b", message.ack, b"\x9a", len(message.requests)
        )
    ]
    for request in message.requests:
        body, key, fingerprint = request.body, request.key, request.fingerprint
        parts.append(_REQUEST_HEAD(b"\x84\x1b", request.seq, b"\x5a", len(body)))
        parts.append(body)
        if key is None and fingerprint is None:
            parts.append(b"\xf6\xf6")
        else:
            parts.append(cbor.encode(key))
            parts.append(cbor.encode(fingerprint))
    return b"".join(parts)


def _count_items(data: bytes) -> None:
    """Walk over the heads of all items without building any, and refuse too many of them."""
    position, end, items = 0, len(data), 0
    while position < end:
        items += 1
        if items > _ITEMS_MAX:
            raise WireError(f"a peer message of more than {_ITEMS_MAX} items")
        head = data[position]
        position += 1
        major, size = head >> 5, head & 31
        if size >= 24:
            if size > 27:
                raise WireError("a peer message with an indefinite length")
            width = 1 << (size - 24)
            size = int.from_bytes(data[position : position + width], "big")
            position += width
        if major in (2, 3):
            position += size


def _check_append(message: Append) -> None:
    index, term = message.prev_index, message.prev_term
    for entry_index, entry_term, _ in message.entries:
        index += 1
        if entry_index != index:
            raise WireError(f"Append: entry {entry_index} where {index} follows")
        if entry_term < term:
            raise WireError(f"Append: term {entry_term} of entry {index} follows term {term}")
        term = entry_term
    if term > message.term:
        raise WireError(f"Append: a log of term {term} from a leader of term {message.term}")


def _check_snapshot(message: Snapshot) -> None:
    head, end = message.head, message.offset + len(message.data)
    if head is None:
        if end:
            raise WireError("Snapshot: bytes of no snapshot")
        return
    if end > head.size:
        raise WireError(f"Snapshot: bytes up to {end} of a file of {head.size}")
    if head.previous_index + 1 != head.index:
        raise WireError(f"Snapshot: entry {head.previous_index} is not before {head.index}")
    if not head.previous_term <= head.term <= message.term:
        raise WireError(f"Snapshot: terms {head.previous_term}, {head.term} in {message.term}")


def _check_log_end(message: VoteRequest | PreVoteRequest) -> None:
    if message.last_term > message.term:
        raise WireError(f"a log of term {message.last_term} at a candidate of {message.term}")


def _check_forward(message: Forward) -> None:
    last = -1
    for request in message.requests:
        if request.seq <= last:
            raise WireError(f"Forward: request {request.seq} after {last}")
        last = request.seq


_CHECKS: dict[type[Message], Callable[[Any], None]] = {
    Append: _check_append,
    Snapshot: _check_snapshot,
    VoteRequest: _check_log_end,
    PreVoteRequest: _check_log_end,
    Forward: _check_forward,
}
