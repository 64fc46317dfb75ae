"""Watching what happens: an iterator of events that goes on after failures, and says what it missed.

RULE: `Feed` turns bytes into events and knows where to go on, without I/O; the loop below it reads.
Standard: WHATWG HTML, server-sent events (of which a node uses `event`, `id`, `data`, comments).

    async for event in client.watch("/locks/"):
        if isinstance(event, Resync):
            ...                                # read everything anew; events in between are lost
        else:
            print(event.what, event.name, event.token)
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec


class Event(msgspec.Struct, frozen=True):
    """Something that happened.

    Attributes:
        index: log position; `seq` counts within one.
        what: granted, released, expired and so on.
        path: of the thing, `/locks/orders`.
        details: all of it, as it came.
    """

    index: int
    seq: int
    what: str
    path: str
    details: dict[str, Any]
    kind: str | None = None
    name: str | None = None
    session: str | None = None
    token: int | None = None


class Resync(msgspec.Struct, frozen=True):
    """Events behind `lost_after` are lost; it goes on behind `resumes_after`."""

    lost_after: int
    resumes_after: int


class _BadStream(Exception):
    """What came is no stream of a node's."""


# Of one event, in any number of lines; a node's are a few thousand at the most.
EVENT_BYTES_MAX = 1 << 20

Happening: TypeAlias = Event | Resync


class Feed:
    """One watch, over any number of connections.

    Attributes:
        after: position behind which the next connection is to begin; None: from the present.
        is_over: the node said that it will tell no more, or what it said is no stream of a node's.
    """

    def __init__(self, after: int | None = None):
        self.after = after
        self.is_over = False
        self._last: tuple[int, int] | None = None
        self._rest = b""
        self._event = ""
        self._id: int | None = None
        self._data: list[str] = []
        self._size = 0

    def connected(self) -> None:
        """A connection begins: what the last one left unfinished is told again."""
        self._rest, self._event, self._id, self._data = b"", "", None, []
        self._size = 0
        self.is_over = False

    def fed(self, data: bytes) -> list[Happening]:
        """What these bytes tell, and was not told before."""
        told: list[Happening] = []
        try:
            self._read(data, told)
        except _BadStream:
            # The next node goes on behind what was told.
            self.is_over = True
        return told

    def _read(self, data: bytes, told: list[Happening]) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            text = line.decode("utf-8", "replace").removesuffix("\r")
            if not text:
                if (happening := self._dispatch()) is not None:
                    told.append(happening)
            elif not text.startswith(":"):
                word, _, value = text.partition(":")
                self._take(word, value.removeprefix(" "))
        if len(self._rest) > EVENT_BYTES_MAX:
            raise _BadStream(f"a line of more than {EVENT_BYTES_MAX} bytes")

    def _take(self, word: str, value: str) -> None:
        if word == "event":
            self._event = value
        elif word == "data":
            self._data.append(value)
            self._size += len(value)
            if self._size > EVENT_BYTES_MAX:
                raise _BadStream(f"an event of more than {EVENT_BYTES_MAX} bytes")
        elif word == "id" and value.isdecimal() and len(value) < 20:
            self._id = int(value)

    def _dispatch(self) -> Happening | None:
        event, at, data = self._event, self._id, "\n".join(self._data)
        self._event, self._id, self._data, self._size = "", None, [], 0
        if not data:
            if at is not None:
                # A sign of life: everything up to here was told.
                self._reached(at)
            return None
        try:
            return self._told(event, at, msgspec.json.decode(data, type=dict[str, Any]))
        except (KeyError, TypeError, ValueError, msgspec.MsgspecError) as error:
            raise _BadStream(f"an event that makes none: {error!r}") from error

    def _reached(self, at: int) -> None:
        # A node that is behind may say where it is; what another told is not told again.
        self.after = at if self.after is None else max(self.after, at)

    def _told(self, event: str, at: int | None, fields: dict[str, Any]) -> Happening | None:
        if event == "open":
            if self.after is None:
                self.after = int(fields["after"])
            return None
        if event == "resync":
            resync = msgspec.convert(
                {"lost_after": fields["lost_after"], "resumes_after": fields["from"]}, Resync
            )
            self.after = resync.resumes_after
            return resync
        if event == "bye" or "index" not in fields:
            self.is_over = True
            return None
        told = msgspec.convert({**fields, "details": fields}, Event)
        place = (told.index, told.seq)
        is_new = self._last is None or place > self._last
        if is_new:
            self._last = place
        if at is not None:
            # The last event of its entry carries the position; the others of an entry are told
            # again, and left out, should the connection break among them.
            self._reached(at)
        return told if is_new else None
