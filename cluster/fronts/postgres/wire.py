"""Messages of the PostgreSQL protocol 3.0: bytes to values, values to bytes.

RULE: no I/O and no opinion. A message is a type byte, a length that counts itself, and a body;
only the first one of a connection has no type byte. All integers are big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024
STARTUP_BYTES_MAX: Final = 10_000
"""As PostgreSQL's own limit."""

PROTOCOL_3_0: Final = 196_608
SSL_REQUEST: Final = 80_877_103
GSS_REQUEST: Final = 80_877_104
CANCEL_REQUEST: Final = 80_877_102

NO_DATA: Final = b"n\0\0\0\4"
PARSE_COMPLETE: Final = b"1\0\0\0\4"
BIND_COMPLETE: Final = b"2\0\0\0\4"
CLOSE_COMPLETE: Final = b"3\0\0\0\4"
EMPTY_QUERY: Final = b"I\0\0\0\4"
PORTAL_SUSPENDED: Final = b"s\0\0\0\4"
AUTHENTICATION_OK: Final = b"R\0\0\0\x08\0\0\0\0"

_INT2 = struct.Struct("!h")
_INT4 = struct.Struct("!i")
_UINT4 = struct.Struct("!I")
_COLUMN = struct.Struct("!ihihih")


class Malformed(Exception):
    """The bytes are no message; the connection cannot go on."""


class Message(NamedTuple):
    """One message of a client."""

    kind: bytes
    body: bytes


class Inbox:
    """Cuts a stream of bytes into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._is_started = False

    def feed(self, data: bytes) -> None:
        """Take in what came."""
        self._buffer += data

    def started(self) -> None:
        """From now on messages have a type byte."""
        self._is_started = True

    def next(self) -> Message | None:
        """Take out the next whole message; the first kind of a connection is empty.

        Raises:
            Malformed: its length cannot be.
        """
        head = 1 if self._is_started else 0
        if len(self._buffer) < head + 4:
            return None
        (length,) = _INT4.unpack_from(self._buffer, head)
        most = MESSAGE_BYTES_MAX if self._is_started else STARTUP_BYTES_MAX
        if not 4 <= length <= most:
            raise Malformed(f"a message of {length} bytes; from 4 to {most} are taken")
        if len(self._buffer) < head + length:
            return None
        kind = bytes(self._buffer[:head])
        body = bytes(self._buffer[head + 4 : head + length])
        del self._buffer[: head + length]
        return Message(kind, body)


class Reader:
    """Reads the body of one message from its front.

    Every method raises Malformed where the body ends too early or holds what cannot be.
    """

    def __init__(self, body: bytes):
        self._body = body
        self._at = 0

    def int2(self) -> int:
        """A signed integer of two bytes."""
        (value,) = _INT2.unpack(self.take(2))
        return int(value)

    def int4(self) -> int:
        """A signed integer of four bytes."""
        (value,) = _INT4.unpack(self.take(4))
        return int(value)

    def uint4(self) -> int:
        """An unsigned integer of four bytes: an oid, a key."""
        (value,) = _UINT4.unpack(self.take(4))
        return int(value)

    def count(self) -> int:
        """How many parts follow."""
        count = self.int2()
        if count < 0:
            raise Malformed("a negative number of parts")
        return count

    def take(self, count: int) -> bytes:
        """So many bytes."""
        end = self._at + count
        if count < 0 or end > len(self._body):
            raise Malformed("a message ends before its parts do")
        part, self._at = self._body[self._at : end], end
        return part

    def text(self) -> str:
        """A text that ends with a zero byte."""
        end = self._body.find(b"\0", self._at)
        if end < 0:
            raise Malformed("a text without an end")
        raw = self._body[self._at : end]
        self._at = end + 1
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise Malformed("a text that is not UTF-8") from error

    def value(self) -> bytes | None:
        """A value with its length before it; None for NULL."""
        length = self.int4()
        return None if length == -1 else self.take(length)

    def end(self) -> None:
        """Nothing may be left."""
        if self._at != len(self._body):
            raise Malformed("a message goes on after its parts")


class Parse(NamedTuple):
    """Make a prepared statement. `types`: oids of its parameters, 0 where we are to find out."""

    name: str
    text: str
    types: tuple[int, ...]


class Bind(NamedTuple):
    """Make a portal of a prepared statement. Formats: 0 text, 1 binary; one may stand for all."""

    portal: str
    statement: str
    formats: tuple[int, ...]
    values: tuple[bytes | None, ...]
    results: tuple[int, ...]


class Column(NamedTuple):
    """A column of a result. `size`: of its type in bytes, negative where that varies."""

    name: str
    type: int
    size: int


def read_parse(body: bytes) -> Parse:
    """Read a Parse message.

    Raises:
        Malformed: as do all of these.
    """
    reader = Reader(body)
    name, text = reader.text(), reader.text()
    types = tuple([reader.uint4() for _ in range(reader.count())])
    reader.end()
    return Parse(name, text, types)


def read_bind(body: bytes) -> Bind:
    """Read a Bind message."""
    reader = Reader(body)
    portal, statement = reader.text(), reader.text()
    formats = tuple([reader.int2() for _ in range(reader.count())])
    values = tuple([reader.value() for _ in range(reader.count())])
    results = tuple([reader.int2() for _ in range(reader.count())])
    reader.end()
    return Bind(portal, statement, formats, values, results)


def read_named(body: bytes) -> tuple[str, str]:
    """Read a Describe or a Close: "S" or "P", and the name of a statement or portal."""
    reader = Reader(body)
    kind, name = reader.take(1).decode("latin-1"), reader.text()
    reader.end()
    if kind not in {"S", "P"}:
        raise Malformed(f"neither a statement nor a portal: {kind!r}")
    return kind, name


def read_execute(body: bytes) -> tuple[str, int]:
    """Read an Execute: a portal, and how many rows at most (0: all)."""
    reader = Reader(body)
    portal, most = reader.text(), reader.int4()
    reader.end()
    return portal, max(0, most)


def read_startup(body: bytes) -> tuple[int, dict[str, str]]:
    """Read what follows the protocol's number: parameters by name."""
    reader = Reader(body)
    version = reader.int4()
    given: dict[str, str] = {}
    while name := reader.text():
        given[name] = reader.text()
    reader.end()
    return version, given


def message(kind: bytes, *parts: bytes) -> bytes:
    """Make a message of the server."""
    body = b"".join(parts)
    return kind + _INT4.pack(len(body) + 4) + body


def parameter_status(name: str, value: str) -> bytes:
    """Tell a setting that drivers go by."""
    return message(b"S", _text(name), _text(value))


def backend_key(process: int, secret: int) -> bytes:
    """Tell what a CancelRequest has to name."""
    return message(b"K", _UINT4.pack(process), _UINT4.pack(secret))


def ready(status: bytes) -> bytes:
    """Say that the next cycle can begin: I idle, T in a transaction, E in a failed one."""
    return message(b"Z", status)


def negotiate(options: Sequence[str]) -> bytes:
    """Say that 3.0 is what we speak, and which protocol options we do not know."""
    return message(
        b"v", _INT4.pack(PROTOCOL_3_0), _INT4.pack(len(options)), *(_text(name) for name in options)
    )


def row_description(columns: Sequence[Column], formats: Sequence[int]) -> bytes:
    """Describe the rows to come."""
    parts = [_INT2.pack(len(columns))]
    for column, kind in zip(columns, formats, strict=True):
        parts += [_text(column.name), _COLUMN.pack(0, 0, column.type, column.size, -1, kind)]
    return message(b"T", *parts)


def data_row(values: Iterable[bytes | None]) -> bytes:
    """Make a row."""
    cells = list(values)
    parts = [_INT2.pack(len(cells))]
    for cell in cells:
        parts += [b"\xff\xff\xff\xff"] if cell is None else [_INT4.pack(len(cell)), cell]
    return message(b"D", *parts)


def parameter_description(types: Sequence[int]) -> bytes:
    """Tell the types of a statement's parameters."""
    return message(b"t", _INT2.pack(len(types)), *(_UINT4.pack(oid) for oid in types))


def complete(tag: str) -> bytes:
    """Say that a statement is done: `SELECT 1`."""
    return message(b"C", _text(tag))


def error(code: str, text: str, *, severity: str = "ERROR", hint: str = "") -> bytes:
    """Make an ErrorResponse."""
    return message(b"E", *_fields(severity, code, text, hint))


def notice(code: str, text: str, *, severity: str = "WARNING", hint: str = "") -> bytes:
    """Make a NoticeResponse."""
    return message(b"N", *_fields(severity, code, text, hint))


def _fields(severity: str, code: str, text: str, hint: str) -> list[bytes]:
    fields = [(b"S", severity), (b"V", severity), (b"C", code), (b"M", text), (b"H", hint)]
    return [*(key + _text(value) for key, value in fields if value), b"\0"]


def _text(text: str) -> bytes:
    return text.replace("\0", "").encode(errors="replace") + b"\0"
