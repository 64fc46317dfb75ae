"""Processes that die or freeze: what was acknowledged stays so, and nobody holds twice.

The state of the cluster after each test is compared with what its clients were told.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from jepsen.progress import until

from cluster.client.core import path_of
from tests.integration.cluster import NAMES, Cluster, started
from tests.integration.crowds import Watcher, places, streams
from tests.integration.history import Load, hold, leave

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Small, so that logs are compacted all the time.
SNAPSHOT_ENTRIES = 100
EXIT_DATA = 65


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """The cluster of this module."""
    folder = tmp_path_factory.mktemp("kills")
    async with started(folder, snapshot_entries=SNAPSHOT_ENTRIES) as cluster:
        yield cluster


@pytest_asyncio.fixture(loop_scope="module")
async def cluster(running: Cluster) -> Cluster:
    """The same, whole."""
    await running.make_whole()
    return running


async def test_nothing_acknowledged_dies_with_the_leader(cluster: Cluster) -> None:
    """SIGKILL to the leader while 32 clients take and give back locks."""
    async with Load(cluster, clients=32, locks=8) as load:
        victim = await cluster.leader()
        await cluster.kill9(victim)
        await load.grow(64)
        await cluster.start(victim)
        await load.grow(64)


async def test_nothing_acknowledged_dies_with_all_nodes(cluster: Cluster) -> None:
    """SIGKILL to all three at once, then they are started again."""
    async with Load(cluster, clients=12, locks=3) as load:
        await load.grow(24)
        await cluster.kill9(*cluster.members)
        await cluster.start()
        await load.grow(24)


@pytest.mark.slow
async def test_kills_in_turn_under_load_lose_nothing(cluster: Cluster) -> None:
    """Each node is killed three times, the next one as soon as there is progress again."""
    async with Load(cluster, clients=12, locks=3) as load:
        for _ in range(3):
            for victim in cluster.members:
                await cluster.kill9(victim)
                await load.grow(6)
                await cluster.start(victim)
                await load.grow(12)


async def test_logs_are_compacted_under_load_and_kills(cluster: Cluster) -> None:
    """Each node makes snapshots while it serves, and goes on from its newest after a kill."""
    before = {name: cluster.snapshot_index(name) for name in cluster.members}
    async with Load(cluster, clients=12, locks=6) as load:
        for victim in cluster.members:

            async def compacted(victim: str = victim) -> bool:
                return cluster.snapshot_index(victim) >= before[victim] + 2 * SNAPSHOT_ENTRIES

            await until(compacted, f"two more snapshots of {victim}")
            await cluster.kill9(victim)
            await load.grow(12)
            await cluster.start(victim)
            await cluster.until_ready(victim)
            await load.grow(12)


async def test_a_leader_that_was_frozen_gives_nothing_back_that_is_anothers(
    cluster: Cluster,
) -> None:
    """SIGSTOP until another leads and the lock has moved on; then it finds what was asked of it
    meanwhile, under the old grant.

    That reads are confirmed by a majority is not seen here: a node that was stopped for so long
    steps down before it answers. The partitions show it.
    """
    lock = "frozen"
    old, others = await cluster.roles()
    sessions = [await cluster.open_session(name) for name in others]
    holds = [await hold(cluster, old, lock, sessions[0])]
    lines = [await cluster.line(old) for _ in range(2)]
    cluster.pause(old)
    new = await cluster.leader(*others)
    await leave(cluster, new, holds[0])
    holds.append(await hold(cluster, new, lock, sessions[1]))
    # The kernel takes them for the frozen process, which has both of them when it wakes up.
    path, stale = f"/v1/locks/{lock}", {"session": sessions[0], "token": holds[0].token}
    await lines[0].ask("POST", f"{path}/release", stale)
    await lines[1].ask("POST", f"{path}/check", {"token": holds[0].token})
    cluster.resume(old)
    release, check = [await line.answer() for line in lines]
    assert release.code in {"stale_token", "no_leader"}, release
    expected = {"valid": False, "current_token": holds[1].token}
    assert check.body == expected or check.code == "no_leader", check

    await cluster.agree()
    assert await cluster.holders(old, lock) == [(sessions[1], holds[1].token)]


async def test_a_short_freeze_costs_nobody_anything(cluster: Cluster) -> None:
    """Each node is stopped for less than the shortest election timeout, under load."""
    async with Load(cluster, clients=9, locks=3) as load:
        for number, name in enumerate(NAMES):
            witness = NAMES[number - 1]

            async def is_missed(name: str = name, witness: str = witness) -> bool:
                seen = {node.id: node for node in (await cluster.see(witness)).nodes}
                return (seen[name].last_heard_ms or 0) >= 200

            cluster.pause(name)
            await until(is_missed, f"{name} missed by {witness}")
            cluster.resume(name)
            await load.grow(9)


async def test_a_session_outlives_its_leader_but_not_its_ttl_for_ever(cluster: Cluster) -> None:
    """The leader is killed after the last renewal: the lock goes to the next one, never too early.

    How long an election takes is not looked at: it may only make the session live longer.
    """
    lock, ttl_s = "ttl", 2.0
    leader, (near, other) = await cluster.roles()
    gone = await cluster.open_session(near, ttl=f"{ttl_s:g}s")
    waiter = await cluster.open_session(other)
    token = await cluster.granted(near, lock, gone)
    wait = asyncio.create_task(cluster.acquire(other, lock, waiter, wait="5m"))
    renewed = await cluster.ask(near, "POST", path_of("sessions", gone, "keepalive"))
    assert renewed.status == 200, renewed
    await cluster.kill9(leader)
    granted = await wait
    assert (granted.status, granted.body["session"]) == (200, waiter), granted
    assert granted.body["token"] > token
    assert granted.told_s - renewed.asked_s >= ttl_s
    late = await cluster.ask(near, "POST", path_of("sessions", gone, "keepalive"))
    assert (late.status, late.code) == (410, "session_expired"), late


async def test_who_comes_back_behind_a_snapshot_is_told_what_is_lost(
    cluster: Cluster,
) -> None:
    """A node that was started again from a snapshot knows no older events and says so; one that has
    been there all the time tells them, and both tell the same from then on.
    """
    lock, prefix = "resumed", "/locks/resumed"
    _, (stays, restarts) = await cluster.roles()
    session = await cluster.open_session(stays)

    async def cycles(count: int) -> list[int]:
        tokens = []
        for _ in range(count):
            tokens.append(await cluster.granted(stays, lock, session))
            await cluster.released(stays, lock, session, tokens[-1])
        return tokens

    url = cluster.members[restarts].url
    async with streams() as http, Watcher(http, url, prefix) as watcher:
        first = await cycles(3)
        await watcher.until_told(first[-1])
        left_at = watcher.last_id
    missed = await cycles(SNAPSHOT_ENTRIES)
    await cluster.agree()

    async def is_behind() -> bool:
        return cluster.snapshot_index(restarts) > left_at

    await until(is_behind, f"a snapshot of {restarts} behind {left_at}")
    await cluster.kill9(restarts)
    newest = cluster.snapshot_index(restarts)
    await cluster.start(restarts)
    await cluster.until_ready(restarts)

    async with (
        streams() as http,
        Watcher(http, cluster.members[stays].url, prefix, left_at) as whole,
        Watcher(http, url, prefix, left_at) as torn,
        Watcher(http, url, prefix, newest) as late,
    ):
        last = await cycles(2)
        for watcher in (whole, torn, late):
            await watcher.until_told(last[-1])
    lost, *rest = torn.heard
    assert (lost["event"], lost["lost_after"]) == ("resync", left_at)
    assert lost["from"] >= newest
    assert all(event["index"] > lost["from"] for event in rest)
    assert torn.granted == last
    assert whole.granted == [*missed, *last]
    assert "resync" not in {event["event"] for event in (*whole.heard, *late.heard)}
    assert places(late.heard) == [place for place in places(whole.heard) if place[0] > newest]


async def test_a_flipped_bit_in_a_journal_is_refused_and_the_others_go_on(
    cluster: Cluster,
) -> None:
    """The node says which file and what to do, and ends with 65; mended, it comes back."""
    _, (victim, other) = await cluster.roles()
    session = await cluster.open_session(other)
    token = await cluster.granted(other, "flipped", session)
    await cluster.agree()
    await cluster.kill9(victim)
    segment = max((cluster.folder / victim).glob("journal-*.seg"))
    place = _flip(segment)
    said = len(cluster.lines[victim])
    await cluster.start(victim)
    assert await cluster.ended(victim) == EXIT_DATA
    words = "\n".join(cluster.lines[victim][said:])
    assert "cannot start" in words
    assert segment.name in words
    assert "replace this member" in words

    await cluster.released(other, "flipped", session, token)
    again = await cluster.granted(other, "flipped", session)
    _flip(segment, place)
    await cluster.start(victim)
    await cluster.agree()
    assert await cluster.holders(victim, "flipped") == [(session, again)]


def _flip(file: Path, place: int | None = None) -> int:
    """Flip one bit in the middle of what a file holds, or at this place; returns where."""
    with file.open("r+b") as content:
        data = content.read()
        # The space behind is reserved, and zero.
        at = len(data.rstrip(b"\0")) // 2 if place is None else place
        content.seek(at)
        content.write(bytes([data[at] ^ 0x10]))
    return at
