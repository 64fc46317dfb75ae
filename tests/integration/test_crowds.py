"""Crowds that ask for nothing unusual: a full house of watchers, thousands of sessions that end at
one moment, ten times the requests that a node takes. Nobody is told a lie, and who is in is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from jepsen.progress import progress, until

from cluster.client.core import path_of
from tests.integration.cluster import NAMES, Cluster, Line, Reply, repeated, started
from tests.integration.crowds import (
    AGAIN_S,
    Watcher,
    descriptors,
    many_files,
    places,
    settled,
    streams,
    until_freed,
)
from tests.integration.history import Traffic

pytestmark = pytest.mark.asyncio(loop_scope="module")

# What a node lets in; of these some hear everything, some read nothing, the others hear of one lock.
WATCHERS = 1_000
LOUD, DEAD = 20, 100
QUIET = WATCHERS - LOUD - DEAD
ASKED_AT_A_TIME = 32
TOGETHER = 900

# Few, so that a test can send ten times as many in one moment.
REQUESTS_MAX = 64

DOOMED = 20_000
DOOMED_TTL_S = 5.0
SURVIVORS_TTL_S = 10.0
RENEWED_AT_A_TIME = 2_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """The cluster of this module."""
    folder = tmp_path_factory.mktemp("crowds")
    with many_files():
        async with started(folder, requests_max=REQUESTS_MAX) as cluster:
            yield cluster


@pytest_asyncio.fixture(loop_scope="module")
async def cluster(running: Cluster) -> Cluster:
    """The same, whole."""
    await running.make_whole()
    return running


@pytest.mark.slow
async def test_a_full_house_of_watchers_hears_everything_and_hinders_nobody(
    cluster: Cluster,
) -> None:
    """As many as one node lets in, a tenth of which never read: the others are told all that
    concerns them, once and in order; one more is sent away; ordinary clients are served.
    """
    node, prefix = "n1", "/locks/house-"
    url, before = cluster.members[node].url, {node: descriptors(cluster, node)}
    quiet = [f"house-quiet-{number:04}" for number in range(QUIET)]
    names = [*quiet, *(f"house-loud-{number:04}" for number in range(LOUD))]
    async with streams() as http, contextlib.AsyncExitStack() as house, Traffic(cluster) as traffic:
        for _ in range(DEAD):
            await _deaf(cluster, node, prefix, house)
        everything = [Watcher(http, url, prefix) for _ in range(LOUD)]
        one_lock = [Watcher(http, url, f"/locks/{name}") for name in quiet]
        few = asyncio.Semaphore(ASKED_AT_A_TIME)

        async def enters(watcher: Watcher) -> None:
            async with few:
                await house.enter_async_context(watcher)

        await asyncio.gather(*map(enters, (*everything, *one_lock)))
        await _until_figure(cluster, node, "coterie_http_watchers", WATCHERS)

        async def is_sent_away() -> bool:
            refused = await cluster.get(node, f"/v1/watch?prefix={prefix}")
            return (refused.status, refused.code) == (503, "overloaded")

        await until(is_sent_away, "one more is sent away")
        await traffic.grow(6)

        for at in range(0, len(names), TOGETHER):
            some, other = names[at : at + TOGETHER], NAMES[at // TOGETHER % 3]
            session = await _opened(cluster, other)
            calls = [
                {"call": f"POST /v1/locks/{name}/acquire", "session": session} for name in some
            ]
            await _batch(cluster, other, calls)
            await settled(cluster, other, "DELETE", path_of("sessions", session))
        told = await _events(cluster, node, prefix)
        assert len(told) == 2 * len(names)

        async def are_told() -> bool:
            for watcher in (*everything, *one_lock):
                watcher.check()
            return all(len(watcher.heard) >= len(told) for watcher in everything) and all(
                len(watcher.heard) >= 2 for watcher in one_lock
            )

        await until(are_told, f"{len(told)} events at {WATCHERS - DEAD} streams")
        for watcher in everything:
            assert places(watcher.heard) == places(told)
        for name, watcher in zip(quiet, one_lock, strict=True):
            own = [event for event in told if event["path"] == f"/locks/{name}"]
            assert places(watcher.heard) == places(own)
        await traffic.grow(6)
    await _until_figure(cluster, node, "coterie_http_watchers", 0)
    await until_freed(cluster, before)
    cluster.check_none_crashed()


async def test_ten_times_more_requests_than_a_node_takes_are_done_or_refused(
    cluster: Cluster,
) -> None:
    """Sent in one moment: what is refused for it did surely not happen, what is granted did, and no
    keepalive among them is turned away.
    """
    numbers = itertools.count(1)

    async def attempt() -> bool:
        refused = await _overloaded(cluster, f"rush-{next(numbers)}")
        await cluster.agree()
        return refused > 0

    await repeated(3, attempt)


async def _overloaded(cluster: Cluster, name: str) -> int:
    """The story above; how many were refused."""
    session = await _opened(cluster, "n1")
    locks = [f"{name}-{number:03}" for number in range(10 * REQUESTS_MAX)]
    lines = {lock: await cluster.line("n1") for lock in locks}
    keepalives = [await cluster.line("n1") for _ in range(REQUESTS_MAX)]
    # All are connected: they come faster than anything can be agreed on.
    for number, (lock, line) in enumerate(lines.items()):
        await line.ask("POST", path_of("locks", lock, "acquire"), {"session": session})
        if number % 10 == 9:
            keepalive = keepalives[number // 10]
            await keepalive.ask("POST", path_of("sessions", session, "keepalive"))
    renewed = await asyncio.gather(*(line.answer() for line in keepalives))
    assert "overloaded" not in {reply.code for reply in renewed}
    replies = await asyncio.gather(*(line.answer() for line in lines.values()))
    few = asyncio.Semaphore(ASKED_AT_A_TIME)

    async def checked(lock: str, reply: Reply) -> bool:
        async with few:
            read = await settled(cluster, "n2", "GET", path_of("locks", lock))
        held = [(holder["session"], holder["token"]) for holder in read.body["holders"]]
        if reply.status == 200:
            assert held == [(session, reply.body["token"])]
        elif reply.body["definite"]:
            assert held == [], (lock, reply)
            assert reply.status == 503, reply
            assert "Retry-After" in reply.headers
        return reply.code == "overloaded"

    return sum(await asyncio.gather(*map(checked, locks, replies)))


@pytest.mark.slow
async def test_sessions_that_end_all_at_once_take_nobody_along(cluster: Cluster) -> None:
    """Twenty thousand stop being renewed at the same moment, one of them with a lock for which some
    of them wait, and others: it goes to the others in their order, never before the TTL, and the
    others' keepalives are answered all the time.
    """
    numbers = itertools.count(1)

    async def attempt() -> bool:
        async with Traffic(cluster) as traffic:
            is_done = await _end_at_once(cluster, f"herd-{next(numbers)}")
            await traffic.grow(6)
        await cluster.agree()
        cluster.check_none_crashed()
        return is_done

    await repeated(3, attempt)


async def _end_at_once(cluster: Cluster, lock: str) -> bool:
    """The story above; False where this machine was too slow to keep all alive until then."""
    agent, is_over = Agent(cluster), asyncio.Event()
    survivors = [await _opened(cluster, name, ttl=f"{SURVIVORS_TTL_S:g}s") for name in NAMES * 20]
    async with asyncio.TaskGroup() as group:
        for number, session in enumerate(survivors):
            group.create_task(agent.keep(NAMES[number % 3], session, is_over))
        renewing = group.create_task(agent.renew())
        while len(agent.sessions) < DOOMED:
            opens = [{"call": "POST /v1/sessions", "ttl": f"{DOOMED_TTL_S:g}s"}] * 1_000
            answers = await _batch(cluster, NAMES[len(agent.sessions) // 1_000 % 3], opens)
            agent.sessions += [answer["session"] for answer in answers]
        doomed = agent.sessions[: len(survivors) + 1]
        held = await settled(
            cluster, "n1", "POST", path_of("locks", lock, "acquire"), {"session": doomed[0]}
        )
        lines = []
        for number, pair in enumerate(zip(doomed[1:], survivors, strict=True)):
            for session in pair:
                line = await cluster.line(NAMES[number % 3])
                wanted = {"session": session, "wait": "10m"}
                await line.ask("POST", path_of("locks", lock, "acquire"), wanted)
                lines.append(line)

        async def are_queued() -> list[str] | None:
            read = await settled(cluster, "n2", "GET", path_of("locks", lock))
            queue = [waiter["session"] for waiter in read.body["waiters"]]
            progress.reached(lock, len(queue))
            return queue if len(queue) == len(lines) or agent.lost else None

        queue = await until(are_queued, f"{len(lines)} waiters")
        agent.is_over.set()
        await renewing
        replies = await asyncio.gather(*(_passed_on(cluster, lock, line) for line in lines))
        is_over.set()
    if agent.lost:
        return False
    granted = sorted(
        (reply for reply in replies if reply.status == 200), key=lambda one: one.body["token"]
    )
    alive = set(survivors)
    assert [reply.body["session"] for reply in granted] == [one for one in queue if one in alive]
    assert granted[0].body["token"] > held.body["token"]
    assert granted[0].told_s - agent.renewed_s >= DOOMED_TTL_S
    assert {reply.code for reply in replies if reply.status != 200} == {"session_expired"}
    for name in NAMES:
        for session in (agent.sessions[0], agent.sessions[DOOMED // 2], agent.sessions[-1]):
            reply = await settled(cluster, name, "GET", path_of("sessions", session))
            assert reply.code in {"session_expired", "session_not_found"}, reply
    read = await settled(cluster, "n3", "GET", path_of("locks", lock))
    assert read.body["holders"] == []
    return True


class Agent:
    """One that renews all its sessions together, until it is over, and others one by one.

    Attributes:
        sessions: may grow meanwhile.
        lost: some that ended all the same.
        renewed_s: when the last renewal of the first of them was sent, by `time.monotonic`.
    """

    def __init__(self, cluster: Cluster):
        self.sessions: list[str] = []
        self.lost: list[str] = []
        self.renewed_s = 0.0
        self.is_over = asyncio.Event()
        self._cluster = cluster

    async def renew(self) -> None:
        """Go on to the end."""
        path = path_of("sessions", "keepalive")
        while not self.is_over.is_set():
            parts = [
                self.sessions[at : at + RENEWED_AT_A_TIME]
                for at in range(0, len(self.sessions), RENEWED_AT_A_TIME)
            ]
            replies = await asyncio.gather(
                *(
                    self._cluster.ask(NAMES[number % 3], "POST", path, {"sessions": part})
                    for number, part in enumerate(parts)
                )
            )
            for reply in replies:
                assert reply.status == 200 or reply.body["retryable"] is True, reply
                self.lost += reply.body.get("expired", [])
                progress.mark()
            if replies and replies[0].status == 200:
                self.renewed_s = replies[0].asked_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DOOMED_TTL_S / 10):
                    await self.is_over.wait()

    async def keep(self, node: str, session: str, is_over: asyncio.Event) -> None:
        """Renew one session by itself, all the time. It must live on, unless we were too slow."""
        path, asked_s = path_of("sessions", session, "keepalive"), time.monotonic()
        while not is_over.is_set():
            reply = await self._cluster.ask(node, "POST", path)
            if reply.asked_s - asked_s > SURVIVORS_TTL_S / 2:
                # What ran out was this process's time; another attempt may do better.
                self.lost.append(session)
            assert reply.status == 200 or reply.body["retryable"] is True or self.lost, reply
            asked_s = reply.asked_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await is_over.wait()


async def _passed_on(cluster: Cluster, lock: str, line: Line) -> Reply:
    """Wait for a turn, and give it back at once."""
    reply = await line.answer()
    progress.mark()
    if reply.status == 200:
        held = {"session": reply.body["session"], "token": reply.body["token"]}
        await settled(cluster, "n1", "POST", path_of("locks", lock, "release"), held)
    return reply


async def _opened(cluster: Cluster, node: str, *, ttl: str = "10m") -> str:
    """Open a session."""
    reply = await settled(cluster, node, "POST", path_of("sessions"), {"ttl": ttl})
    assert reply.status == 201, reply
    return str(reply.body["session"])


async def _batch(cluster: Cluster, node: str, calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Have several calls carried out in one step; their answers, all of them good."""
    reply = await settled(cluster, node, "POST", "/v1/batch", {"commands": calls})
    assert reply.status == 200, reply
    answers = reply.body["answers"]
    assert all(answer["status"] < 300 for answer in answers), answers[0]
    return [answer["body"] for answer in answers]


async def _deaf(cluster: Cluster, node: str, prefix: str, stack: contextlib.AsyncExitStack) -> None:
    """Open a stream of which nothing but the first words is ever read."""
    loop, head = asyncio.get_running_loop(), f"GET /v1/watch?prefix={prefix} HTTP/1.1\r\nHost: x"
    while True:
        line = stack.enter_context(socket.socket())
        # Before it is connected: the window is agreed on then.
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        line.setblocking(False)
        await loop.sock_connect(line, tuple(cluster.members[node].http))
        await loop.sock_sendall(line, head.encode() + b"\r\n\r\n")
        if (await loop.sock_recv(line, 12)).endswith(b" 200"):
            return
        await asyncio.sleep(AGAIN_S)


async def _events(cluster: Cluster, node: str, prefix: str) -> list[dict[str, Any]]:
    """All events below a path, by pages."""
    found: list[dict[str, Any]] = []
    after = 0
    while True:
        page = f"/v1/events?prefix={prefix}&limit=1000&after={after}"
        reply = await settled(cluster, node, "GET", page)
        assert not reply.body["lost"], reply.body
        found += reply.body["events"]
        after = reply.body["next"]
        if not reply.body["more"]:
            return found


async def _until_figure(cluster: Cluster, node: str, figure: str, number: int) -> None:
    async def is_so() -> bool:
        found = int((await cluster.figures(node))[figure])
        progress.reached((figure, number), -abs(found - number))
        return found == number

    await until(is_so, f"{figure} of {node} at {number}")
