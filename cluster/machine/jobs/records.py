"""Jobs in a snapshot: what stands there, and how it is checked on the way back.

RULE: nothing is left out and nothing is believed: see `snapshot.py`.

    job counters: one record. tubes: by name. jobs: by id. reservations: in order of grant.
    kept tubes: as sessions began to keep them.
    tube places: by the tube named first, in queue order; in the other queues they stand by arrival.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import TYPE_CHECKING

from cluster.machine import limits
from cluster.machine.commands.jobs import DeadLetter
from cluster.machine.jobs.tubes import (
    BURIED,
    DELAYED,
    KIND,
    NOT_BY_DUE,
    READY,
    RESERVED,
    History,
    Hold,
    Job,
    Tube,
    TubePlace,
)
from cluster.machine.primitive import Record, Table, Weighed, weight_of
from cluster.machine.restoring import Restoring, must

if TYPE_CHECKING:
    from cluster.machine.jobs.stock import Stock


class _CountersRecord(Record):
    last_id: int
    tubes_made: int
    burials: int
    timeouts: int
    skipped: int


class _TubeRecord(Record):
    name: str
    number: int
    total: int
    deletes: int
    pauses: int
    paused_for_ms: int | None
    resumes_ms: int | None


class _JobRecord(Record):
    """`rank`: due time of a delayed job, number of its burial of a buried one, else 0."""

    id: int
    tube: str
    body: bytes
    is_text: bool | None
    key: str | None
    priority: int
    delay_ms: int
    ttr_ms: int
    created_ms: int
    due_ms: int
    state: int
    rank: int
    dead_letter: DeadLetter | None
    history: History | None


class _HoldRecord(Record):
    token: int
    job: int
    session: str | None
    since_ms: int
    deadline_ms: int


class _KeptRecord(Record):
    token: int
    session: str
    tube: str


class _PlaceRecord(Record):
    tubes: tuple[str, ...]
    session: str | None
    limit: int
    arrival: int
    since_ms: int
    hold_ms: int | None


def tables(stock: Stock) -> tuple[Table, ...]:
    """The lines of jobs in a snapshot."""
    records = _Records(stock)
    return (
        Table("job counters", _CountersRecord, records.dump_counters, records.load_counters),
        Table("tubes", _TubeRecord, records.dump_tubes, records.load_tubes),
        Table("jobs", _JobRecord, records.dump_jobs, records.load_jobs),
        Table("reservations", _HoldRecord, records.dump_holds, records.load_holds),
        Table("kept tubes", _KeptRecord, records.dump_kept, records.load_kept),
        Table("tube places", _PlaceRecord, records.dump_places, records.load_places),
    )


class _Records:
    def __init__(self, stock: Stock) -> None:
        self._stock = stock

    def dump_counters(self) -> Weighed:
        stock = self._stock
        counts = [stock.last_id, stock.tubes_made, stock.burials, stock.timeouts, stock.skipped]
        yield 1, counts

    def load_counters(self, records: Iterable[_CountersRecord], _: Restoring) -> None:
        stock, count = self._stock, 0
        for record in records:
            must(min(record.last_id, record.tubes_made) >= 0, "a counter is below zero")
            must(min(record.burials, record.timeouts) >= 0, "a counter is below zero")
            stock.last_id, stock.tubes_made = record.last_id, record.tubes_made
            stock.burials, stock.timeouts = record.burials, record.timeouts
            must(0 <= record.skipped <= record.last_id, "more numbers were passed than there were")
            stock.skipped = record.skipped
            count += 1
        must(count == 1, "the counters of jobs are not there once")

    def dump_tubes(self) -> Weighed:
        for name, tube in self._stock.tubes.items():
            pause = tube.pause
            paused = (None, None) if pause is None else (pause.for_ms, pause.deadline_ms)
            yield 1, [name, tube.number, tube.total, tube.deletes, tube.pauses, *paused]

    def load_tubes(self, records: Iterable[_TubeRecord], _: Restoring) -> None:
        stock, last, numbers = self._stock, "", dict[int, str]()
        for record in records:
            must(last < record.name, "tubes are not in order of name")
            must(0 < record.number <= stock.tubes_made, "a tube was never made")
            must(record.number not in numbers, "two tubes have one number")
            last = numbers[record.number] = record.name
            tube = Tube(record.name, record.number, stock.jobs)
            tube.total, tube.deletes, tube.pauses = record.total, record.deletes, record.pauses
            stock.tubes[record.name] = tube
            if record.paused_for_ms is not None:
                must(record.resumes_ms is not None, "a pause has no end")
                assert record.resumes_ms is not None
                must(record.resumes_ms >= 0, "a pause has no end")
                stock.pause(tube, record.paused_for_ms, record.resumes_ms)
            else:
                must(record.resumes_ms is None, "a pause ends that is none")

    def dump_jobs(self) -> Weighed:
        for job in self._stock.jobs.values():
            yield (
                weight_of(len(job.body)),
                [
                    job.id,
                    job.tube.name,
                    job.body,
                    job.is_text,
                    job.key,
                    job.priority,
                    job.delay_ms,
                    job.ttr_ms,
                    job.created_ms,
                    job.due_ms,
                    job.state,
                    job.rank if job.state in {DELAYED, BURIED} else 0,
                    job.dead_letter,
                    None if job.history is None else _past(job.history),
                ],
            )

    def load_jobs(self, records: Iterable[_JobRecord], _: Restoring) -> None:
        stock, last = self._stock, 0
        burials = dict[int, None]()
        for record in records:
            must(last < record.id <= stock.last_id, "ids of jobs do not rise")
            must(READY <= record.state <= BURIED, "a job is in no state")
            must(record.ttr_ms >= limits.JOB_TTR_MS_MIN, "a job has no TTR")
            has_due = record.due_ms >= -limits.JOB_LENGTH_MS_MAX
            must(has_due or record.due_ms == NOT_BY_DUE, "a job has no due time")
            must(
                record.rank > 0 if record.state in {DELAYED, BURIED} else record.rank == 0,
                "a job stands by nothing",
            )
            last = record.id
            tube = stock.tubes[record.tube]
            job = Job(
                record.id,
                tube,
                record.body,
                record.is_text,
                record.key,
                record.priority,
                record.delay_ms,
                record.ttr_ms,
                record.created_ms,
                record.due_ms,
                record.dead_letter,
                record.state,
                history=record.history,
            )
            must(
                not job.has_live_key or tube.job_of(record.key or "") is None,
                "two jobs have one key",
            )
            stock.add(job)
            if job.state == READY:
                job.stand_ready()
            elif job.state == DELAYED:
                job.stand_delayed(record.rank)
            elif job.state == BURIED:
                must(record.rank <= stock.burials, "a job was never buried")
                must(record.rank not in burials, "two jobs were buried as one")
                burials[record.rank] = None
                job.stand_buried(record.rank)
        standing = (job for job in stock.jobs.values() if job.state != RESERVED)
        stock.step_in_all(standing)
        for tube in stock.tubes.values():
            stock.arm(tube)

    def dump_holds(self) -> Weighed:
        tubes = self._stock.tubes.values()
        reserved = [job for tube in tubes for job in tube.lines[RESERVED].after(None, None)]
        for job in sorted(reserved, key=attrgetter("rank")):
            assert job.hold is not None
            hold = job.hold
            yield 1, [hold.token, hold.job, hold.session, hold.since_ms, hold.deadline_ms]

    def load_holds(self, records: Iterable[_HoldRecord], restoring: Restoring) -> None:
        stock, last = self._stock, 0
        reserved: list[Job] = []
        for record in records:
            must(last < record.token, "tokens of reservations do not rise")
            must(record.deadline_ms >= 0, "a reservation has no end")
            last = record.token
            job = stock.jobs[record.job]
            must(job.state == RESERVED, "a job is reserved that is not")
            must(job.hold is None, "a job is reserved twice")
            if record.session is None:
                restoring.token(record.token)
            else:
                thing = (KIND, job.tube.name, str(job.id))
                restoring.own(record.session, thing, record.token)
            hold = Hold(job.id, record.token, record.session, record.since_ms, record.deadline_ms)
            job.stand_held(hold)
            stock.arm_hold(hold)
            reserved.append(job)
        stock.step_in_all(reserved)
        must(
            len(reserved) == sum(job.state == RESERVED for job in stock.jobs.values()),
            "nobody has a job that is reserved",
        )

    def dump_kept(self) -> Weighed:
        kept = [
            (token, session, tube.name)
            for tube in self._stock.tubes.values()
            if tube.keepers is not None
            for session, token in tube.keepers.items()
        ]
        for record in sorted(kept):
            yield 1, list(record)

    def load_kept(self, records: Iterable[_KeptRecord], restoring: Restoring) -> None:
        last = 0
        for record in records:
            must(last < record.token, "tokens of kept tubes do not rise")
            last = record.token
            restoring.own(record.session, (KIND, record.tube, ""), record.token)
            self._stock.keep(self._stock.tubes[record.tube], record.session, record.token)

    def dump_places(self) -> Weighed:
        for place in self._stock.places():
            assert isinstance(place, TubePlace)
            yield (
                len(place.tubes),
                [
                    list(place.names),
                    place.session,
                    place.limit,
                    place.arrival,
                    place.since_ms,
                    place.hold_ms,
                ],
            )

    def load_places(self, records: Iterable[_PlaceRecord], restoring: Restoring) -> None:
        stock = self._stock
        last = ("", 0)
        places: list[TubePlace] = []
        for record in records:
            must(record.tubes != (), "a place is in no queue")
            must(last < (record.tubes[0], record.arrival), "places are not in order")
            must(len(dict.fromkeys(record.tubes)) == len(record.tubes), "a place stands twice")
            must(record.limit > 0, "somebody waits for nothing")
            must(record.hold_ms is None or record.hold_ms > 0, "somebody waits for no time")
            last = (record.tubes[0], record.arrival)
            tubes = tuple(stock.tubes[name] for name in record.tubes)
            places.append(
                TubePlace(
                    tubes,
                    record.session,
                    record.limit,
                    record.arrival,
                    record.since_ms,
                    record.hold_ms,
                )
            )
            restoring.stand(places[-1])
        for place in sorted(places, key=attrgetter("arrival")):
            stock.enter(place)
        for tube in stock.tubes.values():
            must(tube.is_needed, "a tube is there for nothing")
            must(not (tube.waiters and tube.gives), "a job was not given out when it could be")


def _past(history: History) -> list[object]:
    return [
        history.reserves,
        history.timeouts,
        history.releases,
        history.buries,
        history.kicks,
        history.came_from,
    ]
