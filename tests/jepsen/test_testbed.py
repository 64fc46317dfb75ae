"""A cluster of real processes behind toxiproxy: it can be hurt, it heals, and it tells."""

from __future__ import annotations

import contextlib
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from jepsen.preload.disk import Moment, Operation, build
from jepsen.progress import until
from jepsen.testbed import FATAL, KILLED, Testbed, View, Watch, opened
from jepsen.toxiproxy import Server

ROOT = Path(__file__).resolve().parents[2]

# Of real processes on a machine that may be busy; nothing is measured by it.
pytestmark = pytest.mark.timeout(600)
on_the_bed = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def bed(
    tmp_path_factory: pytest.TempPathFactory, toxiproxy_server: Server
) -> AsyncIterator[Testbed]:
    """The cluster of this module, with the disk shim where it can be built."""
    shim = build(ROOT / ".tools")
    equipment = {"shim"} if shim is not None else ()
    folder = tmp_path_factory.mktemp("bed")
    async with opened(folder, toxiproxy_server, slots=1, equipment=equipment, shim=shim) as bed:
        yield bed
        assert not bed.crashes, [str(end) for end in bed.crashes]
        assert not bed.complaints
        assert not bed.watch.torn_terms
        assert not bed.watch.diverged


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """Its processes are the module's, and end with it."""


@on_the_bed
async def test_a_killed_leader_is_replaced_and_comes_back(bed: Testbed) -> None:
    """Its end is explained, the others find a leader, and all nodes get to one state."""
    await bed.heal()
    await bed.until_served()
    leader, _ = await bed.roles()
    await bed.kill9(leader)
    assert bed.ends[-1].node == leader
    assert bed.ends[-1].returncode == -signal.SIGKILL
    assert bed.ends[-1].expected
    assert await bed.until_leader(other_than=leader) != leader
    await bed.heal()
    await bed.until_served()
    views = await bed.until_level()
    assert len({view.digest for view in views.values()}) == 1


@on_the_bed
async def test_a_cut_client_link_is_cut_and_mended(bed: Testbed) -> None:
    """One slot does not reach one node; what was touched is mended again."""
    await bed.heal()
    await bed.until_served()
    node = bed.names[0]
    url = bed.slot_endpoints[node][0]
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{url}/livez") as response:
            assert response.status == 200
        await bed.cut(bed.link_of(0, node))
        with pytest.raises(aiohttp.ClientError):
            await http.get(f"{url}/livez")
        await bed.mend_all()
        async with http.get(f"{url}/livez") as response:
            assert response.status == 200


@on_the_bed
async def test_the_bed_knows_who_is_gone_and_which_way_is_shut(bed: Testbed) -> None:
    """From the moment it is surely so to just before it may end: nodes down or stopped, ways cut or
    silent, bytes made late.
    """
    await bed.heal()
    await bed.until_served()
    _, (near, far) = await bed.roles()
    way = bed.peers[near, far]
    assert not any(map(bed.gone_ms, bed.names))
    assert bed.shut_ms(near, far) == 0

    async def is_known() -> bool:
        return bed.gone_ms(far) > 0 and bed.shut_ms(near, far) > 0

    for do in (bed.cut, bed.silence):
        bed.pause(far)
        await do(way)
        await until(is_known, "who is gone, and what is shut")
        assert (bed.gone_ms(near), bed.shut_ms(far, near)) == (0, 0)
        bed.resume(far)
        await bed.mend(way)
        assert (bed.gone_ms(far), bed.shut_ms(near, far)) == (0, 0)
    assert not bed.is_late
    await bed.poison("latency", bed.link_of(0, near), stream="upstream", latency=1)
    assert not bed.is_late
    await bed.poison("latency", way, stream="upstream", latency=1)
    assert bed.is_late
    await bed.mend_all()
    assert bed.is_late, "what was held up is still on its way"
    await bed.kill9(far)

    async def is_gone() -> bool:
        return bed.gone_ms(far) > 0

    await until(is_gone, "who is gone")
    await bed.start(far)
    assert bed.gone_ms(far) == 0
    await bed.until_served()
    assert [await bed.is_ready(name) for name in bed.names] == [True] * 3
    assert [await bed.read(name) for name in bed.names] == ["ok"] * 3


@on_the_bed
async def test_lost_power_and_a_failed_disk_are_survived(bed: Testbed) -> None:
    """All nodes lose what was not synced, one is stopped by its disk, and everything serves again."""
    if bed.shim is None:
        pytest.skip("there is no C compiler")
    await bed.heal()
    await bed.until_served()
    await bed.kill9(*bed.names, children=True)
    for name in bed.names:
        bed.disks[name].lose_power(random.Random(7))
    await bed.start()
    await bed.until_served()
    leader, _ = await bed.roles()
    bed.excuse(leader, FATAL)
    bed.disks[leader].fail_syncs()
    url = f"{bed.members[bed.names[0]].url}/v1/sessions"
    # Its connection may be the one that breaks.
    with contextlib.suppress(aiohttp.ClientError):
        async with aiohttp.ClientSession() as http:
            await http.post(url, json={"ttl": "1m"})
    assert await bed.ended(leader) == FATAL
    assert bed.disks[leader].counts["faults"] == 1
    await bed.heal()
    await bed.until_served()


@on_the_bed
@pytest.mark.parametrize("operation", [Operation.SYNC, Operation.SEND], ids=["sync", "send"])
async def test_a_node_that_ends_in_the_middle_of_a_request_is_survived(
    bed: Testbed, operation: Operation
) -> None:
    """After a sync of its log, or half a message: the next leader has what was acknowledged."""
    if bed.shim is None:
        pytest.skip("there is no C compiler")
    await bed.heal()
    await bed.until_served()
    leader, others = await bed.roles()
    disk = bed.disks[leader]
    bed.excuse(leader, KILLED)
    async with aiohttp.ClientSession() as http:
        url = f"{bed.members[others[0]].url}/v1/sessions"
        async with http.post(url, json={"ttl": "1h"}) as response:
            session = (await response.json())["session"]
        if operation is Operation.SEND:
            disk.end_at(operation, Moment.HALF, after=5)
        else:
            disk.end_at(operation, Moment.AFTER, letter="j")
        with contextlib.suppress(aiohttp.ClientError):
            await http.post(f"{bed.members[leader].url}/v1/sessions", json={"ttl": "1m"})
        assert await bed.ended(leader) == KILLED
        await bed.heal()
        await bed.until_served()
        for name in bed.names:
            async with http.get(f"{bed.members[name].url}/v1/sessions/{session}") as response:
                assert response.status == 200


def test_the_watch_sees_two_leaders_of_a_term_and_states_that_differ() -> None:
    """What nodes say of themselves is held against each other."""

    def view(node: str, role: str, term: int, applied: int, digest: str) -> View:
        return View(node, "n1", role, term, applied, applied, digest, ready=True)

    watch = Watch()
    watch.note(view("n1", "leader", 3, 10, "a"))
    watch.note(view("n2", "follower", 3, 10, "a"))
    watch.note(view("n1", "leader", 3, 11, "b"))
    assert (watch.torn_terms, watch.diverged, watch.compared) == ({}, {}, 1)
    watch.note(view("n2", "leader", 3, 11, "c"))
    assert list(watch.torn_terms) == [3]
    assert list(watch.diverged) == [11]
