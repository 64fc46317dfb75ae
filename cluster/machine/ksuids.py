"""KSUIDs: ids of 27 letters and digits that sort by time, with a token of ours inside.

RULE: a function of its arguments. The time and the chance in an id are drawn by the node that was
asked; the machine puts its token between them, so that an id tells which session it is of.

    4 bytes   seconds since 2014-05-13, 16:53:20 UTC
    8 bytes   the token
    8 bytes   drawn by lot

A KSUID that came from elsewhere, with a session that was taken over, is kept whole.
Source: segmentio/ksuid, where all 16 bytes behind the time are drawn by lot.
"""

from __future__ import annotations

from typing import Final

EPOCH_S: Final = 1_400_000_000
LENGTH: Final = 27
SEED_BYTES: Final = 12
"""What is drawn for one: its time and its chance."""

BYTES: Final = 20
"""Of a whole one."""

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_VALUES = {letter: value for value, letter in enumerate(_ALPHABET)}


def made(seed: bytes, token: int) -> str:
    """The id of a token.

    Args:
        seed: 4 bytes of time and 8 bytes of chance.
    """
    return text_of(seed[:4] + token.to_bytes(8) + seed[4:SEED_BYTES])


def text_of(whole: bytes) -> str:
    """The id that these 20 bytes are."""
    number = int.from_bytes(whole)
    letters = []
    for _ in range(LENGTH):
        number, value = divmod(number, 62)
        letters.append(_ALPHABET[value])
    return "".join(reversed(letters))


def token_of(id: str) -> int:
    """The token inside; 0 for what is no KSUID."""
    whole = bytes_of(id)
    return 0 if whole is None else int.from_bytes(whole[4:12])


def bytes_of(id: str) -> bytes | None:
    """The 20 bytes of an id; None for what is no KSUID."""
    if len(id) != LENGTH:
        return None
    number = 0
    for letter in id:
        value = _VALUES.get(letter)
        if value is None:
            return None
        number = number * 62 + value
    return number.to_bytes(BYTES) if number < 2 ** (8 * BYTES) else None


def seed_of(seconds: int, chance: bytes) -> bytes:
    """What `made` takes: seconds since 1970 and 8 bytes that nobody can guess."""
    return ((seconds - EPOCH_S) % 2**32).to_bytes(4) + chance
