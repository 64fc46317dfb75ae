"""Commands of tasks: pools of work that living sessions share.

RULE: values only; see `base.py`. Numbers 120 to 149.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, NamedTuple

import msgspec

from cluster.machine import limits
from cluster.machine.commands.base import Command, Count, LengthMs, Name, SessionId

TaskData = Annotated[bytes, msgspec.Meta(max_length=limits.TASK_DATA_BYTES_MAX)]
WallMs = Annotated[int, msgspec.Meta(ge=0, le=limits.WALL_MS_MAX)]
"""Milliseconds since 1970."""

CronText = Annotated[str, msgspec.Meta(max_length=limits.CRON_TEXT_MAX)]
Tokened = Annotated[
    tuple[tuple[Name, Count | None], ...], msgspec.Meta(max_length=limits.TASKS_PER_COMMAND_MAX)
]
"""Tasks by id, each with the token of its grant; None: whoever holds it."""


SKIP, BUFFER, ALLOW = range(3)
"""What a slot does while a run of the same task lives: nothing, wait for its end, run beside it."""

Overlap = Annotated[int, msgspec.Meta(ge=SKIP, le=ALLOW)]


class Schedule(NamedTuple):
    """When a task is due: every so often, or as cron says. Only nodes know what the texts mean.

    Attributes:
        every_ms: 0 for cron.
        start_ms: an interval's first slot; the others follow from it. 0: multiples since 1970.
        cron: five fields, or six with seconds in front; "" for an interval.
        timezone: of the cron's fields, as in "Europe/Berlin".
        overlap: what a slot does while a run of the same task lives.
        catchup_ms: a slot that is later than this is missed, not run.
        jitter_ms: a slot is due up to so much later.
    """

    every_ms: LengthMs
    start_ms: WallMs
    cron: CronText
    timezone: CronText
    overlap: Overlap
    catchup_ms: LengthMs
    jitter_ms: LengthMs


class NewTask(NamedTuple):
    """One task to put. `data`: what its worker needs; `is_text`: it came as text; None:
    as JSON.

    `paused`: whether its schedule stands still; None leaves that as it is.
    """

    id: Name
    data: TaskData | None = None
    is_text: bool | None = True
    schedule: Schedule | None = None
    paused: bool | None = None


NewTasks = Annotated[tuple[NewTask, ...], msgspec.Meta(max_length=limits.TASKS_PER_COMMAND_MAX)]


class PutTasks(Command, frozen=True, tag=120):
    """Add tasks to a pool, or bring them up to date; a pool that is not there is made.

    Attributes:
        replace: tasks of the pool that are not named go.
        cap: how many tasks one session gets at most; 0: as many as its share, None: as before.
        give_back: whether a session over its share hands the surplus back; None: as before.
    """

    texts: ClassVar[tuple[str, ...]] = ("pool",)

    pool: Name
    tasks: NewTasks
    replace: bool = False
    cap: Count | None = None
    give_back: bool | None = None


class RemoveTask(Command, frozen=True, tag=121):
    """Take a task out of its pool, whoever holds it."""

    texts: ClassVar[tuple[str, ...]] = ("pool", "task")

    pool: Name
    task: Name


class RemovePool(Command, frozen=True, tag=122):
    """Take a pool away with all that is in it."""

    texts: ClassVar[tuple[str, ...]] = ("pool",)

    pool: Name


class Work(Command, frozen=True, tag=123):
    """Ask for one's share of a pool's tasks. A keepalive as well; joins the pool.

    Attributes:
        limit: take no more as long as it holds so many; None: as many as its share, 0: only tell
            what it holds (and join, so that it counts for everybody's share).
        wait_ms: if there is nothing to do at all, wait for something at most that long.
    """

    texts: ClassVar[tuple[str, ...]] = ("pool",)

    session: SessionId
    pool: Name
    limit: Annotated[int, msgspec.Meta(ge=0, le=2**62)] | None = None
    wait_ms: LengthMs = 0


class FinishTasks(Command, frozen=True, tag=124):
    """Tasks are done. `session`: who says so; None, with tokens of None: it does not matter who."""

    texts: ClassVar[tuple[str, ...]] = ("pool",)

    session: SessionId | None
    pool: Name
    tasks: Tokened


class ReleaseTasks(Command, frozen=True, tag=125):
    """Hand tasks back undone; they go to the end of the pool's line."""

    texts: ClassVar[tuple[str, ...]] = ("pool",)

    session: SessionId
    pool: Name
    tasks: Tokened


class LeavePool(Command, frozen=True, tag=126):
    """Work in this pool no more: what the session holds of it is free."""

    texts: ClassVar[tuple[str, ...]] = ("pool",)

    session: SessionId
    pool: Name


class PauseTask(Command, frozen=True, tag=127):
    """Let a schedule stand still, or go on."""

    texts: ClassVar[tuple[str, ...]] = ("pool", "task")

    pool: Name
    task: Name
    paused: bool


class RunTask(Command, frozen=True, tag=128):
    """Make a scheduled task runnable now, as a slot would."""

    texts: ClassVar[tuple[str, ...]] = ("pool", "task")

    pool: Name
    task: Name


class SetSlot(Command, frozen=True, tag=129):
    """A leader has worked out when a task is due next.

    Attributes:
        revision: of the question; any other answer than the first to the latest one is void.
        slot_ms: wall time; None: never again.
        jitter_ms: how much later it is due.
        missed: slots before this one that are too late to be run.
    """

    texts: ClassVar[tuple[str, ...]] = ("pool", "task")

    pool: Name
    task: Name
    revision: Count
    slot_ms: WallMs | None
    jitter_ms: LengthMs = 0
    missed: Count = 0


COMMANDS: tuple[type[Command], ...] = (
    PutTasks,
    RemoveTask,
    RemovePool,
    Work,
    FinishTasks,
    ReleaseTasks,
    LeavePool,
    PauseTask,
    RunTask,
    SetSlot,
)
