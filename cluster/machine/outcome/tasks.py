"""Outcomes and pictures of tasks.

RULE: values only; see `base.py`. Numbers 120 to 149.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from cluster.machine.commands.tasks import Schedule
from cluster.machine.outcome.base import Outcome, Refusal


class TasksPut(Outcome, frozen=True, tag=120):
    """What a pool's tasks have become."""

    pool: str
    added: int
    updated: int
    unchanged: int
    removed: int
    total: int


class TaskRemoved(Outcome, frozen=True, tag=121):
    """The task is gone. `holders`: sessions that were at it."""

    pool: str
    task: str
    holders: tuple[str, ...]


class PoolRemoved(Outcome, frozen=True, tag=122):
    """The pool is gone, with so many tasks."""

    pool: str
    removed: int


class Handed(NamedTuple):
    """One task as a worker gets it; `slot_ms` is the wall time that it is due for, if any."""

    id: str
    data: bytes | None
    is_text: bool | None
    token: int
    slot_ms: int | None


class Worked(Outcome, frozen=True, tag=123):
    """All that a session has to do in a pool, in order of grant.

    Attributes:
        share: how many tasks are its fair part.
        given_back: (id, token) of what it held until now and must leave to others.
    """

    pool: str
    session: str
    share: int
    tasks: tuple[Handed, ...]
    given_back: tuple[tuple[str, int], ...]


class TasksFinished(Outcome, frozen=True, tag=124):
    """Which tasks are done; refused: (id, code, current token of the task or None)."""

    pool: str
    finished: tuple[str, ...]
    refused: tuple[tuple[str, str, int | None], ...]


class TasksReleased(Outcome, frozen=True, tag=125):
    """Which tasks were handed back; refused: (id, code, current token of the task or None)."""

    pool: str
    released: tuple[str, ...]
    refused: tuple[tuple[str, str, int | None], ...]


class PoolLeft(Outcome, frozen=True, tag=126):
    """The session works there no more; `freed` tasks went back."""

    pool: str
    freed: int


class TaskPaused(Outcome, frozen=True, tag=127):
    """The schedule stands still now, or goes on."""

    pool: str
    task: str
    paused: bool


class TaskRan(Outcome, frozen=True, tag=128):
    """What became of a run that was asked for: started, buffered or skipped."""

    pool: str
    task: str
    what: str


class SlotSet(Outcome, frozen=True, tag=129):
    """The task is due at its slot, or never again."""


class SlotVoid(Refusal, frozen=True, tag=130):
    """The task is gone or wants another slot by now, or the slot is not after its last one."""


class PoolNotFound(Refusal, frozen=True, tag=131):
    """There is no such pool."""

    pool: str


class TaskNotFound(Refusal, frozen=True, tag=132):
    """There is no such task in the pool."""

    pool: str
    task: str


class TaskNotScheduled(Refusal, frozen=True, tag=133):
    """The task has no schedule that could be paused or resumed."""

    pool: str
    task: str


class RunInfo(NamedTuple):
    """One run of a task: to be had, or held by a session under a token for some time."""

    slot_ms: int | None
    session: str | None
    token: int | None
    held_for_ms: int | None


class TaskInfo(msgspec.Struct, frozen=True):
    """A read-only picture of one task.

    Attributes:
        runs: what there is to do of it, oldest first; more than one only where runs may overlap.
        is_over: its schedule has no slot any more.
        due_ms: wall time of its next slot with jitter; None while it is not known or paused.
        buffered_ms: the slot that waits for the present run to end.
        fired, skipped, missed: slots so far, by what became of them.
    """

    pool: str
    id: str
    data: bytes | None
    is_text: bool | None
    schedule: Schedule | None
    paused: bool
    is_over: bool
    runs: tuple[RunInfo, ...]
    slot_ms: int | None
    due_ms: int | None
    buffered_ms: int | None
    fired: int
    skipped: int
    missed: int


class PoolInfo(msgspec.Struct, frozen=True):
    """A read-only picture of one pool, without its tasks.

    Attributes:
        runs: what there is to do, held or not; `free` of them are not.
        workers: (session, held, since_ms ago, waits) in order of joining.
    """

    pool: str
    cap: int
    give_back: bool
    tasks: int
    runs: int
    free: int
    share: int
    workers: tuple[tuple[str, int, int, bool], ...]


class Wanted(NamedTuple):
    """A question to the leader: when is this task due next, after this wall time?"""

    pool: str
    task: str
    revision: int
    schedule: Schedule
    after_ms: int


OUTCOMES: tuple[type[Outcome], ...] = (
    TasksPut,
    TaskRemoved,
    PoolRemoved,
    Worked,
    TasksFinished,
    TasksReleased,
    PoolLeft,
    TaskPaused,
    TaskRan,
    SlotSet,
    SlotVoid,
    PoolNotFound,
    TaskNotFound,
    TaskNotScheduled,
)
