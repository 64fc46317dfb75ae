"""Answers about waiting rooms.

RULE: outcome to answer or problem, nothing else; see `base.py`. The pass is signed later, by
`gateway/rooms.py`, as only a node has the keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from cluster.gateway.replies.base import Answer, Ms, Problem, Reply, Token
from cluster.machine.outcome import Outcome
from cluster.machine.outcome.rooms import RoomJoined, RoomNotFound, RoomRemoved, RoomSet

PlaceStatus = Literal["waiting", "active", "expired"]


class RoomMade(msgspec.Struct, frozen=True):
    """The room is there, with these settings; `room_token` tells it from former rooms."""

    room: str
    window_size: int
    window_interval_ms: Ms
    active_windows: int
    room_token: Token


class PlaceTaken(msgspec.Struct, frozen=True):
    """A place in the room. `token` is the signed pass (JWT): show it to ask for the status."""

    token: str
    room: str
    position: int
    status: PlaceStatus
    ahead: int
    eta_ms: Ms


class RoomReason(msgspec.Struct, frozen=True):
    """Which room."""

    name: str


class Unsigned(msgspec.Struct, frozen=True):
    """A place that was given and has no pass yet."""

    joined: RoomJoined


def room_not_found(name: str) -> Problem:
    """Nobody made it, or it is gone."""
    detail = f'room "{name}" is not there; make it with PUT /v1/rooms/{{room}}'
    return Problem("room_not_found", detail, {"name": name})


def _set(outcome: RoomSet) -> Answer:
    body = RoomMade(
        outcome.name,
        outcome.window_size,
        outcome.window_interval_ms,
        outcome.active_windows,
        outcome.token,
    )
    return Answer(201 if outcome.is_new else 200, body)


def _removed(_outcome: RoomRemoved) -> Answer:
    return _NO_CONTENT


def _not_found(outcome: RoomNotFound) -> Answer:
    raise room_not_found(outcome.name)


def _joined(outcome: RoomJoined) -> Answer:
    return Answer(201, Unsigned(outcome))


_NO_CONTENT: Final = Answer(204)

REASONS: Final[Mapping[str, type[msgspec.Struct]]] = {"room_not_found": RoomReason}

REPLIES: Final[Mapping[type[Outcome], Reply]] = {
    RoomSet: _set,
    RoomRemoved: _removed,
    RoomNotFound: _not_found,
    RoomJoined: _joined,
}
