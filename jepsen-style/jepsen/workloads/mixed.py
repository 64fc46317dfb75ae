"""Several workloads at once on one cluster, each at a slower pace.

RULE: knows them by name only; each keeps to names of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from jepsen.verdicts import Checker
from jepsen.workloads.acting import Acting, Warp, together
from jepsen.workloads.base import Arena

SLOWER: Final = 3.0
CLIENTS: Final = 3


class Mixed:
    """All parts side by side; their checkers see the whole history.

    Args:
        parts: how to make them.
        pace_s: mean pause of a client between two operations.
        warp: see `Links`.
    """

    name = "mixed"

    def __init__(
        self,
        parts: Mapping[str, Callable[..., Acting]],
        *,
        pace_s: float = 0.12,
        warp: Warp | None = None,
    ):
        self._parts = [
            make(pace_s=SLOWER * pace_s, clients=CLIENTS, warp=warp) for make in parts.values()
        ]

    def checkers(self) -> Sequence[Checker]:
        """Each kind once."""
        kinds = {checker.name: checker for part in self._parts for checker in part.checkers()}
        return list(kinds.values())

    async def prepare(self, arena: Arena) -> None:
        for part in self._parts:
            await part.prepare(arena)

    async def run(self, arena: Arena) -> None:
        await together(part.run(arena) for part in self._parts)

    async def settle(self, arena: Arena) -> None:
        for part in self._parts:
            await part.settle(arena)
