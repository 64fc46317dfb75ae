"""Logs: one line per event, JSON for machines or columns for people, and never a flood.

RULE: sets the process's logging up once, at the start. What can happen a thousand times a second is
sampled by whoever logs it.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

import msgspec
import structlog

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("auto", "console", "json")

# Without the values of local variables, among which are secrets and clients' data.
_TRACEBACKS = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)


def configure(
    *, log_format: str = "auto", level: str = "info", stream: TextIO | None = None
) -> None:
    """Set up structlog, and the standard library's logging through it.

    Args:
        log_format: "json", "console", or "auto": console on a terminal.
        level: least level that is written, of LEVELS.
        stream: where to; standard error by default.

    Raises:
        ValueError: unknown format or level.
    """
    if log_format not in FORMATS or level not in LEVELS:
        raise ValueError(f"log format {log_format!r}, level {level!r}: use {FORMATS}, {LEVELS}")
    target = sys.stderr if stream is None else stream
    is_json = log_format == "json" or (log_format == "auto" and not target.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[structlog.typing.Processor] = (
        [_TRACEBACKS, structlog.processors.JSONRenderer(_to_json)]
        if is_json
        else [
            structlog.dev.ConsoleRenderer(
                colors=target.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


class Sampler:
    """Lets the first few events of a kind through each second and counts the rest.

    Args:
        per_second: how many of one kind.
    """

    def __init__(self, per_second: int = 5):
        self._per_second = per_second
        self._seen: dict[str, tuple[float, int, int]] = {}

    def admit(self, kind: str, now_s: float) -> int | None:
        """Tell whether to log this event.

        Args:
            kind: what the events have in common; a small, fixed set.
            now_s: seconds of any clock that never falls.
        Returns:
            None: keep silent. Else how many of its kind were left out since the last line.
        """
        since, seen, left_out = self._seen.get(kind, (float("-inf"), 0, 0))
        if now_s - since >= 1.0:
            since, seen = now_s, 0
        if seen >= self._per_second:
            self._seen[kind] = (since, seen, left_out + 1)
            return None
        self._seen[kind] = (since, seen + 1, 0)
        return left_out


def _to_json(event: Any, **_options: Any) -> str:
    return msgspec.json.encode(event, enc_hook=repr).decode()
