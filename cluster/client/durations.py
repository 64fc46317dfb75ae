"""Lengths of time as callers give them: `"30s"`, `timedelta(seconds=30)`, or whole milliseconds.

RULE: pure. A float is refused: nobody knows whether seconds or milliseconds are meant.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TypeAlias

Length: TypeAlias = str | int | timedelta
"""What may stand where a length of time is asked for."""

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_PART = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,6}))?(ms|s|m|h|d|w)")
_WHOLE = re.compile(f"(?:{_PART.pattern})+")


def ms_of(length: Length, what: str = "length") -> int:
    """Whole milliseconds of a length of time.

    Args:
        length: e.g. `"250ms"`, `"1h30m"`, `"0"`, `timedelta(minutes=1)`, `1500`.
        what: its name, for the error.

    Raises:
        ValueError: no length, a negative one, or one finer than a millisecond.
        TypeError: of another type.
    """
    if isinstance(length, timedelta):
        microseconds = length // timedelta(microseconds=1)
        if microseconds < 0 or microseconds % 1_000:
            raise ValueError(f"{what}: {length!r} is negative, or finer than a millisecond")
        return microseconds // 1_000
    if isinstance(length, bool) or not isinstance(length, str | int):
        raise TypeError(f'{what}: {length!r} is no length of time; write "30s", a timedelta or ms')
    if isinstance(length, int):
        if length < 0:
            raise ValueError(f"{what}: {length} is negative")
        return length
    if length == "0":
        return 0
    if not _WHOLE.fullmatch(length):
        raise ValueError(
            f'{what}: "{length}" is no length of time; write "250ms", "30s" or "1h30m"'
        )
    total_ms = 0
    for whole, fraction, unit in _PART.findall(length):
        size_ms = _UNITS_MS[unit]
        total_ms += int(whole) * size_ms
        if fraction:
            parts, rest = divmod(int(fraction) * size_ms, 10 ** len(fraction))
            if rest:
                raise ValueError(f'{what}: "{length}" is finer than a millisecond')
            total_ms += parts
    return total_ms
