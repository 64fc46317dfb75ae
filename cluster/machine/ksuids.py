"""KSUIDs: ids of 27 letters and digits that sort by time, with a token of ours inside.

RULE: a function of its arguments. The time and the chance in an id are drawn by the node that was
asked; the machine puts its token between them, so that an id tells which session it is of.

    4 bytes   seconds since 2014-05-13, 16:53:20 UTC
    8 bytes   the token
    8 bytes   drawn by lot

Source: segmentio/ksuid, where all 16 bytes behind the time are drawn by lot.
"""

from __future__ import annotations

from typing import Final

EPOCH_S: Final = 1_400_000_000
LENGTH: Final = 27
SEED_BYTES: Final = 12
"""What is drawn for one: its time and its chance."""

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_VALUES = {letter: value for value, letter in enumerate(_ALPHABET)}


def made(seed: bytes, token: int) -> str:
    """The id of a token.

    Args:
        seed: 4 bytes of time and 8 bytes of chance.
    """
    number = int.from_bytes(seed[:4] + token.to_bytes(8) + seed[4:])
    letters = []
    for _ in range(LENGTH):
        number, value = divmod(number, 62)
        letters.append(_ALPHABET[value])
    return "".join(reversed(letters))


def token_of(id: str) -> int:
    """The token inside; 0 for what is no KSUID."""
    if len(id) != LENGTH:
        return 0
    number = 0
    for letter in id:
        value = _VALUES.get(letter)
        if value is None:
            return 0
        number = number * 62 + value
    return (number >> 64) & (2**64 - 1) if number < 2**160 else 0


def seed_of(seconds: int, chance: bytes) -> bytes:
    """What `made` takes: seconds since 1970 and 8 bytes that nobody can guess."""
    return ((seconds - EPOCH_S) % 2**32).to_bytes(4) + chance
