"""What a program sees under each fault, by each shell, at a real cluster of three.

The program runs in a process of its own (`sdk_witness.py`); what is done to it is in `sdk_faults.py`,
which is also the command that measures how long things take. Here only the order of things counts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.integration import sdk_faults
from tests.integration.cluster import Cluster, started
from tests.integration.sdk_faults import MARGIN_FAULTS, SHELLS, Sight

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.parametrize("shell", SHELLS),
]

# Rounds of each fault and shell; eight locks a round.
ROUNDS = 2


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """The cluster of this module."""
    async with started(tmp_path_factory.mktemp("sdk-faults")) as cluster:
        yield cluster


@pytest_asyncio.fixture(loop_scope="module")
async def cluster(running: Cluster) -> Cluster:
    """The same, whole."""
    await running.make_whole()
    return running


def assert_kept(sight: Sight) -> None:
    """Nothing was lost, and the work went on after the fault."""
    assert sight.seen.ended == "given back", sight.seen.said
    assert sight.whole_ms is not None
    whole_ms = sight.whole_ms
    assert [call for call in sight.seen.calls if call[0] >= whole_ms and call[2] == "ok"], (
        sight.seen.calls[-5:]
    )
    assert all(state in {"grace", "held"} for state, _ in sight.states())


def assert_lost(sight: Sight, *states: str) -> None:
    """It was lost, told so in this order, and left with `LockLost`."""
    assert sight.seen.ended == "LockLost"
    assert tuple(state for state, _ in sight.states())[-len(states) :] == states
    lost_ms = sight.seen.states[-1][1]
    assert sight.seen.used_ms <= lost_ms <= sight.seen.ended_ms
    assert "is lost: " in sight.seen.said


async def test_a_killed_leader(cluster: Cluster, shell: str) -> None:
    """Is not noticed but for the time that one call takes; no call is refused."""
    sight = await sdk_faults.leader_killed(cluster, shell)
    assert_kept(sight)


async def test_leadership_that_is_handed_over(cluster: Cluster, shell: str) -> None:
    """Is not noticed at all."""
    sight = await sdk_faults.handed_over(cluster, shell)
    assert_kept(sight)


async def test_a_client_that_is_cut_off(cluster: Cluster, shell: str) -> None:
    """Is told of grace, then of the loss; its calls end by their own deadline, indefinite."""
    sight = await sdk_faults.partitioned(cluster, shell)
    assert_lost(sight, "grace", "lost")
    assert set(sight.errors()) <= {"indefinite Timeout (timeout)"}


async def test_a_client_that_is_paused(cluster: Cluster, shell: str) -> None:
    """Is told of the loss alone, once it wakes up; its token is refused at the next use."""
    sight = await sdk_faults.stopped(cluster, shell)
    assert_lost(sight, "lost")
    assert sight.whole_ms is not None
    assert sight.seen.used_ms < sight.whole_ms


async def test_a_node_list_that_is_half_dead(cluster: Cluster, shell: str) -> None:
    """Costs the first call some time; after that the client stays with a node that serves."""
    sight = await sdk_faults.half_dead(cluster, shell)
    assert_kept(sight)


async def test_all_nodes_gone_and_back(cluster: Cluster, shell: str) -> None:
    """Nothing is lost as long as the TTL is longer; calls end by their own deadline meanwhile."""
    sight = await sdk_faults.all_gone_for_short(cluster, shell)
    assert_kept(sight)


async def test_all_nodes_gone_for_longer_than_the_ttl(cluster: Cluster, shell: str) -> None:
    """The client cannot know what the cluster's clock made of it: it counts its own, and stops."""
    sight = await sdk_faults.all_gone_for_long(cluster, shell)
    assert_lost(sight, "grace", "lost")


@pytest.mark.parametrize("fault", MARGIN_FAULTS)
async def test_no_token_is_given_out_once_another_may_hold_the_lock(
    cluster: Cluster, shell: str, fault: str
) -> None:
    """In no round, by the one clock of this machine; and the body of an asyncio scope stands still
    by then as well. After a pause the last step may have been under way when it came.
    """
    found = []
    for _ in range(ROUNDS):
        found += await sdk_faults.margins(cluster, shell, MARGIN_FAULTS[fault])
    assert found
    print(f"{fault}, {shell}: least margin {min(each.used for each in found)} ms")
    assert [each for each in found if each.used <= 0] == []
    if shell == "asyncio" and fault != "paused":
        assert [each for each in found if each.stepped <= 0] == []
