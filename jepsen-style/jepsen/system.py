"""What a node of a run is: which program, and the word that asks for it.

RULE: a value. Whoever plants a bug or compares with another library names its program here; the bed
starts it as it starts ours, with a settings file of the same form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class System:
    """The program of a node.

    Attributes:
        name: of what is not as usual, for the names of runs; empty for what we ship.
        arguments: of Python, before `--config FILE`.
        environ: what is set for it beside what every node gets.
        words: of our command line, to have the same again.
        has_probes: it answers `/readyz` and reads of locks, as ours does.
    """

    name: str
    arguments: tuple[str, ...]
    environ: tuple[tuple[str, str], ...] = ()
    words: str = ""
    has_probes: bool = True


COTERIE: Final = System("", ("-P", "-m", "cluster.cli", "serve"))
"""What we ship."""
