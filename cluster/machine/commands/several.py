"""Commands of several.

RULE: values only; see `base.py`. Numbers 150 to 159.
"""

from __future__ import annotations

from cluster.machine.commands.base import Command

COMMANDS: tuple[type[Command], ...] = ()
