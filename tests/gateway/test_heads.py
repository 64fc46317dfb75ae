"""Plain heads, without sockets: one meaning or none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.gateway import heads
from cluster.gateway.heads import Head, HeadReader, Paths, PlainRequest


def read(data: bytes) -> PlainRequest | None:
    """Read what `data` begins with."""
    return HeadReader().read(data, data.find(heads.END))


def test_a_plain_request_is_taken_apart() -> None:
    """The line, the fields that matter, and where body and request end."""
    data = (
        b"POST /v1/a%2Fb?c=d HTTP/1.1\r\nHost: x\r\nContent-Type: application/cbor\r\n"
        b"Idempotency-Key: k\r\nContent-Length: 2\r\n\r\n{}GET"
    )
    assert read(data) == PlainRequest(
        "POST",
        "/v1/a%2Fb",
        "c=d",
        Head(2, "application/cbor", cbor=True, key="k"),
        len(data) - 5,
        len(data) - 3,
    )


def test_a_head_without_an_end_or_a_field_is_not_plain() -> None:
    """There is always a Host."""
    for data in (b"", b"GET / HTTP/1.1\r\nHost: x", b"GET / HTTP/1.1\r\n\r\n", heads.END):
        assert read(data) is None


def test_the_same_fields_are_read_once_and_few_are_remembered() -> None:
    """Whatever clients send, the memory is bounded; what is a client's own is never in it."""
    reader = HeadReader()

    def read_with(field: str) -> Head:
        data = f"GET / HTTP/1.1\r\nHost: x\r\n{field}\r\n\r\n".encode()
        request = reader.read(data, data.find(heads.END))
        assert request is not None
        return request.head

    assert read_with("X-A: b") is read_with("X-A: b")
    read_with("Idempotency-Key: k")
    assert read_with("Authorization: Bearer x").authorization == "Bearer x"
    assert len(reader._known) == 1
    for number in range(heads.HEADS_KEPT_MAX):
        read_with(f"X-A: {number}")
    assert len(reader._known) <= heads.HEADS_KEPT_MAX


@pytest.mark.parametrize(
    ("method", "path", "leaf"),
    [
        ("GET", "/a", "list"),
        ("GET", "/a/b", "show"),
        ("GET", "/a/b%2F", "show"),
        ("GET", "/a/", "show"),
        ("POST", "/a/word", "word"),
        ("POST", "/a/b/do", "do"),
        ("POST", "/a/word/do", None),
        ("POST", "/a/wor%64", None),
        ("POST", "/a/%62/do", "do"),
        ("POST", "/a/%77ord/do", None),
        ("POST", "/a/%77ord", None),
        ("POST", "/a/.", None),
        ("POST", "/a/../do", None),
        ("POST", "/a", None),
        ("PUT", "/a", None),
        ("GET", "/a/b/c", None),
        ("GET", "a", None),
        ("GET", "", None),
    ],
)
def test_a_path_leads_to_one_place_or_is_left_open(method: str, path: str, leaf: object) -> None:
    """What might be a word or a name, or another place for somebody else, is not ours to say."""
    paths = Paths(
        [
            ("GET", "/a", "list"),
            ("GET", "/a/{name}", "show"),
            ("POST", "/a/word", "word"),
            ("POST", "/a/{name}/do", "do"),
        ]
    )
    assert paths.find(method, path) == leaf


@settings(max_examples=500)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["Content-Length", "Host", "Accept", "X-A", "Transfer-Encoding", "Connection", "TE"]
            ),
            st.sampled_from([":", ": ", " :", ":  ", ":\t"]),
            st.sampled_from(
                ["0", "5", "05", "+5", "5 ", "chunked", "keep-alive", "close", "x", ""]
            ),
        ),
        max_size=5,
    )
)
def test_a_plain_head_has_one_meaning(fields: list[tuple[str, str, str]]) -> None:
    """Never one with a doubled field, a coding, or a length that is not the shortest spelling."""
    head = heads.read_fields("\r\n".join(map("".join, fields)).encode())
    if head is not None:
        names = [name for name, _, _ in fields]
        assert len(names) == len(set(names))
        assert not {"Transfer-Encoding", "TE"} & set(names)
        given_lengths = [value for name, _, value in fields if name == "Content-Length"]
        assert given_lengths in ([], [str(head.length)])
