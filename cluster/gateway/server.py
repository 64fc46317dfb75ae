"""The HTTP server of one node: the table of routes, listening, draining, stopping.

RULE: construction and lifetime only. What a request does is in `service.py`.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import aiohttp.http_parser
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from cluster import __version__
from cluster.gateway import (
    cluster,
    explain,
    fifos,
    figures,
    health,
    jobs,
    locks,
    rooms,
    semaphores,
    sessions,
    several,
    tasks,
    tickets,
    watch,
)
from cluster.gateway.admission import Admission
from cluster.gateway.connections import Connection, Connections, Owner, Refusing
from cluster.gateway.endpoint import ANYWHERE, Elsewhere, Endpoint
from cluster.gateway.passes import Passes
from cluster.gateway.routes import BODY_BYTES_LIMIT, Route, matching
from cluster.gateway.service import Context, Service
from cluster.gateway.shortway import House, ShortWay
from cluster.gateway.watchers import Hub
from cluster.node import descriptors
from cluster.node.clock import monotonic
from cluster.node.face import NodeFace
from cluster.telemetry.logs import Sampler
from cluster.telemetry.metrics import Metrics

_PRIMITIVES: tuple[Route, ...] = (
    *sessions.ROUTES,
    *locks.ROUTES,
    *semaphores.ROUTES,
    *tickets.ROUTES,
    *fifos.ROUTES,
    *rooms.ROUTES,
    *jobs.ROUTES,
    *tasks.ROUTES,
)

NATIVE_ROUTES: tuple[Route, ...] = (
    *_PRIMITIVES,
    *several.routes(_PRIMITIVES),
    *watch.ROUTES,
    *explain.ROUTES,
    *cluster.ROUTES,
)

_NEVER_S = 10 * 365 * 86_400.0
_SWEEPS_PER_TIMEOUT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """Limits of the server. More than `*_max` is answered 503, which is definite.

    Attributes:
        requests_max: ordinary requests in progress.
        keepalives_max: keepalives in progress, beside the others.
        waits_max: requests standing in a queue of the cluster.
        connections_max: open connections; less where the process may not open as many files.
        request_timeout_ms: until a command must be applied; its own wait comes on top.
        head_timeout_ms: for the first head of a connection.
        body_timeout_ms: for the body after its head.
        idle_timeout_ms: between two requests; longer than what usual balancers keep (60 s).
        linger_ms: how long the rest of a refused body is read, so that the refusal arrives.
        watchers_max: streams of events.
        heartbeat_ms: how long a stream of events may be silent.
        write_timeout_ms: how long a watcher may take to read what it was sent.
        slow_ms: slower answers are logged.
        room_keys: of the passes of waiting rooms: the first signs, all are believed. Without any a
            key is drawn, and no other node believes our passes.
        short_way: small plain requests are served without aiohttp; no answer depends on it.
    """

    requests_max: int = 4_096
    keepalives_max: int = 8_192
    waits_max: int = 16_384
    connections_max: int = 16_384
    request_timeout_ms: int = 10_000
    head_timeout_ms: int = 10_000
    body_timeout_ms: int = 10_000
    idle_timeout_ms: int = 75_000
    linger_ms: int = 2_000
    watchers_max: int = 1_000
    heartbeat_ms: int = 15_000
    write_timeout_ms: int = 30_000
    slow_ms: int = 1_000
    room_keys: tuple[bytes, ...] = field(default=(), repr=False)
    short_way: bool = True


class Gateway:
    """The server. `start` after the node, `drain` and `stop` before it."""

    def __init__(
        self,
        node: NodeFace,
        settings: GatewaySettings | None = None,
        *,
        metrics: Metrics | None = None,
        clock: Callable[[], float] = monotonic,
        routes: Iterable[Route] = NATIVE_ROUTES,
    ):
        """Make a server that does not listen yet.

        Args:
            metrics: where requests are counted; a fresh one by default.
            clock: seconds, never falling; the node's own by default.
            routes: the table, beside the health pages that every server has.
        """
        self._node = node
        self._settings = settings or GatewaySettings()
        self._metrics = metrics or Metrics()
        self._clock = clock
        self._routes = tuple(routes)
        self._context: Context | None = None
        self._house: House | None = None
        self._runner: web.AppRunner | None = None
        self._listening: list[asyncio.Server] = []
        self._stopping = asyncio.Event()
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def metrics(self) -> Metrics:
        """Where everybody's figures are shown; `watch` adds more."""
        return self._metrics

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of every socket we listen on; ephemeral ports are known after `start`."""
        return [sock.getsockname()[:2] for server in self._listening for sock in server.sockets]

    @property
    def connections(self) -> int:
        """How many are open."""
        return 0 if self._context is None else len(self._context.connections)

    @property
    def in_progress(self) -> int:
        """Requests that wait for the node, whatever for."""
        return 0 if self._context is None else sum(self._context.admission.inside.values())

    async def start(
        self,
        host: str | None = None,
        port: int = 0,
        *,
        sock: socket.socket | None = None,
        backlog: int = 1024,
    ) -> None:
        """Listen, on a host and port or on a bound socket.

        Raises:
            OSError: the address is taken or not ours.
        """
        loop = asyncio.get_running_loop()
        settings = self._settings
        _warn_if_slow()
        connections = Connections(
            limit=_connections_max(settings.connections_max),
            head_timeout_s=settings.head_timeout_ms / 1000,
            idle_timeout_s=settings.idle_timeout_ms / 1000,
            clock=self._clock,
        )
        self._context = context = Context(
            node=self._node,
            loop=loop,
            clock=self._clock,
            connections=connections,
            admission=Admission(
                requests_max=settings.requests_max,
                keepalives_max=settings.keepalives_max,
                waits_max=settings.waits_max,
            ),
            metrics=self._metrics,
            sampler=Sampler(),
            request_timeout_ms=settings.request_timeout_ms,
            body_timeout_s=settings.body_timeout_ms / 1000,
            slow_s=settings.slow_ms / 1000,
            hub=Hub(self._node, loop, most=settings.watchers_max),
            heartbeat_s=settings.heartbeat_ms / 1000,
            write_timeout_s=settings.write_timeout_ms / 1000,
            passes=Passes(settings.room_keys or (secrets.token_bytes(),)),
        )
        self._metrics.watch(lambda: figures.of_node(self._node))
        self._metrics.watch(lambda: figures.of_gateway(connections, context.admission, context.hub))
        services = self._services(context)
        self._runner = web.AppRunner(
            _application(context, services), handler_cancellation=True, access_log=None
        )
        await self._runner.setup()
        server = self._runner.server
        assert server is not None
        options: dict[str, Any] = {
            # Ours to watch: aiohttp does not see what goes the short way.
            "keepalive_timeout": _NEVER_S,
            "access_log": None,
            # A body that blows up when it is unpacked is refused, not unpacked.
            "auto_decompress": False,
            "lingering_time": settings.linger_ms / 1000,
        }

        def position() -> int:
            return self._node.applied_index

        def make_inner(owner: Owner) -> Connection:
            return Connection(owner, position, server, loop, **options)

        self._house = House(context, services, make_inner, is_open=settings.short_way)
        if sock is not None:
            listener = await loop.create_server(self.accept, sock=sock, backlog=backlog)
        else:
            listener = await loop.create_server(self.accept, host, port, backlog=backlog)
        self._listening.append(listener)
        if self._sweeper is None:
            period_s = settings.idle_timeout_ms / 1000 / _SWEEPS_PER_TIMEOUT
            self._sweeper = loop.create_task(self._sweep(connections, period_s))

    def accept(self) -> asyncio.Protocol:
        """Make the protocol of one more connection; only once started."""
        assert self._house is not None
        if self._house.context.connections.make_room():
            return ShortWay(self._house)
        return Refusing(self._node.applied_index)

    def drain(self) -> None:
        """Take no new connections; answers to the old ones close them."""
        for listener in self._listening:
            listener.close()
        if self._context is not None:
            self._context.is_draining = True
            self._context.hub.close()

    async def stop(self, grace_s: float = 5.0) -> None:
        """Stop: give what is in progress `grace_s` to end, then close everything."""
        self.drain()
        self._stopping.set()
        context, runner = self._context, self._runner
        if context is not None and runner is not None and runner.server is not None:
            self._runner = None
            for connection in context.connections:
                if connection.is_idle:
                    connection.force_close()
            runner.server.pre_shutdown()
            until_s = context.loop.time() + grace_s
            waits = [
                wait
                for connection in context.connections
                if (wait := connection.until_answered()) is not None
            ]
            if waits:
                await asyncio.wait(waits, timeout=grace_s)
            await runner.server.shutdown(max(0.0, until_s - context.loop.time()))
            for connection in context.connections:
                connection.force_close()
            await runner.cleanup()
        if self._sweeper is not None:
            await self._sweeper
        self._listening.clear()

    async def _sweep(self, connections: Connections, period_s: float) -> None:
        """Close what idles for too long, until the server stops."""
        while True:
            try:
                async with asyncio.timeout(period_s):
                    await self._stopping.wait()
                    return
            except TimeoutError:
                connections.sweep()

    def _services(self, context: Context) -> list[Service]:
        others = health.routes(self._metrics, context.clock, self._routes, __version__)
        return [Service(route, context) for route in (*self._routes, *others)]


def _application(context: Context, services: Iterable[Service]) -> web.Application:
    # The endpoints bound their bodies themselves; this is the last resort.
    app = web.Application(client_max_size=BODY_BYTES_LIMIT)
    for service in services:
        route, endpoint = service.route, Endpoint(service, context)
        methods = ("GET", "HEAD") if route.method == "GET" else (route.method,)
        for method in methods:
            app.router.add_route(
                method,
                matching(route.path),
                endpoint.handle,
                expect_handler=endpoint.expect,
            )
    elsewhere = Elsewhere(context, app)
    # Who expects something of a path that is not there gets the same answer, unread.
    app.router.add_route("*", ANYWHERE, elsewhere.handle, expect_handler=elsewhere.handle)

    @web.middleware
    async def no_path(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer what is aimed at no path at all: `OPTIONS *`, `CONNECT host:port`."""
        try:
            return await handler(request)
        except web.HTTPNotFound:
            return await elsewhere.handle(request)

    app.middlewares.append(no_path)
    return app


def _connections_max(wanted: int) -> int:
    """Bound the connections by the files we may open: over that, accepting fails for all."""
    allowed = descriptors.clients_max()
    if allowed >= wanted:
        return wanted
    _log.warning("fewer connections than configured", wanted=wanted, allowed=int(allowed))
    return int(allowed)


def _warn_if_slow() -> None:
    if aiohttp.http_parser.HttpRequestParser is aiohttp.http_parser.HttpRequestParserPy:
        _log.warning("aiohttp runs without its C parser: four times slower", python=sys.version)


_log = structlog.get_logger("cluster.gateway")
