"""Commands of locks.

RULE: values only; see `base.py`. Numbers 5, 6 and 30 to 39.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar

import msgspec

from cluster.machine import limits
from cluster.machine.commands.base import Command, Count, LengthMs, Name, Priority, SessionId

_Several = msgspec.Meta(min_length=1, max_length=limits.LOCKS_PER_COMMAND_MAX)


class AcquireLock(Command, frozen=True, tag=5):
    """Ask for a lock; with `wait_ms` > 0 stand in its queue for at most that long.

    `priority`: smaller goes first, as in beanstalkd; equal ones in order of arrival.
    """

    texts: ClassVar[tuple[str, ...]] = ("name",)

    session: SessionId
    name: Name
    shared: bool = False
    priority: Priority = 0
    wait_ms: LengthMs = 0


class ReleaseLock(Command, frozen=True, tag=6):
    """Give a lock back. Conditional on the fencing token of the grant."""

    texts: ClassVar[tuple[str, ...]] = ("name",)

    session: SessionId
    name: Name
    token: Count


class AcquireLocks(Command, frozen=True, tag=30):
    """Ask for several locks, all or none; with `wait_ms` > 0 stand in the queues of all of them.

    `locks`: (name, shared); a name that comes twice is wanted in its stronger mode.
    """

    session: SessionId
    locks: Annotated[tuple[tuple[Name, bool], ...], _Several]
    priority: Priority = 0
    wait_ms: LengthMs = 0

    def texts_inside(self) -> Iterable[str]:
        return (name for name, _ in self.locks)


class ReleaseLocks(Command, frozen=True, tag=31):
    """Give several locks back, all or none. `locks`: (name, token)."""

    session: SessionId
    locks: Annotated[tuple[tuple[Name, Count], ...], _Several]

    def texts_inside(self) -> Iterable[str]:
        return (name for name, _ in self.locks)


COMMANDS: tuple[type[Command], ...] = (AcquireLock, ReleaseLock, AcquireLocks, ReleaseLocks)
