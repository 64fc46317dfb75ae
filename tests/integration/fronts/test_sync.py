"""katexochen/sync's clients at a real cluster: each node asked, a leader killed, a program in Go."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from jepsen.progress import until

from tests.integration.cluster import NAMES
from tests.integration.fronts.cluster import FrontCluster
from tests.tools import go_programs

pytestmark = pytest.mark.asyncio(loop_scope="session")

CALL_S = 60.0


class Fifo:
    """A FIFO, asked at any node.

    Args:
        uuid: "" until it is made.
    """

    def __init__(self, cluster: FrontCluster, session: aiohttp.ClientSession):
        self._cluster = cluster
        self._session = session
        self.uuid = ""

    async def create(self, node: str, query: str = "") -> None:
        """Make it."""
        self.uuid = (await self._json(node, f"/fifo/new{query}"))["uuid"]

    async def take(self, node: str) -> str:
        """Take a ticket."""
        return str((await self._json(node, f"/fifo/{self.uuid}/ticket"))["ticket"])

    async def wait(self, node: str, ticket: str) -> int:
        """Wait for its turn; gives the status."""
        return (await self._ask(node, f"/fifo/{self.uuid}/wait/{ticket}"))[0]

    async def done(self, node: str, ticket: str) -> int:
        """Be done with it; gives the status."""
        return (await self._ask(node, f"/fifo/{self.uuid}/done/{ticket}"))[0]

    async def states(self, node: str) -> list[str]:
        """Of all its tickets, as the native API shows them."""
        reply = await self._cluster.get(node, f"/v1/fifos/{self.uuid}")
        return [ticket["state"] for ticket in reply.body.get("tickets", [])]

    async def _json(self, node: str, path: str) -> Any:
        status, body = await self._ask(node, path)
        assert status == 200, (status, body)
        return json.loads(body)

    async def _ask(self, node: str, path: str) -> tuple[int, str]:
        url = f"http://{self._cluster.at(node, 'sync')}{path}"
        async with asyncio.timeout(CALL_S), self._session.get(url) as response:
            return response.status, await response.text()


def talking() -> aiohttp.ClientSession:
    """A session that opens as many connections as it is asked to."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))


async def test_any_node_serves_any_call(cluster: FrontCluster) -> None:
    """Made at one, taken at the next, waited for and done at the others."""
    first, second, third = NAMES
    async with talking() as session:
        fifo = Fifo(cluster, session)
        await fifo.create(first)
        tickets = [await fifo.take(node) for node in (second, third, first)]
        assert await fifo.wait(third, tickets[0]) == 200
        waiting = [asyncio.create_task(fifo.wait(node, tickets[1])) for node in NAMES * 3]
        assert await fifo.done(first, tickets[0]) == 200
        assert await fifo.done(second, tickets[0]) == 404
        assert {await one for one in waiting} == {200}
        assert await fifo.done(third, tickets[1]) == 200
        assert await fifo.states(second) == ["notified"]


async def test_nothing_is_lost_when_the_leader_is_killed(cluster: FrontCluster) -> None:
    """Every ticket has its turn, in order and alone; who waits at a living node never notices.

    A wait at the node that was killed loses its connection, as with the original, and is asked
    again: the ticket is where it was.
    """
    async with talking() as session:
        fifo = Fifo(cluster, session)
        leader = await cluster.leader()
        living = [name for name in NAMES if name != leader]
        await fifo.create(leader, "?accept_timeout=30s")
        tickets = [await fifo.take(NAMES[place % 3]) for place in range(12)]
        assert await fifo.wait(leader, tickets[0]) == 200
        turns: list[str] = []
        inside: list[str] = [tickets[0]]

        async def client(ticket: str, node: str) -> None:
            assert await fifo.wait(node, ticket) == 200
            turns.append(ticket)
            inside.append(ticket)
            assert len(inside) == 1
            inside.remove(ticket)
            assert await fifo.done(node, ticket) == 200

        lost = asyncio.create_task(fifo.wait(leader, tickets[1]))
        others = [
            asyncio.create_task(client(ticket, living[place % 2]))
            for place, ticket in enumerate(tickets[2:])
        ]

        async def all_wait() -> bool:
            reply = await cluster.get(living[0], f"/v1/fifos/{fifo.uuid}")
            return sum(ticket["waiters"] for ticket in reply.body["tickets"]) == 11

        await until(all_wait, "eleven clients wait")
        await cluster.kill9(leader)
        with pytest.raises(aiohttp.ClientError):
            await lost
        inside.remove(tickets[0])
        assert await fifo.done(living[0], tickets[0]) == 200
        await client(tickets[1], living[1])
        await asyncio.gather(*others)
        assert turns == tickets[1:]
        assert await fifo.states(living[0]) == []


async def test_a_client_that_was_killed_is_nobody(cluster: FrontCluster) -> None:
    """Its ticket is notified in its turn, not accepted, and lost in time."""
    async with talking() as session:
        fifo = Fifo(cluster, session)
        await fifo.create("n1", "?accept_timeout=300ms&done_timeout=0")
        tickets = [await fifo.take("n2") for _ in range(3)]
        assert await fifo.wait("n1", tickets[0]) == 200
        gone = asyncio.create_task(fifo.wait("n2", tickets[1]))
        last = asyncio.create_task(fifo.wait("n3", tickets[2]))

        async def waiters(*counts: int) -> bool:
            reply = await cluster.get("n1", f"/v1/fifos/{fifo.uuid}")
            return [ticket["waiters"] for ticket in reply.body["tickets"]] == list(counts)

        await until(lambda: waiters(0, 1, 1), "both wait")
        gone.cancel()
        await until(lambda: waiters(0, 0, 1), "one is gone")
        assert await fifo.done("n3", tickets[0]) == 200
        assert await last == 200
        assert await fifo.wait("n1", tickets[1]) == 404


@pytest.mark.parametrize("verb", ["exclusive", "released"])
async def test_clients_in_go(cluster: FrontCluster, verb: str) -> None:
    """A hundred processes' worth of them, at all nodes: alone in turn, and released together."""
    program = go_programs.program("sync")
    urls = [f"http://{address}" for _, address in cluster.everywhere("sync")]
    process = await asyncio.create_subprocess_exec(
        program,
        verb,
        "100",
        *urls,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), CALL_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode()
    assert out.startswith(b"100 turns" if verb == "exclusive" else b"200 waits released")
