"""Types of gob: those that every stream knows, and those that a stream defines.

RULE: values only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias


class GobError(Exception):
    """These bytes are no gob that we take; the message says why, in Go's words where it has any."""


@dataclass(frozen=True, slots=True)
class Basic:
    """A type that needs no definition."""

    id: int
    go: str

    def __str__(self) -> str:
        return self.go


@dataclass(frozen=True, slots=True)
class Struct:
    """Named fields; those that are zero are not sent."""

    name: str
    fields: tuple[tuple[str, Kind], ...] = ()


@dataclass(frozen=True, slots=True)
class Slice:
    """Any number of one kind."""

    elem: Kind
    name: str = ""


@dataclass(frozen=True, slots=True)
class Array:
    """So many of one kind."""

    elem: Kind
    length: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class Map:
    """Keys of one kind, values of another."""

    key: Kind
    elem: Kind
    name: str = ""


Kind: TypeAlias = Basic | Struct | Slice | Array | Map

BOOL: Final = Basic(1, "bool")
INT: Final = Basic(2, "int")
UINT: Final = Basic(3, "uint")
FLOAT: Final = Basic(4, "float")
BYTES: Final = Basic(5, "bytes")
STRING: Final = Basic(6, "string")
COMPLEX: Final = Basic(7, "complex")
INTERFACE: Final = Basic(8, "interface")
BASICS: Final = (BOOL, INT, UINT, FLOAT, BYTES, STRING, COMPLEX, INTERFACE)

FIRST_USER_ID: Final = 64
"""Numbers below are Go's own; a stream defines types from here up."""

# The types that describe types. Their numbers are fixed, as nothing could define them.
WIRE_TYPE: Final = 16
_ARRAY_TYPE, _COMMON_TYPE, _SLICE_TYPE, _STRUCT_TYPE, _FIELD_TYPE, _FIELDS, _MAP_TYPE = range(
    17, 24
)
# Known to us only: Go gives the description of types that encode themselves no fixed number.
_ENCODER_TYPE: Final = -1

Fields: TypeAlias = tuple[tuple[str, int], ...]

WIRE_STRUCTS: Final[dict[int, tuple[str, Fields]]] = {
    WIRE_TYPE: (
        "wireType",
        (
            ("ArrayT", _ARRAY_TYPE),
            ("SliceT", _SLICE_TYPE),
            ("StructT", _STRUCT_TYPE),
            ("MapT", _MAP_TYPE),
            ("GobEncoderT", _ENCODER_TYPE),
            ("BinaryMarshalerT", _ENCODER_TYPE),
            ("TextMarshalerT", _ENCODER_TYPE),
        ),
    ),
    _ARRAY_TYPE: (
        "ArrayType",
        (("CommonType", _COMMON_TYPE), ("Elem", INT.id), ("Len", INT.id)),
    ),
    _COMMON_TYPE: ("CommonType", (("Name", STRING.id), ("Id", INT.id))),
    _SLICE_TYPE: ("SliceType", (("CommonType", _COMMON_TYPE), ("Elem", INT.id))),
    _STRUCT_TYPE: ("StructType", (("CommonType", _COMMON_TYPE), ("Field", _FIELDS))),
    _FIELD_TYPE: ("FieldType", (("Name", STRING.id), ("Id", INT.id))),
    _MAP_TYPE: ("MapType", (("CommonType", _COMMON_TYPE), ("Key", INT.id), ("Elem", INT.id))),
    _ENCODER_TYPE: ("gobEncoderType", (("CommonType", _COMMON_TYPE),)),
}
WIRE_FIELDS_ID: Final = _FIELDS
WIRE_FIELD_ID: Final = _FIELD_TYPE

_COMMON = Struct("CommonType", (("Name", STRING), ("Id", INT)))
WIRE_KIND: Final = Struct(
    "wireType",
    (
        ("ArrayT", Struct("ArrayType", (("CommonType", _COMMON), ("Elem", INT), ("Len", INT)))),
        ("SliceT", Struct("SliceType", (("CommonType", _COMMON), ("Elem", INT)))),
        (
            "StructT",
            Struct(
                "StructType",
                (
                    ("CommonType", _COMMON),
                    ("Field", Slice(Struct("FieldType", (("Name", STRING), ("Id", INT))))),
                ),
            ),
        ),
        ("MapT", Struct("MapType", (("CommonType", _COMMON), ("Key", INT), ("Elem", INT)))),
    ),
)
"""The same for those who write; we write no types that encode themselves."""
