"""Pools of tasks as values: what `tasks.py` and `slots.py` decide about.

RULE: knows how things hang together, never why they change. A pool has tasks; a task has runs, each
a thing to be done; a run is free or held by one worker, a session that has joined the pool.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import ClassVar

from sortedcontainers import SortedList

from cluster.machine import limits
from cluster.machine.commands.tasks import Schedule
from cluster.machine.outcome.tasks import Handed, Wanted
from cluster.machine.parked import Place
from cluster.machine.sessions import Owned

KIND = "task"


class Slot:
    """When a task is due next: a timer by the wall clock.

    Attributes:
        slot_ms: as the schedule says.
        due_ms: the same with its jitter.
        deadline_ms: the same while it is armed.
    """

    __slots__ = ("deadline_ms", "due_ms", "slot_ms", "task")

    def __init__(self, task: Task, slot_ms: int, due_ms: int) -> None:
        self.task = task
        self.slot_ms = slot_ms
        self.due_ms = due_ms
        self.deadline_ms = due_ms


class Timing:
    """What a scheduled task has beside its runs.

    Attributes:
        revision: of the question for the next slot; a token, so that none is ever the same.
        after_ms: wall time after which the next slot lies; never falling.
        slot: None while it is asked for, while paused, and when there is none any more.
        is_over: the schedule has no slot any more.
        buffered_ms: a slot that waits for the present run to end.
        fired, skipped, missed: slots by what became of them; a run by hand counts as a slot.
    """

    __slots__ = (
        "after_ms",
        "buffered_ms",
        "fired",
        "is_over",
        "missed",
        "paused",
        "revision",
        "schedule",
        "skipped",
        "slot",
    )

    def __init__(self, schedule: Schedule, paused: bool, revision: int, after_ms: int) -> None:
        self.schedule = schedule
        self.paused = paused
        self.revision = revision
        self.after_ms = after_ms
        self.slot: Slot | None = None
        self.is_over = False
        self.buffered_ms: int | None = None
        self.fired = 0
        self.skipped = 0
        self.missed = 0

    @property
    def is_wanting(self) -> bool:
        """A leader is asked for the next slot."""
        return not self.paused and self.slot is None and not self.is_over


class Run:
    """Something to do: free, or held by a session since a time, under a token.

    Attributes:
        number: its place in the pool's line, and in its dict.
        slot_ms: wall time it is due for; None for a task without schedule.
        session: None while it is free; token and since_ms are 0 then.
    """

    __slots__ = ("number", "session", "since_ms", "slot_ms", "task", "token")

    def __init__(self, task: Task, number: int, slot_ms: int | None) -> None:
        self.task = task
        self.number = number
        self.slot_ms = slot_ms
        self.session: str | None = None
        self.token = 0
        self.since_ms = 0

    @property
    def thing(self) -> Owned:
        """As in its holder's record: a task may have several runs, so the number tells them apart."""
        return KIND, self.task.pool.name, f"{self.task.id}#{self.number}"


class Task:
    """One task.

    Attributes:
        runs: in order of number. Invariant: never empty without a schedule.
        timing: None without a schedule.
    """

    __slots__ = ("data", "id", "is_text", "pool", "runs", "timing")

    def __init__(self, pool: Pool, id: str, data: bytes | None, is_text: bool | None) -> None:
        self.pool = pool
        self.id = id
        self.data = data
        self.is_text = is_text
        self.runs: list[Run] = []
        self.timing: Timing | None = None

    @property
    def wanted(self) -> Wanted:
        """The question for its next slot."""
        timing = self.timing
        assert timing is not None
        return Wanted(self.pool.name, self.id, timing.revision, timing.schedule, timing.after_ms)

    def handed(self, run: Run) -> Handed:
        """What its worker is told."""
        return Handed(self.id, self.data, self.is_text, run.token, run.slot_ms)


class TaskPlace(Place):
    """A worker's place in the line of those who wait for something to do.

    Attributes:
        limit: how much it takes at most.
    """

    __slots__ = ("limit", "since_ms")

    kind: ClassVar[str] = KIND
    session: str

    def __init__(
        self, name: str, session: str, limit: int | None, arrival: int, since_ms: int
    ) -> None:
        super().__init__(name, session, arrival)
        self.limit = limit
        self.since_ms = since_ms


class Worker:
    """A session that works in a pool.

    Attributes:
        token: of its joining.
        held: its runs by number, in order of grant.
    """

    __slots__ = ("held", "session", "since_ms", "token")

    def __init__(self, session: str, token: int, since_ms: int) -> None:
        self.session = session
        self.token = token
        self.since_ms = since_ms
        self.held: dict[int, Run] = {}


class Pool:
    """One pool.

    Attributes:
        cap: how many runs a worker gets at most; 0 for no bound but its share.
        give_back: whether a worker over its share hands the surplus back.
        last_number: of runs; the next has a larger one.
        ids: of tasks, sorted.
        runs: by number, in that order.
        free: numbers of runs nobody holds, sorted: the oldest is given first.
        workers: by session, in order of joining.
        line: (arrival, place) of those who wait, sorted. Invariant: only while nothing is free.
        places: the same by session.
    """

    __slots__ = (
        "cap",
        "free",
        "give_back",
        "ids",
        "last_number",
        "line",
        "name",
        "places",
        "runs",
        "tasks",
        "workers",
    )

    def __init__(self, name: str, cap: int = 0, give_back: bool = False) -> None:
        self.name = name
        self.cap = cap
        self.give_back = give_back
        self.last_number = 0
        self.tasks: dict[str, Task] = {}
        self.ids = SortedList()
        self.runs: dict[int, Run] = {}
        self.free = SortedList()
        self.workers: dict[str, Worker] = {}
        self.line: list[tuple[int, TaskPlace]] = []
        self.places: dict[str, TaskPlace] = {}

    @property
    def share(self) -> int:
        """The fair part of one worker, rounded up."""
        return -(-len(self.runs) // max(1, len(self.workers)))

    def most(self, limit: int | None) -> int:
        """How many runs a worker may take."""
        most = min(self.share, limits.TASKS_PER_WORKER_MAX)
        if self.cap:
            most = min(most, self.cap)
        return most if limit is None else min(most, limit)

    @property
    def keeps(self) -> int:
        """How many runs a worker may keep where surplus is handed back."""
        return min(self.share, self.cap) if self.cap else self.share

    def add_run(self, task: Task, slot_ms: int | None) -> Run:
        """Something more to do, at the end of the line; nobody holds it."""
        self.last_number += 1
        run = Run(task, self.last_number, slot_ms)
        self.runs[run.number] = run
        self.free.add(run.number)
        task.runs.append(run)
        return run

    def enter(self, place: TaskPlace) -> None:
        """Stand in line."""
        self.line.append((place.arrival, place))
        self.places[place.session] = place

    def exit(self, place: TaskPlace) -> None:
        """Leave the line."""
        del self.line[self.rank(place)]
        del self.places[place.session]

    def rank(self, place: TaskPlace) -> int:
        """How many stand before."""
        return bisect_left(self.line, (place.arrival,))
