"""Outcomes and pictures of jobs.

RULE: values only; see `base.py`. Numbers 80 to 119.
"""

from __future__ import annotations

import msgspec

from cluster.machine.outcome.base import Outcome, Refusal


class JobPut(Outcome, frozen=True, tag=80):
    """A job was taken in. `state` is ready or delayed, also where a waiter has it already."""

    job: int
    tube: str
    state: str


class Reservation(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One job for one worker, for `ttr_ms` unless it is touched.

    Attributes:
        token: of this reservation; the job's next one has a larger one.
        attempt: which reservation of the job it is, counted from 1.
    """

    job: int
    tube: str
    body: bytes
    is_text: bool | None
    token: int
    ttr_ms: int
    priority: int
    attempt: int
    key: str | None


class Reserved(Outcome, frozen=True, tag=81):
    """Jobs were reserved, the first one first; none where none was ready in time."""

    jobs: tuple[Reservation, ...]


class OneReserved(Outcome, frozen=True, tag=82):
    """The very job asked for was reserved."""

    reservation: Reservation


class JobMoved(Outcome, frozen=True, tag=83):
    """A job was released, buried or returned and is in this tube and state now."""

    job: int
    tube: str
    state: str


class Touched(Outcome, frozen=True, tag=84):
    """A reservation now ends `expires_in_ms` after the time of this entry."""

    job: int
    tube: str
    expires_in_ms: int


class JobDeleted(Outcome, frozen=True, tag=85):
    """A job is gone, as it was done or not wanted."""

    job: int
    tube: str


class Cancelled(Outcome, frozen=True, tag=86):
    """Whether a job was cancelled: then nobody had it, and nobody ever will.

    Attributes:
        job: None where no live job has the key.
        state: gone, or reserved: then it was not cancelled, as somebody works on it.
        expires_in_ms: when its reservation ends at the latest, unless it is touched.
    """

    job: int | None
    cancelled: bool
    state: str
    expires_in_ms: int | None


class TubeKicked(Outcome, frozen=True, tag=87):
    """So many jobs of a tube were made ready."""

    tube: str
    kicked: int


class JobKicked(Outcome, frozen=True, tag=88):
    """A job is ready; `kicked` is False where it was so before."""

    job: int
    tube: str
    kicked: bool


class TubePaused(Outcome, frozen=True, tag=89):
    """A tube gives nothing out for so long; 0: it does now."""

    tube: str
    resumes_in_ms: int


class DuplicateKey(Refusal, frozen=True, tag=90):
    """A live job of the tube has this key."""

    tube: str
    key: str
    job: int
    state: str


class NotReserved(Refusal, frozen=True, tag=91):
    """A token was shown for a job that nobody has reserved (any more)."""

    job: int
    token: int
    state: str


class JobReserved(Refusal, frozen=True, tag=92):
    """Somebody works on the job.

    Attributes:
        session: whose; None for a worker without one.
        reserved_for_ms: since when.
        expires_in_ms: when it ends at the latest, unless it is touched.
        current_token: of that reservation.
    """

    job: int
    session: str | None
    reserved_for_ms: int
    expires_in_ms: int
    current_token: int


class JobNotFound(Refusal, frozen=True, tag=93):
    """The job is gone, or never was."""

    job: int


class TubesKept(Outcome, frozen=True, tag=94):
    """The session keeps what it asked for, and no more of what it dropped."""

    session: str


class JobInfo(msgspec.Struct, frozen=True):
    """A read-only picture of one job.

    Attributes:
        age_ms: since it was put.
        delay_ms: it was put or released with.
        time_left_ms: until a delayed one is ready or a reservation ends; 0 otherwise.
        reserves, timeouts, releases, buries, kicks: how often each happened.
        came_from: the tube it was in before too many reservations failed.
        dead_letter: (tube, after, counts_releases) where it goes then.
        token, session, reserved_for_ms: of its reservation.
        due_in_ms: of a job that stands by its due time; below zero once that is over.
        entry: its place among the jobs of its tube and state: a list goes on after it.
    """

    job: int
    tube: str
    state: str
    body: bytes
    is_text: bool | None
    key: str | None
    priority: int
    age_ms: int
    delay_ms: int
    ttr_ms: int
    time_left_ms: int
    reserves: int
    timeouts: int
    releases: int
    buries: int
    kicks: int
    came_from: str | None
    dead_letter: tuple[str, int, bool] | None
    token: int | None
    session: str | None
    reserved_for_ms: int | None
    due_in_ms: int | None
    entry: int


class TubeInfo(msgspec.Struct, frozen=True):
    """A read-only picture of one tube.

    Attributes:
        urgent: ready jobs of a priority below 1024.
        waiting: reservers in its queue.
        total_jobs: ever put into it, or moved there.
        deletes, pauses: commands that were carried out.
        paused_for_ms, resumes_in_ms: 0 where it is not paused.
        oldest_wait_ms: of the first in its queue; None where nobody waits.
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
    paused_for_ms: int
    resumes_in_ms: int
    oldest_wait_ms: int | None


class JobTotals(msgspec.Struct, frozen=True):
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


OUTCOMES: tuple[type[Outcome], ...] = (
    JobPut,
    Reserved,
    OneReserved,
    JobMoved,
    Touched,
    JobDeleted,
    Cancelled,
    TubeKicked,
    JobKicked,
    TubePaused,
    DuplicateKey,
    NotReserved,
    JobReserved,
    JobNotFound,
    TubesKept,
)
