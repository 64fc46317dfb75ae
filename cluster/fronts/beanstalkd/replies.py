"""The words of the protocol.

RULE: values to bytes; knows no state.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

BAD_FORMAT: Final = b"BAD_FORMAT\r\n"
UNKNOWN_COMMAND: Final = b"UNKNOWN_COMMAND\r\n"
EXPECTED_CRLF: Final = b"EXPECTED_CRLF\r\n"
JOB_TOO_BIG: Final = b"JOB_TOO_BIG\r\n"
OUT_OF_MEMORY: Final = b"OUT_OF_MEMORY\r\n"
INTERNAL_ERROR: Final = b"INTERNAL_ERROR\r\n"
DRAINING: Final = b"DRAINING\r\n"
NOT_FOUND: Final = b"NOT_FOUND\r\n"
NOT_IGNORED: Final = b"NOT_IGNORED\r\n"
DEADLINE_SOON: Final = b"DEADLINE_SOON\r\n"
TIMED_OUT: Final = b"TIMED_OUT\r\n"
DELETED: Final = b"DELETED\r\n"
RELEASED: Final = b"RELEASED\r\n"
BURIED: Final = b"BURIED\r\n"
TOUCHED: Final = b"TOUCHED\r\n"
KICKED: Final = b"KICKED\r\n"
PAUSED: Final = b"PAUSED\r\n"


def inserted(job: int) -> bytes:
    """A job was put."""
    return b"INSERTED %d\r\n" % job


def using(tube: str) -> bytes:
    """Which tube is used."""
    return b"USING %s\r\n" % tube.encode()


def watching(count: int) -> bytes:
    """How many tubes are watched."""
    return b"WATCHING %d\r\n" % count


def kicked(count: int) -> bytes:
    """How many jobs were kicked."""
    return b"KICKED %d\r\n" % count


def reserved(job: int, body: bytes) -> bytes:
    """A job, to be worked on."""
    return b"RESERVED %d %d\r\n%b\r\n" % (job, len(body), body)


def found(job: int, body: bytes) -> bytes:
    """A job, to be looked at."""
    return b"FOUND %d %d\r\n%b\r\n" % (job, len(body), body)


def listed(names: Iterable[str]) -> bytes:
    """A YAML list."""
    return _yaml("".join(f"- {name}\n" for name in names))


def figures(pairs: Iterable[tuple[str, object]]) -> bytes:
    """A YAML dictionary; values stand as they are printed."""
    return _yaml("".join(f"{name}: {value}\n" for name, value in pairs))


def quoted(text: str) -> str:
    """A text as a value."""
    return f'"{text}"'


def _yaml(lines: str) -> bytes:
    data = b"---\n" + lines.encode()
    return b"OK %d\r\n%b\r\n" % (len(data), data)
