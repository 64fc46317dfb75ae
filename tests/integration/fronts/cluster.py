"""A cluster of real processes with every compatible front on every node.

RULE: as `tests/integration/cluster.py`, of which it is one with more ports.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from jepsen.ports import claimed_ports

from cluster.fronts.registry import MAKERS
from cluster.node.config import Address
from tests.integration.cluster import HOST, NAMES, Cluster

SESSION_QUEUE_SECRET = "a secret that both sides of the tests know"

# Short enough for tests to see several steps, and long enough for a slow machine to see each.
SETTINGS: dict[str, object] = {
    "front_ticketd_sweep_ms": 500,
    "front_session_queue_secret": SESSION_QUEUE_SECRET,
}
"""Of every node, beside where the fronts listen."""


class FrontCluster(Cluster):
    """Three nodes, each with all fronts.

    Args:
        ports: claimed ones, two and one per front for each node.
    """

    def __init__(self, folder: Path, ports: list[int]):
        super().__init__(folder, ports, settings=SETTINGS)
        self.members = {
            name: dataclasses.replace(
                member, fronts={front: Address(HOST, ports.pop()) for front in MAKERS}
            )
            for name, member in self.members.items()
        }

    def at(self, node: str, front: str) -> Address:
        """Where a front of a node listens."""
        return self.members[node].fronts[front]

    def everywhere(self, front: str) -> Iterator[tuple[str, Address]]:
        """Each node and where its front listens."""
        return ((name, member.fronts[front]) for name, member in self.members.items())


@contextlib.asynccontextmanager
async def started(folder: Path) -> AsyncIterator[FrontCluster]:
    """Run a cluster that serves; it ends with the block, and with us however we end."""
    with contextlib.ExitStack() as claims:
        ports = claimed_ports((2 + len(MAKERS)) * len(NAMES), claims)
        cluster = FrontCluster(folder, ports)
        try:
            async with cluster:
                yield cluster
        finally:
            # Journals reserve their space: many clusters would fill a small disk.
            shutil.rmtree(folder)
