"""Answers about jobs.

RULE: outcome to answer or problem, nothing else; see `base.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

import msgspec

from cluster.gateway.replies.base import Answer, Ms, Problem, Reply, Token, never
from cluster.gateway.replies.payloads import Payload, from_bytes
from cluster.machine.outcome import Outcome
from cluster.machine.outcome.jobs import (
    Cancelled,
    DuplicateKey,
    JobDeleted,
    JobKicked,
    JobMoved,
    JobNotFound,
    JobPut,
    JobReserved,
    NotReserved,
    OneReserved,
    Reservation,
    Reserved,
    Touched,
    TubeKicked,
    TubePaused,
    TubesKept,
)

JobId = Annotated[int, msgspec.Meta(ge=1, le=2**62, description="id of a job, rising")]
JobState = Literal["ready", "delayed", "reserved", "buried"]


class PutJobAnswer(msgspec.Struct, frozen=True):
    """The job is in its tube; a waiting worker may have it already."""

    job: JobId
    tube: str
    state: Literal["ready", "delayed"]


class ReservedJob(msgspec.Struct, frozen=True):
    """The job is yours under `token` for `ttr_ms`, unless you touch it.

    `attempt`: which reservation of the job this is, from 1.
    """

    job: JobId
    tube: str
    body: Payload
    token: Token
    ttr_ms: Ms
    priority: int
    attempt: int
    key: str | None


class ReservedJobs(msgspec.Struct, frozen=True):
    """What was reserved, the first one first; nothing where nothing became ready in time."""

    jobs: list[ReservedJob]


class MovedJob(msgspec.Struct, frozen=True):
    """Where the job is now; `tube` is another one when it failed too often."""

    job: JobId
    tube: str
    state: JobState


class TouchedJob(msgspec.Struct, frozen=True):
    """The reservation ends then, unless it is touched again."""

    job: JobId
    tube: str
    state: Literal["reserved"]
    expires_in_ms: Ms


class DeletedJob(msgspec.Struct, frozen=True):
    """The job is gone."""

    job: JobId
    tube: str
    state: Literal["deleted"]


class CancelledJob(msgspec.Struct, frozen=True):
    """`cancelled`: nobody had the job, and nobody ever will.

    Otherwise `state` says why not: it is reserved (at the latest until `expires_in_ms` from now,
    unless its worker touches it), or it is gone or never was. `job` is null where no live job has
    the key.
    """

    job: JobId | None
    cancelled: bool
    state: Literal["gone", "reserved"]
    expires_in_ms: Ms | None


class KickedJob(msgspec.Struct, frozen=True):
    """The job is ready; `kicked` is false where it was so before."""

    job: JobId
    tube: str
    state: Literal["ready"]
    kicked: bool


class KickedTube(msgspec.Struct, frozen=True):
    """So many jobs were made ready."""

    tube: str
    kicked: int


class PausedTube(msgspec.Struct, frozen=True):
    """Whether the tube gives nothing out, and for how long."""

    tube: str
    paused: bool
    resumes_in_ms: Ms


class DuplicateKeyReason(msgspec.Struct, frozen=True):
    """The live job that has the key."""

    tube: str
    key: str
    job: JobId
    state: JobState


class NotReservedReason(msgspec.Struct, frozen=True):
    """The job's state; `token` was offered."""

    job: JobId
    token: Token
    state: JobState


class JobReservedReason(msgspec.Struct, frozen=True):
    """Who has the job (null: a worker without a session), since when, and until when at most."""

    job: JobId
    session: str | None
    reserved_for_ms: Ms
    expires_in_ms: Ms
    current_token: Token


class JobNotFoundReason(msgspec.Struct, frozen=True):
    """The id that was asked for."""

    job: JobId


def job_not_found(job: int) -> Problem:
    """It is gone, or never was."""
    return Problem(
        "job_not_found", f"job {job} is done, deleted or cancelled, or never was", {"job": job}
    )


def reserved_job(reservation: Reservation) -> ReservedJob:
    """Make one reservation readable."""
    return ReservedJob(
        job=reservation.job,
        tube=reservation.tube,
        body=from_bytes(reservation.body, reservation.is_text),
        token=reservation.token,
        ttr_ms=reservation.ttr_ms,
        priority=reservation.priority,
        attempt=reservation.attempt,
        key=reservation.key,
    )


def _put(outcome: JobPut) -> Answer:
    state: Literal["ready", "delayed"] = "ready" if outcome.state == "ready" else "delayed"
    body = PutJobAnswer(outcome.job, outcome.tube, state)
    return Answer(201, body, location=f"/v1/jobs/{outcome.job}")


def _reserved(outcome: Reserved) -> Answer:
    return Answer(200, ReservedJobs([reserved_job(one) for one in outcome.jobs]))


def _one_reserved(outcome: OneReserved) -> Answer:
    return Answer(200, reserved_job(outcome.reservation))


def _moved(outcome: JobMoved) -> Answer:
    return Answer(200, MovedJob(outcome.job, outcome.tube, state_of(outcome.state)))


def _touched(outcome: Touched) -> Answer:
    return Answer(200, TouchedJob(outcome.job, outcome.tube, "reserved", outcome.expires_in_ms))


def _deleted(outcome: JobDeleted) -> Answer:
    return Answer(200, DeletedJob(outcome.job, outcome.tube, "deleted"))


def _cancelled(outcome: Cancelled) -> Answer:
    state: Literal["gone", "reserved"] = "gone" if outcome.state == "gone" else "reserved"
    body = CancelledJob(outcome.job, outcome.cancelled, state, outcome.expires_in_ms)
    return Answer(200, body)


def _job_kicked(outcome: JobKicked) -> Answer:
    return Answer(200, KickedJob(outcome.job, outcome.tube, "ready", outcome.kicked))


def _tube_kicked(outcome: TubeKicked) -> Answer:
    return Answer(200, KickedTube(outcome.tube, outcome.kicked))


def _tube_paused(outcome: TubePaused) -> Answer:
    body = PausedTube(outcome.tube, outcome.resumes_in_ms > 0, outcome.resumes_in_ms)
    return Answer(200, body)


def _duplicate_key(outcome: DuplicateKey) -> Answer:
    raise Problem(
        "duplicate_key",
        f'tube "{outcome.tube}" has a live job with key "{outcome.key}": job {outcome.job}, '
        f"{outcome.state}; cancel it first, or leave it to do what you want done",
        {
            "tube": outcome.tube,
            "key": outcome.key,
            "job": outcome.job,
            "state": outcome.state,
        },
    )


def _not_reserved(outcome: NotReserved) -> Answer:
    raise Problem(
        "not_reserved",
        f"job {outcome.job} is {outcome.state} and not reserved: token {outcome.token} is stale "
        "for ever; reserve the job again",
        {"job": outcome.job, "token": outcome.token, "state": outcome.state},
    )


def _job_reserved(outcome: JobReserved) -> Answer:
    by = "a worker" if outcome.session is None else f"session {outcome.session}"
    raise Problem(
        "job_reserved",
        f"job {outcome.job} is reserved by {by} for {outcome.reserved_for_ms} ms under token "
        f"{outcome.current_token}, and for {outcome.expires_in_ms} ms more at most unless it is "
        "touched; ask later",
        {
            "job": outcome.job,
            "session": outcome.session,
            "reserved_for_ms": outcome.reserved_for_ms,
            "expires_in_ms": outcome.expires_in_ms,
            "current_token": outcome.current_token,
        },
    )


def _job_not_found(outcome: JobNotFound) -> Answer:
    raise job_not_found(outcome.job)


def state_of(state: str) -> JobState:
    """Return the machine's word for a state as the API's, which is the same."""
    return _STATES[state]


_STATES: Final[Mapping[str, JobState]] = {
    "ready": "ready",
    "delayed": "delayed",
    "reserved": "reserved",
    "buried": "buried",
}

REASONS: Final[Mapping[str, type[msgspec.Struct]]] = {
    "duplicate_key": DuplicateKeyReason,
    "not_reserved": NotReservedReason,
    "job_reserved": JobReservedReason,
    "job_not_found": JobNotFoundReason,
}

REPLIES: Final[Mapping[type[Outcome], Reply]] = {
    JobPut: _put,
    Reserved: _reserved,
    OneReserved: _one_reserved,
    JobMoved: _moved,
    Touched: _touched,
    JobDeleted: _deleted,
    Cancelled: _cancelled,
    TubeKicked: _tube_kicked,
    JobKicked: _job_kicked,
    TubePaused: _tube_paused,
    DuplicateKey: _duplicate_key,
    NotReserved: _not_reserved,
    JobReserved: _job_reserved,
    JobNotFound: _job_not_found,
    TubesKept: never,
}
