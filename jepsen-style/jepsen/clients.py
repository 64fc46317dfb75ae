"""Clients over HTTP that take down what they ask and are answered.

RULE: decides only what an answer *means*: it happened (ok), it surely did not (fail), nobody knows
(info). When in doubt, info. What is asked, when and of whom is the workload's matter.

A client is a process in the history's sense: one operation at a time, and a new number after one
that ended as info. Several may share a slot, and with it the connections to each node.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Container, Iterable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import aiohttp
import msgspec
from msgspec.structs import replace
from yarl import URL

from jepsen.history import Type

if TYPE_CHECKING:
    # Workloads are made of clients; only the types go the other way.
    from jepsen.workloads.base import Arena

CONNECT_S: Final = 1.0
PATIENCE_S: Final = 3.0
"""How long one attempt may take, the wait it asks for apart."""

AVOID_S: Final = 1.0
"""How long a node that did not serve is not asked, if there is another."""

_MAYBE_LATER: Final = frozenset({408, 429, 502, 503, 504})


class Ask(msgspec.Struct, frozen=True):
    """What is to be sent, to whatever node.

    Attributes:
        path: its parts quoted , with its query.
        key: Idempotency-Key; the same for all repeats.
        wait_ms: how long the cluster may hold the answer back.
        headers: further ones.
        is_read: it changes nothing, so that not knowing its answer leaves nothing open.
    """

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    key: str | None = None
    wait_ms: int = 0
    headers: Mapping[str, str] = {}
    is_read: bool = False


class Reply(msgspec.Struct, frozen=True):
    """What came of it.

    Attributes:
        outcome: OK, FAIL or INFO.
        status: of HTTP; 0 where no answer came.
        body: decoded JSON; None without.
        error: code of the problem, or how the connection failed.
        index: log position the answer reflects; None where none was given.
        node: who was asked (last).
    """

    outcome: Type
    status: int = 0
    body: Any = None
    error: str = ""
    index: int | None = None
    node: str = ""

    @property
    def is_ok(self) -> bool:
        """It happened, and `body` is the answer."""
        return self.outcome is Type.OK


class Event(NamedTuple):
    """One message of a stream; `what` is empty for one that only moves the position on."""

    what: str
    id: int | None
    data: Any


def meaning(status: int, raw: bytes, node: str, index: str = "") -> Reply:
    """What an HTTP answer says of its request.

    Anything but a success or a problem document may come from something between us and the node:
    nobody knows then.
    """
    body: Any = None
    try:
        body = msgspec.json.decode(raw) if raw else None
    except msgspec.DecodeError:
        return Reply(Type.INFO, status, None, "bad_answer", None, node)
    at = int(index) if index.isdecimal() else None
    if 200 <= status < 300:
        return Reply(Type.OK, status, body, "", at, node)
    if not isinstance(body, dict) or not isinstance(body.get("code"), str):
        return Reply(Type.INFO, status, body, f"http_{status}", at, node)
    outcome = Type.FAIL if body.get("definite") is True else Type.INFO
    return Reply(outcome, status, body, body["code"], at, node)


class Links:
    """The connections of all slots. Leaving it closes them.

    Args:
        arena: says where nodes are.
        warp: sees every reply before anybody else does, and may change it. For tests that plant a
            lie; a run has none.
    """

    def __init__(self, arena: Arena, warp: Callable[[Ask, Reply], Reply] | None = None):
        self.arena = arena
        self._warp = warp
        self._pools: dict[int, aiohttp.ClientSession] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for pool in self._pools.values():
            await pool.close()

    def client(self, slot: int, name: str) -> Client:
        """A new process in a slot; the name makes its chance its own."""
        return Client(self, slot % self.arena.slots, name)

    async def send(self, slot: int, node: str, ask: Ask, patience_s: float = PATIENCE_S) -> Reply:
        """Send once, and say what came of it. Never raises for what the network does."""
        reply = await self._send(slot, node, ask, patience_s)
        return reply if self._warp is None else self._warp(ask, reply)

    async def _send(self, slot: int, node: str, ask: Ask, patience_s: float) -> Reply:
        data = None if ask.body is None else msgspec.json.encode(ask.body)
        timeout = aiohttp.ClientTimeout(
            total=patience_s + ask.wait_ms / 1_000, sock_connect=CONNECT_S
        )
        try:
            async with self.pool(slot).request(
                ask.method,
                URL(self.arena.url(slot, node) + ask.path, encoded=True),
                data=data,
                headers=_headers(ask),
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                raw = await response.read()
                index = response.headers.get("Coterie-Index", "")
                return meaning(response.status, raw, node, index)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            # No connection stood, so that nothing was sent.
            return Reply(Type.FAIL, error="unreachable", node=node)
        except TimeoutError:
            return Reply(Type.INFO, error="late", node=node)
        except (aiohttp.ClientError, OSError):
            return Reply(Type.INFO, error="lost", node=node)

    @asynccontextmanager
    async def stream(
        self, slot: int, node: str, path: str, *, last_id: int | None = None
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """Server-sent events, until either side ends it.

        Raises:
            aiohttp.ClientError, OSError, TimeoutError: it broke, or was not even opened; also when
                nothing at all comes for a while, though a node speaks every few seconds.
        """
        headers = {"Accept": "text/event-stream"}
        if last_id is not None:
            headers["Last-Event-ID"] = str(last_id)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=20.0)
        async with self.pool(slot).get(
            URL(self.arena.url(slot, node) + path, encoded=True), headers=headers, timeout=timeout
        ) as response:
            if response.status != 200:
                raise aiohttp.ClientError(f"no stream but {response.status}")
            yield _events(response)

    def pool(self, slot: int) -> aiohttp.ClientSession:
        """The connections of a slot."""
        if slot not in self._pools:
            pool = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
            # It would repeat a DELETE or PUT on its own, and tell of the second try only.
            pool._retry_connection = False
            self._pools[slot] = pool
        return self._pools[slot]


class Client:
    """One process.

    Attributes:
        process: its present number.
        slot: whose links it uses.
        rng: its own chance.
        node: whom it asked last.
    """

    def __init__(self, links: Links, slot: int, name: str):
        self.links = links
        self.arena = links.arena
        self.slot = slot
        self.name = name
        self.rng = self.arena.lots(name)
        self.process = self.arena.recorder.process()
        self.node = self.rng.choice(self.arena.nodes)
        self._avoided: dict[str, float] = {}

    def new_key(self) -> str:
        """A fresh Idempotency-Key."""
        return f"{self.rng.getrandbits(128):032x}"

    def pick(self, but: Container[str] = ()) -> str:
        """A node to ask: any, but rather not one that has just failed, or was named."""
        now = time.monotonic()
        nodes = self.arena.nodes
        fit = [node for node in nodes if self._avoided.get(node, 0.0) <= now]
        fit = [node for node in fit or nodes if node not in but] or fit or list(nodes)
        return self.rng.choice(fit)

    async def do(
        self,
        f: str,
        key: str,
        value: Mapping[str, Any],
        ask: Ask,
        *,
        at: str | None = None,
        retry_s: float = 0.0,
        patience_s: float = PATIENCE_S,
        untold: Container[str] = (),
    ) -> Reply:
        """One operation, recorded.

        Args:
            f: see `Line`, as `key` and `value`, which is of the invoke.
            ask: what is sent.
            at: which node; None picks one.
            retry_s: repeat it at other nodes for so long while it is open or could not be done; it
                stays one operation. Only for reads, what has an Idempotency-Key, and what is
                harmless twice.
            patience_s: how long one attempt may take, its wait apart.
            untold: members of the answer that the history has no use for.
        """
        recorder = self.arena.recorder
        self.node = at or self.pick()
        named = dict(value) if ask.key is None else {**value, "request_id": ask.key}
        recorder.note(self.process, Type.INVOKE, f, key, named, node=self.node)
        try:
            reply, attempts = await self._attempts(ask, retry_s, patience_s)
        except asyncio.CancelledError:
            self._end(Type.INFO, f, key, error="hung_up")
            raise
        kind = reply.outcome
        if kind is Type.INFO and ask.is_read:
            # Nothing is left open by a read that was not answered.
            kind = Type.FAIL
        result = None
        if kind is not Type.INFO and isinstance(reply.body, dict):
            result = {name: part for name, part in reply.body.items() if name not in untold}
        if reply.is_ok:
            result = result or {}
            if reply.index is not None:
                result["index"] = reply.index
            if attempts > 1:
                result["attempts"] = attempts
        self._end(kind, f, key, result, error=reply.error)
        return reply

    async def pages(
        self, f: str, key: str, asks: Iterable[Ask], member: str, *, retry_s: float = 0.0
    ) -> list[Any] | None:
        """Read lists, each with all its pages, as one operation; it is no one moment's picture.

        Args:
            f, key: see `Line`.
            asks: first pages, with a query.
            member: where a page has its list.
            retry_s: for each page.
        Returns:
            all that was found; None where a page could not be had.
        """
        recorder = self.arena.recorder
        self.node = self.pick()
        recorder.note(self.process, Type.INVOKE, f, key, {}, node=self.node)
        found: list[Any] = []
        for ask in asks:
            after: str | None = None
            while True:
                page = ask if after is None else replace(ask, path=f"{ask.path}&after={after}")
                reply, _ = await self._attempts(page, retry_s, PATIENCE_S)
                if not reply.is_ok:
                    self._end(Type.FAIL, f, key, error=reply.error)
                    return None
                found += reply.body[member]
                after = reply.body.get("next")
                if after is None:
                    break
        self._end(Type.OK, f, key, {member: found})
        return found

    async def pause(self, seconds: float) -> None:
        """Do nothing for a while, also after the end of the run."""
        await asyncio.sleep(seconds)

    def note(self, f: str, key: str, value: Any, result: Any, error: str = "") -> None:
        """An operation on something of our own that takes no time: ok, or refused by `error`."""
        self.arena.recorder.note(self.process, Type.INVOKE, f, key, value)
        kind = Type.FAIL if error else Type.OK
        self.arena.recorder.note(self.process, kind, f, key, result, error=error)

    def _end(self, kind: Type, f: str, key: str, value: Any = None, error: str = "") -> None:
        recorder = self.arena.recorder
        recorder.note(self.process, kind, f, key, value, node=self.node, error=error)
        if kind is Type.INFO:
            self.process = recorder.process()

    async def _attempts(self, ask: Ask, retry_s: float, patience_s: float) -> tuple[Reply, int]:
        until = time.monotonic() + retry_s + ask.wait_ms / 1_000
        is_open = False
        pause_s = 0.05
        tried: set[str] = set()
        attempts = 0
        while True:
            attempts += 1
            reply = await self.links.send(self.slot, self.node, ask, patience_s)
            if not is_unsettled(reply):
                return reply, attempts
            self._avoided[self.node] = time.monotonic() + AVOID_S
            is_open = is_open or reply.outcome is Type.INFO
            tried.add(self.node)
            if len(tried) == len(self.arena.nodes):
                tried.clear()
                await asyncio.sleep(pause_s * (0.5 + self.rng.random()))
                pause_s = min(2 * pause_s, 1.0)
            if not retry_s or time.monotonic() >= until:
                outcome = Type.INFO if is_open else Type.FAIL
                return replace(reply, outcome=outcome), attempts
            self.node = self.pick(tried)


def is_unsettled(reply: Reply) -> bool:
    """Another attempt may get another answer: none came, or one of a node, not of the cluster."""
    if reply.outcome is Type.OK:
        return False
    return reply.status == 0 or reply.outcome is Type.INFO or reply.status in _MAYBE_LATER


def _headers(ask: Ask) -> dict[str, str]:
    headers = {"Accept": "application/json", **ask.headers}
    if ask.body is not None:
        headers["Content-Type"] = "application/json"
    if ask.key is not None:
        headers["Idempotency-Key"] = ask.key
    return headers


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[Event]:
    fields: dict[str, str] = {}
    async for raw in response.content:
        line = raw.decode().rstrip("\r\n")
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
            continue
        if "id" in fields or "data" in fields:
            id = int(fields["id"]) if "id" in fields else None
            data = msgspec.json.decode(fields["data"]) if "data" in fields else None
            yield Event(fields.get("event", ""), id, data)
        fields.clear()
