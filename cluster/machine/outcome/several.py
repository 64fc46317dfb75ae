"""Outcomes of several commands in one entry.

RULE: values only; see `base.py`. Numbers 150 to 159.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from cluster.machine.outcome import (
    base,
    fifos,
    jobs,
    locks,
    rooms,
    semaphores,
    sessions,
    tasks,
    tickets,
)
from cluster.machine.outcome.base import Outcome, Queued, Refusal, Void

if TYPE_CHECKING:
    Single = Outcome
else:
    Single = reduce(
        or_,
        (
            outcome
            for module in (
                base,
                sessions,
                locks,
                semaphores,
                tickets,
                fifos,
                rooms,
                jobs,
                tasks,
            )
            for outcome in module.OUTCOMES
            # What one command of a batch is never told.
            if outcome not in {Queued, Void}
        ),
    )


class Batched(Outcome, frozen=True, tag=150):
    """The batch was carried out; what each command was told, in order."""

    outcomes: tuple[Single, ...]


class BatchRefused(Refusal, frozen=True, tag=151):
    """One command of an all-or-nothing batch would be refused, so none was carried out.

    Attributes:
        at: which one, counted from 0.
        refusal: what it would be told.
    """

    at: int
    refusal: Single


class BatchUnfit(Refusal, frozen=True, tag=152):
    """The commands cannot be carried out as all or nothing.

    Attributes:
        at: which one is in the way, counted from 0.
        other: an earlier one that touches the same; None where it may stand in no such batch.
    """

    at: int
    other: int | None


OUTCOMES: tuple[type[Outcome], ...] = (Batched, BatchRefused, BatchUnfit)
