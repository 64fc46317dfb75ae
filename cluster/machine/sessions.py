"""Sessions: a name with a time to live that owns whatever its client was given.

RULE: a function of state, cluster time and command. Knows that it owns things of several kinds,
never what they are: what follows from the end of a session is the machine's business.
Source: Gray & Cheriton (leases); Chubby (sessions and keepalives).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import islice

from cluster.machine import ksuids
from cluster.machine.commands.sessions import OpenSession
from cluster.machine.deadlines import DISARMED
from cluster.machine.outcome.base import SessionExpired, SessionNotFound
from cluster.machine.outcome.sessions import SessionInfo
from cluster.machine.parked import Place
from cluster.machine.tokens import Tokens

Owned = tuple[str, str, str]
"""A thing that a session holds: kind, name, and which part of it, as in ("lock", "orders", "")."""

# No leading zeros and no capitals: an id is spelled in one way only.
_ID = re.compile(r"([1-9a-f][0-9a-f]{0,15})-.+", re.DOTALL)


class Session:
    """One living session.

    Attributes:
        deadline_ms: cluster time at which it ends; a keepalive at that time is late. DISARMED once
            it has ended.
        sweep_ms: it ends at multiples of this alone, as clients of ticketd expect: its TTL is a
            floor. 0 for the sessions of all others, which end when they are due.
        remains_until_ms: once it was closed, when the next sweep takes away what the session leaves
            behind; 0 where nothing stays behind.
        owned: thing -> token of its grant, in order of grant.
        places: where it waits, by arrival; None while there is nowhere. The end of a session costs
            what stands in these two.
    """

    __slots__ = (
        "deadline_ms",
        "id",
        "meta",
        "name",
        "owned",
        "places",
        "remains_until_ms",
        "sweep_ms",
        "token",
        "ttl_ms",
    )

    def __init__(
        self,
        id: str,
        token: int,
        ttl_ms: int,
        deadline_ms: int,
        name: str | None,
        meta: bytes | None,
        sweep_ms: int = 0,
    ) -> None:
        self.id = id
        self.token = token
        self.ttl_ms = ttl_ms
        self.deadline_ms = deadline_ms
        self.name = name
        self.meta = meta
        self.sweep_ms = sweep_ms
        self.remains_until_ms = 0
        self.owned: dict[Owned, int] = {}
        self.places: dict[int, Place] | None = None

    def renew(self, now_ms: int) -> None:
        """Let it live for its whole TTL from now on; longer where it is swept."""
        self.deadline_ms = first_sweep(now_ms + self.ttl_ms, self.sweep_ms)

    @property
    def things(self) -> int:
        """How much it holds and waits for."""
        return len(self.owned) + (0 if self.places is None else len(self.places))

    def stand(self, place: Place) -> None:
        """Note where it waits."""
        if self.places is None:
            self.places = {}
        self.places[place.arrival] = place

    def unstand(self, place: Place) -> None:
        """It waits there no longer."""
        assert self.places is not None
        del self.places[place.arrival]
        if not self.places:
            self.places = None

    def took(self, thing: Owned, token: int) -> None:
        """Note a grant. A new token for a thing held already counts as a later grant."""
        if self.owned.get(thing) != token:
            self.owned.pop(thing, None)
            self.owned[thing] = token


class Sessions:
    """All living sessions. Those that ended leave no trace: their ids tell what they were."""

    __slots__ = ("_by_id", "_ended", "_in_order", "_position", "_tokens")

    def __init__(self, tokens: Tokens, position: Callable[[Place], int]) -> None:
        """Start without sessions.

        Args:
            tokens: the cluster's counter; a session's token is its place in the order of opening.
            position: of a place in its queue, counted from 1.
        """
        self._tokens = tokens
        self._position = position
        self._by_id: dict[str, Session] = {}
        # In order of opening, with ended ones among them: swept when they are the larger part.
        self._in_order: list[Session] = []
        self._ended = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Session]:
        """In order of opening."""
        return (session for session in self._in_order if session.deadline_ms != DISARMED)

    def open(self, command: OpenSession, now_ms: int) -> Session:
        """Open a session under a new token. The caller has looked at the limit."""
        token = self._tokens.next()
        if command.ksuid is None:
            id = f"{token:x}-{command.nonce}"
        elif len(command.ksuid) == ksuids.BYTES:
            id = ksuids.text_of(command.ksuid)
        else:
            id = ksuids.made(command.ksuid, token)
        session = Session(
            id, token, command.ttl_ms, 0, command.name, command.meta, command.sweep_ms
        )
        session.renew(now_ms)
        self.add(session)
        return session

    def taken_over(self, command: OpenSession) -> Session | None:
        """The session that a command would take over, where that has been done already."""
        if command.ksuid is None or len(command.ksuid) != ksuids.BYTES:
            return None
        return self._by_id.get(ksuids.text_of(command.ksuid))

    def add(self, session: Session) -> None:
        """Take in a session whose token is larger than those of all others."""
        self._by_id[session.id] = session
        self._in_order.append(session)

    def get(self, id: str) -> Session | None:
        """The living session of this id."""
        return self._by_id.get(id)

    def remove(self, session: Session) -> None:
        """Forget a session whose deadline has been disarmed."""
        del self._by_id[session.id]
        self._ended += 1
        if self._ended * 2 > len(self._in_order):
            self._in_order = list(self)
            self._ended = 0

    def refusal(self, id: str) -> SessionExpired | SessionNotFound:
        """Why there is no living session of this id."""
        return SessionExpired(id) if self.existed(id) else SessionNotFound(id)

    def existed(self, id: str) -> bool:
        """Whether such an id was ever given out, told by its token: no list of the dead is kept.

        An id with a token that was given and another nonce counts as one that existed: who makes
        ids up learns nothing.
        """
        return 0 < token_of(id) <= self._tokens.last

    def info(self, id: str, now_ms: int) -> SessionInfo | None:
        """A picture of one living session."""
        session = self._by_id.get(id)
        return None if session is None else self._info(session, now_ms)

    def list(self, now_ms: int, *, after: str | None = None, limit: int = 100) -> list[SessionInfo]:
        """Pictures of at most `limit` sessions in order of opening.

        Args:
            now_ms: cluster time for `expires_in_ms`.
            after: id of the last one seen; it need not live any more.
        """
        known = None if after is None else self._by_id.get(after)
        if known is not None:
            token = known.token
        else:
            token = 0 if after is None else token_of(after)
        start = bisect_right(self._in_order, token, key=_by_token)
        later = islice(self._in_order, start, None)
        living = (session for session in later if session.deadline_ms != DISARMED)
        return [self._info(session, now_ms) for session in islice(living, limit)]

    def _info(self, session: Session, now_ms: int) -> SessionInfo:
        places = () if session.places is None else session.places.values()
        return SessionInfo(
            session=session.id,
            name=session.name,
            meta=session.meta,
            ttl_ms=session.ttl_ms,
            expires_in_ms=max(0, session.deadline_ms - now_ms),
            token=session.token,
            holds=tuple((*thing, token) for thing, token in session.owned.items()),
            waits=tuple(
                (place.kind, name, position)
                for place in places
                for name, position in place.stands(self._position)
            ),
        )


def _by_token(session: Session) -> int:
    return session.token


def token_of(id: str) -> int:
    """The token that a session of this id has or had; 0 for what is no id."""
    match = _ID.fullmatch(id)
    return int(match[1], 16) if match else ksuids.token_of(id)


def first_sweep(at_ms: int, sweep_ms: int) -> int:
    """The first multiple of the sweep at or after a time; that time where nothing is swept."""
    return -(-at_ms // sweep_ms) * sweep_ms if sweep_ms else at_ms


def next_sweep(now_ms: int, sweep_ms: int) -> int:
    """The first multiple of the sweep after now; 0 where nothing is swept."""
    return (now_ms // sweep_ms + 1) * sweep_ms if sweep_ms else 0
