"""Sessions over HTTP: open, keep alive (one or many), close, get, list.

RULE: JSON or CBOR to command, state to picture; what a session owns is decided in
`machine/sessions.py`.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any

import msgspec

from cluster.gateway.paging import page
from cluster.gateway.replies import (
    Ms,
    SessionOpened,
    SessionRenewed,
    SessionsRenewed,
    Token,
    session_expired,
    session_not_found,
)
from cluster.gateway.replies.kinds import SESSION_GONE
from cluster.gateway.requests import (
    AFTER,
    LIMIT,
    TTL_MS_MAX,
    TTL_MS_MIN,
    Ask,
    Body,
    Duration,
    Name,
    SessionId,
    bad_request,
    check_name,
    check_session,
    meta_json,
    ttl_ms,
)
from cluster.gateway.routes import Lane, Look, Read, Route, Write, read_query
from cluster.machine.commands import CloseSession, Command, KeepAlive, KeepAliveMany, OpenSession
from cluster.machine.outcome import SessionInfo

KEEPALIVES_MAX = 2_000
NONCE_BYTES = 8


class Open(Body, frozen=True):
    """Open a session. `name` and `meta` are for people: who this is."""

    ttl: Annotated[
        Duration,
        msgspec.Meta(
            extra_json_schema={"minimum": TTL_MS_MIN, "maximum": TTL_MS_MAX, "examples": ["30s"]}
        ),
    ]
    name: Name | None = None
    meta: dict[str, Any] | None = None


class KeepAlives(Body, frozen=True):
    """Renew several sessions in one step."""

    sessions: Annotated[list[SessionId], msgspec.Meta(max_length=KEEPALIVES_MAX)]


class Held(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that the session holds; `part` says which part of it, where the name does not."""

    kind: str
    name: str
    token: Token
    part: str = ""


class Waited(msgspec.Struct, frozen=True):
    """Something that the session waits for; `position` counts from 1."""

    kind: str
    name: str
    position: int


class SessionView(msgspec.Struct, frozen=True):
    """One session: who it is, how long it lives unless renewed, what it holds and waits for."""

    session: str
    name: str | None
    meta: msgspec.Raw
    ttl_ms: Ms
    expires_in_ms: Ms
    token: Token
    holds: list[Held]
    waits: list[Waited]


class SessionPage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Live sessions in order of opening; `next` goes into `after`."""

    sessions: list[SessionView]
    next: str | None = None


def open_session(ask: Ask) -> OpenSession:
    """Make the command that opens a session, still without its nonce."""
    body: Open = ask.body
    return OpenSession(
        nonce="",
        ttl_ms=ttl_ms(body.ttl),
        name=None if body.name is None else check_name(body.name, "name"),
        meta=meta_json(body.meta),
    )


def with_nonce(command: Command) -> Command:
    """Draw the nonce, which keeps ids apart even between clusters and after a restore."""
    return msgspec.structs.replace(command, nonce=secrets.token_hex(NONCE_BYTES))


def keepalive(ask: Ask) -> KeepAlive:
    """Make the command that renews one session."""
    return KeepAlive(session=check_session(ask.path["session"]))


def keepalive_many(ask: Ask) -> KeepAliveMany:
    """Make the command that renews several sessions."""
    sessions = tuple(
        check_session(session, f"sessions[{index}]")
        for index, session in enumerate(ask.body.sessions)
    )
    return KeepAliveMany(sessions=sessions)


def close(ask: Ask) -> CloseSession:
    """Make the command that ends a session."""
    return CloseSession(session=check_session(ask.path["session"]))


def show(look: Look, ask: Ask) -> SessionView:
    """Show one session, or say whether it ended or never was."""
    session = check_session(ask.path["session"])
    info = look.machine.sessions.info(session, look.now_ms)
    if info is not None:
        return _view(info)
    if look.machine.sessions.existed(session):
        raise session_expired(session)
    raise session_not_found(session)


def show_all(look: Look, ask: Ask) -> SessionPage:
    """Show a page of sessions."""
    sessions, after = look.machine.sessions, ask.query["after"]
    # One that came from another cluster has an id of its own: it is known while it lives.
    if after is not None and sessions.get(after) is None and not sessions.existed(after):
        raise bad_request("after", "is no id of a session; take `next` of the page before")
    found, following = page(
        lambda after, limit: sessions.list(look.now_ms, after=after, limit=limit),
        after=after,
        limit=ask.query["limit"],
        key=lambda info: info.session,
        weight=lambda info: 1 + len(info.holds) + len(info.waits),
    )
    return SessionPage([_view(info) for info in found], following)


def _view(info: SessionInfo) -> SessionView:
    return SessionView(
        session=info.session,
        name=info.name,
        meta=_NO_META if info.meta is None else msgspec.Raw(info.meta),
        ttl_ms=info.ttl_ms,
        expires_in_ms=info.expires_in_ms,
        token=info.token,
        holds=[Held(kind, name, token, part) for kind, name, part, token in info.holds],
        waits=[Waited(*waited) for waited in info.waits],
    )


_NO_META = msgspec.Raw(b"null")

ROUTES: tuple[Route, ...] = (
    Write(
        method="POST",
        path="/v1/sessions",
        summary="Open a session; it ends `ttl` after its last keepalive.",
        tag="sessions",
        body=Open,
        answer=SessionOpened,
        status=201,
        codes=("queue_full",),
        command=open_session,
        seal=with_nonce,
    ),
    Write(
        method="POST",
        path="/v1/sessions/keepalive",
        summary="Renew several sessions in one step.",
        tag="sessions",
        body=KeepAlives,
        answer=SessionsRenewed,
        lane=Lane.KEEPALIVE,
        command=keepalive_many,
    ),
    Write(
        method="POST",
        path="/v1/sessions/{session}/keepalive",
        summary="Renew a session for its whole TTL.",
        tag="sessions",
        answer=SessionRenewed,
        codes=SESSION_GONE,
        lane=Lane.KEEPALIVE,
        command=keepalive,
    ),
    Write(
        method="DELETE",
        path="/v1/sessions/{session}",
        summary="End a session; everything it held is freed in the same step.",
        tag="sessions",
        status=204,
        codes=SESSION_GONE,
        command=close,
    ),
    Read(
        method="GET",
        path="/v1/sessions/{session}",
        summary="Show a session: its owner, its TTL, what it holds and waits for.",
        tag="sessions",
        answer=SessionView,
        codes=SESSION_GONE,
        query=read_query(),
        view=show,
    ),
    Read(
        method="GET",
        path="/v1/sessions",
        summary="List the live sessions, in order of opening.",
        tag="sessions",
        answer=SessionPage,
        query=read_query(AFTER, LIMIT),
        view=show_all,
    ),
)
