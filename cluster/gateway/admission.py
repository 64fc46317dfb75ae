"""Admission: how many requests may be in progress at once, by lane.

RULE: counts. Early refusal keeps the answers of those inside fast; keepalives have room of their
own, as a refused keepalive can cost a client everything it holds.
"""

from __future__ import annotations

from cluster.gateway.replies import Problem
from cluster.gateway.routes import Lane


class Admission:
    """Counts what is inside.

    Args:
        requests_max: ordinary requests.
        keepalives_max: keepalives.
        waits_max: requests that stand in a queue of the cluster.
    """

    __slots__ = ("_inside", "_most", "refused")

    def __init__(self, *, requests_max: int, keepalives_max: int, waits_max: int):
        # By the lane's number; probes are free.
        self._most = (requests_max, waits_max, keepalives_max)
        self._inside = [0, 0, 0]
        self.refused = 0

    def enter(self, lane: Lane) -> None:
        """Let one more in; `leave` must follow.

        Raises:
            Problem: `overloaded`; nothing was done.
        """
        if self._inside[lane] >= self._most[lane]:
            self.refused += 1
            raise Problem(
                "overloaded",
                f"this node has {self._most[lane]} {lane.name.lower()} requests in progress; "
                "try again in a moment, or another node",
            )
        self._inside[lane] += 1

    def leave(self, lane: Lane) -> None:
        """One is done."""
        self._inside[lane] -= 1

    @property
    def inside(self) -> dict[str, int]:
        """How many are in progress, by the lane's name."""
        return {Lane(number).name.lower(): count for number, count in enumerate(self._inside)}
