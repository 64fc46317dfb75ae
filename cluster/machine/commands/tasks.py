"""Commands of tasks.

RULE: values only; see `base.py`. Numbers 120 to 149.
"""

from __future__ import annotations

from cluster.machine.commands.base import Command

COMMANDS: tuple[type[Command], ...] = ()
