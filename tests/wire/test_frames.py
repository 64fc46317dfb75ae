"""Peer frames: what one node encodes the other decodes, and nothing else gets through."""

from __future__ import annotations

import tracemalloc
from typing import Any

import cbor2
import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cluster.wire import frames
from cluster.wire.cbor import WireError
from cluster.wire.frames import (
    Append,
    AppendAnswer,
    Forward,
    ForwardedRequest,
    Message,
    PreVoteAnswer,
    PreVoteRequest,
    ReadAnswer,
    ReadRequest,
    Refused,
    Snapshot,
    SnapshotAnswer,
    SnapshotHead,
    Status,
    TermNotice,
    TimeoutNow,
    TransferAnswer,
    TransferRequest,
    VoteAnswer,
    VoteRequest,
    decode,
    encode,
)

HEAD = SnapshotHead(index=40, term=3, previous_index=39, previous_term=2, size=1000, crc=2**32 - 1)

EXAMPLES: tuple[Message, ...] = (
    Append(term=5, beat=1, commit_index=9, prev_index=8, prev_term=4, entries=()),
    Append(
        term=5,
        beat=2**62,
        commit_index=0,
        prev_index=8,
        prev_term=4,
        entries=((9, 4, b""), (10, 5, b"x" * 300)),
    ),
    Snapshot(term=5, beat=1, head=None, offset=0, data=b""),
    Snapshot(term=5, beat=1, head=HEAD, offset=900, data=b"y" * 100),
    AppendAnswer(term=5, beat=7, next_index=11, reset=False, success=True),
    SnapshotAnswer(term=5, beat=7, index=40, offset=1000),
    VoteRequest(term=6, last_index=10, last_term=5, handover=True),
    VoteAnswer(term=6),
    PreVoteRequest(term=5, next_term=6, last_index=10, last_term=5, nonce=3),
    PreVoteAnswer(term=5, nonce=3),
    TimeoutNow(term=5, last_index=10),
    TermNotice(term=2**62),
    Forward(boot=3, ack=1, requests=()),
    Forward(
        boot=3,
        ack=1,
        requests=(
            ForwardedRequest(seq=4, body=b"a"),
            ForwardedRequest(seq=5, body=b"b" * 70_000, key="k\u00e9", fingerprint=b"12345678"),
            ForwardedRequest(seq=9, body=b"", key="k", fingerprint=None),
        ),
    ),
    Refused(boot=3, seqs=(4, 5), reason="not_leader"),
    ReadRequest(id=1),
    ReadAnswer(id=1, index=None),
    ReadAnswer(id=1, index=70),
    Status(
        boot=3,
        role="leader",
        term=5,
        commit_index=10,
        applied_index=9,
        digest="00ff",
        http="127.0.0.1:8101",
        version="0.1.0",
        fronts={"beanstalk": "127.0.0.1:11300"},
    ),
    TransferRequest(id=2, to=None),
    TransferAnswer(id=2, leader="n2", error=None),
)

COUNTS = st.integers(0, 2**62)


@st.composite
def appends(draw: st.DrawFn) -> Append:
    """Appends as a leader makes them."""
    terms = sorted(draw(st.lists(COUNTS, min_size=2, max_size=8)))
    prev_index = draw(st.integers(0, 2**62 - 10))
    entries = tuple(
        (prev_index + 1 + at, term, draw(st.binary(max_size=40)))
        for at, term in enumerate(terms[1:-1])
    )
    return Append(
        term=terms[-1],
        beat=draw(COUNTS),
        commit_index=draw(COUNTS),
        prev_index=prev_index,
        prev_term=terms[0],
        entries=entries,
    )


@st.composite
def forwards(draw: st.DrawFn) -> Forward:
    """Forwards as a node makes them."""
    seqs = sorted(draw(st.sets(COUNTS, max_size=5)))
    keys = st.none() | st.text(min_size=1, max_size=255)
    return Forward(
        boot=draw(COUNTS),
        ack=draw(COUNTS),
        requests=tuple(
            ForwardedRequest(
                seq=seq,
                body=draw(st.binary(max_size=40)),
                key=draw(keys),
                fingerprint=draw(st.none() | st.binary(max_size=64)),
            )
            for seq in seqs
        ),
    )


MESSAGES = st.sampled_from(EXAMPLES) | appends() | forwards()


def test_every_kind_of_message_is_among_the_examples() -> None:
    """A new message without an example here is noticed."""
    assert {type(message) for message in EXAMPLES} == {
        *frames.RAFT_MESSAGES,
        *frames.NODE_MESSAGES,
    }


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_message_comes_back_as_it_was(message: Message) -> None:
    """Every kind of message survives the wire, and is an ordinary CBOR array on it."""
    data = encode(message)
    assert decode(data) == message
    assert cbor2.loads(data)[0] == type(message).__struct_config__.tag


@given(MESSAGES)
def test_any_message_comes_back_as_it_was(message: Message) -> None:
    """Whatever the values, as long as a node may make them."""
    assert decode(encode(message)) == message


def check_is_harmless(data: bytes) -> None:
    """Decode to a message that survives the wire, or refuse with WireError."""
    try:
        message = decode(data)
    except WireError:
        return
    assert isinstance(message, Message)
    assert decode(encode(message)) == message


@given(st.binary(max_size=200))
@example(b"")
@example(b"\x80")
@example(b"\x81\xf5")
@example(b"\x82\x0a\xf7")
@example(b"\x82\x0a\xfb\x3f\xf0\x00\x00\x00\x00\x00\x00")
@settings(max_examples=1000)
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    """No bytes raise anything but WireError."""
    check_is_harmless(data)


@given(MESSAGES, st.data())
@settings(max_examples=1000)
def test_a_damaged_message_is_a_message_or_refused(message: Message, data: st.DataObject) -> None:
    """Bytes changed, cut out or put in at any place."""
    damaged = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, min(len(damaged), 200)))
        cut = data.draw(st.integers(0, 3))
        damaged[at : at + cut] = data.draw(st.binary(max_size=3))
    check_is_harmless(bytes(damaged))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 30)
    | st.integers(-(2**64), 2**64 - 1)
    | st.floats()
    | st.text(max_size=3)
    | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=2)
    ),
    max_leaves=12,
)


@given(st.integers(0, 30), st.lists(VALUES, max_size=8))
@settings(max_examples=1000)
def test_any_values_behind_a_tag_are_a_message_or_refused(tag: int, values: list[Any]) -> None:
    """Well-formed CBOR of the wrong shape, type or range."""
    check_is_harmless(cbor2.dumps([tag, *values]))


def plain(message: Message) -> list[Any]:
    """The values of a message, to be spoilt."""
    value: list[Any] = msgspec.to_builtins(message, builtin_types=(bytes,))
    return value


APPEND = Append(
    term=5, beat=1, commit_index=9, prev_index=8, prev_term=4, entries=((9, 4, b"a"), (10, 5, b"b"))
)
SNAPSHOT = Snapshot(term=5, beat=1, head=HEAD, offset=900, data=b"y" * 100)

SPOILT = {
    "an unknown tag": [99, 1],
    "a tag that is no number": ["10", 1],
    "True for the tag 1": [True, *plain(APPEND)[1:]],
    "a float for the tag": [10.0, 1],
    "no fields": [10],
    "a field too many": [10, 1, 1],
    "a negative count": [10, -1],
    "a count above 2^62": [10, 2**62 + 1],
    "a count of a thousand bits' tag": [10, 2**64 - 1],
    "True for a count": [10, True],
    "a float for a count": [10, 1.0],
    "a text for a count": [10, "1"],
    "1 for a fact": [*plain(EXAMPLES[4])[:-1], 1],
    "a text for bytes": [*plain(SNAPSHOT)[:-1], "y"],
    "a map for entries": [*plain(APPEND)[:-1], {}],
    "null for entries": [*plain(APPEND)[:-1], None],
    "an entry of two": [*plain(APPEND)[:-1], [[9, 4]]],
    "a first entry that does not follow prev_index": [*plain(APPEND)[:-1], [[10, 5, b"a"]]],
    "a gap between entries": [*plain(APPEND)[:-1], [[9, 4, b"a"], [11, 5, b"b"]]],
    "the same entry twice": [*plain(APPEND)[:-1], [[9, 4, b"a"], [9, 4, b"a"]]],
    "an entry of a term before prev_term": [*plain(APPEND)[:-1], [[9, 3, b"a"]]],
    "terms that fall": [*plain(APPEND)[:-1], [[9, 5, b"a"], [10, 4, b"b"]]],
    "an entry of a term to come": [*plain(APPEND)[:-1], [[9, 6, b"a"]]],
    "a prev_term to come": [1, 5, 1, 9, 8, 6, []],
    "snapshot bytes beyond its size": [*plain(SNAPSHOT)[:-2], 901, b"y" * 100],
    "snapshot bytes of no snapshot": [2, 5, 1, None, 0, b"y"],
    "an offset of no snapshot": [2, 5, 1, None, 7, b""],
    "a checksum of 33 bits": [2, 5, 1, [40, 3, 39, 2, 1000, 2**32], 0, b""],
    "a snapshot whose entries are not neighbours": [2, 5, 1, [40, 3, 38, 2, 1000, 1], 0, b""],
    "a snapshot whose terms fall": [2, 5, 1, [40, 2, 39, 3, 1000, 1], 0, b""],
    "a snapshot of a term to come": [2, 5, 1, [40, 6, 39, 5, 1000, 1], 0, b""],
    "a candidate whose log is ahead of its term": [5, 6, 10, 7, False],
    "a pre-candidate whose log is ahead of its term": [7, 5, 6, 10, 6, 3],
    "requests out of order": [20, 3, 1, [[5, b"a"], [4, b"b"]]],
    "a request twice": [20, 3, 1, [[5, b"a"], [5, b"a"]]],
    "an empty key": [20, 3, 1, [[5, b"a", "", b"f"]]],
    "a key of 256 characters": [20, 3, 1, [[5, b"a", "k" * 256, b"f"]]],
    "a fingerprint of 65 bytes": [20, 3, 1, [[5, b"a", "k", b"f" * 65]]],
    "a reason of 65 characters": [21, 3, [4], "r" * 65],
    "a front without address": [*plain(EXAMPLES[18])[:-1], {"beanstalk": 1}],
    "a front named by bytes": [*plain(EXAMPLES[18])[:-1], {b"beanstalk": "x"}],
    "65 fronts": [*plain(EXAMPLES[18])[:-1], {str(n): "x" for n in range(65)}],
    "an empty node name": [25, 2, ""],
    "no array": {"tag": 10},
    "an empty array": [],
    "an array in place of the tag": [[10], 1],
}


@pytest.mark.parametrize("value", SPOILT.values(), ids=SPOILT.keys())
def test_what_no_node_would_say_is_refused(value: object) -> None:
    """One wrong value is enough."""
    with pytest.raises(WireError):
        decode(cbor2.dumps(value))


def test_a_refusal_names_message_and_place() -> None:
    """Who reads the log finds the field."""
    with pytest.raises(WireError, match=r"TermNotice: Expected `int`, got `str` - at `\$\[1\]`"):
        decode(cbor2.dumps([10, "1"]))


def test_entries_are_not_copied_more_than_once() -> None:
    """Encoding an append of 8 MiB takes little more memory than the frame itself."""
    size = 4 * 2**20
    append = Append(
        term=5,
        beat=1,
        commit_index=9,
        prev_index=8,
        prev_term=4,
        entries=((9, 4, bytes(size)), (10, 5, bytes(size))),
    )
    tracemalloc.start()
    try:
        data = encode(append)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(data) < frames.FRAME_BYTES_MAX
    assert peak < len(data) + 100_000


def array(major: int, count: int) -> bytes:
    """Head of an array, text or byte string of `count`."""
    return bytes((major << 5 | 26,)) + count.to_bytes(4, "big")


BOMBS = {
    "as many empty arrays as are not counted": array(4, 2**18 - 5) + b"\x80" * (2**18 - 5),
    "16 MiB of empty arrays": array(4, 2**24 - 100) + b"\x80" * (2**24 - 100),
    "an append of four million empty entries": (
        b"\x87\x01\x05\x01\x09\x08\x04" + array(4, 4_000_000) + b"\x83\x09\x05\x40" * 4_000_000
    ),
    "a claimed array of four thousand million": array(4, 2**32 - 1) + bytes(300_000),
    "an array of claimed arrays": array(4, 2**32 - 1) * 60_000,
    "a claimed byte string of four thousand million": array(2, 2**32 - 1) + bytes(300_000),
    "indefinite arrays": b"\x9f" * 300_000,
    "17 MiB": b"\x82\x0a" + bytes(17 * 2**20),
}


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_takes_little_memory(data: bytes) -> None:
    """A frame that claims or holds very many items is refused before they fill the memory."""
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            decode(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * 2**20


def test_an_append_of_very_many_small_entries_passes() -> None:
    """A follower far behind gets 4 MiB of timer entries at once: the bomb guard lets them pass."""
    entries = tuple((at, 5, b"timer-entry-of-twenty"[:20]) for at in range(9, 9 + 2**22 // 20))
    append = Append(term=5, beat=1, commit_index=9, prev_index=8, prev_term=4, entries=entries)
    data = encode(append)
    assert len(data) < frames.FRAME_BYTES_MAX
    assert decode(data) == append
