"""What a front is, and what it is given.

RULE: values and a protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cluster.fronts.desk import Desk
from cluster.node.face import NodeFace


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What every front of a node is given.

    Attributes:
        desk: asks the node for us, and waits for a leader where there is none.
        clock: seconds, never falling.
        wall_ms: milliseconds since 1970; for what foreign protocols print and sign, never for leases.
        draw: so many bytes that nobody can guess.
        version: of Coterie.
    """

    node: NodeFace
    desk: Desk
    clock: Callable[[], float]
    wall_ms: Callable[[], int]
    draw: Callable[[int], bytes]
    version: str


class Front(Protocol):
    """A server of a foreign protocol. Started after the node, stopped before it."""

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of every socket it listens on; ephemeral ports are known after `start`."""

    async def start(self, host: str, port: int) -> None:
        """Listen.

        Raises:
            OSError: the address is taken or not ours.
        """

    def drain(self) -> None:
        """Take no new connections; let go of waiting clients in the way they know."""

    async def stop(self, grace_s: float) -> None:
        """End: what is in progress has `grace_s`, then every connection is closed."""
