"""What tests of many clients at once need: files to open, connections that end, streams that are
read, a node's own count.

RULE: opens, counts and closes; what must be so is said by the tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import resource
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
from jepsen.progress import progress, until

from cluster.node.config import Address
from tests.integration.cluster import Cluster, Reply

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]

AGAIN_S = 0.1
_numbers = itertools.count(1)


async def settled(
    cluster: Cluster, node: str, method: str, path: str, body: object = None
) -> Reply:
    """Ask one node until it answers for the cluster: a busy machine has an election now and then."""
    key = None if method == "GET" else f"crowd-{next(_numbers)}"
    while True:
        reply = await cluster.ask(node, method, path, body, key=key)
        if reply.status < 500:
            return reply
        assert reply.body["retryable"] is True, reply
        await asyncio.sleep(AGAIN_S)


@contextlib.asynccontextmanager
async def opened(address: Address) -> AsyncIterator[Stream]:
    """One connection; it is closed at the end, whatever the other side has done to it."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def descriptors(cluster: Cluster, name: str) -> int:
    """How many files and sockets a node has open."""
    listing = Path(f"/proc/{cluster.pid_of(name)}/fd")
    return len(list(listing.iterdir())) if listing.is_dir() else 0


async def until_freed(cluster: Cluster, before: dict[str, int]) -> None:
    """Wait until no node keeps more open than a few connections beyond what it had."""

    async def are_freed() -> bool:
        return all(descriptors(cluster, name) <= before[name] + 5 for name in before)

    await until(are_freed, f"descriptors as before: {before}")


@contextlib.contextmanager
def many_files() -> Iterator[None]:
    """Let this process open as many files as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16_384), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.asynccontextmanager
async def streams() -> AsyncIterator[aiohttp.ClientSession]:
    """Connections for as many streams as one likes."""
    timeout, connector = aiohttp.ClientTimeout(total=None), aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
        yield http


class Watcher:
    """One stream of events, read as it comes while the block runs.

    Attributes:
        heard: data of every event, in order; of what is lost ("resync") too.
        last_id: what it would come back with.
    """

    def __init__(
        self, http: aiohttp.ClientSession, url: str, prefix: str, after: int | None = None
    ):
        self._http = http
        self._url = f"{url}/v1/watch?prefix={prefix}"
        self._headers = {} if after is None else {"Last-Event-ID": str(after)}
        self._task: asyncio.Task[None] | None = None
        self.heard: list[dict[str, Any]] = []
        self.last_id = after or 0

    async def __aenter__(self) -> Watcher:
        is_open = asyncio.Event()
        self._task = asyncio.create_task(self._read(is_open))
        opening = asyncio.create_task(is_open.wait())
        await asyncio.wait({self._task, opening}, return_when=asyncio.FIRST_COMPLETED)
        opening.cancel()
        if self._task.done():
            self._task.result()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def check(self) -> None:
        """See that the stream goes on."""
        assert self._task is not None
        assert not self._task.done(), self._task

    async def until_told(self, token: int) -> None:
        """Wait until it has heard of a grant, and of its end."""

        async def is_told() -> bool:
            self.check()
            return [event.get("token") for event in self.heard].count(token) >= 2

        await until(is_told, f"the events of token {token}")

    @property
    def granted(self) -> list[int]:
        """Tokens of the grants it has heard of."""
        return [event["token"] for event in self.heard if event["event"] == "granted"]

    async def _read(self, is_open: asyncio.Event) -> None:
        while not is_open.is_set():
            async with self._http.get(self._url, headers=self._headers) as response:
                if response.status != 200:
                    problem = await response.json()
                    assert problem["code"] == "no_leader", problem
                    await asyncio.sleep(AGAIN_S)
                    continue
                fields: dict[str, str] = {}
                async for raw in response.content:
                    name, colon, value = raw.decode().rstrip("\n").partition(": ")
                    if colon:
                        fields[name] = value
                        continue
                    self._take(fields)
                    fields = {}
                    is_open.set()

    def _take(self, fields: dict[str, str]) -> None:
        if "id" in fields:
            self.last_id = int(fields["id"])
        if "data" in fields and fields["event"] != "open":
            self.heard.append({**json.loads(fields["data"]), "event": fields["event"]})
            progress.mark()


def places(events: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Which events these are."""
    return [(event["index"], event["seq"]) for event in events]
