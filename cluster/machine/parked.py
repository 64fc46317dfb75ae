"""Parked requests: asked, not yet answered, waiting in the queue of some thing.

RULE: a value that primitives keep without looking inside, and `requests.py` answers.
"""

from __future__ import annotations

from typing import Protocol

from cluster.machine.commands import RequestId


class Place(Protocol):
    """A place in a queue, whatever the queue is for."""

    session: str
    name: str
    parked: dict[int, Parked]


class Parked:
    """One wait: the requests that share it get one answer.

    Several requests share a wait when they came with the same Idempotency-Key. Several waits share
    a place when one session asked twice for the same thing.

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
