"""Watching over HTTP: server-sent events, and pages of events for those who poll.

RULE: parameters to filter, history to pages; who is told what is decided in `watchers.py`, how it
is sent in `endpoint.py`.
Standard: WHATWG HTML, section 9.2 (server-sent events).
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from cluster.gateway.matching import Filter, picture
from cluster.gateway.requests import (
    LIMIT,
    NAME_BYTES_MAX,
    SESSION_ID_LENGTH_MAX,
    SESSION_ID_SCHEMA,
    TEXT_PATTERN,
    Ask,
    Query,
    bad_request,
)
from cluster.gateway.routes import Look, Read, Route, Stream, read_query

PATH_LENGTH_MAX: Final = 2 * NAME_BYTES_MAX + 40
POSITION_DIGITS_MAX: Final = 18
LOOKED_AT_MAX: Final = 20_000
"""Events that are looked at for one page."""

EventFields = Annotated[
    dict[str, Any],
    msgspec.Meta(
        description="index, seq, what, path, kind, name, session, token, and what belongs to it"
    ),
]


class EventPage(msgspec.Struct, frozen=True):
    """Events in order; entries come whole, so there may be more of them than `limit`.

    `next` goes into `after`. `lost`: events behind `after` are forgotten here; look at the state
    itself. `more`: there is more to be had at once.
    """

    events: list[EventFields]
    next: int
    lost: bool
    more: bool


def wanted(ask: Ask) -> Filter:
    """Make the filter of a watcher."""
    return Filter(tuple(ask.query["prefix"]), ask.query["session"])


def position(ask: Ask, last_event_id: str | None) -> int | None:
    """Return up to where the client knows everything; None: it begins with the present.

    Args:
        last_event_id: the header, with which browsers come back: it is newer than the address.

    Raises:
        Problem: no position of ours.
    """
    if last_event_id:
        try:
            return _parse_position(last_event_id)
        except ValueError as error:
            raise bad_request("Last-Event-ID", str(error)) from None
    after: int | None = ask.query["after"]
    return after


def page(look: Look, ask: Ask) -> EventPage:
    """Show remembered events behind a position."""
    machine, asked, limit = look.machine, wanted(ask), ask.query["limit"]
    history, after = machine.history, ask.query["after"]
    is_lost = after is not None and after + 1 < history.first
    at = max(after or 0, history.first - 1)
    if at > machine.index:
        # Another node was ahead: nothing to tell yet, and the position stays good.
        return EventPage([], at, False, False)
    events: list[dict[str, Any]] = []
    looked_at = 0
    for index, found in history.after(at):
        if len(events) >= limit or looked_at >= LOOKED_AT_MAX:
            return EventPage(events, at, is_lost, True)
        looked_at += len(found)
        events += [
            picture(index, seq, event)
            for seq, event in enumerate(found)
            if asked.wants(event, event.path)
        ]
        at = index
    return EventPage(events, machine.index, is_lost, False)


def _parse_prefix(text: str) -> str:
    prefix = text.removeprefix("/v1")
    if not prefix.startswith("/") or len(prefix) > PATH_LENGTH_MAX:
        raise ValueError(f'"{text[:80]}" is no beginning of a path; write /locks/ or /locks/orders')
    return prefix


def _parse_position(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= POSITION_DIGITS_MAX:
        return int(text)
    raise ValueError(f'"{text[:40]}" is no position; use the id of an event, a whole number')


def _parse_session(text: str) -> str:
    if not 0 < len(text) <= SESSION_ID_LENGTH_MAX or not text.isprintable():
        raise ValueError("is no id of a session")
    return text


PATH_PREFIX: Final = Query(
    "prefix",
    _parse_prefix,
    (),
    {"type": "string", "maxLength": PATH_LENGTH_MAX, "pattern": TEXT_PATTERN + "|^/"},
    "only what happens to paths that begin with this (/locks/orders); may come several times",
    is_repeatable=True,
)
SESSION: Final = Query(
    "session",
    _parse_session,
    None,
    SESSION_ID_SCHEMA,
    "only what concerns this session: turns that came, locks lost, its end",
)
AFTER: Final = Query(
    "after",
    _parse_position,
    None,
    {"type": "string", "pattern": f"^[0-9]{{1,{POSITION_DIGITS_MAX}}}$"},
    "go on behind this position; Last-Event-ID does the same",
)

ROUTES: tuple[Route, ...] = (
    Stream(
        method="GET",
        path="/v1/watch",
        summary="Watch what happens, as server-sent events; `id` is the log position.",
        tag="watch",
        query=read_query(PATH_PREFIX, SESSION, AFTER),
        wanted=wanted,
        position=position,
    ),
    Read(
        method="GET",
        path="/v1/events",
        summary="List remembered events behind a position, for those who poll.",
        tag="watch",
        answer=EventPage,
        query=read_query(PATH_PREFIX, SESSION, AFTER, LIMIT),
        view=page,
    ),
)
