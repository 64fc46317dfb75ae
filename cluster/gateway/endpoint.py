"""One route at work: from aiohttp's request to its response.

RULE: the one way every request goes: limits, parse, ask the node, encode, count. What a route means
is in its row of the table; which status an outcome has is in `replies.py`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog
from aiohttp import hdrs, web
from aiohttp.streams import StreamReader
from multidict import istr

from cluster.gateway import replies
from cluster.gateway.admission import Admission
from cluster.gateway.asking import outcome_of, reply_to
from cluster.gateway.connections import SERVER, Connections
from cluster.gateway.face import NodeFace
from cluster.gateway.replies import Answer, Problem
from cluster.gateway.requests import (
    Ask,
    BodyReader,
    QueryReader,
    bad_request,
    idempotency_key,
    wants_cbor,
)
from cluster.gateway.routes import Lane, Local, Look, PathReader, Read, Route, Write
from cluster.machine.commands import Command
from cluster.node.pending import OnReply
from cluster.telemetry.logs import Sampler
from cluster.telemetry.metrics import Metrics

INDEX_HEADER: Final = istr("Coterie-Index")
TOKEN_HEADER: Final = istr("Coterie-Token")
STALE_HEADER: Final = istr("Coterie-Stale-Ms")
KEY_HEADER: Final = istr("Idempotency-Key")
HUNG_UP_STATUS: Final = 499
_CURLS_DEFAULT: Final = "application/x-www-form-urlencoded"


@dataclass(slots=True)
class Context:
    """What all endpoints of a server share.

    Attributes:
        clock: seconds, never falling.
        request_timeout_ms: until a command must be applied; its own wait comes on top.
        body_timeout_s: how long a body may take once its head has come.
        slow_s: answers that took longer are logged, waits apart.
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
    is_draining: bool = False


class Endpoint:
    """Serves one route."""

    __slots__ = ("_body", "_context", "_done", "_path", "_query", "_route", "_serve")

    def __init__(self, route: Route, context: Context):
        self._route = route
        self._context = context
        self._body = BodyReader(route.body)
        self._query = QueryReader(route.query)
        self._path = PathReader(route.path)
        self._done = context.metrics.route(route.method, route.path).done
        if isinstance(route, Write):
            self._serve = self._write
        elif isinstance(route, Read):
            self._serve = self._read
        else:
            self._serve = self._local

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one request; whatever goes wrong, the answer is ours."""
        context = self._context
        started = context.clock()
        connection = request.protocol
        context.connections.begin(connection)
        status = HUNG_UP_STATUS
        try:
            response = await self._answer(request)
            status = response.status
            return response
        finally:
            context.connections.end(connection)
            self._done(status, context.clock() - started)

    async def expect(self, request: web.Request) -> web.StreamResponse | None:
        """Answer `Expect: 100-continue` before the body is sent: refuse a large one unread."""
        try:
            if request.headers.get(hdrs.EXPECT, "").lower() != "100-continue":
                raise Problem("expectation_failed", "Expect: nothing but 100-continue is known")
            self._check_length(request)
        except Problem as problem:
            response = self._problem_response(problem, cbor=False)
            response.force_close()
            return response
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # aiohttp takes a head to be sent once anything is.
        request.writer.output_size = 0
        return None

    async def _answer(self, request: web.Request) -> web.Response:
        headers = request.headers
        content_type = headers.get(hdrs.CONTENT_TYPE)
        if content_type == _CURLS_DEFAULT and hdrs.ORIGIN not in headers:
            # What `curl -d` says of any body. A page in a browser that posts a form to us across
            # sites says the same, but always with its origin: that stays refused.
            content_type = None
        cbor = wants_cbor(headers.get(hdrs.ACCEPT), content_type)
        try:
            return await self._serve(request, content_type, cbor)
        except Problem as problem:
            if problem.status >= replies.OUR_FAULT_STATUS_MIN:
                self._log_failed(problem)
            return self._problem_response(problem, cbor)
        except Exception:  # noqa: BLE001 - the client gets an answer, we get the line
            left_out = self._context.sampler.admit("internal", self._context.clock())
            if left_out is not None:
                _log.exception(
                    "handler failed",
                    method=self._route.method,
                    route=self._route.path,
                    left_out=left_out,
                )
            ours = Problem("internal", "an error of ours; this node's log has more")
            return self._problem_response(ours, cbor)

    async def _write(
        self, request: web.Request, content_type: str | None, cbor: bool
    ) -> web.Response:
        route, context = self._route, self._context
        assert isinstance(route, Write)
        ask = await self._ask(request, content_type)
        key = idempotency_key(request.headers.get(KEY_HEADER))
        command = route.command(ask)
        fingerprint = None if key is None else fingerprint_of(route, command)
        if route.seal is not None:
            command = route.seal(command)
        waits = getattr(command, "wait_ms", 0) > 0
        lane = Lane.WAIT if waits else route.lane
        context.admission.enter(lane)
        started = context.clock()
        try:
            reply = await outcome_of(
                context.node,
                command,
                context.loop,
                timeout_ms=context.request_timeout_ms,
                key=key,
                fingerprint=fingerprint,
            )
        finally:
            context.admission.leave(lane)
        if not waits and context.clock() - started >= context.slow_s:
            self._log_slow(context.clock() - started)
        assert reply.outcome is not None
        try:
            answer = replies.from_outcome(reply.outcome)
        except Problem as problem:
            return self._problem_response(problem, cbor, reply.index)
        return self._response(answer, cbor, reply.index)

    async def _read(
        self, request: web.Request, content_type: str | None, cbor: bool
    ) -> web.Response:
        route, context = self._route, self._context
        assert isinstance(route, Read)
        ask = await self._ask(request, content_type)
        node = context.node
        context.admission.enter(route.lane)
        try:
            if ask.query["consistency"]:
                stale_ms: int | None = node.status().stale_ms
            else:
                stale_ms = None
                await reply_to(self._ask_barrier, context.loop)
        finally:
            context.admission.leave(route.lane)
        # From here to the end nothing awaits: state and position belong together.
        look = Look(node.machine, node.now_ms())
        response = self._response(Answer(200, route.view(look, ask)), cbor, node.applied_index)
        if stale_ms is not None:
            response.headers[STALE_HEADER] = str(stale_ms)
        return response

    async def _local(
        self, request: web.Request, content_type: str | None, cbor: bool
    ) -> web.Response:
        route, context = self._route, self._context
        assert isinstance(route, Local)
        ask = await self._ask(request, content_type)
        if route.lane is Lane.FREE:
            answer = await route.act(context.node, ask)
        else:
            context.admission.enter(route.lane)
            try:
                answer = await route.act(context.node, ask)
            finally:
                context.admission.leave(route.lane)
        return self._response(answer, cbor, context.node.applied_index)

    def _ask_barrier(self, on_ready: OnReply) -> None:
        self._context.node.read(on_ready, timeout_ms=self._context.request_timeout_ms)

    async def _ask(self, request: web.Request, content_type: str | None) -> Ask:
        url = request.rel_url
        path = self._path.read(url.raw_path)
        query = self._query.read(url.raw_query_string)
        if not request.body_exists:
            data = b""
        else:
            if hdrs.CONTENT_ENCODING in request.headers:
                self._check_encoding(request.headers[hdrs.CONTENT_ENCODING])
            content = request.content
            if content.is_eof():
                # The body came with its head, as small ones do: no timer, no waiting.
                data = self._checked(content)
            else:
                data = await self._read_body(request)
        return Ask(path, self._body.read(data, content_type), query)

    def _checked(self, content: StreamReader) -> bytes:
        try:
            data = content.read_nowait()
        except web.RequestPayloadError as error:
            raise bad_request("body", f"broke off ({error})") from None
        if len(data) > self._route.body_bytes_max:
            raise self._too_large()
        return data

    async def _read_body(self, request: web.Request) -> bytes:
        """Wait for the rest of the body.

        Raises:
            Problem: too large, too slow, or broken off.
        """
        self._check_length(request)
        timeout_s = self._context.body_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                return await self._collect(request.content)
        except TimeoutError:
            raise Problem(
                "request_timeout", f"the body was not whole after {timeout_s:g} s", headers=_CLOSE
            ) from None
        except web.RequestPayloadError as error:
            raise bad_request("body", f"broke off ({error})") from None

    async def _collect(self, content: StreamReader) -> bytes:
        parts: list[bytes] = []
        size = 0
        while not content.at_eof():
            part = await content.readany()
            size += len(part)
            if size > self._route.body_bytes_max:
                raise self._too_large()
            parts.append(part)
        return b"".join(parts)

    def _check_encoding(self, encoding: str) -> None:
        if encoding.lower() != "identity":
            raise Problem(
                "unsupported_media_type",
                "Content-Encoding is not understood; send the body as it is",
                headers=_CLOSE,
            )

    def _check_length(self, request: web.Request) -> None:
        length = request.content_length
        if length is not None and length > self._route.body_bytes_max:
            raise self._too_large()

    def _too_large(self) -> Problem:
        return Problem(
            "too_large",
            f"the body has more than {self._route.body_bytes_max} bytes",
            # What is still to come is not worth reading.
            headers=_CLOSE,
        )

    def _response(self, answer: Answer, cbor: bool, index: int) -> web.Response:
        headers = {**(_CBOR_HEADERS if cbor else _JSON_HEADERS), INDEX_HEADER: str(index)}
        if answer.token is not None:
            headers[TOKEN_HEADER] = str(answer.token)
        if answer.location is not None:
            headers[hdrs.LOCATION] = answer.location
        body: bytes | None
        if answer.raw is not None:
            body, headers[hdrs.CONTENT_TYPE] = answer.raw
        elif answer.body is None:
            body = None
            del headers[hdrs.CONTENT_TYPE]
        else:
            body = replies.encode(answer.body, cbor)
        response = web.Response(body=body, status=answer.status, headers=headers)
        if self._context.is_draining:
            response.force_close()
        return response

    def _problem_response(
        self, problem: Problem, cbor: bool, index: int | None = None
    ) -> web.Response:
        position = self._context.node.applied_index if index is None else index
        headers = {
            **(_PROBLEM_CBOR_HEADERS if cbor else _PROBLEM_JSON_HEADERS),
            INDEX_HEADER: str(position),
            **problem.headers,
        }
        if problem.kind.retry_after_s is not None:
            headers[hdrs.RETRY_AFTER] = str(problem.kind.retry_after_s)
        response = web.Response(
            body=replies.encode(problem.document(), cbor), status=problem.status, headers=headers
        )
        if self._context.is_draining or hdrs.CONNECTION in problem.headers:
            response.force_close()
        return response

    def _log_failed(self, problem: Problem) -> None:
        left_out = self._context.sampler.admit(problem.code, self._context.clock())
        if left_out is not None:
            _log.warning(
                "request failed",
                method=self._route.method,
                route=self._route.path,
                code=problem.code,
                detail=problem.detail,
                left_out=left_out,
            )

    def _log_slow(self, seconds: float) -> None:
        left_out = self._context.sampler.admit("slow", self._context.clock())
        if left_out is not None:
            _log.warning(
                "slow request",
                method=self._route.method,
                route=self._route.path,
                ms=round(seconds * 1000),
                left_out=left_out,
            )


class Elsewhere:
    """Answers what no route serves: 404, or 405 where another method would do."""

    def __init__(self, context: Context, app: web.Application):
        self._context = context
        self._app = app
        self._done = context.metrics.route("*", "elsewhere").done

    async def handle(self, request: web.Request) -> web.Response:
        """Say that there is nothing here, and what there is."""
        context = self._context
        context.connections.begin(request.protocol)
        allowed: set[str] = set()
        for resource in self._app.router.resources():
            if resource.canonical != ANYWHERE_CANONICAL:
                _, methods = await resource.resolve(request)
                allowed |= methods
        if allowed:
            listed = ", ".join(sorted(allowed))
            problem = Problem(
                "method_not_allowed",
                f"{request.method[:20]} is not served here; {listed} is",
                headers={hdrs.ALLOW: listed},
            )
        else:
            problem = Problem(
                "not_found", "there is nothing here; /openapi.json lists what there is"
            )
        cbor = wants_cbor(request.headers.get(hdrs.ACCEPT), request.headers.get(hdrs.CONTENT_TYPE))
        response = web.Response(
            body=replies.encode(problem.document(), cbor),
            status=problem.status,
            headers={
                **(_PROBLEM_CBOR_HEADERS if cbor else _PROBLEM_JSON_HEADERS),
                INDEX_HEADER: str(context.node.applied_index),
                **problem.headers,
            },
        )
        context.connections.end(request.protocol)
        self._done(problem.status, 0.0)
        return response


def fingerprint_of(route: Route, command: Command) -> bytes:
    """Digest what a request asks for, however it was spelled.

    The command is taken before it is sealed, so that equal requests give equal digests: key order,
    JSON or CBOR, `30s` or 30000 make no difference.
    """
    text = msgspec.msgpack.encode((route.method, route.path, command))
    return hashlib.blake2b(text, digest_size=8).digest()


def _headers(content_type: str) -> dict[str, str]:
    return {
        hdrs.CONTENT_TYPE: content_type,
        hdrs.SERVER: SERVER,
        # No cache between us and the client may answer for us.
        hdrs.CACHE_CONTROL: "no-store",
        istr("X-Content-Type-Options"): "nosniff",
    }


ANYWHERE: Final = "/{tail:.*}"
ANYWHERE_CANONICAL: Final = "/{tail}"
_CLOSE: Final[Mapping[str, str]] = {hdrs.CONNECTION: "close"}
_JSON_HEADERS: Final = _headers(replies.JSON)
_CBOR_HEADERS: Final = _headers(replies.CBOR)
_PROBLEM_JSON_HEADERS: Final = _headers(replies.PROBLEM_JSON)
_PROBLEM_CBOR_HEADERS: Final = _headers(replies.PROBLEM_CBOR)
_log = structlog.get_logger("cluster.gateway")
