"""Payloads: bytes of the client's own, as JSON and CBOR can carry them.

RULE: pure. The machine keeps bytes and what they came as; nobody looks into them.

In JSON a string is text; bytes that are no text are `{"base64": "…"}` both ways. In CBOR text is
text and bytes are bytes; the base64 form is understood there too. What was sent as text comes back
as text, what was sent as bytes as bytes, even where those would make a text. Any other JSON value
comes back as the value it was; who reads the bytes (a beanstalkd worker) finds its JSON text.
Standard: RFC 4648, section 4 (base64 with padding).
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from cluster.gateway.replies import Octets, OptionalPayload, Payload, Problem, from_bytes
from cluster.gateway.requests import bad_request, json_text

__all__ = [
    "JSON_PER_BYTE_MAX",
    "Octets",
    "OptionalPayload",
    "Payload",
    "from_bytes",
    "to_bytes",
    "to_optional_bytes",
]

JSON_PER_BYTE_MAX: Final = 6
"""No JSON form of a payload is longer than this many times its bytes: a control character is
written as six. For a route's `body_bytes_max`."""


def to_bytes(payload: object, field: str, bytes_max: int) -> tuple[bytes, bool | None]:
    """Return a payload's bytes, and whether it was text; None: it is JSON.

    Args:
        payload: what stood in the body, of whatever type.
        field: its name, for refusals.
        bytes_max: of the bytes themselves, whatever form they came in.

    Raises:
        Problem: `bad_request` for no payload, `too_large` for too many bytes.
    """
    is_text: bool | None
    if isinstance(payload, str):
        try:
            data, is_text = payload.encode(), True
        except UnicodeEncodeError:
            raise bad_request(field, "is not UTF-8") from None
    elif isinstance(payload, bytes):
        data, is_text = payload, False
    elif isinstance(payload, dict) and payload.keys() == {"base64"}:
        data, is_text = _from_base64(payload["base64"], field), False
    elif payload is None:
        raise bad_request(field, "is null; give text, another JSON value, or bytes as base64")
    else:
        data, is_text = json_text(payload, field), None
    if len(data) > bytes_max:
        raise Problem("too_large", f"{field} has {len(data)} bytes; at most {bytes_max}")
    return data, is_text


def to_optional_bytes(
    payload: object, field: str, bytes_max: int
) -> tuple[bytes | None, bool | None]:
    """Like `to_bytes`, with None for None.

    Raises:
        Problem: as `to_bytes`.
    """
    return (None, False) if payload is None else to_bytes(payload, field, bytes_max)


def _from_base64(text: object, field: str) -> bytes:
    if not isinstance(text, str):
        raise bad_request(f"{field}.base64", "is no text")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise bad_request(f"{field}.base64", f"is not base64 with padding ({error})") from None
