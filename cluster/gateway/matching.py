"""Which events are for whom, found without showing every event to everybody.

RULE: a function of filters and events. A thousand watchers of one lock each, and an entry that frees
a thousand locks, are two thousand steps, not a million.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec

from cluster.machine.events import Event

W = TypeVar("W")

FEW: Final = 16
"""So many events are looked through faster than they are put in order."""


class Filter(NamedTuple):
    """What somebody wants to hear of; both must hold.

    Attributes:
        prefixes: the event's path begins with one of them; none: any path.
        session: whom the event concerns; None: anybody.
    """

    prefixes: tuple[str, ...]
    session: str | None

    def wants(self, event: Event, path: str) -> bool:
        """Whether an event is for them; its path is given, as it takes time to make."""
        if self.session is not None and event.session != self.session:
            return False
        return not self.prefixes or path.startswith(self.prefixes)


class Entry:
    """What one entry did, for many who want a few events of it each.

    Paths, their order and the messages are made once, for whoever asks first.
    """

    __slots__ = ("_by_path", "_by_session", "_messages", "events", "index", "paths")

    def __init__(self, index: int, events: Sequence[Event]) -> None:
        self.index = index
        self.events = events
        self.paths = [event.path for event in events]
        self._by_path: list[tuple[str, int]] | None = None
        self._by_session: dict[str | None, list[int]] | None = None
        self._messages: dict[tuple[int, bool], bytes] = {}

    def found(self, wanted: Filter) -> Sequence[int]:
        """Places in the entry of the events that are wanted, in order."""
        events, paths = self.events, self.paths
        if len(events) < FEW:
            return [seq for seq, event in enumerate(events) if wanted.wants(event, paths[seq])]
        if wanted.session is not None:
            of_session = self._of_session(wanted.session)
            return [seq for seq in of_session if wanted.wants(events[seq], paths[seq])]
        if not wanted.prefixes:
            return range(len(events))
        if self._by_path is None:
            self._by_path = sorted((path, seq) for seq, path in enumerate(paths))
        by_path = self._by_path
        found: set[int] = set()
        for prefix in wanted.prefixes:
            at = bisect_left(by_path, (prefix, 0))
            while at < len(by_path) and by_path[at][0].startswith(prefix):
                found.add(by_path[at][1])
                at += 1
        return sorted(found)

    def messages(self, wanted: Filter) -> list[bytes]:
        """What is told of it; only the last message has the position for its id.

        Who loses the connection between two of them, and comes back with the id it has, is told all
        of them again rather than not at all.
        """
        found = self.found(wanted)
        return [self._message(seq, is_last=seq == found[-1]) for seq in found]

    def _of_session(self, session: str) -> Sequence[int]:
        if self._by_session is None:
            self._by_session = {}
            for seq, event in enumerate(self.events):
                self._by_session.setdefault(event.session, []).append(seq)
        return self._by_session.get(session, ())

    def _message(self, seq: int, *, is_last: bool) -> bytes:
        made = self._messages.get((seq, is_last))
        if made is None:
            event = self.events[seq]
            data = picture(self.index, seq, event)
            made = message(event.what, data, self.index if is_last else None)
            self._messages[seq, is_last] = made
        return made


class Crowd(Generic[W]):
    """Who is there, in order of arrival, and what each of them wants."""

    __slots__ = ("_all", "_by_prefix", "_by_session", "_lengths", "_of_everything")

    def __init__(self) -> None:
        self._all: dict[W, Filter] = {}
        self._by_session: dict[str, dict[W, None]] = {}
        # Those who do not ask for one session: by prefix, and those who want everything.
        self._by_prefix: dict[str, dict[W, None]] = {}
        self._of_everything: dict[W, None] = {}
        self._lengths: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[W]:
        return iter(self._all)

    def enter(self, one: W, wanted: Filter) -> None:
        """One more."""
        self._all[one] = wanted
        if wanted.session is not None:
            self._by_session.setdefault(wanted.session, {})[one] = None
        elif not wanted.prefixes:
            self._of_everything[one] = None
        else:
            for prefix in set(wanted.prefixes):
                self._by_prefix.setdefault(prefix, {})[one] = None
                self._lengths[len(prefix)] += 1

    def leave(self, one: W) -> None:
        """One less; of one who is not there, nothing."""
        wanted = self._all.pop(one, None)
        if wanted is None:
            return
        if wanted.session is not None:
            _take(self._by_session, wanted.session, one)
        elif not wanted.prefixes:
            del self._of_everything[one]
        else:
            for prefix in set(wanted.prefixes):
                _take(self._by_prefix, prefix, one)
                self._lengths[len(prefix)] -= 1
                if not self._lengths[len(prefix)]:
                    del self._lengths[len(prefix)]

    def concerned(self, entry: Entry) -> Iterator[W]:
        """Whom an entry concerns, some of them more than once."""
        if entry.events:
            yield from self._of_everything
        told: set[str] = set()
        for event, path in zip(entry.events, entry.paths, strict=True):
            if event.session is not None:
                for one in self._by_session.get(event.session, ()):
                    if self._all[one].wants(event, path):
                        yield one
            for length in self._lengths:
                prefix = path[:length]
                if prefix in self._by_prefix and prefix not in told:
                    told.add(prefix)
                    yield from self._by_prefix[prefix]


def _take(groups: dict[str, dict[W, None]], key: str, one: W) -> None:
    group = groups[key]
    del group[one]
    if not group:
        del groups[key]


def picture(index: int, seq: int, event: Event) -> dict[str, object]:
    """Make the members of an event as watchers see them, the same on every node."""
    return {
        "index": index,
        "seq": seq,
        "what": event.what,
        "path": event.path,
        "kind": event.kind,
        "name": event.name,
        "session": event.session,
        "token": event.token or None,
        **dict(event.more),
    }


def message(what: str, data: object, id: int | None, *, retry_ms: int | None = None) -> bytes:
    """Make one message; JSON has no line ends, so the data are one line."""
    text = b"event: %s\n" % what.encode()
    if id:  # An id of 0 would say that nothing was seen yet, which none at all says as well.
        text += b"id: %d\n" % id
    if retry_ms is not None:
        text += b"retry: %d\n" % retry_ms
    return text + b"data: %s\n\n" % msgspec.json.encode(data)
