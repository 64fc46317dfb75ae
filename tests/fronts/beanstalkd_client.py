"""A client of beanstalkd's protocol for tests: bytes out, replies in.

RULE: shortens what a test says; decides nothing that a test is about.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

REPLY_S = 30.0


class BeanstalkClient:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, host: str, port: int) -> BeanstalkClient:
        """Connect."""
        return cls(*await asyncio.open_connection(host, port))

    def send(self, *lines: bytes | str) -> None:
        """Write lines, each with its end."""
        for line in lines:
            self.writer.write((line.encode() if isinstance(line, str) else line) + b"\r\n")

    async def reply(self) -> bytes:
        """The next reply, without its end; empty at the end of the connection."""
        async with asyncio.timeout(REPLY_S):
            try:
                line = await self.reader.readuntil(b"\r\n")
                if line.startswith((b"OK ", b"RESERVED ", b"FOUND ")):
                    line += await self.reader.readexactly(int(line.split()[-1]) + 2)
            except (asyncio.IncompleteReadError, ConnectionError):
                return b""
        return line[:-2]

    async def ask(self, *lines: bytes | str) -> str:
        """Send one request, and give its reply as text."""
        self.send(*lines)
        return (await self.reply()).decode("latin-1")

    async def put(self, body: str = "x", *, pri: int = 0, delay: int = 0, ttr: int = 60) -> int:
        """Put a job and give its id."""
        word, _, job = (await self.ask(f"put {pri} {delay} {ttr} {len(body)}", body)).partition(" ")
        assert word == "INSERTED", word
        return int(job)

    async def reserve(self, timeout_s: int | None = 0) -> int:
        """Reserve a job and give its id."""
        limit = "" if timeout_s is None else f"-with-timeout {timeout_s}"
        word, job, *_ = (await self.ask(f"reserve{limit}")).split()
        assert word == "RESERVED", word
        return int(job)

    async def figures(self, line: str) -> dict[str, Any]:
        """Ask for statistics."""
        reply = await self.ask(line)
        assert reply.startswith("OK "), reply
        pairs = (line.split(": ", 1) for line in reply.splitlines()[2:])
        return {key: _value(text) for key, text in pairs}

    async def close(self) -> None:
        """End."""
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


def _value(text: str) -> object:
    """What a YAML scalar of the protocol stands for."""
    if text.isdigit():
        return int(text)
    return {"true": True, "false": False}.get(text, text.strip('"'))
