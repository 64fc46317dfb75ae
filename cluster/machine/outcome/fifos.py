"""Outcomes and pictures of fifos.

RULE: values only; see `base.py`. Numbers 50 to 69.
"""

from __future__ import annotations

from typing import Final

import msgspec

from cluster.machine.outcome.base import Outcome, Refusal

WAITING: Final = "waiting"
NOTIFIED: Final = "notified"
ACCEPTED: Final = "accepted"


class FifoCreated(Outcome, frozen=True, tag=50):
    """There is such a fifo now; `is_new` tells whether there was none before."""

    name: str
    wait_timeout_ms: int
    accept_timeout_ms: int
    done_timeout_ms: int
    unused_destroy_ms: int
    allow_overrides: bool
    is_new: bool


class FifoDestroyed(Outcome, frozen=True, tag=51):
    """The fifo is gone, and so many tickets with it."""

    name: str
    tickets: int


class FifoExists(Refusal, frozen=True, tag=52):
    """There is such a fifo, and these are its settings."""

    name: str
    wait_timeout_ms: int
    accept_timeout_ms: int
    done_timeout_ms: int
    unused_destroy_ms: int
    allow_overrides: bool


class FifoNotFound(Refusal, frozen=True, tag=53):
    """There is no such fifo."""

    name: str


class FifoInUse(Refusal, frozen=True, tag=54):
    """Tickets are in the fifo."""

    name: str
    tickets: int


class FifoJoined(Outcome, frozen=True, tag=55):
    """The ticket stands in the queue.

    Attributes:
        state: notified where it is its turn already.
        position: from 1, which is the one whose turn it is.
        eta_ms: until its turn, by the fifo's own hold times; None while there are none.
        eta_samples: how many hold times that is told from.
    """

    name: str
    ticket: str
    state: str
    position: int
    eta_ms: int | None
    eta_samples: int


class OverridesNotAllowed(Refusal, frozen=True, tag=56):
    """The fifo's tickets bring no times of their own."""

    name: str


class TurnAccepted(Outcome, frozen=True, tag=57):
    """It is the ticket's turn, under this fencing token, until it is done."""

    name: str
    ticket: str
    token: int


class NotYourTurn(Refusal, frozen=True, tag=58):
    """Others are ahead; position and time as in FifoJoined."""

    name: str
    ticket: str
    position: int
    eta_ms: int | None
    eta_samples: int


class TurnNotFound(Refusal, frozen=True, tag=59):
    """The fifo has no such ticket, or has it no longer."""

    name: str
    ticket: str


class TurnFinished(Outcome, frozen=True, tag=60):
    """The turn is over, and the next ticket's has come."""

    name: str
    ticket: str


class TurnNotAccepted(Refusal, frozen=True, tag=61):
    """The ticket's turn was not accepted, so that it cannot be done."""

    name: str
    ticket: str
    state: str
    position: int


class FifoLeft(Outcome, frozen=True, tag=62):
    """The ticket was given up."""

    name: str
    ticket: str


class TurnDropped(Refusal, frozen=True, tag=63):
    """The ticket was given up by somebody else while this client waited for its turn."""

    name: str
    ticket: str


class TurnUnheard(Outcome, frozen=True, tag=64):
    """`is_back`: nobody else had heard of the acceptance, which was taken back."""

    name: str
    ticket: str
    is_back: bool


class HoldInfo(msgspec.Struct, frozen=True):
    """How long turns last, from acceptance to end; None while there was none.

    Attributes:
        count: turns that ended.
        mean_ms: the later ones weigh more.
        p90_ms: nine of ten of the last ones were not longer.
    """

    count: int
    mean_ms: int | None
    p90_ms: int | None


class FifoInfo(msgspec.Struct, frozen=True):
    """A read-only picture of one fifo, its tickets apart.

    destroyed_in_ms: unless it is used before; None where it is kept, or has no timeout.
    """

    name: str
    wait_timeout_ms: int
    accept_timeout_ms: int
    done_timeout_ms: int
    unused_destroy_ms: int
    allow_overrides: bool
    length: int
    destroyed_in_ms: int | None
    holds: HoldInfo


class TurnInfo(msgspec.Struct, frozen=True):
    """A read-only picture of one ticket.

    Attributes:
        number: order among all tickets.
        token: of the accepted turn; None before.
        waiters: requests that wait for its turn.
        age_ms: since it was taken. since_ms: since when it is in this state.
        ends_in_ms: unless it is accepted, or done, before; None where no timeout runs.
    """

    name: str
    ticket: str
    number: int
    state: str
    position: int
    token: int | None
    eta_ms: int | None
    eta_samples: int
    waiters: int
    age_ms: int
    since_ms: int
    ends_in_ms: int | None


OUTCOMES: tuple[type[Outcome], ...] = (
    FifoCreated,
    FifoDestroyed,
    FifoExists,
    FifoNotFound,
    FifoInUse,
    FifoJoined,
    OverridesNotAllowed,
    TurnAccepted,
    NotYourTurn,
    TurnNotFound,
    TurnFinished,
    TurnNotAccepted,
    FifoLeft,
    TurnDropped,
    TurnUnheard,
)
