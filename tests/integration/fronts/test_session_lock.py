"""go-session-lock's functions at three nodes: drivers of two languages, and a leader that dies."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from typing import Any

import aiohttp
import msgspec
import psycopg
import pytest

from tests.integration.cluster import NAMES
from tests.integration.fronts.cluster import FrontCluster
from tests.tools import go_programs

pytestmark = pytest.mark.asyncio(loop_scope="session")

TASKS = 400


class Done(msgspec.Struct):
    """One line of the Go program: a task that a session has done."""

    runner: int
    session: int
    task: int
    began_ns: int
    ended_ns: int
    data: str


def dsn(cluster: FrontCluster, node: str, database: str) -> str:
    """How to reach a node's front."""
    return f"postgres://runner:any@{cluster.at(node, 'postgres')}/{database}?sslmode=disable"


async def driver(cluster: FrontCluster, node: str, database: str) -> Any:
    """A connection of psycopg to a node."""
    return await psycopg.AsyncConnection.connect(dsn(cluster, node, database), autocommit=True)


async def put(cluster: FrontCluster, database: str, count: int) -> None:
    """Put tasks 1 to count."""
    async with await driver(cluster, "n1", database) as db:
        ids = list(range(1, count + 1))
        await db.execute("SELECT add_tasks(%s, %s)", (ids, [f"task {id}" for id in ids]))


async def test_what_one_node_is_told_all_know(cluster: FrontCluster) -> None:
    """A session of one, its work at another, finished by HTTP at the third."""
    first, second, third = NAMES
    async with await driver(cluster, first, "everywhere") as db:
        await db.execute("SELECT add_tasks('{1,2,3}')")
        (session,) = await (await db.execute("SELECT start_session()")).fetchone()
    async with await driver(cluster, second, "everywhere") as db:
        await db.execute("SELECT bump_session(%s)", (session,))
        cursor = await db.execute("SELECT * FROM get_work(%s, 2)", (session,))
        assert await cursor.fetchall() == [(1, None), (2, None)]
    base = f"http://{cluster.at(third, 'session-lock')}/everywhere"
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{base}/finish_tasks", json={"ids": [1]}) as answer:
            assert answer.status == 204
        async with http.post(f"{base}/get_work", json={"session_id": session}) as answer:
            assert await answer.json() == {"tasks": [{"id": id, "data": None} for id in ("2", "3")]}
    async with await driver(cluster, first, "everywhere") as db:
        await db.execute("SELECT end_session(%s)", (session,))
        with pytest.raises(psycopg.Error) as raised:
            await db.execute("SELECT bump_session(%s)", (session,))
        assert raised.value.sqlstate == "SL001"


@pytest.mark.parametrize("name", ["postgres", "pgx"])
async def test_runners_in_go_do_everything_though_the_leader_dies(
    cluster: FrontCluster, name: str
) -> None:
    """lib/pq and pgx: every task is done, and never by two sessions that live."""
    program = go_programs.program("postgres")
    await put(cluster, name, TASKS)
    places = ",".join(dsn(cluster, node, name) for node in NAMES)
    process = await asyncio.create_subprocess_exec(
        str(program),
        *("-driver", name, "-databases", places, "-tasks", str(TASKS)),
        *("-runners", "3", "-work", "2ms", "-limit", "100s"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        some = [await process.stdout.readline() for _ in range(TASKS // 4)]
        killed = await cluster.leader()
        await cluster.kill9(killed)
        rest, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, said.decode()
    lines = [msgspec.json.decode(line, type=Done) for line in (*some, *rest.splitlines())]
    assert {line.task for line in lines} == set(range(1, TASKS + 1))
    assert {line.data for line in lines} == {f"task {id}" for id in range(1, TASKS + 1)}
    check_one_session_at_a_time(lines)
    other = next(node for node in NAMES if node != killed)
    assert (await cluster.get(other, f"/v1/pools/{name}")).body["tasks"] == []


def check_one_session_at_a_time(lines: Iterable[Done]) -> None:
    """A task that was begun again was so by its own session, or after the other had ended it."""
    for _, of_task in itertools.groupby(sorted(lines, key=_task_of), _task_of):
        for one, other in itertools.combinations(of_task, 2):
            overlap = one.began_ns < other.ended_ns and other.began_ns < one.ended_ns
            assert one.session == other.session or not overlap, (one, other)


def _task_of(line: Done) -> int:
    return line.task
