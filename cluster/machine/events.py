"""Events: what an entry did, for those who watch; and a bounded history of them.

RULE: told, never asked: nothing here changes what the machine does. Every node makes the same
events from the same entry, so a watcher may go on at any node from the position it has seen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from cluster.machine import limits


class Event(NamedTuple):
    """One thing that happened.

    Attributes:
        what: a participle: granted, released, lost, expired, issued, revoked, put, reserved, …
        kind: of the thing, as in its primitive.
        name: of the thing.
        session: whom it concerns; None where nobody with a session.
        token: of the grant it is about; 0 where there is none.
        more: further members, in order, for people and programs.
    """

    what: str
    kind: str
    name: str
    session: str | None = None
    token: int = 0
    more: tuple[tuple[str, Any], ...] = ()


class History:
    """The last events, by position of the entry that made them.

    Attributes:
        first: everything from this position on is remembered.
    """

    __slots__ = ("_entries", "_kept", "first")

    def __init__(self) -> None:
        self._entries: deque[tuple[int, list[Event]]] = deque()
        self._kept = 0
        self.first = 0

    def add(self, index: int, events: list[Event]) -> None:
        """Remember what an entry did; entries without events need not come."""
        self._entries.append((index, events))
        self._kept += len(events)
        while self._kept > limits.EVENTS_KEPT_MAX and len(self._entries) > 1:
            oldest, forgotten = self._entries.popleft()
            self._kept -= len(forgotten)
            self.first = oldest + 1

    def start(self, index: int) -> None:
        """Remember nothing from before this position: the state came from a snapshot."""
        self._entries.clear()
        self._kept = 0
        self.first = index

    def after(self, index: int) -> Iterator[tuple[int, list[Event]]]:
        """Every remembered entry behind this position, in order."""
        behind: list[tuple[int, list[Event]]] = []
        for entry in reversed(self._entries):
            if entry[0] <= index:
                break
            behind.append(entry)
        behind.reverse()
        return iter(behind)
