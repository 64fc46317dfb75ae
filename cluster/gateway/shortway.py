"""The short way: a small plain request answered without aiohttp, which costs it half its time.

RULE: owns each connection and decides, request by request, who serves it: what is plain beyond
doubt (`heads.py`) and asks for a command or a look at the state is served here, by the functions
of `service.py`, in one write; everything else goes to aiohttp, byte for byte. So the two differ in
nothing but speed, and whatever is odd, slow or long is aiohttp's business.

One request at a time: what comes while one is in progress is kept, and looked at once it is
answered. Bytes go to aiohttp's side as long as a request is in progress there; a connection comes
back when every byte given to aiohttp was part of a plain request and every one of those has been
answered. Where that cannot be told, the connection stays with aiohttp for good.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, TypeAlias, cast

import structlog
from aiohttp.tcp_helpers import tcp_keepalive

from cluster.gateway import heads, rendering
from cluster.gateway.connections import Connection, Owner, hung_up
from cluster.gateway.heads import HeadReader, Paths, PlainRequest
from cluster.gateway.rendering import Finished
from cluster.gateway.replies import Problem, from_error
from cluster.gateway.requests import Ask
from cluster.gateway.routes import Lane, Read, Write
from cluster.gateway.service import HUNG_UP_STATUS, Context, Order, Place, Service
from cluster.node.pending import Failed, Reply

KEPT_BYTES_HIGH: Final = 64 * 1024
"""Of a client that writes ahead; beyond, nothing more is read until it is down to the low mark."""

KEPT_BYTES_LOW: Final = 16 * 1024

PLANS_KEPT_MAX: Final = 2048
PLAN_BYTES_MAX: Final = 512
"""Heads up to this length are remembered with what they lead to, so many of them."""

LAST_ANSWER_S: Final = 1.0
"""How long a client that writes no more is kept for its answer: mostly it is gone, and what it asked
for is not to stand in the way of others."""

MakeInner: TypeAlias = Callable[[Owner], Connection]


class Plan(NamedTuple):
    """What a plain head leads to.

    Attributes:
        place: what its line says; None where that makes no sense.
        size: of the whole request.
    """

    service: Service
    request: PlainRequest
    place: Place | None
    size: int


class House:
    """What all connections of a server share.

    Args:
        services: every route; those that are no Write or Read are aiohttp's.
        make_inner: makes aiohttp's side of a connection, when it is needed first.
        is_open: False makes everything aiohttp's.
    """

    __slots__ = ("_due", "_paths", "_plans", "context", "heads", "is_open", "make_inner")

    def __init__(
        self,
        context: Context,
        services: Iterable[Service],
        make_inner: MakeInner,
        *,
        is_open: bool = True,
    ):
        self.context = context
        self.make_inner = make_inner
        self.is_open = is_open
        self.heads = HeadReader()
        self._paths: Paths[Service | None] = Paths(
            (
                service.route.method,
                service.route.path,
                service if isinstance(service.route, Write | Read) else None,
            )
            for service in services
        )
        self._plans: dict[bytes, Plan] = {}
        self._due: list[tuple[ShortWay, Reply]] = []

    def plan(self, data: bytes) -> Plan | None:
        """Return what the request does that `data` begins with; None where it is aiohttp's.

        Clients repeat themselves to the letter, bodies apart: the same head is read once.
        """
        head_end = data.find(heads.END)
        if head_end > PLAN_BYTES_MAX:
            return self._make_plan(data, head_end)
        head = data[: max(head_end, 0)]
        plan = self._plans.get(head)
        if plan is None:
            plan = self._make_plan(data, head_end)
            if plan is not None and not plan.request.head.is_own:
                if len(self._plans) >= PLANS_KEPT_MAX:
                    # Simpler than forgetting the oldest; the usual ones are back at once.
                    self._plans.clear()
                self._plans[head] = plan
        return plan

    def _make_plan(self, data: bytes, head_end: int) -> Plan | None:
        request = self.heads.read(data, head_end)
        if request is None:
            return None
        service = self._paths.find(request.method, request.path)
        if service is None or request.head.length > service.route.body_bytes_max:
            return None
        try:
            place = service.place(request.path, request.query)
        except Problem:
            place = None
        return Plan(service, request, place, request.size)

    def reply(self, connection: ShortWay, reply: Reply) -> None:
        """Take a reply of the node, to be answered when the node's round is over.

        A round answers many; what they are answered is not worth keeping the disk and the peers
        waiting, and an error of ours must not end it.
        """
        if not self._due:
            self.context.loop.call_soon(self._answer)
        self._due.append((connection, reply))

    def _answer(self) -> None:
        due, self._due = self._due, []
        date = rendering.date()
        for connection, reply in due:
            try:
                connection.answer(reply, date)
            except Exception:  # noqa: BLE001 - logged, and of this connection only
                # Of this one only: the others shall have theirs.
                _log.exception("an answer could not be sent")
                connection.force_close()


class ShortWay(asyncio.Protocol):
    """One client's connection."""

    __slots__ = (
        "_answered",
        "_ask",
        "_cbor",
        "_given",
        "_handle",
        "_house",
        "_inner",
        "_is_inners",
        "_is_inners_for_good",
        "_is_reading_held",
        "_is_writing_held",
        "_kept",
        "_lane",
        "_last_answer",
        "_order",
        "_owed",
        "_service",
        "_started",
        "_transport",
        "_unended",
        "_was_fed",
        "has_ended",
        "is_waiting",
    )

    def __init__(self, house: House) -> None:
        self._house = house
        self._transport: asyncio.Transport | None = None
        # The request in progress on the short way; there is none where `_service` is None.
        self._service: Service | None = None
        self._cbor = False
        self._started = 0.0
        self._lane: Lane | None = None
        self._order: Order | None = None
        self._ask: Ask | None = None
        self._handle: int | None = None
        self._answered: asyncio.Future[None] | None = None
        # What has come and was not looked at.
        self._kept = b""
        self._is_reading_held = False
        self._is_writing_held = False
        # aiohttp's side: requests it was given and has not answered, how much it must still get of
        # the last one's body, and bytes it was given that are not a whole head yet.
        self._inner: Connection | None = None
        self._given = 0
        self._owed = 0
        self._unended = b""
        self._is_inners_for_good = not house.is_open
        self._is_inners = self._is_inners_for_good
        # aiohttp has got bytes since it answered last.
        self._was_fed = False
        self.has_ended = False
        self.is_waiting = False
        self._last_answer: asyncio.TimerHandle | None = None

    # ---- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; aiohttp's side comes when it is needed."""
        # uvloop's transports are none by class, only by what they can.
        self._transport = stream = cast(asyncio.Transport, transport)
        tcp_keepalive(stream)
        self._house.context.connections.opened(self)

    def data_received(self, data: bytes) -> None:
        """Serve, keep or pass on what has come."""
        if self._is_inners:
            self._pass_on(data)
        elif self._service is not None or self._kept or self._is_writing_held:
            self._kept += data
            self._hold_reading()
        else:
            self._take(data)

    def eof_received(self) -> bool:
        """Say whether the client, who writes no more, is still to be answered.

        Who waits has hung up: nobody could tell it from one who is gone. What can be answered soon
        is answered, and the connection closed behind it.
        """
        if self._is_inners:
            is_due = self._was_fed or (self._inner is not None and self._inner.has_more)
            self.has_ended = is_due and not (self.is_waiting or self._owed or self._unended)
        else:
            is_wait = self._order is not None and self._order.waits
            self.has_ended = self._service is not None and not is_wait
        if self.has_ended:
            later = self._house.context.loop.call_later
            self._last_answer = later(LAST_ANSWER_S, self.force_close)
        return self.has_ended

    def pause_writing(self) -> None:
        """The client does not read its answers: no further request of it is begun."""
        self._is_writing_held = True
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._is_writing_held = False
        if self._inner is not None:
            self._inner.resume_writing()
        self._look()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client is gone, half or wholly: nobody waits for the answer."""
        context = self._house.context
        context.connections.closed(self)
        if self._last_answer is not None:
            self._last_answer.cancel()
        self._transport = None
        self._kept = b""
        if self._service is not None:
            self._leave()
            if self._handle is not None:
                context.node.hang_up(self._handle)
            self._end(HUNG_UP_STATUS, context.clock())
        if self._inner is not None:
            self._inner.connection_lost(exc)

    # ---- the server's side

    @property
    def is_idle(self) -> bool:
        return self._service is None and not self._is_inners

    def force_close(self) -> None:
        if self._transport is not None:
            if self._is_writing_held:
                # Who does not read would keep us waiting for ever.
                self._transport.abort()
            else:
                self._transport.close()

    def until_answered(self) -> asyncio.Future[None] | None:
        if self._service is not None and self._answered is None:
            self._answered = self._house.context.loop.create_future()
        return self._answered

    # ---- requests

    def _take(self, data: bytes) -> None:
        """Serve the request that `data` begins with, or leave all of it to aiohttp."""
        plan = self._house.plan(data)
        size = len(data)
        if plan is None or plan.size > size:
            self._pass_on(data)
            return
        if plan.size < size:
            self._kept = data[plan.size :]
            self._hold_reading()
            data = data[: plan.size]
        self._serve(plan, data)

    def _look(self) -> None:
        """Go on with what was kept."""
        if not self._kept or self._service is not None or self._is_writing_held:
            return
        data, self._kept = self._kept, b""
        self._take(data)
        if len(self._kept) <= KEPT_BYTES_LOW:
            self._release_reading()

    def _serve(self, plan: Plan, data: bytes) -> None:
        context = self._house.context
        service, request, place, _ = plan
        head = request.head
        self._service = service
        self._cbor = head.cbor
        self._started = context.clock()
        context.connections.begin(self)
        finished = None
        try:
            if place is None:
                place = service.place(request.path, request.query)
            body = data[request.body_at :]
            ask = service.ask(place, body, head.content_type, head.authorization)
            if isinstance(service.route, Write):
                order = service.order(ask, head.key)
                if self.has_ended and order.waits:
                    raise hung_up()
                self._enter(order.lane)
                self._order = order
                self._handle = service.submit(order, self._on_reply)
            else:
                self._enter(service.route.lane)
                stale_ms = service.stale_ms(ask)
                if stale_ms is None:
                    self._ask = ask
                    service.barrier(self._on_reply)
                else:
                    self._leave()
                    finished = service.view(ask, self._cbor, stale_ms)
        except Exception as error:  # noqa: BLE001 - the client gets an answer, we get the line
            self._leave()
            finished = service.refusal(error, self._cbor)
        if finished is not None:
            self._finish(finished, context.clock())

    def _on_reply(self, reply: Reply) -> None:
        self._house.reply(self, reply)

    def answer(self, reply: Reply, date: str) -> None:
        """Answer the request in progress; nothing is left of one whose client has hung up.

        Args:
            date: what `rendering.date` says.
        """
        service = self._service
        if service is None:
            return
        self._leave()
        now = self._house.context.clock()
        try:
            order = self._order
            if order is not None:
                finished = service.settle(order, reply, self._cbor, now - self._started)
            elif isinstance(reply, Failed):
                raise from_error(reply.error)
            else:
                assert self._ask is not None
                finished = service.view(self._ask, self._cbor, None)
        except Exception as error:  # noqa: BLE001 - as above
            finished = service.refusal(error, self._cbor)
        self._finish(finished, now, date)

    def _finish(self, finished: Finished, now: float, date: str | None = None) -> None:
        transport = self._transport
        assert transport is not None
        if not transport.is_closing():
            transport.write(rendering.message(finished, date))
        context = self._house.context
        context.connections.end(self, now)
        self._end(finished.status, now)
        if finished.is_last or (self.has_ended and not self._kept):
            self._kept = b""
            transport.close()
        elif self._kept:
            # In a turn of its own: who writes ahead does not keep others waiting.
            context.loop.call_soon(self._look)

    def _end(self, status: int, now: float) -> None:
        assert self._service is not None
        self._service.done(status, now - self._started)
        self._service = self._order = self._ask = self._handle = None
        if self._answered is not None:
            self._answered.set_result(None)
            self._answered = None

    def _enter(self, lane: Lane) -> None:
        self._house.context.admission.enter(lane)
        self._lane = lane

    def _leave(self) -> None:
        if self._lane is not None:
            self._house.context.admission.leave(self._lane)
            self._lane = None

    # ---- aiohttp's side

    def inner_answered(self, *, goes_on: bool) -> None:
        self._given -= 1
        self._was_fed = False
        if not goes_on:
            self._is_inners_for_good = True
        self._is_inners = self._is_inners_due
        if self.has_ended and self._inner is not None and not self._inner.has_more:
            self.force_close()

    def _pass_on(self, data: bytes) -> None:
        self._release_reading()
        inner = self._inner
        if inner is None:
            assert self._transport is not None
            inner = self._inner = self._house.make_inner(self)
            inner.connection_made(self._transport)
        self._was_fed = True
        if self._is_inners_for_good:
            inner.data_received(data)
            return
        parts = self._follow(data)
        self._is_inners = self._is_inners_due
        for part in parts:
            # Request by request: of what comes at once, aiohttp drops all where one is broken.
            inner.data_received(part)
        if self.has_ended and (self._owed or self._unended):
            # What is missing will never come.
            self.force_close()

    @property
    def _is_inners_due(self) -> bool:
        return bool(self._is_inners_for_good or self._given or self._owed or self._unended)

    def _follow(self, data: bytes) -> list[bytes]:
        """Count the requests in what aiohttp is given, as long as all of them are plain.

        Returns:
            the same bytes, cut where a request ends.
        """
        parts: list[bytes] = []
        at = min(self._owed, len(data))
        self._owed -= at
        if at:
            parts.append(data[:at])
        while at < len(data):
            begun = self._unended + data[at:]
            head_end = begun.find(heads.END)
            if head_end < 0 and len(begun) <= heads.HEAD_BYTES_MAX:
                self._unended = begun
                parts.append(data[at:])
                break
            request = self._house.heads.read(begun, head_end)
            if request is None:
                self._is_inners_for_good = True
                parts.append(data[at:])
                break
            self._given += 1
            self._owed = max(request.size - len(begun), 0)
            end = at + request.size - len(self._unended)
            self._unended = b""
            parts.append(data[at:end])
            at = end
        return parts

    # ---- back-pressure

    def _hold_reading(self) -> None:
        if len(self._kept) > KEPT_BYTES_HIGH and not self._is_reading_held:
            assert self._transport is not None
            self._transport.pause_reading()
            self._is_reading_held = True

    def _release_reading(self) -> None:
        if self._is_reading_held:
            self._is_reading_held = False
            if self._transport is not None:
                self._transport.resume_reading()


_log = structlog.get_logger("cluster.gateway")
