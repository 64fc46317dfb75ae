"""Commands of locks.

RULE: values only; see `base.py`.
"""

from __future__ import annotations

from typing import ClassVar

from cluster.machine.commands.base import Command, Count, LengthMs, Name, Priority, SessionId


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


COMMANDS: tuple[type[Command], ...] = (AcquireLock, ReleaseLock)
