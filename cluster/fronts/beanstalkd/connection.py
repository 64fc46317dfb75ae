"""One client: its requests in order, its tubes, and the jobs it has.

RULE: requests to commands, outcomes to words. One request is carried out at a time, but puts that
came together go together: in one command, so that they stay in order whatever happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

from cluster.errors import CoterieError, ShuttingDown
from cluster.fronts.beanstalkd import figures, replies
from cluster.fronts.beanstalkd.figures import Figures
from cluster.fronts.beanstalkd.kept import DEFAULT, KeptTubes
from cluster.fronts.beanstalkd.parser import Parser, Request
from cluster.fronts.front import Surroundings
from cluster.fronts.leases import Leases, Refused
from cluster.machine import limits
from cluster.machine.commands import Command, Several
from cluster.machine.commands.jobs import (
    BuryJob,
    DeleteJob,
    KickJob,
    KickTube,
    PauseTube,
    PutJob,
    ReleaseJob,
    ReserveJob,
    ReserveJobs,
    TouchJob,
)
from cluster.machine.outcome import Batched, Outcome, SessionExpired, SessionNotFound
from cluster.machine.outcome.jobs import (
    JobDeleted,
    JobInfo,
    JobKicked,
    JobMoved,
    JobPut,
    NotReserved,
    OneReserved,
    Reservation,
    Reserved,
    Touched,
    TubeKicked,
    TubePaused,
)

SAFETY_MARGIN_MS: Final = 1_000
"""Before the end of a reservation: from then on its client is warned instead of kept waiting."""

_READ_BYTES: Final = 64 * 1024
_READ_AHEAD_BYTES: Final = 1024 * 1024
_REPLIES_BYTES_MAX: Final = 256 * 1024
_PUTS_MAX: Final = 256
_PUT_BYTES_MAX: Final = 512 * 1024
_JOB_ID_MAX: Final = 2**62
_OWN_WORK: Final = frozenset(
    {"use", "watch", "ignore", "list-tube-used", "list-tubes-watched", "quit"}
)
"""Requests for which nobody else is asked."""

_SESSION_OVER = (SessionExpired, SessionNotFound)

_Do: TypeAlias = Callable[["Connection", Request], Awaitable[bytes]]


class Connection:
    """Serves one client.

    Attributes:
        is_idle: it is the client's turn.
    """

    def __init__(
        self,
        surroundings: Surroundings,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        leases: Leases,
        kept: KeptTubes,
        counts: Figures,
    ) -> None:
        self._surroundings = surroundings
        self._node = surroundings.node
        self._desk = surroundings.desk
        self._reader = reader
        self._writer = writer
        self._leases = leases
        self._kept = kept
        self._counts = counts
        self._parser = Parser(counts.job_bytes_max)
        self._next: Request | None = None
        self._reading: asyncio.Task[bytes] | None = None
        self._is_over = False
        self._replies: list[bytes] = []
        self._replied_bytes = 0
        self._session: str | None = None
        self._tokens: dict[int, int] = {}
        self._used = DEFAULT
        self._watched = [DEFAULT]
        self._is_producer = False
        self._is_worker = False
        self._is_waiting = False
        self.is_idle = True

    async def serve(self) -> None:
        """Serve until the client or this node ends it; what the client had goes back."""
        kept, counts = self._kept, self._counts
        counts.connections += 1
        counts.total_connections += 1
        kept.use(DEFAULT, instead_of=None)
        kept.watch(DEFAULT)
        try:
            while not self._is_over:
                request = self._take()
                if request is not None:
                    self.is_idle = False
                    await self._carry_out(request)
                elif not await self._more():
                    break
            await self._flush()
        finally:
            if self._reading is not None and not self._reading.cancel():
                # Whatever it came to: nobody asks for it any more.
                self._reading.cancelled() or self._reading.exception()
            if self._session is not None:
                self._leases.close(self._session)
            kept.leave(self._used, self._watched)
            counts.connections -= 1
            counts.producers -= self._is_producer
            counts.workers -= self._is_worker

    def end(self) -> None:
        """No further request is carried out; who is idle or waits is sent away now."""
        self._is_over = True
        if self.is_idle:
            self._writer.close()
        elif self._is_waiting and self._session is not None:
            # Before others give back what they have: it must not be given to somebody who goes.
            self._leases.close(self._session)

    # Bytes.

    def _take(self) -> Request | None:
        request, self._next = self._next, None
        return self._parser.next() if request is None else request

    async def _more(self) -> bool:
        """Send what there is to say, and read on; whether anything came."""
        await self._flush()
        self.is_idle = True
        if self._reading is None:
            data = await self._reader.read(_READ_BYTES)
        else:
            data = await self._reading
            self._reading = None
        self._parser.feed(data)
        return bool(data)

    def _say(self, reply: bytes) -> None:
        self._replies.append(reply)
        self._replied_bytes += len(reply)

    async def _flush(self) -> None:
        if self._replies:
            self._writer.write(b"".join(self._replies))
            self._replies.clear()
            self._replied_bytes = 0
            await self._writer.drain()

    # Requests.

    async def _carry_out(self, request: Request) -> None:
        if request.op:
            self._counts.ops[request.op] += 1
        if request.reply is not None:
            if request.reply is replies.EXPECTED_CRLF:
                self._become_producer()
            self._say(request.reply)
            return
        if request.op not in _OWN_WORK:
            # What is answered leaves before the cluster is asked, which may take long.
            await self._flush()
        try:
            if request.op == "put":
                await self._put(request)
            else:
                self._say(await _DO[request.op](self, request))
        except Refused:
            self._say(replies.OUT_OF_MEMORY)
        except CoterieError as error:
            self._say(self._failed(error))
        if self._replied_bytes > _REPLIES_BYTES_MAX:
            await self._flush()

    def _failed(self, error: CoterieError) -> bytes:
        """What is said of a request without an answer."""
        if error.definite and not isinstance(error, ShuttingDown):
            return replies.INTERNAL_ERROR
        # What may have happened must not be called an error: a client would do it again.
        self._is_over = True
        return b""

    async def _put(self, first: Request) -> None:
        self._become_producer()
        puts, size = [first], len(first.body)
        while len(puts) < _PUTS_MAX and (request := self._parser.next()) is not None:
            size += len(request.body)
            if request.op != "put" or request.reply is not None or size > _PUT_BYTES_MAX:
                self._next = request
                break
            self._counts.ops["put"] += 1
            puts.append(request)
        if self._counts.is_draining:
            self._say(replies.DRAINING * len(puts))
            return
        commands = tuple(self._put_command(put) for put in puts)
        try:
            outcome = await self._desk.ask(Several(commands) if len(puts) > 1 else commands[0])
        except CoterieError as error:
            self._say(self._failed(error) * len(puts))
            return
        for one in outcome.outcomes if isinstance(outcome, Batched) else (outcome,):
            if isinstance(one, JobPut):
                self._say(replies.inserted(one.job))
            else:
                self._say(replies.OUT_OF_MEMORY)

    def _put_command(self, put: Request) -> PutJob:
        return PutJob(
            self._used,
            put.body,
            priority=put.priority,
            delay_ms=put.delay_s * 1000,
            ttr_ms=put.ttr_s * 1000,
        )

    # Tubes.

    async def _use(self, request: Request) -> bytes:
        before, self._used = self._used, request.tube
        self._kept.use(request.tube, instead_of=before)
        return replies.using(request.tube)

    async def _watch(self, request: Request) -> bytes:
        watched = self._watched
        if request.tube not in watched:
            if len(watched) >= limits.TUBES_PER_RESERVE_MAX:
                return replies.OUT_OF_MEMORY
            watched.append(request.tube)
            self._kept.watch(request.tube)
        return replies.watching(len(watched))

    async def _ignore(self, request: Request) -> bytes:
        watched = self._watched
        if request.tube in watched:
            if len(watched) == 1:
                return replies.NOT_IGNORED
            # The last one comes into the hole, which shows in the list.
            at, last = watched.index(request.tube), watched.pop()
            if at < len(watched):
                watched[at] = last
            self._kept.ignore(request.tube)
        return replies.watching(len(watched))

    async def _list_tubes(self, _: Request) -> bytes:
        await self._kept.settled()
        machine = await self._desk.read()
        return replies.listed(figures.tube_names(machine, self._kept))

    async def _list_used(self, _: Request) -> bytes:
        return replies.using(self._used)

    async def _list_watched(self, _: Request) -> bytes:
        return replies.listed(self._watched)

    async def _pause(self, request: Request) -> bytes:
        await self._kept.settled()
        machine = await self._desk.read()
        if figures.find_tube(machine, self._kept, request.tube, machine.now_ms) is None:
            return replies.NOT_FOUND
        outcome = await self._desk.ask(PauseTube(request.tube, request.delay_s * 1000))
        return replies.PAUSED if isinstance(outcome, TubePaused) else replies.OUT_OF_MEMORY

    # Reservations.

    async def _reserve(self, request: Request) -> bytes:
        self._become_worker()
        until_ms = None
        if request.op == "reserve-with-timeout":
            until_ms = self._node.now_ms() + request.number * 1000
        tubes = tuple(self._watched)
        wait_ms = 0
        while True:
            session = await self._session_open()
            # First what is there, without waiting: a client that has closed its side already gets
            # it all the same.
            if wait_ms == 0:
                outcome: Outcome | None = await self._desk.ask(ReserveJobs(tubes, session))
            else:
                outcome = await self._waited(ReserveJobs(tubes, session, 1, wait_ms))
            if outcome is None:
                return replies.TIMED_OUT
            if isinstance(outcome, Reserved):
                if outcome.jobs:
                    return self._got(outcome.jobs[0])
            elif not self._is_over_for(session, outcome):
                return replies.OUT_OF_MEMORY
            now_ms, soon_ms = self._node.now_ms(), self._warned_at_ms()
            if soon_ms is not None and soon_ms <= now_ms:
                return replies.DEADLINE_SOON
            if until_ms is not None and until_ms <= now_ms:
                return replies.TIMED_OUT
            ends_ms = (at for at in (soon_ms, until_ms) if at is not None)
            wait_ms = min((at - now_ms for at in ends_ms), default=limits.LENGTH_MS_MAX)
            wait_ms = min(wait_ms, limits.LENGTH_MS_MAX)

    async def _reserve_job(self, request: Request) -> bytes:
        while request.number in _JOB_IDS:
            session = await self._session_open()
            outcome = await self._desk.ask(ReserveJob(request.number, session))
            if isinstance(outcome, OneReserved):
                self._become_worker()
                return self._got(outcome.reservation)
            if not self._is_over_for(session, outcome):
                break
        return replies.NOT_FOUND

    def _got(self, one: Reservation) -> bytes:
        self._tokens[one.job] = one.token
        return replies.reserved(one.job, one.body)

    def _become_producer(self) -> None:
        if not self._is_producer:
            self._is_producer = True
            self._counts.producers += 1

    def _become_worker(self) -> None:
        if not self._is_worker:
            self._is_worker = True
            self._counts.workers += 1

    async def _session_open(self) -> str:
        """The session under which this connection reserves; opened when it first does."""
        while self._session is None:
            host, port = (self._writer.get_extra_info("peername") or ("?", 0))[:2]
            self._session = await self._leases.open(f"beanstalkd {host} {port}", self._lost)
        return self._session

    def _lost(self) -> None:
        """The session ended without us, and took the reservations along."""
        self._session = None
        self._tokens.clear()

    def _is_over_for(self, session: str, outcome: Outcome) -> bool:
        if not isinstance(outcome, _SESSION_OVER):
            return False
        self._leases.lost(session)
        if self._session == session:
            self._lost()  # We had closed it ourselves, as this node goes.
        return True

    def _warned_at_ms(self) -> int | None:
        """Cluster time from which on this client is not kept waiting; None: it may wait for ever."""
        jobs, soonest_ms = self._node.machine.jobs.stock.jobs, None
        for job_id, token in tuple(self._tokens.items()):
            job = jobs.get(job_id)
            if job is None or job.hold is None or job.hold.token != token:
                del self._tokens[job_id]
            elif soonest_ms is None or job.hold.deadline_ms < soonest_ms:
                soonest_ms = job.hold.deadline_ms
        return None if soonest_ms is None else soonest_ms - SAFETY_MARGIN_MS

    async def _waited(self, command: Command) -> Outcome | None:
        """Ask what may take long; None if the client closed its side meanwhile."""
        self._is_waiting = True
        asking = asyncio.create_task(self._desk.ask(command))
        try:
            while True:
                waiting: list[asyncio.Task[Outcome] | asyncio.Task[bytes]] = [asking]
                if self._reading is None and self._parser.held < _READ_AHEAD_BYTES:
                    self._reading = asyncio.create_task(self._reader.read(_READ_BYTES))
                if self._reading is not None:
                    waiting.append(self._reading)
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if asking.done():
                    return asking.result()
                assert self._reading is not None
                data = self._reading.result()
                if not data:
                    return None
                self._reading = None
                self._parser.feed(data)
        finally:
            self._is_waiting = False
            asking.cancel()

    # What is done to jobs.

    # Its token goes when the cluster has answered, not before: what did not happen is asked again.

    async def _delete(self, request: Request) -> bytes:
        job = request.number
        if job not in _JOB_IDS:
            return replies.NOT_FOUND
        token = self._tokens.get(job)
        outcome = await self._desk.ask(DeleteJob(job, token))
        self._tokens.pop(job, None)
        if token is not None and isinstance(outcome, NotReserved):
            # Its time ran out: now it is anybody's.
            outcome = await self._desk.ask(DeleteJob(job))
        return replies.DELETED if isinstance(outcome, JobDeleted) else replies.NOT_FOUND

    async def _release(self, request: Request) -> bytes:
        job = request.number
        token = self._tokens.get(job)
        if token is None:
            return replies.NOT_FOUND
        command = ReleaseJob(job, token, request.priority, request.delay_s * 1000)
        outcome = await self._desk.ask(command)
        self._tokens.pop(job, None)
        return replies.RELEASED if isinstance(outcome, JobMoved) else replies.NOT_FOUND

    async def _bury(self, request: Request) -> bytes:
        job = request.number
        token = self._tokens.get(job)
        if token is None:
            return replies.NOT_FOUND
        outcome = await self._desk.ask(BuryJob(job, token, request.priority))
        self._tokens.pop(job, None)
        return replies.BURIED if isinstance(outcome, JobMoved) else replies.NOT_FOUND

    async def _touch(self, request: Request) -> bytes:
        token = self._tokens.get(request.number)
        if token is None:
            return replies.NOT_FOUND
        outcome = await self._desk.ask(TouchJob(request.number, token))
        if isinstance(outcome, Touched):
            return replies.TOUCHED
        self._tokens.pop(request.number, None)
        return replies.NOT_FOUND

    async def _kick(self, request: Request) -> bytes:
        left = request.number
        if left > limits.JOBS_PER_KICK_MAX:
            # By several commands, of which none may go on with delayed jobs after buried ones.
            tube = (await self._desk.read()).jobs.pictures.tube(self._used, 0)
            if tube is not None and tube.buried:
                left = min(left, tube.buried)
        count = 0
        while True:
            outcome = await self._desk.ask(KickTube(self._used, left))
            assert isinstance(outcome, TubeKicked), outcome
            count += outcome.kicked
            left -= outcome.kicked
            if left <= 0 or outcome.kicked < limits.JOBS_PER_KICK_MAX:
                return replies.kicked(count)

    async def _kick_job(self, request: Request) -> bytes:
        if request.number not in _JOB_IDS:
            return replies.NOT_FOUND
        outcome = await self._desk.ask(KickJob(request.number))
        was_kicked = isinstance(outcome, JobKicked) and outcome.kicked
        return replies.KICKED if was_kicked else replies.NOT_FOUND

    # What is looked at.

    async def _peek(self, request: Request) -> bytes:
        machine = await self._desk.read()
        return _found(machine.jobs.pictures.job(request.number, self._node.now_ms()))

    async def _peek_first(self, request: Request) -> bytes:
        machine, state = await self._desk.read(), request.op.removeprefix("peek-")
        first = machine.jobs.pictures.jobs(self._used, state, self._node.now_ms())
        return _found(first[0] if first else None)

    async def _stats_job(self, request: Request) -> bytes:
        machine = await self._desk.read()
        job = machine.jobs.pictures.job(request.number, self._node.now_ms())
        return replies.NOT_FOUND if job is None else replies.figures(figures.of_job(job))

    async def _stats_tube(self, request: Request) -> bytes:
        await self._kept.settled()
        machine = await self._desk.read()
        tube = figures.find_tube(machine, self._kept, request.tube, self._node.now_ms())
        if tube is None:
            return replies.NOT_FOUND
        return replies.figures(figures.of_tube(tube, self._kept))

    async def _stats(self, _: Request) -> bytes:
        await self._kept.settled()
        machine = await self._desk.read()
        return replies.figures(self._counts.server(machine, self._surroundings.clock()))

    async def _quit(self, _: Request) -> bytes:
        self._is_over = True
        return b""


def _found(job: JobInfo | None) -> bytes:
    return replies.NOT_FOUND if job is None else replies.found(job.job, job.body)


_JOB_IDS: Final = range(1, _JOB_ID_MAX + 1)

_DO: Final[Mapping[str, _Do]] = MappingProxyType(
    {
        "peek": Connection._peek,
        "peek-ready": Connection._peek_first,
        "peek-delayed": Connection._peek_first,
        "peek-buried": Connection._peek_first,
        "reserve": Connection._reserve,
        "reserve-with-timeout": Connection._reserve,
        "reserve-job": Connection._reserve_job,
        "delete": Connection._delete,
        "release": Connection._release,
        "bury": Connection._bury,
        "kick": Connection._kick,
        "kick-job": Connection._kick_job,
        "touch": Connection._touch,
        "stats-job": Connection._stats_job,
        "stats-tube": Connection._stats_tube,
        "stats": Connection._stats,
        "use": Connection._use,
        "watch": Connection._watch,
        "ignore": Connection._ignore,
        "list-tubes-watched": Connection._list_watched,
        "list-tube-used": Connection._list_used,
        "list-tubes": Connection._list_tubes,
        "quit": Connection._quit,
        "pause-tube": Connection._pause,
    }
)
