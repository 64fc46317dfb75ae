"""Requests taken apart: body, query, path and headers, each checked before anybody else sees it.

RULE: text and bytes in, values out, no I/O. What is wrong is a Problem that names the field, says
what was found and what to write instead; nothing is guessed or cut to fit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

from cluster.gateway import durations
from cluster.gateway.replies import Problem
from cluster.wire import cbor

NAME_BYTES_MAX: Final = 200
SESSION_ID_LENGTH_MAX: Final = 100
KEY_LENGTH_MAX: Final = 255
TTL_MS_MIN: Final = 100
TTL_MS_MAX: Final = 30 * 86_400_000
WAIT_MS_MAX: Final = 3_600_000
META_BYTES_MAX: Final = 4096
JSON_DEPTH_MAX: Final = 12
PAGE_MAX: Final = 1000
PAGE_DEFAULT: Final = 100
QUERY_FIELDS_MAX: Final = 16

# What JSON Schema can say of a name; bytes it cannot count.
TEXT_PATTERN: Final = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"
NAME_SCHEMA: Final[Mapping[str, object]] = {
    "type": "string",
    "minLength": 1,
    "maxLength": NAME_BYTES_MAX,
    "pattern": TEXT_PATTERN,
}
SESSION_ID_SCHEMA: Final = {**NAME_SCHEMA, "maxLength": SESSION_ID_LENGTH_MAX}

Name = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=NAME_BYTES_MAX,
        description="1..200 bytes of UTF-8 without control characters",
        extra_json_schema={"pattern": TEXT_PATTERN},
    ),
]
SessionId = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=SESSION_ID_LENGTH_MAX,
        description="id of a session",
        extra_json_schema={"pattern": TEXT_PATTERN},
    ),
]
Duration = Annotated[
    int | str,
    msgspec.Meta(
        description='"250ms", "30s", "1h30m", "2d", "PT30S", or milliseconds',
        extra_json_schema={
            "minimum": 0,
            "pattern": durations.PATTERN,
            "maxLength": durations.TEXT_MAX,
        },
    ),
]
Priority = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**32 - 1, description="smaller goes first")]


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all bodies. A field that is not declared is an error, not a wish."""


class Nothing(Body, frozen=True):
    """The body of a call that wants none; `{}` will do."""


class Ask(msgspec.Struct, frozen=True):
    """One request, taken apart.

    Attributes:
        path: the names in the path, decoded.
        body: the route's body Struct.
        query: every parameter of the route, defaults filled in.
        authorization: the header as it came.
    """

    path: Mapping[str, str]
    body: Any
    query: Mapping[str, Any]
    authorization: str | None = None


class Query(NamedTuple):
    """One query parameter: its parser raises ValueError with what is wrong and the cure.

    One that `is_repeatable` makes a list.
    """

    name: str
    parse: Callable[[str], Any]
    default: object
    schema: Mapping[str, object]
    meaning: str
    is_required: bool = False
    is_repeatable: bool = False


class BodyReader:
    """Reads the bodies of one route."""

    __slots__ = ("_decoder", "_kind")

    def __init__(self, kind: type[Body]):
        self._kind = kind
        self._decoder = msgspec.json.Decoder(kind)

    def read(self, data: bytes, content_type: str | None) -> Body:
        """Return the body's value.

        Args:
            data: the whole body, of a length already limited.
            content_type: the header as it came; None where there was none.

        Raises:
            Problem: `unsupported_media_type`, or `bad_request` that names the field.
        """
        if not data:
            # Nothing was sent: fine where every field has a default, whatever type was announced.
            return self._json(b"{}")
        if is_cbor(content_type):
            return self._cbor(data)
        return self._json(data)

    def _json(self, data: bytes) -> Body:
        try:
            return self._decoder.decode(data)
        except UnicodeDecodeError:
            raise bad_request("body", "is not UTF-8") from None
        except msgspec.ValidationError as error:
            raise self._explain(error) from None
        except (msgspec.DecodeError, RecursionError) as error:
            raise bad_request("body", f"is not JSON ({error})") from None

    def _cbor(self, data: bytes) -> Body:
        try:
            value = cbor.decode_plain(data, max_bytes=len(data))
        except cbor.WireError as error:
            raise bad_request("body", str(error)) from None
        return self.convert(value)

    def convert(self, value: object) -> Body:
        """Return the body's value, made of plain values.

        Raises:
            Problem: `bad_request` that names the field.
        """
        try:
            return msgspec.convert(value, self._kind)
        except msgspec.ValidationError as error:
            raise self._explain(error) from None

    def _explain(self, error: msgspec.ValidationError) -> Problem:
        """Say it with the name of the field first, and with the cure."""
        text = str(error)
        known = ", ".join(self._kind.__struct_encode_fields__) or "none"
        for pattern, detail in (
            (_UNKNOWN, f"is no field of this body; its fields: {known}"),
            (_MISSING, "is missing, and required"),
        ):
            if match := pattern.fullmatch(text):
                return bad_request(_under(match), detail)
        if match := _AT.fullmatch(text):
            what, field = match.groups()
            return bad_request(field.strip(".") or "body", _plain(what))
        return bad_request("body", _plain(text))


def bad_request(field: str, detail: str) -> Problem:
    """Return the refusal of a request whose part `field` is wrong."""
    return Problem("bad_request", f"{field}: {detail}", {"field": field})


def is_cbor(content_type: str | None) -> bool:
    """Tell CBOR from JSON, which is the default.

    Raises:
        Problem: `unsupported_media_type`.
    """
    try:
        return _TYPES[content_type]
    except KeyError:
        pass
    assert content_type is not None  # None is in the table
    essence = content_type.partition(";")[0].strip().lower()
    if essence not in _TYPES:
        # A header may hold any bytes, which reach us as half characters that no answer can hold.
        shown = essence[:80].encode("ascii", "replace").decode()
        raise Problem(
            "unsupported_media_type",
            f'Content-Type "{shown}" is not understood; send application/json (with curl: '
            "--json) or application/cbor",
        )
    return _TYPES[essence]


def wants_cbor(accept: str | None, content_type: str | None) -> bool:
    """Choose the type of the answer: what Accept asks for, else the type of the request.

    An Accept that names neither gets the default: a refusal would help nobody.
    """
    if accept is None or accept == "*/*":
        # Nearly every request; the exact word spares it the parsing.
        if content_type == "application/json":
            return False
        return content_type is not None and _essence(content_type) == "application/cbor"
    if "application/cbor" not in accept:
        return (
            "application/json" not in accept
            and "*/*" in accept
            and content_type is not None
            and _essence(content_type) == "application/cbor"
        )
    weights = {"application/cbor": 0.0, "application/json": 0.0}
    for part in accept.split(","):
        essence, _, parameters = part.partition(";")
        essence = essence.strip().lower()
        if essence in weights:
            match = _WEIGHT.search(parameters)
            weights[essence] = float(match[1]) if match else 1.0
    return weights["application/cbor"] > 0 and (
        weights["application/cbor"] >= weights["application/json"]
    )


def check_name(text: str, field: str) -> str:
    """Return `text` if it can name something.

    Raises:
        Problem: empty, over 200 bytes, or with control characters.
    """
    # Printable ASCII is the rule; the exact count is only for the exception.
    if 0 < len(text) <= NAME_BYTES_MAX // 4 and text.isprintable():
        return text
    if not text:
        raise bad_request(field, "is empty; a name has 1..200 bytes of UTF-8")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise bad_request(field, "is not UTF-8") from None
    if size > NAME_BYTES_MAX:
        raise bad_request(field, f"has {size} bytes; a name has at most {NAME_BYTES_MAX}")
    if _CONTROL.search(text):
        raise bad_request(field, "holds a control character; leave those out of names")
    return text


def check_session(text: str, field: str = "session") -> str:
    """Return `text` if it can be the id of a session.

    Raises:
        Problem: empty, over 100 characters, or with control characters.
    """
    size = len(text)
    # As in check_name, which a call costs more than the looking.
    if 0 < size <= NAME_BYTES_MAX // 4 and text.isprintable():
        return text
    if size > SESSION_ID_LENGTH_MAX:
        raise bad_request(field, f"is no id of a session: {size} characters")
    return check_name(text, field)


def length_ms(value: int | str, field: str, least_ms: int, most_ms: int) -> int:
    """Return a length of time in ms, between two bounds.

    Raises:
        Problem: no duration, or out of bounds.
    """
    if isinstance(value, str):
        try:
            ms = durations.parse_ms(value)
        except ValueError as error:
            raise bad_request(field, str(error)) from None
    else:
        ms = value
    if not least_ms <= ms <= most_ms:
        raise bad_request(
            field,
            f"{_shown(value)} is out of bounds; use {durations.spell(least_ms)} to "
            f"{durations.spell(most_ms)}",
        )
    return ms


def ttl_ms(value: int | str, field: str = "ttl") -> int:
    """Return a session's TTL in ms."""
    return length_ms(value, field, TTL_MS_MIN, TTL_MS_MAX)


def wait_ms(ask: Ask) -> int:
    """Return how long the client wants to wait, from body or query; 0 when it says nothing.

    Raises:
        Problem: given twice, no duration, or over an hour.
    """
    in_body, in_query = ask.body.wait, ask.query["wait"]
    if in_body is None:
        return in_query or 0
    if in_query is not None:
        raise bad_request("wait", "is in the body and in the query; give it once")
    return length_ms(in_body, "wait", 0, WAIT_MS_MAX)


def meta_json(meta: Mapping[str, Any] | None) -> bytes | None:
    """Return the client's object as JSON text, keys sorted, so that equal objects are equal bytes.

    Raises:
        Problem: not expressible in JSON, too deep or too long.
    """
    if meta is None:
        return None
    text = json_text(meta, "meta")
    if len(text) > META_BYTES_MAX:
        raise bad_request("meta", f"has {len(text)} bytes as JSON; at most {META_BYTES_MAX}")
    return text


def json_text(value: object, field: str) -> bytes:
    """Return a value as JSON text that is the same for equal values.

    Raises:
        Problem: not expressible in JSON and CBOR alike, or too deep.
    """
    _check_plain(value, JSON_DEPTH_MAX, field)
    try:
        return _canonical.encode(value)
    except UnicodeEncodeError:
        raise bad_request(field, "is not UTF-8") from None


def idempotency_key(value: str | None) -> str | None:
    """Return the client's key for this write, if it sent one.

    Raises:
        Problem: empty, too long, or with other than visible ASCII characters.
    """
    if value is None or _KEY.fullmatch(value):
        return value
    raise bad_request(
        "Idempotency-Key", f"wants 1..{KEY_LENGTH_MAX} visible ASCII characters without spaces"
    )


class QueryReader:
    """Reads the query strings of one route."""

    __slots__ = ("_defaults", "_known")

    def __init__(self, queries: Iterable[Query]):
        self._known = {query.name: query for query in queries}
        self._defaults = {query.name: query.default for query in self._known.values()}

    def read(self, raw: str) -> Mapping[str, Any]:
        """Return every parameter of the route, given or default.

        Args:
            raw: the query string as it stood in the request line, still percent-encoded.

        Raises:
            Problem: unknown, repeated or senseless parameters.
        """
        if not raw:
            return self._defaults
        try:
            pairs = parse_qsl(
                raw, keep_blank_values=True, errors="strict", max_num_fields=QUERY_FIELDS_MAX
            )
        except ValueError:
            raise bad_request(
                "query", f"is not UTF-8, or has more than {QUERY_FIELDS_MAX} parameters"
            ) from None
        given: dict[str, Any] = {}
        for name, text in pairs:
            query = self._known.get(name)
            if query is None:
                names = ", ".join(self._known) or "none"
                raise bad_request(name[:80], f"is no query parameter here; there are: {names}")
            if query.is_repeatable:
                given.setdefault(name, []).append(self.parse(name, text))
                continue
            if name in given:
                raise bad_request(name, "is given twice")
            given[name] = self.parse(name, text)
        return self._defaults | given

    def parse(self, name: str, text: str) -> Any:
        """Return one parameter that is known.

        Raises:
            Problem: it is senseless.
        """
        try:
            return self._known[name].parse(text)
        except ValueError as error:
            raise bad_request(name, str(error)) from None


def path_segment(raw: str, field: str) -> str:
    """Decode one percent-encoded segment of a path.

    Raises:
        Problem: not UTF-8, or a percent sign that encodes nothing.
    """
    if _BROKEN_PERCENT.search(raw):
        raise bad_request(field, "has a percent sign that encodes nothing; write it as %25")
    try:
        return unquote_to_bytes(raw.encode("utf-8")).decode("utf-8")
    except UnicodeError:
        raise bad_request(field, "is not UTF-8") from None


def _parse_wait(text: str) -> int:
    ms = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
    if ms is None:
        ms = durations.parse_ms(text)
    if ms > WAIT_MS_MAX:
        raise ValueError(f"{text} is out of bounds; use 0ms to {durations.spell(WAIT_MS_MAX)}")
    return ms


def _parse_limit(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= PAGE_MAX:
        return int(text)
    raise ValueError(f'"{text[:40]}" is out of bounds; use a whole number from 1 to {PAGE_MAX}')


def _parse_consistency(text: str) -> bool:
    if text == "linearizable":
        return False
    if text == "stale":
        return True
    raise ValueError(f'"{text[:40]}" is unknown; use linearizable or stale')


def _parse_text(text: str) -> str:
    if len(text.encode()) > NAME_BYTES_MAX:
        raise ValueError(f"has more than {NAME_BYTES_MAX} bytes")
    if _CONTROL.search(text):
        raise ValueError("holds a control character")
    return text


def _check_plain(value: object, depth: int, field: str) -> None:
    """Refuse what JSON would change in silence or CBOR cannot hold; and what is too deep."""
    if depth == 0:
        raise bad_request(field, f"nests deeper than {JSON_DEPTH_MAX}")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise bad_request(field, "has a key that is no text; JSON knows no others")
            _check_plain(item, depth - 1, field)
    elif isinstance(value, list):
        for item in value:
            _check_plain(item, depth - 1, field)
    elif isinstance(value, bytes):
        raise bad_request(field, "holds bytes, which JSON has no form for; write them as text")
    elif isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise bad_request(field, "holds a number of more than 64 bits; write it as text")
    elif isinstance(value, float) and not math.isfinite(value):
        raise bad_request(field, "holds a number that JSON has no form for; write it as text")


def _essence(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _shown(value: int | str) -> str:
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _plain(text: str) -> str:
    for ours, theirs in (("Expected", "expected"), ("`", "")):
        text = text.replace(ours, theirs)
    return text


def _under(match: re.Match[str]) -> str:
    parent = (match["at"] or "").strip(".")
    return f"{parent}.{match['field']}" if parent else match["field"]


_TYPES: Final[Mapping[str | None, bool]] = {
    None: False,
    "application/json": False,
    "application/cbor": True,
}
_UNKNOWN = re.compile(
    r"Object contains unknown field `(?P<field>.*?)`(?: - at `\$(?P<at>.*)`)?", re.DOTALL
)
_MISSING = re.compile(r"Object missing required field `(?P<field>.*?)`(?: - at `\$(?P<at>.*)`)?")
_AT = re.compile(r"(.*?) - at (?:`key` in )?`\$(.*)`", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_KEY = re.compile(r"[!-~]{1,255}")
_WEIGHT = re.compile(r"\bq\s*=\s*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\b")
_BROKEN_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_canonical: Final = msgspec.json.Encoder(order="deterministic")

_TEXT_SCHEMA: Final = {"type": "string", "maxLength": NAME_BYTES_MAX, "pattern": TEXT_PATTERN}

WAIT: Final = Query(
    "wait",
    _parse_wait,
    None,
    {
        "type": "string",
        "pattern": f"^[0-9]+$|{durations.PATTERN}",
        "maxLength": durations.TEXT_MAX,
        "examples": ["30s"],
    },
    "how long to wait at most, up to 1h; default 0",
)
CONSISTENCY: Final = Query(
    "consistency",
    _parse_consistency,
    False,
    {"type": "string", "enum": ["linearizable", "stale"], "default": "linearizable"},
    "linearizable: as new as everything acknowledged; stale: what this node has, at once",
)
PREFIX: Final = Query("prefix", _parse_text, "", _TEXT_SCHEMA, "only names that begin with this")
AFTER: Final = Query(
    "after", _parse_text, None, _TEXT_SCHEMA, "go on after this: `next` of the page before"
)
LIMIT: Final = Query(
    "limit",
    _parse_limit,
    PAGE_DEFAULT,
    {"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE_DEFAULT},
    "how many at most",
)
