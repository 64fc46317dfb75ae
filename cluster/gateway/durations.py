"""Lengths of time as people write them: `250ms`, `30s`, `1h30m`, `2d`, `PT30S`, or a plain integer.

RULE: text to whole milliseconds, exactly; no clock. A text that could mean two things is refused.
Standard: ISO 8601 durations without years and months (their length depends on the calendar).
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

import durationpy

TEXT_MAX = 64
"""Characters of a duration; the longest sensible one has some twenty."""

PATTERN = (
    r"^(?:0|(?:[0-9]{1,12}(?:\.[0-9]{1,6})?(?:us|µs|ms|s|m|h|d|w))+"
    r"|P(?=[0-9T])(?:[0-9]{1,9}W)?(?:[0-9]{1,9}D)?"
    r"(?:T(?=[0-9])(?:[0-9]{1,9}H)?(?:[0-9]{1,9}M)?(?:[0-9]{1,9}(?:[.,][0-9]{1,6})?S)?)?)$"
)
"""The same for JSON Schema: what does not match is no duration; what does may be too fine."""

# durationpy also takes signs, months, years and other scripts' digits: this says what may reach it.
_GO = re.compile(r"(?:[0-9]{1,12}(?:\.[0-9]{1,6})?(?:us|µs|ms|s|m|h|d|w))+")
_ISO = re.compile(
    r"P(?=[0-9T])(?:([0-9]{1,9})W)?(?:([0-9]{1,9})D)?"
    r"(?:T(?=[0-9])(?:([0-9]{1,9})H)?(?:([0-9]{1,9})M)?(?:([0-9]{1,9}(?:[.,][0-9]{1,6})?)S)?)?"
)
_ISO_SECONDS = (604_800, 86_400, 3_600, 60, 1)


@lru_cache(maxsize=1024)
def parse_ms(text: str) -> int:
    """Return the milliseconds that `text` names; the few spellings in use are remembered.

    Raises:
        ValueError: no duration, or finer than a millisecond. The message begins with the text.
    """
    if len(text) > TEXT_MAX:
        raise ValueError(f'"{text[:TEXT_MAX]}…" is not a duration; {_CURE}')
    if text == "0" or _GO.fullmatch(text):
        try:
            microseconds = durationpy.from_str(text) // _MICROSECOND
        except (durationpy.DurationError, OverflowError):
            raise ValueError(f'"{text}" is out of range') from None
        return _whole_ms(text, Fraction(microseconds, 1000))
    iso = _ISO.fullmatch(text)
    if iso is not None and any(iso.groups()):
        ms = sum(
            (
                Fraction(part.replace(",", ".")) * seconds * 1000
                for part, seconds in zip(iso.groups(), _ISO_SECONDS, strict=True)
                if part
            ),
            Fraction(0),
        )
        return _whole_ms(text, ms)
    raise ValueError(f'"{text}" is not a duration; {_CURE}')


def spell(ms: int) -> str:
    """Write a length as a person would: the largest unit that divides it."""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)):
        if ms >= size and ms % size == 0:
            return f"{ms // size}{unit}"
    return f"{ms}ms"


def _whole_ms(text: str, ms: Fraction) -> int:
    if ms.denominator != 1:
        raise ValueError(f'"{text}" is finer than a millisecond')
    return ms.numerator


_MICROSECOND = durationpy.from_str("1us")
_CURE = 'use e.g. "30s", "250ms", "1h30m", "PT30S" or an integer of milliseconds'
