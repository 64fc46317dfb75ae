"""Statistics: which figures there are, in which order, and where they come from.

RULE: reads; changes nothing but this node's own counts.
"""

from __future__ import annotations

import os
import resource
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from cluster.fronts.beanstalkd.kept import DEFAULT, KeptTubes
from cluster.fronts.beanstalkd.replies import quoted
from cluster.machine.machine import Machine
from cluster.machine.outcome.jobs import JobInfo, TubeInfo

# Counted under these names; `reserve-job` and `kick-job` are not told, as in the original.
_OPS: Final = (
    "put",
    "peek",
    "peek-ready",
    "peek-delayed",
    "peek-buried",
    "reserve",
    "reserve-with-timeout",
    "delete",
    "release",
    "use",
    "watch",
    "ignore",
    "bury",
    "kick",
    "touch",
    "stats",
    "stats-job",
    "stats-tube",
    "list-tubes",
    "list-tube-used",
    "list-tubes-watched",
    "pause-tube",
)
_BINLOG_BYTES: Final = 10_485_760
"""The original's default, which it tells also where it has no binlog."""


@dataclass(slots=True, kw_only=True)
class Figures:
    """What this node counts, and what it is.

    Attributes:
        ops: requests that were read, by name.
        connections, producers, workers: now; who once put is a producer, who once reserved a worker.
        total_connections: since the start.
        is_draining: puts are refused on this node.
        name: of this life of the node, 16 hex digits.
        started_s: by a clock that never falls.
    """

    version: str
    job_bytes_max: int
    name: str
    started_s: float
    ops: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    producers: int = 0
    workers: int = 0
    total_connections: int = 0
    is_draining: bool = False

    def server(self, machine: Machine, now_s: float) -> Iterator[tuple[str, object]]:
        """All of `stats`."""
        totals = machine.jobs.pictures.totals()
        yield "current-jobs-urgent", totals.urgent
        yield "current-jobs-ready", totals.ready
        yield "current-jobs-reserved", totals.reserved
        yield "current-jobs-delayed", totals.delayed
        yield "current-jobs-buried", totals.buried
        for op in _OPS:
            yield f"cmd-{op}", self.ops[op]
        yield "job-timeouts", totals.timeouts
        yield "total-jobs", totals.put
        yield "max-job-size", self.job_bytes_max
        yield "current-tubes", totals.tubes
        yield "current-connections", self.connections
        yield "current-producers", self.producers
        yield "current-workers", self.workers
        yield "current-waiting", totals.waiting
        yield "total-connections", self.total_connections
        yield "pid", os.getpid()
        yield "version", quoted(self.version)
        used, system = resource.getrusage(resource.RUSAGE_SELF), os.uname()
        yield "rusage-utime", f"{used.ru_utime:.6f}"
        yield "rusage-stime", f"{used.ru_stime:.6f}"
        yield "uptime", int(now_s - self.started_s)
        yield "binlog-oldest-index", 0
        yield "binlog-current-index", 0
        yield "binlog-records-migrated", 0
        yield "binlog-records-written", 0
        yield "binlog-max-size", _BINLOG_BYTES
        yield "draining", "true" if self.is_draining else "false"
        yield "id", self.name
        yield "hostname", quoted(system.nodename)
        yield "os", quoted(system.version)
        yield "platform", quoted(system.machine)


def of_job(job: JobInfo) -> Iterator[tuple[str, object]]:
    """All of `stats-job`; whole seconds, cut off."""
    yield "id", job.job
    yield "tube", quoted(job.tube)
    yield "state", job.state
    yield "pri", max(0, job.priority)
    yield "age", job.age_ms // 1000
    yield "delay", job.delay_ms // 1000
    yield "ttr", job.ttr_ms // 1000
    yield "time-left", _whole_s_left(job.time_left_ms)
    yield "file", 0
    yield "reserves", job.reserves
    yield "timeouts", job.timeouts
    yield "releases", job.releases
    yield "buries", job.buries
    yield "kicks", job.kicks


def of_tube(tube: TubeInfo, kept: KeptTubes) -> Iterator[tuple[str, object]]:
    """All of `stats-tube`."""
    yield "name", quoted(tube.tube)
    yield "current-jobs-urgent", tube.urgent
    yield "current-jobs-ready", tube.ready
    yield "current-jobs-reserved", tube.reserved
    yield "current-jobs-delayed", tube.delayed
    yield "current-jobs-buried", tube.buried
    yield "total-jobs", tube.total_jobs
    yield "current-using", kept.using[tube.tube]
    yield "current-watching", kept.watching[tube.tube]
    yield "current-waiting", tube.waiting
    yield "cmd-delete", tube.deletes
    yield "cmd-pause-tube", tube.pauses
    yield "pause", tube.paused_for_ms // 1000
    yield "pause-time-left", _whole_s_left(tube.resumes_in_ms)


def _whole_s_left(left_ms: int) -> int:
    """What the original tells, which counts in nanoseconds: some have always passed already."""
    return max(0, left_ms - 1) // 1000


def tube_names(machine: Machine, kept: KeptTubes) -> list[str]:
    """All tubes: `default`, then the others as they were made."""
    tubes = sorted(machine.jobs.stock.tubes.values(), key=lambda tube: tube.number)
    names = (DEFAULT, *(tube.name for tube in tubes), *kept.wanted())
    return list(dict.fromkeys(names))


def find_tube(machine: Machine, kept: KeptTubes, name: str, now_ms: int) -> TubeInfo | None:
    """The picture of a tube, an empty one if it is there for clients of this node only."""
    tube = machine.jobs.pictures.tube(name, now_ms)
    if tube is None and kept.is_wanted(name):
        tube = TubeInfo(name, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, None)
    return tube
