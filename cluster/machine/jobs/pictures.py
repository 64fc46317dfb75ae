"""Pictures of jobs and tubes, for those who read.

RULE: looks, changes nothing. Every picture costs what it shows, however many jobs there are.
"""

from __future__ import annotations

from cluster.machine.jobs.stock import Stock
from cluster.machine.jobs.tubes import (
    BURIED,
    DELAYED,
    NOT_BY_DUE,
    READY,
    RESERVED,
    STATES,
    History,
    Job,
)
from cluster.machine.names import page
from cluster.machine.outcome.jobs import JobInfo, JobTotals, TubeInfo

_NO_HISTORY = History()


class JobPictures:
    """Makes pictures of what is in stock."""

    def __init__(self, stock: Stock) -> None:
        self._stock = stock

    def job(self, job_id: int, now_ms: int) -> JobInfo | None:
        """A picture of one job."""
        job = self._stock.jobs.get(job_id)
        return None if job is None else _picture(job, now_ms)

    def job_of(self, name: str, key: str, now_ms: int) -> JobInfo | None:
        """A picture of the live job of a tube that has this key."""
        tube = self._stock.tubes.get(name)
        job_id = None if tube is None else tube.job_of(key)
        return None if job_id is None else self.job(job_id, now_ms)

    def jobs(
        self, name: str, state: str, now_ms: int, *, after: int | None = None, limit: int = 1
    ) -> list[JobInfo]:
        """Pictures of the first jobs of a tube in one state.

        Ready ones as they will be given out, delayed ones as they fall due, buried and reserved
        ones as that happened to them.

        Args:
            after: `entry` of the last one seen; that job may be anywhere now.
        """
        tube = self._stock.tubes.get(name)
        if tube is None:
            return []
        line = tube.lines[STATES.index(state)]
        return [_picture(job, now_ms) for job in line.after(after, limit)]

    def tube(self, name: str, now_ms: int) -> TubeInfo | None:
        """A picture of one tube; None where there is none."""
        tube = self._stock.tubes.get(name)
        if tube is None:
            return None
        waiters = tube.waiters
        paused_for_ms, resumes_in_ms = tube.paused_for(now_ms)
        return TubeInfo(
            tube=name,
            ready=len(tube.lines[READY]),
            delayed=len(tube.lines[DELAYED]),
            reserved=len(tube.lines[RESERVED]),
            buried=len(tube.lines[BURIED]),
            urgent=tube.urgent,
            waiting=len(waiters),
            total_jobs=tube.total,
            deletes=tube.deletes,
            pauses=tube.pauses,
            paused_for_ms=paused_for_ms,
            resumes_in_ms=resumes_in_ms,
            oldest_wait_ms=max(0, now_ms - waiters[0].since_ms) if waiters else None,
        )

    def tubes(
        self, now_ms: int, *, prefix: str = "", after: str | None = None, limit: int = 100
    ) -> list[TubeInfo]:
        """Pictures of at most `limit` tubes whose names start with `prefix`, in order of name.

        Args:
            after: name of the last one seen; it need not be there any more.
        """
        tubes = self._stock.tubes
        found = (self.tube(name, now_ms) for name in page(tubes, prefix, after, limit))
        return [picture for picture in found if picture is not None]

    def totals(self) -> JobTotals:
        """Sums over all tubes, at no cost."""
        stock = self._stock
        return JobTotals(
            jobs=len(stock.jobs),
            bytes=stock.bytes,
            tubes=len(stock.tubes),
            waiting=stock.waiters,
            ready=stock.counts[READY],
            delayed=stock.counts[DELAYED],
            reserved=stock.counts[RESERVED],
            buried=stock.counts[BURIED],
            urgent=stock.urgent,
            put=stock.last_id - stock.skipped,
            timeouts=stock.timeouts,
        )


def _picture(job: Job, now_ms: int) -> JobInfo:
    past = job.history or _NO_HISTORY
    hold, left_ms = job.hold, 0
    if hold is not None:
        left_ms = hold.deadline_ms - now_ms
    elif job.state == DELAYED:
        left_ms = job.rank - now_ms
    return JobInfo(
        job=job.id,
        tube=job.tube.name,
        state=STATES[job.state],
        body=job.body,
        is_text=job.is_text,
        key=job.key,
        priority=job.priority,
        age_ms=max(0, now_ms - job.created_ms),
        delay_ms=job.delay_ms,
        ttr_ms=job.ttr_ms,
        time_left_ms=max(0, left_ms),
        reserves=past.reserves,
        timeouts=past.timeouts,
        releases=past.releases,
        buries=past.buries,
        kicks=past.kicks,
        came_from=past.came_from,
        dead_letter=job.dead_letter,
        token=None if hold is None else hold.token,
        session=None if hold is None else hold.session,
        reserved_for_ms=None if hold is None else max(0, now_ms - hold.since_ms),
        due_in_ms=None if job.due_ms == NOT_BY_DUE else job.due_ms - now_ms,
        entry=job.entry,
    )
