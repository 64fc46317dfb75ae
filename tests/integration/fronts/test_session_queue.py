"""session-queue's clients at a real cluster: one room on three nodes, and a leader that dies."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import jwt
import pytest
from jepsen.progress import until

from tests.integration.cluster import NAMES
from tests.integration.fronts.cluster import SESSION_QUEUE_SECRET, FrontCluster

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOM = "/v1/rooms/session-queue"
SIZE = 10
CALL_S = 60.0


class Queue:
    """The waiting room, asked at any node."""

    def __init__(self, cluster: FrontCluster, session: aiohttp.ClientSession):
        self._cluster = cluster
        self._session = session

    async def join(self, node: str) -> str:
        """Take a place; gives the token."""
        url = f"http://{self._cluster.at(node, 'session-queue')}/join"
        async with asyncio.timeout(CALL_S), self._session.post(url) as response:
            body = await response.text()
            assert response.status == 200, body
            return str(json.loads(body)["token"])

    async def status(self, node: str, token: str) -> str:
        """What has become of the place; it must be that of the token."""
        url = f"http://{self._cluster.at(node, 'session-queue')}/status"
        headers = {"Authorization": f"Bearer {token}"}
        async with asyncio.timeout(CALL_S), self._session.get(url, headers=headers) as response:
            body = json.loads(await response.text())
            assert response.status == 200
            assert body["position"] == position(token)
            return str(body["status"])

    async def probe(self, node: str, path: str) -> tuple[int, str]:
        """Look at a node."""
        url = f"http://{self._cluster.at(node, 'session-queue')}{path}"
        async with asyncio.timeout(CALL_S), self._session.get(url) as response:
            return response.status, await response.text()


def position(token: str) -> int:
    """The place, as anybody reads it who has the secret."""
    claims = jwt.decode(
        token, SESSION_QUEUE_SECRET, algorithms=["HS256"], options={"verify_sub": False}
    )
    assert list(claims) == ["exp", "iat", "sub"]
    assert claims["exp"] - claims["iat"] == 3 * 3600
    return int(claims["sub"])


async def afresh(cluster: FrontCluster) -> None:
    """Take away the room of the test before."""
    await cluster.ask("n1", "DELETE", ROOM)


async def test_three_nodes_have_one_room(cluster: FrontCluster) -> None:
    """Whoever is first makes it; places are given once, and every node honours every token."""
    await afresh(cluster)
    async with aiohttp.ClientSession() as session:
        queue = Queue(cluster, session)
        tokens = await asyncio.gather(*(queue.join(node) for node in NAMES * 5))
        assert sorted(map(position, tokens)) == list(range(1, 16))
        for token in tokens:
            words = {await queue.status(node, token) for node in NAMES}
            # The window may move while we ask.
            assert words <= ({"active"} if position(token) <= SIZE else {"waiting", "active"})
        last = max(tokens, key=position)

        async def let_in() -> bool:
            return await queue.status("n2", last) == "active"

        # The first step waits for no interval, and is three seconds away at the most.
        await until(let_in, "the window has moved")
        assert await queue.status("n3", min(tokens, key=position)) == "active"
        for node in NAMES:
            assert await queue.probe(node, "/livez") == (200, "ok")
            assert await queue.probe(node, "/readyz") == (200, "ok")


async def test_no_place_is_lost_or_given_twice_when_the_leader_is_killed(
    cluster: FrontCluster,
) -> None:
    """Joins at the other two are held, not refused; what was told stays so."""
    await afresh(cluster)
    leader = await cluster.leader()
    living = [name for name in NAMES if name != leader]
    async with aiohttp.ClientSession() as session:
        queue = Queue(cluster, session)
        before = [await queue.join(node) for node in NAMES]
        joining = [asyncio.create_task(queue.join(living[place % 2])) for place in range(10)]
        await cluster.kill9(leader)
        during = await asyncio.gather(*(queue.join(living[place % 2]) for place in range(10)))
        tokens = [*before, *await asyncio.gather(*joining), *during]
        assert sorted(map(position, tokens)) == list(range(1, 24))
        await cluster.make_whole()
        assert await queue.status(leader, before[0]) in {"active", "expired"}
        # One step for each interval: nobody is let in by a second one.
        reply = await cluster.get(leader, ROOM)
        assert reply.body["joined"] == 23
        assert reply.body["window_end"] in {SIZE, 2 * SIZE}
