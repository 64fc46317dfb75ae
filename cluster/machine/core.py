"""The core: time, tokens, deadlines, sessions, waits and events, on which all primitives stand.

RULE: knows that there are primitives, and none of them by name. Whatever concerns more than one
primitive (a session's end, a wait's answer, what is granted next) goes through here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from cluster.machine import limits
from cluster.machine.commands.base import RequestId
from cluster.machine.deadlines import WAIT_ENDS, Deadlines
from cluster.machine.events import Event
from cluster.machine.outcome.base import (
    Answer,
    Outcome,
    Queued,
    QueueFull,
    SessionExpired,
    SessionNotFound,
)
from cluster.machine.parked import Parked, Place
from cluster.machine.primitive import Primitive
from cluster.machine.requests import Requests
from cluster.machine.sessions import Session, Sessions
from cluster.machine.tokens import Tokens


class Core:
    """What primitives share.

    Attributes:
        now_ms: cluster time of the entry being applied, or of the last one; never falling.
        wall_ms: the leader's wall clock of the same entry; may fall.
        tokens, deadlines, sessions, requests: as their classes say.
        wall_deadlines: timers in ms since 1970, met by `wall_ms` after all others. What they bring
            must not be early or late by the steps of a clock, but need not be either.
        arrivals: how many waits ever began.
        parked: how many waits there are.
        answers: of the entry being applied, so far.
        events: of the entry being applied, so far; what watchers are told.
        headroom: by how much limits must not be reached; more than 1 only while the commands of an
            all-or-nothing batch are looked at.
    """

    def __init__(self) -> None:
        self.now_ms = 0
        self.wall_ms = 0
        self.arrivals = 0
        self.parked = 0
        self.headroom = 1
        self.tokens = Tokens()
        self.deadlines = Deadlines()
        self.wall_deadlines = Deadlines()
        self.requests = Requests()
        self.sessions = Sessions(self.tokens, self.position)
        self.answers: list[Answer] = []
        self.events: list[Event] = []
        self.primitives: dict[str, Primitive] = {}
        self._unsettled: deque[tuple[str, str]] = deque()

    def add(self, primitives: Sequence[Primitive]) -> None:
        """Make primitives known; once, before anything else."""
        self.primitives = {primitive.kind: primitive for primitive in primitives}

    # Sessions.

    def living(self, session_id: str) -> Session | None:
        """A session that may be given something now.

        One that is due at this very time as others are has not ended yet, but must not be granted
        anything: it ends here, and what it had is freed.
        """
        session = self.sessions.get(session_id)
        if session is not None and session.deadline_ms <= self.now_ms:
            self.end(session, "expired")
            return None
        return session

    def gone(self, session_id: str) -> SessionExpired | SessionNotFound:
        """The refusal for a session that is not there."""
        return self.sessions.refusal(session_id)

    def no_room(self, session: Session) -> QueueFull | None:
        """The refusal for a session that has as many things as it may have; None if it has not."""
        if session.things + self.headroom > limits.OWNED_PER_SESSION_MAX:
            return QueueFull("things of a session", limits.OWNED_PER_SESSION_MAX)
        return None

    def end(self, session: Session, why: str) -> None:
        """End a session: free what it holds in order of grant, leave the queues it stands in.

        Args:
            why: "expired" or "closed", for watchers.
        """
        self.deadlines.disarm(session)
        self.sessions.remove(session)
        owned, session.owned = session.owned, {}
        places, session.places = session.places, None
        self.events.append(Event(why, "session", session.id, session.id, session.token))
        for thing, token in owned.items():
            self.primitives[thing[0]].free(session, thing, token)
        if places is not None:
            expired = self.gone(session.id)
            for place in places.values():
                self.primitives[place.kind].leave(place)
                for parked in place.parked.values():
                    self._tell(parked, expired)

    # Waiting.

    @property
    def is_full(self) -> bool:
        """No more requests can be parked."""
        return self.parked >= limits.PARKED_MAX

    def next_arrival(self) -> int:
        """The arrival of a place that is made now and parked in at once."""
        return self.arrivals + 1

    def park(self, place: Place, wait_ms: int) -> Parked:
        """Have the present request wait in a place, old or new, for at most so long.

        The caller has looked at `is_full`, and has put a new place into its queue.
        """
        self.arrivals += 1
        self.parked += 1
        parked = Parked(self.arrivals, self.now_ms + wait_ms, place)
        if not place.parked and place.session is not None:
            session = self.sessions.get(place.session)
            assert session is not None, "a place for a session that is over"
            session.stand(place)
        place.parked[parked.order] = parked
        self.deadlines.arm(WAIT_ENDS, parked.order, parked)
        return parked

    def queued(self, parked: Parked) -> Queued:
        """What a request is told that is parked."""
        return Queued(parked.place.name, self.position(parked.place))

    def position(self, place: Place) -> int:
        """Where a place stands in its queue, from 1."""
        return self.primitives[place.kind].position(place)

    def grant(self, place: Place, outcome: Outcome) -> None:
        """Tell all who wait in a place, which is out of its queue already, that it is over."""
        if place.session is not None:
            session = self.sessions.get(place.session)
            assert session is not None, "a place outlived its session"
            session.unstand(place)
        for parked in place.parked.values():
            self._tell(parked, outcome)

    def wait_ended(self, parked: Parked) -> None:
        """A wait ran out: it is told so, and the last one in a place gives the place up."""
        self._tell(parked, self.primitives[parked.place.kind].too_late(parked.place))
        self._leave(parked)

    def withdraw(self, request_id: RequestId, parked: Parked) -> None:
        """One who shared a wait is gone; the last one takes the wait along. Nobody is told."""
        del parked.requests[request_id]
        if not parked.requests:
            self._unpark(parked)
            self.requests.release_key(parked)
            self._leave(parked)

    def _leave(self, parked: Parked) -> None:
        place = parked.place
        del place.parked[parked.order]
        if not place.parked:
            if place.session is not None:
                session = self.sessions.get(place.session)
                assert session is not None, "a place outlived its session"
                session.unstand(place)
            self.primitives[place.kind].leave(place)

    def _tell(self, parked: Parked, outcome: Outcome) -> None:
        """Answer everybody who shares a wait."""
        self._unpark(parked)
        for request_id in parked.requests:
            self.requests.store(request_id, outcome)
            self.answers.append(Answer(request_id, outcome))
        if parked.key is not None:
            self.requests.settle_key(parked.key, parked.fingerprint, outcome, self.now_ms)

    def _unpark(self, parked: Parked) -> None:
        self.parked -= 1
        self.deadlines.disarm(parked)

    # What follows.

    def unsettle(self, kind: str, name: str) -> None:
        """Something of this thing may have become free: look at it before the next step."""
        self._unsettled.append((kind, name))

    def settle(self) -> None:
        """Grant what has become free, until nothing more can be granted."""
        unsettled = self._unsettled
        while unsettled:
            kind, name = unsettled.popleft()
            self.primitives[kind].settle(name)
