"""What schemathesis must know of us beside the document; loaded into its process.

RULE: makes requests meet (few names, living sessions, real tokens) and says which refusals no
schema can foretell. It excuses nothing else.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections import deque
from typing import Any

import schemathesis

from cluster.wire import cbor

NAMES = ("orders", "mail", "b ü")
WAITS = ("0", "20ms", 35)
KEPT = 6
"""So many values of each kind are remembered from answers, to be asked with again."""

# A request that fits its schema may still be wrong, for these reasons and for no other.
BEYOND_SCHEMAS = re.compile(
    "is out of bounds; use|are too few; use"  # a length of time that is spelled out
    "|is finer than a millisecond|is out of range"
    "|is no id of a session; take `next` of the page before"
    "|is no place in a fifo; take `next`"
    "|is in the body and in the query; give it once"
    "|bytes; a name has at most|has more than 200 bytes"  # schemas count characters, we bytes
    "|bytes as JSON; at most|nests deeper than|holds a number of more than 64 bits"
    "|holds a number that JSON has no form for"
    "|is the tube of the job; name another one"  # a schema cannot compare path and body
    "|is not UTF-8"  # half a surrogate pair
    "|no CBOR of ours: tags are not allowed"  # whole numbers of more than 64 bits
    "|expected int.*, got float"  # 1.0 is an integer to a schema, and none to us
    "|name each (?:lock|task) once|wants either every or cron|makes no sense \\("
    "|is no time with a zone|is unknown here; write one|belongs to (?:cron|every);"
    r"|^commands\[\d+\]"  # what stands in a batch is looked at by the rows of its calls
    "|is no beginning of a path; write|is no path of a thing; use"
)

_POOLS: dict[str, deque[Any]] = {
    field: deque(maxlen=KEPT) for field in ("session", "token", "ticket", "job", "task", "key")
}
_NAMING = ("name", "fifo", "room", "tube", "pool", "resource")


@schemathesis.serializer("application/cbor")
def _serialize(_: Any, value: Any) -> bytes:
    try:
        return cbor.encode(value)
    except (cbor.WireError, TypeError, ValueError):
        return b"\xff"  # the generator's value is none that CBOR of ours can hold


@schemathesis.deserializer("application/cbor", "application/problem+cbor")
def _deserialize(_: Any, response: Any) -> Any:
    return _as_json(cbor.decode(response.content, max_bytes=1 << 20))


def _as_json(value: Any) -> Any:
    """Bytes as JSON has them, in which all schemas are written."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    return [_as_json(item) for item in value] if isinstance(value, list) else value


@schemathesis.hook
def before_call(_: Any, case: Any, __: Any) -> None:
    """Make what was drawn meet what is there. Values of one kind take the place of the same."""
    meta = case.meta
    if meta is None or not meta.generation.mode.is_positive:
        return
    # Of the request as it was drawn: no clock, no chance, nothing that only this run has.
    drawn = f"{case.method} {case.path_parameters} {case.query} {case.body}"
    # Key reuse is refused rightly, and the generator knows one key only.
    if case.headers is not None and "Idempotency-Key" in case.headers and _lot(drawn, "key") % 3:
        del case.headers["Idempotency-Key"]
    for place in (case.path_parameters, case.query, case.body):
        if isinstance(place, dict):
            _fit(drawn, place, is_text=place is not case.body)
    if case.operation.path == "/v1/cluster/transfer":
        # Anything else would move the leader under the feet of all other requests.
        case.body = {"to": "nobody"}


def _fit(drawn: str, values: dict[str, Any], *, is_text: bool) -> None:
    for field, value in list(values.items()):
        lot = _lot(drawn, field)
        pool = _POOLS.get(field, ())
        known = [one for one in pool if is_text or isinstance(value, type(one))]
        if field == "wait" and value is not None:
            wait = WAITS[lot % len(WAITS)]
            values[field] = str(wait) if is_text else wait
        elif field in _NAMING and isinstance(value, str) and lot % 8:
            values[field] = NAMES[lot % len(NAMES)]
        elif known and value is not None and lot % 4:
            chosen = known[lot % len(known)]
            values[field] = str(chosen) if is_text else chosen


def _lot(drawn: str, field: str) -> int:
    return zlib.crc32(f"{field} {drawn}".encode("utf-8", "backslashreplace"))


@schemathesis.hook
def after_call(_: Any, case: Any, response: Any) -> None:
    """Remember what an answer gave."""
    if 200 <= response.status_code < 300 and case.method in ("POST", "PUT"):
        try:
            body = response.json()
        except ValueError:
            return
        if isinstance(body, dict):
            for field, pool in _POOLS.items():
                value = body.get(field)
                is_plain = isinstance(value, (str, int)) and not isinstance(value, bool)
                if is_plain and value not in pool:
                    pool.append(value)


@schemathesis.hook
def filter_failure(_: Any, failure: Any, case: Any, response: Any) -> bool:
    """Whether a complaint counts."""
    kind = type(failure).__name__
    status = response.status_code
    if kind == "RejectedPositiveData":
        return False  # see `what_fits_is_taken`
    if kind == "AcceptedNegativeData":
        return status != 413  # too many items are too many bytes, first of all
    if kind == "AllowHeaderMismatch" or "Allow" in kind:
        # A path of one name is a path with a name as well: GET /v1/sessions/{session} takes it.
        return not re.search(r"^/v1/\w+/\w+$", case.operation.path)
    if kind == "ServerError":
        # Nobody leads for a moment: documented, and no error of the request.
        return not (status in (503, 504) and _code(response) in ("no_leader", "timeout"))
    return True


def _document(response: Any) -> dict[str, Any]:
    if "cbor" in response.headers.get("content-type", [""])[0]:
        found = cbor.decode(response.content, max_bytes=1 << 20)
    else:
        found = response.json()
    return found if isinstance(found, dict) else {}


def _detail(response: Any) -> str:
    return str(_document(response).get("detail"))


def _code(response: Any) -> str:
    return str(_document(response).get("code"))


@schemathesis.check
def what_fits_is_taken(_: Any, response: Any, case: Any) -> None:
    """Who keeps to the schemas is refused for the state of things, or for what they cannot say."""
    meta = case.meta
    if meta is None or not meta.generation.mode.is_positive or response.status_code != 400:
        return
    detail = _detail(response)
    assert BEYOND_SCHEMAS.search(detail), f"fits, and yet: {detail}"


PLAIN_HEADERS = frozenset(
    [
        "server",
        "date",
        "content-type",
        "content-length",
        "cache-control",
        "x-content-type-options",
        "connection",
        "allow",
        "content-security-policy",
        "referrer-policy",
    ]
)


@schemathesis.check
def documented_headers(_: Any, response: Any, case: Any) -> None:
    """Every header field of an answer is a usual one, or is in the document."""
    responses = case.operation.definition.raw["responses"]
    known = responses.get(str(response.status_code), {}).get("headers", {})
    fields = {name.lower() for name in response.headers} - PLAIN_HEADERS
    unknown = fields - {name.lower() for name in known}
    if response.status_code != 405:
        assert not unknown, f"header fields that the document does not have: {sorted(unknown)}"
