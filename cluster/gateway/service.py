"""One route at work, whichever way its requests come: parse, ask the node, make the answer ready.

RULE: functions of values; no transport, and nothing awaits. The ways are `endpoint.py` (aiohttp's)
and `shortway.py` (our own); both call these functions in this order, so that they differ in nothing
but speed. What a route means is in its row of the table; which status an outcome has is in
`replies.py`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec
import structlog

from cluster.errors import CoterieError
from cluster.gateway import rendering, replies
from cluster.gateway.admission import Admission
from cluster.gateway.connections import Connections
from cluster.gateway.passes import Passes
from cluster.gateway.rendering import Finished
from cluster.gateway.replies import Answer, Problem
from cluster.gateway.requests import Ask, BodyReader, QueryReader, idempotency_key
from cluster.gateway.routes import Lane, Look, PathReader, Read, Route, Write
from cluster.gateway.watchers import Hub
from cluster.machine.commands import Command
from cluster.node.face import NodeFace
from cluster.node.pending import Failed, OnReply, Reply
from cluster.telemetry.logs import Sampler
from cluster.telemetry.metrics import Metrics

HUNG_UP_STATUS: Final = 499

Place: TypeAlias = tuple[Mapping[str, str], Mapping[str, Any]]
"""What the request line says: names of the path, parameters of the query."""


@dataclass(slots=True)
class Context:
    """What all routes of a server share.

    Attributes:
        clock: seconds, never falling.
        request_timeout_ms: until a command must be applied; its own wait comes on top.
        body_timeout_s: how long a body may take once its head has come.
        slow_s: answers that took longer are logged, waits apart.
        passes: the keys of waiting rooms.
        hub: who watches.
        heartbeat_s: how long a stream of events may be silent.
        write_timeout_s: how long a watcher may take to read what it was sent.
        is_draining: answers close their connections.
    """

    node: NodeFace
    loop: asyncio.AbstractEventLoop
    clock: Callable[[], float]
    connections: Connections
    admission: Admission
    metrics: Metrics
    sampler: Sampler
    request_timeout_ms: int
    body_timeout_s: float
    slow_s: float
    passes: Passes
    hub: Hub
    heartbeat_s: float
    write_timeout_s: float
    is_draining: bool = False


class Order(msgspec.Struct, frozen=True):
    """A command and how it is to be submitted.

    Attributes:
        key, fingerprint: the client's Idempotency-Key and the digest of its request.
        lane: whose limit it counts against.
        waits: its answer may take as long as the client asked for.
    """

    command: Command
    key: str | None
    fingerprint: bytes | None
    lane: Lane
    waits: bool


class Service:
    """Serves one route.

    Attributes:
        route: its row of the table.
        done: counts one request, by its status and seconds.
    """

    __slots__ = ("_body", "_context", "_path", "_query", "done", "route")

    def __init__(self, route: Route, context: Context):
        self.route = route
        self.done = context.metrics.route(route.method, route.path).done
        self._context = context
        self._body = BodyReader(route.body)
        self._query = QueryReader(route.query)
        self._path = PathReader(route.path)

    def place(self, raw_path: str, raw_query: str) -> Place:
        """Read the request line, both parts still percent-encoded.

        Raises:
            Problem: `bad_request`.
        """
        if self.route.ignores_query:
            raw_query = ""
        return self._path.read(raw_path), self._query.read(raw_query)

    def ask(
        self, place: Place, data: bytes, content_type: str | None, authorization: str | None
    ) -> Ask:
        """Read the body, which completes the question.

        Raises:
            Problem: `bad_request`, `unsupported_media_type`.
        """
        path, query = place
        return Ask(path, self._body.read(data, content_type), query, authorization)

    def order(self, ask: Ask, key: str | None) -> Order:
        """Make the command of a Write.

        Args:
            key: the header Idempotency-Key as it came.

        Raises:
            Problem: `bad_request`.
        """
        route = self.route
        assert isinstance(route, Write)
        fingerprint = None
        if key is not None:
            key = idempotency_key(key)
        command = route.command(ask)
        if key is not None:
            fingerprint = fingerprint_of(route, command)
        if route.seal is not None:
            command = route.seal(command)
        waits = getattr(command, "wait_ms", 0) > 0
        return Order(command, key, fingerprint, Lane.WAIT if waits else route.lane, waits)

    def submit(self, order: Order, on_reply: OnReply) -> int:
        """Give the order to the node; returns the handle for `hang_up`.

        Raises:
            Problem: the node did not take it.
        """
        context = self._context
        try:
            return context.node.submit(
                order.command,
                on_reply,
                timeout_ms=context.request_timeout_ms,
                key=order.key,
                fingerprint=order.fingerprint,
            )
        except CoterieError as error:
            raise replies.from_error(error) from None

    def settle(self, order: Order, reply: Reply, cbor: bool, seconds: float) -> Finished:
        """Make the answer to an order from the node's reply to it.

        Args:
            seconds: since it was submitted.

        Raises:
            Problem: the node failed to get an outcome.
        """
        if isinstance(reply, Failed):
            raise replies.from_error(reply.error)
        context = self._context
        if seconds >= context.slow_s and not order.waits:
            self._log_slow(seconds)
        assert reply.outcome is not None
        try:
            answer = replies.from_outcome(reply.outcome)
        except Problem as problem:
            # Not an error: the log's own answer, which reflects its position.
            return rendering.of_problem(problem, cbor, reply.index, is_last=context.is_draining)
        assert isinstance(self.route, Write)
        if self.route.issue is not None:
            answer = self.route.issue(answer, context.passes)
        return rendering.of_answer(answer, cbor, reply.index, is_last=context.is_draining)

    def stale_ms(self, ask: Ask) -> int | None:
        """Return how old the state may be that a Read has asked for; None: it wants the newest."""
        return self._context.node.status().stale_ms if ask.query["consistency"] else None

    def barrier(self, on_ready: OnReply) -> None:
        """Have the node say when its state is new enough for a Read that came now."""
        self._context.node.read(on_ready, timeout_ms=self._context.request_timeout_ms)

    def view(self, ask: Ask, cbor: bool, stale_ms: int | None) -> Finished:
        """Make the answer of a Read from the present state.

        Raises:
            Problem: there is nothing to see.
        """
        route, context, node = self.route, self._context, self._context.node
        assert isinstance(route, Read)
        # Nothing awaits in here: state and position belong together.
        answer = Answer(200, route.view(Look(node.machine, node.now_ms(), context.passes), ask))
        return rendering.of_answer(
            answer, cbor, node.applied_index, stale_ms=stale_ms, is_last=context.is_draining
        )

    def local(self, answer: Answer, cbor: bool) -> Finished:
        """Make the answer of a Local ready."""
        context = self._context
        return rendering.of_answer(
            answer, cbor, context.node.applied_index, is_last=context.is_draining
        )

    def refusal(self, error: Exception, cbor: bool) -> Finished:
        """Make an answer of whatever went wrong; what is our fault is logged."""
        context = self._context
        if isinstance(error, Problem):
            problem = error
            if problem.status >= replies.OUR_FAULT_STATUS_MIN:
                self._log_failed(problem)
        else:
            problem = Problem("internal", "an error of ours; this node's log has more")
            self._log_ours(error)
        return rendering.of_problem(
            problem, cbor, context.node.applied_index, is_last=context.is_draining
        )

    def _log_failed(self, problem: Problem) -> None:
        left_out = self._context.sampler.admit(problem.code, self._context.clock())
        if left_out is not None:
            _log.warning(
                "request failed",
                method=self.route.method,
                route=self.route.path,
                code=problem.code,
                detail=problem.detail,
                left_out=left_out,
            )

    def _log_ours(self, error: Exception) -> None:
        left_out = self._context.sampler.admit("internal", self._context.clock())
        if left_out is not None:
            _log.error(
                "handler failed",
                method=self.route.method,
                route=self.route.path,
                left_out=left_out,
                exc_info=error,
            )

    def _log_slow(self, seconds: float) -> None:
        left_out = self._context.sampler.admit("slow", self._context.clock())
        if left_out is not None:
            _log.warning(
                "slow request",
                method=self.route.method,
                route=self.route.path,
                ms=round(seconds * 1000),
                left_out=left_out,
            )


def fingerprint_of(route: Route, command: Command) -> bytes:
    """Digest what a request asks for, however it was spelled.

    The command is taken before it is sealed, so that equal requests give equal digests: key order,
    JSON or CBOR, `30s` or 30000 make no difference.
    """
    text = msgspec.msgpack.encode((route.method, route.path, command))
    return hashlib.blake2b(text, digest_size=8).digest()


_log = structlog.get_logger("cluster.gateway")
