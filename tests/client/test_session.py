"""Sessions and what is held under them, when things go wrong: the asyncio shell."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from msgspec.structs import replace

from cluster.client.aio import Client, now_ms
from cluster.client.core import Policy
from cluster.client.keeping import Keeper
from cluster.client.refusals import LockHeld
from cluster.client.session import Session
from cluster.client.taking import Turnstile
from cluster.errors import Indefinite, LockLost
from cluster.testing import VirtualCluster
from cluster.testing.place import running_place
from tests.client.small_server import Gate, SmallServer, problem

HURRIED = Policy(attempt_ms=2_000, connect_ms=500, pause_first_ms=1, pause_most_ms=5)

pytestmark = pytest.mark.both_loops


@pytest.fixture
async def server() -> AsyncIterator[SmallServer]:
    """A server that does what it is told."""
    async with SmallServer() as server:
        yield server


@pytest.fixture
async def client(server: SmallServer) -> AsyncIterator[Client]:
    """A client of it; nothing of it may be left behind."""
    before = asyncio.all_tasks()
    async with Client(server.endpoint, policy=HURRIED) as client:
        yield client
    server.gate = None
    left = {task for task in asyncio.all_tasks() - before if "handle" not in repr(task)}
    own = {task for task in left if "cluster.client" in repr(task) or "client/" in repr(task)}
    assert own == set()


def hangs(*endings: str) -> Gate:
    """A gate that lets requests to these wait until the server ends."""

    async def gate(path: str) -> web.Response | None:
        if path.endswith(endings):
            await asyncio.sleep(3_600)
        return None

    return gate


async def test_no_code_runs_under_a_lost_lock(server: SmallServer, client: Client) -> None:
    """The cluster is silent: the last use of the token, and the last step of the body, come before
    the moment from which the cluster may grant the lock to another.
    """
    told: list[str] = []
    used_ms = stepped_ms = 0
    session = client.session(ttl="1s", on_state=told.append)
    lock = session.lock("orders")

    async def work() -> None:
        nonlocal used_ms, stepped_ms
        async with session, lock:
            server.gate = hangs("keepalive")
            while True:
                using_ms = now_ms()
                if lock.token:
                    used_ms = using_ms
                await asyncio.sleep(0)
                stepped_ms = now_ms()

    with pytest.raises(LockLost):
        await work()
    ended_ms = now_ms()
    lease = session.keeper.lease
    assert told == ["grace", "lost"]
    assert used_ms < lease.kill_at_ms < lease.ends_ms
    print(
        f"bound: last use {lease.ends_ms - used_ms} ms, last step {lease.ends_ms - stepped_ms} ms, "
        f"raised {lease.ends_ms - ended_ms} ms before the cluster may grant it to another"
    )
    assert server.count("DELETE", session.id) == 1
    server.gate = None


async def test_a_body_that_blocks_the_loop_learns_it_at_the_next_use(
    server: SmallServer, client: Client
) -> None:
    """No timer could run: the clock is asked all the same."""
    session = client.session(ttl="1s")
    clock_ms = 0

    def clock() -> int:
        return now_ms() + clock_ms

    client._clock = clock
    lock = session.lock("orders")

    async def work() -> None:
        nonlocal clock_ms
        async with session, lock:
            assert lock.token
            clock_ms = 900
            assert lock.state == "lost"
            _ = lock.token

    with pytest.raises(LockLost, match="orders"):
        await work()


async def test_a_released_lock_leaves_the_body_alone(server: SmallServer, client: Client) -> None:
    """What is lost after that was not held."""
    session = client.session(ttl="1s", owner="process")
    await session.open()
    async with session.lock("orders") as lock:
        await lock.release()
        server.expire(session.id)
        while session.state != "lost":
            await asyncio.sleep(0.01)
    assert lock.state == "free"


async def test_a_release_that_comes_too_late_says_so(server: SmallServer, client: Client) -> None:
    """Somebody gave it back for us: what was done was not under the lock."""
    session = await client.session(owner="process").open()

    async def work() -> None:
        async with session.lock("orders"):
            server.pass_on(server.locks["orders"])

    with pytest.raises(LockLost, match="was lost"):
        await work()


async def test_a_release_that_reaches_nobody_goes_on_behind_us(
    server: SmallServer, client: Client
) -> None:
    """Otherwise the lock would be held as long as the session lives."""
    session = await client.session(owner="process").open()
    lock = session.lock("orders")
    await lock.acquire()
    failing = [502, 404, 403]

    async def gate(path: str) -> web.Response | None:
        if path.endswith("release") and failing:
            return web.Response(status=failing.pop())
        return None

    server.gate = gate
    await lock.release()
    while server.locks["orders"].holder is not None:
        await asyncio.sleep(0.01)
    await session.close()


async def test_a_wait_that_is_cancelled_gives_back_what_it_was_granted(
    server: SmallServer, client: Client
) -> None:
    """The grant was on its way as we were cancelled; nobody would ever have released it."""
    session = await client.session(owner="process").open()
    granted = asyncio.Event()

    async def gate(path: str) -> web.Response | None:
        if path.endswith("acquire") and not granted.is_set():
            server.hold("orders", session.id)
            granted.set()
            await asyncio.sleep(3_600)
        return None

    server.gate = gate
    acquiring = asyncio.create_task(session.lock("orders", wait="1m").acquire())
    await granted.wait()
    acquiring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await acquiring
    while server.locks["orders"].holder is not None:
        await asyncio.sleep(0.01)
    # And the turn among our own tasks is free again.
    async with session.lock("orders", wait="1m"):
        pass


async def test_an_acquire_whose_end_is_unknown_gives_back_what_it_was_granted(
    server: SmallServer, client: Client
) -> None:
    """As one that was cancelled. What a proxy says to those who ask is no answer of the cluster."""
    session = await client.session(owner="process").open()
    asked = 0

    async def gate(path: str) -> web.Response | None:
        nonlocal asked
        if path.endswith("acquire"):
            asked += 1
            if asked == 1:
                server.hold("orders", session.id)
                return web.Response(status=500)
            if asked < 4:
                return web.Response(status=404)
        return None

    server.gate = gate
    with pytest.raises(Indefinite):
        await session.lock("orders").acquire()
    while server.locks["orders"].holder is not None:
        await asyncio.sleep(0.01)


async def test_a_leader_that_left_may_have_granted_it(server: SmallServer) -> None:
    """Nobody leads when the call ends; what was under way is given back once somebody does."""
    is_broken = True

    async def gate(path: str) -> web.Response | None:
        if path.endswith("acquire") and is_broken:
            server.hold("orders", session.id)
            return problem(503, "no_leader", definite=False)
        return None

    async with Client(server.endpoint, policy=replace(HURRIED, attempts_max=1)) as client:
        session = await client.session(owner="process").open()
        server.gate = gate
        with pytest.raises(Indefinite):
            await session.lock("orders").acquire()
        is_broken = False
        while server.locks["orders"].holder is not None:
            await asyncio.sleep(0.01)


async def test_a_session_lost_while_waiting_ends_the_wait(
    server: SmallServer, client: Client
) -> None:
    """By the loss, not by the time the wait may take."""
    server.hold("orders")
    session = await client.session(ttl="1s", owner="process").open()
    acquiring = asyncio.create_task(session.lock("orders", wait="1h").acquire())
    await server.until_seen("POST", "acquire")
    server.expire(session.id)
    with pytest.raises(LockLost, match="session"):
        await acquiring
    with pytest.raises(LockLost):
        await session.lock("other").acquire()


async def test_tasks_of_one_session_take_turns(server: SmallServer, client: Client) -> None:
    """The cluster would give the lock to both, as they are one to it."""
    inside = 0

    async def work() -> None:
        nonlocal inside
        async with session.lock("orders", wait="1m") as lock:
            inside += 1
            assert inside == 1
            await lock.check()
            inside -= 1

    async with client.session() as session:
        await asyncio.gather(*(work() for _ in range(4)))
        async with session.lock("orders"):
            other = asyncio.create_task(session.lock("orders", wait=0).acquire())
            with pytest.raises(LockHeld, match="another task of session"):
                await other
            with pytest.raises(RuntimeError, match="wait for itself"):
                await session.lock("orders").acquire()
    assert server.count("POST", "acquire") == 5


async def test_a_session_whose_owner_ended_is_not_renewed(
    server: SmallServer, client: Client
) -> None:
    """However long others hold on to it."""

    async def open_and_leave() -> Session:
        return await client.session(ttl="1s").open()

    session = await asyncio.create_task(open_and_leave())
    assert session.state == "lost"
    with pytest.raises(LockLost, match="the task that owned it has ended"):
        await session.lock("orders").acquire()
    assert server.count("POST", "keepalive") == 0


async def test_a_session_that_nobody_refers_to_is_not_renewed(
    server: SmallServer, client: Client
) -> None:
    """Its TTL ends it."""
    session = await client.session(ttl="1s", owner="process").open()
    lock = session.lock("orders", on_state=lambda standing: None)
    await lock.acquire()
    keeper = session.keeper
    assert keeper.standing == "held"
    del session, lock
    gc.collect()
    assert keeper.standing == "lost"
    while not client._sessions and keeper.lease.lost is None:
        await asyncio.sleep(0.01)
    assert server.count("DELETE", "") == 0


async def test_a_fork_has_nothing_of_its_parent(server: SmallServer, client: Client) -> None:
    """The child's use raises; the parent's goes on."""
    async with client.session() as session, session.lock("orders") as lock:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                try:
                    _ = lock.token
                except LockLost as error:
                    os.write(writing, str(error).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        os.close(writing)
        assert b"fork" in os.read(reading, 1_000)
        os.close(reading)
        assert lock.token


async def test_closing_the_client_closes_its_sessions(server: SmallServer) -> None:
    """Also those that nobody closed; a second time does nothing."""
    async with Client(server.endpoint) as client:
        session = await client.session(owner="process").open()
        lock = session.lock("orders")
        await lock.acquire()
    await client.close()
    assert server.sessions == {}
    assert server.locks["orders"].holder is None
    with pytest.raises(LockLost):
        _ = lock.token


async def test_a_cancelled_body_gives_everything_back(server: SmallServer, client: Client) -> None:
    """And stays cancelled."""
    inside = asyncio.Event()

    async def work() -> None:
        async with client.session() as session, session.lock("orders"):
            inside.set()
            await asyncio.sleep(3_600)

    working = asyncio.create_task(work())
    await inside.wait()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert server.sessions == {}


async def test_who_waits_at_a_silent_node_asks_the_next_one(server: SmallServer) -> None:
    """The keepalive finds out; the wait, which may be long, does not have to."""
    async with SmallServer() as silent:
        client = Client([silent.endpoint, server.endpoint], policy=HURRIED)
        session = await client.session(ttl="1s", owner="process").open()
        server.sessions |= silent.sessions
        silent.hold("orders")
        lock = session.lock("orders", wait="1h")
        acquiring = asyncio.create_task(lock.acquire())
        await silent.until_seen("POST", "acquire")
        silent.gate = hangs("keepalive", "acquire")
        # Granted by the node that answers; an hour has not passed.
        await acquiring
        assert server.locks["orders"].holder is not None
        await client.close()


async def test_the_loss_of_a_session_is_said_by_the_lock_inside(
    server: SmallServer, client: Client
) -> None:
    """There where it is expected; what follows in the session is cancelled as well."""
    said: list[str] = []

    async def work() -> None:
        async with client.session(ttl="1s") as session:
            while True:
                try:
                    async with session.lock("orders") as lock:
                        server.expire(session.id)
                        await asyncio.sleep(3_600)
                except LockLost as error:
                    said.append(error.kind)
                    assert lock.state == "free"

    with pytest.raises(LockLost) as caught:
        await work()
    assert said[0] == "lock"
    assert caught.value.kind == "session"
    assert set(said[1:]) <= {"session"}


async def test_lengths_of_time_are_checked_where_they_are_given(client: Client) -> None:
    """Not where they are used."""
    with pytest.raises(ValueError, match="ttl"):
        client.session(ttl="soon")
    with pytest.raises(ValueError, match="wait"):
        client.session().lock("orders", wait=-1)


async def test_a_session_that_is_not_open_says_so() -> None:
    """With the cure."""
    async with running_place() as place, Client(place.endpoint) as client:
        session = client.session()
        assert session.state == "free"
        with pytest.raises(RuntimeError, match="async with"):
            await session.lock("orders").acquire()
        await session.close()
        await session.open()
        with pytest.raises(RuntimeError, match="make another"):
            await session.open()


async def test_a_callback_that_raises_does_not_keep_the_loss_from_its_owner(
    server: SmallServer, client: Client
) -> None:
    """The task inside is cancelled all the same, and the error is said."""
    said: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: said.append(str(context["exception"]))
    )

    def on_state(standing: str) -> None:
        raise ValueError("from the callback")

    async def work(session: Session) -> None:
        async with session.lock("orders", on_state=on_state) as lock:
            server.locks["orders"].holder = None
            checking.append(asyncio.create_task(lock.check()))
            await asyncio.wait_for(asyncio.sleep(3_600), 30)

    checking: list[asyncio.Task[bool]] = []
    async with client.session() as session:
        with pytest.raises(LockLost):
            await work(session)
        assert not await checking[0]
    assert said == ["from the callback"]


async def test_two_tasks_cannot_take_one_thing_at_once(client: Client) -> None:
    """The first grant would be forgotten, and held for as long as the session."""
    async with running_place() as place, Client(place.endpoint) as real:
        await real.semaphore("s").set_limit(3)
        async with real.session() as session:
            units = session.semaphore("s")
            taken = await asyncio.gather(
                units.acquire(), units.acquire(), units.acquire(), return_exceptions=True
            )
            assert sum(isinstance(token, RuntimeError) for token in taken) == 2
            await units.release()
            assert (await real.semaphore("s").show())["holders"] == []


async def test_a_token_is_looked_at_once(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread may give it back between the check and the use: that is a loss, no bug."""
    async with client.session() as session, session.lock("orders") as lock:
        grant = lock._grant
        standing = type(session.keeper).standing
        assert isinstance(standing, property)

        def given_back_meanwhile(keeper: Keeper) -> str:
            lock._grant = None
            return "held"

        monkeypatch.setattr(Keeper, "standing", property(given_back_meanwhile))
        assert grant is not None
        assert lock.token == grant.token
        monkeypatch.setattr(Keeper, "standing", standing)
        lock._grant = grant


async def test_a_session_made_before_a_fork_belongs_to_who_opens_it(
    server: SmallServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a fleet whose program is loaded once: it is the child's to end."""
    with monkeypatch.context() as patched:
        patched.setattr(os, "getpid", lambda: 1)
        session = client.session()
    async with session:
        assert len(server.sessions) == 1
    assert server.sessions == {}


async def test_closing_ends_the_session_of_a_dead_owner(
    server: SmallServer, client: Client
) -> None:
    """It is lost to us, and nobody needs to wait for the end of its TTL."""

    async def open_and_leave() -> Session:
        return await client.session(ttl="1h").open()

    session = await asyncio.create_task(open_and_leave())
    session.keeper.look()
    assert session.state == "lost"
    await session.close()
    assert server.sessions == {}


async def test_an_opening_that_was_answered_too_late_is_lost(server: SmallServer) -> None:
    """The body does not begin, and the session is given back."""
    at_ms = 0

    async def gate(path: str) -> web.Response | None:
        nonlocal at_ms
        at_ms += 2_000 if path.endswith("sessions") else 0
        return None

    server.gate = gate
    async with Client(server.endpoint, policy=HURRIED, clock=lambda: at_ms) as late:
        with pytest.raises(LockLost):
            async with late.session(ttl="1s"):
                pytest.fail("it began")
    assert server.sessions == {}


async def test_a_wait_of_another_task_that_ends_lets_nobody_in(
    server: SmallServer, client: Client
) -> None:
    """Two tasks use one object: the one that gives up takes the other one's turn from nobody."""
    server.hold("orders")
    async with client.session() as session:
        lock = session.lock("orders", wait="1m")
        first = asyncio.create_task(lock.acquire())
        await server.until_seen("POST", "acquire")
        with pytest.raises(LockHeld):
            await asyncio.create_task(lock.acquire(wait=0))
        server.pass_on(server.locks["orders"])
        await first
        with pytest.raises(LockHeld, match="another task of session"):
            await asyncio.create_task(session.lock("orders").acquire(wait=0))
        await lock.release()
    assert server.count("POST", "acquire") == 1


async def test_what_is_still_being_given_back_is_not_had_again(
    server: SmallServer, client: Client
) -> None:
    """The cluster would give it again under the same token, and then take it back."""
    may_release = asyncio.Event()

    async def gate(path: str) -> web.Response | None:
        if path.endswith("release"):
            await may_release.wait()
        return None

    server.gate = gate
    async with client.session() as session:
        lock = session.lock("orders", wait="1m")
        token = await lock.acquire()
        releasing = asyncio.create_task(lock.release())
        await server.until_seen("POST", "release")
        for _ in range(2):
            with pytest.raises(LockHeld, match="another task of session"):
                await lock.acquire(wait=0)
        may_release.set()
        await releasing
        async with lock:
            assert lock.token > token


async def test_who_does_not_wait_is_not_kept_by_one_who_is_about_to_go_in() -> None:
    """The turnstile stands open, and is for somebody who was let through and did not run yet."""
    turnstile = Turnstile()
    assert await turnstile.enter(0)
    waiting = asyncio.create_task(turnstile.enter(60_000))
    await asyncio.sleep(0)
    turnstile.leave()
    async with asyncio.timeout(30):
        assert not await turnstile.enter(0)
    assert await waiting


async def test_a_session_forgets_the_names_of_what_it_held(
    server: SmallServer, client: Client
) -> None:
    """It may live for as long as the program, and hold a lock for each order."""
    async with client.session() as session:
        for number in range(5):
            async with session.lock(f"orders/{number}"):
                assert len(session._turnstiles) == 1
        gc.collect()
        assert len(session._turnstiles) == 0


async def test_what_was_lost_is_told_of_nothing_more() -> None:
    """Its session goes on, and may come into danger and out of it."""
    told: list[str] = []
    with VirtualCluster() as coterie:
        async with (
            coterie.client() as one,
            coterie.client() as other,
            other.session(ttl="1h") as issuer,
            one.session() as session,
        ):
            offer = await issuer.issue("gpus", "gpu 1")
            claim = session.claim("gpus", on_state=told.append)
            await claim.acquire()
            await offer.revoke()
            assert not await claim.check()
            coterie.cut(one)
            coterie.advance("8s")
            assert session.state == "grace"
            coterie.heal(one)
            assert session.state == "held"
    assert told == ["lost"]


async def test_a_session_is_opened_once(server: SmallServer, client: Client) -> None:
    """Of two the first would be renewed for ever, and closed by nobody."""
    session = client.session()
    opened = await asyncio.gather(session.open(), session.open(), return_exceptions=True)
    assert sum(isinstance(each, RuntimeError) for each in opened) == 1
    await session.close()
    assert server.sessions == {}
    assert server.count("POST", "sessions") == 1


@pytest.mark.parametrize("closed", ["session", "client"])
async def test_who_is_inside_of_what_another_task_closes_is_cancelled(
    server: SmallServer, client: Client, closed: str
) -> None:
    """The lock is free, and somebody else may have it; who waits for one has waited in vain."""
    session = await client.session(owner="process").open()
    inside = asyncio.Event()

    async def work() -> None:
        async with session.lock("orders"):
            inside.set()
            await asyncio.sleep(3_600)

    working = asyncio.create_task(work())
    await inside.wait()
    waiting = asyncio.create_task(session.lock("orders", wait="1h").acquire())
    server.hold("others")
    queueing = asyncio.create_task(session.lock("others", wait="1h").acquire())
    await server.until_seen("POST", "others/acquire")
    await (session.close() if closed == "session" else client.close())
    for task in (working, waiting, queueing):
        with pytest.raises(LockLost, match="given back"):
            await task
        assert task.cancelling() == 0
    assert server.locks["orders"].holder is None


async def test_who_closes_a_session_itself_goes_on(server: SmallServer, client: Client) -> None:
    """It is no loss to the task that did it."""
    async with client.session() as session:
        await session.close()
        await asyncio.sleep(0)
    assert server.sessions == {}
