"""Sessions of a node's connections, over the real machine."""

from __future__ import annotations

import asyncio

from cluster.fronts.leases import TTL_MS, Leases
from cluster.testing.local_node import LocalNode
from tests.fronts.around import around
from tests.fronts.asking import until


async def test_a_session_that_nobody_waits_for_any_more_is_ended() -> None:
    """Its client went while it was being opened."""
    node = LocalNode()
    leases = Leases(around(node))
    opening = asyncio.create_task(leases.open("one", lambda: None))
    while not node.taken:
        await asyncio.sleep(0)
    assert opening.cancel()
    await until(lambda: len(node.taken) == 2)
    await until(lambda: not node.under_way)
    assert len(node.machine.sessions) == 0
    await leases.stop()


async def test_a_session_is_renewed_until_it_is_closed() -> None:
    """One that ended all the same is told once to whoever has it."""
    node = LocalNode()
    leases = Leases(around(node))
    lost: list[str] = []
    kept = await leases.open("kept", lambda: lost.append("kept"))
    await leases.open("gone", lambda: lost.append("gone"))
    node.advance(TTL_MS - 1)
    await leases.renew()
    node.advance(TTL_MS)
    await leases.renew()
    assert sorted(lost) == ["gone", "kept"]
    again = await leases.open("kept", lambda: lost.append("again"))
    assert again != kept
    leases.close(again)
    await until(lambda: len(node.machine.sessions) == 0)
    await leases.renew()
    assert len(lost) == 2
    await leases.stop()
