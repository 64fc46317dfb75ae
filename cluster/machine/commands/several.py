"""Several commands in one entry.

RULE: values only; see `base.py`. Numbers 150 to 159.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated

import msgspec

from cluster.machine import limits
from cluster.machine.commands import (
    fifos,
    jobs,
    locks,
    rooms,
    semaphores,
    sessions,
    tasks,
    tickets,
)
from cluster.machine.commands.base import Command
from cluster.machine.commands.jobs import ReserveJob, ReserveJobs
from cluster.machine.commands.tasks import Work
from cluster.machine.commands.tickets import ClaimTicket

SINGLE_COMMANDS: tuple[type[Command], ...] = (
    *sessions.COMMANDS,
    *locks.COMMANDS,
    *semaphores.COMMANDS,
    *tickets.COMMANDS,
    *fifos.COMMANDS,
    *rooms.COMMANDS,
    *jobs.COMMANDS,
    *tasks.COMMANDS,
)
"""What may stand in a batch: no batch, and no Abandon."""

if TYPE_CHECKING:
    Single = Command
else:
    Single = reduce(or_, SINGLE_COMMANDS)

ANSWER_BYTES_MAX: Mapping[type[Command], int] = {
    ReserveJobs: 8 * 1024 * 1024,
    Work: 8 * 1024 * 1024,
    ReserveJob: limits.JOB_BODY_BYTES_MAX,
    ClaimTicket: limits.TICKET_DATA_BYTES_MAX,
}
"""How much a command may be told, about and at the most, where it is more than it asked in."""


class Several(Command, frozen=True, tag=150):
    """Carry commands out one after the other in one step; `atomic`: all of them or none.

    None of them waits: whoever wants to wait asks alone.
    """

    commands: Annotated[
        tuple[Single, ...],
        msgspec.Meta(min_length=1, max_length=limits.COMMANDS_PER_BATCH_MAX),
    ]
    atomic: bool = False

    def __post_init__(self) -> None:
        """Refuse what the types cannot.

        Raises:
            ValueError: a command waits, or the answer may be too large.
        """
        if any(getattr(command, "wait_ms", 0) > 0 for command in self.commands):
            raise ValueError("a command of a batch waits")
        size = sum(ANSWER_BYTES_MAX.get(type(command), 0) for command in self.commands)
        if size > limits.BATCH_ANSWER_BYTES_MAX:
            raise ValueError("the answer to a batch may be too large")

    def texts_inside(self) -> Iterable[str]:
        for command in self.commands:
            for field in command.texts:
                text = getattr(command, field)
                if text is not None:
                    yield text
            yield from command.texts_inside()


COMMANDS: tuple[type[Command], ...] = (Several,)
