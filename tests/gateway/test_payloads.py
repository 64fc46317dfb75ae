"""Payloads: text stays text, bytes stay bytes, in JSON and in CBOR."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cluster.gateway.payloads import Payload, from_bytes, to_bytes, to_optional_bytes
from cluster.gateway.replies import Octets, Problem, encode
from cluster.gateway.requests import JSON_DEPTH_MAX, Body, BodyReader
from cluster.wire import cbor


class Sent(Body, frozen=True):
    """A body that carries one payload."""

    data: Payload


class Shown(msgspec.Struct, frozen=True):
    """An answer that carries one payload."""

    data: Payload


JSON_READER, CBOR = BodyReader(Sent), "application/cbor"


def sent(body: Any, *, as_cbor: bool) -> Any:
    """What a client that sends this body has stood in its field."""
    data = cbor.encode(body) if as_cbor else msgspec.json.encode(body)
    read = JSON_READER.read(data, CBOR if as_cbor else None)
    assert isinstance(read, Sent)
    return read.data


def shown(data: bytes, is_text: bool | None, *, as_cbor: bool) -> Any:
    """What a client reads in the field of the answer."""
    raw = encode(Shown(from_bytes(data, is_text)), as_cbor)
    body = cbor.decode(raw, max_bytes=len(raw)) if as_cbor else msgspec.json.decode(raw)
    return body["data"]


@given(st.text())
def test_text_comes_back_as_text(text: str) -> None:
    """Whatever the script, however it is sent, however it is read."""
    for sent_as_cbor in (False, True):
        data, is_text = to_bytes(sent({"data": text}, as_cbor=sent_as_cbor), "data", 10**6)
        assert (data, is_text) == (text.encode(), True)
        assert shown(data, is_text, as_cbor=False) == text
        assert shown(data, is_text, as_cbor=True) == text


@given(st.binary())
def test_bytes_come_back_as_bytes(data: bytes) -> None:
    """As base64 in JSON, as they are in CBOR, whichever of the two they came in."""
    in_json = msgspec.json.decode(msgspec.json.encode({"base64": data}))
    for value in (
        sent({"data": in_json}, as_cbor=False),
        sent({"data": in_json}, as_cbor=True),
        sent({"data": data}, as_cbor=True),
    ):
        assert to_bytes(value, "data", 10**6) == (data, False)
    assert shown(data, False, as_cbor=False) == in_json
    assert shown(data, False, as_cbor=True) == data


JSON_VALUES = st.recursive(
    st.integers(-(2**63), 2**64 - 1)
    | st.booleans()
    | st.floats(allow_nan=False, width=64)
    | st.text(),
    lambda inner: (
        st.lists(inner | st.none(), max_size=4)
        | st.dictionaries(st.text(), inner | st.none(), max_size=4)
    ),
    max_leaves=8,
).filter(lambda value: not isinstance(value, str))


@given(JSON_VALUES)
def test_other_json_values_come_back_as_they_were(value: object) -> None:
    """Objects, lists, numbers and truth values, however they are sent and read."""
    assume("Infinity" not in json.dumps(value) and depth(value) <= JSON_DEPTH_MAX)
    assume(not (isinstance(value, dict) and value.keys() == {"base64"}))
    for as_cbor in (False, True):
        data, is_text = to_bytes(sent({"data": value}, as_cbor=as_cbor), "data", 10**6)
        assert is_text is None
        assert json.loads(data) == value
        assert shown(data, None, as_cbor=False) == value
        assert shown(data, None, as_cbor=True) == value


def depth(value: object) -> int:
    """How deep a value nests, itself counted."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(depth, inner), default=0)


def test_a_payload_that_nests_too_deeply_is_refused() -> None:
    """No deeper than other objects of the client's own."""
    nested: object = 1
    for _ in range(JSON_DEPTH_MAX - 1):
        nested = [nested]
    assert to_bytes(nested, "data", 100)[1] is None
    with pytest.raises(Problem, match="data: nests deeper than 12"):
        to_bytes([nested], "data", 100)


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        (None, "data"),
        (float("nan"), "data"),
        ([float("-inf")], "data"),
        (2**64, "data"),
        ({"x": b"bytes"}, "data"),
        ({7: "x"}, "data"),
        (["\ud800"], "data"),
        ("\ud800", "data"),
        ({"base64": 7}, "data.base64"),
        ({"base64": "x"}, "data.base64"),
        ({"base64": "eA=="[:3]}, "data.base64"),
        ({"base64": "eA==\n"}, "data.base64"),
        ({"base64": "e_-="}, "data.base64"),
        ({"base64": "é"}, "data.base64"),
    ],
)
def test_what_is_no_payload_is_refused_by_its_field(payload: object, field: str) -> None:
    """Nothing is guessed: 400 names the field."""
    with pytest.raises(Problem) as refused:
        to_bytes(payload, "data", 100)
    assert (refused.value.code, refused.value.reason) == ("bad_request", {"field": field})


def test_bytes_are_counted_whatever_their_form() -> None:
    """The limit is of the bytes themselves."""
    assert to_bytes("é" * 5, "data", 10) == ("é".encode() * 5, True)
    for payload in ("é" * 6, b"x" * 11, {"base64": "eHh4eHh4eHh4eHg="}):
        with pytest.raises(Problem, match="data has 1[12] bytes; at most 10") as refused:
            to_bytes(payload, "data", 10)
        assert refused.value.code == "too_large"


def test_nothing_stays_nothing() -> None:
    """Null is no empty text."""
    assert to_optional_bytes(None, "data", 10) == (None, False)
    assert to_optional_bytes("", "data", 10) == (b"", True)
    assert to_optional_bytes({}, "data", 10) == (b"{}", None)
    assert from_bytes(None, False) is None
    assert from_bytes(b"", True) == ""
    assert isinstance(from_bytes(b"", False), Octets)
