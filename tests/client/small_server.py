"""A small server that speaks the rows of the API which the client uses, for tests of the client.

RULE: one process, no replication, no clock: a session ends when a test says so. It stands in for
a cluster only where a test is about the client; what a cluster does is tested with a cluster.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Gate = Callable[[str], Awaitable[web.Response | None]]


@dataclass
class Lock:
    """Holder as (session, token), and who waits."""

    holder: tuple[str, int] | None = None
    waiters: list[tuple[str, asyncio.Future[int]]] = field(default_factory=list)


class SmallServer:
    """Sessions, locks and one node of a cluster; `gate` is where faults come in.

    Attributes:
        gate: called before each request with its path; may wait, or give an answer instead.
        seen: (method, path, key) of every request that arrived, in order.
        cluster: what `/v1/cluster` answers.
    """

    def __init__(self) -> None:
        self.gate: Gate | None = None
        self.seen: list[tuple[str, str, str | None]] = []
        self.cluster: dict[str, Any] = {}
        self.sessions: dict[str, int] = {}
        self.locks: dict[str, Lock] = {}
        self.arrived = asyncio.Condition()
        self._tokens = itertools.count(1)
        self._stored: dict[str, tuple[int, dict[str, Any] | None]] = {}
        self._runner: web.AppRunner | None = None
        self.endpoint = ""

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._middleware])
        app.router.add_post("/v1/sessions", self._open)
        app.router.add_post("/v1/sessions/{id}/keepalive", self._keepalive)
        app.router.add_delete("/v1/sessions/{id}", self._close)
        app.router.add_post("/v1/locks/{name}/acquire", self._acquire)
        app.router.add_post("/v1/locks/{name}/release", self._release)
        app.router.add_post("/v1/locks/{name}/check", self._check)
        app.router.add_get("/v1/locks/{name}", self._show)
        app.router.add_get("/v1/cluster", self._cluster)
        app.router.add_post("/v1/cluster/transfer", self._transfer)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.endpoint = f"{host}:{port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """End every connection and listen no more."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def until_seen(self, method: str, path_end: str, times: int = 1) -> None:
        """Return when so many requests of this kind have arrived."""
        async with self.arrived:
            await self.arrived.wait_for(lambda: self.count(method, path_end) >= times)

    def count(self, method: str, path_end: str) -> int:
        """How many requests of this kind have arrived."""
        return sum(seen[0] == method and seen[1].endswith(path_end) for seen in self.seen)

    def hold(self, name: str, session: str = "other") -> int:
        """Let somebody else hold a lock."""
        token = next(self._tokens)
        self.locks.setdefault(name, Lock()).holder = (session, token)
        return token

    def expire(self, session: str) -> None:
        """End a session as its TTL would."""
        self.sessions.pop(session, None)
        for lock in self.locks.values():
            lock.waiters = [waiter for waiter in lock.waiters if waiter[0] != session]
            if lock.holder is not None and lock.holder[0] == session:
                self.pass_on(lock)

    def pass_on(self, lock: Lock) -> None:
        """Give a lock to the next waiter."""
        lock.holder = None
        while lock.waiters and lock.holder is None:
            session, granted = lock.waiters.pop(0)
            if not granted.done():
                lock.holder = (session, next(self._tokens))
                granted.set_result(lock.holder[1])

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        key = request.headers.get("Idempotency-Key")
        async with self.arrived:
            self.seen.append((request.method, request.rel_url.raw_path, key))
            self.arrived.notify_all()
        if self.gate is not None and (answer := await self.gate(request.path)) is not None:
            return answer
        if key is not None and key in self._stored:
            status, body = self._stored[key]
            return _response(status, body)
        return await handler(request)

    def _reply(
        self, request: web.Request, status: int, body: dict[str, Any] | None = None
    ) -> web.Response:
        key = request.headers.get("Idempotency-Key")
        if key is not None:
            self._stored[key] = (status, body)
        return _response(status, body)

    async def _open(self, request: web.Request) -> web.Response:
        asked = await request.json()
        token = next(self._tokens)
        session = f"{token:x}-s"
        self.sessions[session] = asked["ttl"]
        body = {"session": session, "token": token}
        times = {"ttl_ms": asked["ttl"], "expires_in_ms": asked["ttl"]}
        return self._reply(request, 201, body | times)

    async def _keepalive(self, request: web.Request) -> web.Response:
        session = request.match_info["id"]
        if session not in self.sessions:
            return problem(410, "session_expired", session=session)
        return _response(200, {"session": session, "expires_in_ms": self.sessions[session]})

    async def _close(self, request: web.Request) -> web.Response:
        self.expire(request.match_info["id"])
        return self._reply(request, 204)

    async def _acquire(self, request: web.Request) -> web.Response:
        asked = await request.json()
        name, session = request.match_info["name"], asked["session"]
        if session not in self.sessions:
            return problem(410, "session_expired", session=session)
        lock = self.locks.setdefault(name, Lock())
        if lock.holder is None:
            lock.holder = (session, next(self._tokens))
        if lock.holder[0] != session:
            granted: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            lock.waiters.append((session, granted))
            try:
                await asyncio.wait_for(granted, asked.get("wait", 0) / 1_000)
            except TimeoutError:
                holder, token = lock.holder
                lock.waiters.remove((session, granted))
                queue = len(lock.waiters)
                return problem(
                    409,
                    "lock_held",
                    holder=holder,
                    holder_token=token,
                    held_for_ms=5,
                    queue_length=queue,
                    position=queue + 1,
                )
        assert lock.holder is not None
        grant = {"name": name, "token": lock.holder[1], "mode": "exclusive", "session": session}
        return self._reply(request, 200, grant)

    async def _release(self, request: web.Request) -> web.Response:
        asked = await request.json()
        lock = self.locks.setdefault(request.match_info["name"], Lock())
        if lock.holder != (asked["session"], asked["token"]):
            return problem(409, "not_holder", session=asked["session"])
        self.pass_on(lock)
        return self._reply(request, 200, {"released": True})

    async def _check(self, request: web.Request) -> web.Response:
        holder = self.locks.setdefault(request.match_info["name"], Lock()).holder
        current = None if holder is None else holder[1]
        valid = current == (await request.json())["token"]
        return _response(200, {"valid": valid, "current_token": current})

    async def _show(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        lock = self.locks.setdefault(name, Lock())
        holders = [] if lock.holder is None else [lock.holder]
        return _response(
            200,
            {
                "name": name,
                "holders": [{"session": session, "token": token} for session, token in holders],
                "waiters": [
                    {"session": session, "position": place}
                    for place, (session, _) in enumerate(lock.waiters, 1)
                ],
            },
        )

    async def _cluster(self, request: web.Request) -> web.Response:
        return _response(200, self.cluster)

    async def _transfer(self, request: web.Request) -> web.Response:
        return _response(200, {"leader": (await request.json()).get("to", "n2"), "term": 7})


def problem(status: int, code: str, *, definite: bool = True, **reason: object) -> web.Response:
    """A problem document."""
    words: dict[str, object] = {"code": code, "detail": f"{code}, says the small server"}
    words |= {"definite": definite, "retryable": status >= 500, **reason}
    return web.json_response(words, status=status, content_type="application/problem+json")


def _response(status: int, body: dict[str, Any] | None) -> web.Response:
    if body is None:
        return web.Response(status=status, headers={"Coterie-Index": "1"})
    return web.json_response(body, status=status, headers={"Coterie-Index": "1"})
