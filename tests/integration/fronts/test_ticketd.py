"""ticketd's clients at three nodes, and a leader that dies."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from jepsen.progress import until

from tests.integration.cluster import NAMES
from tests.integration.fronts.cluster import FrontCluster
from tests.tools import go_programs

pytestmark = pytest.mark.asyncio(loop_scope="session")

NEVER_MS = 3_600_000


class Node:
    """One node's front, asked as ticketd's client asks."""

    def __init__(self, url: str, http: aiohttp.ClientSession):
        self._url = url
        self._http = http

    async def call(self, method: str, path: str, data: bytes = b"") -> tuple[int, Any]:
        """Status, and JSON or text."""
        url = f"{self._url}/api/v1{path}"
        async with self._http.request(method, url, data=data) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if answer.status == 200 else text

    async def good(self, method: str, path: str, data: bytes = b"") -> Any:
        """What a call gave that must succeed."""
        status, value = await self.call(method, path, data)
        assert status == 200, value
        return value

    async def open(self, name: str, ttl_ms: int = NEVER_MS) -> str:
        return str(await self.good("POST", f"/sessions?name={name}&ttl={ttl_ms}"))


@contextlib.asynccontextmanager
async def fronts(cluster: FrontCluster) -> AsyncIterator[dict[str, Node]]:
    """Every node's front, by the node's name."""
    # A connection for each request: one that is kept may be a dead node's.
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=True)
    ) as http:
        yield {
            name: Node(f"http://{address}", http) for name, address in cluster.everywhere("ticketd")
        }


async def test_any_node_serves_any_session(cluster: FrontCluster) -> None:
    """Opened at one, its tickets issued at another, claimed and seen at the third."""
    async with fronts(cluster) as nodes:
        one, two, three = (nodes[name] for name in NAMES)
        issuer, claimant = await one.open("issuer"), await two.open("claimant")
        await two.good("POST", f"/tickets/anywhere?sessid={issuer}&name=t", b"FOO")
        found = await three.good("POST", f"/claims/anywhere?sessid={claimant}")
        assert (found["Claimed"], found["Ticket"]["Data"]) == (True, "Rk9P")
        assert found["Ticket"]["Issuer"]["Id"] == issuer
        for node in nodes.values():
            path = f"/claims/anywhere?sessid={claimant}&name=t"
            assert await node.good("GET", path) is True
        shown = [await node.good("GET", f"/sessions/{issuer}") for node in nodes.values()]
        assert all(each == shown[0] for each in shown)
        native = await cluster.get("n3", "/v1/resources/anywhere/tickets/t")
        assert (native.body["issuer"], native.body["claimant"]) == (issuer, claimant)
        await one.good("DELETE", f"/sessions/{issuer}")
        await three.good("DELETE", f"/sessions/{claimant}")


async def test_sweeps_come_by_themselves_and_everywhere(cluster: FrontCluster) -> None:
    """A session that nobody refreshes goes, with its lock and its tickets."""
    async with fronts(cluster) as nodes:
        one, two, three = (nodes[name] for name in NAMES)
        id = await one.open("dies", 50)
        assert await two.good("POST", f"/locks/swept?sessid={id}") is True
        other = await three.open("lives")

        async def locked() -> bool:
            got: bool = await three.good("POST", f"/locks/swept?sessid={other}")
            return got

        await until(locked, "the lock of a session that has ended")
        for node in nodes.values():
            assert (await node.call("GET", f"/sessions/{id}"))[0] == 404
        await one.good("DELETE", f"/sessions/{other}")

        async def forgotten() -> bool:
            return (await two.call("GET", "/dump/resources/swept"))[0] == 404

        await until(forgotten, "the resource gone with its sweep")


async def test_nothing_is_lost_with_the_leader(cluster: FrontCluster) -> None:
    """Clients at the other nodes issue, claim and lock through its death and never see an error."""
    leader, others = await cluster.roles()
    async with fronts(cluster) as nodes:
        holder = await nodes[others[0]].open("holder")
        assert await nodes[others[0]].good("POST", f"/locks/kept?sessid={holder}") is True
        killed = asyncio.Event()
        issued: list[str] = []

        async def issue(node: Node, own: str, after: int) -> None:
            """Issue tickets, one after the other, until some were after the kill."""
            left = after
            for number in itertools.count():
                name = f"{own}-{number}"
                await node.good("POST", f"/tickets/kept.t?sessid={holder}&name={name}", b"x")
                issued.append(name)
                left -= killed.is_set()
                if not left:
                    return

        async def kill() -> None:
            async def enough() -> bool:
                return len(issued) > 20

            await until(enough, "tickets issued before the leader dies")
            await cluster.kill9(leader)
            killed.set()

        async with asyncio.TaskGroup() as group:
            for own in range(6):
                group.create_task(issue(nodes[others[own % 2]], str(own), after=5))
            group.create_task(kill())
        await cluster.make_whole()
        other = await nodes[leader].open("other")
        for node in nodes.values():
            found = await node.good("GET", "/dump/resources/kept.t")
            assert set(found["kept.t"]["Tickets"]) == set(issued)
            assert await node.good("POST", f"/locks/kept?sessid={other}") is False
            assert await node.good("POST", f"/locks/kept?sessid={holder}") is True
        claims = [
            await nodes[name].good("POST", f"/claims/kept.t?sessid={id}")
            for name, id in ((others[0], holder), (leader, other))
        ]
        assert len({claim["Ticket"]["Name"] for claim in claims}) == 2
        await nodes[leader].good("DELETE", f"/sessions/{holder}")
        await nodes[leader].good("DELETE", f"/sessions/{other}")
    await cluster.agree()


async def test_a_client_in_go_uses_every_call(cluster: FrontCluster) -> None:
    """Go's own HTTP client, each call at another node."""
    program = go_programs.program("ticketd")
    urls = [f"http://{address}" for _, address in cluster.everywhere("ticketd")]
    assert await _run(str(program), *urls, "tour") == "ok\n"


async def test_a_heartbeat_in_go_outlives_the_leader(cluster: FrontCluster) -> None:
    """A session of two seconds keeps its lock and its ticket while the leader dies."""
    program = go_programs.program("ticketd")
    leader, others = await cluster.roles()
    urls = [f"http://{cluster.at(name, 'ticketd')}" for name in others]
    running = asyncio.create_task(_run(str(program), *urls, "hold", "4"))
    # Whenever the death comes, nothing may be lost; so let it come when the clients have begun.
    async with fronts(cluster) as nodes:

        async def begun() -> bool:
            sessions = await nodes[others[0]].good("GET", "/dump/sessions")
            return any(each["Name"] == "taker" for each in sessions.values())

        await until(begun, "the Go client's sessions")
    await cluster.kill9(leader)
    report = json.loads(await running)
    assert report["Errors"] == []
    assert report["Lost"] == 0
    assert report["Broken"] == 0
    assert min(report["Beats"], report["Rounds"]) > 5


async def _run(*command: str) -> str:
    """What a program wrote; it must end well."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, (out, err)
    return out.decode()
