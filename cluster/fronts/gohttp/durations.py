"""Durations as Go's package time reads and writes them.

RULE: texts and nanoseconds, nothing else. Fractions are rounded as Go rounds them.
"""

from __future__ import annotations

import re
from typing import Final

NS: Final = 1
US: Final = 1_000 * NS
MS: Final = 1_000 * US
SECOND: Final = 1_000 * MS
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

_UNITS: Final = {
    "ns": NS,
    "us": US,
    "µs": US,
    "μs": US,
    "ms": MS,
    "s": SECOND,
    "m": MINUTE,
    "h": HOUR,
}
_LENGTH_MAX = 1_000
_PART = re.compile(r"([0-9]*)(?:(\.)([0-9]*))?([^0-9.]*)")


class BadDuration(ValueError):
    """The text is no duration; the message is Go's."""


def parse(text: str, *, days: bool = False) -> int:
    """time.ParseDuration, in nanoseconds.

    Args:
        days: take the unit `d` too, of 24 hours each.
    Raises:
        BadDuration: as Go says it.
    """
    units = {**_UNITS, "d": DAY} if days else _UNITS
    invalid = BadDuration(f"time: invalid duration {_quoted(text)}")
    rest = text
    negative = rest.startswith("-")
    if rest[:1] in {"-", "+"}:
        rest = rest[1:]
    if rest == "0":
        return 0
    if not rest or len(text) > _LENGTH_MAX:
        raise invalid
    total = 0
    while rest:
        if rest[0] != "." and not "0" <= rest[0] <= "9":
            raise invalid
        found = _PART.match(rest)
        assert found is not None
        whole, _, fraction, unit = found.groups()
        if not whole and not fraction:
            raise invalid
        if not unit:
            raise BadDuration(f"time: missing unit in duration {_quoted(text)}")
        if unit not in units:
            raise BadDuration(f"time: unknown unit {_quoted(unit)} in duration {_quoted(text)}")
        length = units[unit]
        value = int(whole or "0") * length
        if fraction:
            # Go keeps as many digits as fit its integer and multiplies as floats do.
            digits = fraction
            while int(digits) > 2**63 - 1:
                digits = digits[:-1]
            value += int(float(int(digits)) * (float(length) / float(10 ** len(digits))))
        total += value
        if total > 2**63:
            raise invalid
        rest = rest[found.end() :]
    if negative:
        return -total
    if total > 2**63 - 1:
        raise invalid
    return total


def text_of(duration_ns: int) -> str:
    """Duration.String: as in "1h15m30.918s"."""
    if duration_ns == 0:
        return "0s"
    sign, left = ("-", -duration_ns) if duration_ns < 0 else ("", duration_ns)
    for unit, length in (("ns", NS), ("µs", US), ("ms", MS)):
        if left < length * 1_000:
            return f"{sign}{_decimal(left, length)}{unit}"
    minutes, below = divmod(left, MINUTE)
    shown = f"{_decimal(below, SECOND)}s"
    if minutes:
        hours, minutes = divmod(minutes, 60)
        shown = f"{minutes}m{shown}"
        if hours:
            shown = f"{hours}h{shown}"
    return sign + shown


def _decimal(value: int, unit: int) -> str:
    whole, below = divmod(value, unit)
    digits = str(below).rjust(len(str(unit)) - 1, "0").rstrip("0") if below else ""
    return f"{whole}.{digits}" if digits else str(whole)


def _quoted(text: str) -> str:
    """As package time quotes: what is not plain ASCII is shown byte by byte."""
    parts = []
    for letter in text:
        if letter in '"\\':
            parts.append("\\" + letter)
        elif " " <= letter <= "~":
            parts.append(letter)
        else:
            parts += [f"\\x{byte:02x}" for byte in letter.encode("utf-8", "surrogateescape")]
    return f'"{"".join(parts)}"'
