"""What one node says to another: one frozen value per message.

RULE: values and their bytes, no I/O. A message is a CBOR array whose first item is the tag; every
field is checked for type and range before a message leaves this module.

Raft terms follow Ongaro & Ousterhout, "In Search of an Understandable Consensus Algorithm" (2014)
and Ongaro's thesis (pre-vote 9.6, read index 6.4, leadership transfer 3.10).
"""

from __future__ import annotations

from typing import Annotated

import msgspec

# Log positions, terms, counters: what a signed 64 bit field holds, with room to add one.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
NodeName = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Key = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of all peer messages."""


class RaftMessage(Message, frozen=True):
    """Base of the messages that go to the engine; `term` is the sender's term when it was made."""

    term: Count


class Append(RaftMessage, tag=1):
    """AppendEntries. `beat` numbers the leader's heartbeats; the answer echoes it (read index).

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
    crc: Count


class Snapshot(RaftMessage, tag=2):
    """InstallSnapshot, one chunk; with `head` None it only says "a snapshot is needed, wait"."""

    beat: Count
    head: SnapshotHead | None
    offset: Count
    data: bytes


class AppendAnswer(RaftMessage, tag=3):
    """Answer to Append: where the leader should go on, and whether the entries were taken."""

    beat: Count
    next_index: Count
    reset: bool
    success: bool


class SnapshotAnswer(RaftMessage, tag=4):
    """Acknowledges snapshot bytes below `offset` of the snapshot whose last entry is `index`."""

    beat: Count
    index: Count
    offset: Count


class VoteRequest(RaftMessage, tag=5):
    """RequestVote. `handover`: the leader itself asked for this election."""

    last_index: Count
    last_term: Count
    handover: bool


class VoteAnswer(RaftMessage, tag=6):
    """A granted vote in `term` (refusals are not sent)."""


class PreVoteRequest(RaftMessage, tag=7):
    """Would you vote for me in `next_term`? Changes nothing at the receiver."""

    next_term: Count
    last_index: Count
    last_term: Count
    nonce: Count


class PreVoteAnswer(RaftMessage, tag=8):
    """A granted pre-vote; `nonce` is the one of the question."""

    nonce: Count


class TimeoutNow(RaftMessage, tag=9):
    """TimeoutNow: start an election at once, if your log ends at `last_index`."""

    last_index: Count


class TermNotice(RaftMessage, tag=10):
    """Your term is old; mine is `term`."""


# Between nodes, above Raft.


class ForwardedRequest(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True
):
    """One encoded command on its way to the leader (see `Request`)."""

    seq: Count
    body: bytes
    key: Key | None = None
    fingerprint: bytes | None = None


class Forward(Message, tag=20):
    """Commands for the leader's log, from the node that took them. No answer: see `Refused`."""

    boot: Count
    ack: Count
    requests: tuple[ForwardedRequest, ...]


class Refused(Message, tag=21):
    """The receiver of a Forward did not take these requests: `reason` is an error code."""

    boot: Count
    seqs: tuple[Count, ...]
    reason: str


class ReadRequest(Message, tag=22):
    """Ask the leader up to which index a read must wait to be linearizable."""

    id: Count


class ReadAnswer(Message, tag=23):
    """Read at or after `index`; None: not the leader (any more)."""

    id: Count
    index: Count | None


class Status(Message, tag=24):
    """A node about itself, sent to every peer about twice a second and on each change of role."""

    boot: Count
    role: str
    term: Count
    commit_index: Count
    applied_index: Count
    digest: str
    http: str
    version: str
    fronts: dict[str, str] = {}


class TransferRequest(Message, tag=25):
    """Ask the leader to hand leadership over to `to` (None: to whoever is best)."""

    id: Count
    to: NodeName | None


class TransferAnswer(Message, tag=26):
    """`error` None: leadership was handed to `leader`."""

    id: Count
    leader: NodeName | None
    error: str | None


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
