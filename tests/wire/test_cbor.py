"""CBOR under limits: what we say comes back, what strangers say is refused."""

from __future__ import annotations

import math
import threading
from typing import Any

import cbor2
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cluster.wire import cbor
from cluster.wire.cbor import WireError

LIMIT = 1_000_000

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.text()
    | st.binary()
    | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text() | st.binary(), inner, max_size=5)
    ),
    max_leaves=20,
)

HOSTILE = {
    "nothing at all": b"",
    "two items": b"\x01\x02",
    "a byte behind a map": cbor2.dumps({"a": 1}) + b"\x00",
    "a cut text": cbor2.dumps("holder")[:-1],
    "a cut list": b"\x83\x01\x02",
    "a claimed text of 2^60 bytes": b"\x7b" + (2**60).to_bytes(8, "big"),
    "a claimed list of 2^60 items": b"\x9b" + (2**60).to_bytes(8, "big"),
    "a claimed map of 2^32 pairs": b"\xba" + b"\xff\xff\xff\xff",
    "a list of unknown length": b"\x9f\x01\xff",
    "a map of unknown length": b"\xbf\x61a\x01\xff",
    "a text of unknown length": b"\x7f\x61a\xff",
    "bytes of unknown length": b"\x5f\x41a\xff",
    "a lone break": b"\xff",
    "a repeated key": b"\xa2\x61a\x01\x61a\x02",
    "an integer key": b"\xa1\x01\x01",
    "a list as key": b"\xa1\x81\x01\x01",
    "nesting of 17": b"\x81" * 17 + b"\x00",
    "nesting of 100,000": b"\x81" * 100_000 + b"\x00",
    "nested maps": b"\xa1\x61a" * 40 + b"\x00",
    "bad UTF-8": b"\x62\xc3\x28",
    "a surrogate": b"\x63\xed\xa0\x80",
    "a reserved length": b"\x1c",
    "a regular expression": b"\xd8\x23\x64(a+)",
    "an e-mail message": b"\xd8\x24\x61a",
    "a big integer": b"\xc2\x49" + b"\xff" * 9,
    "a megabyte integer": b"\xc2\x5a\x00\x0f\x00\x00" + b"\xff" * 0xF0000,
    "a decimal of a large exponent": b"\xc4\x82\x1b\x7f\xff\xff\xff\xff\xff\xff\xff\x01",
    "a list that holds itself": b"\xd8\x1c\x81\xd8\x1d\x00",
    "a reference into nowhere": b"\xd8\x1d\x18\x2a",
    "an unknown tag": b"\xd9\xff\xfe\x01",
    "a tag of 64 bits": b"\xdb" + b"\xff" * 8 + b"\x01",
    "a self-describing tag": b"\xd9\xd9\xf7\x01",
    "a tag deep inside": b"\x81\x81\x81\xc1\x01",
}

ODD = {
    "undefined": b"\xf7",
    "NaN": b"\xf9\x7e\x00",
    "infinity in a list": b"\x81\xf9\x7c\x00",
    "minus infinity": b"\xfb\xff\xf0\x00\x00\x00\x00\x00\x00",
    "a simple value": b"\xf8\xff",
    "undefined in a map": b"\xa1\x61a\xf7",
}


def billion_laughs() -> bytes:
    """A hundred bytes that decode to 10^9 shared items where shared references are allowed."""
    laughs = b"\xd8\x1c\x8a" + b"\x00" * 10
    for level in range(8):
        laughs = b"\xd8\x1c\x8a" + laughs + (b"\xd8\x1d" + bytes([9 + level])) * 9
    return laughs


class TestDecode:
    @given(PLAIN)
    def test_reads_back_what_was_encoded(self, value: Any) -> None:
        """Plain values survive the way out and back."""
        assert cbor.decode(cbor.encode(value), max_bytes=LIMIT) == value

    @pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
    def test_refuses_hostile_bytes(self, data: bytes) -> None:
        """Each trick of the corpus is a WireError, and the next honest item is read all the same."""
        with pytest.raises(WireError):
            cbor.decode(data, max_bytes=LIMIT)
        assert cbor.decode(b"\x83\x01\x02\x03", max_bytes=LIMIT) == [1, 2, 3]

    @pytest.mark.parametrize("tag", [*range(300), 1004, 43000, 55799])
    def test_refuses_every_tag(self, tag: int) -> None:
        """No tag is read, known to cbor2 or not, whatever stands behind it."""
        contents: list[Any] = [0, "a", b"a", [1, 2], {}]
        for content in contents:
            with pytest.raises(WireError):
                cbor.decode(cbor2.dumps(cbor2.CBORTag(tag, content)), max_bytes=LIMIT)

    def test_refuses_a_billion_laughs(self) -> None:
        """Shared references never multiply."""
        with pytest.raises(WireError):
            cbor.decode(billion_laughs(), max_bytes=LIMIT, max_depth=32)

    def test_counts_bytes_before_it_reads_them(self) -> None:
        """More bytes than allowed are refused unread; exactly as many are fine."""
        data = cbor.encode(b"x" * 100)
        assert cbor.decode(data, max_bytes=len(data)) == b"x" * 100
        with pytest.raises(WireError, match="allowed here"):
            cbor.decode(data, max_bytes=len(data) - 1)

    def test_counts_depth(self) -> None:
        """Sixteen containers inside one another are read, seventeen are not."""
        assert cbor.decode(b"\x81" * 16 + b"\x00", max_bytes=LIMIT)
        with pytest.raises(WireError):
            cbor.decode(b"\x81" * 17 + b"\x00", max_bytes=LIMIT)
        with pytest.raises(WireError):
            cbor.decode(b"\x81" * 4 + b"\x00", max_bytes=LIMIT, max_depth=3)

    @given(st.binary(max_size=200))
    @example(b"\xd8\x1c\xd8\x1d\x00")
    def test_raises_nothing_but_wire_errors(self, data: bytes) -> None:
        """Any bytes either make plain values or a WireError."""
        try:
            cbor.decode(data, max_bytes=LIMIT)
        except WireError:
            pass

    def test_says_why(self) -> None:
        """The reason names what was wrong."""
        with pytest.raises(WireError, match="tags are not allowed"):
            cbor.decode(b"\xc1\x01", max_bytes=LIMIT)
        with pytest.raises(WireError, match="2 bytes follow"):
            cbor.decode(b"\x01\x02\x03", max_bytes=LIMIT)

    def test_is_safe_in_threads(self) -> None:
        """Threads that decode at the same time never read one another's bytes."""
        wrong: list[Any] = []

        def read(number: int) -> None:
            data = cbor.encode([number] * 50)
            for _ in range(300):
                if cbor.decode(data, max_bytes=LIMIT) != [number] * 50:
                    wrong.append(number)

        threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


class TestDecodePlain:
    @pytest.mark.parametrize("data", ODD.values(), ids=ODD.keys())
    def test_refuses_odd_values(self, data: bytes) -> None:
        """Values that JSON cannot say are refused where no type checks them."""
        with pytest.raises(WireError):
            cbor.decode_plain(data, max_bytes=LIMIT)

    @given(PLAIN.filter(lambda value: not isinstance(value, float) or math.isfinite(value)))
    def test_reads_honest_values(self, value: Any) -> None:
        """Everything else passes, or is refused for an infinity inside."""
        try:
            assert cbor.decode_plain(cbor.encode(value), max_bytes=LIMIT) == value
        except WireError as error:
            assert "infinities" in str(error)


class Place(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    name: str
    position: int


class TestConvert:
    def test_makes_a_struct(self) -> None:
        """A list of the right shape becomes the value."""
        assert cbor.convert(["door", 3], Place) == Place("door", 3)

    @pytest.mark.parametrize("data", ODD.values(), ids=ODD.keys())
    def test_refuses_odd_values_in_typed_fields(self, data: bytes) -> None:
        """No typed field takes undefined, NaN or a simple value."""
        odd = cbor.decode(data, max_bytes=LIMIT)
        with pytest.raises(WireError):
            cbor.convert(["door", odd], Place)

    def test_takes_no_text_for_bytes(self) -> None:
        """A text is never read as base64 where bytes are wanted."""
        with pytest.raises(WireError):
            cbor.convert("aGk=", bytes)
        assert cbor.convert(b"aGk=", bytes) == b"aGk="

    def test_says_which_field(self) -> None:
        """The error points at the field."""
        with pytest.raises(WireError, match=r"\$\[1\]"):
            cbor.convert(["door", "third"], Place)
        with pytest.raises(WireError):
            cbor.convert(["door", 3, 4], Place)


class TestEncode:
    def test_takes_structs(self) -> None:
        """A Struct is written as the list of its fields."""
        assert cbor.encode(Place("door", 3)) == cbor.encode(["door", 3])
        assert cbor.encode([Place("door", 3)]) == cbor.encode([["door", 3]])

    def test_refuses_what_is_not_plain(self) -> None:
        """An object without a plain form is our own bug, and loud."""
        with pytest.raises(Exception, match="cannot encode"):
            cbor.encode(object())
