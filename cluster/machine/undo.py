"""Undo: what takes back an outcome that nobody heard of.

RULE: a table of values. A node that gets an answer for a client that has hung up, and that sent no
Idempotency-Key under which it could ask again, submits these commands. Each must be harmless when
somebody else has heard of the same thing, or when the thing has moved on: conditional on a token.
What a session holds is not here: it ends with its session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cluster.machine.commands import Command
from cluster.machine.commands.fifos import UnhearTurn
from cluster.machine.commands.jobs import ReturnJob
from cluster.machine.outcome import Outcome
from cluster.machine.outcome.fifos import TurnAccepted
from cluster.machine.outcome.jobs import OneReserved, Reserved
from cluster.machine.outcome.several import Batched


def undo(outcome: Outcome) -> tuple[Command, ...]:
    """Return what takes an outcome back; nothing for most."""
    made = _UNDONE.get(type(outcome))
    return () if made is None else made(outcome)


def _unhear(outcome: TurnAccepted) -> tuple[Command, ...]:
    return (UnhearTurn(outcome.name, outcome.ticket, outcome.token),)


def _return(outcome: Reserved) -> tuple[Command, ...]:
    return tuple(ReturnJob(one.job, one.token) for one in outcome.jobs)


def _return_one(outcome: OneReserved) -> tuple[Command, ...]:
    return (ReturnJob(outcome.reservation.job, outcome.reservation.token),)


def _each(outcome: Batched) -> tuple[Command, ...]:
    return tuple(command for one in outcome.outcomes for command in undo(one))


_UNDONE: Mapping[type[Outcome], Callable[[Any], tuple[Command, ...]]] = {
    TurnAccepted: _unhear,
    Reserved: _return,
    OneReserved: _return_one,
    Batched: _each,
}
