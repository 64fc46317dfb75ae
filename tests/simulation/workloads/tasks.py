"""Tasks: workers that share pools, die over their work, and schedules that must not slip.

RULE: the book moves tasks by answers alone, and compares itself with the machine's pools; slots it
hears of as watchers do, and counts them by its own arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cluster.machine.commands.tasks import (
    ALLOW,
    BUFFER,
    SKIP,
    FinishTasks,
    LeavePool,
    NewTask,
    PauseTask,
    PutTasks,
    ReleaseTasks,
    RemovePool,
    RemoveTask,
    Schedule,
    Work,
)
from cluster.machine.events import Event
from cluster.machine.machine import Machine
from cluster.machine.outcome import Closed
from cluster.machine.outcome.tasks import (
    PoolLeft,
    PoolRemoved,
    TaskRemoved,
    TasksFinished,
    TasksPut,
    TasksReleased,
    Worked,
)
from tests.simulation.clients import Client, Part, Pause, Session
from tests.simulation.network import MS
from tests.simulation.workloads.base import Book, Complain, Entry, Fresh, Workload

MAIL, CRON = "tasks/mail", "tasks/cron"
IDS = tuple(f"m{number}" for number in range(10))
SECOND_MS = 1_000

SCHEDULES = {
    "tick": Schedule(SECOND_MS, 0, "", "", SKIP, 5_000, 0),
    "tock": Schedule(2 * SECOND_MS, 0, "", "", ALLOW, 3_000, 500),
    "tack": Schedule(SECOND_MS, 0, "", "", BUFFER, 5_000, 0),
}


@dataclass(slots=True)
class PoolPage:
    """One pool as the book has it.

    Attributes:
        tasks: ids of plain and of scheduled tasks.
        held: token → session and id.
        workers: sessions that have asked for work.
    """

    tasks: set[str] = field(default_factory=set)
    held: dict[int, tuple[str, str]] = field(default_factory=dict)
    workers: set[str] = field(default_factory=set)


class TaskBook(Book):
    """One live holder, fair shares, nothing lost, every slot once and none left out."""

    def __init__(self, complain: Complain) -> None:
        super().__init__(complain)
        self._pools: dict[str, PoolPage] = {}
        self._slots: dict[tuple[str, str], int] = {}
        self._passed: dict[tuple[str, str], int] = {}
        self._buffered: dict[tuple[str, str], int] = {}

    def applied(self, entry: Entry) -> None:
        """What expired comes first, then slots, then the answers in their order."""
        for session in entry.expired:
            self._forget(session)
        most = {name: len(page.workers) for name, page in self._pools.items()}
        for parked in entry.queued:
            if isinstance(parked.command, Work):
                self._join(parked.command.pool, parked.command.session, entry.gone)
        for event in entry.events:
            if event.kind == "task":
                self._slot(entry, event)
        for fresh in entry.fresh:
            self._answer(entry, fresh, most)
        for session in entry.gone:
            self._forget(session)
        self._compare(entry.index, entry.machine)

    def finish(self, machine: Machine) -> None:
        """Nobody waits for what is free."""
        for name in self._pools:
            info = machine.tasks.info(name, machine.now_ms)
            if info is not None and info.free and any(waits for *_, waits in info.workers):
                self.complain("no stuck waiter", f"{name} has {info.free} free, and waiters")

    # Who holds what.

    def _join(self, pool: str, session: str, gone: frozenset[str]) -> None:
        if session not in gone:
            self._pools.setdefault(pool, PoolPage()).workers.add(session)

    def _forget(self, session: str) -> None:
        """A session has ended: it works nowhere and holds nothing."""
        for page in self._pools.values():
            page.workers.discard(session)
            for token in [t for t, (holder, _) in page.held.items() if holder == session]:
                del page.held[token]

    def _answer(self, entry: Entry, fresh: Fresh, most: dict[str, int]) -> None:
        outcome, command = fresh.outcome, fresh.command
        if isinstance(outcome, Closed):
            self._forget(outcome.session)
        elif isinstance(outcome, Worked):
            self._worked(entry, outcome, most)
        elif isinstance(outcome, TasksPut) and isinstance(command, PutTasks):
            self._put(entry, outcome, command)
        elif isinstance(outcome, TaskRemoved):
            self._drop(outcome.pool, {outcome.task})
        elif isinstance(outcome, PoolRemoved):
            page = self._pools.pop(outcome.pool, PoolPage())
            if outcome.removed != len(page.tasks):
                self.complain("tasks", f"{outcome} at {entry.index}, the book has {page.tasks}")
            for id in page.tasks:
                self._unslot(outcome.pool, id)
        elif isinstance(outcome, PoolLeft) and isinstance(command, LeavePool):
            page = self._pools[outcome.pool]
            page.workers.discard(command.session)
            mine = [t for t, (holder, _) in page.held.items() if holder == command.session]
            if outcome.freed != len(mine):
                self.complain("tasks", f"{outcome} at {entry.index}, the book has {mine}")
            for token in mine:
                del page.held[token]
        elif isinstance(outcome, TasksFinished) and isinstance(command, FinishTasks):
            self._handed_in(entry, command, outcome.finished)
            page = self._pools[outcome.pool]
            page.tasks -= {id for id in outcome.finished if id not in SCHEDULES}
            self.count("finished", len(outcome.finished))
        elif isinstance(outcome, TasksReleased) and isinstance(command, ReleaseTasks):
            self._handed_in(entry, command, outcome.released)
            self.count("released", len(outcome.released))

    def _worked(self, entry: Entry, worked: Worked, most: dict[str, int]) -> None:
        page = self._pools.setdefault(worked.pool, PoolPage())
        many = max(most.get(worked.pool, 0), len(page.workers)) + len(entry.queued) + 1
        page.workers.add(worked.session)
        for id, token in worked.given_back:
            if page.held.pop(token, None) != (worked.session, id):
                self.complain("tasks", f"{worked} at {entry.index} gives back what it had not")
            self.count("given back")
        is_new = False
        for task in worked.tasks:
            held = page.held.get(task.token)
            if held is not None:
                if held != (worked.session, task.id):
                    self.complain("one holder of a task", f"{worked} at {entry.index}: {held}'s")
                continue
            is_new = True
            entry.gave(task.token, (worked.session, task))
            others = [h for h in page.held.values() if h[1] == task.id]
            if others and task.id != "tock":
                self.complain("one holder of a task", f"{worked} at {entry.index}: {others} too")
            if task.id not in page.tasks:
                self.complain("tasks", f"{worked} at {entry.index}: no task {task.id}")
            page.held[task.token] = (worked.session, task.id)
            self.count("granted")
        self._fair(entry, worked, page, many, is_new)

    def _fair(self, entry: Entry, worked: Worked, page: PoolPage, many: int, is_new: bool) -> None:
        """Its share is what there is over the workers, who may have been some more before."""
        if is_new and len(worked.tasks) > worked.share:
            self.complain("fair shares", f"{worked} at {entry.index}: more than its share")
        if worked.pool == MAIL and not any(f.command is not None for f in entry.fresh[1:]):
            # Alone in its entry: nothing else has moved what there is.
            shares = {-(-len(page.tasks) // n) for n in range(1, many + 1)}
            if worked.share not in shares:
                self.complain("fair shares", f"{worked} at {entry.index}: not of {shares}")

    def _put(self, entry: Entry, outcome: TasksPut, command: PutTasks) -> None:
        page = self._pools.setdefault(outcome.pool, PoolPage())
        named = {task.id for task in command.tasks}
        gone = page.tasks - named if command.replace else set()
        if (outcome.added, outcome.removed) != (len(named - page.tasks), len(gone)):
            self.complain("tasks", f"{outcome} at {entry.index}, the book has {page.tasks}")
        self._drop(outcome.pool, gone)
        page.tasks |= named
        if outcome.total != len(page.tasks):
            self.complain("tasks", f"{outcome} at {entry.index}, the book has {page.tasks}")
        self.count("put", outcome.added)

    def _drop(self, pool: str, ids: set[str]) -> None:
        page = self._pools[pool]
        page.tasks -= ids
        for token in [t for t, (_, id) in page.held.items() if id in ids]:
            del page.held[token]
        for id in ids:
            self._unslot(pool, id)

    def _handed_in(
        self, entry: Entry, command: FinishTasks | ReleaseTasks, done: tuple[str, ...]
    ) -> None:
        """Only what its session holds under the token it names; each once."""
        page = self._pools[command.pool]
        tokens: dict[str, list[int | None]] = {}
        for id, token in command.tasks:
            tokens.setdefault(id, []).append(token)
        for id in done:
            mine = [t for t in tokens.get(id, []) if page.held.get(t or 0) == (command.session, id)]
            if not mine:
                self.complain("one holder of a task", f"{id} of {command} done at {entry.index}")
                continue
            del page.held[mine[0] or 0]

    def _compare(self, index: int, machine: Machine) -> None:
        """The machine must hold what the book holds."""
        for name, page in self._pools.items():
            pictures = machine.tasks.tasks_of(name, machine.now_ms)
            ids = {task.id for task in pictures}
            if ids != page.tasks:
                self.complain("tasks", f"{name} after {index}: {ids}, book {page.tasks}")
            held: dict[int, tuple[str, str]] = {
                run.token: (run.session, task.id)
                for task in pictures
                for run in task.runs
                if run.token is not None and run.session is not None
            }
            if held != page.held:
                self.complain("tasks", f"{name} after {index}: {held}, book {page.held}")

    # When it is due.

    def _slot(self, entry: Entry, event: Event) -> None:
        """Slots are multiples of the interval, each later than the last, none left out."""
        more: dict[str, Any] = dict(event.more)
        id, slot_ms = more.get("task"), more.get("slot_ms")
        if id not in SCHEDULES or event.what not in {
            "fired",
            "missed",
            "skipped",
            "buffered",
            "resumed",
            "paused",
        }:
            return
        key = (event.name, id)
        if event.what in {"resumed", "paused"}:
            self._slots.pop(key, None)
            self._passed.pop(key, None)
            return
        self.count(f"slots {event.what}", more.get("slots", 1))
        if slot_ms is None:
            self._passed[key] = self._passed.get(key, 0) + more["slots"]
            return
        if event.what == "fired" and self._buffered.get(key) == slot_ms:
            del self._buffered[key]
            return  # It has waited for the run before it.
        if event.what == "buffered":
            self._buffered[key] = slot_ms
        schedule = SCHEDULES[id]
        if slot_ms % schedule.every_ms or slot_ms > entry.machine.core.wall_ms:
            self.complain("slots", f"{event} at {entry.index}, wall {entry.machine.core.wall_ms}")
        if event.what != "missed" and (
            entry.machine.core.wall_ms - slot_ms > schedule.catchup_ms + schedule.jitter_ms
        ):
            self.complain("slots", f"{event} at {entry.index}, too late to be run")
        last_ms, passed = self._slots.get(key), self._passed.pop(key, 0)
        if last_ms is not None and slot_ms != last_ms + (1 + passed) * schedule.every_ms:
            self.complain("slots", f"{event} at {entry.index} after {last_ms} and {passed} missed")
        self._slots[key] = slot_ms

    def _unslot(self, pool: str, id: str) -> None:
        for known in (self._slots, self._passed, self._buffered):
            known.pop((pool, id), None)


def turn(client: Client, session: Session) -> Part:
    """Put tasks, or work in a pool for a while, with every kind of carelessness."""
    rng = client.rng
    dice = rng.random()
    if dice < 0.25:
        yield from _put(client)
    elif dice < 0.28:
        yield from client.call(RemoveTask(MAIL, rng.choice(IDS)))
    elif dice < 0.29:
        yield from client.call(RemovePool(rng.choice((MAIL, CRON))))
    elif dice < 0.33:
        id = rng.choice(list(SCHEDULES))
        yield from client.call(PauseTask(CRON, id, rng.random() < 0.4))
    else:
        yield from _work(client, session, MAIL if rng.random() < 0.6 else CRON)


def _put(client: Client) -> Part:
    rng = client.rng
    if rng.random() < 0.5:
        tasks = tuple(NewTask(id, schedule=schedule) for id, schedule in SCHEDULES.items())
        yield from client.call(PutTasks(CRON, tasks))
        return
    tasks = tuple(
        NewTask(id, rng.choice((None, b"x"))) for id in rng.sample(IDS, rng.randrange(1, 7))
    )
    cap, give_back = rng.choice((None, 0, 3)), rng.choice((None, True, True, False))
    yield from client.call(PutTasks(MAIL, tasks, rng.random() < 0.1, cap, give_back))


def _work(client: Client, session: Session, pool: str) -> Part:
    """Ask for work, take some time, finish or hand back some of it, or forget it all."""
    rng = client.rng
    wait_ms = 0 if rng.random() < 0.4 else rng.randrange(50, 2_500)
    patience_us = rng.randrange(10 * MS, 800 * MS) if rng.random() < 0.1 else None
    limit = rng.choice((None, None, 1, 3))
    worked = yield from client.call(Work(session.id, pool, limit, wait_ms), patience_us=patience_us)
    session.note(worked)
    if not isinstance(worked, Worked) or not worked.tasks:
        return
    yield Pause(1 + int(rng.expovariate(1 / (60 * MS))))
    if rng.random() < 0.1:
        return  # Forgotten: the session's end frees it, or its next work tells of it.
    if rng.random() < 0.05:
        session.note((yield from client.call(LeavePool(session.id, pool))))
        return
    some = rng.sample(worked.tasks, rng.randrange(1, len(worked.tasks) + 1))
    tokened = tuple(
        (task.id, task.token if rng.random() < 0.95 else task.token - 1) for task in some
    )
    if rng.random() < 0.2:
        outcome = yield from client.call(ReleaseTasks(session.id, pool, tokened))
    else:
        outcome = yield from client.call(FinishTasks(session.id, pool, tokened))
    session.note(outcome)


WORKLOAD = Workload("tasks", book=TaskBook, turn=turn)
