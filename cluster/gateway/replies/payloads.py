"""Payloads in answers: bytes of the client's own, as JSON and CBOR can carry them.

RULE: values only. How they come in is in `gateway/payloads.py`, which explains them.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

_BASE64_FORM: Final = {
    "type": "object",
    "properties": {
        "base64": {
            "type": "string",
            "contentEncoding": "base64",
            "pattern": "^(?:[0-9A-Za-z+/]{4})*(?:[0-9A-Za-z+/]{2}==|[0-9A-Za-z+/]{3}=)?$",
        }
    },
    "required": ["base64"],
    "additionalProperties": False,
}
_OBJECT: Final = {"type": "object", "not": {"required": ["base64"], "maxProperties": 1}}

Payload = Annotated[
    Any,
    msgspec.Meta(
        description='text, {"base64": "…"} for bytes (in CBOR also a byte string), or other JSON',
        extra_json_schema={
            "anyOf": [{"type": ["string", "number", "boolean", "array"]}, _BASE64_FORM, _OBJECT]
        },
    ),
]
"""In a body as it came, before `to_bytes`; in an answer what `from_bytes` made."""

OptionalPayload = Annotated[
    Any,
    msgspec.Meta(
        description="as a payload, or null",
        extra_json_schema={
            "anyOf": [
                {"type": ["string", "number", "boolean", "array", "null"]},
                _BASE64_FORM,
                _OBJECT,
            ]
        },
    ),
]
"""A Payload that may be null (None)."""


class Octets:
    """Bytes in the body of an answer: a byte string in CBOR, `{"base64": "…"}` in JSON."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


def from_bytes(data: bytes | None, is_text: bool | None) -> str | Octets | msgspec.Raw | None:
    """Return what stands for a payload in the body of an answer.

    Args:
        data: as the machine keeps it; None comes back as None.
        is_text: it came as text, so it is UTF-8; None: it is JSON.
    """
    if data is None:
        return None
    if is_text is None:
        return msgspec.Raw(data)
    return data.decode() if is_text else Octets(data)
