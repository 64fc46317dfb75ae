"""`coterie tasks`: pools of tasks, shared out fairly among those who work there.

RULE: a table of verbs, and how tasks are read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from cluster.cli.verbs import (
    LIMIT,
    PREFIX,
    SESSION,
    WAIT,
    Group,
    Live,
    Verb,
    Word,
    option,
    part,
    payload,
    standard_input,
)

POOLS = Live("/v1/pools", "pools", "pool")
_POOL = part("pool", POOLS)
_TASK = part("task")
_HELD = Word(name="tasks", is_required=True, is_many=True, shown="TASK=TOKEN...")
_SCHEDULE = (
    option("every", "So often.", kind="time"),
    option("cron", "As cron says, with five fields, or six with seconds in front."),
    option("timezone", 'Of --cron, as "Europe/Berlin"; without, UTC.'),
    option("start", 'First time of --every, as "2027-01-01T08:00:00Z".'),
    option(
        "overlap",
        "What a due time does while the last run lives.",
        kind=("skip", "buffer", "allow"),
    ),
    option("catchup_window", "How late a due time may be and still count.", kind="time"),
    option("jitter", "Up to so much later than it says.", kind="time"),
)


def with_tasks(body: dict[str, Any]) -> dict[str, Any]:
    """Ids, or a file of tasks, as the API has them.

    Raises:
        click.UsageError: none, or both, or a file that cannot be read.
    """
    ids, data, file = body.pop("ids", ()), body.pop("data", None), body.pop("file", None)
    if (file is None) == (not ids):
        raise click.UsageError("give the ids of tasks, or --file with all that they are")
    if file is None:
        tasks: Any = [{"id": each} | ({} if data is None else {"data": data}) for each in ids]
    else:
        tasks = _read(file)
    return {**body, "tasks": tasks}


def _read(file: str) -> list[Any]:
    try:
        text = standard_input("--file -") if file == "-" else Path(file).read_bytes()
        found = json.loads(text)
    except OSError as error:
        raise click.BadParameter(f"{file}: {error.strerror}", param_hint="--file") from None
    except ValueError as error:
        raise click.BadParameter(f"{file}: is no JSON ({error})", param_hint="--file") from None
    tasks = found.get("tasks") if isinstance(found, dict) else found
    if not isinstance(tasks, list):
        raise click.BadParameter(f"{file}: is no list of tasks", param_hint="--file")
    return tasks


def with_schedule(body: dict[str, Any]) -> dict[str, Any]:
    """One task and when it is due.

    Raises:
        click.UsageError: neither `--every` nor `--cron`, or both.
    """
    task: dict[str, Any] = {"id": body.pop("task")}
    if "data" in body:
        task["data"] = payload(body.pop("data"))
    if ("every" in body) == ("cron" in body):
        raise click.UsageError("give --every or --cron, one of the two")
    return {"tasks": [task | {"schedule": body}]}


def handed_in(body: dict[str, Any]) -> dict[str, Any]:
    """`TASK=TOKEN` as the API has it."""
    tasks = []
    for pair in body.pop("tasks"):
        task, _, token = pair.rpartition("=")
        if not task or not token.isdecimal():
            raise click.BadParameter(f'"{pair}" is no TASK=TOKEN', param_hint="TASK=TOKEN")
        tasks.append({"id": task, "token": int(token)})
    return {**body, "tasks": tasks}


def outcome(field: str) -> Any:
    """Each task that was handed in, and what became of it."""

    def view(answer: dict[str, Any]) -> list[dict[str, Any]]:
        taken = [{"id": task, "outcome": field} for task in answer[field]]
        return taken + [
            {"outcome": "refused", **(each if isinstance(each, dict) else {"id": each})}
            for each in answer["refused"]
        ]

    return view


def _all_taken(answer: dict[str, Any]) -> bool:
    return not answer["refused"]


_WORK = "set -- $(coterie tasks work reports)"

GROUP = Group(
    name="tasks",
    also=("task", "pools", "pool"),
    summary="Put tasks into pools, share them out, run them on a schedule.",
    more="A task is done once, or on a schedule; whoever works in a pool gets a fair share of what "
    "is to be done, and loses it when its session ends.",
    first=("export COTERIE_SESSION=$(coterie sessions open --ttl 10m -o name)",),
    verbs=(
        Verb(
            name="put",
            summary="Put tasks into a pool, to be done once; or all that a file says.",
            call="PUT /v1/pools/{pool}/tasks",
            words=(
                _POOL,
                Word(name="ids", is_many=True, shown="[TASK]..."),
                option("data", "What whoever does them is told.", kind="payload"),
                option("file", "JSON list of tasks as the API has them; - is standard input."),
                option("replace", "Tasks that are not named go.", kind="switch"),
                option("cap", "Most tasks of one session; 0: its share.", kind="number"),
                option("give_back", "Take back what is above one's share.", kind="switch"),
            ),
            shape=with_tasks,
            columns=("pool", "added", "updated", "unchanged", "removed", "total"),
            name_of="pool",
            examples=(
                "coterie tasks put reports import-7 import-8 --data s3://in",
                'echo \'[{"id": "weekly", "schedule": {"cron": "0 6 * * 1"}}]\' > weekly.json',
                "coterie tasks put reports --file weekly.json",
            ),
        ),
        Verb(
            name="schedule",
            summary="Put one task that is due again and again.",
            call="PUT /v1/pools/{pool}/tasks",
            words=(
                _POOL,
                Word(name="task", is_required=True),
                option("data", "What whoever does it is told.", kind="payload"),
                *_SCHEDULE,
            ),
            shape=with_schedule,
            columns=("pool", "added", "updated", "unchanged", "removed", "total"),
            name_of="pool",
            examples=(
                'coterie tasks schedule reports nightly --cron "30 2 * * *" --timezone Asia/Tokyo',
                "coterie tasks schedule reports beat --every 30s --overlap skip",
            ),
        ),
        Verb(
            name="work",
            summary="Get one's share of a pool's tasks, old and new. Renews the session as well.",
            call="POST /v1/pools/{pool}/work",
            words=(
                _POOL,
                SESSION,
                option("limit", "Take no more once so many are held.", kind="number"),
                WAIT,
            ),
            things="tasks",
            name_of="id",
            columns=("id", "token", "data", "slot_ms"),
            examples=(_WORK,),
        ),
        Verb(
            name="finish",
            summary="Say which tasks are done; exit code 1 when one was another's by then.",
            call="POST /v1/pools/{pool}/finish",
            words=(_POOL, _HELD, SESSION),
            shape=handed_in,
            view=outcome("finished"),
            yes=_all_taken,
            name_of="id",
            columns=("id", "outcome"),
            examples=("coterie tasks finish reports $1=$2",),
        ),
        Verb(
            name="release",
            summary="Hand tasks back undone; they go to the end of the line.",
            call="POST /v1/pools/{pool}/release",
            words=(_POOL, _HELD, SESSION),
            shape=handed_in,
            view=outcome("released"),
            yes=_all_taken,
            name_of="id",
            columns=("id", "outcome"),
            examples=(_WORK, "coterie tasks release reports $1=$2"),
        ),
        Verb(
            name="leave",
            summary="Work in a pool no more: what the session holds of it is free.",
            call="POST /v1/pools/{pool}/leave",
            words=(_POOL, SESSION),
            columns=("left", "freed"),
            examples=("coterie tasks leave reports",),
        ),
        Verb(
            name="pause",
            summary="Let a task's schedule stand still.",
            call="POST /v1/pools/{pool}/tasks/{task}/pause",
            words=(_POOL, _TASK),
            columns=("paused",),
            examples=("coterie tasks pause reports weekly",),
        ),
        Verb(
            name="resume",
            summary="Let a task's schedule go on, with the first due time after now.",
            call="POST /v1/pools/{pool}/tasks/{task}/resume",
            words=(_POOL, _TASK),
            columns=("paused",),
            examples=("coterie tasks resume reports weekly",),
        ),
        Verb(
            name="run",
            summary="Run a scheduled task now, besides its schedule.",
            call="POST /v1/pools/{pool}/tasks/{task}/run",
            words=(_POOL, _TASK),
            columns=("run",),
            examples=("coterie tasks run reports weekly",),
        ),
        Verb(
            name="task",
            summary="Show a task: who is at it, and when it is due next.",
            call="GET /v1/pools/{pool}/tasks/{task}",
            words=(_POOL, _TASK),
            name_of="id",
            examples=("coterie tasks task reports weekly",),
        ),
        Verb(
            name="show",
            summary="Show a pool: who works there with which share, and its tasks.",
            call="GET /v1/pools/{pool}",
            words=(_POOL, LIMIT),
            name_of="pool",
            examples=("coterie tasks show reports --limit 20",),
        ),
        Verb(
            name="list",
            summary="List the pools.",
            call="GET /v1/pools",
            words=(PREFIX, LIMIT),
            things="pools",
            name_of="pool",
            columns=("pool", "task_count", "run_count", "free_count", "session_count", "share"),
            has_pages=True,
            examples=("coterie tasks list",),
        ),
        Verb(
            name="remove",
            summary="Take a task out of its pool: whoever is at it loses it, and is told.",
            call="DELETE /v1/pools/{pool}/tasks/{task}",
            words=(_POOL, _TASK),
            columns=("removed", "holders"),
            examples=("coterie tasks remove reports weekly",),
        ),
        Verb(
            name="delete",
            summary="Take a pool away with all its tasks.",
            call="DELETE /v1/pools/{pool}",
            words=(_POOL,),
            columns=("removed", "tasks"),
            examples=("coterie tasks delete reports",),
        ),
    ),
)
