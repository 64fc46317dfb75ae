"""A request that is repeated under its Idempotency-Key, after everything that may happen meanwhile.

RULE of these tests: the repeat goes to another node than the first, and its answer is compared with
the first one whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from jepsen.progress import until

from tests.integration.cluster import NAMES, Cluster, Reply, started

pytestmark = pytest.mark.asyncio(loop_scope="module")

SNAPSHOT_ENTRIES = 40


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """The cluster of this module."""
    folder = tmp_path_factory.mktemp("exactly-once")
    async with started(folder, snapshot_entries=SNAPSHOT_ENTRIES) as cluster:
        yield cluster


@pytest_asyncio.fixture(loop_scope="module")
async def cluster(running: Cluster) -> Cluster:
    """The same, whole."""
    await running.make_whole()
    return running


class Story:
    """An open, an acquire, a release, and a refusal, each with a key and its first answer."""

    def __init__(self, cluster: Cluster, name: str):
        self.firsts: list[Reply] = []
        self._cluster = cluster
        self._name = name
        self._asked: list[tuple[str, dict[str, object]]] = []

    async def begin(self, node: str) -> None:
        """Ask everything for the first time, through one node."""
        name, path = self._name, f"/v1/locks/{self._name}"
        opened = await self._ask(node, "/v1/sessions", {"ttl": "10m", "name": name})
        session = opened.body["session"]
        granted = await self._ask(node, f"{path}/acquire", {"session": session})
        held = {"session": session, "token": granted.body["token"]}
        await self._ask(node, f"{path}/release", held)
        other = await self._cluster.open_session(node)
        await self._ask(node, f"{path}/acquire", {"session": other})
        await self._ask(node, f"{path}/acquire", {"session": session})
        codes = [reply.code for reply in self.firsts]
        assert codes == [None, None, None, None, "lock_held"], self.firsts

    async def again(self, node: str) -> None:
        """Ask everything again, backwards, and see the first answers."""
        for number in reversed(range(len(self._asked))):
            path, body = self._asked[number]
            reply = await self._cluster.ask(node, "POST", path, body, key=self._key(number))
            first = self.firsts[number]
            assert (reply.status, reply.body) == (first.status, first.body), (reply, first)

    async def other_bodies(self, node: str) -> None:
        """Use the same keys for other requests, and be refused."""
        for number, (path, body) in enumerate(self._asked):
            other = body | ({"ttl": "11m"} if "ttl" in body else {"session": "0-0"})
            reply = await self._cluster.ask(node, "POST", path, other, key=self._key(number))
            assert (reply.status, reply.code) == (422, "idempotency_key_reused"), reply
            assert (reply.body["definite"], reply.body["retryable"]) == (True, False)

    async def _ask(self, node: str, path: str, body: dict[str, object]) -> Reply:
        key = self._key(len(self._asked))
        self._asked.append((path, body))
        self.firsts.append(await self._cluster.ask(node, "POST", path, body, key=key))
        return self.firsts[-1]

    def _key(self, number: int) -> str:
        return f"{self._name}-{number}"


async def fill(cluster: Cluster, node: str) -> None:
    """Write until every node has put what was so far into a snapshot."""
    position = (await cluster.see(node)).applied
    session = await cluster.open_session(node)

    async def is_compacted() -> bool:
        # One after another: each is an entry of its own.
        token = await cluster.granted(node, "filling", session)
        await cluster.released(node, "filling", session, token)
        return all(cluster.snapshot_index(name) > position for name in cluster.running)

    await until(is_compacted, f"snapshots behind {position}")


async def test_answers_are_repeated_by_other_nodes_after_the_leader_was_killed(
    cluster: Cluster,
) -> None:
    """First the leader answers and dies, then a follower of the next one answers and dies."""
    leader, (asked, other) = await cluster.roles()
    by_leader, by_follower = Story(cluster, "by-leader"), Story(cluster, "by-follower")
    await by_leader.begin(leader)
    await by_follower.begin(asked)
    await cluster.kill9(leader)
    for node in (asked, other):
        await by_leader.again(node)
        await by_follower.again(node)
    await by_leader.other_bodies(other)
    await cluster.start(leader)
    await cluster.until_ready()
    await cluster.kill9(asked)
    await by_follower.again(leader)
    await by_follower.other_bodies(leader)


async def test_answers_are_repeated_from_snapshots_after_all_nodes_were_killed(
    cluster: Cluster,
) -> None:
    """They are part of the state: in snapshots, and after a restart of everything."""
    story = Story(cluster, "from-snapshots")
    await story.begin("n1")
    await fill(cluster, "n2")
    await cluster.kill9(*NAMES)
    await cluster.start()
    await cluster.until_ready()
    for node in NAMES:
        await story.again(node)
    await story.other_bodies("n3")


async def test_answers_reach_a_node_that_was_away_by_snapshot(cluster: Cluster) -> None:
    """It was down when they were given, and its log misses their entries."""
    _, (away, other) = await cluster.roles()
    await cluster.kill9(away)
    story = Story(cluster, "away")
    await story.begin(other)
    await fill(cluster, other)
    await cluster.start(away)
    await cluster.until_ready()
    await story.again(away)
    await story.other_bodies(away)
    await cluster.agree()


async def test_a_repeat_under_way_is_the_same_request(cluster: Cluster) -> None:
    """Twenty copies at a time through all nodes: one session, one grant."""
    body = {"ttl": "10m"}
    copies = [
        cluster.ask(NAMES[number % 3], "POST", "/v1/sessions", body, key="copies-open")
        for number in range(20)
    ]
    opened = await asyncio.gather(*copies)
    assert {reply.status for reply in opened} == {201}
    [session] = {reply.body["session"] for reply in opened}
    copies = [
        cluster.acquire(NAMES[number % 3], "copies", session, key="copies-acquire")
        for number in range(20)
    ]
    granted = await asyncio.gather(*copies)
    assert {reply.status for reply in granted} == {200}
    [token] = {reply.body["token"] for reply in granted}
    assert await cluster.holders("n1", "copies") == [(session, token)]


async def test_a_waiting_acquire_joins_its_first_copy(cluster: Cluster) -> None:
    """The same key at two nodes is one place in the queue, and one grant told to both."""
    lock = "joined"
    holder, waiter, behind = [await cluster.open_session(name) for name in NAMES]
    token = await cluster.granted("n1", lock, holder)
    waits = [asyncio.create_task(cluster.acquire("n2", lock, waiter, key=lock, wait="60s"))]
    await cluster.until_queued("n1", lock, waiter)
    waits.append(asyncio.create_task(cluster.acquire("n3", lock, behind, wait="60s")))
    await cluster.until_queued("n1", lock, waiter, behind)
    waits.append(asyncio.create_task(cluster.acquire("n3", lock, waiter, key=lock, wait="60s")))
    await until_parked(cluster, "n3", 2)
    await cluster.until_queued("n1", lock, waiter, behind)
    await cluster.released("n1", lock, holder, token)
    first, again = await waits[0], await waits[2]
    assert first.status == 200, first
    assert (again.status, again.body) == (first.status, first.body)
    await cluster.released("n3", lock, waiter, first.body["token"])
    last = await waits[1]
    assert (last.status, last.body["session"]) == (200, behind)
    assert last.body["token"] > first.body["token"] > token


async def test_a_wait_outlives_the_node_it_was_begun_at(cluster: Cluster) -> None:
    """The node dies, the client asks again at another one, the first one comes back: the place in
    the queue stays, before those who came later, and gives one grant.
    """
    lock = "outlived"
    _, (first, second) = await cluster.roles()
    holder, waiter, behind = [await cluster.open_session(second) for _ in range(3)]
    token = await cluster.granted(second, lock, holder)
    lost = asyncio.create_task(cluster.acquire(first, lock, waiter, key=lock, wait="5m"))
    await cluster.until_queued(second, lock, waiter)
    later = asyncio.create_task(cluster.acquire(second, lock, behind, wait="5m"))
    await cluster.until_queued(second, lock, waiter, behind)
    await cluster.kill9(first)
    [outcome] = await asyncio.gather(lost, return_exceptions=True)
    assert isinstance(outcome, Exception), outcome
    again = asyncio.create_task(cluster.acquire(second, lock, waiter, key=lock, wait="5m"))
    await until_parked(cluster, second, 2)
    # In its new life, the node's first word ends the waits of the one before.
    await cluster.start(first)
    await cluster.until_ready(first)
    await cluster.open_session(first)
    await cluster.until_queued(second, lock, waiter, behind)
    await cluster.released(second, lock, holder, token)
    granted = await again
    assert (granted.status, granted.body["session"]) == (200, waiter), granted
    await cluster.released(first, lock, waiter, granted.body["token"])
    assert (await later).body["session"] == behind


async def test_a_wait_outlives_the_leader(cluster: Cluster) -> None:
    """A request that waits at a follower gets its grant from the next leader, unasked."""
    lock = "next-leader"
    leader, (near, other) = await cluster.roles()
    holder, waiter = [await cluster.open_session(near) for _ in range(2)]
    token = await cluster.granted(near, lock, holder)
    wait = asyncio.create_task(cluster.acquire(near, lock, waiter, wait="5m"))
    await cluster.until_queued(near, lock, waiter)
    await cluster.kill9(leader)
    await cluster.leader(near, other)
    assert not wait.done()
    await cluster.released(other, lock, holder, token)
    granted = await wait
    assert (granted.status, granted.body["session"]) == (200, waiter), granted
    assert granted.body["token"] > token


async def test_a_client_that_hangs_up_leaves_the_queue(cluster: Cluster) -> None:
    """At the leader and at a follower; those behind move up, and a repeat begins at the end."""
    lock = "hung-up"
    leader, (near, other) = await cluster.roles()
    holder, gone, gone_too, last = [await cluster.open_session(near) for _ in range(4)]
    token = await cluster.granted(near, lock, holder)
    waits = []
    queue: list[str] = []
    for node, session in ((leader, gone), (near, gone_too), (other, last)):
        acquire = cluster.acquire(node, lock, session, key=session, wait="5m")
        waits.append(asyncio.create_task(acquire))
        queue.append(session)
        await cluster.until_queued(near, lock, *queue)
    waits[0].cancel()
    await cluster.until_queued(near, lock, gone_too, last)
    waits[1].cancel()
    await cluster.until_queued(near, lock, last)
    repeat = asyncio.create_task(cluster.acquire(near, lock, gone, key=gone, wait="5m"))
    await cluster.until_queued(near, lock, last, gone)
    await cluster.released(near, lock, holder, token)
    granted = await waits[2]
    assert (granted.status, granted.body["session"]) == (200, last), granted
    await cluster.released(near, lock, last, granted.body["token"])
    assert (await repeat).body["session"] == gone


async def until_parked(cluster: Cluster, node: str, count: int) -> None:
    """Wait until so many requests stand in queues through one node."""

    async def is_so() -> bool:
        return (await cluster.figures(node))["coterie_requests_parked"] == count

    await until(is_so, f"{count} requests parked at {node}")
