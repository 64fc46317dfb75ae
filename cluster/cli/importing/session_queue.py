"""session-queue: three integers in Redis, and the secret that signs its tokens.

RULE: integers to wishes; of Redis it speaks one command.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from cluster.cli.importing.wishes import Found, SourceError, Unfit, Wish
from cluster.client.core import path_of

ROOM: Final = "session-queue"
KEYS: Final = ("queue:current-position", "queue:window-end", "queue:next-window-increment")
REDIS_S: Final = 5.0
_LINE_BYTES_MAX: Final = 1024


@dataclass(frozen=True, slots=True)
class Queue:
    """The queue as it stood; `next_increment_s` in seconds since 1970."""

    position: int
    window_end: int
    next_increment_s: int


async def from_redis(host: str, port: int) -> Queue:
    """Ask a Redis for the three integers.

    Raises:
        SourceError: it does not answer, or has no queue.
    """
    parts = ["MGET", *KEYS]
    told = f"*{len(parts)}\r\n" + "".join(f"${len(part)}\r\n{part}\r\n" for part in parts)
    try:
        async with asyncio.timeout(REDIS_S):
            reader, writer = await asyncio.open_connection(host, port, limit=_LINE_BYTES_MAX)
            try:
                writer.write(told.encode())
                head = await reader.readline()
                if head != f"*{len(KEYS)}\r\n".encode():
                    raise SourceError(f"Redis says: {head.decode(errors='replace').strip()[:200]}")
                numbers = [await _number(reader, key) for key in KEYS]
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError) as error:
        why = str(error) or "no answer"
        raise SourceError(f"Redis at {host}:{port}: {why}") from None
    return Queue(*numbers)


async def _number(reader: asyncio.StreamReader, key: str) -> int:
    head = (await reader.readline()).strip()
    if head == b"$-1":
        raise SourceError(f"Redis has no {key}: no queue was ever made there")
    text = (await reader.readline()).strip() if head.startswith(b"$") else head[1:]
    try:
        return int(text)
    except ValueError:
        raise SourceError(f"Redis has no number in {key}: {text[:50]!r}") from None


def found(
    queue: Queue, *, size: int, interval_s: int, active: int, secret: str | None, wall_s: int
) -> Found:
    """What becomes of a queue.

    Args:
        size, interval_s, active: its settings, which are in the environment of its servers.
        secret: its JWT_SECRET.
        wall_s: now, in seconds since 1970.
    """
    result = Found()
    body = {
        "window_size": size,
        "window_interval": interval_s * 1000,
        "active_windows": active,
    }
    result.wishes.append(Wish("room", ROOM, "PUT", path_of("rooms", ROOM), body))
    waits = max(0, queue.position - queue.window_end)
    next_s = max(0, queue.next_increment_s - wall_s)
    result.unfit.append(
        Unfit(
            "position",
            str(queue.position),
            f"the API begins every room at place 1 (window end {queue.window_end}, {waits} waiting, "
            f"next step in {next_s} s): needed is a room that begins at a given place",
        )
    )
    if secret is not None:
        result.notes.append(
            "tokens that are out there stay readable with this setting on every node:\n"
            f"  COTERIE_FRONT_SESSION_QUEUE_SECRET={secret}"
        )
    return result
