"""Networks that are cut, in one or both directions, slow, or deaf: nobody answers wrongly.

Every way between two nodes runs through toxiproxy, so that each direction can be cut alone. Without
its server these tests are skipped, and fail where CI=true.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from jepsen.progress import until

from cluster.client.core import path_of
from tests.integration.cluster import NAMES, Cluster, Reply, repeated, started
from tests.integration.history import Load, Reads, hold, leave
from tests.integration.toxiproxy import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")

SNAPSHOT_ENTRIES = 200
# Short, since a node that hears the leader and cannot reach it waits so long.
REQUEST_TIMEOUT = "3s"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(
    tmp_path_factory: pytest.TempPathFactory, toxiproxy_server: Server
) -> AsyncIterator[Cluster]:
    """The cluster of this module."""
    settings = {"snapshot_entries": SNAPSHOT_ENTRIES, "request_timeout_ms": REQUEST_TIMEOUT}
    folder = tmp_path_factory.mktemp("partitions")
    async with started(folder, server=toxiproxy_server, **settings) as cluster:
        yield cluster


@pytest_asyncio.fixture(loop_scope="module")
async def cluster(running: Cluster) -> Cluster:
    """The same, whole."""
    await running.make_whole()
    return running


async def test_a_leader_alone_answers_nothing_old_and_the_majority_goes_on(
    cluster: Cluster,
) -> None:
    """Every packet from and to the leader vanishes; the lock moves on among the others.

    Until it notices, the old leader keeps reads waiting; then it refuses reads and writes. What it
    calls definite did not happen.
    """
    numbers = itertools.count(1)

    async def attempt() -> bool:
        await cluster.make_whole()
        return await _is_caught_alone(cluster, f"alone/{next(numbers)}")

    await repeated(3, attempt)


async def _is_caught_alone(cluster: Cluster, lock: str) -> bool:
    """The story above; True where a write came to the old leader before it had noticed."""
    old, others = await cluster.roles()
    first, second, third = [await cluster.open_session(name) for name in NAMES]
    holds = [await hold(cluster, old, lock, first)]
    async with Reads(cluster, old, lock) as reads:
        await reads.until(lambda reply: reply.status == 200)
        cluster.isolate(old, silently=True)
        # It may be in the old leader's log already: it is not said that it did not happen.
        key = f"{lock}/caught"
        caught = asyncio.create_task(cluster.acquire(old, f"{lock}/caught", third, key=key))
        new = await cluster.leader(*others)
        await leave(cluster, new, holds[0])
        holds.append(await hold(cluster, new, lock, second))
        refusal = await reads.until(lambda reply: reply.status == 503)
        assert _is_no_leader(refusal)
        assert "Retry-After" in refusal.headers
        late = await cluster.acquire(old, f"{lock}/late", third, key=f"{lock}/late")
        assert _is_no_leader(late)
        assert late.body["definite"] is True
        early = await caught
        assert _is_unavailable(early)
        stale = await cluster.get(old, path_of("locks", lock) + "?consistency=stale")
        assert _holders(stale) == [(first, holds[0].token)]
        assert int(stale.headers["Coterie-Stale-Ms"]) > 0
        assert (await cluster.get(old, "/readyz")).status == 503
        cluster.heal()
        await reads.until(lambda reply: reply.status == 200)
    reads.check(holds)

    held = await cluster.holders(new, f"{lock}/caught")
    assert not held or not early.body["definite"], (early, held)
    # What was left open is settled by the same request, at any node; what was not, did not happen.
    again = await cluster.acquire(new, f"{lock}/caught", third, key=key)
    assert again.status == 200, again
    assert await cluster.holders(old, f"{lock}/caught") == [(third, again.body["token"])]
    assert await cluster.holders(old, f"{lock}/late") == []
    assert again.body["token"] > holds[1].token
    await cluster.agree()
    return early.body["definite"] is False


async def test_a_leader_that_cannot_be_heard_is_replaced(cluster: Cluster) -> None:
    """Its outbound ways are cut, its inbound ones are open: it hears of the next leader."""
    lock = "mute"
    old, others = await cluster.roles()
    session = await cluster.open_session(old)
    for other in others:
        cluster.cut(old, other)
    new = await cluster.leader(*others)
    token = await cluster.granted(new, lock, session)
    for reply in await asyncio.gather(
        cluster.acquire(old, f"{lock}/late", session, key="mute"),
        cluster.get(old, path_of("locks", lock)),
    ):
        assert _is_unavailable(reply), reply
    cluster.heal()
    again = await cluster.acquire(new, f"{lock}/late", session, key="mute")
    assert again.status == 200, again
    assert again.body["token"] > token
    await cluster.agree()
    assert await cluster.holders(old, lock) == [(session, token)]


async def test_a_leader_that_hears_nobody_serves_nobody(cluster: Cluster) -> None:
    """Its inbound ways are cut: its heartbeats arrive, and yet it must not stay."""
    lock = "deaf"
    old, others = await cluster.roles()
    first, second = [await cluster.open_session(name) for name in others]
    holds = [await hold(cluster, old, lock, first)]
    async with Reads(cluster, old, lock) as reads:
        await reads.until(lambda reply: reply.status == 200)
        for other in others:
            cluster.cut(other, old)
        new = await cluster.leader(*others, other_than=old)
        await leave(cluster, new, holds[0])
        holds.append(await hold(cluster, new, lock, second))
        await reads.until(_is_unavailable)
        cluster.heal()
        await reads.until(lambda reply: reply.status == 200)
    reads.check(holds)
    await cluster.agree()


async def test_a_follower_that_was_away_deposes_nobody(cluster: Cluster) -> None:
    """It never reaches a new term alone, and its return changes neither leader nor term."""

    async def attempt() -> bool:
        await cluster.make_whole()
        leader, (away, other) = await cluster.roles()
        before = await cluster.see(leader)
        cluster.isolate(away)

        async def is_lost() -> bool:
            return (await cluster.see(away)).leader is None

        await until(is_lost, f"{away} without a leader")
        session = await cluster.open_session(other)
        for name in (f"away/{number}" for number in range(20)):
            await cluster.granted(other, name, session)
        # Longer than any election timeout: it stands for election again and again.
        reply = await cluster.get(away, path_of("sessions", session))
        assert _is_no_leader(reply)
        assert (await cluster.see(away)).term == before.term
        cluster.heal()
        after = await cluster.agree()
        return (after.leader, after.term) == (leader, before.term)

    await repeated(3, attempt)


async def test_a_minority_tells_its_clients_the_truth(cluster: Cluster) -> None:
    """A follower's packets vanish: writes are refused as retryable, and the definite ones are not
    found afterwards; a repeat of any takes effect once.
    """
    lock = "minority"
    _, (minority, other) = await cluster.roles()
    session = await cluster.open_session(minority)
    cluster.isolate(minority, silently=True)
    names = [f"{lock}/{number}" for number in range(8)]
    # At once, while it still believes in a leader.
    asked = [cluster.acquire(minority, name, session, key=name) for name in names[:4]]
    replies = list(await asyncio.gather(*asked))
    # And when it does not.
    asked = [cluster.acquire(minority, name, session, key=name) for name in names[4:]]
    replies += await asyncio.gather(*asked)
    for reply in replies:
        assert _is_unavailable(reply), reply
    assert all(_is_no_leader(reply) and reply.body["definite"] for reply in replies[4:]), replies
    cluster.heal()
    await cluster.agree()
    for name, reply in zip(names, replies, strict=True):
        held = await cluster.holders(other, name)
        assert not held or not reply.body["definite"], (reply, held)
        again = await cluster.acquire(other, name, session, key=name)
        assert again.status == 200, again
        assert not held or held == [(session, again.body["token"])]
    await cluster.agree()


@pytest.mark.parametrize("way", ["to the leader", "from the leader"])
async def test_a_follower_cut_off_one_way_stops_nobody(cluster: Cluster, way: str) -> None:
    """One direction between the leader and one follower is cut; the others serve on.

    A follower that only hears goes on applying; one that only speaks disturbs nobody.
    """
    lock = f"one way {way}"

    async def attempt() -> bool:
        await cluster.make_whole()
        leader, (half, other) = await cluster.roles()
        before = await cluster.see(leader)
        pair = (half, leader) if way == "to the leader" else (leader, half)
        cluster.cut(*pair)
        session = await cluster.open_session(leader)
        # Nothing else is written meanwhile: its log is as good as any, and yet it gets no vote.
        reply = await cluster.acquire(half, f"{lock}/{session}", session, key=session)
        if reply.status == 200:
            return False
        assert _is_unavailable(reply), reply
        async with Load(cluster, clients=4, locks=2, asked=(leader, other)) as load:
            await load.grow(20)
            after = await cluster.see(leader)
            cluster.heal()
        again = await cluster.acquire(other, f"{lock}/{session}", session, key=session)
        assert again.status == 200, again
        return (after.leader, after.term) == (leader, before.term)

    await repeated(3, attempt)


async def test_a_bridge_does_not_shake_the_leader(cluster: Cluster) -> None:
    """Leader and one follower do not reach each other, the third node reaches both."""

    async def attempt() -> bool:
        await cluster.make_whole()
        leader, (apart, bridge) = await cluster.roles()
        before = await cluster.see(leader)
        cluster.cut(leader, apart)
        cluster.cut(apart, leader)
        # It asks for votes meanwhile, with a log as good as any; the bridge hears the leader.
        reply = await cluster.get(apart, "/v1/locks/anything")
        if reply.status == 200:
            return False
        assert _is_unavailable(reply), reply
        async with Load(cluster, clients=4, locks=2, asked=(leader, bridge)) as load:
            await load.grow(20)
            after = await cluster.see(leader)
            cluster.heal()
        return (after.leader, after.term) == (leader, before.term)

    await repeated(3, attempt)


async def test_a_ring_of_one_way_ways_has_no_leader_and_no_answers(cluster: Cluster) -> None:
    """Each node hears one and is heard by the other: no majority can agree on anything."""
    lock = "ring"
    session = await cluster.open_session("n1")
    held = await hold(cluster, "n1", lock, session)
    for source, target in (("n1", "n2"), ("n2", "n3"), ("n3", "n1")):
        cluster.cut(source, target)

    async def nobody() -> bool:
        states = [await cluster.see(name) for name in NAMES]
        return all(state.leader != state.node for state in states)

    await until(nobody, "no leader")
    asked = [cluster.acquire(name, f"{lock}/{name}", session, key=f"ring-{name}") for name in NAMES]
    reads = [cluster.get(name, path_of("locks", lock)) for name in NAMES]
    for reply in await asyncio.gather(*asked, *reads):
        assert _is_unavailable(reply), reply
    cluster.heal()
    await cluster.leader()
    for name in NAMES:
        assert await cluster.holders(name, lock) == [(session, held.token)]
        reply = await cluster.acquire(name, f"{lock}/{name}", session, key=f"ring-{name}")
        assert reply.status == 200, reply
    await cluster.agree()


async def test_an_answer_that_is_lost_is_given_again_by_another_node(
    cluster: Cluster, toxiproxy_server: Server
) -> None:
    """The way back to a client is silent: its request happened once, whatever it asks next."""
    lock = "lost"
    _, (near, other) = await cluster.roles()
    session = await cluster.open_session(other)
    link = toxiproxy_server.link("client of a follower", cluster.members[near].http)
    link.silence("downstream")
    body, path = {"session": session}, path_of("locks", lock, "acquire")
    url = f"http://{link.address[0]}:{link.address[1]}"
    lost = asyncio.create_task(cluster.ask(near, "POST", path, body, key=lock, url=url))

    async def is_held() -> list[tuple[str, int]]:
        return await cluster.holders(other, lock)

    [(holder, token)] = await until(is_held, f"{lock} held")
    again = await cluster.ask(other, "POST", path, body, key=lock)
    assert (again.status, again.body["session"], again.body["token"]) == (200, holder, token)
    lost.cancel()
    [outcome] = await asyncio.gather(lost, return_exceptions=True)
    assert not isinstance(outcome, Reply), outcome


async def test_slow_and_uneven_links_make_nothing_wrong(cluster: Cluster) -> None:
    """Every way takes 30 to 70 ms, in each direction."""
    cluster.slow_down(latency_ms=50, jitter_ms=20)
    async with Load(cluster, clients=6, locks=3) as load:
        await load.grow(12)
        cluster.heal()


async def test_a_snapshot_reaches_a_follower_through_a_slow_link(cluster: Cluster) -> None:
    """The log it would need is compacted away; the snapshot takes a second, in many pieces, and
    the leader goes on serving and compacting meanwhile.
    """
    leader, (behind, other) = await cluster.roles()
    cluster.isolate(behind)
    missed = (await cluster.see(behind)).applied
    meta = {"filling": "x" * 4_000}
    for _ in range(10):
        opened = await asyncio.gather(
            *(
                cluster.ask(other, "POST", "/v1/sessions", {"ttl": "1h", "meta": meta})
                for _ in range(15)
            )
        )
        assert all(reply.status == 201 for reply in opened)
    async with Load(cluster, clients=4, locks=4, asked=(leader, other)) as load:

        async def compacted() -> bool:
            return all(cluster.snapshot_index(name) > missed + 2 for name in (leader, other))

        await until(compacted, "logs without what the follower missed")
        cluster.heal()
        for source in (leader, other):
            # KB/s: about a second for what the sessions carry.
            cluster.links[source, behind].add("bandwidth", "upstream", rate=500)

        async def caught_up() -> bool:
            return (await cluster.see(behind)).applied > missed + 2

        await until(caught_up, f"{behind} with a snapshot")
        await load.grow(10)
        cluster.heal()
    # It has not made that one itself: it held nothing of what the snapshot begins with.
    assert cluster.snapshot_index(behind) > missed + 2


def _is_no_leader(reply: Reply) -> bool:
    return (reply.status, reply.code, reply.body["retryable"]) == (503, "no_leader", True)


def _is_unavailable(reply: Reply) -> bool:
    """Refused, or not known in time: the same may be asked again."""
    return reply.status in {503, 504} and reply.body["retryable"] is True


def _holders(reply: Reply) -> list[tuple[str, int]]:
    return [(holder["session"], holder["token"]) for holder in reply.body["holders"]]
