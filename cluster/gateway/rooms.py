"""Waiting rooms over HTTP: make, change, delete, join, status, figures.

RULE: JSON or CBOR to command, state to picture; what a room does is decided in `machine/rooms.py`,
how a pass is signed in `passes.py`.
"""

from __future__ import annotations

from typing import Annotated, Final, cast

import msgspec

from cluster.gateway.paging import named
from cluster.gateway.passes import Passes, PassInvalid
from cluster.gateway.replies import Answer, Ms, Problem, Token
from cluster.gateway.replies.rooms import (
    PlaceStatus,
    PlaceTaken,
    RoomMade,
    Unsigned,
    room_not_found,
)
from cluster.gateway.requests import (
    AFTER,
    LIMIT,
    PREFIX,
    Ask,
    Body,
    Duration,
    check_name,
    length_ms,
)
from cluster.gateway.routes import Look, Read, Route, Write, read_query
from cluster.machine import limits
from cluster.machine.commands.rooms import JoinRoom, RemoveRoom, SetRoom
from cluster.machine.outcome.rooms import RoomInfo

INTERVAL_MS_MIN: Final = 100
INTERVAL_MS_MAX: Final = 366 * 86_400_000
CHALLENGE: Final = 'Bearer realm="coterie waiting room"'


class Settings(Body, frozen=True):
    """How a room admits: `window_size` places at a time, an interval apart while somebody waits.

    A place has expired once `active_windows` further steps were made. With 1, who comes right
    before a step is active for a moment only; 2 or more spare everybody that.
    """

    window_size: Annotated[int, msgspec.Meta(ge=1, le=limits.WINDOW_SIZE_MAX)]
    window_interval: Annotated[
        Duration,
        msgspec.Meta(
            extra_json_schema={
                "minimum": INTERVAL_MS_MIN,
                "maximum": INTERVAL_MS_MAX,
                "examples": ["30s"],
            }
        ),
    ]
    active_windows: Annotated[int, msgspec.Meta(ge=1, le=limits.ACTIVE_WINDOWS_MAX)]


class PlaceView(msgspec.Struct, frozen=True):
    """What has become of a place; `ahead` counts those that wait before it."""

    position: int
    status: PlaceStatus
    ahead: int
    eta_ms: Ms


class RoomView(msgspec.Struct, frozen=True):
    """One room: its settings, and how many places are in which state.

    `next_slide_in_ms` is null while nobody waits, as the window moves for those only.
    """

    room: str
    window_size: int
    window_interval_ms: Ms
    active_windows: int
    room_token: Token
    joined: int
    waiting: int
    active: int
    expired: int
    window_end: int
    next_slide_in_ms: Ms | None


class RoomPage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Rooms in order of name; `next` goes into `after`."""

    rooms: list[RoomView]
    next: str | None = None


def put(ask: Ask) -> SetRoom:
    """Make the command that makes or changes a room."""
    body: Settings = ask.body
    return SetRoom(
        name=_name(ask),
        window_size=body.window_size,
        window_interval_ms=length_ms(
            body.window_interval, "window_interval", INTERVAL_MS_MIN, INTERVAL_MS_MAX
        ),
        active_windows=body.active_windows,
    )


def delete(ask: Ask) -> RemoveRoom:
    """Make the command that takes a room away."""
    return RemoveRoom(name=_name(ask))


def join(ask: Ask) -> JoinRoom:
    """Make the command that takes a place."""
    return JoinRoom(name=_name(ask))


def with_pass(answer: Answer, passes: Passes) -> Answer:
    """Sign the place that was given."""
    joined = cast(Unsigned, answer.body).joined
    body = PlaceTaken(
        token=passes.issue(joined.name, joined.token, joined.position, joined.wall_ms),
        room=joined.name,
        position=joined.position,
        status=cast(PlaceStatus, joined.status),
        ahead=joined.ahead,
        eta_ms=joined.eta_ms,
    )
    return answer._replace(body=body)


def status(look: Look, ask: Ask) -> PlaceView:
    """Show what has become of the place of a pass."""
    name = _name(ask)
    if look.machine.rooms.info(name, look.now_ms) is None:
        raise room_not_found(name)
    try:
        shown = look.passes.read(_bearer(ask))
    except PassInvalid as error:
        raise _invalid(str(error)) from None
    if shown.room != name:
        raise _invalid("it is of another room")
    place = look.machine.rooms.place(name, shown.made, shown.position, look.now_ms)
    if place is None:
        raise _invalid("it is of a former room of this name")
    return PlaceView(place.position, cast(PlaceStatus, place.status), place.ahead, place.eta_ms)


def show(look: Look, ask: Ask) -> RoomView:
    """Show one room."""
    name = _name(ask)
    info = look.machine.rooms.info(name, look.now_ms)
    if info is None:
        raise room_not_found(name)
    return _view(info)


def show_all(look: Look, ask: Ask) -> RoomPage:
    """Show a page of rooms."""
    found, following = named(look.machine.rooms, look.now_ms, ask.query, key=lambda info: info.name)
    return RoomPage([_view(info) for info in found], following)


def _view(info: RoomInfo) -> RoomView:
    return RoomView(
        room=info.name,
        window_size=info.window_size,
        window_interval_ms=info.window_interval_ms,
        active_windows=info.active_windows,
        room_token=info.token,
        joined=info.joined,
        waiting=info.waiting,
        active=info.active,
        expired=min(info.joined, info.expired_to),
        window_end=info.window_end,
        next_slide_in_ms=info.next_slide_in_ms,
    )


def _name(ask: Ask) -> str:
    return check_name(ask.path["room"], "room")


def _bearer(ask: Ask) -> str:
    """Return the pass that was shown."""
    if ask.authorization is None:
        raise Problem(
            "pass_missing",
            "show the pass that join gave: Authorization: Bearer <token>",
            headers={"WWW-Authenticate": CHALLENGE},
        )
    scheme, _, text = ask.authorization.strip().partition(" ")
    if scheme.lower() != "bearer" or not text:
        raise _invalid("Authorization holds no bearer token")
    return text.strip()


def _invalid(why: str) -> Problem:
    return Problem(
        "pass_invalid",
        f"this pass is not accepted: {why}; join the room to get one",
        headers={"WWW-Authenticate": f'{CHALLENGE}, error="invalid_token"'},
    )


ROUTES: tuple[Route, ...] = (
    Write(
        method="PUT",
        path="/v1/rooms/{room}",
        summary="Make a waiting room, or change its settings; 201 where there was none.",
        tag="rooms",
        body=Settings,
        answer=RoomMade,
        also=(201,),
        codes=("queue_full",),
        command=put,
    ),
    Write(
        method="DELETE",
        path="/v1/rooms/{room}",
        summary="Take a waiting room away; its passes are void.",
        tag="rooms",
        status=204,
        codes=("room_not_found",),
        command=delete,
    ),
    Write(
        method="POST",
        path="/v1/rooms/{room}/join",
        summary="Take the next place and get the pass for it.",
        tag="rooms",
        answer=PlaceTaken,
        status=201,
        codes=("room_not_found",),
        command=join,
        issue=with_pass,
    ),
    Read(
        method="GET",
        path="/v1/rooms/{room}/status",
        summary="Tell what has become of the place of a pass.",
        tag="rooms",
        answer=PlaceView,
        codes=("room_not_found", "pass_missing", "pass_invalid"),
        query=read_query(),
        view=status,
        wants_pass=True,
    ),
    Read(
        method="GET",
        path="/v1/rooms/{room}",
        summary="Show a waiting room: its settings, and how many wait.",
        tag="rooms",
        answer=RoomView,
        codes=("room_not_found",),
        query=read_query(),
        view=show,
    ),
    Read(
        method="GET",
        path="/v1/rooms",
        summary="List the waiting rooms, in order of name.",
        tag="rooms",
        answer=RoomPage,
        query=read_query(PREFIX, AFTER, LIMIT),
        view=show_all,
    ),
)
