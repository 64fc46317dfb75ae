"""The cluster that the tests of fronts share."""

from __future__ import annotations

import asyncio

import pytest

from cluster.fronts.registry import MAKERS
from tests.integration.fronts.cluster import FrontCluster

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_every_node_listens_for_every_front(cluster: FrontCluster) -> None:
    """Each address takes a connection, also after its node was killed and came back."""
    for front in MAKERS:
        for _, address in cluster.everywhere(front):
            _, writer = await asyncio.open_connection(*address)
            writer.close()
            await writer.wait_closed()
    victim = await cluster.leader()
    await cluster.kill9(victim)
    await cluster.make_whole()
    for front in MAKERS:
        _, writer = await asyncio.open_connection(*cluster.at(victim, front))
        writer.close()
        await writer.wait_closed()
