"""JSON as Go's encoding/json writes it.

RULE: bytes out, from plain values: None, booleans, numbers, texts, bytes, sequences and mappings. A
mapping is written in its own order, as a struct is; for a Go map use `go_map`.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TypeVar

T = TypeVar("T")

_SPECIAL = re.compile('["\\\\<>&\x00-\x1f\x7f\u2028\u2029\ud800-\udfff]')
_SHORT = {
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\x7f": "\x7f",
}


def encode(value: object) -> bytes:
    """Write one document, without a newline.

    Raises:
        TypeError, ValueError: a value that JSON cannot have.
    """
    parts: list[str] = []
    _write(value, parts)
    return "".join(parts).encode()


def go_map(items: Mapping[str, T]) -> dict[str, T]:
    """The same in the order that a Go map is written in."""
    return dict(sorted(items.items(), key=lambda item: item[0].encode("utf-8", "surrogatepass")))


def joined(items: Mapping[str, bytes]) -> bytes:
    """A Go map of documents that were written already."""
    members = (quoted(name).encode() + b":" + value for name, value in go_map(items).items())
    return b"{" + b",".join(members) + b"}"


def _write(value: object, parts: list[str]) -> None:
    if value is None:
        parts.append("null")
    elif isinstance(value, bool):
        parts.append("true" if value else "false")
    elif isinstance(value, int):
        parts.append(str(value))
    elif isinstance(value, float):
        parts.append(_float(value))
    elif isinstance(value, str):
        parts.append(quoted(value))
    elif isinstance(value, (bytes, bytearray)):
        parts.append(f'"{base64.b64encode(value).decode()}"')
    elif isinstance(value, Mapping):
        parts.append("{")
        for place, (name, item) in enumerate(value.items()):
            parts.append(("," if place else "") + quoted(name) + ":")
            _write(item, parts)
        parts.append("}")
    elif isinstance(value, Sequence):
        parts.append("[")
        for place, item in enumerate(value):
            if place:
                parts.append(",")
            _write(item, parts)
        parts.append("]")
    else:
        raise TypeError(f"no JSON: {type(value).__name__}")


def quoted(text: str) -> str:
    """A text as a JSON string, safe inside HTML; each byte that is no UTF-8 as U+FFFD."""
    return f'"{_SPECIAL.sub(_escape, text)}"'


def _escape(found: re.Match[str]) -> str:
    letter = found[0]
    short = _SHORT.get(letter)
    if short is not None:
        return short
    if "\ud800" <= letter <= "\udfff":
        return "\\ufffd"
    return f"\\u{ord(letter):04x}"


def _float(value: float) -> str:
    if not math.isfinite(value):
        raise ValueError(f"no JSON: {value}")
    text = repr(value)
    size = abs(value)
    if size != 0 and (size < 1e-6 or size >= 1e21):
        # Shortest digits, and an exponent without a leading zero where it is negative.
        mantissa, _, exponent = f"{Decimal(text).normalize():e}".partition("e")
        number = int(exponent)
        return f"{mantissa}e{'-' if number < 0 else '+'}{abs(number):{'' if number < 0 else '02'}}"
    plain = format(Decimal(text), "f")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain
