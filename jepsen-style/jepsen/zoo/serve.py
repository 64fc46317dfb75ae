"""`python -m jepsen.zoo.serve --plant NAME -- serve --config FILE`: a node of ours with a bug in it.

RULE: patches first, then calls the real entry point with the words behind `--`. Refuses to do so
without COTERIE_ZOO=1: nobody starts such a node by mistake.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

from cluster import cli
from jepsen.system import System
from jepsen.zoo.registry import ZOO
from jepsen.zoo.species import planted

PERMIT: Final = "COTERIE_ZOO"
_WRONG_WORDS: Final = 2


def system_of(name: str) -> System:
    """Nodes with this bug.

    Raises:
        KeyError: there is no such plant.
    """
    if name not in ZOO:
        raise KeyError(f'plant "{name}"')
    return System(
        name=name,
        arguments=("-P", "-m", "jepsen.zoo.serve", "--plant", name, "--", "serve"),
        environ=((PERMIT, "1"),),
        words=f"--plant {name}",
    )


def main(words: Sequence[str]) -> int:
    """Plant, and be a node until it ends.

    Returns:
        an exit code where it did not become one.
    """
    # Taken away: to our settings it is a word they do not know.
    if os.environ.pop(PERMIT, "") != "1":
        print(f"a node with a bug in it: not without {PERMIT}=1", file=sys.stderr)
        return _WRONG_WORDS
    if len(words) < 3 or words[0] != "--plant" or words[2] != "--" or words[1] not in ZOO:
        print(
            "say: --plant NAME -- serve …; python -m jepsen.zoo --list has names", file=sys.stderr
        )
        return _WRONG_WORDS
    with planted(ZOO[words[1]]):
        cli.main(args=list(words[3:]), prog_name="coterie")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
