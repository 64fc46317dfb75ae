"""Jobs over HTTP: put, reserve, delete, release, bury, touch, kick, cancel, pause, look.

RULE: JSON or CBOR to command, state to picture; what a job does is decided in `machine/jobs/`.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from cluster.gateway.paging import page
from cluster.gateway.payloads import JSON_PER_BYTE_MAX, Payload, from_bytes, to_bytes
from cluster.gateway.replies import Ms, Token
from cluster.gateway.replies.jobs import (
    CancelledJob,
    DeletedJob,
    JobId,
    JobState,
    KickedJob,
    KickedTube,
    MovedJob,
    PausedTube,
    PutJobAnswer,
    ReservedJob,
    ReservedJobs,
    TouchedJob,
    job_not_found,
    state_of,
)
from cluster.gateway.replies.kinds import SESSION_GONE
from cluster.gateway.requests import (
    AFTER,
    LIMIT,
    NAME_BYTES_MAX,
    NAME_SCHEMA,
    PREFIX,
    WAIT,
    Ask,
    Body,
    Duration,
    Name,
    Priority,
    Query,
    SessionId,
    bad_request,
    check_name,
    check_session,
    length_ms,
    wait_ms,
)
from cluster.gateway.routes import Look, Read, Route, Write, read_query
from cluster.machine.commands.jobs import (
    BuryJob,
    CancelJob,
    CancelKey,
    DeadLetter,
    DeleteJob,
    KickJob,
    KickTube,
    PauseTube,
    PutJob,
    ReleaseJob,
    ReserveJob,
    ReserveJobs,
    TouchJob,
)
from cluster.machine.jobs.pictures import JobPictures
from cluster.machine.jobs.tubes import STATES
from cluster.machine.outcome.jobs import JobInfo, TubeInfo

BODY_BYTES_MAX: Final = 64 * 1024
RESERVE_MAX: Final = 1_000
TUBES_MAX: Final = 100
KICK_MAX: Final = 10_000
LENGTH_MS_MAX: Final = 3_660 * 86_400_000
TTR: Final = "60s"
TTR_MS_MIN: Final = 1_000
JOB_ID_DIGITS_MAX: Final = 19
JOBS_WEIGH_BYTES: Final = 1_024

HELD = ("job_not_found", "not_reserved", "stale_token")

Length = Annotated[
    Duration,
    msgspec.Meta(extra_json_schema={"minimum": 0, "maximum": LENGTH_MS_MAX, "examples": ["5m"]}),
]


class DeadLetterBody(Body, frozen=True):
    """Where the job goes after so many reservations that failed, with its history.

    A reservation fails when it runs out; with `count_releases` also when the job is released.
    """

    tube: Name
    after: Annotated[int, msgspec.Meta(ge=1, le=2**32)]
    count_releases: bool = False


class Put(Body, frozen=True):
    """Put a job into the tube.

    `priority`: smaller is reserved first, equal ones in order of their ids. `ttr`: how long one
    reservation lasts, at least 1s (0 means 1s). `key`: while a job with it lives in the tube, no
    other is taken.
    """

    body: Payload
    priority: Priority = 0
    delay: Length = 0
    ttr: Length = TTR
    key: Name | None = None
    dead_letter: DeadLetterBody | None = None


class Reserve(Body, frozen=True):
    """Reserve up to `limit` jobs, waiting for the first one at most `wait`.

    With a session, the jobs go back when it ends.
    """

    wait: Duration | None = None
    session: SessionId | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=RESERVE_MAX)] = 1


class ReserveFrom(Body, frozen=True):
    """The same over several tubes: the first by priority and id over all of them."""

    tubes: Annotated[list[Name], msgspec.Meta(min_length=1, max_length=TUBES_MAX)]
    wait: Duration | None = None
    session: SessionId | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=RESERVE_MAX)] = 1


class ReserveThis(Body, frozen=True):
    """Reserve this very job. With a session, it goes back when that ends."""

    session: SessionId | None = None


class Delete(Body, frozen=True):
    """The job is done. Its `token` where it is reserved, none where nobody has it."""

    token: Token | None = None


class Release(Body, frozen=True):
    """Give the job back; without a `priority` it keeps its own."""

    token: Token
    priority: Priority | None = None
    delay: Length = 0


class Bury(Body, frozen=True):
    """Set the job aside until it is kicked; without a `priority` it keeps its own."""

    token: Token
    priority: Priority | None = None


class Touch(Body, frozen=True):
    """Start the reservation's time anew."""

    token: Token


class Kick(Body, frozen=True):
    """Make the job ready. `token` may be sent as to the others; nobody has what can be kicked."""

    token: Token | None = None


class KickMany(Body, frozen=True):
    """Make up to `bound` jobs ready: buried ones if there are any, else delayed ones."""

    bound: Annotated[int, msgspec.Meta(ge=1, le=KICK_MAX)] = 1


class PauseFor(Body, frozen=True):
    """Give nothing out for so long; 0 ends a pause."""

    duration: Length = msgspec.field(name="for")


class DeadLetterView(msgspec.Struct, frozen=True):
    """Where the job goes after so many reservations that failed."""

    tube: str
    after: int
    count_releases: bool


class JobView(msgspec.Struct, frozen=True):
    """One live job.

    `time_left_ms`: until a delayed one is ready or a reservation ends, else 0. Then how often each
    thing happened to it. `came_from`: its tube before it failed too often. The last three are of
    its reservation; `session` is null for a worker without one.
    """

    job: JobId
    tube: str
    state: JobState
    body: Payload
    key: str | None
    priority: int
    age_ms: Ms
    delay_ms: Ms
    ttr_ms: Ms
    time_left_ms: Ms
    reserves: int
    timeouts: int
    releases: int
    buries: int
    kicks: int
    came_from: str | None
    dead_letter: DeadLetterView | None
    token: Token | None
    session: str | None
    reserved_for_ms: Ms | None


class Peeked(msgspec.Struct, frozen=True):
    """The first job of the tube in that state; null where there is none."""

    job: JobView | None


class JobPage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Jobs of a tube in one state, in order; `next` goes into `after`."""

    jobs: list[JobView]
    next: str | None = None


class TubeView(msgspec.Struct, frozen=True):
    """One tube; one that nobody uses shows zeros and is forgotten, with its counters.

    `urgent`: ready jobs of a priority below 1024. `waiting`: reservers in its queue, the first of
    them for `oldest_wait_ms`. `total_jobs`, `deletes`, `pauses`: since it came to be.
    """

    tube: str
    ready: int
    delayed: int
    reserved: int
    buried: int
    urgent: int
    waiting: int
    total_jobs: int
    deletes: int
    pauses: int
    paused: bool
    paused_for_ms: Ms
    resumes_in_ms: Ms
    oldest_wait_ms: Ms | None


class JobTotalsView(msgspec.Struct, frozen=True):
    """Sums over all tubes; `put` and `timeouts` since the cluster was made."""

    jobs: int
    bytes: int
    tubes: int
    waiting: int
    ready: int
    delayed: int
    reserved: int
    buried: int
    urgent: int
    put: int
    timeouts: int


class TubePage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tubes in use, in order of name, and sums over all there are; `next` goes into `after`."""

    tubes: list[TubeView]
    totals: JobTotalsView
    next: str | None = None


# Commands.


def put(ask: Ask) -> PutJob:
    """Make the command of a put."""
    body: Put = ask.body
    tube = _tube(ask)
    data, is_text = to_bytes(body.body, "body", BODY_BYTES_MAX)
    letter = body.dead_letter
    if letter is not None and check_name(letter.tube, "dead_letter.tube") == tube:
        raise bad_request("dead_letter.tube", "is the tube of the job; name another one")
    return PutJob(
        tube=tube,
        body=data,
        is_text=is_text,
        priority=body.priority,
        delay_ms=length_ms(body.delay, "delay", 0, LENGTH_MS_MAX),
        ttr_ms=_ttr_ms(body.ttr),
        key=None if body.key is None else check_name(body.key, "key"),
        dead_letter=(
            None if letter is None else DeadLetter(letter.tube, letter.after, letter.count_releases)
        ),
    )


def reserve(ask: Ask) -> ReserveJobs:
    """Make the command of a reserve out of one tube."""
    return _reserve(ask, (_tube(ask),))


def reserve_from(ask: Ask) -> ReserveJobs:
    """Make the command of a reserve out of several tubes."""
    names = dict.fromkeys(check_name(name, "tubes") for name in ask.body.tubes)
    return _reserve(ask, tuple(names))


def reserve_this(ask: Ask) -> ReserveJob:
    """Make the command that reserves one job."""
    return ReserveJob(job=job_id(ask), session=_session(ask.body.session))


def delete(ask: Ask) -> DeleteJob:
    """Make the command of a delete."""
    return DeleteJob(job=job_id(ask), token=ask.body.token)


def release(ask: Ask) -> ReleaseJob:
    """Make the command of a release."""
    body: Release = ask.body
    return ReleaseJob(
        job=job_id(ask),
        token=body.token,
        priority=body.priority,
        delay_ms=length_ms(body.delay, "delay", 0, LENGTH_MS_MAX),
    )


def bury(ask: Ask) -> BuryJob:
    """Make the command of a bury."""
    body: Bury = ask.body
    return BuryJob(job=job_id(ask), token=body.token, priority=body.priority)


def touch(ask: Ask) -> TouchJob:
    """Make the command of a touch."""
    return TouchJob(job=job_id(ask), token=ask.body.token)


def kick(ask: Ask) -> KickJob:
    """Make the command that kicks one job."""
    return KickJob(job=job_id(ask))


def kick_tube(ask: Ask) -> KickTube:
    """Make the command that kicks many jobs."""
    return KickTube(tube=_tube(ask), bound=ask.body.bound)


def cancel(ask: Ask) -> CancelJob:
    """Make the command of a cancel."""
    return CancelJob(job=job_id(ask))


def cancel_key(ask: Ask) -> CancelKey:
    """Make the command of a cancel by key.

    Raises:
        Problem: no key is given.
    """
    key = ask.query["key"]
    if key is None:
        raise bad_request("key", "is missing; say which job to cancel: ?key=…")
    return CancelKey(tube=_tube(ask), key=check_name(key, "key"))


def pause(ask: Ask) -> PauseTube:
    """Make the command of a pause."""
    body: PauseFor = ask.body
    return PauseTube(tube=_tube(ask), for_ms=length_ms(body.duration, "for", 0, LENGTH_MS_MAX))


# Looking.


def peek(look: Look, ask: Ask) -> Peeked:
    """Show the first job of a tube in one state."""
    found = _pictures(look).jobs(_tube(ask), ask.query["state"], look.now_ms)
    return Peeked(_job_view(found[0]) if found else None)


def show_jobs(look: Look, ask: Ask) -> JobPage:
    """Show a page of the jobs of a tube, or the one that has a key."""
    pictures, tube, state = _pictures(look), _tube(ask), ask.query["state"]
    key = ask.query["key"]
    if key is not None:
        one = pictures.job_of(tube, check_name(key, "key"), look.now_ms)
        return JobPage([] if one is None else [_job_view(one)])
    found, following = page(
        lambda after, limit: pictures.jobs(
            tube,
            state,
            look.now_ms,
            after=None if after is None else int(after, 16),
            limit=limit,
        ),
        after=ask.query["after"],
        limit=ask.query["limit"],
        key=lambda info: f"{info.entry:x}",
        weight=lambda info: 1 + len(info.body) // JOBS_WEIGH_BYTES,
    )
    return JobPage([_job_view(info) for info in found], following)


def show(look: Look, ask: Ask) -> JobView:
    """Show one job.

    Raises:
        Problem: it is gone, or never was.
    """
    number = job_id(ask)
    info = _pictures(look).job(number, look.now_ms)
    if info is None:
        raise job_not_found(number)
    return _job_view(info)


def show_tube(look: Look, ask: Ask) -> TubeView:
    """Show one tube; one that nobody uses is empty, not missing."""
    name = _tube(ask)
    info = _pictures(look).tube(name, look.now_ms)
    return _tube_view(_unused(name) if info is None else info)


def show_tubes(look: Look, ask: Ask) -> TubePage:
    """Show a page of tubes."""
    pictures, prefix = _pictures(look), ask.query["prefix"]
    found, following = page(
        lambda after, limit: pictures.tubes(look.now_ms, prefix=prefix, after=after, limit=limit),
        after=ask.query["after"],
        limit=ask.query["limit"],
        key=lambda info: info.tube,
        weight=lambda _: 1,
    )
    totals = JobTotalsView(**msgspec.structs.asdict(pictures.totals()))
    return TubePage([_tube_view(info) for info in found], totals, following)


# How it is done.


def job_id(ask: Ask) -> int:
    """Return the id of a job in the path.

    Raises:
        Problem: it is no number, or none that could be an id.
    """
    text = ask.path["job"]
    if text.isascii() and text.isdigit() and len(text) <= JOB_ID_DIGITS_MAX:
        number = int(text)
        if 1 <= number <= 2**62 and text[0] != "0":
            return number
    raise bad_request("job", f'"{text[:40]}" is no id of a job; write it as put gave it, like 17')


def _tube(ask: Ask) -> str:
    return check_name(ask.path["tube"], "tube")


def _session(session: str | None) -> str | None:
    return None if session is None else check_session(session)


def _reserve(ask: Ask, tubes: tuple[str, ...]) -> ReserveJobs:
    body: Reserve | ReserveFrom = ask.body
    return ReserveJobs(
        tubes=tubes, session=_session(body.session), limit=body.limit, wait_ms=wait_ms(ask)
    )


def _ttr_ms(value: int | str) -> int:
    ms = length_ms(value, "ttr", 0, LENGTH_MS_MAX)
    if 0 < ms < TTR_MS_MIN:
        raise bad_request("ttr", f"{ms} ms are too few; use 1s or more, or 0 for 1s")
    return ms or TTR_MS_MIN


def _pictures(look: Look) -> JobPictures:
    return look.machine.jobs.pictures


def _job_view(info: JobInfo) -> JobView:
    letter = info.dead_letter
    return JobView(
        job=info.job,
        tube=info.tube,
        state=state_of(info.state),
        body=from_bytes(info.body, info.is_text),
        key=info.key,
        priority=info.priority,
        age_ms=info.age_ms,
        delay_ms=info.delay_ms,
        ttr_ms=info.ttr_ms,
        time_left_ms=info.time_left_ms,
        reserves=info.reserves,
        timeouts=info.timeouts,
        releases=info.releases,
        buries=info.buries,
        kicks=info.kicks,
        came_from=info.came_from,
        dead_letter=None if letter is None else DeadLetterView(*letter),
        token=info.token,
        session=info.session,
        reserved_for_ms=info.reserved_for_ms,
    )


def _tube_view(info: TubeInfo) -> TubeView:
    return TubeView(**msgspec.structs.asdict(info), paused=info.resumes_in_ms > 0)


def _unused(name: str) -> TubeInfo:
    return TubeInfo(name, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, None)


def _parse_state(text: str) -> str:
    if text in STATES:
        return text
    raise ValueError(f'"{text[:40]}" is unknown; use one of {", ".join(STATES)}')


def _parse_key(text: str) -> str:
    if not 0 < len(text.encode()) <= NAME_BYTES_MAX:
        raise ValueError(f"wants 1..{NAME_BYTES_MAX} bytes")
    return text


def _parse_place(text: str) -> str:
    try:
        number = int(text, 16) if len(text) <= 64 else None
    except ValueError:
        number = None
    if number is None:
        raise ValueError(f'"{text[:40]}" is no place in this list; use `next` of the page before')
    return f"{number:x}"


STATE: Final = Query(
    "state",
    _parse_state,
    "ready",
    {"type": "string", "enum": list(STATES), "default": "ready"},
    "of the jobs",
)
KEY: Final = Query("key", _parse_key, None, NAME_SCHEMA, "of the job, as it was put")
PLACE: Final = Query(
    "after",
    _parse_place,
    None,
    {"type": "string", "pattern": "^-?[0-9a-f]{1,60}$"},
    "go on after this: `next` of the page before",
)

ROUTES: tuple[Route, ...] = (
    Write(
        method="POST",
        path="/v1/tubes/{tube}/jobs",
        summary="Put a job into a tube, ready at once or after a delay.",
        tag="jobs",
        body=Put,
        answer=PutJobAnswer,
        status=201,
        codes=("duplicate_key", "queue_full"),
        command=put,
        body_bytes_max=BODY_BYTES_MAX * JSON_PER_BYTE_MAX + 4096,
    ),
    Write(
        method="POST",
        path="/v1/tubes/{tube}/reserve",
        summary="Reserve ready jobs of a tube, or wait for one; an empty list if none came.",
        tag="jobs",
        body=Reserve,
        answer=ReservedJobs,
        codes=(*SESSION_GONE, "queue_full"),
        query=(WAIT,),
        command=reserve,
    ),
    Write(
        method="POST",
        path="/v1/reserve",
        summary="Reserve ready jobs out of several tubes, the first over all of them first.",
        tag="jobs",
        body=ReserveFrom,
        answer=ReservedJobs,
        codes=(*SESSION_GONE, "queue_full"),
        query=(WAIT,),
        command=reserve_from,
    ),
    Write(
        method="POST",
        path="/v1/jobs/{job}/reserve",
        summary="Reserve this very job, be it ready, delayed or buried.",
        tag="jobs",
        body=ReserveThis,
        answer=ReservedJob,
        codes=(*SESSION_GONE, "job_not_found", "job_reserved", "queue_full"),
        command=reserve_this,
    ),
    Write(
        method="POST",
        path="/v1/jobs/{job}/delete",
        summary="Say that a job is done, or not wanted: it is gone.",
        tag="jobs",
        body=Delete,
        answer=DeletedJob,
        codes=(*HELD, "job_reserved"),
        command=delete,
    ),
    Write(
        method="POST",
        path="/v1/jobs/{job}/release",
        summary="Give a reserved job back, ready at once or after a delay.",
        tag="jobs",
        body=Release,
        answer=MovedJob,
        codes=HELD,
        command=release,
    ),
    Write(
        method="POST",
        path="/v1/jobs/{job}/bury",
        summary="Set a reserved job aside until somebody kicks it.",
        tag="jobs",
        body=Bury,
        answer=MovedJob,
        codes=HELD,
        command=bury,
    ),
    Write(
        method="POST",
        path="/v1/jobs/{job}/touch",
        summary="Start the time of a reservation anew.",
        tag="jobs",
        body=Touch,
        answer=TouchedJob,
        codes=HELD,
        command=touch,
    ),
    Write(
        method="POST",
        path="/v1/jobs/{job}/kick",
        summary="Make a buried or delayed job ready.",
        tag="jobs",
        body=Kick,
        answer=KickedJob,
        codes=("job_not_found", "job_reserved"),
        command=kick,
    ),
    Write(
        method="DELETE",
        path="/v1/jobs/{job}",
        summary="Cancel a job that nobody has reserved; the answer tells which of the two it was.",
        tag="jobs",
        answer=CancelledJob,
        command=cancel,
    ),
    Read(
        method="GET",
        path="/v1/jobs/{job}",
        summary="Show a job: its state, its body, what happened to it.",
        tag="jobs",
        answer=JobView,
        codes=("job_not_found",),
        query=read_query(),
        view=show,
    ),
    Write(
        method="DELETE",
        path="/v1/tubes/{tube}/jobs",
        summary="Cancel the job of a tube that has this key.",
        tag="jobs",
        answer=CancelledJob,
        query=(KEY._replace(is_required=True),),
        command=cancel_key,
    ),
    Read(
        method="GET",
        path="/v1/tubes/{tube}/jobs",
        summary="List the jobs of a tube in one state, in order, or find one by its key.",
        tag="jobs",
        answer=JobPage,
        query=read_query(STATE, KEY, PLACE, LIMIT),
        view=show_jobs,
    ),
    Read(
        method="GET",
        path="/v1/tubes/{tube}/peek",
        summary="Show the first job of a tube in one state, without reserving it.",
        tag="jobs",
        answer=Peeked,
        query=read_query(STATE),
        view=peek,
    ),
    Write(
        method="POST",
        path="/v1/tubes/{tube}/kick",
        summary="Make buried jobs of a tube ready, or delayed ones where none is buried.",
        tag="jobs",
        body=KickMany,
        answer=KickedTube,
        command=kick_tube,
    ),
    Write(
        method="PUT",
        path="/v1/tubes/{tube}/pause",
        summary="Let a tube give nothing out for a time; 0 ends a pause.",
        tag="jobs",
        body=PauseFor,
        answer=PausedTube,
        codes=("queue_full",),
        command=pause,
    ),
    Read(
        method="GET",
        path="/v1/tubes/{tube}",
        summary="Count the jobs of a tube by state, and who waits for one.",
        tag="jobs",
        answer=TubeView,
        query=read_query(),
        view=show_tube,
    ),
    Read(
        method="GET",
        path="/v1/tubes",
        summary="List the tubes in use, in order of name, with sums over all of them.",
        tag="jobs",
        answer=TubePage,
        query=read_query(PREFIX, AFTER, LIMIT),
        view=show_tubes,
    ),
)
