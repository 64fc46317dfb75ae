"""Commands of semaphores.

RULE: values only; see `base.py`. Numbers 20 to 29.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from cluster.machine import limits
from cluster.machine.commands.base import Command, Count, LengthMs, Name, Priority, SessionId

Limit = Annotated[int, msgspec.Meta(ge=0, le=limits.SEMAPHORE_LIMIT_MAX)]
Units = Annotated[int, msgspec.Meta(ge=1, le=limits.SEMAPHORE_LIMIT_MAX)]


class SetSemaphore(Command, frozen=True, tag=20):
    """Make a semaphore, or give one another limit. A limit of 0 closes it for the time being.

    Nothing is taken away from those who hold units, however many there are.
    """

    texts: ClassVar[tuple[str, ...]] = ("name",)

    name: Name
    limit: Limit


class DeleteSemaphore(Command, frozen=True, tag=21):
    """Take a semaphore away that nobody holds or waits for."""

    texts: ClassVar[tuple[str, ...]] = ("name",)

    name: Name


class AcquireSemaphore(Command, frozen=True, tag=22):
    """Ask for units of a semaphore; with `wait_ms` > 0 stand in its queue for at most that long.

    Each is a grant of its own, beside what the session holds already.

    `priority`: smaller goes first; equal ones in order of arrival.
    """

    texts: ClassVar[tuple[str, ...]] = ("name",)

    session: SessionId
    name: Name
    units: Units = 1
    priority: Priority = 0
    wait_ms: LengthMs = 0


class ReleaseSemaphore(Command, frozen=True, tag=23):
    """Give units of one grant back, all of them by default. Conditional on its fencing token.

    The grant goes on with what is left; to give back more than it has is to give back all.
    """

    texts: ClassVar[tuple[str, ...]] = ("name",)

    session: SessionId
    name: Name
    token: Count
    units: Units | None = None


COMMANDS: tuple[type[Command], ...] = (
    SetSemaphore,
    DeleteSemaphore,
    AcquireSemaphore,
    ReleaseSemaphore,
)
