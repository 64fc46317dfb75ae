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
        more: further members, in order, for people and programs. One that is called as `PARTS`
            says names a part of the thing.
    """

    what: str
    kind: str
    name: str
    session: str | None = None
    token: int = 0
    more: tuple[tuple[str, Any], ...] = ()

    @property
    def path(self) -> str:
        """Where it happened, as in the API, with names as they are: `/fifos/f/tickets/t`."""
        path = path_of(self.kind, self.name)
        part = PARTS.get(self.kind)
        if part is not None:
            for member, value in self.more:
                if member == part:
                    return f"{path}/{part}s/{value}"
        return path


COLLECTIONS = {
    "session": "sessions",
    "lock": "locks",
    "semaphore": "semaphores",
    "ticket": "resources",
    "fifo": "fifos",
    "room": "rooms",
    "tube": "tubes",
    "task": "pools",
}
"""By kind: how the API calls where such things are."""

PARTS = {"ticket": "ticket", "fifo": "ticket", "tube": "job", "task": "task"}
"""By kind: how the part of a thing is called that an event is about."""

_KINDS = {collection: kind for kind, collection in COLLECTIONS.items()}


def path_of(kind: str, name: str) -> str:
    """Where a thing is, as in the API: `/locks/orders`."""
    return f"/{COLLECTIONS[kind]}/{name}"


def thing_at(path: str) -> tuple[str, str] | None:
    """Kind and name of the thing at a path; None if there is no such place."""
    empty, _, rest = path.removeprefix("/v1").partition("/")
    collection, _, name = rest.partition("/")
    kind = _KINDS.get(collection)
    return None if empty or kind is None or not name else (kind, name)


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
        self.first = index + 1

    def after(self, index: int) -> Iterator[tuple[int, list[Event]]]:
        """Every remembered entry behind this position, in order."""
        behind: list[tuple[int, list[Event]]] = []
        for entry in reversed(self._entries):
            if entry[0] <= index:
                break
            behind.append(entry)
        behind.reverse()
        return iter(behind)
