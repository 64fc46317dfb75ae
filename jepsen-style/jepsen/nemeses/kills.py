"""The leader killed so many times on one cluster, and how long each time nobody was served.

RULE: measures from outside: from the signal to the first acknowledged write that was asked for after
it, at any node that is left. Writes are renewals of one session, asked often and without waiting for
one another, so that the time found is that of the cluster and not of a patient client.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from typing import Final

import aiohttp

from jepsen.history import Recorder, Type
from jepsen.nemeses.base import NEMESIS
from jepsen.testbed import Testbed

ASK_EVERY_S: Final = 0.02
ASK_S: Final = 30.0
UNDER_WAY_MAX: Final = 200


class LeaderKills:
    """So many kills, one after the other.

    Args:
        count: how many.
        seed: of the times between two kills.

    Attributes:
        outages_ms: one for each kill.
    """

    name = "leader-kills"

    def __init__(self, count: int, seed: int):
        self.outages_ms: list[float] = []
        self._count = count
        self._rng = random.Random(f"{seed}/kills")

    async def run(self, bed: Testbed, recorder: Recorder) -> None:
        """Kill, measure, start again, wait until all serve; as often as asked.

        Raises:
            NoLeaderError: nobody leads.
            TimeoutError: nobody was served for long.
        """
        timeout = aiohttp.ClientTimeout(total=ASK_S)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
            for number in range(self._count):
                await bed.until_served()
                await asyncio.sleep(self._rng.uniform(0.2, 1.5))
                leader = await bed.until_leader()
                session = await _session(bed, http, leader)
                touched = {"nodes": [leader], "leader": True, "number": number}
                killed_s = time.monotonic()
                # Prompt: what comes before is part of what is measured.
                kill = asyncio.create_task(bed.kill9(leader))
                recorder.note(NEMESIS, Type.INFO, "kill-leader", "", {"phase": "begin", **touched})
                await asyncio.sleep(0)
                others = [name for name in bed.names if name != leader]
                served_s = await _first_served(bed, http, session, others)
                await kill
                self.outages_ms.append(round((served_s - killed_s) * 1_000, 1))
                await bed.start(leader)
                recorder.note(NEMESIS, Type.INFO, "kill-leader", "", {"phase": "end", **touched})


async def _session(bed: Testbed, http: aiohttp.ClientSession, node: str) -> str:
    url = f"{bed.members[node].url}/v1/sessions"
    async with http.post(url, json={"ttl": "10m"}) as response:
        response.raise_for_status()
        return str((await response.json())["session"])


async def _first_served(
    bed: Testbed, http: aiohttp.ClientSession, session: str, nodes: list[str]
) -> float:
    """Ask these nodes in turn, and return when the first of all answers has come."""
    served: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def ask(node: str) -> None:
        url = f"{bed.members[node].url}/v1/sessions/{session}/keepalive"
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with http.post(url) as response:
                await response.read()
                if response.status == 200 and not served.done():
                    served.set_result(time.monotonic())

    async with _all_ended() as tasks, asyncio.timeout(120):
        number = 0
        while not served.done():
            if len(tasks) < UNDER_WAY_MAX:
                task = asyncio.create_task(ask(nodes[number % len(nodes)]))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                number += 1
            await asyncio.wait({served}, timeout=ASK_EVERY_S)
        return served.result()


@contextlib.asynccontextmanager
async def _all_ended() -> AsyncIterator[set[asyncio.Task[None]]]:
    """A set of tasks, none of which outlives the block."""
    tasks: set[asyncio.Task[None]] = set()
    try:
        yield tasks
    finally:
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tuple(tasks), return_exceptions=True)
