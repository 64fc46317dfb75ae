"""Answers about fifos.

RULE: outcome to answer or problem, nothing else; see `base.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal
from urllib.parse import quote

import msgspec

from cluster.gateway.replies.base import Answer, Ms, Problem, Reply, Token, never
from cluster.machine.outcome import Outcome
from cluster.machine.outcome import fifos as turns

TurnState = Literal["waiting", "notified", "accepted"]


class FifoMade(msgspec.Struct, frozen=True):
    """The fifo is there. Of its times, 0 means none."""

    fifo: str
    wait_timeout_ms: Ms
    accept_timeout_ms: Ms
    done_timeout_ms: Ms
    unused_destroy_timeout_ms: Ms
    allow_overrides: bool


class TicketTaken(msgspec.Struct, frozen=True):
    """The ticket stands in the queue; `position` 1 is the one whose turn it is.

    `eta_ms` is null while the fifo has no hold times to tell it from; `eta_samples` is how many it
    has.
    """

    fifo: str
    ticket: str
    state: TurnState
    position: int
    ahead: int
    eta_ms: Ms | None
    eta_samples: int


class TurnGranted(msgspec.Struct, frozen=True):
    """It is the ticket's turn; `token` is the fencing token of it."""

    fifo: str
    ticket: str
    state: TurnState
    token: Token


class TurnDone(msgspec.Struct, frozen=True):
    """The turn is over, and the next ticket's has come."""

    done: bool = True


class FifoReason(msgspec.Struct, frozen=True):
    """Which fifo."""

    name: str


class FifoExistsReason(msgspec.Struct, frozen=True):
    """The settings of the fifo that is there."""

    name: str
    wait_timeout_ms: Ms
    accept_timeout_ms: Ms
    done_timeout_ms: Ms
    unused_destroy_timeout_ms: Ms
    allow_overrides: bool


class FifoInUseReason(msgspec.Struct, frozen=True):
    """How many tickets are in the fifo."""

    name: str
    tickets: int


class NotYourTurnReason(msgspec.Struct, frozen=True):
    """How many are ahead of the ticket, and how long that may take."""

    name: str
    ticket: str
    position: int
    ahead: int
    eta_ms: Ms | None
    eta_samples: int


class NotAcceptedReason(msgspec.Struct, frozen=True):
    """Where the ticket stands."""

    name: str
    ticket: str
    state: str
    position: int


def _created(outcome: turns.FifoCreated) -> Answer:
    body = FifoMade(
        outcome.name,
        outcome.wait_timeout_ms,
        outcome.accept_timeout_ms,
        outcome.done_timeout_ms,
        outcome.unused_destroy_ms,
        outcome.allow_overrides,
    )
    location = f"/v1/fifos/{quote(outcome.name, safe='')}"
    return Answer(201 if outcome.is_new else 200, body, location=location)


def _exists(outcome: turns.FifoExists) -> Answer:
    raise Problem(
        "fifo_exists",
        f'fifo "{outcome.name}" has other settings; use those, or another name',
        {
            "name": outcome.name,
            "wait_timeout_ms": outcome.wait_timeout_ms,
            "accept_timeout_ms": outcome.accept_timeout_ms,
            "done_timeout_ms": outcome.done_timeout_ms,
            "unused_destroy_timeout_ms": outcome.unused_destroy_ms,
            "allow_overrides": outcome.allow_overrides,
        },
    )


def fifo_not_found(name: str) -> Problem:
    """Nobody made it, or it is gone."""
    detail = f'fifo "{name}" is not there; make it with POST /v1/fifos'
    return Problem("fifo_not_found", detail, {"name": name})


def turn_not_found(name: str, ticket: str) -> Problem:
    """Nobody took it, or it is gone."""
    return Problem(
        "ticket_not_found",
        f'fifo "{name}" has no ticket {ticket}: it was done, given up, or over its time; '
        "take a new one",
        {"name": name, "ticket": ticket},
    )


def _fifo_not_found(outcome: turns.FifoNotFound) -> Answer:
    raise fifo_not_found(outcome.name)


def _turn_not_found(outcome: turns.TurnNotFound) -> Answer:
    raise turn_not_found(outcome.name, outcome.ticket)


def _in_use(outcome: turns.FifoInUse) -> Answer:
    raise Problem(
        "fifo_in_use",
        f'fifo "{outcome.name}" has {outcome.tickets} tickets; wait until they are done, '
        "or delete it with ?force=true",
        {"name": outcome.name, "tickets": outcome.tickets},
    )


def _joined(outcome: turns.FifoJoined) -> Answer:
    name, ticket = quote(outcome.name, safe=""), quote(outcome.ticket, safe="")
    return Answer(
        201,
        TicketTaken(
            fifo=outcome.name,
            ticket=outcome.ticket,
            state=outcome.state,  # type: ignore[arg-type]  # the machine's words are these
            position=outcome.position,
            ahead=outcome.position - 1,
            eta_ms=outcome.eta_ms,
            eta_samples=outcome.eta_samples,
        ),
        location=f"/v1/fifos/{name}/tickets/{ticket}",
    )


def _no_overrides(outcome: turns.OverridesNotAllowed) -> Answer:
    raise Problem(
        "overrides_not_allowed",
        f'fifo "{outcome.name}" lets no ticket bring times of its own; leave them out, '
        "or make a fifo with allow_overrides",
        {"name": outcome.name},
    )


def _accepted(outcome: turns.TurnAccepted) -> Answer:
    body = TurnGranted(outcome.name, outcome.ticket, "accepted", outcome.token)
    return Answer(200, body, outcome.token)


def _not_your_turn(outcome: turns.NotYourTurn) -> Answer:
    ahead = outcome.position - 1
    if outcome.eta_ms is None:
        when = "for a time that nothing is known of yet"
    else:
        when = f"for about {outcome.eta_ms} ms"
    raise Problem(
        "not_your_turn",
        f'{ahead} ahead of ticket {outcome.ticket} in fifo "{outcome.name}", {when}; '
        "it keeps its place: wait again",
        {
            "name": outcome.name,
            "ticket": outcome.ticket,
            "position": outcome.position,
            "ahead": ahead,
            "eta_ms": outcome.eta_ms,
            "eta_samples": outcome.eta_samples,
        },
    )


def _not_accepted(outcome: turns.TurnNotAccepted) -> Answer:
    raise Problem(
        "not_accepted",
        f'ticket {outcome.ticket} of fifo "{outcome.name}" is {outcome.state}, not accepted; '
        "wait for its turn first, or give it up with DELETE",
        {
            "name": outcome.name,
            "ticket": outcome.ticket,
            "state": outcome.state,
            "position": outcome.position,
        },
    )


def _dropped(outcome: turns.TurnDropped) -> Answer:
    raise turn_not_found(outcome.name, outcome.ticket)


def _nothing(_outcome: Outcome) -> Answer:
    return _NO_CONTENT


def _finished(_outcome: turns.TurnFinished) -> Answer:
    return _DONE


_NO_CONTENT: Final = Answer(204)
_DONE: Final = Answer(200, TurnDone())

REASONS: Final[Mapping[str, type[msgspec.Struct]]] = {
    "fifo_exists": FifoExistsReason,
    "fifo_not_found": FifoReason,
    "fifo_in_use": FifoInUseReason,
    "overrides_not_allowed": FifoReason,
    "not_your_turn": NotYourTurnReason,
    "not_accepted": NotAcceptedReason,
}

REPLIES: Final[Mapping[type[Outcome], Reply]] = {
    turns.FifoCreated: _created,
    turns.FifoDestroyed: _nothing,
    turns.FifoExists: _exists,
    turns.FifoNotFound: _fifo_not_found,
    turns.FifoInUse: _in_use,
    turns.FifoJoined: _joined,
    turns.OverridesNotAllowed: _no_overrides,
    turns.TurnAccepted: _accepted,
    turns.NotYourTurn: _not_your_turn,
    turns.TurnNotFound: _turn_not_found,
    turns.TurnFinished: _finished,
    turns.TurnNotAccepted: _not_accepted,
    turns.FifoLeft: _nothing,
    turns.TurnDropped: _dropped,
    turns.TurnUnheard: never,
}
