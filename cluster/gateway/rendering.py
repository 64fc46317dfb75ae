"""Answers made ready to send: one set of header fields, whichever way they leave.

RULE: values to header fields and bytes. What is said is decided in `replies.py`, on which
connection in `endpoint.py` and `shortway.py`; both send exactly what is made here.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, NamedTuple

from aiohttp import hdrs
from aiohttp.helpers import rfc822_formatted_time
from multidict import istr

from cluster.gateway import replies
from cluster.gateway.replies import Answer, Problem

INDEX_HEADER: Final = istr("Coterie-Index")
TOKEN_HEADER: Final = istr("Coterie-Token")
STALE_HEADER: Final = istr("Coterie-Stale-Ms")
SERVER: Final = "Coterie"
CLOSE: Final[Mapping[str, str]] = {hdrs.CONNECTION: "close"}


class Finished(NamedTuple):
    """An answer that has only to be sent.

    Attributes:
        status: HTTP status.
        content_type: None where there is no body.
        at_index: log position that the answer reflects.
        fields: further header fields, in their order.
        body: its bytes.
        is_last: the connection is closed behind it.
    """

    status: int
    content_type: str | None
    at_index: int
    fields: tuple[tuple[str, str], ...]
    body: bytes
    is_last: bool


def of_answer(
    answer: Answer, cbor: bool, index: int, *, stale_ms: int | None = None, is_last: bool = False
) -> Finished:
    """Make a success ready.

    Args:
        stale_ms: how old the state may be that a stale read has seen; None for other answers.
    """
    fields = answer.fields
    if answer.token is not None:
        fields = (*fields, (TOKEN_HEADER, str(answer.token)))
    if answer.location is not None:
        fields = (*fields, (hdrs.LOCATION, answer.location))
    if stale_ms is not None:
        fields = (*fields, (STALE_HEADER, str(stale_ms)))
    content_type: str | None
    if answer.raw is not None:
        body, content_type = answer.raw
    elif answer.body is None:
        body, content_type = b"", None
    else:
        body = replies.encode(answer.body, cbor)
        content_type = replies.CBOR if cbor else replies.JSON
    return Finished(answer.status, content_type, index, fields, body, is_last)


def of_problem(problem: Problem, cbor: bool, index: int, *, is_last: bool = False) -> Finished:
    """Make a refusal or error ready; one that says `Connection: close` is the last."""
    is_last = is_last or hdrs.CONNECTION in problem.headers
    # Whoever sends it says so once, for all reasons alike.
    fields = [field for field in problem.headers.items() if field[0] != hdrs.CONNECTION]
    if problem.kind.retry_after_s is not None:
        fields.append((hdrs.RETRY_AFTER, str(problem.kind.retry_after_s)))
    return Finished(
        problem.status,
        replies.PROBLEM_CBOR if cbor else replies.PROBLEM_JSON,
        index,
        tuple(fields),
        replies.encode(problem.document(), cbor),
        is_last,
    )


def header_fields(finished: Finished) -> dict[str, str]:
    """Return the header fields but for those that every HTTP library adds itself."""
    fields = dict(_common(finished.content_type))
    fields[INDEX_HEADER] = str(finished.at_index)
    fields.update(finished.fields)
    return fields


def stream_fields(index: int) -> dict[str, str]:
    """Return the header fields of a stream of events that begins at a position."""
    fields = dict(_common("text/event-stream; charset=utf-8"))
    fields[INDEX_HEADER] = str(index)
    # Proxies that collect answers would keep events back.
    fields[istr("X-Accel-Buffering")] = "no"
    return fields


def date() -> str:
    """Return what the header Date says now."""
    return rfc822_formatted_time()


def message(finished: Finished, now: str | None = None) -> bytes:
    """Return the whole answer, head and body, as aiohttp would write it.

    Args:
        now: what `date` said a moment ago, where many are sent together.
    """
    status, content_type, index, fields, body, is_last = finished
    start = _starts.get((status, content_type))
    if start is None:
        start = _starts[status, content_type] = _start(status, content_type)
    lines = ""
    for name, value in fields:
        lines += f"{name}: {value}\r\n"
    if status != _NO_CONTENT:
        lines += f"Content-Length: {len(body)}\r\n"
    end = "\r\nConnection: close\r\n\r\n" if is_last else "\r\n\r\n"
    return f"{start}{index}\r\n{lines}Date: {now or date()}{end}".encode() + body


def _start(status: int, content_type: str | None) -> str:
    """Return the head as far as it is the same for every answer of a status and type."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in _common(content_type)]
    return "\r\n".join((*lines, f"{INDEX_HEADER}: "))


def _common(content_type: str | None) -> tuple[tuple[str, str], ...]:
    return _COMMON if content_type is None else ((hdrs.CONTENT_TYPE, content_type), *_COMMON)


# A plain number: an IntEnum compares ten times slower.
_NO_CONTENT: Final = HTTPStatus.NO_CONTENT.value
_COMMON: Final = (
    (hdrs.SERVER, SERVER),
    # No cache between us and the client may answer for us.
    (hdrs.CACHE_CONTROL, "no-store"),
    (istr("X-Content-Type-Options"), "nosniff"),
)
# One for each status and type there is, and those are few.
_starts: Final[dict[tuple[int, str | None], str]] = {}
