"""What can be asked of the machine: one frozen value per command.

RULE: values only. A command is checked for shape where it is decoded (`wire/commands.py`) and for
sense where it is applied; it never carries a clock reading, only lengths of time. One module per
primitive; `base.py` has what they are made of, and the entry that carries them.
"""

from __future__ import annotations

from cluster.machine.commands import (
    fifos,
    jobs,
    locks,
    rooms,
    semaphores,
    sessions,
    several,
    tasks,
    tickets,
)
from cluster.machine.commands.base import (
    Abandon,
    Batch,
    Command,
    Group,
    Origin,
    Request,
    RequestId,
)
from cluster.machine.commands.locks import AcquireLock, AcquireLocks, ReleaseLock, ReleaseLocks
from cluster.machine.commands.sessions import CloseSession, KeepAlive, KeepAliveMany, OpenSession
from cluster.machine.commands.several import Several

__all__ = [
    "MACHINE_COMMANDS",
    "Abandon",
    "AcquireLock",
    "AcquireLocks",
    "Batch",
    "CloseSession",
    "Command",
    "Group",
    "KeepAlive",
    "KeepAliveMany",
    "OpenSession",
    "Origin",
    "ReleaseLock",
    "ReleaseLocks",
    "Request",
    "RequestId",
    "Several",
]

MACHINE_COMMANDS: tuple[type[Command], ...] = (
    *sessions.COMMANDS,
    *locks.COMMANDS,
    Abandon,
    *semaphores.COMMANDS,
    *tickets.COMMANDS,
    *fifos.COMMANDS,
    *rooms.COMMANDS,
    *jobs.COMMANDS,
    *tasks.COMMANDS,
    *several.COMMANDS,
)
