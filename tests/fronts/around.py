"""What a front is given, without a cluster: the real machine, and a clock that stands still."""

from __future__ import annotations

from cluster.fronts.desk import Desk
from cluster.fronts.front import Surroundings
from cluster.node.face import NodeFace

WALL_MS = 1_700_000_000_000


def around(node: NodeFace, *, wall_ms: int = WALL_MS, version: str = "1.2.3") -> Surroundings:
    """Surroundings of a front over this node; what is drawn is a counter."""
    drawn = 0

    def draw(count: int) -> bytes:
        nonlocal drawn
        drawn += 1
        return drawn.to_bytes(count, "big")

    return Surroundings(
        node=node,
        desk=Desk(node),
        clock=lambda: 0.0,
        wall_ms=lambda: wall_ms,
        draw=draw,
        version=version,
    )
