"""Rows of tasks: pools as records of a snapshot, and back.

RULE: order is kept, and every law between records is looked at; see `snapshot.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from cluster.machine.commands.tasks import ALLOW, SKIP, Schedule
from cluster.machine.core import Core
from cluster.machine.primitive import Record, Table, Weighed, weight_of
from cluster.machine.restoring import Restoring, must
from cluster.machine.tasks.pools import KIND, Pool, Run, Task, TaskPlace, Timing, Worker

if TYPE_CHECKING:
    from cluster.machine.tasks.tasks import Tasks


class _PoolRecord(Record):
    name: str
    cap: int
    give_back: bool
    last_number: int


class _WorkerRecord(Record):
    pool: str
    session: str
    token: int
    since_ms: int


class _TaskRecord(Record):
    pool: str
    id: str
    data: bytes | None
    is_text: bool | None


class _TimingRecord(Record):
    pool: str
    id: str
    schedule: Schedule
    paused: bool
    revision: int
    after_ms: int
    slot_ms: int | None
    due_ms: int | None
    is_over: bool
    buffered_ms: int | None
    fired: int
    skipped: int
    missed: int


class _RunRecord(Record):
    pool: str
    id: str
    number: int
    slot_ms: int | None
    session: str | None
    token: int
    since_ms: int


class _PlaceRecord(Record):
    pool: str
    session: str
    limit: int | None
    arrival: int
    since_ms: int


def tables(tasks: Tasks, core: Core) -> tuple[Table, ...]:
    """The lines of all pools in a snapshot."""
    rows = _Rows(tasks, core)
    return (
        Table("pools", _PoolRecord, rows.dump_pools, rows.load_pools),
        Table("pool workers", _WorkerRecord, rows.dump_workers, rows.load_workers),
        Table("tasks", _TaskRecord, rows.dump_tasks, rows.load_tasks),
        Table("task timings", _TimingRecord, rows.dump_timings, rows.load_timings),
        Table("task runs", _RunRecord, rows.dump_runs, rows.load_runs),
        Table("task places", _PlaceRecord, rows.dump_places, rows.load_places),
    )


class _Rows:
    def __init__(self, tasks: Tasks, core: Core) -> None:
        self._tasks = tasks
        self._core = core

    def dump_pools(self) -> Weighed:
        for pool in self._tasks:
            yield 1, [pool.name, pool.cap, pool.give_back, pool.last_number]

    def load_pools(self, records: Iterable[_PoolRecord], restoring: Restoring) -> None:
        last = None
        for record in records:
            must(last is None or last < record.name, "pools are not in order of name")
            must(record.cap >= 0 and record.last_number >= 0, "a number of a pool is below zero")
            last = record.name
            pool = self._tasks.add(Pool(record.name, record.cap, record.give_back))
            pool.last_number = record.last_number

    def dump_workers(self) -> Weighed:
        for pool in self._tasks:
            for worker in pool.workers.values():
                yield 1, [pool.name, worker.session, worker.token, worker.since_ms]

    def load_workers(self, records: Iterable[_WorkerRecord], restoring: Restoring) -> None:
        last = ("", 0)
        for record in records:
            pool = self._tasks.pools[record.pool]
            must(last < (record.pool, record.token), "workers are not in order")
            last = (record.pool, record.token)
            must(record.session not in pool.workers, "a session works in a pool twice")
            restoring.own(record.session, (KIND, pool.name, ""), record.token)
            pool.workers[record.session] = Worker(record.session, record.token, record.since_ms)
            self._tasks.workers += 1

    def dump_tasks(self) -> Weighed:
        for pool in self._tasks:
            for id in pool.ids:
                task = pool.tasks[id]
                weight = weight_of(0 if task.data is None else len(task.data))
                yield weight, [pool.name, id, task.data, task.is_text]

    def load_tasks(self, records: Iterable[_TaskRecord], restoring: Restoring) -> None:
        last = ("", "")
        for record in records:
            must(last < (record.pool, record.id), "tasks are not in order")
            last = (record.pool, record.id)
            pool = self._tasks.pools[record.pool]
            pool.tasks[record.id] = Task(pool, record.id, record.data, record.is_text)
            self._tasks.tasks += 1
        for pool in self._tasks:
            # At once: a million of them one by one take seconds.
            pool.ids.update(pool.tasks)

    def dump_timings(self) -> Weighed:
        for pool in self._tasks:
            for id in pool.ids:
                timing = pool.tasks[id].timing
                if timing is not None:
                    slot = timing.slot
                    yield (
                        2,
                        [
                            pool.name,
                            id,
                            list(timing.schedule),
                            timing.paused,
                            timing.revision,
                            timing.after_ms,
                            None if slot is None else slot.slot_ms,
                            None if slot is None else slot.due_ms,
                            timing.is_over,
                            timing.buffered_ms,
                            timing.fired,
                            timing.skipped,
                            timing.missed,
                        ],
                    )

    def load_timings(self, records: Iterable[_TimingRecord], restoring: Restoring) -> None:
        last = ("", "")
        revisions: set[int] = set()
        for record in records:
            must(last < (record.pool, record.id), "timings are not in order")
            last = (record.pool, record.id)
            restoring.token(record.revision)
            must(record.revision not in revisions, "two questions have one revision")
            revisions.add(record.revision)
            task = self._tasks.pools[record.pool].tasks[record.id]
            timing = Timing(record.schedule, record.paused, record.revision, record.after_ms)
            timing.is_over = record.is_over
            timing.buffered_ms = record.buffered_ms
            timing.fired, timing.skipped = record.fired, record.skipped
            timing.missed = record.missed
            task.timing = timing
            must((record.slot_ms is None) == (record.due_ms is None), "half a slot")
            if record.slot_ms is not None and record.due_ms is not None:
                must(not (record.paused or record.is_over), "a schedule at rest has a slot")
                must(
                    record.after_ms < record.slot_ms <= record.due_ms,
                    "a slot is not after the last one",
                )
                self._tasks.slots.arm(task, timing, record.slot_ms, record.due_ms)
            self._tasks.slots.restore(task)

    def dump_runs(self) -> Weighed:
        for pool in self._tasks:
            for run in pool.runs.values():
                yield (
                    1,
                    [
                        pool.name,
                        run.task.id,
                        run.number,
                        run.slot_ms,
                        run.session,
                        run.token,
                        run.since_ms,
                    ],
                )

    def load_runs(self, records: Iterable[_RunRecord], restoring: Restoring) -> None:
        last = ("", 0)
        held: list[Run] = []
        for record in records:
            must(last < (record.pool, record.number), "runs are not in order")
            last = (record.pool, record.number)
            pool = self._tasks.pools[record.pool]
            must(record.number <= pool.last_number, "a run's number was never given")
            task = pool.tasks[record.id]
            run = Run(task, record.number, record.slot_ms)
            task.runs.append(run)
            pool.runs[run.number] = run
            if record.session is None:
                must((record.token, record.since_ms) == (0, 0), "a free run has a grant")
            else:
                restoring.own(record.session, run.thing, record.token)
                run.session, run.token = record.session, record.token
                run.since_ms = record.since_ms
                held.append(run)
        for run in sorted(held, key=_by_token):
            assert run.session is not None
            worker = run.task.pool.workers[run.session]
            must(worker.token < run.token, "a grant is older than its worker")
            worker.held[run.number] = run
        for pool in self._tasks:
            pool.free.update(run.number for run in pool.runs.values() if run.session is None)
            for task in pool.tasks.values():
                _check(task)

    def dump_places(self) -> Weighed:
        for pool in self._tasks:
            for _, place in pool.line:
                yield 1, [pool.name, place.session, place.limit, place.arrival, place.since_ms]

    def load_places(self, records: Iterable[_PlaceRecord], restoring: Restoring) -> None:
        last = ("", 0)
        for record in records:
            must(last < (record.pool, record.arrival), "places are not in order")
            last = (record.pool, record.arrival)
            pool = self._tasks.pools[record.pool]
            worker = pool.workers[record.session]
            must(record.session not in pool.places, "a session waits for a pool twice")
            must(not worker.held, "a worker waits with something to do")
            must(not pool.free, "a place was not granted when it could")
            must(record.limit is None or record.limit > 0, "a place wants nothing")
            place = TaskPlace(
                pool.name, record.session, record.limit, record.arrival, record.since_ms
            )
            pool.enter(place)
            restoring.stand(place)


def _check(task: Task) -> None:
    timing = task.timing
    if timing is None:
        must(bool(task.runs), "a task without schedule has nothing to do")
    else:
        must(timing.buffered_ms is None or bool(task.runs), "a slot waits for no run")
        must(SKIP <= timing.schedule.overlap <= ALLOW, "an overlap is unknown")


def _by_token(run: Run) -> int:
    return run.token
