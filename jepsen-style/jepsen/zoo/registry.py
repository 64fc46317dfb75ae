"""All plants by name.

RULE: a list, in the order of the layers from below; no name comes twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from jepsen.zoo import engine, machine, node, primitives
from jepsen.zoo.species import Plant

ZOO: Final[Mapping[str, Plant]] = {
    plant.name: plant for room in (engine, node, machine, primitives) for plant in room.PLANTS
}
"""Name -> plant."""


def chosen(text: str | None) -> list[Plant]:
    """Those whose names begin with one of some words, with commas between; all without words.

    Raises:
        KeyError: a word that begins no name.
    """
    if text is None:
        return list(ZOO.values())
    words = [word for word in text.split(",") if word]
    for word in words:
        if not any(name.startswith(word) for name in ZOO):
            raise KeyError(f'plant "{word}"')
    return [plant for name, plant in ZOO.items() if name.startswith(tuple(words))]
