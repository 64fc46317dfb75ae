"""What jobs are made of: the job, its tube, the lines it stands in, who has it, who waits for one.

RULE: values and lines, no decisions and no time. What happens to a job is in `jobs.py`.

Strategy: a million delayed jobs cost memory, not time, and no more memory than they must. A line
is a sorted list of integers, (rank << 64) + id: an integer sorts as the pair would, and is half as
large. A job keeps the integer it stands there with, so it is found in its line and taken out at
once: nothing is left behind that would have to be swept up in one long step. Jobs are not seen by
the garbage collector, whose rounds would otherwise take longer the more jobs there are.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import ClassVar

import msgspec
from sortedcontainers import SortedList

from cluster.machine import limits
from cluster.machine.commands.jobs import DeadLetter
from cluster.machine.parked import Place

READY, DELAYED, RESERVED, BURIED = range(4)
STATES = ("ready", "delayed", "reserved", "buried")

KIND = "tube"
NOT_BY_DUE = -(2**62)

# Added to due times, which may be before the beginning of cluster time: none is below 1 then.
_DUE_BIAS = limits.JOB_LENGTH_MS_MAX + 1

_ID_BITS = 64
_ID_MASK = (1 << _ID_BITS) - 1


class History(msgspec.Struct, gc=False, array_like=True, forbid_unknown_fields=True):
    """What happened to a job; made when something does."""

    reserves: int = 0
    timeouts: int = 0
    releases: int = 0
    buries: int = 0
    kicks: int = 0
    came_from: str | None = None


class Hold(msgspec.Struct, gc=False, eq=False):
    """One reservation.

    Attributes:
        job: its id, not the job itself: nothing here makes a circle.
        deadline_ms: when it ends unless it is touched; DISARMED once it has ended.
    """

    job: int
    token: int
    session: str | None
    since_ms: int
    deadline_ms: int


class Job(msgspec.Struct, gc=False, eq=False):
    """One job.

    Attributes:
        created_ms: when it was put.
        due_ms: when it became ready or will, for one that stands by that; NOT_BY_DUE otherwise.
        entry: what it stands with in the line of its state.
        hold: its reservation, while it is reserved.
        history: None as long as nothing has happened to it.
    """

    id: int
    tube: Tube
    body: bytes
    is_text: bool | None
    key: str | None
    priority: int
    delay_ms: int
    ttr_ms: int
    created_ms: int
    due_ms: int
    dead_letter: DeadLetter | None
    state: int = READY
    entry: int = 0
    hold: Hold | None = None
    history: History | None = None

    @property
    def past(self) -> History:
        """Its history, to be changed."""
        if self.history is None:
            self.history = History()
        return self.history

    @property
    def has_live_key(self) -> bool:
        """It keeps others from having its key: one that was moved does so no longer."""
        return self.key is not None and (self.history is None or self.history.came_from is None)

    def stand_ready(self) -> None:
        """Make the entry for a line of ready jobs: by priority, then by due time or id."""
        due = 0 if self.due_ms == NOT_BY_DUE else self.due_ms + _DUE_BIAS
        self.state = READY
        self.entry = ((self.priority << _ID_BITS | due) << _ID_BITS) | self.id

    def stand_delayed(self, due_ms: int) -> None:
        """Make the entry for a line of delayed jobs: by due time, then by id."""
        self.state = DELAYED
        self.entry = due_ms << _ID_BITS | self.id

    def stand_held(self, hold: Hold) -> None:
        """Make the entry for a line of reserved jobs: as they were reserved."""
        self.state = RESERVED
        self.hold = hold
        self.entry = hold.token << _ID_BITS | self.id

    def stand_buried(self, number: int) -> None:
        """Make the entry for a line of buried jobs: as they were buried."""
        self.state = BURIED
        self.entry = number << _ID_BITS | self.id

    @property
    def rank(self) -> int:
        """What it stands by, before its id: due time, token or number of its burial."""
        return self.entry >> _ID_BITS


class Line:
    """Jobs of one tube in one state, in order of their entries."""

    __slots__ = ("_entries", "_jobs")

    def __init__(self, jobs: dict[int, Job]) -> None:
        """Start empty.

        Args:
            jobs: all jobs by id.
        """
        self._jobs = jobs
        self._entries = SortedList()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, job: Job) -> None:
        """Take in a job that has its entry already."""
        self._entries.add(job.entry)

    def fill(self, entries: Iterable[int]) -> None:
        """Take in many jobs at once."""
        self._entries.update(entries)

    def remove(self, job: Job) -> None:
        """Let a job go, wherever it stands."""
        self._entries.remove(job.entry)

    def first(self) -> Job | None:
        """The first job."""
        entries = self._entries
        return self._jobs[entries[0] & _ID_MASK] if entries else None

    def after(self, entry: int | None, limit: int | None) -> list[Job]:
        """The first jobs behind an entry, which may be gone; None: from the start, or all."""
        behind = self._entries.irange(entry, inclusive=(False, True))
        return [self._jobs[entry & _ID_MASK] for entry in islice(behind, limit)]


class Due:
    """The timer of a tube's first delayed job.

    One per tube, not one per job. It has the order of its job, so that what is due at the same
    time comes in order of ids over all tubes. It may be armed again for the same time and job while
    its disarmed forerunner is still in the heap, which compares the two: neither is the smaller.
    """

    __slots__ = ("deadline_ms", "entry", "tube")

    def __init__(self, tube: Tube, entry: int, deadline_ms: int) -> None:
        self.tube = tube
        self.entry = entry
        self.deadline_ms = deadline_ms

    def __lt__(self, other: Due) -> bool:
        return False


class Pause:
    """The timer of a paused tube."""

    __slots__ = ("deadline_ms", "for_ms", "tube")

    def __init__(self, tube: Tube, for_ms: int, deadline_ms: int) -> None:
        self.tube = tube
        self.for_ms = for_ms
        self.deadline_ms = deadline_ms

    def __lt__(self, other: Pause) -> bool:
        return False


class TubePlace(Place):
    """A reserver in the queue of each of its tubes, under one arrival."""

    __slots__ = ("hold_ms", "limit", "since_ms", "tubes")

    kind: ClassVar[str] = KIND

    def __init__(
        self,
        tubes: tuple[Tube, ...],
        session: str | None,
        limit: int,
        arrival: int,
        since_ms: int,
        hold_ms: int | None,
    ) -> None:
        super().__init__(tubes[0].name, session, arrival)
        self.tubes = tubes
        self.limit = limit
        self.since_ms = since_ms
        self.hold_ms = hold_ms

    @property
    def names(self) -> tuple[str, ...]:
        """All tubes it is for."""
        return tuple(tube.name for tube in self.tubes)

    def stands(self, position: Callable[[Place], int]) -> Iterator[tuple[str, int]]:
        """Its position in each queue."""
        for tube in self.tubes:
            yield tube.name, tube.rank(self) + 1


class Tube:
    """One tube that has jobs or waiters, or is paused or kept.

    Attributes:
        number: tubes are counted as they are made; the order of what happens at the same time.
        lines: its jobs by state.
        ready, delayed: two of the lines.
        waiters: in order of arrival.
        keys: live jobs that have a key, by it; None until one has.
        keepers: sessions that keep it, with the token of that; None while nobody does.
        urgent: ready jobs of a priority below URGENT_BELOW.
    """

    __slots__ = (
        "delayed",
        "deletes",
        "due",
        "keepers",
        "keys",
        "lines",
        "name",
        "number",
        "pause",
        "pauses",
        "ready",
        "total",
        "urgent",
        "waiters",
    )

    URGENT_BELOW: ClassVar[int] = 1024

    def __init__(self, name: str, number: int, jobs: dict[int, Job]) -> None:
        self.name = name
        self.number = number
        self.lines = tuple(Line(jobs) for _ in STATES)
        self.ready = self.lines[READY]
        self.delayed = self.lines[DELAYED]
        self.waiters: list[TubePlace] = []
        self.keys: dict[str, int] | None = None
        self.keepers: dict[str, int] | None = None
        self.due: Due | None = None
        self.pause: Pause | None = None
        self.urgent = 0
        self.total = 0
        self.deletes = 0
        self.pauses = 0

    @property
    def gives(self) -> bool:
        """It has something to give out now."""
        return self.pause is None and len(self.ready) > 0

    @property
    def is_needed(self) -> bool:
        """There is anything about it that must be remembered."""
        if self.waiters or self.pause is not None or self.keepers is not None:
            return True
        return any(map(len, self.lines))

    def job_of(self, key: str) -> int | None:
        """The live job that has this key."""
        return None if self.keys is None else self.keys.get(key)

    def rank(self, place: TubePlace) -> int:
        """How many came before a waiter."""
        return bisect_left(self.waiters, place.arrival, key=_by_arrival)

    def paused_for(self, now_ms: int) -> tuple[int, int]:
        """For how long it was paused, and how long that still lasts."""
        if self.pause is None:
            return 0, 0
        return self.pause.for_ms, max(0, self.pause.deadline_ms - now_ms)


def _by_arrival(place: TubePlace) -> int:
    return place.arrival
