"""Restoring: what the loaders of a snapshot share while the machine is being filled.

RULE: collects what must be put in order over all primitives, and checks the laws between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.machine.parked import Place

if TYPE_CHECKING:
    from cluster.machine.core import Core
    from cluster.machine.sessions import Owned, Session


class Restoring:
    """Collects grants and places; `finish` hands them to their sessions in order.

    Attributes:
        places: by arrival.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._owned: list[tuple[int, Session, Owned]] = []
        self.places: dict[int, Place] = {}

    def session(self, session_id: str) -> Session:
        """The living session of this id.

        Raises:
            KeyError: there is none.
        """
        session = self._core.sessions.get(session_id)
        if session is None:
            raise KeyError(session_id)
        return session

    def own(self, session_id: str, thing: Owned, token: int) -> None:
        """A session holds a thing under a token."""
        self.token(token)
        self._owned.append((token, self.session(session_id), thing))

    def stand(self, place: Place) -> None:
        """Somebody stands in a place."""
        must(0 < place.arrival <= self._core.arrivals, "a place was never given")
        must(place.arrival not in self.places, "two places have one arrival")
        if place.session is not None:
            self.session(place.session)
        self.places[place.arrival] = place

    def token(self, token: int) -> None:
        """See that a token was given once."""
        must(0 < token <= self._core.tokens.last, "a token was never given")

    def finish(self) -> None:
        """Give sessions what they hold, in order of grant, and where they stand, as they came."""
        last = 0
        for token, session, thing in sorted(self._owned, key=lambda owned: owned[0]):
            must(token != last, "two grants have one token")
            must(thing not in session.owned, "a session holds a thing twice")
            session.owned[thing] = last = token
        for _, place in sorted(self.places.items()):
            if place.session is not None:
                self.session(place.session).stand(place)


def must(is_so: bool, otherwise: str) -> None:
    """See that a law holds of a snapshot.

    Raises:
        ValueError: it does not.
    """
    if not is_so:
        raise ValueError(f"no snapshot of ours: {otherwise}")
