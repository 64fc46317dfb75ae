"""The fronts there are, and how each is made from a node's settings.

RULE: a table. A front's module is imported when it is switched on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

from cluster.fronts.front import Front, Surroundings
from cluster.node.config import Config

Make: TypeAlias = Callable[[Config, Surroundings], Front]


def _goyaad(_: Config, surroundings: Surroundings) -> Front:
    from cluster.fronts.goyaad.front import GoyaadFront

    return GoyaadFront(surroundings)


MAKERS: Mapping[str, Make] = MappingProxyType(
    {
        "goyaad": _goyaad,
    }
)
"""By the names of `Config.fronts`."""


def switched_on(config: Config, surroundings: Surroundings) -> dict[str, Front]:
    """Make the fronts that the settings ask for, by name; they do not listen yet."""
    return {name: MAKERS[name](config, surroundings) for name in config.fronts}
