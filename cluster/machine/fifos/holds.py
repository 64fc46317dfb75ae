"""Holds: how long a thing was held lately, and from that how long one will wait for it.

RULE: integers only, and a bounded memory: the same holds give the same estimate on every node.
"""

from __future__ import annotations

from cluster.machine import limits
from cluster.machine.outcome.fifos import HoldInfo

_SCALE = 1024


class Holds:
    """Hold times of one thing.

    Attributes:
        count: of all holds that ended.
        scaled: mean in 1/1024 ms, in which a hold weighs as much as seven before it together.
        recent: the last ones, oldest first.
    """

    __slots__ = ("count", "recent", "scaled")

    def __init__(self, count: int = 0, scaled: int = 0, recent: tuple[int, ...] = ()) -> None:
        self.count = count
        self.scaled = scaled
        self.recent = recent

    def add(self, hold_ms: int) -> None:
        """Count one hold that has ended."""
        self.count += 1
        weight = min(self.count, limits.HOLDS_WEIGHED)
        self.scaled += (hold_ms * _SCALE - self.scaled) // weight
        self.recent = (*self.recent, hold_ms)[-limits.HOLDS_KEPT_MAX :]

    def eta_ms(self, ahead: int, held_ms: int) -> int | None:
        """How long one waits with so many ahead; None where nothing is known.

        Args:
            ahead: the one who holds among them.
            held_ms: how long that one has held it so far.
        """
        if ahead == 0:
            return 0
        if self.count == 0:
            return None
        mean_ms = self.mean_ms
        return max(0, mean_ms - held_ms) + (ahead - 1) * mean_ms

    @property
    def mean_ms(self) -> int:
        """Mean of the holds, later ones weighing more; 0 while there was none."""
        return (self.scaled + _SCALE // 2) // _SCALE

    def info(self) -> HoldInfo:
        """A picture of it."""
        if not self.recent:
            return HoldInfo(self.count, None, None)
        rank = (len(self.recent) * 9 + 9) // 10
        return HoldInfo(self.count, self.mean_ms, sorted(self.recent)[rank - 1])
