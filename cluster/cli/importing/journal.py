"""LevelDB's journal: records in blocks of 32 KiB, each piece with a checksum.

RULE: bytes to records; no I/O. A torn end is told apart from damage before it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from cluster.cli.importing.wishes import SourceError

BLOCK_BYTES: Final = 32 * 1024
_HEAD: Final = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_MASK_DELTA: Final = 0xA282EAD8
_U32: Final = 0xFFFFFFFF
_CASTAGNOLI: Final = 0x82F63B78


def records(data: bytes) -> Iterator[bytes]:
    """Each record, in order.

    Raises:
        SourceError: in place of the next record: a piece is damaged, or the last one is not whole.
    """
    parts: list[bytes] = []
    at, is_open = 0, False
    while at < len(data):
        left = BLOCK_BYTES - at % BLOCK_BYTES
        if left < _HEAD.size or not any(data[at : at + _HEAD.size]):
            at += left  # The rest of a block is zeros.
            continue
        if at + _HEAD.size > len(data):
            raise SourceError(f"the journal ends in the middle of a record, at byte {at}")
        checksum, size, kind = _HEAD.unpack_from(data, at)
        begin = at + _HEAD.size
        body = data[begin : begin + size]
        if len(body) < size:
            raise SourceError(f"the journal ends in the middle of a record, at byte {at}")
        if size > left - _HEAD.size or checksum != masked_crc(bytes([kind]) + body):
            raise SourceError(f"the journal is damaged at byte {at}")
        if kind in {_FULL, _FIRST}:
            if is_open:
                raise SourceError(f"the journal is damaged at byte {at}: a record without its end")
            parts = []
        elif kind not in {_MIDDLE, _LAST} or not is_open:
            raise SourceError(f"the journal is damaged at byte {at}: a piece of no record")
        parts.append(body)
        is_open = kind in {_FIRST, _MIDDLE}
        if not is_open:
            yield b"".join(parts)
        at = begin + size
    if is_open:
        raise SourceError("the journal ends in the middle of a record")


def masked_crc(data: bytes) -> int:
    """CRC-32C, turned and shifted so that a checksum of checksums is none."""
    crc = _U32
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= _U32
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & _U32


def _table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (_CASTAGNOLI if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_TABLE: Final = _table()
