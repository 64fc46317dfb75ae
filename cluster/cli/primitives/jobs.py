"""`coterie jobs`: tubes of jobs, each reserved by one worker at a time.

RULE: a table of verbs, and how bodies of jobs are read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cluster.cli.verbs import (
    LIMIT,
    PREFIX,
    PRIORITY,
    SESSION_IF_ANY,
    TOKEN,
    WAIT,
    Group,
    Live,
    Verb,
    Word,
    option,
    part,
    standard_input,
)

TUBES = Live("/v1/tubes", "tubes", "tube")
STATES = ("ready", "delayed", "reserved", "buried")
_TUBE = part("tube", TUBES)
_JOB = part("job")
_JOBS = part("job", is_many=True)
_STATE = option("state", "Which of them.", place="query", kind=STATES, default="ready")
_DELAY = option("delay", "How long it is not given out.", kind="time")
_COLUMNS = ("job", "tube", "state")


def with_bodies(told: dict[str, Any]) -> dict[str, Any]:
    """The bodies of `put`: arguments, files, or the standard input.

    Raises:
        click.UsageError: none, or from several of these.
    """
    lines, files = told.pop("lines", False), told.pop("files", ())
    bodies: list[str | bytes] = list(told["body"])
    if bodies and files:
        raise click.UsageError("bodies come as arguments or from --file, not both")
    for file in files:
        try:
            bodies.append(Path(file).read_bytes())
        except OSError as error:
            raise click.BadParameter(f"{file}: {error.strerror}", param_hint="--file") from None
    if not bodies or "-" in bodies:
        came = standard_input("a job needs a body")
        # The last line end belongs to the line, not to a job.
        rows = came.splitlines() if lines else [came]
        at = bodies.index("-") if bodies else 0
        bodies[at : at + 1] = rows
    elif lines:
        raise click.UsageError("--lines is about the standard input")
    return {**told, "body": tuple(bodies)}


def with_dead_letter(body: dict[str, Any]) -> dict[str, Any]:
    """`--dead-letter TUBE --after N` as the API has it."""
    tube, after = body.pop("dead_letter", None), body.pop("after", None)
    if (tube is None) != (after is None):
        raise click.UsageError("--dead-letter and --after belong together")
    if tube is not None:
        body["dead_letter"] = {"tube": tube, "after": after}
    return body


def _held(name: str, summary: str, **more: Any) -> Verb:
    """A verb of one reserved job."""
    words = (_JOB, TOKEN, *more.pop("words", ()))
    return Verb(
        name=name,
        summary=summary,
        call=f"POST /v1/jobs/{{job}}/{name}",
        words=words,
        columns=more.pop("columns", _COLUMNS),
        name_of="job",
        **more,
    )


_RESERVE = "set -- $(coterie jobs reserve mail --wait 5s)"

GROUP = Group(
    name="jobs",
    also=("job", "tubes", "tube"),
    summary="Put jobs into tubes, reserve and finish them.",
    more='Who reserves a job has its "ttr" to delete it, else it is given to another; with a '
    "session it goes back when that ends. In a pipe, reserve prints the id of the job, its token "
    "and its body, separated by tabs.",
    verbs=(
        Verb(
            name="put",
            summary="Put jobs into a tube: each BODY is one, else the standard input is.",
            call="POST /v1/tubes/{tube}/jobs",
            words=(
                _TUBE,
                Word(name="body", kind="payload", is_many=True, shown="[BODY]..."),
                Word(
                    name="files",
                    flag="--file",
                    meaning="Read a body from here; may come several times.",
                    is_many=True,
                    shown="FILE",
                ),
                option("lines", "Each line of the standard input is a job.", kind="switch"),
                PRIORITY,
                _DELAY,
                option("ttr", "How long one reservation lasts; without, 60s.", kind="time"),
                Word(
                    name="key",
                    flag="--job-key",
                    meaning="Refused while a job with this key lives in the tube.",
                ),
                option("dead_letter", "Tube it goes to after --after failed reservations."),
                option("after", "So many.", kind="number"),
            ),
            prepare=with_bodies,
            shape=with_dead_letter,
            each="body",
            columns=_COLUMNS,
            name_of="job",
            examples=(
                'JOB=$(coterie jobs put mail "welcome ann" --job-key ann -o name)',
                'coterie jobs put mail "welcome bob" "welcome eve" --delay 1h',
                "seq 3 | coterie jobs put numbers --lines --dead-letter failed --after 5",
            ),
        ),
        Verb(
            name="peek",
            summary="Show the first job of a tube in one state, without reserving it.",
            call="GET /v1/tubes/{tube}/peek",
            words=(_TUBE, _STATE),
            things="job",
            name_of="job",
            yes="job",
            examples=("coterie jobs peek mail --state delayed",),
        ),
        Verb(
            name="reserve",
            summary="Reserve ready jobs of tubes, or wait for one; exit code 1 when none came.",
            call="POST /v1/reserve",
            words=(
                Word(name="tubes", is_required=True, is_many=True, live=TUBES, shown="TUBE..."),
                WAIT,
                option("limit", "At most so many; without, one.", kind="number"),
                SESSION_IF_ANY,
            ),
            things="jobs",
            name_of="job",
            columns=("job", "token", "body", "tube", "ttr_ms", "attempt"),
            yes="jobs",
            examples=(_RESERVE,),
        ),
        _held(
            "touch",
            "Start the time of a reservation anew.",
            columns=("job", "tube", "state", "expires_in_ms"),
            examples=("coterie jobs touch $1 --token $2",),
        ),
        _held(
            "release",
            "Give a reserved job back.",
            words=(PRIORITY, _DELAY),
            examples=("coterie jobs release $1 --token $2",),
        ),
        _held(
            "bury",
            "Set a reserved job aside until somebody kicks it.",
            words=(PRIORITY,),
            examples=(_RESERVE, "coterie jobs bury $1 --token $2"),
        ),
        Verb(
            name="kick",
            summary="Make buried or delayed jobs ready.",
            call="POST /v1/jobs/{job}/kick",
            words=(_JOBS,),
            each="job",
            columns=_COLUMNS,
            name_of="job",
            examples=("coterie jobs kick $1",),
        ),
        Verb(
            name="kick-tube",
            summary="Make buried jobs of a tube ready, or delayed ones where none is buried.",
            call="POST /v1/tubes/{tube}/kick",
            words=(_TUBE, option("bound", "At most so many; without, one.", kind="number")),
            columns=("tube", "kicked"),
            examples=("coterie jobs kick-tube mail --bound 10",),
        ),
        Verb(
            name="show",
            summary="Show a job: its state, its body, what happened to it.",
            call="GET /v1/jobs/{job}",
            words=(_JOB,),
            name_of="job",
            examples=("coterie jobs show $JOB",),
        ),
        Verb(
            name="list",
            summary="List the jobs of a tube in one state, in order.",
            call="GET /v1/tubes/{tube}/jobs",
            words=(
                _TUBE,
                _STATE,
                Word(name="key", flag="--job-key", meaning="The one with this key.", place="query"),
                LIMIT,
            ),
            things="jobs",
            name_of="job",
            columns=("job", "state", "priority", "age_ms", "time_left_ms", "reserves", "body"),
            has_pages=True,
            examples=("coterie jobs list mail --state ready --limit 20",),
        ),
        Verb(
            name="tubes",
            summary="List the tubes in use, with their jobs by state.",
            call="GET /v1/tubes",
            words=(PREFIX, LIMIT),
            things="tubes",
            name_of="tube",
            columns=("tube", "ready", "delayed", "reserved", "buried", "waiting", "paused"),
            has_pages=True,
            examples=("coterie jobs tubes",),
        ),
        Verb(
            name="tube",
            summary="Count the jobs of a tube by state, and who waits for one.",
            call="GET /v1/tubes/{tube}",
            words=(_TUBE,),
            name_of="tube",
            examples=("coterie jobs tube mail",),
        ),
        Verb(
            name="pause",
            summary="Let a tube give nothing out for a time; 0 ends a pause.",
            call="PUT /v1/tubes/{tube}/pause",
            words=(
                _TUBE,
                Word(name="for", kind="time", is_required=True, shown="TIME"),
            ),
            columns=("tube", "paused", "resumes_in_ms"),
            examples=("coterie jobs pause mail 10m", "coterie jobs pause mail 0"),
        ),
        Verb(
            name="delete",
            summary="Say that a job is done, or not wanted: it is gone.",
            call="POST /v1/jobs/{job}/delete",
            words=(_JOB, option("token", "Of the reservation, where there is one.", kind="number")),
            columns=_COLUMNS,
            name_of="job",
            examples=(_RESERVE, "coterie jobs delete $1 --token $2"),
        ),
        Verb(
            name="cancel",
            summary="Cancel jobs that nobody has reserved; exit code 1 when somebody has.",
            call="DELETE /v1/jobs/{job}",
            words=(_JOBS,),
            each="job",
            yes="cancelled",
            columns=("job", "cancelled", "state", "expires_in_ms"),
            name_of="job",
            examples=(
                "LATER=$(coterie jobs put mail soon --delay 1h -o name)",
                "coterie jobs cancel $LATER",
            ),
        ),
        Verb(
            name="cancel-key",
            summary="Cancel the job of a tube that has this key.",
            call="DELETE /v1/tubes/{tube}/jobs",
            words=(_TUBE, Word(name="key", place="query", is_required=True)),
            yes="cancelled",
            columns=("job", "cancelled", "state", "expires_in_ms"),
            name_of="job",
            examples=(
                'coterie jobs put mail "welcome kim" --job-key kim',
                "coterie jobs cancel-key mail kim",
            ),
        ),
    ),
)
