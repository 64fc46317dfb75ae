"""Decoder: messages to values, one table of types per stream.

RULE: sans I/O; whatever the bytes, it answers with a value or with GobError, within bounds of depth,
of values per message and of definitions per stream.

A struct is a dict by field names without those that were zero; a string is a `str` in which bytes
that are no UTF-8 stand as surrogates, so that it can be written back as it was; what a Go type
encoded by itself (a time, for instance) is its bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from cluster.fronts.gob.kinds import (
    BASICS,
    BOOL,
    BYTES,
    COMPLEX,
    FIRST_USER_ID,
    FLOAT,
    INT,
    INTERFACE,
    STRING,
    UINT,
    WIRE_FIELD_ID,
    WIRE_FIELDS_ID,
    WIRE_STRUCTS,
    WIRE_TYPE,
    GobError,
)

DEPTH_MAX: Final = 64
VALUES_MAX: Final = 100_000
DEFINITIONS_MAX: Final = 1_000
DEFINITION_BYTES_MAX: Final = 256 * 1024
"""Of all definitions of a stream together."""

NAME_LENGTH_MAX: Final = 1_000
"""Of a type that is told by what it is made of."""

_UINT_BYTES_MAX = 8


@dataclass(frozen=True, slots=True)
class StructType:
    """A struct that the stream defined. `fields`: names and numbers of their types."""

    name: str
    fields: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class ListType:
    """A slice, or an array of `length`."""

    name: str
    elem: int
    length: int | None


@dataclass(frozen=True, slots=True)
class MapType:
    """A map."""

    name: str
    key: int
    elem: int


@dataclass(frozen=True, slots=True)
class OpaqueType:
    """A type that encodes itself into bytes."""

    name: str


Defined: TypeAlias = StructType | ListType | MapType | OpaqueType


@dataclass(frozen=True, slots=True)
class Value:
    """One decoded value. `type_id` is of this stream."""

    type_id: int
    value: Any


_WIRE: Final[dict[int, Defined]] = {
    **{number: StructType(name, fields) for number, (name, fields) in WIRE_STRUCTS.items()},
    WIRE_FIELDS_ID: ListType("[]fieldType", WIRE_FIELD_ID, None),
}


class Decoder:
    """Reads the messages of one stream, in order.

    Args:
        values_max: in one message, counting each member of each list and struct.
        depth_max: of values within values.
    """

    def __init__(self, *, values_max: int = VALUES_MAX, depth_max: int = DEPTH_MAX) -> None:
        self._values_max = values_max
        self._depth_max = depth_max
        self._types: dict[int, Defined] = {}
        self._definition_bytes = 0
        self._data = b""
        self._at = 0
        self._left = 0
        self._basics: dict[int, Callable[[], Any]] = {
            BOOL.id: self._bool,
            INT.id: self._int,
            UINT.id: self._uint,
            FLOAT.id: self._float,
            BYTES.id: self._bytes,
            STRING.id: self._string,
            COMPLEX.id: self._complex,
        }

    def message(self, data: bytes) -> Value | None:
        """Decode one message; None where it was a definition.

        Raises:
            GobError: it is none of either. The next message can be read all the same.
        """
        self._data, self._at, self._left = data, 0, self._values_max
        try:
            type_id = self._int()
            if type_id < 0:
                self._define(-type_id)
                if self._at < len(data):
                    raise GobError("extra data in buffer")
                return None
            self._check_known(type_id)
            if not isinstance(self._types.get(type_id), StructType) and self._uint() != 0:
                raise GobError("gob: decode: corrupted data: non-zero delta for singleton")
            return Value(type_id, self._value(type_id, 0))
        finally:
            self._data = b""

    def type_of(self, type_id: int) -> Defined | None:
        """What the stream defined under this number; None for Go's own types."""
        return self._types.get(type_id)

    def name_of(self, type_id: int) -> str:
        """A type as Go names it in its errors; what goes on for too long is cut off."""
        name = ""
        for part in self._spelled(type_id, 0):
            name += part
            if len(name) > NAME_LENGTH_MAX:
                return f"{name[:NAME_LENGTH_MAX]}..."
        return name

    def _spelled(self, type_id: int, depth: int) -> Iterator[str]:
        # Bit by bit: types within types may be more than could ever be written down.
        defined = self._types.get(type_id)
        if defined is None:
            yield next((basic.go for basic in BASICS if basic.id == type_id), "unknown type")
        elif defined.name or depth > 2:
            yield defined.name
        elif isinstance(defined, StructType):
            yield "struct { "
            for name, number in defined.fields:
                yield f"{name} "
                yield from self._spelled(number, depth + 1)
                yield "; "
            yield "}"
        elif isinstance(defined, ListType):
            yield "[]" if defined.length is None else f"[{defined.length}]"
            yield from self._spelled(defined.elem, depth + 1)
        elif isinstance(defined, MapType):
            yield "map["
            yield from self._spelled(defined.key, depth + 1)
            yield "]"
            yield from self._spelled(defined.elem, depth + 1)
        else:
            yield "GobEncoder"

    # Definitions.

    def _check_known(self, type_id: int) -> None:
        if type_id not in self._types and type_id not in self._basics and type_id != INTERFACE.id:
            raise GobError("gob: unknown type id or corrupted data")

    def _define(self, type_id: int) -> None:
        if type_id < FIRST_USER_ID or type_id in self._types:
            raise GobError("gob: duplicate type received")
        before = self._at
        wire = self._value(WIRE_TYPE, 0)
        self._definition_bytes += self._at - before
        if (
            len(self._types) >= DEFINITIONS_MAX
            or self._definition_bytes > DEFINITION_BYTES_MAX
            or len(wire) != 1
        ):
            raise GobError("gob: bad data: a type that is none, or too many of them")
        ((what, body),) = wire.items()
        name = body.get("CommonType", {}).get("Name", "")
        self._types[type_id] = _defined(what, name, body)

    # Values.

    def _value(self, type_id: int, depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise GobError("gob: too many values in a message")
        basic = self._basics.get(type_id)
        if basic is not None:
            return basic()
        if depth >= self._depth_max:
            raise GobError("gob: values too deep in one another")
        defined = self._types.get(type_id) or _WIRE.get(type_id)
        if isinstance(defined, StructType):
            return self._struct(defined, depth + 1)
        if isinstance(defined, ListType):
            return self._list(defined, depth + 1)
        if isinstance(defined, MapType):
            return self._map(defined, depth + 1)
        if isinstance(defined, OpaqueType):
            return self._bytes()
        if type_id == INTERFACE.id:
            return self._interface(depth + 1)
        raise GobError("gob: unknown type id or corrupted data")

    def _struct(self, defined: StructType, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        number, fields = -1, defined.fields
        # Go ends a struct with its message, too, where the closing 0 is left out.
        while self._at < len(self._data) and (delta := self._uint()) != 0:
            number += delta
            if number >= len(fields):
                raise GobError("gob: bad data: field numbers out of bounds")
            name, type_id = fields[number]
            found[name] = self._value(type_id, depth)
        return found

    def _list(self, defined: ListType, depth: int) -> list[Any]:
        count = self._count()
        if defined.length is not None and count != defined.length:
            raise GobError("gob: length mismatch in decodeArray")
        elem = defined.elem
        return [self._value(elem, depth) for _ in range(count)]

    def _map(self, defined: MapType, depth: int) -> dict[Any, Any]:
        found = {}
        for _ in range(self._count()):
            key = self._value(defined.key, depth)
            if isinstance(key, dict | list):
                raise GobError("gob: keys of a map that are made of several values")
            found[key] = self._value(defined.elem, depth)
        return found

    def _interface(self, depth: int) -> Any:
        """The value inside, whatever Go calls its type; None for nil."""
        if not self._bytes():
            return None
        # Types that the value needs may be defined here, in the middle of everything.
        while (type_id := self._int()) < 0:
            self._define(-type_id)
            self._uint()
        self._check_known(type_id)
        self._count()
        if not isinstance(self._types.get(type_id), StructType) and self._uint() != 0:
            raise GobError("gob: decode: corrupted data: non-zero delta for singleton")
        return self._value(type_id, depth)

    def _uint(self) -> int:
        data, at = self._data, self._at
        if at >= len(data):
            raise GobError("EOF")
        first = data[at]
        if first < 0x80:
            self._at = at + 1
            return first
        count = 256 - first
        if count > _UINT_BYTES_MAX:
            raise GobError("gob: encoded unsigned integer out of range")
        end = at + 1 + count
        if end > len(data):
            raise GobError("unexpected EOF")
        self._at = end
        return int.from_bytes(data[at + 1 : end])

    def _int(self) -> int:
        folded = self._uint()
        return ~(folded >> 1) if folded & 1 else folded >> 1

    def _count(self) -> int:
        """A count of what follows: each takes a byte at the least."""
        count = self._uint()
        left = len(self._data) - self._at
        if count > left:
            raise GobError(f"gob: invalid data length {count}: exceeds input size {left}")
        return count

    def _bool(self) -> bool:
        return self._uint() != 0

    def _float(self) -> float:
        # Go turns the eight bytes round, as most numbers have their zeros at the end.
        value: float = struct.unpack("<d", self._uint().to_bytes(8))[0]
        return value

    def _complex(self) -> complex:
        real = self._float()
        return complex(real, self._float())

    def _bytes(self) -> bytes:
        count = self._count()
        begin = self._at
        self._at = begin + count
        return self._data[begin : self._at]

    def _string(self) -> str:
        return self._bytes().decode(errors="surrogateescape")


def _defined(what: str, name: str, body: dict[str, Any]) -> Defined:
    """A type from its description; numbers that are not defined yet are met when they are used."""
    match what:
        case "StructT":
            fields = tuple((one.get("Name", ""), one.get("Id", 0)) for one in body.get("Field", ()))
            return StructType(name, fields)
        case "SliceT":
            return ListType(name, body.get("Elem", 0), None)
        case "ArrayT":
            return ListType(name, body.get("Elem", 0), body.get("Len", 0))
        case "MapT":
            return MapType(name, body.get("Key", 0), body.get("Elem", 0))
        case _:
            return OpaqueType(name)
