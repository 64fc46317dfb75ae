"""K10: what watchers are told is ordered, unique, gap-free, the same for all, and goes on.

RULE: compares streams with one another, and with what was acknowledged. All lines are facts
(`process` below 0, `info`), key is the stream's own name, unique for one watcher over all its
resumes, in the order in which it heard.

| f | value |
|---|---|
| `watch.ask` | `prefix: [..]`, `after` (what it sent as Last-Event-ID or `after`; null: the present), `node` |
| `watch.open` | `after`, `applied`: data of the `open` message |
| `watch.event` | the event's JSON as it came: `index`, `seq`, `what`, `path`, `kind`, `name`, `session`, `token`, … |
| `watch.bookmark` | `index`: an `id` that came without an event (heartbeat) |
| `watch.resync` | `lost_after`, `from`: what is between is said to be lost |
| `watch.end` | `why`: cut, bye, stopped |

`GET /v1/events` pages may be recorded as a stream too: `watch.ask`, its events, and `next` as
`watch.bookmark` (`watch.resync` where `lost`).

The events of one entry have its `id` only with the last of them: a resume from an id repeats
nothing and leaves out nothing; one that was cut within an entry hears that entry again, whole. So
after a new `watch.open` events behind its `after` may come again; that is the only repetition.
Grants acknowledged in the history (`lock.acquire` with `token`) whose entry a stream covers from
before they were asked to after their answer must be among its events (needs `index`, the
Coterie-Index of the answer, in the ok's value).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from jepsen.checkers.reading import Call, Complaints, calls, facts, tell
from jepsen.history import Line
from jepsen.verdicts import Verdict, undecided

Place: TypeAlias = tuple[int, int]
"""Position and number within the entry."""


@dataclass(slots=True)
class Span:
    """What one life of a stream was told, without a gap: behind `after`, up to `upto`."""

    stream: str
    prefixes: tuple[str, ...]
    after: int
    opened: Line
    upto: int = 0
    events: dict[Place, Line] = field(default_factory=dict)

    def wants(self, path: str) -> bool:
        """It would be told of such an event."""
        return not self.prefixes or path.startswith(self.prefixes)


class Streams:
    """K10: ordered, unique, gap-free, the same for all, resumable."""

    name = "K10 streams"

    def check(self, lines: Sequence[Line]) -> Verdict:
        complaints = Complaints(self.name)
        spans: list[Span] = []
        by_stream: dict[str, list[Line]] = {}
        for line in facts(lines):
            if line.f.startswith("watch."):
                by_stream.setdefault(line.key, []).append(line)
        for stream, some in by_stream.items():
            spans.extend(_spans(stream, some, complaints))
        known = _same(spans, complaints)
        compared = _gaps(spans, known, complaints)
        grants = _acknowledged(calls(lines), spans, complaints)
        heard = sum(len(span.events) for span in spans)
        if not heard:
            return undecided(self.name, f"{tell(len(by_stream), 'stream')} heard nothing")
        return complaints.verdict(
            f"{tell(len(by_stream), 'stream')} in {tell(len(spans), 'span')} heard "
            f"{tell(heard, 'event')}, {len(known)} different ones; {compared} compared, "
            f"{tell(grants, 'acknowledged grant')} looked for"
        )


def _spans(stream: str, some: Sequence[Line], complaints: Complaints) -> list[Span]:
    """The lives of one stream. Complains of what is out of order within them."""
    spans: list[Span] = []
    prefixes: tuple[str, ...] = ()
    now: Span | None = None
    asked: Line | None = None
    last: tuple[Place, Line] | None = None
    for line in some:
        value = line.value if isinstance(line.value, dict) else {}
        if line.f == "watch.ask":
            _close(now, value.get("after"))
            prefixes = tuple(map(str, value.get("prefix") or ()))
            now, last, asked = None, None, line
        elif line.f == "watch.open":
            after = int(value.get("after") or 0)
            wanted = asked.value.get("after") if asked is not None else None
            if wanted is not None and after != wanted:
                complaints.add(
                    f"{stream} asked for what comes after {wanted} and got it after {after}",
                    asked,
                    line,
                )
            now = Span(stream, prefixes, after, line, after)
            spans.append(now)
        elif line.f == "watch.resync":
            if now is not None:
                now.upto = max(now.upto, int(value.get("lost_after") or 0))
            now = Span(stream, prefixes, int(value["from"]), line, int(value["from"]))
            spans.append(now)
            last = None
        elif line.f == "watch.bookmark":
            now = _begun(now, asked, stream, prefixes, spans, int(value["index"]))
            if int(value["index"]) < max(now.upto, last[0][0] if last else 0):
                complaints.add(
                    f"{stream} was sent back to {value['index']}", last[1] if last else None, line
                )
            now.upto = max(now.upto, int(value["index"]))
        elif line.f == "watch.event" and "index" in value:
            place = int(value["index"]), int(value["seq"])
            now = _begun(now, asked, stream, prefixes, spans, place[0] - 1)
            if last is not None and place <= last[0]:
                complaints.add(f"{stream} heard {place} after {last[0]}", last[1], line)
            elif place[0] <= now.upto:
                complaints.add(
                    f"{stream} heard {place}, and knew everything up to {now.upto}",
                    now.opened,
                    line,
                )
            if not now.wants(str(value.get("path", ""))):
                complaints.add(f"{stream} did not ask for {value.get('path')!r}", now.opened, line)
            if last is not None and place[0] > last[0][0]:
                # The entry before is complete once another begins.
                now.upto = max(now.upto, place[0] - 1)
            now.events.setdefault(place, line)
            last = place, line
        elif line.f == "watch.end":
            last = None if now is None else last
    _close(now, None)
    return spans


def _begun(
    now: Span | None,
    asked: Line | None,
    stream: str,
    prefixes: tuple[str, ...],
    spans: list[Span],
    default: int,
) -> Span:
    """The life that goes on, or one that has no opening, as pages have none."""
    if now is not None:
        return now
    after = asked.value.get("after") if asked is not None else None
    assert asked is not None, f"{stream} heard something and never asked"
    begun = Span(stream, prefixes, default if after is None else int(after), asked)
    begun.upto = begun.after
    spans.append(begun)
    return begun


def _close(span: Span | None, next_after: int | None) -> None:
    """A life is over: up to where it knows everything is told by what it came back with."""
    if span is None or not span.events:
        return
    newest = max(span.events)[0]
    span.upto = max(span.upto, newest if next_after == newest else newest - 1)


def _same(spans: Sequence[Span], complaints: Complaints) -> dict[Place, Line]:
    """Every event, once; two streams that tell it tell the same."""
    known: dict[Place, Line] = {}
    for span in spans:
        for place, line in span.events.items():
            other = known.setdefault(place, line)
            if other.value != line.value:
                complaints.add(
                    f"event {place} is one to {other.key} and another to {line.key}", other, line
                )
    return known


def _gaps(spans: Sequence[Span], known: dict[Place, Line], complaints: Complaints) -> int:
    """What anybody heard within a stretch that somebody heard whole, that one heard too."""
    places = sorted(known)
    compared = 0
    for span in spans:
        first = bisect_right(places, (span.after, 1 << 62))
        last = bisect_right(places, (span.upto, 1 << 62))
        for place in places[first:last]:
            line = known[place]
            if span.wants(str(line.value.get("path", ""))):
                compared += 1
                if place not in span.events:
                    later = min((p for p in span.events if p > place), default=None)
                    complaints.add(
                        f"{span.stream} knows everything from {span.after} to {span.upto}, and "
                        f"did not hear {place}",
                        span.opened,
                        line,
                        span.events[later] if later is not None else None,
                    )
    return compared


def _acknowledged(made: Sequence[Call], spans: Sequence[Span], complaints: Complaints) -> int:
    """A grant that was acknowledged while a stream listened was told to it."""
    looked = 0
    vague: set[tuple[str, str]] = set()
    seen: set[int] = set()
    heard = [
        {
            int(line.value.get("token") or 0)
            for line in span.events.values()
            if line.value.get("what") == "granted" and line.value.get("kind") == "lock"
        }
        for span in spans
    ]
    for call in made:
        if call.f != "lock.acquire":
            continue
        if call.is_open:
            vague.add((call.key, call.session))
        if not call.is_ok or "index" not in call.answer or (call.key, call.session) in vague:
            continue
        token = int(call.answer["token"])
        if token in seen:
            continue
        seen.add(token)
        for span, tokens in zip(spans, heard, strict=True):
            listens = span.opened.f == "watch.open" and span.opened.time_ns < call.start_ns
            covers = span.upto >= int(call.answer["index"]) and span.wants(f"/locks/{call.key}")
            if listens and covers:
                looked += 1
                if token not in tokens:
                    complaints.add(
                        f"{call.key!r} was granted under {token}, and {span.stream} did not hear "
                        "of it",
                        span.opened,
                        call,
                    )
    return looked
