"""The asyncio client: a thin shell over `core.py` that speaks HTTP through aiohttp.

RULE: carries steps out and turns answers into values; decides nothing.

    async with Client("http://n1:7101,http://n2:7102") as client:
        async with client.session(ttl="10s") as session:
            async with session.lock("orders", wait="30s") as lock:
                ...                              # lock.token fences what is written meanwhile

`session`, `fifo`, `room`, `tube`, `runner`, `watch` and their like keep alive, wait and give back
by themselves; the plain calls (`open_session`, `acquire`, …) are one request each, for programs
that do all that on their own.

Every method raises `cluster.errors`: `Refused` for what the cluster decided against, other
`Definite` ones for what surely did not happen, `Indefinite` ones for what may have.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from urllib.parse import urlencode

import aiohttp
import msgspec
from yarl import URL

from cluster.client.backoff import Backoff
from cluster.client.core import (
    DEFAULT_ENDPOINTS,
    Answer,
    Breakage,
    Call,
    ClientClosed,
    Done,
    Endpoints,
    Failed,
    Pause,
    Policy,
    Request,
    Send,
    error_of,
    is_refused,
    new_key,
    parse_endpoints,
    path_of,
    problem_in,
    value_of,
)
from cluster.client.durations import Length
from cluster.client.elections import Election
from cluster.client.fifos import Fifo
from cluster.client.jobs import Handle, Job, OnError, Tube, Worker
from cluster.client.keeping import OnState
from cluster.client.refusals import IdempotencyKeyReused
from cluster.client.renewing import Renewals, RenewedSession, renewed_in
from cluster.client.rooms import Room
from cluster.client.semaphores import Resource, Semaphore
from cluster.client.session import Session
from cluster.client.tasks import Pool, Runner, Task
from cluster.client.watching import Feed, Happening
from cluster.errors import CoterieError, Refused

__all__ = ["Client", "ClusterState", "Grant", "LockState", "OpenedSession", "new_key", "now_ms"]

# How long one look waits for a request that was given up, and what is paused between two.
FATE_WAIT_MS = 500
FATE_PAUSE_MS = 100
# How long `close` waits for what goes on behind the callers.
FAREWELL_MS = 3_000
# Of one answer; a node's are pages of some megabytes at the most.
ANSWER_BYTES_MAX = 64 << 20

T = TypeVar("T")


# Kept unused, as collecting them would say that they were not closed.
_PARENTS: list[object] = []


class OpenedSession(msgspec.Struct, frozen=True):
    """A session of ours. `sent_ms`: when its opening was first sent, on the client's clock."""

    session: str
    ttl_ms: int
    expires_in_ms: int
    token: int
    sent_ms: int = 0


class Grant(msgspec.Struct, frozen=True):
    """A lock that is held. `token` is its fencing token; `mode` is exclusive or shared."""

    name: str
    token: int
    mode: str
    session: str


class TokenCheck(msgspec.Struct, frozen=True):
    """Whether a token is one of a present grant, and the newest there is."""

    valid: bool
    current_token: int | None = None


class LockHolder(msgspec.Struct, frozen=True):
    """One who holds a lock."""

    session: str
    token: int
    mode: str = "exclusive"
    held_for_ms: int = 0


class LockWaiter(msgspec.Struct, frozen=True):
    """One who waits for a lock."""

    session: str
    position: int


class Leadership(msgspec.Struct, frozen=True):
    """Who leads, as the answering node knows it."""

    leader: str | None
    term: int


class LockState(msgspec.Struct, frozen=True):
    """One lock as it stands: holders in order of grant, waiters in order of the queue."""

    name: str
    holders: list[LockHolder]
    waiters: list[LockWaiter]


class NodeState(msgspec.Struct, frozen=True):
    """One node as the answering node sees it; None is what that one cannot know."""

    id: str
    http: str | None = None
    state: str | None = None
    applied: int | None = None
    lag: int | None = None
    connected: bool | None = None
    last_heard_ms: int | None = None
    digest: str | None = None
    version: str | None = None


class ClusterState(msgspec.Struct, frozen=True):
    """The cluster as the answering node sees it. `leader` is None where it knows none."""

    cluster: str
    node: str
    term: int
    commit: int
    applied: int
    nodes: list[NodeState]
    leader: str | None = None
    digest: str | None = None
    ready: bool | None = None


# Of Linux the one that also runs while the machine sleeps, as leases run on meanwhile; elsewhere
# that is CLOCK_MONOTONIC.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now_ms() -> int:
    """Local clock of the client, in ms, the same in all threads: it never goes back."""
    return time.clock_gettime_ns(_CLOCK) // 1_000_000


class Client:
    """A way to one cluster. Use it as an async context manager, or close it.

    Args:
        endpoints: `host:port` or URLs, as text with commas or one by one.
        policy: how patient it is.
        timeout_ms: how long a call may take in all, if it does not say otherwise; the wait of a
            long poll comes on top.
        clock: ms of a clock that never goes back.
        tls: for endpoints behind https: a file of the authorities to trust (PEM), or a context, as
            for a certificate of one's own. Given, `host:port` means https and http is refused; not
            given, `https://` endpoints are checked against the authorities of the system.

    A client belongs to the event loop in which it is first used.

    Raises:
        ValueError: no endpoint, or one that is none.
        OSError: the file of the authorities cannot be read, or holds none (`ssl.SSLError`).
    """

    def __init__(
        self,
        endpoints: str | Iterable[str] = DEFAULT_ENDPOINTS,
        *,
        policy: Policy | None = None,
        timeout_ms: int = 10_000,
        clock: Callable[[], int] = now_ms,
        tls: ssl.SSLContext | str | Path | None = None,
    ):
        text = endpoints if isinstance(endpoints, str) else ",".join(endpoints)
        self._endpoints = Endpoints(parse_endpoints(text, is_secure=tls is not None))
        self._tls = ssl.create_default_context(cafile=tls) if isinstance(tls, str | Path) else tls
        self._policy = Policy() if policy is None else policy
        self._timeout_ms = timeout_ms
        self._clock = clock
        self._pid = os.getpid()
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()
        self._polls: dict[str, set[asyncio.Task[Any]]] = {}
        self._behind: set[asyncio.Task[Any]] = set()
        self._renewals = Renewals(self)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._http: aiohttp.ClientSession | None = None
        self._closing: asyncio.Task[None] | None = None
        self._is_closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the sessions that `session` made, then the connections. May be called again.

        Sessions made by `open_session` stay: close them by `close_session`. What is still under way
        is waited for, but not for long; after that the client asks nobody any more, and whoever
        uses it is told by a RuntimeError.
        """
        self._forget_parent()
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
        # Also where the caller is cancelled meanwhile: others wait for what our sessions held.
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        until_ms = self._clock() + FAREWELL_MS
        try:
            ending = [session.close() for session in list(self._sessions)]
            await asyncio.gather(*ending, return_exceptions=True)
            while self._behind and (left_ms := until_ms - self._clock()) > 0:
                await asyncio.wait(self._behind, timeout=left_ms / 1_000)
        finally:
            self._is_closed = True
            http, self._http = self._http, None
            left = [*self._behind, *self._renewals.close()]
            for task in left:
                task.cancel()
            if http is not None:
                await http.close()
            await asyncio.gather(*left, return_exceptions=True)

    @property
    def clock(self) -> Callable[[], int]:
        """The clock that leases are counted by, in ms."""
        return self._clock

    # What keeps itself alive.

    def session(
        self,
        *,
        ttl: Length = "10s",
        name: str | None = None,
        meta: Mapping[str, object] | None = None,
        owner: asyncio.Task[Any] | threading.Thread | Literal["process"] | None = None,
        on_state: OnState | None = None,
    ) -> Session:
        """A session that is kept alive while its owner lives: see `cluster.client.session`."""
        return Session(self, ttl=ttl, name=name, meta=meta, owner=owner, on_state=on_state)

    def semaphore(self, name: str) -> Semaphore:
        """A semaphore, to be set up or looked at."""
        return Semaphore(self, name)

    def resource(self, name: str) -> Resource:
        """A resource of which tickets are offered."""
        return Resource(self, name)

    def fifo(self, name: str) -> Fifo:
        """A fifo: `async with client.fifo("checkout").turn() as turn`."""
        return Fifo(self, name)

    def room(self, name: str) -> Room:
        """A waiting room."""
        return Room(self, name)

    def tube(self, name: str) -> Tube:
        """A tube of jobs."""
        return Tube(self, name)

    def worker(
        self,
        *tubes: str,
        handle: Handle,
        concurrency: int = 1,
        on_error: OnError = "release",
        retry: Length = "1s",
        on_lost: Callable[[Job], object] | None = None,
    ) -> Worker:
        """What works jobs of these tubes off: see `cluster.client.jobs.Worker`."""
        return Worker(
            self,
            *tubes,
            handle=handle,
            concurrency=concurrency,
            on_error=on_error,
            retry=retry,
            on_lost=on_lost,
        )

    def pool(self, name: str) -> Pool:
        """A pool of tasks."""
        return Pool(self, name)

    def runner(
        self,
        pool: str,
        *,
        concurrency: int = 1,
        ttl: Length = "30s",
        name: str | None = None,
        retry: Length = "1s",
        tick: Length = "1s",
        on_error: Callable[[Task | None, Exception], object] | None = None,
    ) -> Runner:
        """What does its share of a pool's tasks: see `cluster.client.tasks.Runner`."""
        return Runner(
            self,
            pool,
            concurrency=concurrency,
            ttl=ttl,
            name=name,
            retry=retry,
            tick=tick,
            on_error=on_error,
        )

    def election(
        self,
        group: str,
        *,
        name: str | None = None,
        ttl: Length = "10s",
        on_elected: Callable[[int], object] | None = None,
        on_deposed: Callable[[int], object] | None = None,
    ) -> Election:
        """The leadership of a group, to be stood for or looked at."""
        return Election(
            self, group, name=name, ttl=ttl, on_elected=on_elected, on_deposed=on_deposed
        )

    @property
    def renewals(self) -> Renewals:
        """By which sessions are renewed, several at a time where it pays."""
        self._forget_parent()
        return self._renewals

    def adopt(self, session: Session) -> None:
        """Close this session with the client, at the latest."""
        self._sessions.add(session)

    def behind(self, doing: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Let something go on behind the caller; `close` waits for it."""
        task = asyncio.get_running_loop().create_task(doing)
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)
        return task

    # Sessions.

    async def open_session(
        self,
        *,
        ttl_ms: int,
        name: str | None = None,
        meta: Mapping[str, object] | None = None,
        timeout_ms: int | None = None,
    ) -> OpenedSession:
        """Open a session that ends `ttl_ms` after its last renewal."""
        body: dict[str, object] = {"ttl": ttl_ms}
        if name is not None:
            body["name"] = name
        if meta is not None:
            body["meta"] = meta
        request = Request("POST", path_of("sessions"), body, key=new_key())
        answer = await self.call(request, timeout_ms=timeout_ms)
        opened = value_of(answer, OpenedSession)
        return msgspec.structs.replace(opened, sent_ms=answer.first_sent_ms)

    async def keepalive(
        self, session: str, *, timeout_ms: int | None = None, policy: Policy | None = None
    ) -> RenewedSession:
        """Renew a session for its whole TTL.

        Raises:
            Refused: `session_expired` or `session_not_found`: all it held is lost.
        """
        # Without a key: each attempt renews anew, counted from its own sending. The answer of an
        # earlier attempt, repeated, would promise time that has already run.
        request = Request("POST", path_of("sessions", session, "keepalive"), is_repeatable=True)
        answer = await self.call(request, timeout_ms=timeout_ms, policy=policy)
        renewed = value_of(answer, RenewedSession)
        return msgspec.structs.replace(renewed, sent_ms=answer.last_sent_ms)

    async def keepalives(
        self, sessions: list[str], *, timeout_ms: int | None = None, policy: Policy | None = None
    ) -> dict[str, RenewedSession]:
        """Renew several sessions in one step; those that are over are left out."""
        body = {"sessions": sessions}
        request = Request("POST", path_of("sessions", "keepalive"), body, is_repeatable=True)
        answer = await self.call(request, timeout_ms=timeout_ms, policy=policy)
        return renewed_in(answer.body, sessions, answer.last_sent_ms)

    async def close_session(self, session: str, *, timeout_ms: int | None = None) -> None:
        """End a session; what it holds is free at once."""
        request = Request("DELETE", path_of("sessions", session), key=new_key())
        await self.call(request, timeout_ms=timeout_ms)

    async def session_view(self, session: str, *, timeout_ms: int | None = None) -> dict[str, Any]:
        """Read one session: its name, what it holds and what it waits for."""
        request = Request("GET", path_of("sessions", session))
        return (await self.call(request, timeout_ms=timeout_ms)).body

    # Locks.

    async def acquire(
        self,
        session: str,
        name: str,
        *,
        wait_ms: int = 0,
        is_shared: bool = False,
        priority: int = 0,
        timeout_ms: int | None = None,
    ) -> Grant:
        """Take a lock, standing in its queue for at most `wait_ms`.

        Raises:
            Refused: `lock_held` with who holds it, or `session_expired`.
        """
        until_ms = self._clock() + wait_ms
        while True:
            left_ms = max(0, until_ms - self._clock())
            body: dict[str, object] = {"session": session, "wait": left_ms}
            if is_shared:
                body["mode"] = "shared"
            if priority:
                body["priority"] = priority
            request = Request(
                "POST", path_of("locks", name, "acquire"), body, key=new_key(), wait_ms=left_ms
            )
            try:
                answer = await self.call(request, timeout_ms=timeout_ms)
            except Refused as error:
                # A node took our broken connection for a client that hung up, and took us out of
                # the queue, before the repeat of the request came. We are still here: ask anew.
                if error.code == "withdrawn" and left_ms > 0:
                    continue
                raise
            return value_of(answer, Grant)

    async def release(
        self, session: str, name: str, token: int, *, timeout_ms: int | None = None
    ) -> None:
        """Give a lock back, if it is still held under this token."""
        body = {"session": session, "token": token}
        request = Request("POST", path_of("locks", name, "release"), body, key=new_key())
        await self.call(request, timeout_ms=timeout_ms)

    async def check(self, name: str, token: int, *, timeout_ms: int | None = None) -> TokenCheck:
        """Ask whether a token is one of a present grant of the lock."""
        path = path_of("locks", name, "check")
        request = Request("POST", path, {"token": token}, is_repeatable=True)
        return value_of(await self.call(request, timeout_ms=timeout_ms), TokenCheck)

    async def lock(self, name: str, *, timeout_ms: int | None = None) -> LockState:
        """Read who holds a lock and who waits for it."""
        request = Request("GET", path_of("locks", name))
        return value_of(await self.call(request, timeout_ms=timeout_ms), LockState)

    # The cluster.

    async def cluster(self, *, timeout_ms: int | None = None) -> ClusterState:
        """Read the state of the cluster as the asked node sees it."""
        request = Request("GET", path_of("cluster"))
        return value_of(await self.call(request, timeout_ms=timeout_ms), ClusterState)

    async def transfer(self, to: str | None = None, *, timeout_ms: int | None = None) -> Leadership:
        """Hand leadership over, to a given node or to the fittest."""
        body: dict[str, object] = {} if to is None else {"to": to}
        request = Request("POST", path_of("cluster", "transfer"), body)
        return value_of(await self.call(request, timeout_ms=timeout_ms), Leadership)

    async def explain(
        self, session: str, want: str | None = None, *, timeout_ms: int | None = None
    ) -> dict[str, Any]:
        """Read who is in the way of a session, since when, and what would help.

        Args:
            session: its id.
            want: a path such as `/locks/orders`; without one, all that it waits for.
        """
        query = {"session": session} if want is None else {"session": session, "want": want}
        request = Request("GET", f"{path_of('explain')}?{urlencode(query)}")
        return (await self.call(request, timeout_ms=timeout_ms)).body

    async def batch(
        self,
        commands: Iterable[Mapping[str, object]],
        *,
        atomic: bool = False,
        timeout_ms: int | None = None,
    ) -> list[dict[str, Any]]:
        """Carry several commands out in one step; with `atomic`, all of them or none.

        Args:
            commands: each as `{"call": "POST /v1/locks/orders/acquire", "session": …}`.

        Returns:
            `{"status", "body"}` of each, in order.

        Raises:
            BatchRefused: atomic, and one of them would be refused.
        """
        body = {"commands": list(commands), "atomic": atomic}
        request = Request("POST", path_of("batch"), body, key=new_key())
        answers: list[dict[str, Any]] = (await self.call(request, timeout_ms=timeout_ms)).body[
            "answers"
        ]
        return answers

    async def watch(
        self,
        *prefixes: str,
        session: str | None = None,
        after: int | None = None,
        silent_ms: int = 40_000,
    ) -> AsyncGenerator[Happening, None]:
        """What happens from here on, or behind a position; goes on after failures, at any node.

        Args:
            prefixes: only things whose path begins with one of these, as `/locks/orders`.
            session: only what concerns this session.
            after: position of the log behind which it begins; None: now.
            silent_ms: a stream that says nothing for so long is dead; nodes give signs of life.

        Yields:
            `Event`, or `Resync` where events are lost: then look at the state itself.

        Raises:
            Refused: the cluster will not have it, however often it is asked.
        """
        query = [("prefix", prefix) for prefix in prefixes]
        if session is not None:
            query.append(("session", session))
        feed = Feed(after)
        backoff = Backoff(self._policy.pause_first_ms, self._policy.pause_most_ms)
        while True:
            place = [*query, ("after", feed.after)] if feed.after is not None else query
            endpoint = self._endpoints.current
            url = URL(f"{endpoint}{path_of('watch')}?{urlencode(place)}", encoded=True)
            timeout = aiohttp.ClientTimeout(
                sock_connect=self._policy.connect_ms / 1_000, sock_read=silent_ms / 1_000
            )
            try:
                async with self._connections().get(
                    url, timeout=timeout, allow_redirects=False
                ) as response:
                    if response.status != 200:
                        body = await _read(response)
                        error = error_of(response.status, problem_in(body), endpoint)
                        if not error.retryable:
                            raise error
                    else:
                        backoff = Backoff(self._policy.pause_first_ms, self._policy.pause_most_ms)
                        feed.connected()
                        while not feed.is_over and (data := await response.content.readany()):
                            for happening in feed.fed(data):
                                yield happening
            except (TimeoutError, aiohttp.ClientError, OSError):
                # The next node goes on behind what was told.
                pass
            self._endpoints.failed(endpoint)
            await asyncio.sleep(backoff.next_ms() / 1_000)

    async def call(
        self, request: Request, *, timeout_ms: int | None = None, policy: Policy | None = None
    ) -> Answer:
        """Send any request, as often as it takes and is right.

        Args:
            request: what is asked.
            timeout_ms: how long it may take in all, its own wait apart.
            policy: how patient this call is, if not as the client.
        """
        policy = self._policy if policy is None else policy
        backoff = Backoff(policy.pause_first_ms, policy.pause_most_ms)
        limit_ms = self._timeout_ms if timeout_ms is None else timeout_ms
        deadline_ms = self._clock() + limit_ms + request.wait_ms
        call = Call(request, self._endpoints, policy, backoff, deadline_ms)
        step = call.begin(self._clock())
        while True:
            if isinstance(step, Done):
                return step.answer
            if isinstance(step, Failed):
                raise step.error
            if isinstance(step, Pause):
                await asyncio.sleep(step.pause_ms / 1_000)
                step = call.resumed(self._clock())
                continue
            try:
                if request.wait_ms > 0:
                    status, headers, body = await self._poll(step)
                else:
                    status, headers, body = await self._exchange(step)
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                why = _said(error) or f"no answer within {step.timeout_ms} ms"
                how = _breakage(error)
                if how != "lost":
                    self._silent(step.endpoint)
                step = call.broke(how, why, self._clock())
                continue
            step = call.answered(status, headers, body, self._clock())

    async def fate(self, request: Request) -> Answer | None:
        """What became of a request that may wait, and that nobody waits for any more.

        Asks until it is settled; a bound is set by who calls.

        Returns:
            its success; None: it was refused, or will never be.
        """
        assert request.body is not None
        # Under the same key, but not to wait: that settles a key which was withdrawn as we hung up.
        # One that is settled already, or waits still, belongs to another body.
        probe = msgspec.structs.replace(request, body={**request.body, "wait": 0}, wait_ms=0)
        again = msgspec.structs.replace(request, wait_ms=0)
        while True:
            try:
                return await self.call(probe, timeout_ms=self._timeout_ms)
            except IdempotencyKeyReused:
                pass
            except CoterieError as error:
                if is_refused(error):
                    return None
                await asyncio.sleep(FATE_PAUSE_MS / 1_000)
                continue
            try:
                return await self.call(again, timeout_ms=FATE_WAIT_MS)
            except CoterieError as error:
                if is_refused(error):
                    return None
                # It waits: as we hang up, it is withdrawn.
                continue

    async def _exchange(self, step: Send) -> tuple[int, Mapping[str, str], bytes]:
        """One HTTP exchange."""
        timeout = aiohttp.ClientTimeout(
            total=step.timeout_ms / 1_000, sock_connect=step.connect_ms / 1_000
        )
        async with self._connections().request(
            step.method,
            # As it stands: quoted slashes and dots in a name are not to be tidied up.
            URL(step.endpoint + step.path, encoded=True),
            headers=step.headers,
            data=step.body,
            timeout=timeout,
            allow_redirects=False,
        ) as response:
            return response.status, response.headers, await _read(response)

    async def _poll(self, step: Send) -> tuple[int, Mapping[str, str], bytes]:
        """An exchange that may be long in coming: it is broken off once its node is silent to
        others, as what is waited for may long be there at the next one.
        """
        task = asyncio.current_task()
        before = 0 if task is None else task.cancelling()
        polling = asyncio.get_running_loop().create_task(self._exchange(step))
        self._polls.setdefault(step.endpoint, set()).add(polling)
        try:
            return await polling
        except asyncio.CancelledError:
            is_ours = task is not None and task.cancelling() > before
            if is_ours or polling in self._polls.get(step.endpoint, ()):
                raise
            raise ConnectionError("the node answers nobody") from None
        finally:
            self._polls.get(step.endpoint, set()).discard(polling)

    def _silent(self, endpoint: str) -> None:
        """A node did not answer in time: whoever waits at it does better at the next one."""
        for polling in self._polls.pop(endpoint, ()):
            polling.cancel()

    def _forget_parent(self) -> None:
        """In a fork, begin anew: connections and tasks are those of our parent, and so is what
        their selector knows.
        """
        if os.getpid() != self._pid:
            _PARENTS.append((self._http, self._behind, self._polls, self._renewals, self._closing))
            self._http, self._behind, self._polls = None, set(), {}
            self._renewals, self._closing, self._loop = Renewals(self), None, None
            self._pid = os.getpid()

    def _connections(self) -> aiohttp.ClientSession:
        """Kept ones, and new ones.

        Raises:
            ClientClosed: the client was closed.
            RuntimeError: this is another event loop than that of its connections.
        """
        self._forget_parent()
        if self._is_closed:
            raise ClientClosed
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError(
                "the client belongs to another event loop; make one in each loop, and close it there"
            )
        if self._http is None:
            # Every call has its own time limit, and none is to wait for another's connection.
            self._http = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0, ssl=True if self._tls is None else self._tls
                ),
                timeout=aiohttp.ClientTimeout(total=None),
                # Whatever stands between us and a node has nothing to remember of us.
                cookie_jar=aiohttp.DummyCookieJar(),
            )
            # It would repeat what it takes for idempotent, a DELETE, on its own; and the error of
            # the second try says that nothing was sent.
            self._http._retry_connection = False
        return self._http


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The body of an answer.

    Raises:
        ConnectionError: it is larger than any of a node's.
    """
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > ANSWER_BYTES_MAX:
            raise ConnectionError(f"the answer is larger than {ANSWER_BYTES_MAX} bytes")
        parts.append(part)
    return b"".join(parts)


def _said(error: Exception) -> str:
    """What went wrong, in the system's words where they are enough: the address is told beside them."""
    if not isinstance(error, aiohttp.ClientConnectorError) or isinstance(
        error, aiohttp.ClientSSLError
    ):
        return str(error)
    number = error.os_error.errno
    # Below 0 are those of name resolution, which has words of its own.
    said = os.strerror(number) if number and number > 0 else error.os_error.strerror
    return said.lower() if said else str(error)


def _breakage(error: Exception) -> Breakage:
    """A connection that never stood carried nothing; in all other cases something may have left."""
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return "unsent"
    return "late" if isinstance(error, TimeoutError) else "lost"
