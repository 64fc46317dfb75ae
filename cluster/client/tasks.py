"""Pools of tasks, and runners that do their fair share of them.

RULE: what is asked for and what came; who does what is decided by the cluster.

    pool = client.pool("reports")
    await pool.put([{"id": "weekly", "schedule": {"cron": "0 6 * * 1"}}, {"id": "import 7"}])

    runner = client.runner("reports", concurrency=4)

    @runner.task
    async def do(task):
        write_report(task.id, task.token)    # returns: finished; raises: again, later

    await runner.run()                       # until cancelled or `stop`

A task that raises rests before it is tried again, here; so does one whose end the cluster refused.
`stop` takes effect at once, ends what was begun, and hands the rest back before the session ends.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, overload

from cluster.client.core import Request, new_key, path_of
from cluster.client.durations import Length, ms_of
from cluster.client.keeping import await_safely, call_in_thread, call_safely
from cluster.client.payloads import payload_in, payload_of
from cluster.client.refusals import NotFound
from cluster.client.session import Session
from cluster.client.taking import GONE
from cluster.errors import CoterieError, LockLost, Refused

if TYPE_CHECKING:
    from cluster.client.aio import Client

WAIT_MS = 10_000
FAREWELL_MS = 3_000
PAUSE_MS = 500
REST_MS_MOST = 300_000

Do: TypeAlias = Callable[[Any], object]
D = TypeVar("D", bound=Do)


class Pool:
    """One pool of tasks, by its name."""

    def __init__(self, client: Client, name: str):
        self.client = client
        self.name = name

    async def put(
        self,
        tasks: Iterable[Mapping[str, object] | str],
        *,
        replace: bool = False,
        cap: int | None = None,
        give_back: bool | None = None,
    ) -> dict[str, Any]:
        """Add or update tasks; with `replace`, those that are not named go.

        Args:
            tasks: each `{"id", "data"?, "schedule"?}` as in the HTTP document, or an id; data may
                be bytes as well.
            cap: no worker gets more.
            give_back: whether a worker over its share loses what it began last.
        """
        listed: list[dict[str, object]] = [
            {"id": task} if isinstance(task, str) else dict(task) for task in tasks
        ]
        for task in listed:
            if isinstance(data := task.get("data"), bytes | dict):
                task["data"] = payload_of(data)
        body: dict[str, object] = {"tasks": listed, "replace": replace}
        if cap is not None:
            body["cap"] = cap
        if give_back is not None:
            body["give_back"] = give_back
        return await self._call("PUT", body, "tasks")

    async def show(self) -> dict[str, Any]:
        """Read the pool, its workers and a page of its tasks."""
        return await self._call("GET", None)

    async def task(self, task: str) -> dict[str, Any]:
        """Read one task."""
        return await self._call("GET", None, "tasks", task)

    async def run(self, task: str) -> dict[str, Any]:
        """Run a scheduled task now, besides its schedule."""
        return await self._call("POST", None, "tasks", task, "run")

    async def pause(self, task: str) -> None:
        """Have a schedule stand still."""
        await self._call("POST", None, "tasks", task, "pause")

    async def resume(self, task: str) -> None:
        """Have a schedule go on."""
        await self._call("POST", None, "tasks", task, "resume")

    async def remove(self, task: str) -> None:
        """Take a task away."""
        await self._call("DELETE", None, "tasks", task)

    async def delete(self) -> None:
        """Take the pool away, with its tasks."""
        await self._call("DELETE", None)

    async def _call(
        self, method: str, body: Mapping[str, object] | None, *parts: str
    ) -> dict[str, Any]:
        key = None if method == "GET" else new_key()
        path = path_of("pools", self.name, *parts)
        return (await self.client.call(Request(method, path, body, key=key))).body


class Task:
    """A run of a task that is ours for the moment.

    Attributes:
        id: of the task.
        session: under which it is ours.
        slot_ms: what it is due for, in ms since 1970; None for one without a schedule.
    """

    def __init__(self, session: Session, pool: str, body: dict[str, Any]):
        self.session = session
        self._token: int = body["token"]
        self._is_taken_back = False
        self.pool = pool
        self.id: str = body["id"]
        self.data = payload_in(body["data"])
        self.slot_ms: int | None = body.get("slot_ms")

    @property
    def token(self) -> int:
        """Its fencing token, if it may be relied on at this moment; else raises `LockLost`."""
        self.demand()
        return self._token

    def demand(self) -> None:
        """Return if it is still ours; else raise `LockLost`."""
        if self._is_taken_back:
            detail = f'task "{self.id}" (token {self._token}) was given to another worker'
            raise LockLost(detail, kind="task", name=self.id, token=self._token)
        self.session.keeper.demand()

    @property
    def run(self) -> tuple[str, int]:
        """What tells this run from others."""
        return self.id, self._token

    def taken_back(self) -> None:
        """Another worker may have it now."""
        self._is_taken_back = True


class Runner:
    """Does its share of a pool's tasks.

    Args:
        pool: whose.
        concurrency: how many at a time, and how many are taken at the most.
        ttl: of its session: how long after our death nobody does what was ours.
        name: of its session.
        retry: how long a task rests that raised; doubled each time, up to five minutes.
        tick: how often the cluster is asked for more while some are being done.
        on_error: told of what a task raised, or of what is the matter with the cluster (None).
    """

    def __init__(
        self,
        client: Client,
        pool: str,
        *,
        concurrency: int = 1,
        ttl: Length = "30s",
        name: str | None = None,
        retry: Length = "1s",
        tick: Length = "1s",
        on_error: Callable[[Task | None, Exception], object] | None = None,
    ):
        if concurrency < 1:
            raise ValueError("a concurrency of at least 1")
        self._client = client
        self._pool = pool
        self._concurrency = concurrency
        self._ttl_ms = ms_of(ttl, "ttl")
        self._name = name
        self._retry_ms = max(1, ms_of(retry, "retry"))
        self._tick_ms = max(1, ms_of(tick, "tick"))
        self._on_error = on_error
        self._by_id: dict[str, Do] = {}
        self._for_all: Do | None = None
        self._stopping = asyncio.Event()
        self._running: dict[tuple[str, int], tuple[Task, asyncio.Task[None]]] = {}
        # Since the cluster was last asked: an answer made before they ended still names them.
        self._ended: set[tuple[str, int]] = set()
        self._resting: dict[str, tuple[int, int]] = {}
        self._threads: ThreadPoolExecutor | None = None

    @overload
    def task(self, do: D, /) -> D: ...
    @overload
    def task(self, do: str, /) -> Callable[[D], D]: ...
    def task(self, do: D | str, /) -> D | Callable[[D], D]:
        """Say what does the tasks: `@runner.task` for all, `@runner.task("weekly")` for one."""
        if not isinstance(do, str):
            self._for_all = do
            return do
        id_ = do

        def named(do: D) -> D:
            self._by_id[id_] = do
            return do

        return named

    async def run(self) -> None:
        """Work until `stop`, then end what was begun and hand the rest back.

        Where the session is lost, what was being done is cancelled, and a new one is opened.
        Cancelled, it cancels the tasks and hands them back.

        Raises:
            Refused: the cluster will not have it, however often it is asked.
        """
        if self._for_all is None and not self._by_id:
            raise RuntimeError("nothing does the tasks; use @runner.task")
        try:
            while not self._stopping.is_set():
                try:
                    await self._serve()
                except Refused as error:
                    if not error.retryable and error.code not in GONE:
                        raise
                    self._say(None, error)
                    await self._pause(PAUSE_MS)
                except CoterieError as error:
                    self._say(None, error)
                    await self._pause(PAUSE_MS)
        finally:
            if self._threads is not None:
                self._threads.shutdown(wait=False)
                self._threads = None

    def stop(self) -> None:
        """Begin nothing new; `run` returns once what was begun is done. Call it in the loop."""
        self._stopping.set()

    async def _serve(self) -> None:
        """One session's worth of work."""
        async with self._client.session(ttl=self._ttl_ms, name=self._name) as session:
            try:
                while not self._stopping.is_set():
                    await self._begin_some_if_told(session)
                # What was begun is finished, with the session alive.
                while self._running:
                    await asyncio.wait({doing for _, doing in self._running.values()})
            finally:
                await self._end_all()
                await self._leave(session)

    async def _begin_some_if_told(self, session: Session) -> None:
        """`_begin_some`; what goes wrong with the asking is no matter to what was begun, as long as
        the session lives.
        """
        try:
            await self._begin_some(session)
        except LockLost:
            raise
        except Refused as error:
            # Nobody has put tasks yet, or not now.
            if error.code in GONE or not (error.retryable or isinstance(error, NotFound)):
                raise
            self._say(None, error)
            await self._pause(self._tick_ms if isinstance(error, NotFound) else PAUSE_MS)
        except CoterieError as error:
            self._say(None, error)
            await self._pause(PAUSE_MS)
        session.keeper.demand()

    async def _begin_some(self, session: Session) -> None:
        """Ask for our share, begin what there is room for, and wait until there is news."""
        is_idle = not self._running
        self._ended.clear()
        # Held ones would come back at once: only with nothing at all is there something to await.
        wait_ms = WAIT_MS if is_idle and not self._resting else 0
        found = await self._unless_stopping(self._share(session, wait_ms))
        if found is None:
            return
        for given in found.get("given_back", ()):
            if (known := self._running.get((given["id"], given["token"]))) is not None:
                known[0].taken_back()
                known[1].cancel()
        has_begun = False
        now_ms = self._client.clock()
        held = set()
        for body in found["tasks"]:
            held.add(body["id"])
            run = (body["id"], body["token"])
            rests_until_ms = self._resting.get(body["id"], (0, 0))[0]
            if run in self._running or run in self._ended or now_ms < rests_until_ms:
                continue
            if len(self._running) < self._concurrency:
                self._begin(Task(session, self._pool, body))
                has_begun = True
        self._resting = {id: rest for id, rest in self._resting.items() if id in held}
        if found["tasks"] or not is_idle or has_begun:
            await self._until_news()

    def _begin(self, task: Task) -> None:
        doing = asyncio.get_running_loop().create_task(self._do(task))
        self._running[task.run] = (task, doing)
        doing.add_done_callback(lambda _: self._has_ended(task.run))

    def _has_ended(self, run: tuple[str, int]) -> None:
        self._running.pop(run, None)
        self._ended.add(run)

    async def _do(self, task: Task) -> None:
        try:
            await self._call(task)
            task.demand()
            await self._hand_in(task, "finish")
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told and tried again
            _, rested_ms = self._resting.get(task.id, (0, 0))
            rests_ms = min(REST_MS_MOST, 2 * rested_ms or self._retry_ms)
            self._resting[task.id] = (self._client.clock() + rests_ms, rests_ms)
            self._say(task, error)
        else:
            self._resting.pop(task.id, None)

    async def _call(self, task: Task) -> None:
        do = self._by_id.get(task.id, self._for_all)
        if do is None:
            raise LookupError(f'nothing does task "{task.id}"; use @runner.task("{task.id}")')
        if inspect.iscoroutinefunction(do):
            await await_safely(do(task))
            return
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._concurrency, "coterie runner")
        loop = asyncio.get_running_loop()
        thread = loop.run_in_executor(self._threads, call_in_thread, do, task)
        try:
            await asyncio.shield(thread)
        except asyncio.CancelledError:
            # A thread cannot be cancelled; while it is ours, nobody else is to have the task.
            if task.session.state in {"held", "grace"}:
                await asyncio.wait({thread})
            raise

    async def _share(self, session: Session, wait_ms: int) -> dict[str, Any]:
        body: dict[str, object] = {
            "session": session.id,
            "limit": self._concurrency,
            "wait": wait_ms,
        }
        path = path_of("pools", self._pool, "work")
        # Asking again gets what is held, and so needs no key.
        request = Request("POST", path, body, wait_ms=wait_ms, is_repeatable=True)
        return (await self._client.call(request)).body

    async def _hand_in(self, task: Task, verb: str) -> None:
        id_, token = task.run
        body = {"session": task.session.id, "tasks": [{"id": id_, "token": token}]}
        request = Request("POST", path_of("pools", self._pool, verb), body, key=new_key())
        limit_ms = max(1_000, task.session.left_ms)
        refused = (await self._client.call(request, timeout_ms=limit_ms)).body["refused"]
        if refused:
            detail = f'task "{id_}" (token {token}) was not ours any more: {refused[0]}'
            raise LockLost(detail, kind="task", name=id_, token=token)

    async def _end_all(self) -> None:
        doing = [task for _, task in self._running.values()]
        for task in doing:
            task.cancel()
        await asyncio.gather(*doing, return_exceptions=True)

    async def _leave(self, session: Session) -> None:
        """Hand back what is held but was not done."""
        if session.state not in {"held", "grace"}:
            return
        path = path_of("pools", self._pool, "leave")
        try:
            await self._client.call(
                Request("POST", path, {"session": session.id}, key=new_key()),
                timeout_ms=FAREWELL_MS,
            )
        except CoterieError:
            # The end of the session does the same.
            return

    async def _until_news(self) -> None:
        """Wait until a task has ended, `stop`, or the next tick."""
        stopping = asyncio.ensure_future(self._stopping.wait())
        doing: set[asyncio.Future[Any]] = {stopping, *(task for _, task in self._running.values())}
        try:
            await asyncio.wait(
                doing, timeout=self._tick_ms / 1_000, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            stopping.cancel()

    async def _unless_stopping(self, asking: Any) -> dict[str, Any] | None:
        stopping = asyncio.ensure_future(self._stopping.wait())
        doing = asyncio.ensure_future(asking)
        try:
            await asyncio.wait({stopping, doing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            if not doing.done():
                doing.cancel()
                await asyncio.wait({doing})
        found: dict[str, Any] | None = None if doing.cancelled() else doing.result()
        return found

    async def _pause(self, pause_ms: int) -> None:
        try:
            async with asyncio.timeout(pause_ms / 1_000):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _say(self, task: Task | None, error: Exception) -> None:
        if self._on_error is not None:
            loop = asyncio.get_running_loop()
            call_safely(loop, "telling of an error", self._on_error, task, error)
