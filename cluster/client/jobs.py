"""Jobs: put them, cancel them, and work them off.

RULE: what is asked for and what came; how a reservation is relied on is told in `held.py`.

    tube = client.tube("mail")
    await tube.put("welcome ann@example.com", delay="10m", key="welcome ann")

    async def send(job):
        mail(job.body)                       # returns: done; raises: later again

    worker = client.worker("mail", handle=send, concurrency=4)
    await worker.run()                       # until cancelled or `stop`

A reservation is touched as long as its handler runs in a task or thread of ours, so that it lasts
however long the work takes, and ends when we die. Delivery is at least once: `job.token` fences.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeAlias
from urllib.parse import quote

import msgspec

from cluster.client.core import Request, new_key, path_of, value_of
from cluster.client.durations import Length, ms_of
from cluster.client.held import Grant, Held
from cluster.client.keeping import (
    Keeper,
    OnState,
    Owner,
    await_safely,
    call_in_thread,
    call_safely,
)
from cluster.client.lease import Lease
from cluster.client.payloads import Payload, payload_in, payload_of
from cluster.client.refusals import Withdrawn
from cluster.errors import CoterieError, Indefinite, LockLost, Refused

if TYPE_CHECKING:
    from cluster.client.aio import Client

# By which the cluster says that a reservation is over.
GONE = frozenset({"stale_token", "not_reserved", "job_not_found"})
MARGIN_MS_MOST = 5_000
TIDY_MS = 5_000
# How long one reserve of a worker waits: after that, a new one asks whichever node is up.
RESERVE_WAIT_MS = 10_000
PAUSE_MS = 500


class PutJob(msgspec.Struct, frozen=True):
    """A job that was taken. `state`: ready or delayed."""

    job: int
    tube: str
    state: str


class Tube:
    """One tube, by its name."""

    def __init__(self, client: Client, name: str):
        self.client = client
        self.name = name

    async def put(
        self,
        body: Payload,
        *,
        priority: int = 0,
        delay: Length = 0,
        ttr: Length | None = None,
        key: str | None = None,
        dead_letter: tuple[str, int] | None = None,
    ) -> PutJob:
        """Put a job.

        Args:
            body: text, bytes or what JSON can carry; it comes back as what it was.
            priority: smaller goes first.
            ttr: how long one reservation lasts untouched; the cluster's default is a minute.
            key: while a job with it lives in the tube, no other is taken.
            dead_letter: tube that it goes to after so many failures.

        Raises:
            DuplicateKey: one with this key lives.
        """
        asked: dict[str, object] = {"body": payload_of(body)}
        if priority:
            asked["priority"] = priority
        if (delay_ms := ms_of(delay, "delay")) > 0:
            asked["delay"] = delay_ms
        if ttr is not None:
            asked["ttr"] = ms_of(ttr, "ttr")
        if key is not None:
            asked["key"] = key
        if dead_letter is not None:
            asked["dead_letter"] = {"tube": dead_letter[0], "after": dead_letter[1]}
        request = Request("POST", path_of("tubes", self.name, "jobs"), asked, key=new_key())
        return value_of(await self.client.call(request), PutJob)

    async def cancel(self, job: int | str) -> bool:
        """Cancel a job by its id, or by its key; True if it will never be worked on.

        False: a worker has it, or had it.
        """
        if isinstance(job, int):
            path = path_of("jobs", str(job))
        else:
            path = f"{path_of('tubes', self.name, 'jobs')}?key={quote(job, safe='')}"
        answer = await self.client.call(Request("DELETE", path, key=new_key()))
        return answer.body["cancelled"] is True

    async def reserve(
        self, *, wait: Length = 0, limit: int = 1, on_state: OnState | None = None
    ) -> list[Job]:
        """Take jobs; none if none came within `wait`."""
        return await reserve(self.client, (self.name,), wait=wait, limit=limit, on_state=on_state)

    async def show(self) -> dict[str, Any]:
        """Read its figures."""
        return (await self.client.call(Request("GET", path_of("tubes", self.name)))).body

    async def pause(self, length: Length) -> None:
        """Give out nothing for so long; 0 ends a pause."""
        body = {"for": ms_of(length, "length")}
        request = Request("PUT", path_of("tubes", self.name, "pause"), body, key=new_key())
        await self.client.call(request)

    async def kick(self, most: int = 1) -> int:
        """Make buried jobs ready again, or delayed ones if none is buried; returns how many."""
        request = Request(
            "POST", path_of("tubes", self.name, "kick"), {"bound": most}, key=new_key()
        )
        kicked: int = (await self.client.call(request)).body["kicked"]
        return kicked


class Job(Held):
    """A job that we have. `async with` touches it, ends it as done, or gives it back on an error.

    Attributes:
        id: of the cluster.
        attempt: which reservation this is, from 1.
    """

    kind: ClassVar[str] = "job"

    def __init__(
        self, client: Client, body: dict[str, Any], lease: Lease, on_state: OnState | None = None
    ):
        super().__init__(str(body["job"]), on_state=on_state)
        self.client = client
        self.id: int = body["job"]
        self.tube: str = body["tube"]
        self.key: str | None = body.get("key")
        self.priority: int = body.get("priority", 0)
        self.attempt: int = body.get("attempt", 1)
        self.body: Any = payload_in(body["body"])
        self._grant = Grant(body["token"], body)
        self._keeper = Keeper(
            lease,
            kind=self.kind,
            name=self.name,
            token=body["token"],
            owner=Owner(None, self),
            clock=client.clock,
            renew=_touching(client, self.id, body["token"]),
            gone=GONE,
            on_state=on_state,
        )

    @property
    def keeper(self) -> Keeper:
        """What keeps it reserved."""
        return self._keeper

    async def __aenter__(self) -> Self:
        self.demand()
        self.keep(asyncio.current_task())
        self._enter_scope()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exit_scope(kind, error, traceback)
        if self._grant is None:
            return
        if kind is None:
            await self.done()
            return
        try:
            await self.release()
        except CoterieError:
            # What the body raised says more; its time gives the job back.
            return

    def keep(self, owner: asyncio.Task[Any] | threading.Thread | None = None) -> None:
        """Touch it from here on, until it is done or given back, its owner has ended, or nobody
        refers to it.
        """
        self.keeper.owned_by(Owner(owner, self))
        self.keeper.start()

    async def acquire(self, wait: Length | None = None) -> int:
        """It is ours already; its token."""
        return self.token

    async def touch(self) -> None:
        """Have its time begin anew.

        Raises:
            LockLost: it was over.
        """
        self.demand()
        await self._asked(self.keeper.renew_now())

    async def done(self) -> None:
        """It is done; delete it."""
        await self._end("delete", {})

    async def release(self, *, delay: Length = 0, priority: int | None = None) -> None:
        """Give it back, for later."""
        body: dict[str, object] = {}
        if (delay_ms := ms_of(delay, "delay")) > 0:
            body["delay"] = delay_ms
        await self._end("release", _with_priority(body, priority))

    async def bury(self, *, priority: int | None = None) -> None:
        """Set it aside until somebody kicks it."""
        await self._end("bury", _with_priority({}, priority))

    async def _end(self, verb: str, body: dict[str, object]) -> None:
        grant = self._grant
        if grant is None:
            raise RuntimeError(f"job {self.id} is ours no more")
        if self.state == "lost":
            loss = self.loss()
            self.forget()
            raise loss
        body = {"token": grant.token, **body}
        request = Request("POST", path_of("jobs", self.name, verb), body, key=new_key())
        # As long as the reservation may last; the answer of the cluster says whether it did.
        limit_ms = max(1_000, self.keeper.left_ms)
        with self.keeper.at_rest():
            await self._asked(self.client.call(request, timeout_ms=limit_ms))
            self._grant = None
            if self._scope is not None:
                self._scope.disarm()
            self.keeper.stop()

    async def _asked(self, asking: Awaitable[Any]) -> Any:
        try:
            return await asking
        except Refused as error:
            if error.code not in GONE:
                raise
            self._lose(error.detail)
            loss = self.loss()
            self.forget()
            raise loss from error

    def _forgotten(self) -> None:
        self.keeper.stop()


def _with_priority(body: dict[str, object], priority: int | None) -> dict[str, object]:
    return body if priority is None else {**body, "priority": priority}


def _touching(client: Client, job: int, token: int) -> Callable[[Lease], Awaitable[Lease]]:
    """What renews a reservation, without referring to the job."""

    async def touch(lease: Lease) -> Lease:
        request = Request(
            "POST", path_of("jobs", str(job), "touch"), {"token": token}, is_repeatable=True
        )
        answer = await client.call(request, timeout_ms=lease.every_ms)
        return lease.renewed(
            expires_in_ms=answer.body["expires_in_ms"], sent_ms=answer.last_sent_ms
        )

    return touch


async def reserve(
    client: Client,
    tubes: Sequence[str],
    *,
    wait: Length = 0,
    limit: int = 1,
    on_state: OnState | None = None,
) -> list[Job]:
    """Take jobs of any of these tubes; none if none came within `wait`."""
    wait_ms = ms_of(wait, "wait")
    asked: dict[str, object] = {"tubes": list(tubes), "limit": limit, "wait": wait_ms}
    request = Request("POST", path_of("reserve"), asked, key=new_key(), wait_ms=wait_ms)
    try:
        answer = await client.call(request)
    except Withdrawn:
        return []
    except (asyncio.CancelledError, Indefinite):
        client.behind(_tidy(client, request))
        raise
    bodies = answer.body["jobs"]
    try:
        found = [await _reserved(client, body, answer.first_sent_ms, on_state) for body in bodies]
    except asyncio.CancelledError:
        client.behind(_give_back(client, bodies))
        raise
    return [job for job in found if job is not None]


async def _reserved(
    client: Client, body: dict[str, Any], sent_ms: int, on_state: OnState | None
) -> Job | None:
    """A job, with the time that is surely left; None if nobody can tell."""
    ttr_ms: int = body["ttr_ms"]
    lease = Lease.opened(
        ttl_ms=ttr_ms, expires_in_ms=ttr_ms, sent_ms=sent_ms, margin_ms_most=MARGIN_MS_MOST
    )
    if client.clock() >= lease.try_at_ms:
        # We waited for it, and when in that time it was reserved is not known; a touch tells.
        try:
            lease = await _touching(client, body["job"], body["token"])(lease)
        except CoterieError:
            # Its time gives it back; better than working on it twice.
            return None
    return Job(client, body, lease, on_state)


async def _tidy(client: Client, request: Request) -> None:
    """Find out what became of a reserve that nobody waits for any more, and give the jobs back."""
    try:
        async with asyncio.timeout(TIDY_MS / 1_000):
            answer = await client.fate(request)
    except (TimeoutError, CoterieError):
        # Their time gives them back.
        return
    if answer is not None:
        await _give_back(client, answer.body.get("jobs", []))


async def _give_back(client: Client, bodies: list[dict[str, Any]]) -> None:
    """Release jobs that nobody will work on."""
    try:
        async with asyncio.timeout(TIDY_MS / 1_000):
            for body in bodies:
                path = path_of("jobs", str(body["job"]), "release")
                request = Request("POST", path, {"token": body["token"]}, key=new_key())
                try:
                    await client.call(request)
                except Refused:
                    # It is ours no more; the others may be.
                    continue
    except (TimeoutError, CoterieError):
        # Their time gives them back.
        return


Verdict: TypeAlias = Literal["release", "bury"]
Handle: TypeAlias = Callable[[Any], object]
OnError: TypeAlias = Verdict | Callable[[Job, Exception], Verdict]


class Worker:
    """Works jobs off: reserves, has them handled, and ends them.

    Args:
        tubes: where from.
        handle: what is done with a job; a coroutine function, or a function that is run in a
            thread. When it returns, the job is done, unless it ended the job itself; when it
            raises, `on_error` says what becomes of it.
        concurrency: how many at a time.
        on_error: "release" (for later), "bury", or what decides between them.
        retry: how long a released job rests; doubled with every attempt, up to an hour.
        on_lost: told of a job whose reservation ran out while it was handled.
        wrap: what a handler is given in place of the job.
    """

    def __init__(
        self,
        client: Client,
        *tubes: str,
        handle: Handle,
        concurrency: int = 1,
        on_error: OnError = "release",
        retry: Length = "1s",
        on_lost: Callable[[Job], object] | None = None,
        wrap: Callable[[Job], Any] | None = None,
    ):
        if not tubes or concurrency < 1:
            raise ValueError("name at least one tube, and a concurrency of at least 1")
        self._client = client
        self._tubes = tubes
        self._handle = handle
        self._concurrency = concurrency
        self._on_error = on_error
        self._retry_ms = ms_of(retry, "retry")
        self._on_lost = on_lost
        self._wrap = wrap
        self._threads: ThreadPoolExecutor | None = None
        self._stopping = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Work until `stop`, then end what was begun.

        Cancelled, it cancels the handlers and gives their jobs back.

        Raises:
            Refused: the cluster will not have it, however often it is asked.
        """
        try:
            while not self._stopping.is_set():
                await self._fill()
            if self._running:
                await asyncio.wait(self._running)
        finally:
            running = list(self._running)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            if self._threads is not None:
                self._threads.shutdown(wait=False)
                self._threads = None

    def stop(self) -> None:
        """Take no more; `run` returns once what was begun is done. Call it in the loop."""
        self._stopping.set()

    async def _fill(self) -> None:
        """Reserve what there is room for, or wait for room."""
        stopping = asyncio.ensure_future(self._stopping.wait())
        room = self._concurrency - len(self._running)
        doing: set[asyncio.Future[Any]] = {stopping}
        reserving = None
        is_cancelled = True
        try:
            if room > 0:
                reserving = asyncio.ensure_future(
                    reserve(self._client, self._tubes, wait=RESERVE_WAIT_MS, limit=room)
                )
                doing.add(reserving)
            else:
                doing |= self._running
            await asyncio.wait(doing, return_when=asyncio.FIRST_COMPLETED)
            is_cancelled = False
        finally:
            stopping.cancel()
            if reserving is not None:
                if not reserving.done():
                    reserving.cancel()
                elif is_cancelled and reserving.exception() is None:
                    # They came in the same moment, and nobody will work on them.
                    came = [
                        {"job": job.id, "token": job.token}
                        for job in reserving.result()
                        if job.state != "lost"
                    ]
                    self._client.behind(_give_back(self._client, came))
                await asyncio.wait({reserving})
        if reserving is None or reserving.cancelled():
            return
        try:
            jobs = reserving.result()
        except Refused as error:
            if not error.retryable:
                raise
            await self._pause()
        except CoterieError:
            await self._pause()
        else:
            for job in jobs:
                task = asyncio.get_running_loop().create_task(self._work(job))
                self._running.add(task)
                task.add_done_callback(self._running.discard)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(PAUSE_MS / 1_000):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _work(self, job: Job) -> None:
        try:
            async with job:
                try:
                    await self._call(job)
                except Exception as error:
                    # A handler may hold more than its job, and lose that.
                    if isinstance(error, LockLost) and error.kind == job.kind:
                        raise
                    await self._failed(job, error)
        except LockLost:
            if self._on_lost is not None:
                loop = asyncio.get_running_loop()
                call_safely(loop, f"working on job {job.id}", self._on_lost, job)
        except CoterieError:
            # It could not be ended: its time gives it back.
            return

    def _say(self, job: Job, error: Exception) -> None:
        asyncio.get_running_loop().call_exception_handler(
            {"message": f"working on job {job.id}", "exception": error}
        )

    async def _call(self, job: Job) -> None:
        given = job if self._wrap is None else self._wrap(job)
        if inspect.iscoroutinefunction(self._handle):
            await await_safely(self._handle(given))
            return
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._concurrency, "coterie worker")
        loop = asyncio.get_running_loop()
        thread = loop.run_in_executor(self._threads, call_in_thread, self._handle, given)
        try:
            await asyncio.shield(thread)
        except asyncio.CancelledError:
            if job.state == "lost":
                raise
            # A thread cannot be cancelled: nobody else is to have the job before it is through.
            await asyncio.wait({thread})
            if thread.exception() is None and job.state != "free":
                await job.done()
            raise

    async def _failed(self, job: Job, error: Exception) -> None:
        if job.state == "free":
            return
        verdict = self._on_error
        if not isinstance(verdict, str):
            try:
                verdict = verdict(job, error)
            except Exception as raised:  # noqa: BLE001 - whatever it is, it is told
                self._say(job, raised)
                verdict = "release"
        if verdict == "bury":
            await job.bury()
            return
        rests_ms = min(self._retry_ms * 2 ** min(job.attempt - 1, 20), 3_600_000)
        await job.release(delay=rests_ms)
