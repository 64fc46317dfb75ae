"""Several commands in one entry.

RULE: values only; see `base.py`. Numbers 150 to 159.
"""

from __future__ import annotations

from collections.abc import Iterable
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
from cluster.machine.commands.jobs import ReserveJobs
from cluster.machine.commands.tasks import Work

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

LARGE_ANSWERS = (ReserveJobs, Work)
"""Whose answers may have a megabyte each."""


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
            ValueError: a command waits, or too many have large answers.
        """
        if any(getattr(command, "wait_ms", 0) > 0 for command in self.commands):
            raise ValueError("a command of a batch waits")
        if sum(isinstance(command, LARGE_ANSWERS) for command in self.commands) > (
            limits.LARGE_ANSWERS_PER_BATCH_MAX
        ):
            raise ValueError("too many commands of a batch have large answers")

    def texts_inside(self) -> Iterable[str]:
        for command in self.commands:
            for field in command.texts:
                text = getattr(command, field)
                if text is not None:
                    yield text
            yield from command.texts_inside()


COMMANDS: tuple[type[Command], ...] = (Several,)
