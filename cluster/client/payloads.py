"""Payloads: what a client's jobs, tickets and tasks carry, as the HTTP document writes it.

RULE: no I/O. Text is text, bytes are `{"base64": "…"}`, and any other JSON value is itself.
"""

from __future__ import annotations

import base64
from typing import Any, TypeAlias

Payload: TypeAlias = str | bytes | int | float | bool | list[Any] | dict[str, Any]
"""It comes back as what it was; bytes inside of lists and dicts have no form in JSON."""


def payload_of(data: Payload) -> object:
    """What stands for a payload in a request.

    Raises:
        ValueError: a dict that would come back as bytes.
    """
    if isinstance(data, bytes):
        return {"base64": base64.b64encode(data).decode()}
    if isinstance(data, dict) and data.keys() == {"base64"}:
        raise ValueError(f"{data!r} stands for bytes; give the bytes, or a dict of other keys")
    return data


def payload_in(found: Any) -> Any:
    """The payload in an answer; None where there is none."""
    if isinstance(found, dict) and found.keys() == {"base64"}:
        return base64.b64decode(found["base64"])
    return found
