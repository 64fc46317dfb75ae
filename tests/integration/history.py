"""What clients saw: a load of lock cycles, its history, and what must hold of it.

RULE: records what was acknowledged, and judges only that. All times are of one clock of one
process, so that the order of two events in the history is their order in fact.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from types import TracebackType
from typing import Self

from jepsen.progress import progress, until

from cluster.client.aio import Client
from cluster.client.core import Policy, path_of
from cluster.errors import Refused
from tests.integration.cluster import CALL_S, NAMES, Cluster, Reply

# A client gives a node this long before it asks the next one.
PATIENCE = Policy(attempt_ms=3_000, connect_ms=1_000)
WAIT_MS = 2_000
CALL_MS = int(CALL_S * 1_000)

_numbers = itertools.count(1)


@dataclass(slots=True)
class Hold:
    """One acknowledged grant, and how it ended.

    Attributes:
        granted_s: when the client knew that it holds.
        left_s: when the client was about to give it back; None while it has not.
    """

    lock: str
    session: str
    token: int
    granted_s: float
    left_s: float | None = None


async def hold(cluster: Cluster, node: str, lock: str, session: str) -> Hold:
    """Take a free lock through one node."""
    token = await cluster.granted(node, lock, session)
    return Hold(lock, session, token, time.monotonic())


async def leave(cluster: Cluster, node: str, held: Hold) -> None:
    """Give a lock back through one node."""
    held.left_s = time.monotonic()
    await cluster.released(node, held.lock, held.session, held.token)


@dataclass(slots=True)
class History:
    """All acknowledged grants of contended locks, in the order in which clients learned of them."""

    holds: list[Hold] = field(default_factory=list)

    def check(self) -> None:
        """See that locks excluded and tokens rose.

        Raises:
            AssertionError: names the two grants that cannot both be right.
        """
        seen: dict[int, Hold] = {}
        by_lock: dict[str, list[Hold]] = {}
        for hold in self.holds:
            assert hold.token not in seen, f"one token for two grants: {seen[hold.token]}, {hold}"
            seen[hold.token] = hold
            by_lock.setdefault(hold.lock, []).append(hold)
        for holds in by_lock.values():
            # The token says the order of the grants; the clock must not contradict it.
            holds.sort(key=lambda hold: hold.token)
            for earlier, later in pairwise(holds):
                left_s = earlier.left_s
                assert left_s is not None, f"held for ever, and yet granted: {earlier}, {later}"
                assert left_s < later.granted_s, f"held by two at a time: {earlier}, {later}"


def check_reads(replies: list[Reply], holds: list[Hold]) -> None:
    """See that no read shows less than what was acknowledged before it was asked for.

    Args:
        replies: answers to linearizable reads of one lock; what is no success must be definite.
        holds: every grant of this lock there was, one after another.
    Raises:
        AssertionError: names the answer and the grant that it should have shown.
    """
    for reply in replies:
        if reply.status != 200:
            assert reply.status in {503, 504} and reply.body["definite"], reply
            continue
        known = [hold for hold in holds if hold.granted_s < reply.asked_s]
        newest = max(known, key=lambda hold: hold.token, default=None)
        if newest is None:
            continue
        shown = [holder["token"] for holder in reply.body["holders"]]
        if shown:
            assert shown[0] >= newest.token, f"{reply} after {newest}"
        else:
            left_s = newest.left_s
            assert left_s is not None and left_s < reply.told_s, f"{reply} after {newest}"


class Reads:
    """Reads of one lock at one node, one after another in a few lanes, while the block runs.

    Attributes:
        replies: all that were answered, in that order.
    """

    def __init__(self, cluster: Cluster, node: str, lock: str, *, lanes: int = 4):
        self.replies: list[Reply] = []
        self._cluster = cluster
        self._node = node
        self._lock = lock
        self._lanes = lanes
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._read()) for _ in range(self._lanes)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def until(self, fits: Callable[[Reply], bool]) -> Reply:
        """Wait for an answer that fits, from now on."""
        seen = len(self.replies)

        async def found() -> Reply | None:
            return next(filter(fits, self.replies[seen:]), None)

        reply: Reply = await until(found, f"such an answer of {self._node}")
        return reply

    def check(self, holds: list[Hold]) -> None:
        """See that no answer is of the past, given every grant of this lock there was."""
        check_reads(self.replies, holds)

    async def _read(self) -> None:
        path = path_of("locks", self._lock)
        while True:
            self.replies.append(await self._cluster.get(self._node, path))


class Load:
    """Clients that take and give back a few locks, over and over, while the block runs.

    Each holds a lock of its own as well, from the first moment to the last. They ask all nodes, and
    repeat what may be repeated; any other failure fails the test. At the end of the block the
    history is checked, and the state of the cluster against it.
    """

    def __init__(
        self, cluster: Cluster, *, clients: int, locks: int, asked: tuple[str, ...] | None = None
    ):
        self.history = History()
        self._cluster = cluster
        self._asked = asked or tuple(cluster.members)
        self._clients = clients
        self._locks = locks
        # Not by its id: that is given again when this is gone, and its locks are held still.
        self.name = f"load-{next(_numbers)}"
        self._own: dict[str, tuple[str, int]] = {}
        self._is_over = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._client(number)) for number in range(self._clients)]
        await self.grow(self._clients)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over = True
        if error is not None:
            for task in self._tasks:
                task.cancel()

        async def are_done() -> bool:
            return all(task.done() for task in self._tasks)

        try:
            await until(are_done, f"the end of all clients of {self.name}")
        finally:
            for task in self._tasks:
                task.cancel()
            results = await asyncio.gather(*self._tasks, return_exceptions=True)
        if error is None:
            for result in results:
                if result is not None:
                    raise result
            self.history.check()
            await self._check_state()

    async def grow(self, more: int) -> None:
        """Wait until so many further grants were acknowledged."""
        wanted = len(self.history.holds) + more

        async def grown() -> bool:
            self._cluster.check_none_crashed()
            for task in self._tasks:
                if task.done() and (error := task.exception()) is not None:
                    raise error
            return len(self.history.holds) >= wanted

        await until(grown, f"{more} more grants")

    async def _client(self, number: int) -> None:
        # Each begins with another node.
        at = number % len(self._asked)
        urls = [self._cluster.members[name].url for name in self._asked[at:] + self._asked[:at]]
        async with Client(urls, policy=PATIENCE, timeout_ms=CALL_MS) as client:
            session = (await client.open_session(ttl_ms=3_600_000)).session
            own = f"{self.name}/own/{number}"
            grant = await client.acquire(session, own, wait_ms=WAIT_MS)
            self._own[own] = session, grant.token
            lock = f"{self.name}/{number % self._locks}"
            while not self._is_over:
                await self._cycle(client, session, lock)

    async def _cycle(self, client: Client, session: str, lock: str) -> None:
        try:
            grant = await client.acquire(session, lock, wait_ms=WAIT_MS)
        except Refused as refused:
            assert refused.code == "lock_held", refused
            return
        hold = Hold(lock, session, grant.token, time.monotonic())
        self.history.holds.append(hold)
        progress.mark()
        await asyncio.sleep(0)
        hold.left_s = time.monotonic()
        await client.release(session, lock, grant.token)

    async def _check_state(self) -> None:
        """All own locks are held as acknowledged, the others are free, on every node."""
        cluster = self._cluster
        await cluster.agree()
        locks = [f"{self.name}/{number}" for number in range(self._locks)]
        expected = {own: [holder] for own, holder in self._own.items()}
        expected |= {lock: [] for lock in locks}
        for node in cluster.members:
            held = await asyncio.gather(*(cluster.holders(node, name) for name in expected))
            assert dict(zip(expected, held, strict=True)) == expected, node
            for waiting in await asyncio.gather(*(cluster.waiters(node, name) for name in locks)):
                assert waiting == [], node


class Traffic:
    """Clients without patience, while the block runs: each stays with one node, asks on fresh
    connections, and repeats only what the node tells it to. Any other failure fails the test.

    Attributes:
        answered: how many requests were answered well.
    """

    def __init__(self, cluster: Cluster, *, clients: int = 6):
        self.answered = 0
        self._cluster = cluster
        self._clients = clients
        self._is_over = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._client(number)) for number in range(self._clients)]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over = True
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        if error is None:
            for result in results:
                if result is not None:
                    raise result

    async def grow(self, more: int) -> None:
        """Wait for so many further answers."""
        wanted = self.answered + more

        async def grown() -> bool:
            self._cluster.check_none_crashed()
            return self.answered >= wanted or any(task.done() for task in self._tasks)

        await until(grown, f"{more} more answers")

    async def _client(self, number: int) -> None:
        cluster, node, lock = self._cluster, NAMES[number % len(NAMES)], f"traffic-{number}"
        session = await cluster.open_session(node)
        cycle = 0
        while not self._is_over:
            cycle += 1
            granted = await self._asked(node, lock, "acquire", {"session": session}, cycle)
            held = {"session": session, "token": granted.body["token"]}
            assert await self._holders(node, lock) == [(session, held["token"])]
            await self._asked(node, lock, "release", held, cycle)

    async def _holders(self, node: str, lock: str) -> list[tuple[str, int]]:
        while True:
            reply = await self._cluster.get(node, path_of("locks", lock))
            if reply.status == 200:
                return [(one["session"], one["token"]) for one in reply.body["holders"]]
            assert reply.body["retryable"] is True, reply

    async def _asked(
        self, node: str, lock: str, verb: str, body: dict[str, object], cycle: int
    ) -> Reply:
        path, key = path_of("locks", lock, verb), f"{body['session']}-{verb}-{cycle}"
        while True:
            reply = await self._cluster.ask(node, "POST", path, body, key=key)
            if reply.status == 200:
                self.answered += 1
                progress.mark()
                return reply
            assert reply.body["retryable"] is True, reply
