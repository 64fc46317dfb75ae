"""A cluster of one to talk to: the gateway over the real machine, whose time flows or stands.

RULE: a double of agreement, not of behaviour; what a cluster of several does is tested with one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from cluster.client.aio import now_ms
from cluster.gateway.server import Gateway, GatewaySettings
from cluster.testing.local_node import LocalNode


class Place:
    """One node and its gateway.

    Attributes:
        endpoint: where it listens.
        flows: its time goes on as ours does.
    """

    def __init__(self) -> None:
        self.node = LocalNode()
        self.gateway = Gateway(self.node, GatewaySettings())
        self.flows = True

    @property
    def endpoint(self) -> str:
        host, port = self.gateway.addresses[0]
        return f"{host}:{port}"

    async def flow(self) -> None:
        """Let time pass as it passes here."""
        before_ms = now_ms()
        while True:
            await asyncio.sleep(0.01)
            passed_ms, before_ms = now_ms() - before_ms, now_ms()
            if self.flows and passed_ms > 0:
                self.node.advance(passed_ms)


@contextlib.asynccontextmanager
async def running_place() -> AsyncIterator[Place]:
    """A place that serves until the end of the block."""
    place = Place()
    await place.gateway.start("127.0.0.1", 0)
    flowing = asyncio.create_task(place.flow())
    try:
        yield place
    finally:
        flowing.cancel()
        await asyncio.gather(flowing, return_exceptions=True)
        await place.gateway.stop(grace_s=0.1)
