"""Ids of jobs: goyaad's are any bytes, or the numbers that it gives itself; ours are keys.

RULE: one id, one key, and back.

A chosen id is the key of the job as it stands, if it is UTF-8 without control characters: so it can
be said over our own API as well. Any other is its bytes in hexadecimal behind a prefix, and so is, to
be told apart, a text that begins with that prefix. A job without a key is called by its number.
"""

from __future__ import annotations

import re
from typing import Final

from cluster.machine import limits

_HEX: Final = "goyaad-hex:"
# Control characters, and the surrogates that stand for bytes which are no UTF-8.
_STRANGE: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_DIGITS_MAX = 19


def key_of(foreign: str) -> str | None:
    """The key of an id; None where it is longer than a key can be.

    Args:
        foreign: as gob's decoder gives it: bytes that are no UTF-8 stand as surrogates.
    """
    is_plain = _STRANGE.search(foreign) is None and not foreign.startswith(_HEX)
    key = foreign if is_plain else _HEX + foreign.encode(errors="surrogateescape").hex()
    return key if len(key) <= limits.JOB_KEY_LENGTH_MAX else None


def id_of(key: str | None, number: int) -> str:
    """The id of a job that has this key, or none, for gob's encoder."""
    if key is None:
        return str(number)
    if key.startswith(_HEX):
        try:
            return bytes.fromhex(key.removeprefix(_HEX)).decode(errors="surrogateescape")
        except ValueError:
            return key  # Somebody else's idea of a key.
    return key


def number_of(foreign: str) -> int | None:
    """The number of a job, if an id is one as it would be printed."""
    is_number = foreign.isascii() and foreign.isdecimal() and len(foreign) <= _DIGITS_MAX
    return int(foreign) if is_number and foreign[0] != "0" else None
