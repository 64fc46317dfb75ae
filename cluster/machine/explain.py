"""Explanations: who stands in the way of a session, what would help, and who waits in a circle.

RULE: a pure read, of any machine, through what every primitive tells (`Primitive.blockers`).

Deadlocks are told exactly where they are certain. Who waits for a lock needs all who stand in the
way to go; who waits for units or a ticket needs some of the holders to. Start from everybody who
waits, as far as we look; whoever has a wait that could end without the others is taken out, again
and again. Who is left can only be helped from outside: by a wait that runs out, a session that
ends, a limit that is raised, a holder that gives back while it waits. A session that we did not
look at counts as one that may go on, so that too small a bound hides deadlocks and invents none.
Source: Holt (1972): knots; Chandy, Misra & Haas (1983): the AND and the OR model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import chain, islice
from typing import NamedTuple

from cluster.machine.core import Core
from cluster.machine.parked import Place
from cluster.machine.primitive import Blocker

SESSIONS_MAX = 1_000
"""Sessions that are looked at for one explanation."""

STEPS_MAX = 10_000
"""Blockers that are looked at for one explanation, some ten milliseconds of work."""

BLOCKERS_SHOWN_MAX = 100
"""Of one thing that is waited for."""

ALL_MUST_GO = frozenset({"lock"})
"""Kinds for which nobody who stands in the way may stay; of others some holders are enough."""


IN_CIRCLES = frozenset({"lock", "semaphore", "ticket"})
"""Kinds that are only ever freed by those who hold them; anybody may put a job into a tube."""


class Obstacle(NamedTuple):
    """Somebody who is in the way.

    Attributes:
        expires_in_ms: until its session ends unless it is renewed; None without a session.
    """

    blocker: Blocker
    expires_in_ms: int | None


class Want(NamedTuple):
    """Something that a session waits for, or would like.

    Attributes:
        waits: it stands in the queue; otherwise it would only now ask.
        holds: it has it, or a part of it, already.
        position: in the queue, or the one it would get, from 1.
        waited_ms, ends_in_ms: how long it has waited, and at most will; None if it does not.
        obstacles: holders first, then those who wait before it.
        shown_all: there are no further obstacles.
        free_in_ms: when all who hold are gone at the latest, if none of them is renewed; None where
            one holds without a session, or they are too many to be looked at.
    """

    kind: str
    name: str
    waits: bool
    holds: bool
    position: int
    waited_ms: int | None
    ends_in_ms: int | None
    obstacles: tuple[Obstacle, ...]
    shown_all: bool
    free_in_ms: int | None


class Edge(NamedTuple):
    """One step of a circle: who waits for what, and who is in its way."""

    session: str
    kind: str
    name: str
    blocked_by: str


class Circle(NamedTuple):
    """Sessions that wait for one another, in a circle.

    Attributes:
        is_certain: none of them goes on unless something from outside helps.
    """

    is_certain: bool
    edges: tuple[Edge, ...]


class Explanation(NamedTuple):
    """What there is to say about a session.

    Attributes:
        wants: what it waits for, or what was asked about.
        circle: one that it waits in, or that it waits for; None if none was found.
        looked_at: how many sessions.
        is_complete: no bound kept us from looking further.
    """

    wants: tuple[Want, ...]
    circle: Circle | None
    looked_at: int
    is_complete: bool


def explain(
    core: Core, session_id: str, now_ms: int, about: tuple[str, str] | None = None
) -> Explanation | None:
    """Explain what a session waits for, or one thing; None if there is no such session.

    Args:
        now_ms: estimate of cluster time.
        about: (kind, name) of a thing that it wants, whether it waits for it or not.
    """
    session = core.sessions.get(session_id)
    if session is None:
        return None
    places = [] if session.places is None else list(session.places.values())
    wants = []
    if about is None:
        for place in islice(places, BLOCKERS_SHOWN_MAX):
            for name, position in place.stands(core.position):
                wants.append(_want(core, place.kind, name, session_id, place, position, now_ms))
    else:
        kind, name = about
        of_it = [place for place in places if place.kind == kind and name in place.names]
        if of_it:
            place = of_it[0]
            position = dict(place.stands(core.position))[name]
            wants.append(_want(core, kind, name, session_id, place, position, now_ms))
        else:
            wants.append(_want(core, kind, name, session_id, None, None, now_ms))
    graph = _Graph(core)
    graph.look(session_id, about)
    is_complete = graph.is_complete and len(places) <= BLOCKERS_SHOWN_MAX
    return Explanation(tuple(wants), graph.circle(session_id), len(graph.waits), is_complete)


def _want(
    core: Core,
    kind: str,
    name: str,
    session_id: str,
    place: Place | None,
    position: int | None,
    now_ms: int,
) -> Want:
    blockers = core.primitives[kind].blockers(name, session_id, place)
    found = list(islice(blockers, BLOCKERS_SHOWN_MAX + 1))
    obstacles = tuple(_obstacle(core, blocker, now_ms) for blocker in found[:BLOCKERS_SHOWN_MAX])
    ends = [each.expires_in_ms for each in obstacles if each.blocker.position is None]
    shown_all = len(found) <= BLOCKERS_SHOWN_MAX
    if not shown_all and found[-1].position is None:
        ends.append(None)
    if position is None:
        # Behind the last of all, shown or not.
        last = deque(chain(found, blockers), maxlen=1)
        position = 1 + (last[0].position or 0 if last else 0)
    since_ms = None if place is None else getattr(place, "since_ms", None)
    session = core.sessions.get(session_id)
    owned = () if session is None else session.owned
    return Want(
        kind=kind,
        name=name,
        waits=place is not None,
        holds=any(thing[:2] == (kind, name) for thing in islice(owned, STEPS_MAX)),
        position=position,
        waited_ms=None if since_ms is None else max(0, now_ms - since_ms),
        ends_in_ms=None if place is None else place.expires_in_ms(now_ms),
        obstacles=obstacles,
        shown_all=shown_all,
        free_in_ms=None if None in ends else max((end or 0 for end in ends), default=0),
    )


def _obstacle(core: Core, blocker: Blocker, now_ms: int) -> Obstacle:
    session = None if blocker.session is None else core.sessions.get(blocker.session)
    return Obstacle(blocker, None if session is None else max(0, session.deadline_ms - now_ms))


class _Wait(NamedTuple):
    """One wait of a session, as far as circles go.

    Attributes:
        needs_all: nobody in the way may stay; otherwise one of the holders going is enough.
        holders, before: (name of the thing, session).
    """

    kind: str
    needs_all: bool
    holders: tuple[tuple[str, str | None], ...]
    before: tuple[tuple[str, str | None], ...]

    def may_end(self, stuck: dict[str, None]) -> bool:
        """Whether it can end though those do not go on."""
        if any(session in stuck for _, session in self.before):
            return False
        if self.needs_all or not self.holders:
            return not any(session in stuck for _, session in self.holders)
        return not all(session in stuck for _, session in self.holders)

    def edges(self, session: str) -> Iterator[Edge]:
        """Who is in its way, holders first."""
        for name, other in (*self.holders, *self.before):
            if other is not None:
                yield Edge(session, self.kind, name, other)


class _Graph:
    """Who waits for whom, around one session.

    Attributes:
        waits: of each session that was looked at; those without any may go on.
        is_complete: no bound was reached.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._steps = STEPS_MAX
        self.waits: dict[str, list[_Wait]] = {}
        self.is_complete = True

    def look(self, start: str, about: tuple[str, str] | None) -> None:
        """Look at a session, at those it waits for, and so on, nearest first."""
        ahead = deque([start])
        seen = {start: None}
        while ahead:
            if len(self.waits) >= SESSIONS_MAX or self._steps <= 0:
                self.is_complete = False
                return
            session = ahead.popleft()
            waits = list(self._waits(session, about if session == start else None))
            if self._steps <= 0:
                # What was cut short would look as if less were in the way.
                self.is_complete = False
                return
            self.waits[session] = waits
            for wait in waits:
                for edge in wait.edges(session):
                    if edge.blocked_by not in seen:
                        seen[edge.blocked_by] = None
                        ahead.append(edge.blocked_by)

    def circle(self, start: str) -> Circle | None:
        """A circle that a session waits in or for: a certain one if there is any."""
        stuck = dict.fromkeys(session for session, waits in self.waits.items() if waits)
        # Each sweep costs what was looked at; the bound on that bounds them all.
        is_shrinking = True
        while is_shrinking:
            free = [
                session
                for session in stuck
                if any(wait.may_end(stuck) for wait in self.waits[session])
            ]
            is_shrinking = bool(free)
            for session in free:
                del stuck[session]
        if start in stuck:
            return Circle(True, self._walk(start, stuck))
        edges = self._back(start)
        return None if edges is None else Circle(False, edges)

    def _waits(self, session_id: str, about: tuple[str, str] | None) -> Iterator[_Wait]:
        core = self._core
        session = core.sessions.get(session_id)
        places = () if session is None or session.places is None else session.places.values()
        things: list[tuple[str, tuple[str, ...], Place | None]] = [
            (place.kind, place.names, place) for place in places
        ]
        if about is not None and all(
            kind != about[0] or about[1] not in names for kind, names, _ in things
        ):
            things.append((about[0], (about[1],), None))
        for kind, names, place in things:
            holders: list[tuple[str, str | None]] = []
            before: list[tuple[str, str | None]] = []
            for name in names if kind in IN_CIRCLES else ():
                for blocker in core.primitives[kind].blockers(name, session_id, place):
                    self._steps -= 1
                    if self._steps <= 0:
                        return
                    if blocker.session != session_id:
                        side = holders if blocker.position is None else before
                        side.append((name, blocker.session))
            # A wait that nobody is in the way of is not stuck, whatever it still takes.
            yield _Wait(kind, kind in ALL_MUST_GO, tuple(holders), tuple(before))

    def _walk(self, start: str, stuck: dict[str, None]) -> tuple[Edge, ...]:
        """Go from one that is stuck to the next until one comes again: that is the circle."""
        path: list[Edge] = []
        at: dict[str, int] = {}
        session = start
        while session not in at:
            at[session] = len(path)
            edge = next(
                edge
                for wait in self.waits[session]
                for edge in wait.edges(session)
                if edge.blocked_by in stuck
            )
            path.append(edge)
            session = edge.blocked_by
        return tuple(path[at[session] :])

    def _back(self, start: str) -> tuple[Edge, ...] | None:
        """The shortest way from a session to itself."""
        came: dict[str, Edge] = {}
        ahead = deque([start])
        while ahead:
            session = ahead.popleft()
            for wait in self.waits.get(session, ()):
                for edge in wait.edges(session):
                    if edge.blocked_by in came:
                        continue
                    came[edge.blocked_by] = edge
                    ahead.append(edge.blocked_by)
                    if edge.blocked_by == start:
                        return self._path(start, came)
        return None

    def _path(self, start: str, came: dict[str, Edge]) -> tuple[Edge, ...]:
        path = [came[start]]
        while path[-1].session != start:
            path.append(came[path[-1].session])
        return tuple(reversed(path))
