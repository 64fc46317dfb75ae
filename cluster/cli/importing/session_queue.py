"""session-queue: three integers in Redis, and the secret that signs its tokens.

RULE: integers to a room; of Redis it speaks one command.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from cluster.cli.importing.carry import Carrier
from cluster.cli.importing.wishes import SourceError, Unfit, key_of
from cluster.client.core import path_of
from cluster.errors import Refused

ROOM: Final = "session-queue"
KEYS: Final = ("queue:current-position", "queue:window-end", "queue:next-window-increment")
REDIS_S: Final = 5.0
POSITION_MAX: Final = 5_000_000
JOINS_PER_BATCH: Final = 1_000
INTERVAL_MS_MIN: Final = 100
LOOKS_MAX: Final = 300
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


@dataclass(frozen=True, slots=True)
class Settings:
    """What stands in the environment of session-queue's servers; `interval_s` in seconds."""

    size: int
    interval_s: int
    active: int


async def carry(carrier: Carrier, queue: Queue, settings: Settings) -> list[str]:
    """Make a room that stands where the queue stood.

    Our API begins every room at place 1, with a window of one step. So the room is made with the
    window that the queue had a step ago, moves it once, as that makes places expire, and gives out
    the places that were given. Run again, it goes on from what the room shows.

    Returns:
        what the user is to know.
    """
    carrier.expect(2)
    if queue.position > POSITION_MAX:
        why = f"more than {POSITION_MAX} places are not given out again one by one"
        carrier.refuse(Unfit("position", str(queue.position), why))
        queue = Queue(0, settings.size, queue.next_increment_s)
    elif queue.window_end - settings.size >= max(queue.position, settings.size):
        why = f"the window's end, {queue.window_end}, is further than places were given"
        carrier.refuse(Unfit("window", str(queue.window_end), why))
        queue = Queue(queue.position, settings.size, queue.next_increment_s)
    if carrier.is_dry:
        carrier.took("room", "position")
        return []
    room = await _room(carrier)
    if room is not None and not _may_go_on(room, queue, settings):
        why = "is there already, and is used: remove it, or import before anybody joins"
        carrier.refuse(Unfit("room", ROOM, why))
        return []
    await _make(carrier, queue, settings, room)
    carrier.took("room")
    await _join(carrier, queue.position)
    carrier.took("position")
    return [f"the window moves again an interval ({settings.interval_s} s) from now at the latest"]


def told_secret(secret: str) -> str:
    """How tokens that are out there stay valid."""
    return (
        "tokens that are out there stay valid with this setting on every node:\n"
        f"  COTERIE_FRONT_SESSION_QUEUE_SECRET={secret}"
    )


def _may_go_on(room: dict[str, Any], queue: Queue, settings: Settings) -> bool:
    """Whether it is what an import that was interrupted left, or a whole one."""
    if room["joined"] > queue.position or room["window_end"] > max(queue.window_end, settings.size):
        return False
    is_made: bool = room["window_end"] == max(1, queue.window_end)
    is_being_made: bool = room["window_interval_ms"] == INTERVAL_MS_MIN
    return is_made or is_being_made


async def _make(
    carrier: Carrier, queue: Queue, settings: Settings, room: dict[str, Any] | None
) -> None:
    end, size = max(1, queue.window_end), settings.size
    begin = end - size if end > size else end
    if room is None:
        await _set(carrier, begin, INTERVAL_MS_MIN, settings.active)
        room = await _room(carrier)
        assert room is not None
    if room["window_end"] < end:
        await _set(carrier, size, INTERVAL_MS_MIN, settings.active)
        await _join(carrier, begin + 1)
        for _ in range(LOOKS_MAX):
            if (room := await _room(carrier)) is None or room["window_end"] >= end:
                break
            await asyncio.sleep(INTERVAL_MS_MIN / 1000)
        else:
            raise TimeoutError
    await _set(carrier, size, settings.interval_s * 1000, settings.active)


async def _room(carrier: Carrier) -> dict[str, Any] | None:
    try:
        return await carrier.ask("GET", path_of("rooms", ROOM), None, None)
    except Refused as error:
        if error.code != "room_not_found":
            raise
        return None


async def _set(carrier: Carrier, size: int, interval_ms: int, active: int) -> None:
    body = {"window_size": size, "window_interval": interval_ms, "active_windows": active}
    await carrier.ask("PUT", path_of("rooms", ROOM), body, None)


async def _join(carrier: Carrier, position: int) -> None:
    """Have places given out until so many were."""
    call = f"POST {path_of('rooms', ROOM, 'join')}"
    while (room := await _room(carrier)) is not None and room["joined"] < position:
        joined, count = room["joined"], min(JOINS_PER_BATCH, position - room["joined"])
        key = key_of("session-queue", room["room_token"], joined)
        await carrier.ask("POST", path_of("batch"), {"commands": [{"call": call}] * count}, key)
