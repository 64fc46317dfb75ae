"""Digests: a number that two machines share only when they did the same.

RULE: hashes, decides nothing. The running digest covers what each entry did; the full digest
covers all there is, and costs as much as a snapshot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

import msgspec

START = bytes(8)

_encode = msgspec.msgpack.Encoder().encode


def after_entry(
    digest: bytes, index: int, now_ms: int, last_token: int, answers: Sequence[object]
) -> bytes:
    """The running digest after one more entry: 8 bytes over the last one and all answers.

    A machine that behaves differently shows a different digest from that entry on, for ever.
    """
    told = _encode((digest, index, now_ms, last_token, answers))
    return hashlib.blake2b(told, digest_size=8).digest()


def of_rows(rows: Iterable[list[object]], encode: Callable[[object], bytes]) -> str:
    """SHA-256 over the whole state, given as rows of a dump: for tests and the simulator."""
    whole = hashlib.sha256()
    for row in rows:
        data = encode(row)
        whole.update(len(data).to_bytes(8, "big"))
        whole.update(data)
    return whole.hexdigest()
