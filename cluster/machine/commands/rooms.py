"""Commands of waiting rooms.

RULE: values only; see `base.py`. Numbers 70 to 79.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from cluster.machine import limits
from cluster.machine.commands.base import Command, LengthMs, Name

IntervalMs = Annotated[int, msgspec.Meta(ge=1, le=limits.LENGTH_MS_MAX)]
WindowSize = Annotated[int, msgspec.Meta(ge=1, le=limits.WINDOW_SIZE_MAX)]
ActiveWindows = Annotated[int, msgspec.Meta(ge=1, le=limits.ACTIVE_WINDOWS_MAX)]


class SetRoom(Command, frozen=True, tag=70):
    """Make a room, or change the settings of the one that is there.

    Attributes:
        window_size: how many places each step of the window admits.
        window_interval_ms: between two steps at the least.
        active_windows: after how many further steps an admitted place has expired.
        check_every_ms: above 0, the window is due at once when the room is made, and is looked at
            only so often: who begins to wait when it is due already waits for the next look. Said
            when a room is made; of one that is there already it changes nothing.
        only_new: leave a room that is there as it is.
    """

    texts: ClassVar[tuple[str, ...]] = ("name",)

    name: Name
    window_size: WindowSize
    window_interval_ms: IntervalMs
    active_windows: ActiveWindows
    check_every_ms: LengthMs = 0
    only_new: bool = False


class RemoveRoom(Command, frozen=True, tag=71):
    """Take a room away; its places are void."""

    texts: ClassVar[tuple[str, ...]] = ("name",)

    name: Name


class JoinRoom(Command, frozen=True, tag=72):
    """Take the next place of a room."""

    texts: ClassVar[tuple[str, ...]] = ("name",)

    name: Name


COMMANDS: tuple[type[Command], ...] = (SetRoom, RemoveRoom, JoinRoom)
