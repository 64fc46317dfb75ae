"""Watchers: who is told what entries did, from the node's history of events.

RULE: a watcher is a cursor and a filter; nothing is kept for it. The hub looks once at each new
entry, wakes those whom it concerns, and moves all the others along, so that a thousand watchers of
quiet things cost nothing while others are busy. What has left the history before somebody was told
is said to be lost (`resync`), never passed over in silence.

Positions: a watcher that is current has been told everything that concerns it up to `Hub.seen`.
One that is not has a cursor of its own, behind (it is being told) or ahead (another node told it
more than this one knows: it waits).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

from cluster.gateway.matching import Crowd, Entry, Filter, message
from cluster.gateway.replies import Problem
from cluster.machine.events import Event, History
from cluster.node.face import NodeFace

NOTIFY_EVERY_S: Final = 0.005
"""At the most often: what comes faster is looked at together."""

MATCHED_MAX: Final = 5_000
"""Events that are looked at for all watchers in one turn; with more, each looks for itself."""

ENTRIES_KEPT: Final = 8
EVENTS_KEPT_MAX: Final = 20_000
"""The newest entries, which all watchers look at within the same few turns; always the last one."""

CHUNK_EVENTS_MAX: Final = 2_000
CHUNK_BYTES_MAX: Final = 64 * 1024
RETRY_MS: Final = 1_000


class Watcher:
    """One stream of events.

    Attributes:
        filter: what it is told of.
        cursor: told up to here; of no meaning while it is current.
        is_current: told up to where the hub has seen.
        woken: there may be something to tell.
    """

    __slots__ = ("_hub", "cursor", "filter", "is_current", "said", "woken")

    def __init__(self, hub: Hub, wanted: Filter, cursor: int) -> None:
        self._hub = hub
        self.filter = wanted
        self.cursor = cursor
        self.is_current = False
        self.said = cursor
        self.woken = asyncio.Event()

    def opening(self) -> bytes:
        """The first message: from where it starts."""
        data = {"after": self.cursor, "applied": self._hub.seen}
        return message("open", data, self.cursor, retry_ms=RETRY_MS)

    def heartbeat(self) -> bytes:
        """A sign of life; moves the position on where nothing else has done so."""
        if self.is_current and self._hub.seen > self.said:
            self.said = self._hub.seen
            return b": still here\nid: %d\n\n" % self.said
        return b": still here\n\n"

    def chunk(self) -> bytes:
        """What is to be told next, up to some bytes; empty when it is current, or ahead."""
        hub = self._hub
        history = hub.history
        parts: list[bytes] = []
        size = looked_at = 0
        while not self.is_current:
            if self.cursor >= hub.seen:
                self.is_current = self.cursor == hub.seen
                break
            if self.cursor + 1 < history.first:
                return b"".join((*parts, self._resync(history)))
            for index, events in history.after(self.cursor):
                if index > hub.seen:
                    break
                if size >= CHUNK_BYTES_MAX or looked_at >= CHUNK_EVENTS_MAX:
                    # More follows at once; an empty part would say that there is none.
                    return b"".join(parts) or b":\n\n"
                looked_at += len(events)
                for part in hub.entry(index, events).messages(self.filter):
                    parts.append(part)
                    size += len(part)
                    self.said = index
                self.cursor = index
            self.cursor = hub.seen
        return b"".join(parts)

    def _resync(self, history: History) -> bytes:
        """Say that events are lost, and go on from the present."""
        lost_after, self.cursor = self.cursor, max(self._hub.seen, history.first - 1)
        self.said = self.cursor
        data = {"lost_after": lost_after, "from": self.cursor}
        return message("resync", data, self.cursor)


class Hub:
    """All watchers of one node.

    Attributes:
        seen: position up to which entries were looked at.
        is_closing: no new ones; those there are shall say goodbye.
        refused, cut: how many were turned away, or were too slow.
    """

    def __init__(self, node: NodeFace, loop: asyncio.AbstractEventLoop, *, most: int) -> None:
        self._node = node
        self._loop = loop
        self._most = most
        self._crowd: Crowd[Watcher] = Crowd()
        self._entries: deque[Entry] = deque(maxlen=ENTRIES_KEPT)
        self._unsubscribe = node.on_applied(self._on_applied)
        self._timer: asyncio.TimerHandle | None = None
        self._notified_at = float("-inf")
        self.seen = node.machine.index
        self.is_closing = False
        self.refused = 0
        self.cut = 0

    def __len__(self) -> int:
        return len(self._crowd)

    @property
    def history(self) -> History:
        """The node's; another one after it has taken a snapshot in."""
        return self._node.machine.history

    def enter(self, wanted: Filter, after: int | None) -> Watcher:
        """Let one more in; `leave` must follow.

        Args:
            after: the position up to which it knows everything; None: it begins with the present.

        Raises:
            Problem: `overloaded` or `shutting_down`.
        """
        if self.is_closing:
            raise Problem("shutting_down", "this node is leaving; watch at another one")
        if len(self) >= self._most:
            self.refused += 1
            raise Problem(
                "overloaded",
                f"this node has {self._most} watchers; try another one, or again in a moment",
            )
        self._look()
        watcher = Watcher(self, wanted, self.seen if after is None else after)
        self._crowd.enter(watcher, wanted)
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """One is gone."""
        self._crowd.leave(watcher)
        if not self._crowd:
            self._entries.clear()

    def entry(self, index: int, events: Sequence[Event]) -> Entry:
        """What an entry did, for telling it; the newest ones are kept, as all look at them."""
        for entry in self._entries:
            if entry.events is events:
                return entry
        entry = Entry(index, events)
        kept = self._entries
        if not kept or index > kept[-1].index:
            kept.append(entry)
            while len(kept) > 1 and sum(len(one.events) for one in kept) > EVENTS_KEPT_MAX:
                kept.popleft()
        return entry

    def close(self) -> None:
        """Have all say goodbye."""
        self.is_closing = True
        self._unsubscribe()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake_all()

    def _on_applied(self) -> None:
        """Look soon, but not more often than is worth while; for nobody not at all."""
        if not self._crowd:
            return
        if self._timer is None and not self.is_closing:
            delay = self._notified_at + NOTIFY_EVERY_S - self._loop.time()
            self._timer = self._loop.call_later(max(0.0, delay), self._notify)

    def _notify(self) -> None:
        self._timer = None
        self._notified_at = self._loop.time()
        self._look()

    def _look(self) -> None:
        """Look at what is new, and wake whom it concerns."""
        machine, before = self._node.machine, self.seen
        if machine.index <= before:
            return
        self.seen = machine.index
        if not self._crowd:
            return
        concerned: dict[Watcher, None] = {}
        if before + 1 < machine.history.first:
            concerned.update(dict.fromkeys(self._crowd))
        else:
            concerned.update(dict.fromkeys(self._concerned(machine.history, before)))
        for watcher in concerned:
            if watcher.is_current:
                watcher.is_current, watcher.cursor = False, before
            watcher.woken.set()
        for watcher in self._crowd:
            # Those ahead wait for us to get there.
            if not watcher.is_current and watcher.cursor <= self.seen:
                watcher.woken.set()

    def _concerned(self, history: History, before: int) -> Iterator[Watcher]:
        left = MATCHED_MAX
        for index, events in history.after(before):
            left -= len(events)
            if left < 0:
                yield from self._crowd
                return
            yield from self._crowd.concerned(self.entry(index, events))

    def _wake_all(self) -> None:
        for watcher in self._crowd:
            watcher.woken.set()


GOODBYE: Final = message("bye", {"why": "this node is leaving"}, None, retry_ms=RETRY_MS)
