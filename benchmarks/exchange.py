"""One keep-alive HTTP/1.1 connection, driven by bytes.

RULE: the least work per answer that is still right: no task, no future and no header object.
aiohttp's client costs about 70 us a request and would be measured instead of the server.
"""

from __future__ import annotations

import asyncio
import re
from typing import cast

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE)
_BODILESS = (204, 304)


class BadAnswer(Exception):
    """The server said something that is no HTTP/1.1 answer we know."""


def request(method: str, path: str, body: bytes = b"") -> bytes:
    """Spell a request; the Host is always the loopback, which neither contender reads."""
    return (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


class Exchange(asyncio.Protocol):
    """Sends a request, waits for its answer; never two at once.

    A subclass says what an answer leads to.
    """

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; a subclass sends its first request from here."""
        # uvloop's transports are no subclass of asyncio's, so this cannot be asserted.
        self.transport = cast(asyncio.Transport, transport)
        self._buffer = b""

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the transport."""
        self.transport = None

    def send(self, data: bytes) -> None:
        """Send one whole request; only while connected."""
        assert self.transport is not None
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        """Cut out whole answers and give each to `on_answer`."""
        if self._buffer:
            data = self._buffer + data
        try:
            found = parse(data)
        except BadAnswer:
            # The connection cannot be trusted any more; its loss is what gets counted.
            assert self.transport is not None
            self.transport.abort()
            return
        if found is None:
            self._buffer = data
            return
        status, body, size = found
        self._buffer = data[size:]
        self.on_answer(status, body)

    def on_answer(self, status: int, body: bytes) -> None:
        """Take the answer to the last request."""
        raise NotImplementedError


def parse(data: bytes) -> tuple[int, bytes, int] | None:
    """Read the first answer in `data`.

    Returns:
        status, body and length of the whole; None while it is not complete.
    Raises:
        BadAnswer: no HTTP/1.1, or without an end that can be known.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    if not data.startswith(b"HTTP/1.1 "):
        raise BadAnswer(data[:40])
    status = int(data[9:12])
    start = end + 4
    length = _LENGTH.search(data, 0, end)
    if length is not None:
        stop = start + int(length[1])
        return (status, data[start:stop], stop) if len(data) >= stop else None
    if _CHUNKED.search(data, 0, end):
        return _parse_chunks(data, status, start)
    if status in _BODILESS:
        return status, b"", start
    raise BadAnswer(data[:start])


def _parse_chunks(data: bytes, status: int, at: int) -> tuple[int, bytes, int] | None:
    parts = []
    while True:
        line = data.find(b"\r\n", at)
        if line < 0:
            return None
        size = int(data[at:line].partition(b";")[0], 16)
        at = line + 2
        if len(data) < at + size + 2:
            return None
        parts.append(data[at : at + size])
        at += size + 2
        if size == 0:
            return status, b"".join(parts), at
