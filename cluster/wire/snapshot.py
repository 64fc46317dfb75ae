"""Snapshots on disk and on the way to a peer: rows of the machine to chunks of bytes and back.

RULE: knows rows, not what they mean. Each chunk is a CBOR array of whole rows, some hundred kB, so
that no step holds the loop for long; the first row of the first chunk names the format. Damage is
found by the store (checksums); what is checked here is that these are rows of ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from cluster.wire import cbor
from cluster.wire.cbor import WireError

FORMAT = "coterie snapshot"
VERSION = 1

CHUNK_BYTES = 256 * 1024
"""A chunk ends with the row that takes it to this size."""

CHUNK_BYTES_MAX = 64 * 1024 * 1024
"""Longest chunk that is read. Rows stay far below."""

_DEPTH_MAX = 10
_HEAD_BYTES_MAX = 64
"""Of a chunk: its length, and the row that names the format."""


def encode(rows: Iterable[list[Any]]) -> Iterator[bytes]:
    """Make chunks of the rows of `Machine.dump`, one at a time.

    Raises:
        WireError: a chunk would be longer than any that is read. Better no snapshot than one that
            nobody can start from: the log stays until there is one.
    """
    encoded = [cbor.encode([FORMAT, VERSION])]
    size = 0
    for row in rows:
        data = cbor.encode(row)
        encoded.append(data)
        size += len(data)
        if size > CHUNK_BYTES_MAX - _HEAD_BYTES_MAX:
            raise WireError(f"a chunk of the snapshot has {size} bytes, more than can be read back")
        if size >= CHUNK_BYTES:
            yield _array(encoded)
            encoded, size = [], 0
    if encoded:
        yield _array(encoded)


def decode(chunks: Iterable[bytes | memoryview]) -> Iterator[list[Any]]:
    """Give back the rows for `Machine.load`, one at a time.

    Raises:
        WireError: a chunk is malformed, or the format is not this one (when the first row is
            asked for).
    """
    rows = _rows(chunks)
    first = next(rows, None)
    if first != [FORMAT, VERSION]:
        raise WireError(f"no snapshot of format {FORMAT!r} {VERSION}: it starts with {first!r:.80}")
    yield from rows


def _rows(chunks: Iterable[bytes | memoryview]) -> Iterator[list[Any]]:
    for number, chunk in enumerate(chunks):
        rows = cbor.decode(chunk, max_bytes=CHUNK_BYTES_MAX, max_depth=_DEPTH_MAX)
        if type(rows) is not list or not all(type(row) is list for row in rows):
            raise WireError(f"chunk {number} of the snapshot is no list of rows")
        yield from rows


def _array(items: list[bytes]) -> bytes:
    """Splice encoded items into one CBOR array, its length in four bytes."""
    return b"".join((b"\x9a", len(items).to_bytes(4, "big"), *items))
