"""Requests taken apart, without sockets."""

from __future__ import annotations

import math
from typing import Any

import pytest

from cluster.gateway import requests
from cluster.gateway.locks import Acquire
from cluster.gateway.replies import Problem
from cluster.gateway.requests import BodyReader, QueryReader
from cluster.gateway.sessions import Open
from cluster.wire import cbor


def refused(call: Any, *arguments: Any, **options: Any) -> Problem:
    """Return the problem a call raises."""
    with pytest.raises(Problem) as problem:
        call(*arguments, **options)
    return problem.value


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        (b"", "session", "is missing"),
        (b"{}", "session", "is missing"),
        (b"{", "body", "is not JSON"),
        (b"\xff", "body", "is not JSON"),
        (b'{"session":"\xff"}', "body", "is not UTF-8"),
        (b'{"session":"\\ud800"}', "body", "is not JSON"),
        (b"[]", "body", "expected object, got array"),
        (b"null", "body", "expected object, got null"),
        (b'{"session":"a"} {}', "body", "is not JSON"),
        (b'{"session":5}', "session", "expected str, got int"),
        (b'{"session":null}', "session", "expected str, got null"),
        (b'{"session":""}', "session", "length >= 1"),
        (b'{"session":"a","waits":1}', "waits", "its fields: session, wait, mode, priority"),
        (b'{"session":"a","wait":1.5}', "wait", "got float"),
        (b'{"session":"a","wait":true}', "wait", "got bool"),
        (b'{"session":"a","wait":{}}', "wait", "got object"),
        (b'{"session":"a","mode":"greedy"}', "mode", "greedy"),
        (b'{"session":"a","priority":"1"}', "priority", "expected int, got str"),
        (b'{"session":"a","priority":99999999999999999999}', "priority", "4294967295"),
        (b'{"session":"a","priority":1e999}', "priority", "Number out of range"),
        (b'{"session":"a","priority":NaN}', "body", "is not JSON"),
        (b'{"session":"a","priority":' + b"9" * 6000 + b"}", "priority", "out of range"),
    ],
)
def test_a_bad_body_is_refused_by_the_name_of_its_field(
    body: bytes, field: str, words: str
) -> None:
    """The message says which field, what was found and what would do."""
    problem = refused(BodyReader(Acquire).read, body, None)
    assert problem.code == "bad_request"
    assert problem.reason["field"] == field
    assert problem.detail.startswith(f"{field}: ")
    assert words in problem.detail


def test_a_deep_body_is_refused() -> None:
    """Nesting cannot exhaust the stack, nor pass the limit of what is kept."""
    deep = b'{"ttl":1,"meta":{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}}"
    assert refused(BodyReader(Open).read, deep, None).code == "bad_request"
    body: Any = BodyReader(Open).read(
        b'{"ttl":1,"meta":{"a":' + b"[" * 20 + b"]" * 20 + b"}}", "application/json"
    )
    assert "deeper" in refused(requests.meta_json, body.meta).detail


def test_cbor_is_read_like_json() -> None:
    """The same value in either spelling is the same body."""
    value = {"session": "a", "wait": "30s", "mode": "shared", "priority": 7}
    assert BodyReader(Acquire).read(cbor.encode(value), "application/cbor") == Acquire(
        "a", "30s", "shared", 7
    )


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        b"\xa1",
        cbor.encode({"session": b"a"}),
        cbor.encode({"session": "a", "priority": math.nan}),
        cbor.encode({"session": "a"}) + b"\x00",
        cbor.encode({1: "a"}),
        cbor.encode([1]),
        bytes.fromhex("c11a514b67b0"),
    ],
)
def test_bad_cbor_is_refused(data: bytes) -> None:
    """Tags, tails, bytes for text and NaN are all the same 400."""
    assert refused(BodyReader(Acquire).read, data, "application/cbor").code == "bad_request"


def test_an_empty_body_is_fine_where_nothing_is_required() -> None:
    """No body and `{}` are the same."""
    assert BodyReader(requests.Nothing).read(b"", None) == requests.Nothing()
    assert BodyReader(requests.Nothing).read(b"{}", "application/json") == requests.Nothing()
    assert "no field of this body" in (
        refused(BodyReader(requests.Nothing).read, b'{"a":1}', None).detail
    )


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "", "a/b"])
def test_a_body_of_another_type_is_refused(kind: str) -> None:
    """A browser's form cannot command us by accident, and curl's user is told of --json."""
    problem = refused(BodyReader(Acquire).read, b"{}", kind)
    assert problem.code == "unsupported_media_type"
    assert "--json" in problem.detail


def test_json_may_name_its_charset() -> None:
    """Parameters and capitals of the content type do not matter."""
    assert requests.is_cbor("application/json; charset=utf-8") is False
    assert requests.is_cbor("Application/CBOR") is True


@pytest.mark.parametrize(
    ("accept", "content_type", "is_cbor"),
    [
        (None, None, False),
        (None, "application/cbor", True),
        ("*/*", "application/cbor", True),
        ("*/*", None, False),
        ("application/json", "application/cbor", False),
        ("application/cbor", None, True),
        ("application/cbor;q=0.5, application/json", None, False),
        ("application/json;q=0.1, application/cbor", None, True),
        ("application/cbor;q=0, */*", None, False),
        ("text/html, */*;q=0.8", "application/cbor", True),
        ("text/html", "application/cbor", False),
        ("text/html", None, False),
    ],
)
def test_the_answer_has_the_type_that_was_asked_for(
    accept: str | None, content_type: str | None, is_cbor: bool
) -> None:
    """Accept decides, else the request's own type, else JSON."""
    assert requests.wants_cbor(accept, content_type) is is_cbor


@pytest.mark.parametrize(
    "name", ["a", "a/b", "a b", "Ä", "名" * 66, "x" * 200, "{}", "%", "\u2028"]
)
def test_a_name_is_any_text_of_200_bytes(name: str) -> None:
    """Slashes, blanks and any script are fine."""
    assert requests.check_name(name, "name") == name


@pytest.mark.parametrize(
    "name", ["", "x" * 201, "名" * 67, "a\nb", "\x00", "\x7f", "\x85", "\ud800"]
)
def test_what_cannot_name_anything_is_refused(name: str) -> None:
    """Too long is counted in bytes; control characters are out."""
    assert refused(requests.check_name, name, "name").reason == {"field": "name"}


def test_a_length_out_of_bounds_names_the_bounds() -> None:
    """The message repeats what was sent and says what may be."""
    problem = refused(requests.ttl_ms, "99ms")
    assert problem.detail == 'ttl: "99ms" is out of bounds; use 100ms to 30d'
    assert refused(requests.ttl_ms, 10**30).code == "bad_request"
    assert refused(requests.ttl_ms, "5 parsecs").detail.startswith(
        'ttl: "5 parsecs" is not a duration; use e.g. "30s", "250ms"'
    )
    assert requests.ttl_ms("100ms") == 100
    assert requests.ttl_ms("30d") == 30 * 86_400_000


def test_meta_is_kept_as_sorted_json() -> None:
    """Equal objects are equal bytes, whatever their order."""
    assert requests.meta_json({"b": 1, "a": [None, True, "x"]}) == b'{"a":[null,true,"x"],"b":1}'
    assert requests.meta_json(None) is None


@pytest.mark.parametrize("meta", [{"a": b"x"}, {"a": 2**70}, {1: 2}, {"a": "x" * 5000}])
def test_meta_without_a_json_form_is_refused(meta: Any) -> None:
    """Bytes, giant numbers and giant texts are the client's to spell otherwise."""
    assert refused(requests.meta_json, meta).reason == {"field": "meta"}


@pytest.mark.parametrize("key", ["", "a b", "ä", "x" * 256, "a\x7f"])
def test_a_bad_idempotency_key_is_refused(key: str) -> None:
    """1..255 visible ASCII characters."""
    assert refused(requests.idempotency_key, key).reason == {"field": "Idempotency-Key"}


def test_a_good_idempotency_key_is_kept() -> None:
    """Also the longest; none is fine too."""
    assert requests.idempotency_key("!" * 255) == "!" * 255
    assert requests.idempotency_key(None) is None


QUERY = QueryReader((requests.WAIT, requests.LIMIT, requests.CONSISTENCY, requests.PREFIX))


def test_a_query_fills_in_defaults() -> None:
    """What is not said has its default; what is said is decoded."""
    assert QUERY.read("") == {"wait": None, "limit": 100, "consistency": False, "prefix": ""}
    assert QUERY.read("wait=1h&limit=5&consistency=stale&prefix=a%2Fb+c") == {
        "wait": 3_600_000,
        "limit": 5,
        "consistency": True,
        "prefix": "a/b c",
    }
    assert QUERY.read("wait=1500")["wait"] == 1500


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ("wat=1", "wat"),
        ("wait=1&wait=1", "wait"),
        ("wait=", "wait"),
        ("wait=-1", "wait"),
        ("wait=3600001", "wait"),
        ("wait=2h", "wait"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("limit=%D9%A3", "limit"),
        ("consistency=eventual", "consistency"),
        ("prefix=%ff", "query"),
        ("prefix=%00", "prefix"),
        ("prefix=" + "x" * 201, "prefix"),
        ("&".join("a=1" for _ in range(20)), "query"),
    ],
)
def test_a_bad_query_is_refused_by_name(raw: str, field: str) -> None:
    """Unknown, repeated, senseless and undecodable parameters are named."""
    assert refused(QUERY.read, raw).reason == {"field": field}


@pytest.mark.parametrize("raw", ["%ff", "%", "a%2", "%zz", "\udcff"])
def test_a_path_that_is_not_utf8_is_refused(raw: str) -> None:
    """Two spellings must never stand for one name by leniency."""
    assert refused(requests.path_segment, raw, "name").reason == {"field": "name"}
    assert requests.path_segment("a%2Fb%25", "name") == "a/b%"
