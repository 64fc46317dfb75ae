"""A front of Go's HTTP before a node that is made for the test, and a client to ask it with.

RULE: shortens what a test says; decides nothing that a test is about.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import yarl

from cluster.fronts.desk import Desk
from cluster.fronts.front import Front, Surroundings
from cluster.node.clock import monotonic
from cluster.node.face import NodeFace

HOST = "127.0.0.1"
TURNS_MAX = 20_000


@dataclass(frozen=True, slots=True)
class Got:
    """One answer."""

    status: int
    headers: Any
    body: bytes

    @property
    def said(self) -> tuple[int, str]:
        """Status and text."""
        return self.status, self.body.decode()


class Asker:
    """Asks a front; writes paths as they are given and follows no redirect."""

    def __init__(self, front: Front, node: Any, session: aiohttp.ClientSession):
        self.front = front
        self.node = node
        self.address = front.addresses[0]
        self._session = session
        self._asked: list[asyncio.Task[Got]] = []

    async def get(self, path: str, **more: Any) -> Got:
        """Ask once."""
        return await self.call("GET", path, **more)

    async def call(self, method: str, path: str, **more: Any) -> Got:
        """Ask once, in some way."""
        url = yarl.URL(f"http://{self.address[0]}:{self.address[1]}{path}", encoded=True)
        async with self._session.request(method, url, allow_redirects=False, **more) as response:
            return Got(response.status, response.headers, await response.read())

    async def begin(self, path: str, *, parked: int) -> asyncio.Task[Got]:
        """Ask something that waits; back when so many wait in all."""
        asked = asyncio.create_task(self.get(path))
        self._asked.append(asked)
        await until(lambda: self.node.parked == parked or asked.done())
        return asked

    async def end(self) -> None:
        """Let go of what still waits."""
        for asked in self._asked:
            asked.cancel()
        await asyncio.gather(*self._asked, return_exceptions=True)


def around(node: NodeFace, *, wall_ms: Callable[[], int] = lambda: 0) -> Surroundings:
    """What a front is given; it draws the same bytes in every test."""
    rng = random.Random(7)
    return Surroundings(
        node=node,
        desk=Desk(node),
        clock=monotonic,
        wall_ms=wall_ms,
        draw=rng.randbytes,
        version="0",
    )


@contextlib.asynccontextmanager
async def asking(front: Front, node: Any) -> AsyncIterator[Asker]:
    """A front that listens, and a client of it."""
    await front.start(HOST, 0)
    try:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            asker = Asker(front, node, session)
            try:
                yield asker
            finally:
                await asker.end()
    finally:
        await front.stop(1.0)


async def until(condition: Callable[[], bool], *, within_s: float = 10.0) -> None:
    """Let the loop turn until it is so.

    Raises:
        AssertionError: it never was.
    """
    late_s = monotonic() + within_s
    while not condition():
        assert monotonic() < late_s, "it did not come to that"
        await asyncio.sleep(0.001)
