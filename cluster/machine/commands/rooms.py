"""Commands of rooms.

RULE: values only; see `base.py`. Numbers 70 to 79.
"""

from __future__ import annotations

from cluster.machine.commands.base import Command

COMMANDS: tuple[type[Command], ...] = ()
