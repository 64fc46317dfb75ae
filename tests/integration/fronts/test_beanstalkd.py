"""beanstalkd's front on a real cluster: each node asked, nodes killed, greenstalk and pystalk."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import greenstalk
import pystalk
import pytest
from jepsen.progress import until

from cluster.node.config import Address
from tests.fronts.beanstalkd_client import BeanstalkClient
from tests.integration.fronts.cluster import FrontCluster

pytestmark = pytest.mark.asyncio(loop_scope="session")

FRONT = "beanstalkd"


async def dialled(address: Address, tube: str) -> BeanstalkClient:
    """A client of one tube and no other."""
    client = await BeanstalkClient.to(address.host, address.port)
    for line in (f"use {tube}", f"watch {tube}", "ignore default"):
        assert not (await client.ask(line)).startswith("NOT")
    return client


def fresh() -> str:
    """A tube of this test."""
    return f"t-{uuid.uuid4().hex[:8]}"


async def in_thread(work: Callable[[Address, str], None], address: Address, tube: str) -> None:
    """Let a client that blocks do its work, in a thread that ends with it."""
    with ThreadPoolExecutor(1) as pool:
        await asyncio.get_running_loop().run_in_executor(pool, work, address, tube)


async def test_any_node_serves_any_client(cluster: FrontCluster) -> None:
    """Put at one, waited for at the next, looked at and worked on at the others."""
    tube = fresh()
    one, two, three = [await dialled(at, tube) for _, at in cluster.everywhere(FRONT)]
    two.send("reserve")
    job = await one.put("first", pri=5)
    assert await two.reply() == b"RESERVED %d 5\r\nfirst" % job
    assert await three.ask(f"peek {job}") == f"FOUND {job} 5\r\nfirst"
    assert (await three.figures(f"stats-job {job}"))["state"] == "reserved"
    assert await three.ask(f"delete {job}") == "NOT_FOUND"
    assert await two.ask(f"release {job} 0 0") == "RELEASED"
    assert await three.reserve() == job
    assert await three.ask(f"bury {job} 0") == "BURIED"
    assert await one.ask("kick 1") == "KICKED 1"
    assert await two.ask(f"delete {job}") == "DELETED"
    for client in (one, two, three):
        figures = await client.figures(f"stats-tube {tube}")
        assert (figures["total-jobs"], figures["cmd-delete"]) == (1, 1)
        await client.close()


async def test_nothing_is_lost_when_the_leader_is_killed(cluster: FrontCluster) -> None:
    """Clients of the other two hear nothing of it; who was connected to it comes back elsewhere.

    What was acknowledged is there, and what the killed node's clients had comes back: each job is
    done once, as nobody is too slow here.
    """
    tube = fresh()
    leader, (first, second) = await cluster.roles()
    at_leader = await dialled(cluster.at(leader, FRONT), tube)
    producer = await dialled(cluster.at(first, FRONT), tube)
    worker = await dialled(cluster.at(second, FRONT), tube)
    put = {await at_leader.put(f"before {number}") for number in range(20)}
    held = {await at_leader.reserve() for _ in range(5)}
    assert held < put
    done: Counter[int] = Counter()
    is_half = asyncio.Event()

    async def produce() -> None:
        for number in range(80):
            put.add(await producer.put(f"job {number}"))
            if number == 30:
                is_half.set()

    async def work() -> None:
        while len(done) < 100:
            job = await worker.reserve(None)
            assert await worker.ask(f"delete {job}") == "DELETED"
            done[job] += 1

    async with asyncio.TaskGroup() as group:
        group.create_task(produce())
        group.create_task(work())
        await is_half.wait()
        await cluster.kill9(leader)
    assert done == Counter(put)
    assert await producer.ask("peek-ready") == "NOT_FOUND"
    for client in (at_leader, producer, worker):
        await client.close()


async def test_who_waits_is_served_by_the_next_leader(cluster: FrontCluster) -> None:
    """A reservation keeps its place through an election, and one that is held keeps its job."""
    tube = fresh()
    leader, (first, second) = await cluster.roles()
    waiting = await dialled(cluster.at(first, FRONT), tube)
    other = await dialled(cluster.at(second, FRONT), tube)
    job = await other.put("held")
    assert await other.reserve() == job
    waiting.send("reserve")

    async def waits() -> bool:
        return bool((await other.figures(f"stats-tube {tube}"))["current-waiting"])

    await until(waits, "a reservation that waits")
    await cluster.kill9(leader)
    assert await other.ask(f"touch {job}") == "TOUCHED"
    assert await other.ask(f"release {job} 0 0") == "RELEASED"
    assert await waiting.reply() == b"RESERVED %d 4\r\nheld" % job
    assert await waiting.ask(f"delete {job}") == "DELETED"
    for client in (waiting, other):
        await client.close()


async def test_puts_in_flight_are_made_once_when_the_leader_is_killed(
    cluster: FrontCluster,
) -> None:
    """A thousand puts, sent without waiting: each is answered, in order, and there once."""
    tube = fresh()
    leader, (first, _) = await cluster.roles()
    client = await dialled(cluster.at(first, FRONT), tube)
    count = 1_000
    for number in range(count):
        client.send("put 0 0 60 4", f"{number:4}")
    jobs = [int((await client.reply()).split()[1]) for _ in range(200)]
    await cluster.kill9(leader)
    jobs += [int((await client.reply()).split()[1]) for _ in range(count - 200)]
    assert jobs == sorted(set(jobs))
    assert (await client.figures(f"stats-tube {tube}"))["current-jobs-ready"] == count
    for number in (0, count // 2, count - 1):
        assert await client.ask(f"peek {jobs[number]}") == f"FOUND {jobs[number]} 4\r\n{number:4}"
    for job in jobs:
        client.send(f"delete {job}")
    assert {await client.reply() for _ in jobs} == {b"DELETED"}
    await client.close()


async def test_drain_mode_is_of_one_node(cluster: FrontCluster) -> None:
    """By SIGUSR1, as with the original; puts at other nodes go on, reservations everywhere."""
    tube = fresh()
    (name, address), (_, elsewhere), _ = cluster.everywhere(FRONT)
    draining, other = await dialled(address, tube), await dialled(elsewhere, tube)
    os.kill(cluster.pid_of(name), signal.SIGUSR1)

    async def drains() -> bool:
        return bool((await draining.figures("stats"))["draining"])

    await until(drains, "drain mode")
    assert await draining.ask("put 0 0 60 1", "x") == "DRAINING"
    job = await other.put()
    assert await draining.reserve() == job
    assert await draining.ask(f"delete {job}") == "DELETED"
    for client in (draining, other):
        await client.close()
    await cluster.kill9(name)  # It would drain for other tests, too.


async def test_greenstalk_works(cluster: FrontCluster) -> None:
    """All of what it offers, a node after the other."""
    for _, address in cluster.everywhere(FRONT):
        await in_thread(_greenstalk, address, fresh())


def _greenstalk(address: Address, tube: str) -> None:
    with greenstalk.Client((address.host, address.port), use=tube, watch=[tube]) as client:
        assert (client.using(), client.watching()) == (tube, [tube])
        first = client.put("first", priority=10)
        second = client.put("ä second\r\n", priority=5, delay=0, ttr=30)
        job = client.reserve()
        assert (job.id, job.body) == (second, "ä second\r\n")
        client.touch(job)
        client.release(job, priority=20)
        job = client.reserve(timeout=10)
        assert job.id == first
        client.bury(job)
        assert client.peek_buried().id == first
        assert client.kick(10) == 1
        client.delete(first)
        assert client.peek(second).body == client.peek_ready().body == "ä second\r\n"
        reserved = client.reserve_job(second)
        client.release(reserved, delay=100)
        assert client.peek_delayed().id == second
        client.kick_job(second)
        client.pause_tube(tube, 60)
        with pytest.raises(greenstalk.TimedOutError):
            client.reserve(timeout=0)
        client.pause_tube(tube, 0)
        assert client.stats_job(second)["kicks"] == 1
        assert client.stats_tube(tube)["cmd-delete"] == 1
        assert tube in client.tubes()
        assert client.stats()["draining"] == "false"
        soon = client.put("soon", priority=0, ttr=1)
        assert client.reserve().id == soon
        client.delete(second)
        with pytest.raises(greenstalk.DeadlineSoonError):
            client.reserve()
        client.delete(soon)
        with pytest.raises(greenstalk.NotFoundError):
            client.delete(soon)
        with pytest.raises(greenstalk.JobTooBigError):
            client.put("x" * 65_536)
        assert client.watch("another") == 2
        assert client.ignore("another") == 1
        with pytest.raises(greenstalk.NotIgnoredError):
            client.ignore(tube)


async def test_pystalk_works(cluster: FrontCluster) -> None:
    """Over all nodes."""
    for _, address in cluster.everywhere(FRONT):
        await in_thread(_pystalk, address, fresh())


def _pystalk(address: Address, tube: str) -> None:
    client = pystalk.BeanstalkClient(address.host, address.port)
    try:
        client.watch(tube)
        with client.using(tube) as inserter:
            _, first = inserter.put_job(b"first", pri=3)
            _, second = inserter.put_job("second")
        job = client.reserve_job(timeout=5)
        assert (job.job_id, bytes(job.job_data)) == (first, b"first")
        client.release_job(first)
        assert client.stats_job(first)["releases"] == 1
        found = [int(job.job_id) for job in client.reserve_iter()]
        assert sorted(found) == sorted((first, second))
        client.bury_job(first)
        client.delete_job(second)
        client.use(tube)
        assert client.peek_buried().job_id == first
        client.kick_jobs(10)
        client.delete_job(first)
        client.pause_tube(tube, delay=5)
        client.unpause_tube(tube)
        assert client.stats_tube(tube)["total-jobs"] == 2
        assert client.stats()["current-connections"] >= 1
        with pytest.raises(pystalk.BeanstalkError):
            client.reserve_job(timeout=0)
    finally:
        client.close()
