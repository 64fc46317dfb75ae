"""Commands of tickets.

RULE: values only; see `base.py`. Numbers 40 to 49.
"""

from __future__ import annotations

from cluster.machine.commands.base import Command

COMMANDS: tuple[type[Command], ...] = ()
