"""Tasks: pools of work in fair shares over the sessions that work there.

RULE: a function of state, cluster time and command. Reads no clock, draws no lots; a schedule's
texts mean nothing here (`slots.py` has what is known of schedules).

A session joins a pool by its first `Work` and is a worker until it leaves or ends. `Work` gives it
all it holds, and more as long as it has less than its share: what there is to do over the number of
workers, rounded up. The oldest goes first. Nothing moves until somebody asks: what a dead session
held is free in the same step and goes to the next who asks or waits; and where a pool gives back,
a worker over its share loses its newest grants when it asks, and is told which.

A run is held by one live session at a time, under a token; finishing it is conditional on that.
Source: go-session-lock (its `get_work`); Gray & Cheriton (leases).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sortedcontainers import SortedList

from cluster.machine import limits
from cluster.machine.commands.base import Command, RequestId
from cluster.machine.commands.tasks import (
    FinishTasks,
    LeavePool,
    NewTask,
    PauseTask,
    PutTasks,
    ReleaseTasks,
    RemovePool,
    RemoveTask,
    RunTask,
    SetSlot,
    Work,
)
from cluster.machine.core import Core
from cluster.machine.deadlines import TASK_SLOT
from cluster.machine.events import Event
from cluster.machine.names import page
from cluster.machine.outcome.base import Outcome, QueueFull, Refusal
from cluster.machine.outcome.tasks import (
    PoolInfo,
    PoolLeft,
    PoolNotFound,
    PoolRemoved,
    SlotSet,
    SlotVoid,
    TaskInfo,
    TaskNotFound,
    TaskNotScheduled,
    TaskPaused,
    TaskRan,
    TaskRemoved,
    TasksFinished,
    TasksPut,
    TasksReleased,
    Wanted,
    Worked,
)
from cluster.machine.parked import Parked, Place
from cluster.machine.primitive import Blocker, Check, Handler, Table
from cluster.machine.sessions import Owned, Session
from cluster.machine.tasks.pictures import picture_of_pool, picture_of_task
from cluster.machine.tasks.pools import KIND, Pool, Run, Task, TaskPlace, Worker
from cluster.machine.tasks.records import tables
from cluster.machine.tasks.slots import Slots


class Tasks:
    """All pools.

    Attributes:
        pools: by name.
        tasks: of all pools together.
        workers: of all pools together; one session counts once for each.
        slots: what scheduled tasks wait for.
    """

    kind = KIND

    def __init__(self, core: Core) -> None:
        self._core = core
        self.pools: dict[str, Pool] = {}
        self._names = SortedList()
        self.tasks = 0
        self.workers = 0
        self.slots = Slots(core)
        self.handlers: Mapping[type[Command], Handler] = {
            PutTasks: self.put,
            RemoveTask: self.remove,
            RemovePool: self.remove_pool,
            Work: self.work,
            FinishTasks: self.finish,
            ReleaseTasks: self.release,
            LeavePool: self.leave_pool,
            PauseTask: self.pause,
            RunTask: self.run_now,
            SetSlot: self.set_slot,
        }
        self.timers: Mapping[int, Callable[[Any], None]] = {TASK_SLOT: self.slots.due}
        self.checks: Mapping[type[Command], Check] = {
            PutTasks: Check(_thing, self._would_refuse_to_put),
            FinishTasks: Check(_thing, self._would_refuse_each),
            ReleaseTasks: Check(_thing, self._would_refuse_each),
        }
        self.tables: tuple[Table, ...] = tables(self, core)

    def __len__(self) -> int:
        """How many pools there are."""
        return len(self.pools)

    def __iter__(self) -> Iterator[Pool]:
        """By name."""
        return (self.pools[name] for name in self._names)

    # Commands: what there is to do.

    def put(self, command: PutTasks, _: RequestId) -> TasksPut | Refusal:
        """Add and update tasks; with `replace` remove the others. All or nothing."""
        named = {new.id: new for new in command.tasks}
        pool = self.pools.get(command.pool)
        if (refusal := self._no_room(pool, command, named, 1)) is not None:
            return refusal
        if pool is None:
            pool = self.add(Pool(command.pool))
        if command.cap is not None:
            pool.cap = command.cap
        if command.give_back is not None:
            pool.give_back = command.give_back
        removed = 0
        if command.replace:
            gone = [pool.tasks[id] for id in pool.ids if id not in named]
            removed = len(gone)
            for task in gone:
                self._remove(task)
        fresh = [new for new in named.values() if new.id not in pool.tasks]
        pool.ids.update(new.id for new in fresh)
        updated = 0
        for new in named.values():
            known = pool.tasks.get(new.id)
            if known is not None:
                updated += self._update(known, new)
        for new in fresh:
            task = pool.tasks[new.id] = Task(pool, new.id, new.data, new.is_text)
            if new.schedule is None:
                pool.add_run(task, None)
            else:
                self.slots.schedule(task, new.schedule, bool(new.paused))
        self.tasks += len(fresh)
        total = len(pool.tasks)
        if fresh or updated or removed:
            counts = (("added", len(fresh)), ("updated", updated), ("removed", removed))
            self._core.events.append(Event("put", KIND, pool.name, more=counts))
        self._unsettle(pool)
        unchanged = len(named) - len(fresh) - updated
        return TasksPut(pool.name, len(fresh), updated, unchanged, removed, total)

    def remove(self, command: RemoveTask, _: RequestId) -> TaskRemoved | Refusal:
        """Take a task away; whoever held it holds it no longer."""
        task = self._task(command.pool, command.task)
        if isinstance(task, Refusal):
            return task
        holders = tuple(run.session for run in task.runs if run.session is not None)
        self._remove(task)
        self._core.events.append(Event("removed", KIND, command.pool, more=(("task", task.id),)))
        return TaskRemoved(command.pool, task.id, holders)

    def remove_pool(self, command: RemovePool, _: RequestId) -> PoolRemoved | Refusal:
        """Take a pool away; those who wait in it are told that it is not there."""
        core, name = self._core, command.pool
        pool = self.pools.get(name)
        if pool is None:
            return PoolNotFound(name)
        for place in list(pool.places.values()):
            pool.exit(place)
            core.grant(place, PoolNotFound(name))
        removed = len(pool.tasks)
        for task in [pool.tasks[id] for id in pool.ids]:
            self._remove(task)
        for worker in pool.workers.values():
            session = core.sessions.get(worker.session)
            assert session is not None, "a worker outlived its session"
            del session.owned[KIND, name, ""]
        self.workers -= len(pool.workers)
        del self.pools[name]
        self._names.remove(name)
        core.events.append(Event("removed", KIND, name, more=(("tasks", removed),)))
        return PoolRemoved(name, removed)

    # Commands: who does it.

    def work(self, command: Work, _: RequestId) -> Outcome | Parked:
        """Give a session all it holds, and what is missing to its share.

        With nothing in hand and nothing to be had it waits, if it wants to. A session that waits
        already keeps its place and its limit.
        """
        core = self._core
        session = core.sessions.get(command.session)
        if session is None:
            return core.gone(command.session)
        pool = self.pools.get(command.pool)
        if pool is None:
            return PoolNotFound(command.pool)
        worker = pool.workers.get(session.id)
        place = pool.places.get(session.id)
        wants = command.wait_ms > 0 and command.limit != 0
        parks = wants and not pool.free and (worker is None or not worker.held)
        if parks and core.is_full:
            return QueueFull("parked requests", limits.PARKED_MAX)
        more = (worker is None) + (parks and place is None)
        if more and session.things + more > limits.OWNED_PER_SESSION_MAX:
            return QueueFull("things of a session", limits.OWNED_PER_SESSION_MAX)
        if worker is None:
            if len(pool.workers) >= limits.WORKERS_PER_POOL_MAX:
                return QueueFull("workers of a pool", limits.WORKERS_PER_POOL_MAX)
            worker = self._join(pool, session)
        session.renew(core.now_ms)
        if parks:
            if place is None:
                place = TaskPlace(
                    pool.name, session.id, command.limit, core.next_arrival(), core.now_ms
                )
                pool.enter(place)
            return core.park(place, command.wait_ms)
        given_back = self._take_surplus(pool, worker, session) if pool.give_back else ()
        room = limits.OWNED_PER_SESSION_MAX - session.things
        return self._give(pool, worker, session, command.limit, room, given_back)

    def finish(self, command: FinishTasks, _: RequestId) -> TasksFinished | Refusal:
        """Tasks are done, each if it is held under its token; the others are refused one by one.

        A task without schedule is gone with its last run, one with a schedule waits for its slot.
        """
        found = self._each(command)
        if isinstance(found, Refusal):
            return found
        pool, session = found
        finished: list[str] = []
        refused: list[tuple[str, str, int | None]] = []
        for id, token in command.tasks:
            run = _find(pool, id, session, token)
            if isinstance(run, Run):
                finished.append(id)
                self._finish(run)
            else:
                refused.append((id, *run))
        self._unsettle(pool)
        return TasksFinished(pool.name, tuple(finished), tuple(refused))

    def release(self, command: ReleaseTasks, _: RequestId) -> TasksReleased | Refusal:
        """Hand tasks back; they go to the end of the line, so that others are tried before."""
        found = self._each(command)
        if isinstance(found, Refusal):
            return found
        pool, session = found
        released: list[str] = []
        refused: list[tuple[str, str, int | None]] = []
        for id, token in command.tasks:
            run = _find(pool, id, session, token)
            if not isinstance(run, Run):
                refused.append((id, *run))
            elif run.session is None:
                refused.append((id, "not_holder", None))
            else:
                released.append(id)
                self._end(run, "released")
                pool.add_run(run.task, run.slot_ms)
        self._unsettle(pool)
        return TasksReleased(pool.name, tuple(released), tuple(refused))

    def leave_pool(self, command: LeavePool, _: RequestId) -> PoolLeft | Refusal:
        """Work there no more; who has left already may say so again."""
        core, name = self._core, command.pool
        session = core.sessions.get(command.session)
        if session is None:
            return core.gone(command.session)
        pool = self.pools.get(name)
        if pool is None:
            return PoolNotFound(name)
        worker = pool.workers.get(session.id)
        if worker is None:
            return PoolLeft(name, 0)
        place = pool.places.get(session.id)
        if place is not None:
            pool.exit(place)
            core.grant(place, Worked(name, session.id, pool.share, (), ()))
        freed = list(worker.held.values())
        for run in freed:
            self._drop(run, "released")
            pool.free.add(run.number)
        del session.owned[KIND, name, ""]
        del pool.workers[session.id]
        self.workers -= 1
        core.events.append(Event("left", KIND, name, session.id, worker.token))
        self._unsettle(pool)
        return PoolLeft(name, len(freed))

    # Commands: when it is to be done.

    def pause(self, command: PauseTask, _: RequestId) -> TaskPaused | Refusal:
        """Let a schedule stand still, or go on. Slots of the meantime are not made up for."""
        task = self._task(command.pool, command.task)
        if isinstance(task, Refusal):
            return task
        if task.timing is None:
            return TaskNotScheduled(command.pool, command.task)
        self.slots.pause(task, command.paused)
        return TaskPaused(command.pool, task.id, command.paused)

    def run_now(self, command: RunTask, _: RequestId) -> TaskRan | Refusal:
        """Make a run as a slot of this moment would, paused or not."""
        task = self._task(command.pool, command.task)
        if isinstance(task, Refusal):
            return task
        if task.timing is None:
            return TaskNotScheduled(command.pool, command.task)
        what = self.slots.fire(task, self._core.wall_ms)
        return TaskRan(command.pool, task.id, what)

    def set_slot(self, command: SetSlot, _: RequestId) -> SlotSet | Refusal:
        """Take a leader's word for the next slot, if it was asked for and is a later one."""
        task = self._task(command.pool, command.task)
        if isinstance(task, Refusal) or not self.slots.set(task, command):
            return SlotVoid()
        return SlotSet()

    def wanting(self, after: int = 0, limit: int = 100) -> list[Wanted]:
        """Questions to the leader, oldest first; each stays until a `SetSlot` answers it.

        Any answer but the first is void, so that asking twice does no harm.

        Args:
            after: the revision of the last one seen; a newer question has a larger one.
        """
        return self.slots.wanting(after, limit)

    # What the machine asks of every primitive.

    def free(self, session: Session, thing: Owned, token: int) -> None:
        """The worker is gone: its membership, or one of its runs."""
        pool = self.pools[thing[1]]
        if thing[2]:
            run = pool.runs[int(thing[2].rpartition("#")[2])]
            self._let_go(run)
            pool.free.add(run.number)
            self._tell("lost", run, session.id, token)
            self._unsettle(pool)
        else:
            del pool.workers[session.id]
            self.workers -= 1
            self._core.events.append(Event("left", KIND, pool.name, session.id, token))

    def leave(self, place: Place) -> None:
        """Take a worker's place out of the line."""
        assert isinstance(place, TaskPlace)
        self.pools[place.name].exit(place)

    def settle(self, name: str) -> None:
        """Give what is free to those who wait, in order of arrival."""
        core, pool = self._core, self.pools.get(name)
        while pool is not None and pool.line and pool.free:
            place = pool.line[0][1]
            session = core.living(place.session)
            if session is None:
                continue  # It took its place along.
            pool.exit(place)
            worker = pool.workers[session.id]
            # Its place is still among its things, and makes room for one more.
            room = limits.OWNED_PER_SESSION_MAX - session.things + 1
            core.grant(place, self._give(pool, worker, session, place.limit, room, ()))

    def position(self, place: Place) -> int:
        """Rank in the line, from 1."""
        assert isinstance(place, TaskPlace)
        return self.pools[place.name].rank(place) + 1

    def too_late(self, place: Place) -> Worked:
        """Nothing to do came up."""
        assert isinstance(place, TaskPlace)
        return Worked(place.name, place.session, self.pools[place.name].share, (), ())

    def places(self) -> Iterator[Place]:
        """By pool, in order of arrival."""
        return (place for pool in self for _, place in pool.line)

    def blockers(self, name: str, session: str, place: Place | None) -> Iterator[Blocker]:
        """All who hold something, then all who wait before; nobody while there is some to be had."""
        pool = self.pools.get(name)
        if pool is None or (place is None and pool.free):
            return
        for worker in pool.workers.values():
            if worker.session != session:
                for run in worker.held.values():
                    yield Blocker(worker.session, run.token, run.since_ms, None)
        for position, (_, other) in enumerate(pool.line, 1):
            if other is place:
                return
            yield Blocker(other.session, None, other.since_ms, position)

    # Reading.

    def info(self, name: str, now_ms: int) -> PoolInfo | None:
        """A picture of one pool."""
        pool = self.pools.get(name)
        return None if pool is None else picture_of_pool(pool, now_ms)

    def list(
        self, now_ms: int, *, prefix: str = "", after: str | None = None, limit: int = 100
    ) -> list[PoolInfo]:
        """Pictures of at most `limit` pools whose names start with `prefix`, in order of name."""
        found = page(self._names, prefix, after, limit)
        return [info for name in found if (info := self.info(name, now_ms)) is not None]

    def task_info(self, name: str, id: str, now_ms: int) -> TaskInfo | None:
        """A picture of one task; None if there is none, or no such pool."""
        pool = self.pools.get(name)
        task = None if pool is None else pool.tasks.get(id)
        return None if task is None else picture_of_task(task, now_ms)

    def tasks_of(
        self, name: str, now_ms: int, *, after: str | None = None, limit: int = 100
    ) -> Sequence[TaskInfo]:
        """Pictures of at most `limit` tasks of a pool, in order of id."""
        pool = self.pools.get(name)
        if pool is None:
            return []
        return [picture_of_task(pool.tasks[id], now_ms) for id in page(pool.ids, "", after, limit)]

    # How it is done.

    def add(self, pool: Pool) -> Pool:
        """Take in a pool."""
        self.pools[pool.name] = pool
        self._names.add(pool.name)
        return pool

    def _task(self, pool_name: str, id: str) -> Task | Refusal:
        pool = self.pools.get(pool_name)
        if pool is None:
            return PoolNotFound(pool_name)
        task = pool.tasks.get(id)
        return TaskNotFound(pool_name, id) if task is None else task

    def _each(self, command: FinishTasks | ReleaseTasks) -> tuple[Pool, str | None] | Refusal:
        """The pool and the session of a command about several tasks."""
        if command.session is not None and self._core.sessions.get(command.session) is None:
            return self._core.gone(command.session)
        pool = self.pools.get(command.pool)
        return PoolNotFound(command.pool) if pool is None else (pool, command.session)

    def _no_room(
        self, pool: Pool | None, command: PutTasks, named: Mapping[str, NewTask], headroom: int
    ) -> QueueFull | None:
        """Which limit stands against putting these tasks."""
        if pool is None:
            if len(self.pools) + headroom > limits.POOLS_MAX:
                return QueueFull("pools", limits.POOLS_MAX)
            kept, known = 0, 0
        else:
            kept = sum(id in pool.tasks for id in named)
            known = len(pool.tasks)
        fresh = len(named) - kept
        removed = known - kept if command.replace else 0
        if fresh and known - removed + fresh + headroom - 1 > limits.TASKS_PER_POOL_MAX:
            return QueueFull("tasks of a pool", limits.TASKS_PER_POOL_MAX)
        if fresh and self.tasks - removed + fresh * headroom > limits.TASKS_MAX:
            return QueueFull("tasks", limits.TASKS_MAX)
        return None

    def _would_refuse_to_put(self, command: PutTasks) -> Refusal | None:
        named = {new.id: new for new in command.tasks}
        return self._no_room(self.pools.get(command.pool), command, named, self._core.headroom)

    def _would_refuse_each(self, command: FinishTasks | ReleaseTasks) -> Refusal | None:
        """Single tasks that are refused do not refuse the command."""
        found = self._each(command)
        return found if isinstance(found, Refusal) else None

    def _update(self, task: Task, new: NewTask) -> bool:
        """Bring a task up to date. False: it was."""
        pool, timing = task.pool, task.timing
        is_new = task.data != new.data or (new.data is not None and task.is_text != new.is_text)
        task.data, task.is_text = new.data, new.is_text
        if new.schedule is None:
            if timing is None:
                return is_new
            self.slots.unschedule(task)
            if not task.runs:
                pool.add_run(task, None)
            return True
        if timing is None:
            # What is held of it goes on; otherwise it waits for its slot.
            for run in [run for run in task.runs if run.session is None]:
                self._end(run, "finished")
            self.slots.schedule(task, new.schedule, bool(new.paused))
            return True
        if timing.schedule != new.schedule:
            paused = timing.paused if new.paused is None else new.paused
            self.slots.schedule(task, new.schedule, paused)
            return True
        if new.paused is not None and new.paused != timing.paused:
            self.slots.pause(task, new.paused)
            return True
        return is_new

    def _join(self, pool: Pool, session: Session) -> Worker:
        core = self._core
        token = core.tokens.next()
        worker = pool.workers[session.id] = Worker(session.id, token, core.now_ms)
        self.workers += 1
        session.took((KIND, pool.name, ""), token)
        core.events.append(Event("joined", KIND, pool.name, session.id, token))
        return worker

    def _give(
        self,
        pool: Pool,
        worker: Worker,
        session: Session,
        limit: int | None,
        room: int,
        given_back: tuple[tuple[str, int], ...],
    ) -> Worked:
        """Grant what is missing to the worker's share, and tell all it holds."""
        core = self._core
        missing = min(pool.most(limit) - len(worker.held), len(pool.free), room)
        for _ in range(missing):
            run = pool.runs[pool.free.pop(0)]
            run.token = core.tokens.next()
            run.session = session.id
            run.since_ms = core.now_ms
            worker.held[run.number] = run
            session.took(run.thing, run.token)
            self._tell("granted", run, session.id, run.token)
        tasks = tuple([run.task.handed(run) for run in worker.held.values()])
        return Worked(pool.name, session.id, pool.share, tasks, given_back)

    def _take_surplus(
        self, pool: Pool, worker: Worker, session: Session
    ) -> tuple[tuple[str, int], ...]:
        """Free what a worker has over its share, newest grants first."""
        given_back: list[tuple[str, int]] = []
        while len(worker.held) > pool.keeps:
            run = worker.held[next(reversed(worker.held))]
            given_back.append((run.task.id, run.token))
            self._drop(run, "given back")
            pool.free.add(run.number)
        if given_back:
            self._unsettle(pool)
        return tuple(given_back)

    def _unsettle(self, pool: Pool) -> None:
        if pool.line and pool.free:
            self._core.unsettle(KIND, pool.name)

    def _tell(self, what: str, run: Run, session: str | None, token: int) -> None:
        more: tuple[tuple[str, Any], ...] = (("task", run.task.id),)
        if run.slot_ms is not None:
            more = (*more, ("slot_ms", run.slot_ms))
        self._core.events.append(Event(what, KIND, run.task.pool.name, session, token, more))

    def _let_go(self, run: Run) -> None:
        """Nobody holds the run any more; the caller frees or ends it."""
        assert run.session is not None
        worker = run.task.pool.workers.get(run.session)
        if worker is not None:
            del worker.held[run.number]
        run.session, run.token, run.since_ms = None, 0, 0

    def _drop(self, run: Run, what: str) -> None:
        """Take a run from its living holder; the caller frees or ends it."""
        assert run.session is not None
        session = self._core.sessions.get(run.session)
        assert session is not None, "a run outlived its holder"
        del session.owned[run.thing]
        token = run.token
        self._let_go(run)
        self._tell(what, run, session.id, token)

    def _end(self, run: Run, what: str) -> None:
        """A run is no more, and its holder hears why."""
        task = run.task
        if run.session is None:
            task.pool.free.remove(run.number)
        else:
            self._drop(run, what)
        del task.pool.runs[run.number]
        task.runs.remove(run)

    def _finish(self, run: Run) -> None:
        task = run.task
        self._end(run, "finished")
        if not task.runs:
            if task.timing is None:
                self._remove(task)
            else:
                self.slots.ended(task)

    def _remove(self, task: Task) -> None:
        """A task is no more; who holds it hears that it is revoked."""
        for run in list(task.runs):
            self._end(run, "revoked")
        if task.timing is not None:
            self.slots.unschedule(task)
        del task.pool.tasks[task.id]
        task.pool.ids.remove(task.id)
        self.tasks -= 1


def _thing(command: PutTasks | FinishTasks | ReleaseTasks) -> tuple[str, ...]:
    return KIND, command.pool


def _find(
    pool: Pool, id: str, session: str | None, token: int | None
) -> Run | tuple[str, int | None]:
    """The run that is meant, or why it is refused and the newest token of the task.

    Args:
        session: who must hold it; None: anybody, or nobody.
        token: of its grant; None: whichever comes first.
    """
    task = pool.tasks.get(id)
    if task is None:
        return "task_not_found", None
    held = [run.token for run in task.runs if run.session is not None]
    for run in task.runs:
        is_it = token is None or (run.session is not None and run.token == token)
        if is_it and (session is None or run.session == session):
            return run
    newest = max(held, default=None)
    if newest is None or token is None or token in held:
        return "not_holder", newest
    return "stale_token", newest
