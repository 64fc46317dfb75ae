"""gob: vectors of the specification, round trips, hostile bytes."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.fronts.gob.decoder import DEFINITIONS_MAX, Decoder, Value
from cluster.fronts.gob.encoder import Encoder, integer, unsigned
from cluster.fronts.gob.kinds import (
    BOOL,
    BYTES,
    COMPLEX,
    FLOAT,
    INT,
    STRING,
    UINT,
    Array,
    GobError,
    Kind,
    Map,
    Slice,
    Struct,
)
from cluster.fronts.gob.messages import Messages, Oversized

REQUEST = Struct("Request", (("ServiceMethod", STRING), ("Seq", UINT)))
RESPONSE = Struct("Response", (("ServiceMethod", STRING), ("Seq", UINT), ("Error", STRING)))
JOB = Struct("RPCJob", (("Body", BYTES), ("ID", STRING), ("Delay", INT)))
NOTHING = Struct("")
JOBS = Slice(JOB)
TIMED_OUT = "No new jobs available in given timeout"

DEF_REQUEST = (
    "2f ff81 03 01 01 07 52657175657374 01 ff82 00 01 02 01 0d 536572766963654d6574686f64 "
    "01 0c 00 01 03 536571 01 06 00 00 00"
)
DEF_JOB = (
    "2e ff83 03 01 01 06 5250434a6f62 01 ff84 00 01 03 01 04 426f6479 01 0a 00 01 02 4944 "
    "01 0c 00 01 05 44656c6179 01 04 00 00 00"
)
DEF_RESPONSE = (
    "3a ff81 03 01 01 08 526573706f6e7365 01 ff82 00 01 03 01 0d 536572766963654d6574686f64 "
    "01 0c 00 01 03 536571 01 06 00 01 05 4572726f72 01 0c 00 00 00"
)
JOB_1 = {"Body": b"hi", "ID": "j1", "Delay": 2_000_000_000}

Step = tuple[Kind, Any, str]
ASKED: list[Step] = [
    (
        REQUEST,
        {"ServiceMethod": "RPCServer.Ping", "Seq": 0},
        DEF_REQUEST + "13 ff82 01 0e 5250435365727665722e50696e67 00",
    ),
    (INT, 0, "03 04 00 00"),
    (
        REQUEST,
        {"ServiceMethod": "RPCServer.PutWithID", "Seq": 1},
        "1a ff82 01 13 5250435365727665722e50757457697468 4944 01 01 00",
    ),
    (JOB, JOB_1, DEF_JOB + "11 ff84 01 02 6869 01 02 6a31 01 fc ee6b2800 00"),
    (
        REQUEST,
        {"ServiceMethod": "RPCServer.Next", "Seq": 2},
        "15 ff82 01 0e 5250435365727665722e4e657874 01 02 00",
    ),
    (INT, 1_000_000_000, "07 04 00 fc 77359400"),
    (
        REQUEST,
        {"ServiceMethod": "RPCServer.Cancel", "Seq": 3},
        "17 ff82 01 10 5250435365727665722e43616e63656c 01 03 00",
    ),
    (STRING, "j1", "05 0c 00 02 6a31"),
]
ANSWERED: list[Step] = [
    (
        RESPONSE,
        {"ServiceMethod": "RPCServer.Ping"},
        DEF_RESPONSE + "13 ff82 01 0e 5250435365727665722e50696e67 00",
    ),
    (STRING, "pong", "07 0c 00 04 706f6e67"),
    (JOB, {}, DEF_JOB + "03 ff84 00"),
    (
        RESPONSE,
        {"ServiceMethod": "RPCServer.Next", "Seq": 2, "Error": TIMED_OUT},
        "3d ff82 01 0e 5250435365727665722e4e657874 01 02 01 26" + TIMED_OUT.encode().hex() + "00",
    ),
    (NOTHING, {}, "0a ff85 03 01 02 ff86 00 00 00" + "03 ff86 00"),
    (INT, 0, "03 04 00 00"),
    (
        JOBS,
        [JOB_1],
        "0d ff87 02 01 02 ff88 00 01 ff84 00 00" + "13 ff88 00 01 01 02 6869 01 02 6a31 "
        "01 fc ee6b2800 00",
    ),
    (JOBS, [], "04 ff88 00 00"),
]


def _messages(data: bytes) -> list[bytes]:
    return [one for one in Messages().feed(data) if isinstance(one, bytes)]


def _values(data: bytes, decoder: Decoder | None = None) -> list[Any]:
    decoder = decoder or Decoder()
    found = [decoder.message(one) for one in _messages(data)]
    return [one.value for one in found if one is not None]


def _without_zeros(value: Any) -> Any:
    return {name: one for name, one in value.items() if one} if type(value) is dict else value


@pytest.mark.parametrize("steps", [ASKED, ANSWERED], ids=["asked", "answered"])
def test_each_vector_is_written_and_read(steps: list[Step]) -> None:
    """Byte for byte, definitions in their places, and back."""
    encoder, decoder = Encoder(), Decoder()
    for kind, value, text in steps:
        data = encoder.encode(kind, value)
        assert data.hex(" ") == bytes.fromhex(text.replace(" ", "")).hex(" ")
        assert _values(data, decoder) == [_without_zeros(value)]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "00"), (127, "7f"), (128, "ff80"), (256, "fe0100"), (2**64 - 1, "f8" + "ff" * 8)],
)
def test_unsigned_integers(value: int, text: str) -> None:
    """As in Go's documentation."""
    assert unsigned(value).hex() == text


@pytest.mark.parametrize(("value", "text"), [(0, "00"), (-1, "01"), (-129, "fe0101"), (64, "ff80")])
def test_integers(value: int, text: str) -> None:
    """The last bit is the sign."""
    assert integer(value).hex() == text


def test_the_example_of_go_s_documentation() -> None:
    """`type Point struct { X, Y int }` with 22 and 33."""
    data = bytes.fromhex(
        "1fff810301010550 6f696e7401ff8200 0102010158010400 010159010400 0000"
        "07ff82012c014200".replace(" ", "")
    )
    assert _values(data) == [{"X": 22, "Y": 33}]
    encoder = Encoder()
    assert encoder.encode(Struct("Point", (("X", INT), ("Y", INT))), {"X": 22, "Y": 33}) == data


def test_types_that_encode_themselves_are_their_bytes() -> None:
    """A time of Go, for instance; newer descriptions of types are tolerated."""
    decoder = Decoder()
    for field in (5, 6, 7):
        # wireType: delta, then (CommonType: Name, Id), as newer programs send it.
        body = bytes([field, 1, 1]) + b"\x04Time" + b"\x01" + integer(64 + field) + b"\x00\x00\x00"
        assert decoder.message(integer(-64 - field) + body) is None
        found = decoder.message(integer(64 + field) + b"\x00" + b"\x03abc")
        assert found == Value(64 + field, b"abc")
        assert decoder.name_of(64 + field) == "Time"


def test_an_interface_is_what_is_inside() -> None:
    """Nil is None; a type may be defined in the middle of a value."""
    decoder = Decoder()
    assert decoder.message(b"\x10\x00\x00") == Value(8, None)
    inside = b"\x03int" + b"\x04" + b"\x02" + b"\x00" + integer(7)
    assert decoder.message(b"\x10\x00" + inside) == Value(8, 7)
    (definition,) = _messages(Encoder().encode(NOTHING, {}))[:1]
    inline = b"\x01x" + definition + b"\x01" + integer(65) + b"\x01" + b"\x00"
    assert decoder.message(b"\x10\x00" + inline) == Value(8, {})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "EOF"),
        ("ff", "unexpected EOF"),
        ("f0", "out of range"),
        ("04 01 00", "non-zero delta"),
        ("0c 00 05 41", "exceeds input"),
        ("ff82 00", "unknown type id"),
        ("00", "unknown type id"),
        ("ff81 00", "a type that is none"),
        ("ff81 02 01 02 ff82 00 01 04 00 00 00", "extra data"),
        ("0b 02 01 02 0b 00 01 04 00 00", "duplicate type"),
    ],
)
def test_what_is_no_gob_is_refused(text: str, why: str) -> None:
    """In one way, whatever is wrong with it."""
    with pytest.raises(GobError, match=why):
        Decoder().message(bytes.fromhex(text.replace(" ", "")))


def test_a_field_that_the_type_does_not_have() -> None:
    """Numbers of fields end with the definition."""
    decoder = Decoder()
    _values(Encoder().encode(JOB, {}), decoder)
    with pytest.raises(GobError, match="out of bounds"):
        decoder.message(integer(65) + b"\x04\x00")


def test_a_struct_ends_with_its_message() -> None:
    """Go takes one whose closing 0 is missing, and so a definition that ends early."""
    decoder = Decoder()
    _values(Encoder().encode(JOB, {}), decoder)
    whole = integer(65) + b"\x02\x01a"
    assert decoder.message(whole) == decoder.message(whole + b"\x00") == Value(65, {"ID": "a"})
    assert decoder.message(integer(65)) == Value(65, {})


def test_definitions_end() -> None:
    """A stream that does nothing but define is stopped, and what it defined still holds."""
    decoder = Decoder()

    def definition(number: int) -> bytes:
        return integer(-number) + b"\x02\x01\x02" + integer(number) + b"\x00\x01\x04\x00\x00"

    for number in range(65, 65 + DEFINITIONS_MAX):
        assert decoder.message(definition(number)) is None
    with pytest.raises(GobError, match="too many"):
        decoder.message(definition(65 + DEFINITIONS_MAX))
    assert decoder.message(integer(65) + b"\x00\x01\x02") == Value(65, [1])


def test_what_is_deep_or_wide_is_refused() -> None:
    """A type that has itself inside is no way to the end of the stack, nor a list to memory's."""
    decoder = Decoder(values_max=1000)
    own = integer(-65) + b"\x02\x01\x02" + integer(65) + b"\x00\x01" + integer(65) + b"\x00\x00"
    assert decoder.message(own) is None
    assert decoder.message(integer(65) + b"\x00\x01\x01\x00") == Value(65, [[[]]])
    with pytest.raises(GobError, match="too deep"):
        decoder.message(integer(65) + b"\x00" + b"\x01" * 1000 + b"\x00")
    with pytest.raises(GobError, match="too many values"):
        decoder.message(integer(65) + b"\x00" + unsigned(2000) + b"\x00" * 2000)


# Random ones.

_NAMES = st.sampled_from(["A", "B", "Cc", "D"])
_BASICS = st.sampled_from([BOOL, INT, UINT, FLOAT, BYTES, STRING, COMPLEX])
_KEYS = st.sampled_from([INT, UINT, STRING, BYTES])


def _structs(parts: st.SearchStrategy[Kind]) -> st.SearchStrategy[Kind]:
    fields = st.lists(st.tuples(_NAMES, parts), max_size=4, unique_by=lambda field: field[0])
    return st.builds(Struct, _NAMES, fields.map(tuple))


_KINDS: st.SearchStrategy[Kind] = st.recursive(
    _BASICS,
    lambda parts: st.one_of(
        _structs(parts),
        st.builds(Slice, parts),
        st.builds(Array, parts, st.integers(0, 3)),
        st.builds(Map, _KEYS, parts),
    ),
    max_leaves=6,
)
_FLOATS = st.floats(allow_nan=False)
_OF_BASICS: dict[Kind, st.SearchStrategy[Any]] = {
    BOOL: st.booleans(),
    INT: st.integers(-(2**63), 2**63 - 1),
    UINT: st.integers(0, 2**64 - 1),
    FLOAT: _FLOATS,
    COMPLEX: st.builds(complex, _FLOATS, _FLOATS),
    BYTES: st.binary(max_size=20),
    STRING: st.binary(max_size=20).map(lambda data: data.decode(errors="surrogateescape")),
}


def _of(kind: Kind) -> st.SearchStrategy[Any]:
    match kind:
        case Struct():
            return st.fixed_dictionaries({name: _of(part) for name, part in kind.fields})
        case Slice():
            return st.lists(_of(kind.elem), max_size=3)
        case Array():
            return st.lists(_of(kind.elem), min_size=kind.length, max_size=kind.length)
        case Map():
            return st.dictionaries(_of(kind.key), _of(kind.elem), max_size=3)
        case _:
            return _OF_BASICS[kind]


def _sent(kind: Kind, value: Any) -> Any:
    """What comes out at the other side: fields that were zero are not there."""
    match kind:
        case Struct():
            parts = {name: (part, value[name]) for name, part in kind.fields}
            return {
                name: _sent(part, one)
                for name, (part, one) in parts.items()
                if not _is_zero(part, one)
            }
        case Slice() | Array():
            return [_sent(kind.elem, one) for one in value]
        case Map():
            return {key: _sent(kind.elem, one) for key, one in value.items()}
        case _:
            return value


def _is_zero(kind: Kind, value: Any) -> bool:
    if isinstance(kind, Array):
        return all(_is_zero(kind.elem, one) for one in value)
    return not isinstance(kind, Struct) and not value


@given(st.data())
def test_what_is_written_is_read(data: st.DataObject) -> None:
    """Any values of any types, several in one stream."""
    encoder, decoder = Encoder(), Decoder()
    kinds = data.draw(st.lists(_KINDS, min_size=1, max_size=3))
    for kind in [*kinds, *kinds]:
        value = data.draw(_of(kind))
        assert _values(encoder.encode(kind, value), decoder) == [_sent(kind, value)]


_STREAM = b"".join(
    encoder.encode(kind, value)
    for encoder, steps in ((Encoder(), ASKED), (Encoder(), ANSWERED))
    for kind, value, _ in steps
)


@given(st.lists(st.integers(0, len(_STREAM)), max_size=12).map(sorted))
def test_every_split_of_a_stream_gives_the_same_messages(cuts: list[int]) -> None:
    """Byte by byte or all at once."""
    messages, found = Messages(), []
    for begin, end in zip([0, *cuts], [*cuts, len(_STREAM)], strict=True):
        found += messages.feed(_STREAM[begin:end])
    assert found == list(Messages().feed(_STREAM))
    assert messages.is_between


def test_a_stream_byte_by_byte() -> None:
    """The finest split of all; between the bytes of one message there is no end."""
    messages = Messages()
    found = [one for byte in _STREAM for one in messages.feed(bytes([byte]))]
    assert found == list(Messages().feed(_STREAM))


@given(st.binary(max_size=200))
def test_garbage_is_refused_and_nothing_worse(data: bytes) -> None:
    """With a table of types, and without one."""
    decoder = Decoder()
    _values(_STREAM[: _STREAM.index(b"RPCServer.Ping") - 5], decoder)
    for one in (Decoder(), decoder):
        with contextlib.suppress(GobError):
            one.message(data)
    with contextlib.suppress(GobError):
        list(Messages().feed(data))


@given(st.data())
def test_spoilt_streams_are_refused_or_read(data: st.DataObject) -> None:
    """Bytes changed anywhere in a real stream: the decoder goes on with the next message."""
    spoilt = bytearray(_STREAM)
    for _ in range(data.draw(st.integers(1, 4))):
        spoilt[data.draw(st.integers(0, len(spoilt) - 1))] = data.draw(st.integers(0, 255))
    decoder = Decoder()
    with contextlib.suppress(GobError):
        for one in Messages().feed(bytes(spoilt)):
            with contextlib.suppress(GobError):
                assert isinstance(one, Oversized) or decoder.message(one) is not False


@given(st.integers(0, 60), st.lists(st.integers(0, 300), max_size=6).map(sorted))
def test_a_message_that_is_too_large_is_dropped_as_it_comes(extra: int, cuts: list[int]) -> None:
    """What comes behind it is read; of itself nothing is held."""
    size = 101 + extra
    stream = b"\x02ab" + unsigned(size) + b"x" * size + b"\x01c"
    messages = Messages(bytes_max=100)
    found = []
    for begin, end in zip([0, *cuts], [*cuts, 1000], strict=True):
        found += messages.feed(stream[begin:end])
    assert found == [b"ab", Oversized(size), b"c"]


def test_a_length_that_nobody_means_ends_the_stream() -> None:
    """At once: no memory is set aside for it."""
    with pytest.raises(GobError, match="invalid message length"):
        list(Messages().feed(b"\xf8" + b"\xff" * 8))
    with pytest.raises(GobError, match="out of range"):
        list(Messages().feed(b"\x80" + b"\xff" * 8))


def test_what_came_before_such_a_length_is_read() -> None:
    """Also where both came at once."""
    found = Messages().feed(b"\x02ab\x01c\x80")
    assert [next(found), next(found)] == [b"ab", b"c"]
    with pytest.raises(GobError, match="out of range"):
        next(found)
