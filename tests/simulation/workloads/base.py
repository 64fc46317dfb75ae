"""What every workload is made of: a turn or a life, and a book that judges.

RULE: contracts and values; knows no primitive. A book sees the committed log and nothing else, so
that it can be fed a bad history in a unit test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from cluster.machine.commands import Command, RequestId
from cluster.machine.events import Event
from cluster.machine.machine import Machine
from cluster.machine.outcome import Outcome

if TYPE_CHECKING:
    from tests.simulation.clients import Client, Part, Session, Story

Complain = Callable[[str, str], None]
"""Told the name of a broken law and the circumstances."""


class Fresh(NamedTuple):
    """An answer that took effect in an entry, and the command it answers.

    `command` is None where its bytes could not be decoded.
    """

    request: RequestId
    command: Command | None
    outcome: Outcome


class Parked(NamedTuple):
    """A request that began to wait in an entry."""

    request: RequestId
    command: Command | None


@dataclass(slots=True)
class Entry:
    """One committed entry, after the machine has applied it.

    Attributes:
        index: its position in the log.
        now_ms: cluster time.
        now_us: true time. Cluster time may lag behind it, and drifts with the leader's clock.
        fresh: answers in the order in which the machine gave them, refusals among them. Repeats of
            answers known already (same request, or same Idempotency-Key) are not among them.
        queued: requests that were parked in this entry; their answers come in this entry or later.
        left: requests that stand in no queue any more and were told nothing (client gone).
        gone: sessions that ended in this entry, expired or closed; at most once each.
        expired: those of them that expired.
        events: what watchers are told of this entry.
        machine: after the entry. For reading.
        tokens: given in this entry, and for what.
    """

    index: int
    now_ms: int
    now_us: int
    fresh: list[Fresh]
    queued: list[Parked]
    left: list[RequestId]
    gone: frozenset[str]
    expired: frozenset[str]
    events: list[Event]
    machine: Machine
    complain: Complain
    tokens: dict[int, object]

    def gave(self, token: int, what: object) -> None:
        """A new token was given. Its order is checked when all books have spoken."""
        known = self.tokens.setdefault(token, what)
        if known != what:
            self.complain("tokens rise", f"{what} and {known} at {self.index}")


class Book:
    """What should be so, written another way than the machine does it; one per simulated world.

    Attributes:
        counts: what happened, for the summary: a workload that does nothing proves nothing.
    """

    def __init__(self, complain: Complain) -> None:
        self.complain = complain
        self.counts: dict[str, int] = {}

    def count(self, what: str, number: int = 1) -> None:
        """Add to the summary."""
        self.counts[what] = self.counts.get(what, 0) + number

    def applied(self, entry: Entry) -> None:
        """An entry was committed. Called once for each, in order, also for empty ones."""

    def acknowledged(self, request: RequestId, outcome: Outcome) -> None:
        """A client is told an outcome, which agrees with the log."""

    def check(self, machine: Machine) -> None:
        """Compare whole states; now and then, and at the end."""

    def finish(self, machine: Machine) -> None:
        """The end: faults are over, all nodes agree, clients ask nothing new (some still hold)."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What clients do.

    Attributes:
        name: the same as its module's.
        book: makes the judge of one world.
        turn: one thing that a client does with its living session, and all that follows from it.
            Waits and thinking pauses between turns are the client's.
        live: one life of a client without a session, or with several of its own; it returns when
            it is over or soon after `client.is_stopped`, and a new one begins. Without it a life
            is a session and some turns.
    """

    name: str
    book: Callable[[Complain], Book]
    turn: Callable[[Client, Session], Part] | None = None
    live: Callable[[Client], Story] | None = None

    def __post_init__(self) -> None:
        if self.turn is None and self.live is None:
            raise ValueError(f"clients of {self.name} have nothing to do")
