"""The fronts there are, and how each is made from a node's settings.

RULE: a table. A front's module is imported when it is switched on.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

from cluster.fronts.front import Front, Surroundings
from cluster.node.config import Config

Make: TypeAlias = Callable[[Config, Surroundings], Front]


def _of(module: str) -> Make:
    """What the function `make` of a module of this room makes."""

    def make(config: Config, surroundings: Surroundings) -> Front:
        made: Front = importlib.import_module(f"cluster.fronts.{module}").make(config, surroundings)
        return made

    return make


MAKERS: Mapping[str, Make] = MappingProxyType(
    {
        "ticketd": _of("ticketd.server"),
        "sync": _of("sync"),
        "session-queue": _of("waitingroom"),
        "goyaad": _of("goyaad.front"),
        "beanstalkd": _of("beanstalkd.server"),
        "session-lock": _of("sessionlock.http"),
        "postgres": _of("postgres.front"),
    }
)
"""By the names of `Config.fronts`."""


def switched_on(config: Config, surroundings: Surroundings) -> dict[str, Front]:
    """Make the fronts that the settings ask for, by name; they do not listen yet."""
    return {name: MAKERS[name](config, surroundings) for name in config.fronts}
