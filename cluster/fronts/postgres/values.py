"""Types of parameters and columns, and how values stand in text and in binary format.

RULE: a handful of types, each by its oid of PostgreSQL's catalogue. Inside, an integer is an int, a
text a str, an array a list, NULL is None.
"""

from __future__ import annotations

import re
import struct
from typing import Any, Final, NamedTuple

from cluster.fronts.postgres.failure import Failure

INT2, INT4, INT8, TEXT, VARCHAR, UNKNOWN, BOOL, VOID, NUMERIC = (
    21, 23, 20, 25, 1043, 705, 16, 2278, 1700,
)  # fmt: skip
NAME, BPCHAR, JSON, JSONB = 19, 1042, 114, 3802
INT2S, INT4S, INT8S, TEXTS, VARCHARS = 1005, 1007, 1016, 1009, 1015

INTEGERS: Final = {INT2: 2, INT4: 4, INT8: 8}
_ARRAYS: Final = {INT2S: INT2, INT4S: INT4, INT8S: INT8, TEXTS: TEXT, VARCHARS: VARCHAR}
_LETTERS: Final = {TEXT, VARCHAR, UNKNOWN, NAME, BPCHAR, JSON}
ITEMS_MAX: Final = 100_000
"""Of an array: as many as a pool has tasks at the most."""

_DIGITS_MAX: Final = 1_000

_ITEM = re.compile(r'\s*+(?:"((?:[^"\\]++|\\.)*+)"|([^",{}]++))\s*+(,|\Z)', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


class Type(NamedTuple):
    """One type. `size`: in bytes, -1 where it varies."""

    oid: int
    name: str
    size: int


TYPES: Final = {
    kind.oid: kind
    for kind in (
        Type(BOOL, "boolean", 1),
        Type(INT2, "smallint", 2),
        Type(INT4, "integer", 4),
        Type(INT8, "bigint", 8),
        Type(TEXT, "text", -1),
        Type(VARCHAR, "character varying", -1),
        Type(JSON, "json", -1),
        Type(JSONB, "jsonb", -1),
        Type(VOID, "void", 4),
        Type(INT8S, "bigint[]", -1),
        Type(TEXTS, "text[]", -1),
    )
}
"""Those that results and parameters of ours have."""

BY_NAME: Final = {kind.name: kind for kind in TYPES.values()} | {
    "int8": TYPES[INT8],
    "int4": TYPES[INT4],
    "int": TYPES[INT4],
    "varchar": TYPES[VARCHAR],
    "bool": TYPES[BOOL],
}


def decode(raw: bytes | None, oid: int, *, is_binary: bool) -> Any:
    """Read a parameter.

    Args:
        oid: of its type; an unknown one is taken for text.

    Raises:
        Failure: it is none of its type.
    """
    if raw is None:
        return None
    if not is_binary:
        return from_text(_utf8(raw), oid)
    if oid in INTEGERS:
        if len(raw) != INTEGERS[oid]:
            raise Failure("22P03", "an integer of the wrong length")
        return int.from_bytes(raw, "big", signed=True)
    if oid in _ARRAYS:
        return _array_from_binary(raw)
    if oid == BOOL:
        return raw != b"\0"
    if oid == JSONB:
        return _utf8(raw[1:])
    if oid in _LETTERS:
        return _utf8(raw)
    raise Failure("0A000", f"values of the type {oid} are not taken in binary format")


def from_text(text: str, oid: int) -> Any:
    """Read a value in text format.

    Raises:
        Failure: it is none of its type.
    """
    if oid in INTEGERS:
        return in_range(integer(text, oid), oid)
    if oid == NUMERIC:
        return integer(text)
    if oid in _ARRAYS:
        item = _ARRAYS[oid]
        return [None if one is None else from_text(one, item) for one in array(text)]
    if oid == BOOL:
        return text.strip().lower() in {"t", "true", "1", "y", "yes", "on"}
    return text


def encode(value: Any, oid: int, *, is_binary: bool) -> bytes | None:
    """Write a value of a result.

    Raises:
        Failure: it is none of its type.
    """
    if value is None:
        return None
    if oid in INTEGERS:
        number = value if isinstance(value, int) else integer(str(value))
        size = INTEGERS[oid]
        if not -(1 << 8 * size - 1) <= number < 1 << 8 * size - 1:
            raise Failure("22003", f'"{number}" is out of range for type {TYPES[oid].name}')
        return number.to_bytes(size, "big", signed=True) if is_binary else b"%d" % number
    if oid == BOOL:
        return (b"\1" if value else b"\0") if is_binary else (b"t" if value else b"f")
    if oid == VOID:
        return b""
    text = str(value).encode(errors="replace")
    return b"\1" + text if is_binary and oid == JSONB else text


def is_of(value: Any, oid: int) -> bool:
    """It is NULL or, where an array or an integer is wanted, one."""
    if oid in _ARRAYS:
        return value is None or isinstance(value, list)
    if oid in INTEGERS:
        return value is None or (isinstance(value, int) and not isinstance(value, bool))
    return True


def integer(text: str, oid: int = INT8) -> int:
    """Read an integer as PostgreSQL writes and takes it, however large."""
    bare = text.strip()
    digits = bare[1:] if bare[:1] in {"-", "+"} else bare
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _DIGITS_MAX):
        raise Failure("22P02", f'invalid input syntax for type {TYPES[oid].name}: "{text[:80]}"')
    return int(bare)


def in_range(number: int, oid: int) -> int:
    """The number itself, if its type has it.

    Raises:
        Failure: it has not.
    """
    half = 1 << 8 * INTEGERS[oid] - 1
    if not -half <= number < half:
        text = f'value "{str(number)[:80]}" is out of range for type {TYPES[oid].name}'
        raise Failure("22003", text)
    return number


def array(text: str) -> list[str | None]:
    """Read an array of one dimension in text format: `{1,2}`, `{"a b",NULL}`.

    Raises:
        Failure: it is no such array.
    """
    wrong = Failure("22P02", f'malformed array literal: "{text[:80]}"')
    bare = text.strip()
    if len(bare) < 2 or bare[0] != "{" or bare[-1] != "}":
        raise wrong
    inside, items, at = bare[1:-1], list[str | None](), 0
    is_more = bool(inside.strip())
    while is_more:
        found = _ITEM.match(inside, at)
        if found is None:
            raise wrong
        if len(items) == ITEMS_MAX:
            raise _too_many_items()
        quoted, plain, end = found.groups()
        if quoted is not None:
            items.append(_ESCAPED.sub(r"\1", quoted))
        elif word := plain.strip():
            items.append(None if word.upper() == "NULL" else word.replace("\\", ""))
        else:
            raise wrong
        at, is_more = found.end(), end == ","
    return items


def _array_from_binary(raw: bytes) -> list[Any]:
    """An array of one dimension: its header, then each item with its length."""
    try:
        dimensions, _, item, *_ = struct.unpack_from("!iii", raw)
        if dimensions == 0:
            return []
        if dimensions != 1 or item in _ARRAYS:
            raise Failure("0A000", "only arrays of one dimension are taken")
        (count, _), at = struct.unpack_from("!ii", raw, 12), 20
        if count < 0:
            raise Failure("22P03", "an array with that many items cannot be")
        if count > ITEMS_MAX:
            raise _too_many_items()
        items: list[Any] = []
        for _ in range(count):
            (length,) = struct.unpack_from("!i", raw, at)
            at += 4
            if length == -1:
                items.append(None)
                continue
            if length < 0 or at + length > len(raw):
                raise Failure("22P03", "an array ends before its items do")
            items.append(decode(raw[at : at + length], item, is_binary=True))
            at += length
    except struct.error as error:
        raise Failure("22P03", "an array ends before its items do") from error
    return items


def _too_many_items() -> Failure:
    return Failure("54000", f"an array has at most {ITEMS_MAX} items here")


def _utf8(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise Failure("22021", "a text that is not UTF-8") from error
