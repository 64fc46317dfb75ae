"""A gateway to ask, before a node that is made for the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import yarl
from pysyncobj import syncobj

from cluster.gateway.server import Gateway, GatewaySettings
from cluster.node.clock import monotonic
from cluster.testing.local_node import LocalNode
from cluster.wire import cbor
from tests.gateway.solo_node import SoloNode


@dataclass(frozen=True, slots=True)
class Got:
    """One answer."""

    status: int
    headers: Any
    raw: bytes
    body: Any

    @property
    def code(self) -> str:
        """The code of a problem."""
        return str(self.body["code"])


class Api:
    """A client that writes paths as they are given and reads whatever comes back."""

    def __init__(self, gateway: Gateway, node: Any, session: aiohttp.ClientSession):
        self.gateway = gateway
        self._begin(*gateway.addresses[0], node, session)

    @classmethod
    def at(cls, host: str, port: int, session: aiohttp.ClientSession) -> Api:
        """Ask a server that is none of ours."""
        made = cls.__new__(cls)
        made._begin(host, port, None, session)
        return made

    def _begin(self, host: str, port: int, node: Any, session: aiohttp.ClientSession) -> None:
        self.host, self.port = host, port
        self.node = node
        self.session = session
        # Who moves the time: the node itself, or who owns it.
        self.time = node
        self._started: list[asyncio.Task[Got]] = []

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        data: bytes | None = None,
        headers: dict[str, str] | None = None,
        as_cbor: bool = False,
    ) -> Got:
        head = dict(headers or {})
        if body is not None:
            data = cbor.encode(body) if as_cbor else _json(body)
            head.setdefault("Content-Type", "application/cbor" if as_cbor else "application/json")
        url = yarl.URL(f"http://{self.host}:{self.port}{path}", encoded=True)
        async with self.session.request(
            method, url, data=data, headers=head, skip_auto_headers=["Content-Type"]
        ) as response:
            raw = await response.read()
            return Got(response.status, response.headers, raw, _value(response, raw))

    async def get(self, path: str, **options: Any) -> Got:
        return await self.call("GET", path, **options)

    async def post(self, path: str, body: Any = None, **options: Any) -> Got:
        return await self.call("POST", path, body, **options)

    async def delete(self, path: str, **options: Any) -> Got:
        return await self.call("DELETE", path, **options)

    async def open(self, ttl: str | int = "30s", **more: Any) -> str:
        """Open a session and return its id."""
        got = await self.post("/v1/sessions", {"ttl": ttl, **more})
        assert got.status == 201, got.body
        return str(got.body["session"])

    async def acquire(self, name: str, session: str, **more: Any) -> Got:
        return await self.post(f"/v1/locks/{name}/acquire", {"session": session, **more})

    def start(self, call: Coroutine[Any, Any, Got]) -> asyncio.Task[Got]:
        """Begin a call that will wait; it ends with the test."""
        task = asyncio.get_running_loop().create_task(call)
        self._started.append(task)
        return task

    async def until_queued(self, name: str, length: int) -> None:
        """Ask until so many stand in the queue of a lock."""
        await until(lambda: self._is_queued(name, length))

    async def _is_queued(self, name: str, length: int) -> bool:
        got = await self.get(f"/v1/locks/{name}?consistency=stale")
        return bool(got.body["queue_length"] == length)

    async def advance(self, ms: int) -> None:
        """Let cluster time pass."""
        self.time.advance(ms)

    async def close(self) -> None:
        """End what was begun."""
        for task in self._started:
            task.cancel()
        await asyncio.gather(*self._started, return_exceptions=True)
        await self.session.close()


async def until(condition: Callable[[], Awaitable[bool]], within_s: float = 10.0) -> None:
    """Ask until it is so; only a run that never gets there waits long."""
    async with asyncio.timeout(within_s):
        while not await condition():
            await asyncio.sleep(0)


def _json(body: Any) -> bytes:
    return msgspec.json.encode(body)


def _value(response: aiohttp.ClientResponse, raw: bytes) -> Any:
    if not raw:
        return None
    if response.content_type.endswith("cbor"):
        return cbor.decode(raw, max_bytes=1 << 20)
    if response.content_type.endswith("json"):
        return msgspec.json.decode(raw)
    return raw.decode()


MakeApi = Callable[..., Any]


@pytest.fixture
async def make_api() -> AsyncIterator[MakeApi]:
    """Make gateways with settings of one's own; all end with the test."""
    made: list[Api] = []

    async def make(node: Any = None, clock: Any = None, **settings: Any) -> Api:
        behind = LocalNode() if node is None else node
        gateway = Gateway(
            behind, GatewaySettings(**{"linger_ms": 20} | settings), clock=clock or monotonic
        )
        await gateway.start("127.0.0.1", 0)
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        made.append(Api(gateway, behind, session))
        return made[-1]

    yield make
    for api in made:
        await api.close()
        await api.gateway.stop(grace_s=0.1)


@pytest.fixture
async def api(make_api: MakeApi) -> Api:
    """A gateway before a local node."""
    made: Api = await make_api()
    return made


@pytest.fixture
def solo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], SoloNode]]:
    """Make a real node, alone in its cluster."""
    monkeypatch.setattr(syncobj, "monotonicTime", syncobj.monotonicTime)
    made: list[SoloNode] = []

    def make() -> SoloNode:
        made.append(SoloNode(tmp_path / "data"))
        made[-1].lead()
        return made[-1]

    yield make
    for node in made:
        node.close()


@pytest.fixture(params=["local", "solo"])
async def anywhere(
    request: pytest.FixtureRequest, make_api: MakeApi, solo: Callable[[], SoloNode]
) -> Api:
    """A gateway before every kind of node, to which the contract is the same."""
    made: Api
    if request.param == "local":
        made = await make_api()
    else:
        node = solo()
        made = await make_api(node.node)
        made.time = node
    return made
