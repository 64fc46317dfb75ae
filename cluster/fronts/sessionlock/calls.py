"""What go-session-lock's five database functions do, as commands of tasks and sessions.

RULE: one function, one command, so that each happens whole or not at all; only very many tasks go
in several. Source: the plpgsql of promoboxx/go-session-lock, its `get_work` above all.

A session is a native session of two minutes; its number is the cluster-wide token it was opened
under, from which any node makes the native id. It joins the pool as it starts, as the original
counts every living session when it divides the work. Nothing needs the original's lock row: all
calls are in the order of the log.

Tasks are native tasks of a pool: `GET /v1/pools/session-lock` shows who is at what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeVar

from cluster.fronts.desk import Desk
from cluster.machine import limits
from cluster.machine.commands import CloseSession, KeepAlive, OpenSession
from cluster.machine.commands.tasks import FinishTasks, NewTask, PutTasks, Work
from cluster.machine.outcome import Opened, QueueFull, Refusal, SessionExpired, SessionNotFound
from cluster.machine.outcome.tasks import Handed, PoolNotFound, Worked
from cluster.wire.commands import is_name

POOL: Final = "session-lock"
"""Where work is put and got where no other pool is named."""

TTL_MS: Final = 2 * 60 * 1000 + 1
"""Two minutes, and at their very end a session still lives."""

_NONCE: Final = "session-lock"
_NUMBER_MAX: Final = 2**63 - 1

_COMMAND_BYTES: Final = 512 * 1024
"""Of tasks in one command; the log takes twice that."""

_ABOUT_BYTES: Final = 64
"""Of one task, beside its id and its data, at the most."""

T = TypeVar("T")


class SessionGone(Exception):
    """SQLSTATE SL001: the session's time is over, or it was ended, or never was."""


class Full(Exception):
    """A limit of the cluster; the message names it."""


class Calls:
    """The five functions, for one pool, and how work is put there."""

    def __init__(self, desk: Desk, pool: str = POOL):
        self._desk = desk
        self._pool = pool

    async def start_session(self) -> int:
        """Open a session of two minutes; its number is larger than any before.

        Raises:
            Full: no session more; there is none.
        """
        opened = await self._desk.ask(OpenSession(_NONCE, TTL_MS))
        if not isinstance(opened, Opened):
            raise _error(opened)
        # It counts for everybody's share from now on.
        try:
            await self._work(opened.token, 0)
        except Full:
            await self.end_session(opened.token)
            raise
        return opened.token

    async def bump_session(self, number: int) -> None:
        """Give a living session two minutes more; one that has ended stays so.

        Raises:
            SessionGone: it does not live.
        """
        outcome = await self._desk.ask(KeepAlive(_id_of(number)))
        if isinstance(outcome, Refusal):
            raise _error(outcome)

    async def end_session(self, number: int) -> None:
        """End a session, if it lives; its tasks are everybody's at once."""
        outcome = await self._desk.ask(CloseSession(_id_of(number)))
        if isinstance(outcome, Refusal) and not _is_gone(outcome):
            raise _error(outcome)

    async def get_work(self, number: int, tasks_per_session: int | None) -> tuple[Handed, ...]:
        """Bump the session, give it what is missing to its share, and return all it has to do.

        Args:
            tasks_per_session: no more than that is taken; None: only the share bounds it.

        Raises:
            SessionGone: it does not live.
        """
        limit = tasks_per_session
        if limit is not None:
            # Nobody is given more than that, and any bigint may be asked for.
            limit = min(max(0, limit), limits.TASKS_PER_WORKER_MAX)
        return (await self._work(number, limit)).tasks

    async def task_count(self) -> int:
        """How much there is to do, held or not."""
        pool = (await self._desk.read()).tasks.pools.get(self._pool)
        return 0 if pool is None else len(pool.runs)

    async def tasks_of(self, number: int) -> tuple[Handed, ...]:
        """What a session has to do, without a bump; nothing for one that does not live."""
        pool = (await self._desk.read()).tasks.pools.get(self._pool)
        worker = None if pool is None else pool.workers.get(_id_of(number))
        if worker is None:
            return ()
        return tuple(run.task.handed(run) for run in worker.held.values())

    async def finish_tasks(self, ids: Iterable[str]) -> None:
        """Take tasks out of the pool, whoever does them; what is not there is done already."""
        nobodys = ((id, None) for id in ids if is_name(id))
        for some in _chunks(nobodys, _size_of_id):
            outcome = await self._desk.ask(FinishTasks(None, self._pool, some))
            if isinstance(outcome, Refusal) and not isinstance(outcome, PoolNotFound):
                raise _error(outcome)

    async def add_tasks(self, tasks: Sequence[tuple[str, bytes | None]]) -> None:
        """Put tasks, each an id and what its worker needs; one that is there gets the new data.

        Raises:
            ValueError: an id or its data cannot be; nothing was put.
        """
        for id, data in tasks:
            if not is_name(id):
                raise ValueError(
                    f"{id[:40]!r} is no id of a task: use 1 to {limits.NAME_BYTES_MAX} bytes "
                    "without control characters"
                )
            if data is not None and len(data) > limits.TASK_DATA_BYTES_MAX:
                raise ValueError(
                    f"the data of task {id[:40]!r} has {len(data)} bytes: use at most "
                    f"{limits.TASK_DATA_BYTES_MAX}"
                )
        for some in _chunks((NewTask(id, data) for id, data in tasks), _size_of_new):
            outcome = await self._desk.ask(PutTasks(self._pool, some))
            if isinstance(outcome, Refusal):
                raise _error(outcome)

    async def _work(self, number: int, limit: int | None) -> Worked:
        command = Work(_id_of(number), self._pool, limit)
        outcome = await self._desk.ask(command)
        if isinstance(outcome, PoolNotFound):
            # Nobody has put work yet. Putting none makes the pool, at however many nodes at once.
            made = await self._desk.ask(PutTasks(self._pool, ()))
            if isinstance(made, Refusal):
                raise _error(made)
            outcome = await self._desk.ask(command)
        if not isinstance(outcome, Worked):
            raise _error(outcome)
        return outcome


def _id_of(number: int) -> str:
    """The native id of a session; one that never was for what is no number of a session."""
    return f"{number if 0 < number <= _NUMBER_MAX else 0:x}-{_NONCE}"


def _is_gone(outcome: object) -> bool:
    return isinstance(outcome, (SessionExpired, SessionNotFound))


def _error(outcome: object) -> Exception:
    if _is_gone(outcome):
        return SessionGone("Session not found.")
    if isinstance(outcome, QueueFull):
        return Full(f"too many {outcome.what}: the cluster takes {outcome.limit}")
    raise AssertionError(f"no answer to this question: {outcome!r}")


def _chunks(items: Iterable[T], size_of: Callable[[T], int]) -> Iterator[tuple[T, ...]]:
    """As many as one command takes, by their number and by their bytes."""
    some: list[T] = []
    size = 0
    for item in items:
        more = size_of(item)
        if some and (len(some) == limits.TASKS_PER_COMMAND_MAX or size + more > _COMMAND_BYTES):
            yield tuple(some)
            some, size = [], 0
        some.append(item)
        size += more
    if some:
        yield tuple(some)


def _size_of_new(task: NewTask) -> int:
    return _size_of_id((task.id, None)) + len(task.data or b"")


def _size_of_id(named: tuple[str, int | None]) -> int:
    return len(named[0].encode()) + _ABOUT_BYTES
