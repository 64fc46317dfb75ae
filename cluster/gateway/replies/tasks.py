"""Answers about tasks.

RULE: outcome to answer or problem, nothing else; see `base.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from cluster.gateway.replies.base import Answer, Problem, Reply, Token, never
from cluster.gateway.replies.payloads import OptionalPayload, from_bytes
from cluster.machine.outcome import Outcome
from cluster.machine.outcome.tasks import (
    PoolLeft,
    PoolNotFound,
    PoolRemoved,
    SlotSet,
    SlotVoid,
    TaskNotFound,
    TaskNotScheduled,
    TaskPaused,
    TaskRan,
    TaskRemoved,
    TasksFinished,
    TasksPut,
    TasksReleased,
    Worked,
)

Started = Literal["started", "buffered", "skipped"]


class PutCounts(msgspec.Struct, frozen=True):
    """What the tasks of the pool have become; `total` is how many it has now."""

    pool: str
    added: int
    updated: int
    unchanged: int
    removed: int
    total: int


class RemovedTask(msgspec.Struct, frozen=True):
    """The task is gone; `holders` were at it and have lost it."""

    holders: list[str]
    removed: bool = True


class RemovedPool(msgspec.Struct, frozen=True):
    """The pool is gone with so many tasks."""

    tasks: int
    removed: bool = True


class WorkTask(msgspec.Struct, frozen=True):
    """One task to be done. `slot_ms` (since 1970) is the slot it is due for, if it has any."""

    id: str
    data: OptionalPayload
    token: Token
    slot_ms: int | None


class TaskToken(msgspec.Struct, frozen=True):
    """A task and the token under which it was held."""

    id: str
    token: Token


class WorkGiven(msgspec.Struct, frozen=True):
    """All that the session has to do in the pool, in order of grant.

    `share` is its fair part. What stands in `given_back` it held until now: others may have it
    from here on, so stop.
    """

    pool: str
    session: str
    share: int
    tasks: list[WorkTask]
    given_back: list[TaskToken]


class RefusedTask(msgspec.Struct, frozen=True):
    """Why one task was refused; `current_token` is the newest grant of it, if there is any."""

    id: str
    code: str
    current_token: Token | None


class FinishedTasks(msgspec.Struct, frozen=True):
    """Which tasks are done, and which were refused."""

    finished: list[str]
    refused: list[RefusedTask]


class ReleasedTasks(msgspec.Struct, frozen=True):
    """Which tasks were handed back, and which were refused."""

    released: list[str]
    refused: list[RefusedTask]


class LeftPool(msgspec.Struct, frozen=True):
    """The session works there no more; `freed` tasks went back."""

    freed: int
    left: bool = True


class PausedTask(msgspec.Struct, frozen=True):
    """Whether the schedule stands still now."""

    paused: bool


class RanTask(msgspec.Struct, frozen=True):
    """What became of the run: started, buffered until the present one ends, or skipped."""

    run: Started


class PoolReason(msgspec.Struct, frozen=True):
    """The pool that is not there."""

    pool: str


class TaskReason(msgspec.Struct, frozen=True):
    """The task that is meant."""

    pool: str
    task: str


def pool_not_found(pool: str) -> Problem:
    """Nobody has put tasks into it."""
    detail = f'pool "{pool}" is unknown; make it with PUT /v1/pools/{{pool}}/tasks'
    return Problem("pool_not_found", detail, {"pool": pool})


def task_not_found(pool: str, task: str) -> Problem:
    """It was never put, or is done."""
    detail = f'task "{task}" is not in pool "{pool}": it was never put there, or is done'
    return Problem("task_not_found", detail, {"pool": pool, "task": task})


def _put(outcome: TasksPut) -> Answer:
    return Answer(
        200,
        PutCounts(
            outcome.pool,
            outcome.added,
            outcome.updated,
            outcome.unchanged,
            outcome.removed,
            outcome.total,
        ),
    )


def _removed(outcome: TaskRemoved) -> Answer:
    return Answer(200, RemovedTask(list(outcome.holders)))


def _pool_removed(outcome: PoolRemoved) -> Answer:
    return Answer(200, RemovedPool(outcome.removed))


def _worked(outcome: Worked) -> Answer:
    tasks = [
        WorkTask(task.id, from_bytes(task.data, task.is_text), task.token, task.slot_ms)
        for task in outcome.tasks
    ]
    given_back = [TaskToken(id, token) for id, token in outcome.given_back]
    body = WorkGiven(outcome.pool, outcome.session, outcome.share, tasks, given_back)
    return Answer(200, body)


def _finished(outcome: TasksFinished) -> Answer:
    refused = [RefusedTask(*one) for one in outcome.refused]
    return Answer(200, FinishedTasks(list(outcome.finished), refused))


def _released(outcome: TasksReleased) -> Answer:
    refused = [RefusedTask(*one) for one in outcome.refused]
    return Answer(200, ReleasedTasks(list(outcome.released), refused))


def _left(outcome: PoolLeft) -> Answer:
    return Answer(200, LeftPool(outcome.freed))


def _paused(outcome: TaskPaused) -> Answer:
    return Answer(200, PausedTask(outcome.paused))


def _ran(outcome: TaskRan) -> Answer:
    return Answer(200, RanTask(_STARTED[outcome.what]))


def _pool_not_found(outcome: PoolNotFound) -> Answer:
    raise pool_not_found(outcome.pool)


def _task_not_found(outcome: TaskNotFound) -> Answer:
    raise task_not_found(outcome.pool, outcome.task)


def _not_scheduled(outcome: TaskNotScheduled) -> Answer:
    raise Problem(
        "task_not_scheduled",
        f'task "{outcome.task}" of pool "{outcome.pool}" has no schedule: it is to be had until '
        "it is finished; put it with a schedule first",
        {"pool": outcome.pool, "task": outcome.task},
    )


_STARTED: Final[Mapping[str, Started]] = {
    "started": "started",
    "buffered": "buffered",
    "skipped": "skipped",
}

REASONS: Final[Mapping[str, type[msgspec.Struct]]] = {
    "pool_not_found": PoolReason,
    "task_not_found": TaskReason,
    "task_not_scheduled": TaskReason,
}

REPLIES: Final[Mapping[type[Outcome], Reply]] = {
    TasksPut: _put,
    TaskRemoved: _removed,
    PoolRemoved: _pool_removed,
    Worked: _worked,
    TasksFinished: _finished,
    TasksReleased: _released,
    PoolLeft: _left,
    TaskPaused: _paused,
    TaskRan: _ran,
    SlotSet: never,
    SlotVoid: never,
    PoolNotFound: _pool_not_found,
    TaskNotFound: _task_not_found,
    TaskNotScheduled: _not_scheduled,
}
