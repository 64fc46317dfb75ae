"""Commands of semaphores.

RULE: values only; see `base.py`. Numbers 20 to 29.
"""

from __future__ import annotations

from cluster.machine.commands.base import Command

COMMANDS: tuple[type[Command], ...] = ()
