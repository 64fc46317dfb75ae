"""Batches: the leader splices bodies in unread, every node reads the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.machine.commands import Batch, Group, KeepAlive, Origin, Request
from cluster.wire import batch, cbor, commands
from cluster.wire.batch import EncodedGroup
from cluster.wire.cbor import WireError
from cluster.wire.frames import ForwardedRequest
from tests.wire.test_commands import COMMANDS

COUNTS = st.integers(0, 2**62)
KEYS = st.none() | st.text(st.characters(codec="ascii"), min_size=1, max_size=255)
REQUESTS = st.builds(
    Request,
    seq=COUNTS,
    command=COMMANDS,
    key=KEYS,
    fingerprint=st.none() | st.binary(max_size=16),
)
GROUPS = st.builds(
    Group,
    origin=st.builds(
        Origin, node=st.text(st.characters(codec="ascii"), min_size=1, max_size=64), boot=COUNTS
    ),
    ack=COUNTS,
    requests=st.lists(REQUESTS, max_size=4).map(tuple),
)
BATCHES = st.builds(
    Batch,
    now_ms=COUNTS,
    wall_ms=st.integers(-(2**62), 2**62),
    groups=st.lists(GROUPS, max_size=3).map(tuple),
)

BAD: dict[str, Any] = {
    "no list": 7,
    "nothing": [],
    "another version": [2, 0, 0, []],
    "a missing field": [1, 0, 0],
    "a field too many": [1, 0, 0, [], 0],
    "time below zero": [1, -1, 0, []],
    "time of 64 bits": [1, 2**63, 0, []],
    "a text for a time": [1, "0", 0, []],
    "a nameless origin": [1, 0, 0, [["", 1, 1, []]]],
    "a body that is a text": [1, 0, 0, [["n1", 1, 1, [[1, "aGk=", None, None]]]]],
    "a fingerprint that is a text": [1, 0, 0, [["n1", 1, 1, [[1, b"", None, "aGk="]]]]],
    "an empty key": [1, 0, 0, [["n1", 1, 1, [[1, b"", "", None]]]]],
    "a number below zero": [1, 0, 0, [["n1", 1, 1, [[-1, b"", None, None]]]]],
    "a group of two fields": [1, 0, 0, [["n1", 1]]],
}


def encode(value: Batch) -> bytes:
    """Encode a batch as a leader does: from bodies."""
    return batch.encode(
        value.now_ms,
        value.wall_ms,
        [
            EncodedGroup(
                group.origin,
                group.ack,
                [
                    ForwardedRequest(
                        request.seq,
                        b"" if request.command is None else commands.encode(request.command),
                        request.key,
                        request.fingerprint,
                    )
                    for request in group.requests
                ],
            )
            for group in value.groups
        ],
    )


@given(BATCHES)
def test_reads_back_what_was_encoded(value: Batch) -> None:
    """A batch survives the way into the log and out of it."""
    assert batch.decode(encode(value)) == value


def test_an_empty_batch_is_a_timer() -> None:
    """A batch without groups carries nothing but the time, in a few bytes."""
    data = batch.encode(1_000, 1_700_000_000_000)
    assert batch.decode(data) == Batch(1_000, 1_700_000_000_000)
    assert len(data) < 20


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"\x00", b"\x82\x18\x63\x00", b"\xc1\x01", b"\x81" * 50]
)
def test_a_body_that_is_no_command_becomes_a_request_without_one(body: bytes) -> None:
    """A poison command stops nobody: its neighbours are read as ever."""
    good = ForwardedRequest(2, commands.encode(KeepAlive("s")), "key", b"print")
    data = batch.encode(1, 2, [EncodedGroup(Origin("n1", 3), 1, [ForwardedRequest(1, body), good])])
    (group,) = batch.decode(data).groups
    assert group.requests == (
        Request(1, None),
        Request(2, KeepAlive("s"), "key", b"print"),
    )


@pytest.mark.parametrize("seq", [0, 2**32 - 1, 2**32, 2**62])
@pytest.mark.parametrize("size", [0, 1, 2**16 - 1, 2**16])
@pytest.mark.parametrize("count", [1, 23, 24])
def test_requests_of_any_size_are_written(seq: int, size: int, count: int) -> None:
    """Short heads and long ones: any reader of CBOR finds the same."""
    body = b"x" * size
    requests = [ForwardedRequest(seq, body)] * count
    data = batch.encode(1, 2, [EncodedGroup(Origin("n1", 3), 4, requests)] * count)
    row = [seq, body, None, None]
    expected = [1, 1, 2, [["n1", 3, 4, [row] * count]] * count]
    assert cbor.decode(data, max_bytes=len(data)) == expected


@pytest.mark.parametrize("value", BAD.values(), ids=BAD.keys())
def test_refuses_a_malformed_envelope(value: object) -> None:
    """An envelope that no leader writes is a WireError."""
    with pytest.raises(WireError):
        batch.decode(cbor.encode(value))


@given(st.binary(max_size=200))
def test_raises_nothing_but_wire_errors_for_any_bytes(data: bytes) -> None:
    """Any bytes make a batch or a WireError."""
    try:
        batch.decode(data)
    except WireError:
        pass


@given(BATCHES, st.data())
def test_raises_nothing_but_wire_errors_for_damaged_batches(
    value: Batch, data: st.DataObject
) -> None:
    """A flipped byte makes another batch or a WireError."""
    damaged = bytearray(encode(value))
    place = data.draw(st.integers(0, len(damaged) - 1))
    damaged[place] ^= data.draw(st.integers(1, 255))
    try:
        batch.decode(bytes(damaged))
    except WireError:
        pass
