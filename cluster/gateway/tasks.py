"""Tasks over HTTP: pools, work in fair shares, schedules.

RULE: JSON or CBOR to command, state to picture; what a pool does is decided in `machine/tasks/`,
what a schedule means in `node/schedules.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal

import msgspec

from cluster.gateway import durations
from cluster.gateway.paging import named, page
from cluster.gateway.payloads import OptionalPayload, from_bytes, to_optional_bytes
from cluster.gateway.replies import Ms, Problem, Token
from cluster.gateway.replies.kinds import SESSION_GONE
from cluster.gateway.replies.tasks import (
    FinishedTasks,
    LeftPool,
    PausedTask,
    PutCounts,
    RanTask,
    ReleasedTasks,
    RemovedPool,
    RemovedTask,
    WorkGiven,
    pool_not_found,
    task_not_found,
)
from cluster.gateway.requests import (
    AFTER,
    LIMIT,
    PREFIX,
    WAIT,
    Ask,
    Body,
    Duration,
    Name,
    SessionId,
    bad_request,
    check_name,
    check_session,
    length_ms,
    wait_ms,
)
from cluster.gateway.routes import BODY_BYTES_LIMIT, Look, Read, Route, Write, read_query
from cluster.machine.commands.tasks import (
    ALLOW,
    BUFFER,
    SKIP,
    FinishTasks,
    LeavePool,
    NewTask,
    PauseTask,
    PutTasks,
    ReleaseTasks,
    RemovePool,
    RemoveTask,
    RunTask,
    Schedule,
    Work,
)
from cluster.machine.limits import (
    CRON_TEXT_MAX,
    TASK_DATA_BYTES_MAX,
    TASKS_PER_COMMAND_MAX,
    WALL_MS_MAX,
)
from cluster.machine.outcome.tasks import PoolInfo, TaskInfo
from cluster.node import schedules

EVERY_MS_MIN: Final = 1_000
CATCHUP_MS_MIN: Final = 1_000
CATCHUP_DEFAULT: Final = "1m"
JITTER_MS_MAX: Final = 24 * 3_600_000
YEAR_MS: Final = 366 * 24 * 3_600_000

_BYTES_PER_WEIGHT: Final = 256

OverlapWord = Literal["skip", "buffer", "allow"]
TaskState = Literal["held", "free", "scheduled", "paused", "over"]

Cap = Annotated[
    int,
    msgspec.Meta(
        ge=0, le=2**31, description="most tasks of one session; 0: no more than its share"
    ),
]
WallTime = Annotated[
    int | str,
    msgspec.Meta(
        description='a time with its zone, as in "2026-03-01T08:00:00Z", or ms since 1970',
        extra_json_schema={"minimum": 0, "maximum": WALL_MS_MAX},
    ),
]
ScheduleText = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=CRON_TEXT_MAX,
        description='"30s" or "@every 30s" for an interval, else a cron in UTC, as "0 6 * * MON"',
    ),
]
ZoneOrCron = Annotated[str, msgspec.Meta(min_length=1, max_length=CRON_TEXT_MAX)]


class TaskSchedule(Body, frozen=True):
    """When a task is due: `every` so often, or as `cron` says in a `timezone`.

    An interval's slots are multiples since 1970, or follow from `start`. Cron has five fields, or
    six with seconds in front. `overlap` is what a slot does while a run still lives: it is skipped,
    waits for its end (one does), or is run beside it. A slot that comes up later than
    `catchup_window` is missed. A slot is due up to `jitter` later than it says.
    """

    every: Duration | None = None
    start: WallTime | None = None
    cron: ZoneOrCron | None = None
    timezone: ZoneOrCron | None = None
    overlap: OverlapWord = "skip"
    catchup_window: Duration = CATCHUP_DEFAULT
    jitter: Duration = 0
    paused: bool | None = None


class TaskBody(Body, frozen=True):
    """One task to put. Without `schedule` it is to be done once, from now on.

    A schedule may be a text alone: a length of time, or a cron.
    """

    id: Name
    data: OptionalPayload = None
    schedule: TaskSchedule | ScheduleText | None = None


class Put(Body, frozen=True):
    """Add or update tasks. With `replace`, those of the pool that are not named go.

    `cap` and `give_back` belong to the pool; left out, they stay as they are.
    """

    tasks: Annotated[list[TaskBody], msgspec.Meta(max_length=TASKS_PER_COMMAND_MAX)]
    replace: bool = False
    cap: Cap | None = None
    give_back: bool | None = None


class DoWork(Body, frozen=True):
    """Ask for one's share of the pool's tasks.

    `limit`: take no more once so many are held. `wait`: with nothing to do at all, wait for it.
    """

    session: SessionId
    limit: Annotated[int, msgspec.Meta(ge=1, le=2**31)] | None = None
    wait: Duration | None = None


class HeldTask(Body, frozen=True):
    """A task and the token that its grant gave."""

    id: Name
    token: Token


class HandIn(Body, frozen=True):
    """Tasks that the session holds, each under its token."""

    session: SessionId
    tasks: Annotated[list[HeldTask], msgspec.Meta(max_length=TASKS_PER_COMMAND_MAX)]


class Leave(Body, frozen=True):
    """Work in the pool no more."""

    session: SessionId


class RunView(msgspec.Struct, frozen=True):
    """Something to be done; `holder` null: nobody is at it. `slot_ms`: what it is due for."""

    slot_ms: int | None
    holder: str | None
    token: Token | None
    held_for_ms: Ms | None


class ScheduleView(msgspec.Struct, frozen=True):
    """A schedule, with lengths in ms."""

    every_ms: Ms | None
    start_ms: int | None
    cron: str | None
    timezone: str | None
    overlap: OverlapWord
    catchup_window_ms: Ms
    jitter_ms: Ms
    paused: bool


class TaskView(msgspec.Struct, frozen=True):
    """One task. `holder`, `token` and `held_for_ms` are those of its oldest run that is held.

    `next_slot_ms` (since 1970) is null while it is not known yet, and where there is none;
    `next_due_ms` is the same with its jitter. `buffered_slot_ms` waits for the present run to end.
    """

    id: str
    state: TaskState
    data: OptionalPayload
    holder: str | None
    token: Token | None
    held_for_ms: Ms | None
    runs: list[RunView]
    schedule: ScheduleView | None
    next_slot_ms: int | None
    next_due_ms: int | None
    buffered_slot_ms: int | None
    fired: int
    skipped: int
    missed: int


class PoolSession(msgspec.Struct, frozen=True):
    """One who works in the pool: how much it holds, and its fair part."""

    session: str
    held: int
    share: int
    joined_for_ms: Ms
    waiting: bool


class PoolSummary(msgspec.Struct, frozen=True):
    """One pool. `run_count` is what there is to be done, `free_count` what nobody is at."""

    pool: str
    cap: int | None
    give_back: bool
    task_count: int
    run_count: int
    free_count: int
    session_count: int
    share: int


class PoolView(msgspec.Struct, frozen=True, omit_defaults=True):
    """One pool with its sessions in order of joining, and a page of its tasks in order of id."""

    pool: str
    cap: int | None
    give_back: bool
    task_count: int
    run_count: int
    free_count: int
    share: int
    sessions: list[PoolSession]
    tasks: list[TaskView]
    next: str | None = None


class PoolPage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Pools in order of name; `next` goes into `after`."""

    pools: list[PoolSummary]
    next: str | None = None


# Commands.


def put(ask: Ask) -> PutTasks:
    """Make the command that puts tasks."""
    body: Put = ask.body
    seen: set[str] = set()
    tasks = []
    for place, task in enumerate(body.tasks):
        at = f"tasks[{place}]"
        if task.id in seen:
            raise bad_request(
                f"{at}.id", f'"{task.id[:80]}" stands there before; name each task once'
            )
        seen.add(task.id)
        data, is_text = to_optional_bytes(task.data, f"{at}.data", TASK_DATA_BYTES_MAX)
        schedule, paused = None, None
        if isinstance(task.schedule, str):
            schedule = _schedule_text(task.schedule, f"{at}.schedule")
        elif task.schedule is not None:
            schedule = _schedule(task.schedule, f"{at}.schedule")
            paused = task.schedule.paused
        tasks.append(NewTask(check_name(task.id, f"{at}.id"), data, is_text, schedule, paused))
    return PutTasks(_pool(ask), tuple(tasks), body.replace, body.cap, body.give_back)


def remove(ask: Ask) -> RemoveTask:
    """Make the command that takes a task away."""
    return RemoveTask(_pool(ask), _task(ask))


def remove_pool(ask: Ask) -> RemovePool:
    """Make the command that takes a pool away."""
    return RemovePool(_pool(ask))


def work(ask: Ask) -> Work:
    """Make the command that asks for work."""
    body: DoWork = ask.body
    return Work(check_session(body.session), _pool(ask), body.limit, wait_ms(ask))


def finish(ask: Ask) -> FinishTasks:
    """Make the command that says what is done."""
    body: HandIn = ask.body
    return FinishTasks(check_session(body.session), _pool(ask), _held(body))


def release(ask: Ask) -> ReleaseTasks:
    """Make the command that hands tasks back."""
    body: HandIn = ask.body
    return ReleaseTasks(check_session(body.session), _pool(ask), _held(body))


def leave(ask: Ask) -> LeavePool:
    """Make the command that leaves a pool."""
    body: Leave = ask.body
    return LeavePool(check_session(body.session), _pool(ask))


def pause(ask: Ask) -> PauseTask:
    """Make the command that lets a schedule stand still."""
    return PauseTask(_pool(ask), _task(ask), True)


def resume(ask: Ask) -> PauseTask:
    """Make the command that lets a schedule go on."""
    return PauseTask(_pool(ask), _task(ask), False)


def run(ask: Ask) -> RunTask:
    """Make the command that runs a scheduled task now."""
    return RunTask(_pool(ask), _task(ask))


def _pool(ask: Ask) -> str:
    return check_name(ask.path["pool"], "pool")


def _task(ask: Ask) -> str:
    return check_name(ask.path["task"], "task")


def _held(body: HandIn) -> tuple[tuple[str, int | None], ...]:
    return tuple(
        (check_name(task.id, f"tasks[{place}].id"), task.token)
        for place, task in enumerate(body.tasks)
    )


def _schedule_text(text: str, at: str) -> Schedule:
    """Return what the machine keeps of a schedule that is a text alone.

    Raises:
        Problem: it is neither a length of time nor a cron.
    """
    every = text.removeprefix("@every ")
    is_length = re.fullmatch(durations.PATTERN, every) is not None
    body = TaskSchedule(every=every) if is_length else TaskSchedule(cron=text)
    try:
        return _schedule(body, at)
    except Problem as problem:
        # Of its parts the client knows nothing.
        raise bad_request(at, problem.detail.partition(": ")[2]) from None


def _schedule(body: TaskSchedule, at: str) -> Schedule:
    """Return what the machine keeps of a schedule.

    Raises:
        Problem: it makes no sense; named down to its part.
    """
    if (body.every is None) == (body.cron is None):
        raise bad_request(at, "wants either every or cron")
    catchup_ms = length_ms(body.catchup_window, f"{at}.catchup_window", CATCHUP_MS_MIN, YEAR_MS)
    jitter_ms = length_ms(body.jitter, f"{at}.jitter", 0, JITTER_MS_MAX)
    overlap = _OVERLAPS[body.overlap]
    if body.every is not None:
        if body.timezone is not None:
            raise bad_request(f"{at}.timezone", "belongs to cron; an interval knows no zones")
        every_ms = length_ms(body.every, f"{at}.every", EVERY_MS_MIN, YEAR_MS)
        start_ms = 0 if body.start is None else _wall_ms(body.start, f"{at}.start")
        return Schedule(every_ms, start_ms, "", "", overlap, catchup_ms, jitter_ms)
    assert body.cron is not None
    if body.start is not None:
        raise bad_request(f"{at}.start", "belongs to every; a cron has no start")
    timezone = "UTC" if body.timezone is None else body.timezone
    schedule = Schedule(0, 0, body.cron, timezone, overlap, catchup_ms, jitter_ms)
    try:
        schedules.check(schedule)
    except ValueError as error:
        part, _, detail = str(error).partition(": ")
        raise bad_request(f"{at}.{part}", detail) from None
    return schedule


def _wall_ms(value: int | str, field: str) -> int:
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
            ms = (moment - _EPOCH) // timedelta(milliseconds=1)
        except (TypeError, ValueError, OverflowError):
            # A time without a zone cannot be compared: TypeError.
            raise bad_request(
                field, f'"{value[:40]}" is no time with a zone; write e.g. "2026-03-01T08:00:00Z"'
            ) from None
    else:
        ms = value
    if not 0 <= ms <= WALL_MS_MAX:
        raise bad_request(field, "is out of bounds; use a time from 1970 to 9999")
    return ms


# Pictures.


def show(look: Look, ask: Ask) -> PoolView:
    """Show one pool with a page of its tasks.

    Raises:
        Problem: it is not there.
    """
    name, tasks = _pool(ask), look.machine.tasks
    info = tasks.info(name, look.now_ms)
    if info is None:
        raise pool_not_found(name)
    found, following = page(
        lambda after, limit: list(tasks.tasks_of(name, look.now_ms, after=after, limit=limit)),
        after=ask.query["after"],
        limit=ask.query["limit"],
        key=lambda task: task.id,
        weight=_weight,
    )
    sessions = [
        PoolSession(session, held, info.share, joined_for_ms, waiting)
        for session, held, joined_for_ms, waiting in info.workers
    ]
    return PoolView(
        pool=name,
        cap=info.cap or None,
        give_back=info.give_back,
        task_count=info.tasks,
        run_count=info.runs,
        free_count=info.free,
        share=info.share,
        sessions=sessions,
        tasks=[_view(task) for task in found],
        next=following,
    )


def show_all(look: Look, ask: Ask) -> PoolPage:
    """Show a page of pools."""
    found, following = named(
        look.machine.tasks,
        look.now_ms,
        ask.query,
        key=lambda info: info.pool,
        weight=lambda info: 1 + len(info.workers),
    )
    return PoolPage([_summary(info) for info in found], following)


def show_task(look: Look, ask: Ask) -> TaskView:
    """Show one task.

    Raises:
        Problem: it is not there.
    """
    pool, task = _pool(ask), _task(ask)
    info = look.machine.tasks.task_info(pool, task, look.now_ms)
    if info is None:
        if pool not in look.machine.tasks.pools:
            raise pool_not_found(pool)
        raise task_not_found(pool, task)
    return _view(info)


def _weight(info: TaskInfo) -> int:
    return 1 + len(info.runs) + (0 if info.data is None else len(info.data) // _BYTES_PER_WEIGHT)


def _summary(info: PoolInfo) -> PoolSummary:
    return PoolSummary(
        pool=info.pool,
        cap=info.cap or None,
        give_back=info.give_back,
        task_count=info.tasks,
        run_count=info.runs,
        free_count=info.free,
        session_count=len(info.workers),
        share=info.share,
    )


def _view(info: TaskInfo) -> TaskView:
    held = next((run for run in info.runs if run.session is not None), None)
    return TaskView(
        id=info.id,
        state=_state(info),
        data=from_bytes(info.data, info.is_text),
        holder=None if held is None else held.session,
        token=None if held is None else held.token,
        held_for_ms=None if held is None else held.held_for_ms,
        runs=[RunView(*run) for run in info.runs],
        schedule=_schedule_view(info),
        next_slot_ms=info.slot_ms,
        next_due_ms=info.due_ms,
        buffered_slot_ms=info.buffered_ms,
        fired=info.fired,
        skipped=info.skipped,
        missed=info.missed,
    )


def _state(info: TaskInfo) -> TaskState:
    if info.runs:
        return "held" if any(run.session is not None for run in info.runs) else "free"
    if info.paused:
        return "paused"
    return "over" if info.is_over else "scheduled"


def _schedule_view(info: TaskInfo) -> ScheduleView | None:
    schedule = info.schedule
    if schedule is None:
        return None
    return ScheduleView(
        every_ms=schedule.every_ms or None,
        start_ms=schedule.start_ms or None,
        cron=schedule.cron or None,
        timezone=schedule.timezone or None,
        overlap=_OVERLAP_WORDS[schedule.overlap],
        catchup_window_ms=schedule.catchup_ms,
        jitter_ms=schedule.jitter_ms,
        paused=info.paused,
    )


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_OVERLAPS: Final[Mapping[OverlapWord, int]] = {"skip": SKIP, "buffer": BUFFER, "allow": ALLOW}
_OVERLAP_WORDS: Final[Mapping[int, OverlapWord]] = {
    number: word for word, number in _OVERLAPS.items()
}

ROUTES: tuple[Route, ...] = (
    Write(
        method="PUT",
        path="/v1/pools/{pool}/tasks",
        summary="Put tasks into a pool: add new ones, bring known ones up to date.",
        tag="tasks",
        body=Put,
        answer=PutCounts,
        codes=("queue_full",),
        body_bytes_max=BODY_BYTES_LIMIT,
        command=put,
    ),
    Write(
        method="DELETE",
        path="/v1/pools/{pool}/tasks/{task}",
        summary="Take a task out of its pool: whoever is at it loses it, and is told.",
        tag="tasks",
        answer=RemovedTask,
        codes=("pool_not_found", "task_not_found"),
        command=remove,
    ),
    Write(
        method="DELETE",
        path="/v1/pools/{pool}",
        summary="Take a pool away with all its tasks.",
        tag="tasks",
        answer=RemovedPool,
        codes=("pool_not_found",),
        command=remove_pool,
    ),
    Write(
        method="POST",
        path="/v1/pools/{pool}/work",
        summary="Get one's share of a pool's tasks, old and new. A keepalive as well.",
        tag="tasks",
        body=DoWork,
        answer=WorkGiven,
        codes=(*SESSION_GONE, "pool_not_found", "queue_full"),
        query=(WAIT,),
        command=work,
    ),
    Write(
        method="POST",
        path="/v1/pools/{pool}/finish",
        summary="Say which tasks are done, each if `token` is still its grant.",
        tag="tasks",
        body=HandIn,
        answer=FinishedTasks,
        codes=(*SESSION_GONE, "pool_not_found"),
        body_bytes_max=BODY_BYTES_LIMIT,
        command=finish,
    ),
    Write(
        method="POST",
        path="/v1/pools/{pool}/release",
        summary="Hand tasks back undone; they go to the end of the line.",
        tag="tasks",
        body=HandIn,
        answer=ReleasedTasks,
        codes=(*SESSION_GONE, "pool_not_found"),
        body_bytes_max=BODY_BYTES_LIMIT,
        command=release,
    ),
    Write(
        method="POST",
        path="/v1/pools/{pool}/leave",
        summary="Work in a pool no more: what the session holds of it is free.",
        tag="tasks",
        body=Leave,
        answer=LeftPool,
        codes=(*SESSION_GONE, "pool_not_found"),
        command=leave,
    ),
    Write(
        method="POST",
        path="/v1/pools/{pool}/tasks/{task}/pause",
        summary="Let a task's schedule stand still; slots of that time are not made up for.",
        tag="tasks",
        answer=PausedTask,
        codes=("pool_not_found", "task_not_found", "task_not_scheduled"),
        command=pause,
    ),
    Write(
        method="POST",
        path="/v1/pools/{pool}/tasks/{task}/resume",
        summary="Let a task's schedule go on, with the first slot after now.",
        tag="tasks",
        answer=PausedTask,
        codes=("pool_not_found", "task_not_found", "task_not_scheduled"),
        command=resume,
    ),
    Write(
        method="POST",
        path="/v1/pools/{pool}/tasks/{task}/run",
        summary="Run a scheduled task now, as a slot of this moment would.",
        tag="tasks",
        answer=RanTask,
        codes=("pool_not_found", "task_not_found", "task_not_scheduled"),
        command=run,
    ),
    Read(
        method="GET",
        path="/v1/pools/{pool}/tasks/{task}",
        summary="Show a task: who is at it, and when it is due next.",
        tag="tasks",
        answer=TaskView,
        codes=("pool_not_found", "task_not_found"),
        query=read_query(),
        view=show_task,
    ),
    Read(
        method="GET",
        path="/v1/pools/{pool}",
        summary="Show a pool: who works there with which share, and a page of its tasks.",
        tag="tasks",
        answer=PoolView,
        codes=("pool_not_found",),
        query=read_query(AFTER, LIMIT),
        view=show,
    ),
    Read(
        method="GET",
        path="/v1/pools",
        summary="List pools in order of name.",
        tag="tasks",
        answer=PoolPage,
        query=read_query(PREFIX, AFTER, LIMIT),
        view=show_all,
    ),
)
