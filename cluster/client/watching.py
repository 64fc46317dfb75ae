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


Happening: TypeAlias = Event | Resync


class Feed:
    """One watch, over any number of connections.

    Attributes:
        after: position behind which the next connection is to begin; None: from the present.
        is_over: the node said that it will tell no more.
    """

    def __init__(self, after: int | None = None):
        self.after = after
        self.is_over = False
        self._last: tuple[int, int] | None = None
        self._rest = b""
        self._event = ""
        self._id: int | None = None
        self._data: list[str] = []

    def connected(self) -> None:
        """A connection begins: what the last one left unfinished is told again."""
        self._rest, self._event, self._id, self._data = b"", "", None, []
        self.is_over = False

    def fed(self, data: bytes) -> list[Happening]:
        """What these bytes tell, and was not told before."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        told: list[Happening] = []
        for line in lines:
            text = line.decode("utf-8", "replace").removesuffix("\r")
            if not text:
                if (happening := self._dispatch()) is not None:
                    told.append(happening)
            elif not text.startswith(":"):
                word, _, value = text.partition(":")
                self._take(word, value.removeprefix(" "))
        return told

    def _take(self, word: str, value: str) -> None:
        if word == "event":
            self._event = value
        elif word == "data":
            self._data.append(value)
        elif word == "id" and value.isdecimal():
            self._id = int(value)

    def _dispatch(self) -> Happening | None:
        event, at, data = self._event, self._id, "\n".join(self._data)
        self._event, self._id, self._data = "", None, []
        if not data:
            if at is not None:
                # A sign of life: everything up to here was told.
                self.after = at
            return None
        fields: dict[str, Any] = msgspec.json.decode(data, type=dict[str, Any])
        if event == "open":
            if self.after is None:
                self.after = fields["after"]
            return None
        if event == "resync":
            self.after = fields["from"]
            return Resync(fields["lost_after"], fields["from"])
        if event == "bye" or "index" not in fields:
            self.is_over = True
            return None
        index, seq = fields["index"], fields["seq"]
        if self._last is not None and (index, seq) <= self._last:
            return None
        self._last = (index, seq)
        if at is not None:
            # The last event of its entry carries the position; the others of an entry are told
            # again, and left out, should the connection break among them.
            self.after = at
        return msgspec.convert({**fields, "details": fields}, Event)
