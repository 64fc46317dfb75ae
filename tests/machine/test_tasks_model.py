"""Pools of tasks against a plain model, on thousands of random entries.

The model shares no code with `cluster/machine` but commands, outcomes and limits: flat lists,
searched anew at each step. A failing walk prints its number; `--seed N` shifts all walks to others.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from cluster.machine import limits
from cluster.machine.commands import (
    Abandon,
    Batch,
    CloseSession,
    Command,
    Group,
    KeepAlive,
    OpenSession,
    Origin,
    Request,
    RequestId,
)
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
    RunTask,
    Schedule,
    SetSlot,
    Work,
)
from cluster.machine.machine import Machine
from cluster.machine.outcome import (
    Abandoned,
    Answer,
    Closed,
    Opened,
    Outcome,
    Queued,
    QueueFull,
    Renewed,
    SessionExpired,
    Withdrawn,
)
from cluster.machine.outcome.tasks import (
    Handed,
    PoolLeft,
    PoolNotFound,
    PoolRemoved,
    SlotSet,
    SlotVoid,
    TaskNotFound,
    TaskNotScheduled,
    TaskPaused,
    TaskRan,
    TaskRemoved,
    TasksFinished,
    TasksPut,
    TasksReleased,
    Worked,
)
from cluster.wire import cbor, commands, snapshot

POOLS = ("p", "q")
IDS = ("a", "b", "c", "d", "e", "f", "g", "h")
WALKS = range(80)
ENTRIES = 120


@dataclass
class MSession:
    """A living session; things counts what it works in, holds and waits for."""

    id: str
    token: int
    ttl_ms: int
    ends_ms: int


@dataclass
class MTask:
    """A task, with its schedule if it has one."""

    pool: str
    id: str
    data: bytes | None
    is_text: bool
    schedule: Schedule | None = None
    paused: bool = False
    revision: int = 0
    after_ms: int = 0
    wants: bool = False
    slot_ms: int | None = None
    due_ms: int = 0
    buffered_ms: int | None = None
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("f", "s", "m"), 0))


@dataclass
class MRun:
    """Something to do, in the list of all runs."""

    task: MTask
    slot_ms: int | None
    session: str | None = None
    token: int = 0
    since_ms: int = 0


@dataclass
class MWait:
    """One wait; waits of one session in one pool carry the arrival and limit of the first."""

    pool: str
    session: str
    limit: int | None
    until_ms: int
    arrival: int
    order: int
    request: RequestId


@dataclass
class MPool:
    """A pool; workers by token of joining."""

    name: str
    cap: int = 0
    give_back: bool = False
    workers: list[tuple[int, str]] = field(default_factory=list)


class Model:
    """Has `apply` as the machine does; everything else is open to look at."""

    def __init__(self) -> None:
        self.index = self.time_ms = self.wall_ms = self.token = self.order = 0
        self.sessions: list[MSession] = []
        self.pools: list[MPool] = []
        self.tasks: list[MTask] = []
        self.runs: list[MRun] = []
        self.waits: list[MWait] = []
        self.told: list[Answer] = []
        self.settled: set[RequestId] = set()
        self.freed: list[str] = []  # pools to look at first

    def apply(self, index: int, batch: Batch) -> list[Answer]:
        """Apply an entry."""
        self.index, self.told = index, []
        self.time_ms = max(self.time_ms, batch.now_ms)
        self.wall_ms = batch.wall_ms
        while due := [
            *((s.ends_ms, 1, s.token) for s in self.sessions if s.ends_ms <= self.time_ms),
            *((w.until_ms, 2, w.order) for w in self.waits if w.until_ms <= self.time_ms),
        ]:
            _, kind, number = min(due)
            if kind == 1:
                self.hand_out(self.end(next(s for s in self.sessions if s.token == number)))
            else:
                wait = next(w for w in self.waits if w.order == number)
                self.tell(wait, Worked(wait.pool, wait.session, self.share(wait.pool), (), ()))
        while slots := [
            (t.due_ms, t.revision, t)
            for t in self.tasks
            if t.slot_ms is not None and t.due_ms <= self.wall_ms
        ]:
            self.slot(min(slots, key=lambda slot: slot[:2])[2])
            self.hand_out(list(POOLS))
        for group in batch.groups:
            for request in group.requests:
                id = RequestId(*group.origin, request.seq)
                assert request.command is not None
                self.freed = []
                outcome = self.command(request.command, id)
                self.told.append(Answer(id, outcome))
                self.hand_out([*self.freed, *POOLS])
        return self.told

    # Looking.

    def session(self, id: str) -> MSession | None:
        return next((s for s in self.sessions if s.id == id), None)

    def pool(self, name: str) -> MPool | None:
        return next((p for p in self.pools if p.name == name), None)

    def task(self, pool: str, id: str) -> MTask | None:
        return next((t for t in self.tasks if (t.pool, t.id) == (pool, id)), None)

    def runs_of(self, task: MTask) -> list[MRun]:
        return [run for run in self.runs if run.task is task]

    def open(self, pool: str) -> list[MRun]:
        return [run for run in self.runs if run.task.pool == pool]

    def held(self, pool: str, session: str) -> list[MRun]:
        """In order of grant."""
        found = [run for run in self.open(pool) if run.session == session]
        return sorted(found, key=lambda run: run.token)

    def share(self, name: str) -> int:
        pool = self.pool(name)
        workers = max(1, len(pool.workers) if pool else 0)
        whole, rest = divmod(len(self.open(name)), workers)
        return whole + (rest > 0)

    def line(self, pool: str) -> list[MWait]:
        waits = [wait for wait in self.waits if wait.pool == pool]
        return sorted(waits, key=lambda wait: (wait.arrival, wait.order))

    def places(self, pool: str) -> list[str]:
        """Who waits, by arrival; a session that waits twice stands once."""
        return list(dict.fromkeys(w.session for w in self.line(pool)))

    def works(self, pool: MPool, session: str) -> bool:
        return any(worker == session for _, worker in pool.workers)

    def things(self, session: str) -> int:
        count = sum(self.works(pool, session) for pool in self.pools)
        count += sum(run.session == session for run in self.runs)
        return count + sum(session in self.places(pool.name) for pool in self.pools)

    # Changing.

    def next_token(self) -> int:
        self.token = max(self.token + 1, self.index)
        return self.token

    def tell(self, wait: MWait, outcome: Outcome) -> None:
        self.waits.remove(wait)
        self.told.append(Answer(wait.request, outcome))
        self.settled.add(wait.request)

    def end(self, session: MSession) -> list[str]:
        """End a session; gives the pools to look at."""
        self.sessions.remove(session)
        held = sorted((r for r in self.runs if r.session == session.id), key=lambda r: r.token)
        for run in held:
            run.session, run.token, run.since_ms = None, 0, 0
        for pool in self.pools:
            pool.workers = [worker for worker in pool.workers if worker[1] != session.id]
        mine = [w for w in self.waits if w.session == session.id]
        for wait in sorted(mine, key=lambda wait: (wait.arrival, wait.order)):
            self.tell(wait, SessionExpired(session.id))
        return [run.task.pool for run in held]

    def hand_out(self, pools: list[str]) -> None:
        for name in pools:
            while self.waits and any(run.session is None for run in self.open(name)):
                line = self.line(name)
                if not line:
                    break
                session = self.session(line[0].session)
                assert session is not None
                if session.ends_ms <= self.time_ms:
                    pools.extend(self.end(session))
                    continue
                mine = [wait for wait in line if wait.session == session.id]
                room = limits.OWNED_PER_SESSION_MAX - self.things(session.id) + 1
                worked = self.give(name, session.id, line[0].limit, room, ())
                for wait in mine:
                    self.tell(wait, worked)

    def give(
        self,
        name: str,
        session: str,
        limit: int | None,
        room: int,
        given_back: Sequence[tuple[str, int]],
    ) -> Worked:
        pool = self.pool(name)
        assert pool is not None
        bounds = [self.share(name), limits.TASKS_PER_WORKER_MAX, pool.cap or 10**9]
        missing = min([*bounds, limit or 10**9]) - len(self.held(name, session))
        for run in [run for run in self.open(name) if run.session is None]:
            if missing <= 0 or room <= 0:
                break
            missing, room = missing - 1, room - 1
            run.session, run.token, run.since_ms = session, self.next_token(), self.time_ms
        tasks = tuple(
            Handed(r.task.id, r.task.data, r.task.is_text, r.token, r.slot_ms)
            for r in self.held(name, session)
        )
        return Worked(name, session, self.share(name), tasks, tuple(given_back))

    # Slots.

    def want(self, task: MTask) -> None:
        task.revision, task.wants, task.slot_ms = self.next_token(), True, None

    def slot(self, task: MTask) -> None:
        assert task.schedule is not None
        assert task.slot_ms is not None
        task.after_ms = task.slot_ms
        if self.wall_ms - task.due_ms > task.schedule.catchup_ms:
            task.counts["m"] += 1
        else:
            self.fire(task, task.slot_ms)
        self.want(task)

    def fire(self, task: MTask, slot_ms: int) -> str:
        assert task.schedule is not None
        runs = self.runs_of(task)
        beside = task.schedule.overlap == ALLOW and len(runs) < limits.RUNS_PER_TASK_MAX
        if not runs or beside:
            task.counts["f"] += 1
            self.runs.append(MRun(task, slot_ms))
            return "started"
        if task.schedule.overlap == BUFFER and task.buffered_ms is None:
            task.buffered_ms = slot_ms
            return "buffered"
        task.counts["s"] += 1
        return "skipped"

    def set_schedule(self, task: MTask, schedule: Schedule, paused: bool) -> None:
        task.schedule, task.paused = schedule, paused
        task.after_ms = max(task.after_ms, self.wall_ms)
        self.want(task)
        task.wants = not paused

    def pause(self, task: MTask, paused: bool) -> None:
        if task.paused != paused:
            task.paused = paused
            task.slot_ms, task.wants = None, False
            if not paused:
                task.after_ms = max(task.after_ms, self.wall_ms)
                self.want(task)

    def clear_schedule(self, task: MTask) -> None:
        task.schedule = task.slot_ms = task.buffered_ms = None
        task.wants = task.paused = False
        task.after_ms = 0
        task.counts = dict.fromkeys(("f", "s", "m"), 0)

    # Commands.

    def command(self, command: Command, id: RequestId) -> Outcome:
        if isinstance(command, OpenSession):
            token = self.next_token()
            session = MSession(
                f"{token:x}-{command.nonce}", token, command.ttl_ms, self.time_ms + command.ttl_ms
            )
            self.sessions.append(session)
            return Opened(session.id, session.ttl_ms, token)
        if isinstance(command, Abandon):
            abandoned = id._replace(seq=command.seq)
            for wait in [w for w in self.waits if w.request == abandoned]:
                self.tell(wait, Withdrawn())
            return Abandoned()
        if isinstance(command, (KeepAlive, CloseSession, Work, LeavePool, ReleaseTasks)):
            living = self.session(command.session)
            if living is None:
                return SessionExpired(command.session)
            if isinstance(command, KeepAlive):
                living.ends_ms = self.time_ms + living.ttl_ms
                return Renewed(living.id, living.ttl_ms)
            if isinstance(command, CloseSession):
                self.freed = self.end(living)
                return Closed(living.id)
        if (
            isinstance(command, FinishTasks)
            and command.session is not None
            and self.session(command.session) is None
        ):
            return SessionExpired(command.session)
        if isinstance(command, PutTasks):
            return self.put(command)
        if isinstance(command, (PauseTask, RunTask, SetSlot, RemoveTask)):
            return self.of_task(command)
        assert isinstance(command, (RemovePool, Work, FinishTasks, ReleaseTasks, LeavePool))
        pool = self.pool(command.pool)
        if pool is None:
            return PoolNotFound(command.pool)
        if isinstance(command, RemovePool):
            return self.remove_pool(pool)
        if isinstance(command, Work):
            return self.work(command, pool, id)
        if isinstance(command, LeavePool):
            return self.leave(command, pool)
        return self.each(command)

    def put(self, command: PutTasks) -> Outcome:
        pool = self.pool(command.pool)
        named = {new.id: new for new in command.tasks}
        before = {t.id for t in self.tasks if t.pool == command.pool}
        gone = before - set(named) if command.replace else set()
        fresh = set(named) - before
        if pool is None and len(self.pools) >= limits.POOLS_MAX:
            return QueueFull("pools", limits.POOLS_MAX)
        if fresh and len(before | set(named)) - len(gone) > limits.TASKS_PER_POOL_MAX:
            return QueueFull("tasks of a pool", limits.TASKS_PER_POOL_MAX)
        if fresh and len(self.tasks) + len(fresh) - len(gone) > limits.TASKS_MAX:
            return QueueFull("tasks", limits.TASKS_MAX)
        if pool is None:
            pool = MPool(command.pool)
            self.pools.append(pool)
        pool.cap = pool.cap if command.cap is None else command.cap
        pool.give_back = pool.give_back if command.give_back is None else command.give_back
        for id in sorted(gone):
            task = self.task(pool.name, id)
            assert task is not None
            self.drop(task)
        updated = 0
        for new in [n for n in named.values() if n.id in before]:
            task = self.task(pool.name, new.id)
            assert task is not None
            updated += self.update(task, new)
        for new in [n for n in named.values() if n.id in fresh]:
            task = MTask(pool.name, new.id, new.data, new.is_text)
            self.tasks.append(task)
            if new.schedule is None:
                self.runs.append(MRun(task, None))
            else:
                self.set_schedule(task, new.schedule, bool(new.paused))
        same = len(named) - len(fresh) - updated
        total = sum(t.pool == pool.name for t in self.tasks)
        return TasksPut(pool.name, len(fresh), updated, same, len(gone), total)

    def update(self, task: MTask, new: NewTask) -> bool:
        was = (task.data, task.data is None or task.is_text, task.schedule)
        is_new = was != (new.data, new.data is None or new.is_text, new.schedule)
        task.data, task.is_text = new.data, new.is_text
        if new.schedule is None:
            if task.schedule is not None:
                self.clear_schedule(task)
                if not self.runs_of(task):
                    self.runs.append(MRun(task, None))
        elif task.schedule is None:
            self.runs = [r for r in self.runs if r.task is not task or r.session is not None]
            self.set_schedule(task, new.schedule, bool(new.paused))
        elif task.schedule != new.schedule:
            paused = task.paused if new.paused is None else new.paused
            self.set_schedule(task, new.schedule, paused)
        elif new.paused is not None and new.paused != task.paused:
            self.pause(task, new.paused)
            return True
        return is_new

    def drop(self, task: MTask) -> None:
        self.tasks.remove(task)
        self.runs = [run for run in self.runs if run.task is not task]

    def of_task(self, command: PauseTask | RunTask | SetSlot | RemoveTask) -> Outcome:
        task = self.task(command.pool, command.task)
        if isinstance(command, SetSlot):
            if task is None or not task.wants or task.revision != command.revision:
                return SlotVoid()
            if command.slot_ms is not None and command.slot_ms <= task.after_ms:
                return SlotVoid()
            task.wants = False
            task.counts["m"] += command.missed
            task.slot_ms = command.slot_ms
            task.due_ms = (command.slot_ms or 0) + command.jitter_ms
            return SlotSet()
        if task is None:
            if self.pool(command.pool) is None:
                return PoolNotFound(command.pool)
            return TaskNotFound(command.pool, command.task)
        if isinstance(command, RemoveTask):
            holders = tuple(r.session for r in self.runs_of(task) if r.session is not None)
            self.drop(task)
            return TaskRemoved(task.pool, task.id, holders)
        if task.schedule is None:
            return TaskNotScheduled(task.pool, task.id)
        if isinstance(command, RunTask):
            return TaskRan(task.pool, task.id, self.fire(task, self.wall_ms))
        self.pause(task, command.paused)
        return TaskPaused(task.pool, task.id, command.paused)

    def remove_pool(self, pool: MPool) -> Outcome:
        for wait in self.line(pool.name):
            self.tell(wait, PoolNotFound(pool.name))
        mine = [task for task in self.tasks if task.pool == pool.name]
        for task in mine:
            self.drop(task)
        self.pools.remove(pool)
        return PoolRemoved(pool.name, len(mine))

    def work(self, command: Work, pool: MPool, id: RequestId) -> Outcome:
        session = self.session(command.session)
        assert session is not None
        is_new = not self.works(pool, session.id)
        free = [run for run in self.open(pool.name) if run.session is None]
        parks = command.wait_ms > 0 and not free and not self.held(pool.name, session.id)
        if parks and len(self.waits) >= limits.PARKED_MAX:
            return QueueFull("parked requests", limits.PARKED_MAX)
        stands = session.id in self.places(pool.name)
        more = is_new + (parks and not stands)
        if more and self.things(session.id) + more > limits.OWNED_PER_SESSION_MAX:
            return QueueFull("things of a session", limits.OWNED_PER_SESSION_MAX)
        if is_new:
            if len(pool.workers) >= limits.WORKERS_PER_POOL_MAX:
                return QueueFull("workers of a pool", limits.WORKERS_PER_POOL_MAX)
            pool.workers.append((self.next_token(), session.id))
        session.ends_ms = self.time_ms + session.ttl_ms
        if parks:
            self.order += 1
            limit, arrival = command.limit, self.order
            if stands:
                first = next(w for w in self.line(pool.name) if w.session == session.id)
                limit, arrival = first.limit, first.arrival
            until_ms = self.time_ms + command.wait_ms
            self.waits.append(
                MWait(pool.name, session.id, limit, until_ms, arrival, self.order, id)
            )
            return Queued(pool.name, self.places(pool.name).index(session.id) + 1)
        given_back = []
        if pool.give_back:
            keeps = min(self.share(pool.name), pool.cap or 10**9)
            surplus = self.held(pool.name, session.id)[keeps:]
            for run in reversed(surplus):
                given_back.append((run.task.id, run.token))
                run.session, run.token, run.since_ms = None, 0, 0
        room = limits.OWNED_PER_SESSION_MAX - self.things(session.id)
        return self.give(pool.name, session.id, command.limit, room, given_back)

    def leave(self, command: LeavePool, pool: MPool) -> Outcome:
        if not self.works(pool, command.session):
            return PoolLeft(pool.name, 0)
        told = Worked(pool.name, command.session, self.share(pool.name), (), ())
        for wait in [w for w in self.line(pool.name) if w.session == command.session]:
            self.tell(wait, told)
        freed = self.held(pool.name, command.session)
        for run in freed:
            run.session, run.token, run.since_ms = None, 0, 0
        pool.workers = [w for w in pool.workers if w[1] != command.session]
        return PoolLeft(pool.name, len(freed))

    def each(self, command: FinishTasks | ReleaseTasks) -> Outcome:
        done, refused = [], []
        for id, token in command.tasks:
            run = self.meant(command, id, token)
            if not isinstance(run, MRun):
                refused.append((id, *run))
                continue
            done.append(id)
            self.runs.remove(run)
            task = run.task
            if isinstance(command, ReleaseTasks):
                self.runs.append(MRun(task, run.slot_ms))
            elif not self.runs_of(task):
                if task.schedule is None:
                    self.drop(task)
                elif task.buffered_ms is not None:
                    slot_ms, task.buffered_ms = task.buffered_ms, None
                    self.fire(task, slot_ms)
        if isinstance(command, ReleaseTasks):
            return TasksReleased(command.pool, tuple(done), tuple(refused))
        return TasksFinished(command.pool, tuple(done), tuple(refused))

    def meant(
        self, command: FinishTasks | ReleaseTasks, id: str, token: int | None
    ) -> MRun | tuple[str, int | None]:
        task = self.task(command.pool, id)
        if task is None:
            return "task_not_found", None
        runs = self.runs_of(task)
        tokens = [run.token for run in runs if run.session is not None]
        fits = [run for run in runs if token is None or (run.session and run.token == token)]
        fits = [run for run in fits if command.session in {None, run.session}]
        if fits:
            return fits[0]
        newest = max(tokens, default=None)
        is_stale = tokens and token is not None and token not in tokens
        return "stale_token" if is_stale else "not_holder", newest


class Walk:
    """Random entries; learns ids and tokens from the answers."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.now_ms = 0
        self.wall_ms = 1_000
        self.seq = 0
        self.parked: list[int] = []
        self.sessions: list[str] = []
        self.held: list[tuple[str, str, str, int]] = []

    def batch(self, machine: Machine) -> Batch:
        """The next entry, often just at a deadline."""
        rng = self.rng
        before = self.now_ms
        deadline, due = machine.next_deadline_ms(), machine.next_wall_ms()
        is_near = deadline is not None and deadline - self.now_ms < rng.choice((30, 30, 30, 500))
        if deadline is not None and is_near and rng.random() < 0.3:
            self.now_ms = max(self.now_ms, deadline + rng.choice((-1, 0, 1)))
        else:
            self.now_ms += rng.choice((0, 1, 5, 20))
        self.wall_ms += self.now_ms - before
        if due is not None and rng.random() < 0.5:
            self.wall_ms = max(0, due + rng.choice((-1, 0, 0, 1, 60)))
        elif rng.random() < 0.05:
            self.wall_ms = max(0, self.wall_ms + rng.choice((-500, 500)))
        requests = []
        for _ in range(rng.choice((0, 1, 1, 2, 3))):
            self.seq += 1
            command = commands.decode(commands.encode(self.command(machine)))
            requests.append(Request(self.seq, command))
        groups = (Group(Origin("n1", 1), 0, tuple(requests)),) if requests else ()
        return Batch(self.now_ms, self.wall_ms, groups)

    def read(self, answers: list[Answer]) -> None:
        """Learn from the answers."""
        for answer in answers:
            outcome, seq = answer.outcome, answer.request.seq
            if isinstance(outcome, Queued):
                self.parked.append(seq)
            elif seq in self.parked:
                self.parked.remove(seq)
            if isinstance(outcome, Opened):
                self.sessions = [*self.sessions[-4:], outcome.session]
            elif isinstance(outcome, SessionExpired) and self.rng.random() < 0.7:
                self.sessions = [id for id in self.sessions if id != outcome.session]
            elif isinstance(outcome, Worked):
                for task in outcome.tasks:
                    self.held.append((outcome.pool, outcome.session, task.id, task.token))
        self.held = self.held[-16:]

    def command(self, machine: Machine) -> Command:
        """Something to do."""
        rng = self.rng
        if not self.sessions or rng.random() < 0.05:
            return OpenSession("s", rng.choice((50, 200, 1_000, 3_000)))
        pool, session = rng.choice(POOLS), rng.choice(self.sessions)
        wanted = machine.tasks.wanting(0, 100)
        if wanted and rng.random() < 0.25:
            return self.answer_to(rng.choice(wanted))
        if self.parked and rng.random() < 0.05:
            return Abandon(rng.choice(self.parked))
        dice = rng.random()
        if dice < 0.2:
            return self.put(pool)
        if dice < 0.5:
            limit = rng.choice((None, None, 1, 2))
            return Work(session, pool, limit, rng.choice((0, 0, 20, 100)))
        if dice < 0.68 and self.held:
            return self.done()
        if dice < 0.72:
            return KeepAlive(session)
        if dice < 0.74:
            return CloseSession(session)
        if dice < 0.78:
            return Abandon(rng.choice([*self.parked, max(1, self.seq - 3)]))
        if dice < 0.81:
            return LeavePool(session, pool)
        if dice < 0.84:
            return RemoveTask(pool, rng.choice(IDS))
        if dice < 0.845:
            return RemovePool(pool)
        if dice < 0.92:
            return PauseTask(pool, rng.choice(IDS), rng.random() < 0.4)
        return RunTask(pool, rng.choice(IDS))

    def answer_to(self, wanted: object) -> SetSlot:
        rng = self.rng
        pool, task, revision, _, after_ms = wanted  # type: ignore[misc]
        slot_ms = None if rng.random() < 0.03 else max(0, after_ms + rng.choice((0, 1, 30, 100)))
        revision -= rng.random() < 0.05
        return SetSlot(pool, task, revision, slot_ms, rng.choice((0, 0, 7)), rng.choice((0, 0, 2)))

    def put(self, pool: str) -> PutTasks:
        rng = self.rng
        tasks = []
        for id in rng.sample(IDS, rng.choice((0, 1, 2, 4))):
            overlap, catchup_ms = rng.choice((SKIP, BUFFER, ALLOW)), rng.choice((10, 50))
            schedule = Schedule(100, 0, "", "", overlap, catchup_ms, 0)
            data = rng.choice((None, b"x", b"\xff"))
            tasks.append(
                NewTask(
                    id,
                    data,
                    data != b"\xff",
                    schedule if rng.random() < 0.4 else None,
                    rng.choice((None, None, None, True, False)),
                )
            )
        cap, give_back = rng.choice((None, None, 0, 1, 3)), rng.choice((None, None, True, False))
        return PutTasks(pool, tuple(tasks), rng.random() < 0.15, cap, give_back)

    def done(self) -> Command:
        rng = self.rng
        pool, session, _, _ = rng.choice(self.held)
        if rng.random() < 0.1:
            session = rng.choice(self.sessions)
        mine = [(id, token) for p, s, id, token in self.held if (p, s) == (pool, session)]
        some: list[tuple[str, int | None]] = list(rng.sample(mine, min(len(mine), 2)))
        if rng.random() < 0.1:
            some.append((rng.choice(IDS), rng.choice((None, 1, 5))))
        if rng.random() < 0.3:
            return ReleaseTasks(session, pool, tuple(some))
        is_front = rng.random() < 0.1
        if is_front:
            some = [(id, None) for id, _ in some]
        return FinishTasks(None if is_front else session, pool, tuple(some))


def looks_alike(machine: Machine, model: Model) -> None:
    """Every picture of the machine says what the model says."""
    now_ms, tasks = machine.now_ms, machine.tasks
    assert [info.pool for info in tasks.list(now_ms)] == sorted(p.name for p in model.pools)
    for pool in model.pools:
        info = tasks.info(pool.name, now_ms)
        assert info is not None
        mine = [task for task in model.tasks if task.pool == pool.name]
        free = sum(run.session is None for run in model.open(pool.name))
        told = (info.cap, info.give_back, info.tasks, info.runs, info.free, info.share)
        assert told == (
            pool.cap,
            pool.give_back,
            len(mine),
            len(model.open(pool.name)),
            free,
            model.share(pool.name),
        )
        waiting = model.places(pool.name)
        assert [(s, held, waits) for s, held, _, waits in info.workers] == [
            (s, len(model.held(pool.name, s)), s in waiting) for _, s in pool.workers
        ]
        pictures = tasks.tasks_of(pool.name, now_ms)
        assert [p.id for p in pictures] == sorted(task.id for task in mine)
        for picture in pictures:
            task = model.task(pool.name, picture.id)
            assert task is not None
            assert (picture.data, picture.schedule) == (task.data, task.schedule)
            assert picture.paused == task.paused
            assert (picture.slot_ms, picture.buffered_ms) == (task.slot_ms, task.buffered_ms)
            counts = [picture.fired, picture.skipped, picture.missed]
            assert counts == list(task.counts.values())
            assert [(r.slot_ms, r.session, r.token or 0) for r in picture.runs] == [
                (r.slot_ms, r.session, r.token) for r in model.runs_of(task)
            ]
    wanted = [(w.pool, w.task, w.revision, w.after_ms) for w in tasks.wanting(0, 10**6)]
    assert sorted(wanted) == sorted(
        (t.pool, t.id, t.revision, t.after_ms) for t in model.tasks if t.wants
    )
    dues = [t.due_ms for t in model.tasks if t.slot_ms is not None]
    assert machine.next_wall_ms() == min(dues, default=None)
    for session in model.sessions:
        picture_of = machine.sessions.info(session.id, now_ms)
        assert picture_of is not None
        assert len(picture_of.holds) + len(picture_of.waits) == model.things(session.id)


class Laws:
    """What is true whatever was asked, told from answers and pictures alone."""

    def __init__(self) -> None:
        self.grants: dict[int, tuple[str, str, str]] = {}

    def look(self, machine: Machine, answers: list[Answer]) -> None:
        """Rising tokens, living holders, nobody granted beyond its share, nobody idle in vain."""
        for answer in answers:
            outcome = answer.outcome
            if isinstance(outcome, Worked):
                newest = max(self.grants, default=0)
                fresh = [task for task in outcome.tasks if task.token not in self.grants]
                assert not fresh or len(outcome.tasks) <= outcome.share
                assert all(task.token > newest for task in fresh)
                for task in outcome.tasks:
                    grant = (outcome.pool, outcome.session, task.id)
                    assert self.grants.setdefault(task.token, grant) == grant
        for info in machine.tasks.list(machine.now_ms):
            assert not (info.free and any(waits for _, _, _, waits in info.workers))
            runs = [
                (task.id, run)
                for task in machine.tasks.tasks_of(info.pool, machine.now_ms)
                for run in task.runs
            ]
            held = {run.token: (id, run) for id, run in runs if run.session is not None}
            assert len(held) + info.free == info.runs == len(runs)
            for id, run in held.values():
                assert run.session is not None
                owner = machine.sessions.info(run.session, machine.now_ms)
                assert owner is not None, "a task outlived the session that held it"
                assert any(
                    (pool, token) == (info.pool, run.token) and part.startswith(f"{id}#")
                    for _, pool, part, token in owner.holds
                )


def reloaded(machine: Machine) -> Machine:
    """The same machine after a snapshot on disk; its dump is the same again."""
    rows = [cbor.encode(row) for row in machine.dump()]
    loaded = Machine.load(snapshot.decode(snapshot.encode(machine.dump())))
    assert [cbor.encode(row) for row in loaded.dump()] == rows
    return loaded


def walked(number: int, seed: int, entries: int = ENTRIES) -> set[str]:
    """Walk once; gives the kinds of answers that were met."""
    walk = Walk(random.Random(seed * 10_000 + number))
    machine, model, laws = Machine(), Model(), Laws()
    met: set[str] = set()
    index = 0
    for _ in range(entries):
        index += walk.rng.choice((1, 1, 3))
        batch = walk.batch(machine)
        answers = machine.apply(index, batch)
        assert answers == model.apply(index, batch)
        looks_alike(machine, model)
        laws.look(machine, answers)
        walk.read(answers)
        met.update(type(answer.outcome).__name__ for answer in answers)
        if walk.rng.random() < 0.05:
            machine = reloaded(machine)
    return met


@pytest.mark.parametrize("number", WALKS)
def test_pools_answer_as_the_model_does(number: int, seed: int) -> None:
    """Every answer and picture is the model's, with snapshots and loads on the way."""
    walked(number, seed)


@pytest.mark.parametrize("number", range(25))
def test_pools_keep_their_limits_as_the_model_does(
    number: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With limits so low that walks run into them."""
    monkeypatch.setattr(limits, "POOLS_MAX", 1)
    monkeypatch.setattr(limits, "TASKS_PER_POOL_MAX", 5)
    monkeypatch.setattr(limits, "TASKS_MAX", 4)
    monkeypatch.setattr(limits, "TASKS_PER_WORKER_MAX", 2)
    monkeypatch.setattr(limits, "WORKERS_PER_POOL_MAX", 3)
    monkeypatch.setattr(limits, "OWNED_PER_SESSION_MAX", 2)
    monkeypatch.setattr(limits, "PARKED_MAX", 2)
    walked(1000 + number, seed)


def test_the_walks_meet_what_they_should_meet() -> None:
    """They are not idle: every answer about tasks occurs in them."""
    met = set().union(*(walked(number, 0) for number in range(15)))
    assert met >= {
        "PoolLeft",
        "PoolNotFound",
        "PoolRemoved",
        "Queued",
        "SessionExpired",
        "SlotSet",
        "SlotVoid",
        "TaskNotFound",
        "TaskNotScheduled",
        "TaskPaused",
        "TaskRan",
        "TaskRemoved",
        "TasksFinished",
        "TasksPut",
        "TasksReleased",
        "Withdrawn",
        "Worked",
    }
