"""Outcomes and pictures of waiting rooms.

RULE: values only; see `base.py`. Numbers 70 to 79.
"""

from __future__ import annotations

from typing import Final

import msgspec

from cluster.machine.outcome.base import Outcome, Refusal

WAITING: Final = "waiting"
ACTIVE: Final = "active"
EXPIRED: Final = "expired"


class RoomSet(Outcome, frozen=True, tag=70):
    """There is such a room now; `token` is that of its making, which tells it from former ones."""

    name: str
    window_size: int
    window_interval_ms: int
    active_windows: int
    token: int
    is_new: bool


class RoomRemoved(Outcome, frozen=True, tag=71):
    """The room is gone."""

    name: str


class RoomNotFound(Refusal, frozen=True, tag=72):
    """There is no such room."""

    name: str


class RoomJoined(Outcome, frozen=True, tag=73):
    """A place was given.

    Attributes:
        token: of the room's making: a place belongs to this very room.
        status, ahead, eta_ms: as in PlaceInfo, at this moment.
        wall_ms: when it was, by the leader's wall clock.
    """

    name: str
    token: int
    position: int
    status: str
    ahead: int
    eta_ms: int
    wall_ms: int


class PlaceInfo(msgspec.Struct, frozen=True):
    """A read-only picture of one place.

    Attributes:
        status: waiting, active or expired.
        ahead: places before it that wait too.
        eta_ms: until it is active, at the present pace; 0 where it is, or was.
    """

    position: int
    status: str
    ahead: int
    eta_ms: int


class RoomInfo(msgspec.Struct, frozen=True):
    """A read-only picture of one room.

    Attributes:
        joined: places given.
        window_end: last place that was admitted, or will be at once.
        expired_to: all places up to this one have expired.
        next_slide_in_ms: None while nobody waits.
    """

    name: str
    window_size: int
    window_interval_ms: int
    active_windows: int
    token: int
    joined: int
    window_end: int
    expired_to: int
    next_slide_in_ms: int | None

    @property
    def waiting(self) -> int:
        """Places not admitted yet."""
        return max(0, self.joined - self.window_end)

    @property
    def active(self) -> int:
        """Places admitted and not expired."""
        return max(0, min(self.joined, self.window_end) - self.expired_to)


OUTCOMES: tuple[type[Outcome], ...] = (RoomSet, RoomRemoved, RoomNotFound, RoomJoined)
