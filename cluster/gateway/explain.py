"""Explanations over HTTP: who blocks whom, since when, and what would help.

RULE: state to picture and words; who is in the way is told by `machine/explain.py`.
"""

from __future__ import annotations

from typing import Final

import msgspec

from cluster.gateway.replies import Ms, Token, session_expired, session_not_found
from cluster.gateway.replies.kinds import SESSION_GONE
from cluster.gateway.requests import (
    NAME_BYTES_MAX,
    SESSION_ID_SCHEMA,
    TEXT_PATTERN,
    Ask,
    Query,
    bad_request,
    check_session,
)
from cluster.gateway.routes import Look, Read, Route, read_query
from cluster.machine.events import COLLECTIONS, path_of, thing_at
from cluster.machine.explain import ALL_MUST_GO, Circle, Edge, Obstacle, Want, explain

PATH_LENGTH_MAX: Final = NAME_BYTES_MAX + 20


class InTheWay(msgspec.Struct, frozen=True):
    """One who holds, or who waits before; `session` is null for one without.

    `since_ms_ago`: for how long. `session_expires_in_ms`: its session's end unless it is renewed.
    """

    session: str | None
    token: Token | None
    position: int | None
    since_ms_ago: Ms
    session_expires_in_ms: Ms | None


class Wanted(msgspec.Struct, frozen=True):
    """One thing that the session wants, and what stands between.

    `holds`: it has it, or a part of it, already. `granted_when`: `all_gone` if none of those in the
    way may stay, `some_gone` if some of the holders are enough, `now` if nobody is in the way, and
    `later` if it waits nevertheless, as there is nothing to be had: a job is to be put, a ticket to
    be issued, a limit to be raised.
    `free_in_ms`: when the holders are gone at the latest if none of their sessions is renewed; null
    where that cannot be told.
    """

    want: str
    kind: str
    name: str
    waits: bool
    holds: bool
    position: int
    waited_ms: Ms | None
    wait_ends_in_ms: Ms | None
    holders: list[InTheWay]
    ahead: list[InTheWay]
    shown_all: bool
    granted_when: str
    free_in_ms: Ms | None
    advice: str


class Step(msgspec.Struct, frozen=True):
    """One step of a circle: `session` wants `want`, which `blocked_by` holds or waits for."""

    session: str
    want: str
    blocked_by: str


class Deadlock(msgspec.Struct, frozen=True):
    """Sessions that wait for one another. `certain`: none of them goes on by itself."""

    certain: bool
    sessions: list[str]
    circle: list[Step]
    advice: str


class Explained(msgspec.Struct, frozen=True):
    """What the session waits for (or the one thing asked about), and whether in a circle.

    `looked_at`: sessions that the search for a circle has seen; `complete`: it saw all there were.
    """

    session: str
    wants: list[Wanted]
    deadlock: Deadlock | None
    looked_at: int
    complete: bool


def show(look: Look, ask: Ask) -> Explained:
    """Explain what a session waits for."""
    session = ask.query["session"]
    if session is None:
        raise bad_request("session", "is missing, and required: the id of a session")
    session = check_session(session)
    found = explain(look.machine.core, session, look.now_ms, ask.query["want"])
    if found is None:
        if look.machine.sessions.existed(session):
            raise session_expired(session)
        raise session_not_found(session)
    return Explained(
        session=session,
        wants=[_wanted(want, look.now_ms) for want in found.wants],
        deadlock=None if found.circle is None else _deadlock(found.circle),
        looked_at=found.looked_at,
        complete=found.is_complete,
    )


def _wanted(want: Want, now_ms: int) -> Wanted:
    shown = [_in_the_way(obstacle, now_ms) for obstacle in want.obstacles]
    holders = [one for one in shown if one.position is None]
    ahead = [one for one in shown if one.position is not None]
    if not shown:
        # Of several locks some may be free: nothing has to come for those.
        when = "later" if want.waits and want.kind not in ALL_MUST_GO else "now"
    elif want.kind in ALL_MUST_GO or not holders:
        when = "all_gone"
    else:
        when = "some_gone"
    return Wanted(
        want=path_of(want.kind, want.name),
        kind=want.kind,
        name=want.name,
        waits=want.waits,
        holds=want.holds,
        position=want.position,
        waited_ms=want.waited_ms,
        wait_ends_in_ms=want.ends_in_ms,
        holders=holders,
        ahead=ahead,
        shown_all=want.shown_all,
        granted_when=when,
        free_in_ms=want.free_in_ms if holders else None,
        advice=_advice(want, holders, ahead, when),
    )


def _in_the_way(obstacle: Obstacle, now_ms: int) -> InTheWay:
    blocker = obstacle.blocker
    return InTheWay(
        session=blocker.session,
        token=blocker.token,
        position=blocker.position,
        since_ms_ago=max(0, now_ms - blocker.since_ms),
        session_expires_in_ms=obstacle.expires_in_ms,
    )


def _advice(want: Want, holders: list[InTheWay], ahead: list[InTheWay], when: str) -> str:
    """Say in a sentence what would grant it."""
    thing = f'{want.kind} "{want.name}"'
    if when == "later":
        return f"nobody is in the way of {thing}; it comes as soon as there is anything to be had"
    if when == "now":
        if want.waits:
            return f"nobody is in the way of {thing}; it is granted with the rest of the wait"
        if want.holds:
            return f"the session holds {thing}"
        return f"nobody is in the way of {thing}; ask for it"
    parts = []
    if holders:
        first = holders[0]
        who = "somebody without a session" if first.session is None else f"session {first.session}"
        verb = "give it back or end" if when == "all_gone" else "give enough of it back or end"
        least = "" if want.shown_all or ahead else "at least "
        others = f" and {least}{len(holders) - 1} more" if len(holders) > 1 else ""
        parts.append(f"{who}{others} must {verb}")
    before = len(ahead) if want.shown_all else want.position - 1
    if before:
        parts.append(f"{before} who came before must have had their turn or left")
    text = f"to get {thing}: {', and '.join(parts)}"
    if want.free_in_ms is not None and holders:
        text += f"; the holders are gone in {want.free_in_ms} ms unless their sessions are renewed"
    return text


def _deadlock(circle: Circle) -> Deadlock:
    if circle.is_certain:
        advice = (
            "none of these goes on by itself: one of them must give up its wait, give back what it "
            "holds or end; taking all locks in one POST /v1/locks/acquire cannot end like this"
        )
    else:
        advice = "these wait for one another, but others may still free what is wanted"
    return Deadlock(
        certain=circle.is_certain,
        sessions=[edge.session for edge in circle.edges],
        circle=[_step(edge) for edge in circle.edges],
        advice=advice,
    )


def _step(edge: Edge) -> Step:
    return Step(edge.session, path_of(edge.kind, edge.name), edge.blocked_by)


def _parse_want(text: str) -> tuple[str, str]:
    thing = thing_at(text)
    # Sessions are no things that one waits for.
    if thing is None or thing[0] == "session":
        wanted = ", ".join(f"/{name}/…" for kind, name in COLLECTIONS.items() if kind != "session")
        raise ValueError(f'"{text[:80]}" is no path of a thing; use one of {wanted}')
    if len(thing[1].encode()) > NAME_BYTES_MAX:
        raise ValueError(f"names something in more than {NAME_BYTES_MAX} bytes")
    return thing


SESSION: Final = Query("session", str, None, SESSION_ID_SCHEMA, "whose waits to explain", True)
WANT: Final = Query(
    "want",
    _parse_want,
    None,
    {
        "type": "string",
        "maxLength": PATH_LENGTH_MAX,
        "pattern": TEXT_PATTERN,
        "examples": ["/locks/orders"],
    },
    "only this, whether it is waited for or not: /locks/…, /semaphores/…, /resources/…, …",
)

ROUTES: tuple[Route, ...] = (
    Read(
        method="GET",
        path="/v1/explain",
        summary="Explain what a session waits for: who is in the way, what would help, deadlocks.",
        tag="explain",
        answer=Explained,
        codes=SESSION_GONE,
        query=read_query(SESSION, WANT),
        view=show,
    ),
)
