"""Commands of jobs.

RULE: values only; see `base.py`. Numbers 80 to 119.
"""

from __future__ import annotations

from cluster.machine.commands.base import Command

COMMANDS: tuple[type[Command], ...] = ()
