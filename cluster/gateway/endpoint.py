"""aiohttp's way of a request: from its Request to its Response.

RULE: bodies, deadlines and connections only. What a request means and what it is answered is in
`service.py`, which the short way shares.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final, cast

from aiohttp import hdrs, web
from aiohttp.streams import StreamReader
from multidict import istr

from cluster.gateway import rendering
from cluster.gateway.asking import final_reply, reply_to
from cluster.gateway.connections import Connection, hung_up
from cluster.gateway.heads import body_type
from cluster.gateway.rendering import CLOSE, Finished
from cluster.gateway.replies import Problem
from cluster.gateway.requests import Ask, bad_request, wants_cbor
from cluster.gateway.routes import Lane, Local, Read, Stream, Write
from cluster.gateway.service import HUNG_UP_STATUS, Context, Service
from cluster.gateway.watchers import GOODBYE, Watcher

LAST_EVENT_HEADER: Final = istr("Last-Event-ID")
KEY_HEADER: Final = istr("Idempotency-Key")


class Endpoint:
    """Serves one route."""

    __slots__ = ("_context", "_serve", "_service")

    def __init__(self, service: Service, context: Context):
        self._service = service
        self._context = context
        if isinstance(service.route, Write):
            self._serve = self._write
        elif isinstance(service.route, Read):
            self._serve = self._read
        else:
            self._serve = self._local

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request; whatever goes wrong, the answer is ours."""
        context = self._context
        started = context.clock()
        connection = cast(Connection, request.protocol).owner
        context.connections.begin(connection)
        status = HUNG_UP_STATUS
        try:
            if isinstance(self._service.route, Stream):
                response: web.StreamResponse = await self._stream(request, self._service.route)
            else:
                response = await self._answer(request)
            status = response.status
            return response
        finally:
            context.connections.end(connection)
            self._service.done(status, context.clock() - started)

    async def expect(self, request: web.Request) -> web.StreamResponse | None:
        """Answer `Expect: 100-continue` before the body is sent: refuse a large one unread."""
        try:
            if request.headers.get(hdrs.EXPECT, "").lower() != "100-continue":
                raise Problem("expectation_failed", "Expect: nothing but 100-continue is known")
            self._check_length(request)
        except Problem as problem:
            response = _response(self._service.refusal(problem, cbor=False))
            response.force_close()
            return response
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # aiohttp takes a head to be sent once anything is.
        request.writer.output_size = 0
        return None

    async def _answer(self, request: web.Request) -> web.Response:
        headers = request.headers
        content_type = body_type(headers.get(hdrs.CONTENT_TYPE), has_origin=hdrs.ORIGIN in headers)
        cbor = wants_cbor(headers.get(hdrs.ACCEPT), content_type)
        try:
            return _response(await self._serve(request, content_type, cbor))
        except Exception as error:  # noqa: BLE001 - the client gets an answer, we get the line
            return _response(self._service.refusal(error, cbor))

    async def _write(self, request: web.Request, content_type: str | None, cbor: bool) -> Finished:
        service, context = self._service, self._context
        ask = await self._ask(request, content_type)
        keys = request.headers.getall(KEY_HEADER, [])
        if len(keys) > 1:
            raise bad_request("Idempotency-Key", "is given twice")
        order = service.order(ask, keys[0] if keys else None)
        owner = cast(Connection, request.protocol).owner
        if order.waits and owner.has_ended:
            raise hung_up()
        context.admission.enter(order.lane)
        owner.is_waiting = order.waits
        started = context.clock()
        try:
            submit = partial(service.submit, order)
            reply = await final_reply(submit, context.node, context.loop)
        finally:
            owner.is_waiting = False
            context.admission.leave(order.lane)
        return service.settle(order, reply, cbor, context.clock() - started)

    async def _read(self, request: web.Request, content_type: str | None, cbor: bool) -> Finished:
        service, context = self._service, self._context
        ask = await self._ask(request, content_type)
        context.admission.enter(service.route.lane)
        try:
            stale_ms = service.stale_ms(ask)
            if stale_ms is None:
                await reply_to(service.barrier, context.loop)
        finally:
            context.admission.leave(service.route.lane)
        return service.view(ask, cbor, stale_ms)

    async def _local(self, request: web.Request, content_type: str | None, cbor: bool) -> Finished:
        service, context = self._service, self._context
        route = service.route
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
        return service.local(answer, cbor)

    async def _stream(self, request: web.Request, route: Stream) -> web.StreamResponse:
        """Tell a watcher what happens, until one of us has enough."""
        service, context = self._service, self._context
        try:
            ask = await self._ask(request, None)
            after = route.position(ask, request.headers.get(LAST_EVENT_HEADER))
            context.admission.enter(route.lane)
            try:
                if service.stale_ms(ask) is None:
                    await reply_to(service.barrier, context.loop)
            finally:
                context.admission.leave(route.lane)
            owner = cast(Connection, request.protocol).owner
            if owner.has_ended:
                raise hung_up()
            watcher = context.hub.enter(route.wanted(ask), after)
            owner.is_waiting = True
        except Exception as error:  # noqa: BLE001 - the client gets an answer, we get the line
            return _response(service.refusal(error, cbor=False))
        try:
            response = web.StreamResponse(
                headers=rendering.stream_fields(context.node.applied_index)
            )
            # Its end is the end of the stream.
            response.force_close()
            try:
                await response.prepare(request)
            except ConnectionError:
                return response  # Hung up while it waited.
            if request.method != hdrs.METH_HEAD:
                await self._tell(watcher, response)
            return response
        finally:
            context.hub.leave(watcher)

    async def _tell(self, watcher: Watcher, response: web.StreamResponse) -> None:
        context = self._context
        data = watcher.opening()
        try:
            while data is not GOODBYE:
                # Who does not read keeps nobody waiting; it comes back with the position it has.
                async with asyncio.timeout(context.write_timeout_s):
                    await response.write(data)
                data = await self._next(watcher)
            await response.write(data)
        except TimeoutError:
            context.hub.cut += 1
        except ConnectionError:
            # Hung up while it was being told.
            return

    async def _next(self, watcher: Watcher) -> bytes:
        """Wait until there is something to tell, or a sign of life is due."""
        context = self._context
        while True:
            watcher.woken.clear()
            if data := watcher.chunk():
                return data
            if context.hub.is_closing:
                return GOODBYE
            try:
                async with asyncio.timeout(context.heartbeat_s):
                    await watcher.woken.wait()
            except TimeoutError:
                return watcher.heartbeat()

    async def _ask(self, request: web.Request, content_type: str | None) -> Ask:
        url = request.rel_url
        place = self._service.place(url.raw_path, url.raw_query_string)
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
        return self._service.ask(place, data, content_type, request.headers.get(hdrs.AUTHORIZATION))

    def _checked(self, content: StreamReader) -> bytes:
        try:
            data = content.read_nowait()
        except web.RequestPayloadError as error:
            raise bad_request("body", f"broke off ({error})") from None
        if len(data) > self._service.route.body_bytes_max:
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
                "request_timeout", f"the body was not whole after {timeout_s:g} s", headers=CLOSE
            ) from None
        except web.RequestPayloadError as error:
            raise bad_request("body", f"broke off ({error})") from None

    async def _collect(self, content: StreamReader) -> bytes:
        parts: list[bytes] = []
        size = 0
        while not content.at_eof():
            part = await content.readany()
            size += len(part)
            if size > self._service.route.body_bytes_max:
                raise self._too_large()
            parts.append(part)
        return b"".join(parts)

    def _check_encoding(self, encoding: str) -> None:
        if encoding.lower() != "identity":
            raise Problem(
                "unsupported_media_type",
                "Content-Encoding is not understood; send the body as it is",
                headers=CLOSE,
            )

    def _check_length(self, request: web.Request) -> None:
        length = request.content_length
        if length is not None and length > self._service.route.body_bytes_max:
            raise self._too_large()

    def _too_large(self) -> Problem:
        return Problem(
            "too_large",
            f"the body has more than {self._service.route.body_bytes_max} bytes",
            # What is still to come is not worth reading.
            headers=CLOSE,
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
        connection = cast(Connection, request.protocol).owner
        context.connections.begin(connection)
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
                "not_found",
                "there is nothing here; /docs shows what there is, and /openapi.json lists it",
            )
        cbor = wants_cbor(request.headers.get(hdrs.ACCEPT), request.headers.get(hdrs.CONTENT_TYPE))
        finished = rendering.of_problem(
            problem, cbor, context.node.applied_index, is_last=context.is_draining
        )
        context.connections.end(connection)
        self._done(problem.status, 0.0)
        return _response(finished)


def _response(finished: Finished) -> web.Response:
    response = web.Response(
        body=finished.body or None,
        status=finished.status,
        headers=rendering.header_fields(finished),
    )
    if finished.is_last:
        response.force_close()
    return response


ANYWHERE: Final = "/{tail:.*}"
ANYWHERE_CANONICAL: Final = "/{tail}"
