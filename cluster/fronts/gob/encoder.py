"""Encoder: values to messages, one table of types per stream.

RULE: sans I/O. What it is given is ours: a value that does not fit its kind is a bug and raises.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cluster.fronts.gob.kinds import (
    BOOL,
    BYTES,
    COMPLEX,
    FIRST_USER_ID,
    FLOAT,
    INT,
    STRING,
    UINT,
    WIRE_KIND,
    Array,
    Basic,
    Kind,
    Map,
    Slice,
    Struct,
)

_LONG_UINT: Final = 0x80


class Encoder:
    """Writes the messages of one stream, in order; the first type it defines has number 65."""

    def __init__(self) -> None:
        self._ids: dict[Kind, int] = {}
        self._last_id = FIRST_USER_ID

    def encode(self, kind: Kind, value: Any) -> bytes:
        """Encode one value, after the definitions that this stream has not had yet."""
        out = bytearray()
        self._define(kind, out)
        body = bytearray(integer(self._id(kind)))
        if not isinstance(kind, Struct):
            body.append(0)
        _put(body, kind, value)
        out += unsigned(len(body))
        out += body
        return bytes(out)

    def _id(self, kind: Kind) -> int:
        return kind.id if isinstance(kind, Basic) else self._ids[kind]

    def _number(self, kind: Kind) -> int:
        """The kind's number, given now if it has none."""
        if isinstance(kind, Basic):
            return kind.id
        if kind not in self._ids:
            for part in _parts(kind):
                self._number(part)
            self._last_id += 1
            self._ids[kind] = self._last_id
        return self._ids[kind]

    def _define(self, kind: Kind, out: bytearray) -> None:
        """Write what the stream needs to know of a kind: itself, then its parts."""
        if isinstance(kind, Basic) or kind in self._ids:
            return
        fresh = [kind]
        known = set(self._ids)
        self._number(kind)
        for each in fresh:
            fresh.extend(
                part
                for part in _parts(each)
                if not isinstance(part, Basic) and part not in known and part not in fresh
            )
            body = bytearray(integer(-self._ids[each]))
            _put(body, WIRE_KIND, self._described(each))
            out += unsigned(len(body))
            out += body

    def _described(self, kind: Kind) -> dict[str, Any]:
        assert not isinstance(kind, Basic)
        common = {"Name": kind.name, "Id": self._ids[kind]}
        match kind:
            case Struct():
                fields = [{"Name": name, "Id": self._id(part)} for name, part in kind.fields]
                return {"StructT": {"CommonType": common, "Field": fields}}
            case Slice():
                return {"SliceT": {"CommonType": common, "Elem": self._id(kind.elem)}}
            case Array():
                body = {"CommonType": common, "Elem": self._id(kind.elem), "Len": kind.length}
                return {"ArrayT": body}
            case Map():
                key, elem = self._id(kind.key), self._id(kind.elem)
                return {"MapT": {"CommonType": common, "Key": key, "Elem": elem}}


def unsigned(value: int) -> bytes:
    """An unsigned integer: itself, or minus its length and then its bytes."""
    if value < _LONG_UINT:
        return value.to_bytes(1)
    size = (value.bit_length() + 7) // 8
    return (256 - size).to_bytes(1) + value.to_bytes(size)


def integer(value: int) -> bytes:
    """A signed integer, its sign in the last bit."""
    return unsigned(~value << 1 | 1 if value < 0 else value << 1)


def _parts(kind: Kind) -> tuple[Kind, ...]:
    match kind:
        case Struct():
            return tuple(part for _, part in kind.fields)
        case Slice() | Array():
            return (kind.elem,)
        case Map():
            return (kind.key, kind.elem)
        case _:
            return ()


def _put(out: bytearray, kind: Kind, value: Any) -> None:
    match kind:
        case Struct():
            _put_struct(out, kind, value)
        case Slice() | Array():
            out += unsigned(len(value))
            for one in value:
                _put(out, kind.elem, one)
        case Map():
            out += unsigned(len(value))
            for key, one in value.items():
                _put(out, kind.key, key)
                _put(out, kind.elem, one)
        case _:
            _put_basic(out, kind, value)


def _put_struct(out: bytearray, kind: Struct, value: Mapping[str, Any]) -> None:
    last = -1
    for number, (name, part) in enumerate(kind.fields):
        one = value.get(name)
        if one is None or _is_zero(part, one):
            continue
        out += unsigned(number - last)
        last = number
        _put(out, part, one)
    out.append(0)


def _is_zero(kind: Kind, value: Any) -> bool:
    """Whether Go leaves a field out: numbers of 0, and lists of nothing; structs never."""
    if isinstance(kind, Struct):
        return False
    if isinstance(kind, Array):
        items: Sequence[Any] = value
        return all(_is_zero(kind.elem, one) for one in items)
    return not value


def _put_basic(out: bytearray, kind: Basic, value: Any) -> None:
    if kind is STRING:
        data = value.encode(errors="surrogateescape")
        out += unsigned(len(data))
        out += data
    elif kind is BYTES:
        out += unsigned(len(value))
        out += value
    elif kind is INT:
        out += integer(value)
    elif kind in (UINT, BOOL):
        out += unsigned(int(value))
    elif kind is FLOAT:
        out += _float(value)
    elif kind is COMPLEX:
        out += _float(value.real) + _float(value.imag)
    else:
        raise TypeError(f"{kind} is not written")


def _float(value: float) -> bytes:
    return unsigned(int.from_bytes(struct.pack("<d", value)))
