"""Commands of jobs.

RULE: values only; see `base.py`. Numbers 80 to 119.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, NamedTuple

import msgspec

from cluster.machine import limits
from cluster.machine.commands.base import Command, Count, LengthMs, Name, Priority, SessionId

# Longer than other lengths: beanstalkd's clients have 32 bits of seconds for theirs.
JobLengthMs = Annotated[int, msgspec.Meta(ge=0, le=limits.JOB_LENGTH_MS_MAX)]
HoldMs = Annotated[int, msgspec.Meta(ge=1, le=limits.JOB_LENGTH_MS_MAX)]
JobId = Annotated[int, msgspec.Meta(ge=1, le=2**62)]
JobKey = Annotated[str, msgspec.Meta(min_length=1, max_length=limits.JOB_KEY_LENGTH_MAX)]
JobBody = Annotated[bytes, msgspec.Meta(max_length=limits.JOB_BODY_BYTES_MAX)]
TubeNames = Annotated[
    tuple[Name, ...], msgspec.Meta(min_length=1, max_length=limits.TUBES_PER_RESERVE_MAX)
]
TubeList = Annotated[tuple[Name, ...], msgspec.Meta(max_length=limits.TUBES_PER_KEEP_MAX)]
JobsAsked = Annotated[int, msgspec.Meta(ge=1, le=limits.JOBS_PER_RESERVE_MAX)]


class DeadLetter(NamedTuple):
    """Where a job goes that nobody gets done.

    Attributes:
        tube: the other tube.
        after: so many reservations that failed.
        counts_releases: a release counts as failed too, not only a reservation that ran out.
    """

    tube: Name
    after: Annotated[int, msgspec.Meta(ge=1, le=2**32)]
    counts_releases: bool


class PutJob(Command, frozen=True, tag=80):
    """Put a job into a tube, ready at once or after `delay_ms`.

    `priority`: smaller goes first; equal ones in order of their ids. `ttr_ms`: how long one
    reservation lasts; less than a second counts as one. `key`: no other live job of the tube may
    have it. `by_due`: among jobs of its priority it stands behind those that are not so, in order
    of the time at which it became ready, as goyaad's do; `overdue_ms` says how long ago that was.
    `is_id`: the key must not be the number of a live job of the tube without a key, either; numbers
    that are keys of the tube are never given to jobs without one. `is_text`: about the body, for
    readers; None: it is JSON.
    """

    texts: ClassVar[tuple[str, ...]] = ("tube",)

    tube: Name
    body: JobBody
    is_text: bool | None = False
    priority: Priority = 0
    delay_ms: JobLengthMs = 0
    ttr_ms: JobLengthMs = 60_000
    key: JobKey | None = None
    dead_letter: DeadLetter | None = None
    by_due: bool = False
    overdue_ms: JobLengthMs = 0
    is_id: bool = False

    def texts_inside(self) -> Iterable[str]:
        """The tube of its dead letter."""
        return () if self.dead_letter is None else (self.dead_letter.tube,)


class ReserveJobs(Command, frozen=True, tag=81):
    """Take up to `limit` ready jobs out of tubes, the first over all of them first.

    With `wait_ms` > 0 and nothing ready, stand in the queue of each tube for at most that long.
    With a session, the reservations end with it at the latest. `hold_ms`: how long they last,
    instead of each job's own TTR, until they are touched.
    """

    tubes: TubeNames
    session: SessionId | None = None
    limit: JobsAsked = 1
    wait_ms: LengthMs = 0
    hold_ms: HoldMs | None = None

    def texts_inside(self) -> Iterable[str]:
        """Its tubes."""
        return self.tubes


class ReserveJob(Command, frozen=True, tag=82):
    """Take this very job, be it ready, delayed or buried, its tube paused or not."""

    job: JobId
    session: SessionId | None = None


class DeleteJob(Command, frozen=True, tag=83):
    """End a job: done. A reserved one only under its token, any other without one."""

    job: JobId
    token: Count | None = None


class ReleaseJob(Command, frozen=True, tag=84):
    """Give a job back, to be ready at once or after `delay_ms`; None keeps its priority."""

    job: JobId
    token: Count
    priority: Priority | None = None
    delay_ms: JobLengthMs = 0


class BuryJob(Command, frozen=True, tag=85):
    """Set a reserved job aside until somebody kicks it; None keeps its priority."""

    job: JobId
    token: Count
    priority: Priority | None = None


class TouchJob(Command, frozen=True, tag=86):
    """Let a reservation last for its whole TTR again, counted from the time of this entry.

    One that was given for longer than that is not cut short.
    """

    job: JobId
    token: Count


class KickJob(Command, frozen=True, tag=87):
    """Make a buried or delayed job ready."""

    job: JobId


class KickTube(Command, frozen=True, tag=88):
    """Make up to `bound` jobs of a tube ready: buried ones if there are any, else delayed ones."""

    texts: ClassVar[tuple[str, ...]] = ("tube",)

    tube: Name
    bound: Count


class CancelJob(Command, frozen=True, tag=89):
    """End a job that nobody works on. Whoever reserves it at the same time gets it or not."""

    job: JobId


class CancelKey(Command, frozen=True, tag=90):
    """As CancelJob, for the live job of a tube that has this key."""

    texts: ClassVar[tuple[str, ...]] = ("tube",)

    tube: Name
    key: JobKey


class PauseTube(Command, frozen=True, tag=91):
    """Let a tube give nothing out for so long, counted from the time of this entry; 0 resumes."""

    texts: ClassVar[tuple[str, ...]] = ("tube",)

    tube: Name
    for_ms: JobLengthMs


class ReturnJob(Command, frozen=True, tag=92):
    """Take a reservation back that its client never heard of: as if it had not been made."""

    job: JobId
    token: Count


class KeepTubes(Command, frozen=True, tag=93):
    """Have tubes stay, with what is counted of them, also while they are empty.

    Each stays as long as a session keeps it: until it is dropped or the session ends. What is in
    both lists is kept.
    """

    session: SessionId
    keep: TubeList = ()
    drop: TubeList = ()

    def texts_inside(self) -> Iterable[str]:
        """Its tubes."""
        return (*self.keep, *self.drop)


COMMANDS: tuple[type[Command], ...] = (
    PutJob,
    ReserveJobs,
    ReserveJob,
    DeleteJob,
    ReleaseJob,
    BuryJob,
    TouchJob,
    KickJob,
    KickTube,
    CancelJob,
    CancelKey,
    PauseTube,
    ReturnJob,
    KeepTubes,
)
