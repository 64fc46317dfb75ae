"""Answers about several commands in one entry.

RULE: outcome to answer or problem, nothing else; see `base.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

import msgspec

from cluster.gateway.replies.base import Answer, Problem, Reply
from cluster.machine.outcome import Outcome
from cluster.machine.outcome.several import Batched, BatchRefused, BatchUnfit

Whatever = Annotated[Any, msgspec.Meta(description="as the call alone would be answered")]


class Result(msgspec.Struct, frozen=True):
    """What one command was told: the status and body it would have got alone."""

    status: int
    body: Whatever


class BatchDone(msgspec.Struct, frozen=True):
    """The batch was carried out. `answers` are in the order of the commands."""

    answers: list[Result]


class BatchRefusedReason(msgspec.Struct, frozen=True):
    """`at`: which command would be refused, from 0. `refusal`: the problem it would have got."""

    at: int
    refusal: dict[str, Whatever]


def replies(answer_of: Callable[[Outcome], Answer]) -> Mapping[type[Outcome], Reply]:
    """Make the table, given what answers each single outcome."""

    def batched(outcome: Batched) -> Answer:
        return Answer(200, BatchDone([_result(answer_of, single) for single in outcome.outcomes]))

    def refused(outcome: BatchRefused) -> Answer:
        inner = _result(answer_of, outcome.refusal)
        raise Problem(
            "batch_refused",
            f"commands[{outcome.at}] would be refused, so none was carried out: "
            f"{inner.body['detail']}",
            {"at": outcome.at, "refusal": inner.body},
        )

    return {Batched: batched, BatchRefused: refused, BatchUnfit: _unfit}


def _unfit(outcome: BatchUnfit) -> Answer:
    field = f"commands[{outcome.at}]"
    if outcome.other is None:
        detail = "may not stand in an atomic batch; leave `atomic` out, or send it alone"
    else:
        detail = (
            f"touches the same as commands[{outcome.other}]; in an atomic batch each thing comes "
            "once"
        )
    raise Problem("bad_request", f"{field}: {detail}", {"field": field})


def _result(answer_of: Callable[[Outcome], Answer], outcome: Outcome) -> Result:
    try:
        answer = answer_of(outcome)
    except Problem as problem:
        return Result(problem.status, problem.document())
    return Result(answer.status, answer.body)


REASONS: Final[Mapping[str, type[msgspec.Struct]]] = {"batch_refused": BatchRefusedReason}
