"""Answers made ready: the head that both ways send."""

from __future__ import annotations

from cluster.gateway import rendering
from cluster.gateway.replies import Answer, LockReleased, Problem


def test_an_answer_has_its_fields_in_one_order() -> None:
    """As bytes and as fields for aiohttp."""
    finished = rendering.of_answer(
        Answer(201, LockReleased(), 7, "/v1/x"), cbor=False, index=8, stale_ms=9
    )
    head, _, body = rendering.message(finished).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines.pop().startswith("Date: ")
    assert lines == [
        "HTTP/1.1 201 Created",
        "Content-Type: application/json",
        "Server: Coterie",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Coterie-Index: 8",
        "Coterie-Token: 7",
        "Location: /v1/x",
        "Coterie-Stale-Ms: 9",
        "Content-Length: 17",
    ]
    assert body == b'{"released":true}'
    fields = [f"{name}: {value}" for name, value in rendering.header_fields(finished).items()]
    assert fields == lines[1:-1]


def test_an_empty_answer_has_neither_type_nor_length() -> None:
    """204."""
    sent = rendering.message(rendering.of_answer(Answer(204), cbor=True, index=1))
    assert sent.endswith(b"\r\n\r\n")
    assert b"\r\nContent-" not in sent


def test_a_problem_may_be_the_last_word() -> None:
    """By its own header, or as the server drains; said once."""
    slow = Problem("request_timeout", "slow", headers=rendering.CLOSE)
    full = Problem("overloaded", "full")
    assert rendering.of_problem(slow, False, 1).is_last
    assert not rendering.of_problem(full, False, 1).is_last
    sent = rendering.message(rendering.of_problem(slow, True, 1, is_last=True))
    assert sent.count(b"Connection: close\r\n") == 1
    assert b"Content-Type: application/problem+cbor\r\n" in sent
    assert b"Retry-After: 1\r\n" in rendering.message(rendering.of_problem(full, False, 1))
