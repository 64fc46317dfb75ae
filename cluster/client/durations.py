"""Lengths of time as callers give them: `"30s"`, `"PT30S"`, `timedelta(seconds=30)`, or whole ms.

RULE: pure. A float is refused: nobody knows whether seconds or milliseconds are meant. A text means
here what it means to a node; a test keeps both equal.
Standard: ISO 8601 durations without years and months (their length depends on the calendar).
"""

from __future__ import annotations

import re
from datetime import timedelta
from fractions import Fraction
from typing import TypeAlias

Length: TypeAlias = str | int | timedelta
"""What may stand where a length of time is asked for."""

_TEXT_MAX = 64
_UNITS_US = {
    "us": 1,
    "µs": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_PART = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(us|µs|ms|s|m|h|d|w)")
_WHOLE = re.compile(f"(?:{_PART.pattern})+")
_ISO = re.compile(
    r"P(?=[0-9T])(?:([0-9]{1,9})W)?(?:([0-9]{1,9})D)?"
    r"(?:T(?=[0-9])(?:([0-9]{1,9})H)?(?:([0-9]{1,9})M)?(?:([0-9]{1,9}(?:[.,][0-9]{1,6})?)S)?)?"
)
_ISO_UNITS = ("w", "d", "h", "m", "s")


def ms_of(length: Length, what: str = "length") -> int:
    """Whole milliseconds of a length of time.

    Args:
        length: e.g. `"250ms"`, `"1h30m"`, `"PT1H30M"`, `"0"`, `timedelta(minutes=1)`, `1500`.
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
    exact_us = Fraction(0)
    for number, unit in _parts(length, what):
        exact_us += Fraction(number.replace(",", ".")) * _UNITS_US[unit]
    found_ms = exact_us / 1_000
    if found_ms.denominator != 1:
        raise ValueError(f'{what}: "{length}" is finer than a millisecond')
    return found_ms.numerator


def _parts(text: str, what: str) -> list[tuple[str, str]]:
    """Each number and its unit."""
    if len(text) <= _TEXT_MAX:
        if _WHOLE.fullmatch(text):
            return _PART.findall(text)
        iso = _ISO.fullmatch(text)
        if iso is not None and any(iso.groups()):
            return [
                (number, unit)
                for number, unit in zip(iso.groups(), _ISO_UNITS, strict=True)
                if number
            ]
    raise ValueError(
        f'{what}: "{text[:_TEXT_MAX]}" is no length of time; write "250ms", "30s", "1h30m" or "PT30S"'
    )
