"""Leadership handed over on request and on SIGTERM: planned, so it costs nobody a request."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from jepsen.progress import until

from tests.cli.running import finish
from tests.integration.cluster import NAMES, Cluster, started
from tests.integration.history import Load, Traffic

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """The cluster of this module."""
    async with started(tmp_path_factory.mktemp("handover")) as cluster:
        yield cluster


@pytest_asyncio.fixture(loop_scope="module")
async def cluster(running: Cluster) -> Cluster:
    """The same, whole."""
    await running.make_whole()
    return running


async def test_leadership_goes_to_each_node_in_turn_under_load(cluster: Cluster) -> None:
    """No request fails; whatever must be repeated says so, and each target leads."""
    async with Traffic(cluster) as traffic:
        for asked, target in [("n1", "n2"), ("n1", "n3"), ("n2", "n1"), ("n3", "n3")]:
            await traffic.grow(12)
            await handed_over(cluster, asked, target)
        await traffic.grow(12)
    await cluster.agree()


async def test_a_hand_over_to_nobody_known_changes_nothing(cluster: Cluster) -> None:
    """A name that is none is 404 with the names there are; the leader itself is fine."""
    before = await cluster.leader()
    reply = await cluster.ask("n1", "POST", "/v1/cluster/transfer", {"to": "n9"})
    assert (reply.status, reply.code) == (404, "node_not_found"), reply
    assert reply.body["nodes"] == list(NAMES)
    reply = await cluster.ask("n1", "POST", "/v1/cluster/transfer", {"to": before})
    assert (reply.status, reply.body["leader"]) == (200, before), reply


async def test_leadership_does_not_go_to_a_dead_node(cluster: Cluster) -> None:
    """The refusal can be repeated, and without a target the other follower takes over."""
    _, (dead, other) = await cluster.roles()
    await cluster.kill9(dead)
    leader = await cluster.leader(*cluster.running)

    async def is_refused() -> bool:
        reply = await cluster.ask(leader, "POST", "/v1/cluster/transfer", {"to": dead})
        # It may not have noticed yet, and wait for the target in vain.
        assert reply.status == 409, reply
        assert reply.body["retryable"] is True
        return reply.code == "no_candidate"

    await until(is_refused, "no candidate")
    reply = await cluster.ask(other, "POST", "/v1/cluster/transfer", {})
    assert reply.status in {200, 409}, reply
    await cluster.leader(*cluster.running)


async def test_sigterm_of_the_leader_costs_nobody_a_request(cluster: Cluster) -> None:
    """It hands over, answers what it has begun, and ends with 0; the others go on at once."""
    async with Load(cluster, clients=9, locks=3) as load:
        for _ in range(2):
            leader = await cluster.leader()
            await load.grow(9)
            cluster.signal(leader, signal.SIGTERM)
            assert await cluster.ended(leader) == 0
            words = "\n".join(cluster.lines[leader][-3:])
            assert '"stopped"' in words
            await load.grow(18)
            await cluster.start(leader)
            await cluster.until_ready(leader)


async def test_sigterm_answers_a_request_that_waits(cluster: Cluster) -> None:
    """A long poll at a stopping node is not left hanging: it leaves its queue, is told so for
    certain, and to ask another node.
    """
    lock = "stopping"
    _, (stopping, other) = await cluster.roles()
    holder, waiter = [await cluster.open_session(other) for _ in range(2)]
    token = await cluster.granted(other, lock, holder)
    wait = asyncio.create_task(cluster.acquire(stopping, lock, waiter, key=lock, wait="5m"))
    await cluster.until_queued(other, lock, waiter)
    cluster.signal(stopping, signal.SIGTERM)
    reply = await wait
    assert (reply.status, reply.code) == (503, "shutting_down"), reply
    assert (reply.body["retryable"], reply.body["definite"]) == (True, True)
    assert await cluster.waiters(other, lock) == []
    assert await cluster.ended(stopping) == 0
    again = asyncio.create_task(cluster.acquire(other, lock, waiter, key=lock, wait="5m"))
    await cluster.until_queued(other, lock, waiter)
    await cluster.released(other, lock, holder, token)
    assert (await again).body["session"] == waiter


async def test_the_command_line_hands_over(cluster: Cluster) -> None:
    """`coterie transfer`, to a node that is named and to the fittest."""
    leader, (target, _) = await cluster.roles()
    given = ("transfer", "--endpoints", ",".join(cluster.endpoints))
    code, out, err = await finish(*given, "--to", target)
    assert (code, out, err) == (0, f"{target} leads\n", "")
    assert await cluster.leader(other_than=leader) == target
    code, out, err = await finish(*given)
    assert (code, err) == (0, "")
    assert await cluster.leader(other_than=target) in out


async def handed_over(cluster: Cluster, asked: str, target: str) -> None:
    """Ask until a hand-over worked: a slow machine may let one run into its time limit."""

    async def is_done() -> bool:
        reply = await cluster.ask(asked, "POST", "/v1/cluster/transfer", {"to": target})
        if reply.status == 200:
            assert await cluster.leader() == target
            return True
        assert reply.body["retryable"] is True, reply
        return False

    await until(is_done, f"{target} leads")
