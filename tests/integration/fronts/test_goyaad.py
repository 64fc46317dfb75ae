"""goyaad's front on a real cluster: each node asked, a leader killed in the middle, a Go client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest
from jepsen.progress import until

from tests.fronts.goyaad_client import SECOND_NS, GoyaadClient, RpcError
from tests.integration.fronts.cluster import FrontCluster
from tests.tools import go_programs

pytestmark = pytest.mark.asyncio(loop_scope="session")

TIMED_OUT = "No new jobs available in given timeout"
CALL_S = 60.0


async def _clients(cluster: FrontCluster) -> dict[str, GoyaadClient]:
    return {name: await GoyaadClient.to(at) for name, at in cluster.everywhere("goyaad")}


async def _empty(client: GoyaadClient) -> None:
    """Take what other tests left in the tube that everybody shares."""
    while True:
        try:
            await client.next()
        except RpcError as error:
            assert str(error) == TIMED_OUT
            return


async def _error(answer: Awaitable[Any]) -> str:
    with pytest.raises(RpcError) as error:
        await answer
    return str(error.value)


async def test_any_node_serves_any_client(cluster: FrontCluster) -> None:
    """What is put at one is seen, refused, cancelled and taken at the others."""
    clients = await _clients(cluster)
    one, two, three = clients.values()
    await _empty(one)
    assert await one.put("a", b"A", SECOND_NS // 10) == ""
    assert await _error(two.put("a")) == "Rejecting job. Job with ID: a already exists"
    assert [job["ID"] for job in await three.inspect(5)] == ["a"]
    assert await three.next(30 * SECOND_NS) == {"ID": "a", "Body": b"A"}
    number = await two.put("", b"N")
    assert await one.cancel(number) == 0
    assert await _error(three.next()) == TIMED_OUT
    waiting = three.next(30 * SECOND_NS)
    await one.put("b")
    assert (await waiting)["ID"] == "b"
    assert await two.put("b") == ""
    await _empty(two)
    for client in clients.values():
        await client.close()


async def test_nothing_is_lost_when_the_leader_is_killed(cluster: FrontCluster) -> None:
    """Puts and takes at the other two go on, unharmed; each job that was put comes once.

    Clients of the one that is killed lose their connection, as they would with the original; the
    jobs that it had acknowledged are there.
    """
    leader, others = await cluster.roles()
    clients = await _clients(cluster)
    await _empty(clients[leader])
    acknowledged = [f"before {number}" for number in range(20)]
    for name in acknowledged:
        assert await clients[leader].put(name, name.encode()) == ""
    producer, consumer = (clients[name] for name in others)
    taken: list[str] = []
    killed = asyncio.Event()

    async def produce() -> None:
        for number in range(60):
            name = f"job {number}"
            assert await asyncio.wait_for(producer.put(name, name.encode()), CALL_S) == ""
            acknowledged.append(name)
            if number == 20:
                killed.set()

    async def consume() -> None:
        while len(taken) < 80:
            try:
                job = await asyncio.wait_for(consumer.next(2 * SECOND_NS), CALL_S)
            except RpcError as error:
                assert str(error) == TIMED_OUT
                continue
            assert job["Body"] == job["ID"].encode()
            taken.append(job["ID"])

    async with asyncio.TaskGroup() as group:
        group.create_task(produce())
        group.create_task(consume())
        await killed.wait()
        await cluster.kill9(leader)
    assert sorted(taken) == sorted(acknowledged)
    for client in clients.values():
        await client.close()


async def test_a_job_of_a_client_that_was_killed_waits_for_another(cluster: FrontCluster) -> None:
    """Who waits and goes takes nothing along."""
    _, (follower, other) = await cluster.roles()
    gone = await GoyaadClient.to(cluster.at(follower, "goyaad"))
    here = await GoyaadClient.to(cluster.at(other, "goyaad"))
    await _empty(here)
    gone.next(60 * SECOND_NS).cancel()
    await gone.ping()
    gone.writer.transport.abort()
    await here.put("a")
    assert (await here.next(60 * SECOND_NS))["ID"] == "a"
    await gone.close()
    await here.close()


async def test_a_job_given_to_a_node_that_is_dead_is_given_again(cluster: FrontCluster) -> None:
    """A wait of an hour stands in the queue, and its node is killed: others get the jobs."""
    leader, (follower, _) = await cluster.roles()
    gone = await GoyaadClient.to(cluster.at(follower, "goyaad"))
    here = await GoyaadClient.to(cluster.at(leader, "goyaad"))
    await _empty(here)
    gone.next(3_600 * SECOND_NS).cancel()

    async def parked() -> bool:
        tube = await cluster.get(leader, "/v1/tubes/default")
        return bool(tube.body.get("waiting"))

    await until(parked, "a wait in the queue")
    await cluster.kill9(follower)
    for name in ("a", "b"):
        await here.put(name)
    taken = [await asyncio.wait_for(here.next(60 * SECOND_NS), CALL_S) for _ in range(2)]
    assert sorted(job["ID"] for job in taken) == ["a", "b"]
    await gone.close()
    await here.close()


async def test_jobs_are_shared_with_clients_of_beanstalkd(cluster: FrontCluster) -> None:
    """A number there is an id here; a job whose id is no number can be reserved under its own."""
    (_, here), (_, there), _ = cluster.everywhere("goyaad")
    client = await GoyaadClient.to(here)
    await _empty(client)
    node = next(name for name, at in cluster.everywhere("goyaad") if at == there)
    reader, writer = await asyncio.open_connection(*cluster.at(node, "beanstalkd"))

    async def say(line: bytes) -> bytes:
        writer.write(line + b"\r\n")
        return (await asyncio.wait_for(reader.readline(), CALL_S)).rstrip()

    told = await say(b"put 0 0 60 5\r\nhello")
    number = told.removeprefix(b"INSERTED ").decode()
    assert await client.next(10 * SECOND_NS) == {"ID": number, "Body": b"hello"}
    assert await say(b"delete " + number.encode()) == b"NOT_FOUND"
    number = await client.put("", b"back")
    assert await say(b"delete " + number.encode()) == b"DELETED"
    assert await _error(client.next()) == TIMED_OUT
    await client.put("a name", b"x")
    told = await say(b"reserve-with-timeout 10")
    reserved, _, size = told.removeprefix(b"RESERVED ").partition(b" ")
    assert (size, await reader.readexactly(3)) == (b"1", b"x\r\n")
    assert await say(b"delete " + reserved) == b"DELETED"
    assert await client.put("a name") == ""
    await _empty(client)
    writer.close()
    await client.close()


async def test_the_load_test_of_the_original(cluster: FrontCluster) -> None:
    """In Go: five connections, each shared by a producer, a loop of Next and its cancels."""
    program = go_programs.program("goyaad")
    name, address = next(iter(cluster.everywhere("goyaad")))
    client = await GoyaadClient.to(address)
    await _empty(client)
    await client.close()
    process = await asyncio.create_subprocess_exec(
        program,
        "loadtest",
        str(address),
        "5",
        "300",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), CALL_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, (name, err)
    assert out.startswith(b"300 jobs in ")
