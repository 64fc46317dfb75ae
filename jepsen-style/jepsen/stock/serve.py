"""`python -m jepsen.stock.serve --config FILE`: one node of stock PySyncObj behind HTTP.

RULE: hands requests to the library and its answers back. What the library says of a command that
failed is said on: its documentation calls all failures but UNKNOWN_OUTCOME definite.

Each pair of nodes has one stream, dialled by the node whose address is the larger, as the library does
it; it goes through the link of that direction.
"""

from __future__ import annotations

import asyncio
import hashlib
import signal
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from aiohttp import web
from pysyncobj import SyncObj, SyncObjConf, replicated
from pysyncobj.batteries import _ReplLockManagerImpl
from pysyncobj.config import FAIL_REASON
from pysyncobj.node import TCPNode

ANSWER_S: Final = 3.0
"""A request is answered within this time, known or not."""

HOLD_S: Final = 3.0
"""The lock manager frees a lock whose holder is silent for so long."""

_SUCCESS: Final = FAIL_REASON.SUCCESS
_ROLES: Final = ("follower", "candidate", "leader")


class Member(TCPNode):  # type: ignore[misc]
    """A node under its own address, dialled elsewhere: through a link of the bed."""

    def __init__(self, address: str, dial: str) -> None:
        super().__init__(address)
        host, _, port = dial.rpartition(":")
        self.dial = host, int(port)

    @property
    def ip(self) -> str:
        return self.dial[0]

    @property
    def port(self) -> int:
        # The library asks for it to dial others, and of itself to listen.
        return self.dial[1]


class Store(SyncObj):  # type: ignore[misc]
    """Registers, counters and locks, as the library's examples make them."""

    def __init__(self, own: Member, others: list[Member], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        conf = SyncObjConf(
            journalFile=str(folder / "journal"),
            fullDumpFile=str(folder / "dump"),
            # What is rare elsewhere happens all the time here, as with our own nodes.
            logCompactionMinEntries=300,
            logCompactionMinTime=5,
            connectionRetryTime=0.5,
            commandsWaitLeader=False,
            dynamicMembershipChange=False,
        )
        self.locks = _ReplLockManagerImpl(HOLD_S)
        super().__init__(own, others, conf, consumers=[self.locks])
        self.registers: dict[str, Any] = {}
        self.counters: dict[str, int] = {}

    @replicated  # type: ignore[untyped-decorator]
    def write(self, key: str, value: Any) -> bool:
        """Set a register."""
        self.registers[key] = value
        return True

    @replicated  # type: ignore[untyped-decorator]
    def read(self, key: str) -> Any:
        """Read a register through the log, which the library's own readers do not."""
        return self.registers.get(key)

    @replicated  # type: ignore[untyped-decorator]
    def add(self, key: str, number: int) -> bool:
        """Add to a counter."""
        self.counters[key] = self.counters.get(key, 0) + number
        return True

    @replicated  # type: ignore[untyped-decorator]
    def total(self, key: str) -> int:
        """Read a counter through the log."""
        return self.counters.get(key, 0)

    def digest(self) -> str:
        """Of what it holds now."""
        held = (
            sorted(self.registers.items()),
            sorted(self.counters.items()),
            sorted(self.locks._ReplLockManagerImpl__locks.items()),
        )
        return hashlib.sha256(repr(held).encode()).hexdigest()[:16]


class Door:
    """HTTP in front of a store."""

    def __init__(self, store: Store, name: str, names: dict[str, str]) -> None:
        self._store = store
        self._name = name
        self._names = names
        self._loop = asyncio.get_running_loop()
        self._seen: dict[str, Any] = {}
        self._look()
        # Between two of its ticks the library changes role and term apart.
        store.addOnTickCallback(self._look)

    def routes(self) -> list[web.RouteDef]:
        """Everything it answers."""
        return [
            web.get("/v1/cluster", self.cluster),
            web.get("/metrics", self.metrics),
            web.post("/v1/cluster/transfer", self.transfer),
            web.post("/stock/{f}/{key}", self.do),
        ]

    async def cluster(self, _: web.Request) -> web.Response:
        """As our nodes tell it, as far as the bed needs."""
        return web.json_response(self._seen)

    async def metrics(self, _: web.Request) -> web.Response:
        """None."""
        return web.Response(text="")

    async def transfer(self, _: web.Request) -> web.Response:
        """Ask the library for a hand-over."""
        await asyncio.to_thread(self._store.transferLeadership)
        return web.json_response({})

    async def do(self, request: web.Request) -> web.Response:
        """One command: write, read, add, total, acquire, prolong, release; or a look at local state."""
        f, key = request.match_info["f"], request.match_info["key"]
        body = await request.json() if request.can_read_body else {}
        store, locks = self._store, self._store.locks
        if f == "local":
            # What ReplDict.get and every example of the library do.
            return web.json_response({"value": store.registers.get(key)})
        commands: dict[str, Callable[[Any], Any]] = {
            "write": lambda done: store.write(key, body["value"], callback=done),
            "read": lambda done: store.read(key, callback=done),
            "add": lambda done: store.add(key, body["number"], callback=done),
            "total": lambda done: store.total(key, callback=done),
            "acquire": lambda done: locks.acquire(key, body["client"], time.time(), callback=done),
            "prolong": lambda done: locks.prolongate(key, time.time(), callback=done),
            "release": lambda done: locks.release(key, body["client"], callback=done),
        }
        if f not in commands:
            raise web.HTTPNotFound
        return await self._answer(commands[f])

    def _look(self) -> None:
        store = self._store
        leader = store._getLeader()
        self._seen = {
            "node": self._name,
            "leader": None if leader is None else self._names.get(leader.id),
            "role": _ROLES[store._SyncObj__raftState],
            "term": store.raftCurrentTerm,
            "commit": store.raftCommitIndex,
            "applied": store.raftLastApplied,
            "digest": store.digest(),
            "ready": leader is not None and store.isReady(),
        }

    async def _answer(self, command: Callable[[Any], Any]) -> web.Response:
        loop, answered = self._loop, self._loop.create_future()

        def settle(result: Any, reason: int) -> None:
            if not answered.done():
                answered.set_result((result, reason))

        def done(result: Any, reason: int) -> None:
            # Called by the library's thread.
            loop.call_soon_threadsafe(settle, result, reason)

        await asyncio.to_thread(command, done)
        try:
            async with asyncio.timeout(ANSWER_S):
                result, reason = await answered
        except TimeoutError:
            return web.json_response({"code": "late", "definite": False}, status=504)
        if reason == _SUCCESS:
            return web.json_response({"value": result})
        definite = reason != FAIL_REASON.UNKNOWN_OUTCOME
        return web.json_response({"code": f"reason_{reason}", "definite": definite}, status=503)


def addresses(file: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """A node's settings, and every node's own address by name.

    A peer's own address is in its own settings, beside ours; what ours have is where to dial it.
    """
    settings = tomllib.loads(file.read_text(encoding="utf-8"))
    own = {
        peer: tomllib.loads((file.parent / f"{peer}.toml").read_text(encoding="utf-8"))["listen"]
        for peer in settings["peers"]
    }
    return settings, own


async def serve(settings: dict[str, Any], own: dict[str, str], folder: Path) -> None:
    """Be a node until SIGTERM.

    Args:
        own: every node's own address, by name.
        folder: of the journal and the dump.
    """
    name, listen, peers = settings["node"], settings["listen"], settings["peers"]
    others = [Member(own[peer], dial) for peer, dial in peers.items() if peer != name]
    store = Store(Member(listen, listen), others, folder)
    app = web.Application()
    app.add_routes(Door(store, name, {address: peer for peer, address in own.items()}).routes())
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    host, _, port = settings["http"].rpartition(":")
    await web.TCPSite(runner, host, int(port), shutdown_timeout=1.0).start()
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    await runner.cleanup()
    store.destroy()


if __name__ == "__main__":
    config = Path(sys.argv[sys.argv.index("--config") + 1])
    known, listening = addresses(config)
    asyncio.run(serve(known, listening, config.parent / known["data"]))
