"""The front for ticketd's clients: its routes, the order of its checks, its errors to the letter.

RULE: one handler per route; state is read and changed through the desk only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from cluster.fronts.front import ServedFront, Surroundings
from cluster.fronts.gohttp import queries
from cluster.fronts.gohttp.documents import encode, joined
from cluster.fronts.gohttp.exchange import (
    Answer,
    BodyBroken,
    BodyTooLarge,
    Handler,
    Request,
    document,
    encoded,
    error,
)
from cluster.fronts.gohttp.httprouter import HttpRouter
from cluster.fronts.gohttp.server import GoServer
from cluster.fronts.ticketd import pictures
from cluster.fronts.ticketd.pictures import Meta
from cluster.fronts.ticketd.status import status
from cluster.machine import ksuids, limits
from cluster.machine.commands import CloseSession, KeepAlive, OpenSession
from cluster.machine.commands.tickets import (
    ClaimTicket,
    IssueTicket,
    LockResource,
    ReleaseTicket,
    RevokeTicket,
    UnlockResource,
)
from cluster.machine.outcome import (
    NotHolder,
    Opened,
    Outcome,
    QueueFull,
    SessionExpired,
    SessionNotFound,
)
from cluster.machine.outcome.tickets import (
    NoTicketFree,
    NotIssuer,
    ResourceNotFound,
    TicketClaimed,
    TicketIssued,
    TicketNotFound,
    WrongKind,
)
from cluster.node.config import Config

DATA_BYTES_MAX: Final = 1024
TTL_DEFAULT_MS: Final = 5000
SESSION_ID_LENGTH_MAX: Final = 100
SESSION_NAME_LENGTH_MAX: Final = 1000
"""Longer ones are cut: a name only means something to its client."""

_CHUNK = 200
_CHANCE_BYTES = 8
# What `wire/commands.py` lets pass as a name.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_OK: Final = "Ok"


class _Failure(Exception):
    """An error answer."""

    def __init__(self, text: str, status: int, *, closes: bool = False):
        super().__init__(text)
        self.answer = error(text, status, closes=closes)


def make(config: Config, surroundings: Surroundings) -> TicketdFront:
    """Make the front of a node's settings."""
    return TicketdFront(surroundings, sweep_ms=config.front_ticketd_sweep_ms)


class TicketdFront(ServedFront):
    """Serves its clients on every node.

    Args:
        sweep_ms: of the sessions opened here (ticketd's `-expire`).
    """

    def __init__(self, surroundings: Surroundings, *, sweep_ms: int = 500):
        self._desk = surroundings.desk
        self._draw = surroundings.draw
        self._clock = surroundings.clock
        self._wall_ms = surroundings.wall_ms
        self._sweep_ms = sweep_ms
        self._started_s = surroundings.clock()
        self._started_ms = surroundings.wall_ms()
        routes = (
            ("POST", "/sessions", self._open),
            ("PUT", "/sessions/:id", self._refresh),
            ("DELETE", "/sessions/:id", self._close),
            ("GET", "/sessions/:id", self._session),
            ("POST", "/tickets/:resource", self._issue),
            ("DELETE", "/tickets/:resource", self._revoke),
            ("POST", "/claims/:resource", self._claim),
            ("DELETE", "/claims/:resource", self._release),
            ("GET", "/claims/:resource", self._has),
            ("POST", "/locks/:resource", self._lock),
            ("DELETE", "/locks/:resource", self._unlock),
            ("GET", "/dump/sessions", self._dump_sessions),
            ("GET", "/dump/resources", self._dump_resources),
            ("GET", "/dump/resources/:resource", self._dump_resource),
            ("GET", "/status", self._status),
        )
        router = HttpRouter(
            (method, f"/api/v1{path}", _answering(handler)) for method, path, handler in routes
        )
        self._server = GoServer("ticketd", router.serve)

    # Sessions.

    async def _open(self, request: Request, _: Mapping[str, str]) -> Answer:
        found = queries.parse(request.raw_query)
        name = queries.first(found, "name")[:SESSION_NAME_LENGTH_MAX]
        # What is no UTF-8 becomes U+FFFD, as it would where Go writes it.
        name = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        ttl = queries.atoi(queries.first(found, "ttl"))
        if ttl is None:
            ttl = TTL_DEFAULT_MS
        outcome = await self._desk.ask(
            OpenSession(
                nonce="ticketd",
                ttl_ms=min(max(ttl, 1), limits.LENGTH_MS_MAX),
                name=name if _is_name(name) else None,
                meta=Meta(request.peer, ttl, name).encode(),
                sweep_ms=self._sweep_ms,
                ksuid=ksuids.seed_of(self._wall_ms() // 1000, self._draw(_CHANCE_BYTES)),
            )
        )
        if not isinstance(outcome, Opened):
            raise _unexpected(outcome)
        return document(outcome.session)

    async def _refresh(self, _: Request, found: Mapping[str, str]) -> Answer:
        session = _living(found["id"])
        _check(session, await self._desk.ask(KeepAlive(session)))
        return document(_OK)

    async def _close(self, _: Request, found: Mapping[str, str]) -> Answer:
        session = _living(found["id"])
        _check(session, await self._desk.ask(CloseSession(session)))
        return document(_OK)

    async def _session(self, _: Request, found: Mapping[str, str]) -> Answer:
        machine = await self._desk.read()
        session = machine.sessions.get(found["id"])
        if session is None:
            raise _no_session(found["id"])
        return document(pictures.session(machine, session))

    # Tickets.

    async def _issue(self, request: Request, found: Mapping[str, str]) -> Answer:
        session, name = _session_and_ticket(request)
        try:
            data = await request.body(DATA_BYTES_MAX)
        except BodyTooLarge:
            raise _Failure("http: request body too large", 413, closes=True) from None
        except BodyBroken:
            raise _Failure("unexpected EOF", 413, closes=True) from None
        resource = found["resource"]
        if not (_is_name(resource) and _is_name(name)):
            raise await self._unusable(session, resource)
        outcome = await self._desk.ask(
            IssueTicket(_living(session), resource, name, data, refresh=True)
        )
        if isinstance(outcome, WrongKind):
            raise _wrong("cannot issue a ticket on a lock resource", resource)
        _check(session, outcome)
        return document(_OK)

    async def _revoke(self, request: Request, found: Mapping[str, str]) -> Answer:
        session, name = _session_and_ticket(request)
        resource = found["resource"]
        if not (_is_name(resource) and _is_name(name)):
            await self._must_know(session, resource)
            raise _no_ticket(resource, name)
        outcome = await self._desk.ask(RevokeTicket(_living(session), resource, name, anybody=True))
        if isinstance(outcome, ResourceNotFound):
            raise _no_resource(resource)
        if isinstance(outcome, TicketNotFound):
            raise _no_ticket(resource, name)
        _check(session, outcome)
        return document(_OK)

    async def _claim(self, request: Request, found: Mapping[str, str]) -> Answer:
        session, resource = _session_of(request), found["resource"]
        if not _is_name(resource):
            machine = await self._desk.read()
            if machine.sessions.get(session) is None:
                raise _no_session(session)
            return document({"Claimed": False, "Ticket": pictures.NO_TICKET})
        outcome = await self._desk.ask(ClaimTicket(_living(session), resource))
        if isinstance(outcome, WrongKind):
            raise _wrong("cannot claim a ticket on a lock resource", resource)
        if isinstance(outcome, NoTicketFree):
            return document({"Claimed": False, "Ticket": pictures.NO_TICKET})
        _check(session, outcome)
        assert isinstance(outcome, TicketClaimed)
        # Our own node has applied it by now, so it knows both sessions.
        ticket = pictures.claim(self._desk.machine, outcome)
        return document({"Claimed": True, "Ticket": ticket})

    async def _release(self, request: Request, found: Mapping[str, str]) -> Answer:
        session, name = _session_and_ticket(request)
        resource = found["resource"]
        if not (_is_name(resource) and _is_name(name)):
            await self._must_know(session, resource)
            return document(_OK)
        outcome = await self._desk.ask(ReleaseTicket(_living(session), resource, name))
        if isinstance(outcome, ResourceNotFound):
            raise _no_resource(resource)
        if not isinstance(outcome, (TicketNotFound, NotHolder)):
            _check(session, outcome)
        return document(_OK)

    async def _has(self, request: Request, found: Mapping[str, str]) -> Answer:
        session, name = _session_and_ticket(request)
        resource = found["resource"]
        await self._must_know(session, resource)
        machine = self._desk.machine
        info = machine.tickets.ticket(resource, name, machine.now_ms)
        return document(info is not None and info.claim is not None and info.claim[0] == session)

    # Locks.

    async def _lock(self, request: Request, found: Mapping[str, str]) -> Answer:
        session, resource = _session_of(request), found["resource"]
        if not _is_name(resource):
            raise await self._unusable(session, resource)
        outcome = await self._desk.ask(LockResource(_living(session), resource))
        if isinstance(outcome, WrongKind):
            raise _wrong("cannot lock/unlock a non-lock  resource", resource)
        if isinstance(outcome, NoTicketFree):
            return document(False)
        _check(session, outcome)
        assert isinstance(outcome, TicketIssued)
        return document(True)

    async def _unlock(self, request: Request, found: Mapping[str, str]) -> Answer:
        session, resource = _session_of(request), found["resource"]
        outcome: Outcome
        if not _is_id(session):
            outcome = SessionNotFound(session)
        elif _is_name(resource):
            outcome = await self._desk.ask(UnlockResource(session, resource))
        else:
            machine = await self._desk.read()
            is_there = machine.sessions.get(session) is not None
            outcome = ResourceNotFound(resource) if is_there else SessionNotFound(session)
        if isinstance(outcome, (SessionNotFound, SessionExpired)):
            raise _Failure(f"session not found: {session} (entity not found)", HTTPStatus.NOT_FOUND)
        if isinstance(outcome, ResourceNotFound):
            raise _Failure(
                f"could not find lock resource {resource} (entity not found)",
                HTTPStatus.NOT_FOUND,
            )
        if isinstance(outcome, WrongKind):
            raise _wrong("cannot lock/unlock a non-lock  resource", resource)
        if isinstance(outcome, TicketNotFound):
            raise _Failure(
                f"Resource {resource} is not locked (entity not found)", HTTPStatus.NOT_FOUND
            )
        if isinstance(outcome, NotIssuer):
            raise _Failure(
                f"Resource {resource} is locked  by another session (entity not found)",
                HTTPStatus.NOT_FOUND,
            )
        _check(session, outcome)
        return document("ok")

    # Looking.

    async def _dump_sessions(self, _: Request, __: Mapping[str, str]) -> Answer:
        machine = await self._desk.read()
        found: dict[str, bytes] = {}
        for at, each in enumerate([session.id for session in machine.sessions], 1):
            if at % _CHUNK == 0:
                # Lets others have their turn, and what follows is as of now.
                machine = await self._desk.read()
            session = machine.sessions.get(each)
            if session is not None and pictures.belongs(session):
                found[each] = encode(pictures.session(machine, session))
        return encoded(joined(found))

    async def _dump_resources(self, _: Request, __: Mapping[str, str]) -> Answer:
        machine = await self._desk.read()
        found: dict[str, bytes] = {}
        for at, name in enumerate(list(machine.tickets.resources.names), 1):
            if at % _CHUNK == 0:
                machine = await self._desk.read()
            resource = machine.tickets.resources.get(name)
            if resource is not None:
                found[name] = encode(pictures.resource(machine, name, resource))
        return encoded(joined(found))

    async def _dump_resource(self, _: Request, found: Mapping[str, str]) -> Answer:
        machine = await self._desk.read()
        name = found["resource"]
        resource = machine.tickets.resources.get(name)
        if resource is None:
            raise _Failure("entity not found", HTTPStatus.NOT_FOUND)
        return document({name: pictures.resource(machine, name, resource)})

    async def _status(self, _: Request, __: Mapping[str, str]) -> Answer:
        return document(status(self._started_ms, self._clock() - self._started_s))

    # What several need.

    async def _must_know(self, session: str, resource: str) -> None:
        """See that there are such a session and such a resource."""
        machine = await self._desk.read()
        if machine.sessions.get(session) is None:
            raise _no_session(session)
        if machine.tickets.resources.get(resource) is None:
            raise _no_resource(resource)

    async def _unusable(self, session: str, resource: str) -> _Failure:
        """The refusal of a name that nothing can have; a session that is over comes first."""
        machine = await self._desk.read()
        if machine.sessions.get(session) is None:
            return _no_session(session)
        return _Failure(
            f"Names have 1 to {limits.NAME_BYTES_MAX} bytes of UTF-8, without control characters",
            HTTPStatus.UNPROCESSABLE_ENTITY,
        )


def _answering(handler: Handler) -> Handler:
    """The same, with failures as answers."""

    async def answering(request: Request, found: Mapping[str, str]) -> Answer:
        try:
            return await handler(request, found)
        except _Failure as failure:
            return failure.answer

    return answering


def _session_of(request: Request) -> str:
    session = request.query("sessid")
    if not session:
        raise _Failure("Missing session id", HTTPStatus.UNPROCESSABLE_ENTITY)
    return session


def _session_and_ticket(request: Request) -> tuple[str, str]:
    session, name = _session_of(request), request.query("name")
    if not name:
        raise _Failure("Missing ticket name", HTTPStatus.UNPROCESSABLE_ENTITY)
    return session, name


def _is_name(text: str) -> bool:
    """The machine can have something of this name."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return False
    return 0 < size <= limits.NAME_BYTES_MAX and _CONTROL.search(text) is None


def _is_id(text: str) -> bool:
    """A command can ask for a session of this id."""
    return 0 < len(text) <= SESSION_ID_LENGTH_MAX and text.isascii()


def _living(session: str) -> str:
    if not _is_id(session):
        raise _no_session(session)
    return session


def _check(session: str, outcome: Outcome) -> None:
    """See that nothing stood in the way that may stand in the way of anything."""
    if isinstance(outcome, (SessionNotFound, SessionExpired)):
        raise _no_session(session)
    if isinstance(outcome, QueueFull):
        raise _unexpected(outcome)


def _unexpected(outcome: Outcome) -> Exception:
    if isinstance(outcome, QueueFull):
        return _Failure(
            f"too many {outcome.what}: at most {outcome.limit}",
            HTTPStatus.INTERNAL_SERVER_ERROR,
        )
    return AssertionError(outcome)


def _no_session(session: str) -> _Failure:
    return _Failure(f"Session not found: {session} (entity not found)", HTTPStatus.NOT_FOUND)


def _no_resource(resource: str) -> _Failure:
    return _Failure(f"unknown resource: {resource} (entity not found)", HTTPStatus.NOT_FOUND)


def _no_ticket(resource: str, name: str) -> _Failure:
    return _Failure(
        f"unknown ticket for resource {resource} -> : {name}", HTTPStatus.INTERNAL_SERVER_ERROR
    )


def _wrong(what: str, resource: str) -> _Failure:
    return _Failure(
        f"{what} ({resource}) - resource  type is incorrect", HTTPStatus.INTERNAL_SERVER_ERROR
    )
