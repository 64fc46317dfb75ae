"""The real node, alone in its cluster, on a real disk, with a clock that the test moves.

RULE: production code below the gateway, all of it; only the driver's timer and the clocks are ours.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from cluster.node.node import Node
from cluster.node.settings import NodeSettings
from cluster.replication.disk import OsDisk
from cluster.replication.engine import use_clock
from cluster.replication.identity import Identity
from cluster.replication.snapshots import InlineDumper

STEP_MS = 125
"""An eighth of a second is exact as a float, so that lengths of time come out exact."""

_ROUNDS_MAX = 1_000
_ROUNDS_AFTER_WAKE = 4


class SoloNode:
    """Owns a node, its disk and its time.

    Args:
        folder: for its data.
    """

    def __init__(self, folder: Path) -> None:
        self._disk = OsDisk(folder)
        self._now_s = 1000.0
        self._rounds_due = 0
        self._loop = asyncio.get_running_loop()
        use_clock(self._clock)
        self.node = Node(
            NodeSettings(node="n1", peers=()),
            identity=Identity.open(self._disk, cluster="solo", node="n1", fresh_unique="0" * 32),
            disk=self._disk,
            clock=self._clock,
            wall_ms=lambda: 0,
            rng=random.Random(7),
            send=lambda _peer, _frame: None,
            dumper=InlineDumper,
            wake=self._wake,
        )

    def lead(self) -> None:
        """Let time pass until the node leads."""
        for _ in range(100):
            self.advance(STEP_MS)
            if self.node.status().ready:
                return
        raise AssertionError(f"no leader of one node: {self.node.status()}")

    def advance(self, ms: int) -> None:
        """Let time pass, round by round."""
        assert ms % STEP_MS == 0
        for _ in range(ms // STEP_MS):
            self._now_s += STEP_MS / 1000
            for count in range(_ROUNDS_MAX):
                if self.node.round() > 0.0 and count >= _ROUNDS_AFTER_WAKE:
                    break

    def close(self) -> None:
        """Stop the node and let its folder go."""
        self.node.close()
        self._disk.close()

    def _clock(self) -> float:
        return self._now_s

    def _wake(self) -> None:
        # What is synced in one round is committed in the next, which the driver's timer would
        # bring; here some rounds follow at once, as the clock stands still.
        if not self._rounds_due:
            self._loop.call_soon(self._round)
        self._rounds_due = _ROUNDS_AFTER_WAKE

    def _round(self) -> None:
        self._rounds_due -= 1
        if self.node.round() == 0.0 or self._rounds_due:
            self._rounds_due = max(self._rounds_due, 1)
            self._loop.call_soon(self._round)
