"""Snapshots on the wire: rows to chunks of bytes and back, and strangers refused."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.machine.machine import Machine
from cluster.wire import cbor, snapshot
from cluster.wire.cbor import WireError
from tests.machine.drive import Drive
from tests.machine.walk import Walk

PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text() | st.binary()
ROWS = st.lists(st.lists(PLAIN | st.lists(PLAIN, max_size=3), max_size=4), max_size=6)


@given(ROWS)
def test_reads_back_the_rows_it_was_given(rows: list[list[Any]]) -> None:
    """Rows come back equal and in order."""
    assert list(snapshot.decode(snapshot.encode(rows))) == rows


def test_no_rows_make_one_chunk() -> None:
    """Even an empty snapshot names its format."""
    chunks = list(snapshot.encode([]))
    assert len(chunks) == 1
    assert list(snapshot.decode(chunks)) == []


def test_chunks_are_some_hundred_kilobytes() -> None:
    """Many rows make many chunks, none of them large."""
    rows = [["sessions", [[number, "x" * 1000] for number in range(100)]] for _ in range(30)]
    chunks = list(snapshot.encode(rows))
    assert len(chunks) == 10
    assert all(len(chunk) < 400_000 for chunk in chunks)
    assert list(snapshot.decode(chunks)) == rows


def test_gives_chunks_before_the_last_row_is_made() -> None:
    """Neither way holds the whole state: rows are taken as chunks are asked for."""
    taken = []

    def rows() -> Any:
        for number in range(100):
            taken.append(number)
            yield ["row", b"x" * 100_000]

    next(snapshot.encode(rows()))
    assert len(taken) < 10
    decoded = snapshot.decode(iter([next(snapshot.encode(rows()))]))
    assert next(decoded) == ["row", b"x" * 100_000]


def test_refuses_to_write_what_it_would_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk at the limit comes back; one byte more is an error to the writer, not to a reader."""
    monkeypatch.setattr(snapshot, "CHUNK_BYTES_MAX", 10_000)
    monkeypatch.setattr(snapshot, "CHUNK_BYTES", 9_000)
    taken = 0
    for size in range(9_800, 10_100):
        rows = [["jobs", b"x" * size]]
        try:
            chunks = list(snapshot.encode(rows))
        except WireError:
            continue
        assert list(snapshot.decode(chunks)) == rows
        taken += 1
    assert 0 < taken < 300


def test_a_machine_survives_the_way(rng: random.Random) -> None:
    """Dumped, encoded, decoded and loaded, a machine gives the same bytes again."""
    walk, machine = Walk(rng), Machine()
    for index in range(1, 200):
        walk.read(machine.apply(index, walk.batch(machine.next_deadline_ms())))
    chunks = list(snapshot.encode(machine.dump()))
    assert list(snapshot.encode(Machine.load(snapshot.decode(chunks)).dump())) == chunks


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [b""],
        [b"\xff"],
        [cbor.encode({})],
        [cbor.encode([])],
        [cbor.encode([["machine", 1]])],
        [cbor.encode([[snapshot.FORMAT, snapshot.VERSION + 1]])],
        [cbor.encode([[snapshot.FORMAT, snapshot.VERSION], "no row"])],
        [cbor.encode([[snapshot.FORMAT, snapshot.VERSION]]), b"\x01"],
        [cbor.encode([[snapshot.FORMAT, snapshot.VERSION]]) + b"\x00"],
    ],
)
def test_refuses_chunks_that_are_not_ours(chunks: list[bytes]) -> None:
    """Another format, another version, damage: a WireError."""
    with pytest.raises(WireError):
        list(snapshot.decode(chunks))


def test_a_stranger_is_refused_while_loading() -> None:
    """A machine is never made of bytes that are no snapshot."""
    with pytest.raises(WireError):
        Machine.load(snapshot.decode([cbor.encode([["machine", 1, 0, 0, 0, 0, bytes(8)]])]))
    with pytest.raises(ValueError, match="no snapshot of ours"):
        Machine.load(snapshot.decode(snapshot.encode([["machine", 1, 0, 0, 0, 0, bytes(8)]])))


@given(st.data())
def test_raises_nothing_but_value_errors_for_damaged_chunks(data: st.DataObject) -> None:
    """A flipped byte that no checksum caught is a ValueError at worst."""
    drive = Drive()
    drive.open(1000, 2000)
    chunk = bytearray(b"".join(snapshot.encode(drive.machine.dump())))
    place = data.draw(st.integers(0, len(chunk) - 1))
    chunk[place] ^= data.draw(st.integers(1, 255))
    try:
        Machine.load(snapshot.decode([bytes(chunk)]))
    except ValueError:
        pass
