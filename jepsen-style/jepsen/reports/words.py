"""Text of reports: escaping, times and values as people read them.

RULE: strings in, strings out. Everything that came from a history goes through `escape`.
"""

from __future__ import annotations

import html
import re
from datetime import datetime
from typing import Any

import msgspec

# Neither HTML nor a terminal has a use for them.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def escape(text: object) -> str:
    """Text that is safe between tags and in quoted attributes."""
    return html.escape(_CONTROLS.sub("\N{REPLACEMENT CHARACTER}", str(text)), quote=True)


def script_json(value: object) -> str:
    """JSON for inside `<script type="application/json">`: nothing in it can end the element."""
    text = _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", msgspec.json.encode(value).decode())
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def shown(value: Any, length_max: int = 400) -> str:
    """A value of a line, short: `token=7 wait_ms=0` for an object, JSON for the rest."""
    if value is None:
        return ""
    if isinstance(value, dict):
        text = " ".join(f"{name}={shown(item, length_max)}" for name, item in value.items())
    elif isinstance(value, str):
        text = value
    else:
        text = msgspec.json.encode(value).decode()
    return text if len(text) <= length_max else f"{text[: length_max - 1]}…"


def time_of(ns: int) -> str:
    """A moment of the run: `12.345 s`, `3:07.250`, `1:02:03.000`."""
    ms = round(ns / 1e6)
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{seconds:02}.{ms:03}"
    return f"{minutes}:{seconds:02}.{ms:03}" if minutes else f"{seconds}.{ms:03} s"


def length_of(ms: float) -> str:
    """A length with the unit that suits it: `840 µs`, `12.5 ms`, `3.20 s`, `4 min 10 s`."""
    if ms < 1:
        return f"{ms * 1000:.0f} µs"
    if ms < 10:
        return f"{ms:.2f} ms"
    if ms < 1_000:
        return f"{ms:.0f} ms"
    if ms < 60_000:
        return f"{ms / 1000:.2f} s"
    minutes, seconds = divmod(round(ms / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def date_of(began: str) -> str:
    """ISO 8601 to the minute, as people read it: `2026-11-21 16:40 UTC`; other text stays."""
    try:
        moment = datetime.fromisoformat(began)
    except ValueError:
        return began
    return f"{moment:%Y-%m-%d %H:%M} {moment.tzname() or ''}".rstrip()


def count_of(number: int) -> str:
    """Thousands apart: `12,345`."""
    return f"{number:,}"
