"""Places and parked requests: asked, not yet answered, waiting in the queue of some thing.

RULE: values that primitives keep, and `core.py` answers. A place is where somebody stands; a wait
is for how long. Several waits share a place when one session asked twice for the same thing;
several requests share a wait when they came with the same Idempotency-Key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar

from cluster.machine.commands.base import RequestId


class Place:
    """A place in a queue, whatever the queue is for. Primitives derive theirs from it.

    Attributes:
        kind: of the primitive whose queue it is; the class says it.
        name: of the thing waited for.
        session: whose place it is; None for those who wait without one.
        arrival: order among all places that ever were; the order of the wait that made it.
        parked: the waits in it by their order; a place is left when the last one ends.
    """

    __slots__ = ("arrival", "name", "parked", "session")

    kind: ClassVar[str]

    def __init__(self, name: str, session: str | None, arrival: int) -> None:
        self.name = name
        self.session = session
        self.arrival = arrival
        self.parked: dict[int, Parked] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """All things waited for in this one place."""
        return (self.name,)

    def stands(self, position: Callable[[Place], int]) -> Iterator[tuple[str, int]]:
        """Tell (name, position) for each thing waited for.

        Args:
            position: of a place with one thing, as its primitive counts.
        """
        yield self.name, position(self)

    def expires_in_ms(self, now_ms: int) -> int:
        """How long somebody will still wait here."""
        return max(0, max(wait.deadline_ms for wait in self.parked.values()) - now_ms)


class Parked:
    """One wait: the requests that share it get one answer.

    Attributes:
        order: of arrival, unique over all waits; its key in `place.parked`.
        deadline_ms: cluster time at which waiting ends; DISARMED once it has.
        requests: who is to be told, in order of arrival.
        key: the Idempotency-Key that will remember the answer.
        fingerprint: of the request that came with the key.
    """

    __slots__ = ("deadline_ms", "fingerprint", "key", "order", "place", "requests")

    def __init__(
        self,
        order: int,
        deadline_ms: int,
        place: Place,
        key: str | None = None,
        fingerprint: bytes | None = None,
    ) -> None:
        self.order = order
        self.deadline_ms = deadline_ms
        self.place = place
        self.key = key
        self.fingerprint = fingerprint
        self.requests: dict[RequestId, None] = {}
