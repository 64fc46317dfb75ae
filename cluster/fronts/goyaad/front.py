"""The server that goyaad's clients find: PutWithID, Cancel, Next, InspectN and Ping.

RULE: translates. Requests of a connection go on side by side and are answered as they end; whoever
waits in Next waits in the machine, in order of arrival over all nodes.

Where it is better than what it stands for, and a client may see it:

- `Next` reserves, writes, and deletes once the bytes have left. Where its client is gone, its node
  has ended or the bytes could not be written, the job goes back and is delivered to another. So a job
  may come twice where a node ends between the two, and is never lost. Who waits does so in a session
  of the connection, so that the waits of a node that has ended leave the queue within its TTL.
- Jobs come out by the time at which they became ready, in whole milliseconds, and in order of
  arrival where that is the same. Those of beanstalkd's clients, which have no such time, come
  before them where their priority is no larger than 0.
- A put waits while the cluster has no room for more jobs, as the original does at its mark.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

import structlog

from cluster.errors import CoterieError, Overloaded, ShuttingDown
from cluster.fronts.desk import Desk
from cluster.fronts.front import ServedFront, Surroundings
from cluster.fronts.gob.kinds import INT, STRING, Kind
from cluster.fronts.goyaad.names import id_of, key_of, number_of
from cluster.fronts.goyaad.rpc import (
    JOB,
    JOBS,
    Answers,
    Asked,
    BadCall,
    BrokenStream,
    Call,
    Requests,
)
from cluster.fronts.leases import Leases, Refused
from cluster.fronts.tcp import READ_BYTES, TcpServer
from cluster.machine import limits
from cluster.machine.commands import Command
from cluster.machine.commands.jobs import (
    CancelJob,
    CancelKey,
    DeleteJob,
    PutJob,
    ReserveJobs,
    ReturnJob,
)
from cluster.machine.jobs.tubes import RESERVED, STATES
from cluster.machine.outcome.base import (
    Outcome,
    QueueFull,
    Refusal,
    SessionExpired,
    SessionNotFound,
)
from cluster.machine.outcome.jobs import Cancelled, DuplicateKey, JobInfo, JobPut, Reserved
from cluster.node.config import Config
from cluster.node.pending import Answered, Failed, Reply

TUBE: Final = "default"
TIMED_OUT: Final = "No new jobs available in given timeout"

CALLS_MAX: Final = 4_096
CALL_BYTES_MAX: Final = 16 * 1024 * 1024
"""Under way on one connection; beyond that it is not read on."""

DELIVERY_S: Final = 5.0
"""How long a job may wait for its turn to be written, and how long its bytes may take to leave."""

HOLD_MS: Final = 15_000
"""How long a delivery holds its job: longer than it may take, and than its end may be on its way."""

ANSWER_S: Final = 60.0
"""How long those of any other answer may; a client that reads nothing for so long is cut off."""

SETTLE_MS: Final = 60_000

RESERVED_S: Final = 2.0
"""How long a put or a cancel waits for the end of a delivery that is under way."""

INSPECT_MAX: Final = 10_000
INSPECT_BYTES_MAX: Final = 16 * 1024 * 1024
_INSPECT_PAGE = 250

MESSAGE_S: Final = 60.0
"""How long the next bytes of a message that has begun may take."""

_LOOK_S = 1.0
_PAUSE_S = 0.05
_NS_PER_MS = 1_000_000

# In struct tcp_info the first byte is the state; in CLOSE_WAIT and after the client has closed.
_TCP_INFO: Final[int | None] = getattr(socket, "TCP_INFO", None)
_ESTABLISHED = 1

_log = structlog.get_logger("cluster.fronts")

Answer: TypeAlias = tuple[Kind, Any]


class CallError(Exception):
    """What a client is told in place of a result."""


class _Gone(Exception):
    """The client has gone."""


def make(_: Config, surroundings: Surroundings) -> GoyaadFront:
    """Make the front of one node; it has no settings but where it listens."""
    return GoyaadFront(surroundings)


class GoyaadFront(ServedFront):
    """Serves goyaad's clients on one node."""

    def __init__(self, surroundings: Surroundings):
        self._surroundings = surroundings
        self._server = TcpServer("goyaad", self._serve, read_bytes=READ_BYTES)
        self._leases = Leases(surroundings)
        self._connections: set[_Connection] = set()
        self._settling: set[asyncio.Task[None]] = set()
        self._draining = False

    def drain(self) -> None:
        """Take nothing new; connections end once what they asked for is done, waits at once."""
        self._draining = True
        super().drain()
        for connection in self._connections:
            connection.leave()

    async def stop(self, grace_s: float) -> None:
        """End every connection."""
        self.drain()
        await super().stop(grace_s)
        if self._settling:
            await asyncio.wait(tuple(self._settling), timeout=grace_s)
        for task in tuple(self._settling):
            task.cancel()
        await self._leases.stop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self._surroundings, self._leases, self._settle, reader, writer)
        self._connections.add(connection)
        try:
            if self._draining:
                connection.leave()
            await connection.serve()
        finally:
            self._connections.discard(connection)

    def _settle(self, command: Command) -> None:
        """Have a delivery's end known, whatever becomes of its connection.

        At once, not in a task: its client may ask for what follows from it, and this node may drain.
        """
        try:
            self._surroundings.node.submit(
                command, self._settled, timeout_ms=SETTLE_MS, patient=True
            )
        except Overloaded:
            task = asyncio.get_running_loop().create_task(self._settle_later(command))
            self._settling.add(task)
            task.add_done_callback(self._settling.discard)
        except CoterieError as error:
            self._settled(Failed(error))

    async def _settle_later(self, command: Command) -> None:
        try:
            self._settled(Answered(await self._surroundings.desk.ask(command), 0))
        except CoterieError as error:
            self._settled(Failed(error))

    def _settled(self, reply: Reply) -> None:
        if isinstance(reply, Failed):
            # The reservation ends by itself.
            _log.warning("the end of a delivery is not known", why=reply.error.detail)
        elif isinstance(reply.outcome, Refusal):
            _log.warning("a delivery ended too late: its job may come twice")


class _Connection:
    """One client: what it asks, side by side, and what it is told, one after the other."""

    def __init__(
        self,
        surroundings: Surroundings,
        leases: Leases,
        settle: Callable[[Command], None],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ):
        self._node = surroundings.node
        self._desk: Desk = surroundings.desk
        self._clock = surroundings.clock
        self._leases = leases
        self._session: str | None = None
        self._opening = asyncio.Lock()
        self._settle = settle
        self._reader = reader
        self._writer = writer
        self._requests = Requests()
        self._answers = Answers()
        self._turn = asyncio.Lock()
        self._calls: set[asyncio.Task[None]] = set()
        self._call_bytes = 0
        # Those that wait for what may never come: nobody waits for them at the end.
        self._waiting: set[asyncio.Task[Reserved]] = set()
        self._freed = asyncio.Event()
        self._ended = asyncio.Event()
        self._intake: asyncio.Task[None] | None = None
        self._leaving = False
        self._methods: Mapping[str, Callable[[Call], Awaitable[Answer]]] = {
            "RPCServer.PutWithID": self._put,
            "RPCServer.Cancel": self._cancel,
            "RPCServer.InspectN": self._inspect,
            "RPCServer.Ping": self._ping,
        }
        # Whatever waits to be written, waits until it has left: `drain` means that here.
        writer.transport.set_write_buffer_limits(high=0)

    async def serve(self) -> None:
        """Serve until the client has gone, or we have to."""
        self._intake = asyncio.get_running_loop().create_task(self._take_in())
        if self._leaving:
            self._intake.cancel()
        try:
            await asyncio.wait({self._intake})
            self._ended.set()
            for asking in tuple(self._waiting):
                asking.cancel()
            if self._calls:
                await asyncio.wait(tuple(self._calls))
            if not self._intake.cancelled():
                self._intake.result()
        finally:
            for task in (self._intake, *self._calls):
                task.cancel()
            if self._calls:
                self._writer.transport.abort()
                await asyncio.wait(tuple(self._calls))
            if self._session is not None:
                self._leases.close(self._session)

    def leave(self) -> None:
        """Take no further request, let go of those that wait, end when the others are answered."""
        self._leaving = True
        if self._intake is not None:
            self._intake.cancel()

    # Requests.

    async def _take_in(self) -> None:
        try:
            while data := await self._read():
                for asked in self._requests.feed(data):
                    await self._room()
                    self._begin(asked)
        except BrokenStream as error:
            _log.info("a client of goyaad's makes no sense", why=str(error)[:200])
            return
        except (ConnectionError, TimeoutError):
            return
        last = self._requests.end()
        if last is not None:
            self._begin(last)

    async def _read(self) -> bytes:
        if self._requests.is_between:
            return await self._reader.read(READ_BYTES)
        # What has come of a message is held: not for ever.
        async with asyncio.timeout(MESSAGE_S):
            return await self._reader.read(READ_BYTES)

    async def _room(self) -> None:
        """Wait until there is room for one more request."""
        while len(self._calls) >= CALLS_MAX or self._call_bytes >= CALL_BYTES_MAX:
            self._freed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._freed.wait(), _LOOK_S)
            if self._has_gone():
                # Unread bytes hide that from the reader.
                raise ConnectionAbortedError

    def _begin(self, asked: Asked) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(asked))
        self._calls.add(task)
        size = asked.size if isinstance(asked, Call) else 0
        self._call_bytes += size

        def ended(task: asyncio.Task[None]) -> None:
            self._calls.discard(task)
            self._call_bytes -= size
            self._freed.set()
            if not task.cancelled() and task.exception() is not None:
                _log.error("an error of ours", front="goyaad", exc_info=task.exception())
                self._writer.transport.abort()

        task.add_done_callback(ended)

    async def _answer(self, asked: Asked) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError, _Gone):
            try:
                if isinstance(asked, BadCall):
                    raise CallError(asked.error)
                if asked.method == "RPCServer.Next":
                    await self._next(asked)
                    return
                kind, value = await self._methods[asked.method](asked)
            except CallError as error:
                text = str(error)
                await self._write(lambda: self._answers.error(asked, text), ANSWER_S)
            except CoterieError as error:
                detail = error.detail
                await self._write(lambda: self._answers.error(asked, detail), ANSWER_S)
            else:
                call = asked
                await self._write(lambda: self._answers.result(call, kind, value), ANSWER_S)

    async def _write(self, encode: Callable[[], bytes], within_s: float) -> None:
        """Write one answer, after those before it, and see it leave.

        Raises:
            ConnectionError, TimeoutError: it did not, and never will.
        """
        try:
            # Whoever reads slowly, but reads, is not cut off for what was before this.
            async with self._turn, asyncio.timeout(within_s):
                if self._writer.transport.is_closing():
                    raise ConnectionResetError  # Of thousands that wait, each write would be logged.
                # Encoded in the order in which it is written: the first of a kind defines it.
                self._writer.write(encode())
                await self._writer.drain()
        except BaseException:
            self._writer.transport.abort()
            raise

    def _has_gone(self) -> bool:
        """The client has closed, even if our reader has not come to that."""
        transport = self._writer.transport
        if transport.is_closing() or self._reader.at_eof():
            return True
        sock = transport.get_extra_info("socket")
        if _TCP_INFO is None or sock is None:
            return False
        try:
            state: bytes = sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 1)
        except OSError:
            return False
        return state[0] != _ESTABLISHED

    # Methods.

    async def _ping(self, _: Call) -> Answer:
        return STRING, "pong"

    async def _put(self, call: Call) -> Answer:
        argument: dict[str, Any] = call.argument
        foreign, body = argument.get("ID", ""), argument.get("Body", b"")
        delay_ns: int = argument.get("Delay", 0)
        key = key_of(foreign) if foreign else None
        if foreign and key is None:
            raise CallError(f"Rejecting job. Its ID is longer than {limits.JOB_KEY_LENGTH_MAX}")
        if len(body) > limits.JOB_BODY_BYTES_MAX:
            raise CallError(
                f"Rejecting job. {len(body)} bytes are more than {limits.JOB_BODY_BYTES_MAX}"
            )
        command = PutJob(
            TUBE,
            body,
            is_text=_is_text(body),
            delay_ms=_length_ms(delay_ns, limits.JOB_LENGTH_MS_MAX),
            key=key,
            by_due=True,
            overdue_ms=min(max(0, -delay_ns) // _NS_PER_MS, limits.JOB_LENGTH_MS_MAX),
            is_id=True,
        )
        until_s = self._clock() + RESERVED_S
        while True:
            outcome = await self._desk.ask(command)
            if isinstance(outcome, JobPut):
                return STRING, "" if foreign else str(outcome.job)
            is_under_way = (
                isinstance(outcome, DuplicateKey)
                and outcome.state == STATES[RESERVED]
                and self._clock() < until_s
            )
            if not is_under_way and not isinstance(outcome, QueueFull):
                raise CallError(f"Rejecting job. Job with ID: {foreign} already exists")
            await self._pause()

    async def _cancel(self, call: Call) -> Answer:
        foreign: str = call.argument
        key, until_s = key_of(foreign), self._clock() + RESERVED_S
        while foreign and key is not None:
            outcome = await self._desk.ask(CancelKey(TUBE, key))
            assert isinstance(outcome, Cancelled)
            number = number_of(foreign)
            if outcome.job is None and number is not None:
                outcome = await self._cancel_number(number)
            if outcome.state != STATES[RESERVED] or self._clock() >= until_s:
                break
            # It may still go back: then it must not come again.
            await self._pause()
        return INT, 0

    async def _cancel_number(self, number: int) -> Cancelled:
        """Cancel a job without a key. Local state is that of our last command, or newer."""
        job = self._desk.machine.jobs.pictures.job(number, 0)
        if job is None or job.tube != TUBE or job.key is not None:
            return Cancelled(None, False, "gone", None)
        outcome = await self._desk.ask(CancelJob(number))
        assert isinstance(outcome, Cancelled)
        return outcome

    async def _inspect(self, call: Call) -> Answer:
        left, size = min(call.argument, INSPECT_MAX), 0
        found: list[dict[str, Any]] = []
        for state in ("ready", "delayed"):
            after: int | None = None
            while left > 0 and size < INSPECT_BYTES_MAX:
                # Each page is read anew: between two of them the node does other work.
                pictures = (await self._desk.read()).jobs.pictures
                now_ms, count = self._node.now_ms(), min(left, _INSPECT_PAGE)
                page = pictures.jobs(TUBE, state, now_ms, after=after, limit=count)
                for job in page:
                    size += len(job.body)
                    if found and size > INSPECT_BYTES_MAX:
                        break
                    found.append(_shown(job))
                left -= len(page)
                if len(page) < count:
                    break
                after = page[-1].entry
        return JOBS, found

    async def _next(self, call: Call) -> None:
        reserved = await self._reserved(_length_ms(call.argument, limits.LENGTH_MS_MAX))
        if not reserved.jobs:
            raise CallError(TIMED_OUT)
        job = reserved.jobs[0]
        told = {"Body": job.body, "ID": id_of(job.key, job.job)}

        until_s = self._clock() + DELIVERY_S
        taken_back: Command = ReturnJob(job.job, job.token)
        end = taken_back

        def encode() -> bytes:
            nonlocal end
            if self._has_gone() or self._clock() > until_s:
                return self._answers.error(call, TIMED_OUT)
            end = DeleteJob(job.job, job.token)
            return self._answers.result(call, JOB, told)

        try:
            await self._write(encode, DELIVERY_S)
        except BaseException:
            end = taken_back
            raise
        finally:
            self._settle(end)

    async def _reserved(self, wait_ms: int) -> Reserved:
        """Wait for a job in the machine's queue, until the client goes at the latest."""
        if self._ended.is_set():
            return Reserved(())
        asking = asyncio.get_running_loop().create_task(self._ask_for_job(wait_ms))
        self._waiting.add(asking)
        try:
            return await asking
        except asyncio.CancelledError:
            if not self._ended.is_set():
                raise
            # A client that only has nothing more to say is told that there is nothing.
            return Reserved(())
        finally:
            self._waiting.discard(asking)

    async def _ask_for_job(self, wait_ms: int) -> Reserved:
        """Ask until there is a job or the time is over.

        No answer of the cluster is none of ours: what it may have given us comes back by itself, and
        clients take every text but that of the timeout for the end.
        """
        until_s = self._clock() + wait_ms / 1000
        while True:
            outcome: Outcome | None = None
            try:
                session = await self._our_session() if wait_ms > 0 else None
                command = ReserveJobs((TUBE,), session, limit=1, wait_ms=wait_ms, hold_ms=HOLD_MS)
                outcome = await self._desk.ask(command)
            except ShuttingDown:
                return Reserved(())
            except CoterieError as error:
                _log.info("a wait for a job begins anew", why=error.detail)
            if isinstance(outcome, Reserved):
                return outcome
            wait_ms = round((until_s - self._clock()) * 1000)
            if wait_ms <= 0:
                return Reserved(())
            if isinstance(outcome, SessionExpired | SessionNotFound):
                # This node was cut off for longer than its waits are kept.
                assert session is not None
                self._leases.lost(session)
            else:
                await self._pause()  # The queue of those who wait is full, or nobody answers.

    async def _our_session(self) -> str | None:
        """The session in which this connection waits, opened for the first wait."""
        async with self._opening:
            if self._session is None:
                host, port = self._writer.get_extra_info("peername", ("", 0))[:2]
                try:
                    self._session = await self._leases.open(f"goyaad {host} {port}", self._lost)
                except Refused:
                    return None
            return self._session

    def _lost(self) -> None:
        self._session = None

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), _PAUSE_S)
            raise _Gone


def _length_ms(length_ns: int, most_ms: int) -> int:
    """Whole milliseconds, rounded up; what is shorter than one is none."""
    if length_ns < _NS_PER_MS:
        return 0
    return min(-(-length_ns // _NS_PER_MS), most_ms)


def _is_text(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _shown(job: JobInfo) -> dict[str, Any]:
    """A job as InspectN shows it: its delay is counted from now, below zero when it is over."""
    due_in_ms = job.due_in_ms
    if due_in_ms is None:
        # Of beanstalkd's, say: since when it is ready is not kept, only since when it is there.
        due_in_ms = job.time_left_ms or min(0, job.delay_ms - job.age_ms)
    return {
        "Body": job.body,
        "ID": id_of(job.key, job.job),
        "Delay": due_in_ms * _NS_PER_MS,
    }
