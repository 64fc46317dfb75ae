"""Pictures of pools and tasks, for reading.

RULE: looks, changes nothing.
"""

from __future__ import annotations

from cluster.machine.outcome.tasks import PoolInfo, RunInfo, TaskInfo
from cluster.machine.tasks.pools import Pool, Task


def picture_of_pool(pool: Pool, now_ms: int) -> PoolInfo:
    """A picture of a pool, without its tasks."""
    return PoolInfo(
        pool=pool.name,
        cap=pool.cap,
        give_back=pool.give_back,
        tasks=len(pool.tasks),
        runs=len(pool.runs),
        free=len(pool.free),
        share=pool.share,
        workers=tuple(
            (
                worker.session,
                len(worker.held),
                max(0, now_ms - worker.since_ms),
                worker.session in pool.places,
            )
            for worker in pool.workers.values()
        ),
    )


def picture_of_task(task: Task, now_ms: int) -> TaskInfo:
    """A picture of a task with its runs."""
    timing = task.timing
    slot = None if timing is None else timing.slot
    return TaskInfo(
        pool=task.pool.name,
        id=task.id,
        data=task.data,
        is_text=task.is_text,
        schedule=None if timing is None else timing.schedule,
        paused=timing is not None and timing.paused,
        is_over=timing is not None and timing.is_over,
        runs=tuple(
            RunInfo(run.slot_ms, None, None, None)
            if run.session is None
            else RunInfo(run.slot_ms, run.session, run.token, max(0, now_ms - run.since_ms))
            for run in task.runs
        ),
        slot_ms=None if slot is None else slot.slot_ms,
        due_ms=None if slot is None else slot.due_ms,
        buffered_ms=None if timing is None else timing.buffered_ms,
        fired=0 if timing is None else timing.fired,
        skipped=0 if timing is None else timing.skipped,
        missed=0 if timing is None else timing.missed,
    )
