"""Every primitive by each shell, in the same words, against a node's real machine."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from cluster.client import aio, elections, fifos, holdings, jobs, rooms, semaphores, session, tasks
from cluster.client.refusals import (
    BatchRefused,
    DuplicateKey,
    LockHeld,
    NoTicketFree,
    NotYourTurn,
    SemaphoreFull,
    SemaphoreInUse,
)
from cluster.client.sync import client as sync_client
from cluster.client.sync import holdings as sync_holdings
from cluster.client.sync import lines as sync_lines
from cluster.client.sync import work as sync_work
from cluster.client.watching import Event
from cluster.errors import LockLost
from cluster.testing.place import Place, running_place
from tests.client.voices import spoken

pytestmark = pytest.mark.both_loops


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    """A cluster of one."""
    async with running_place() as place:
        yield place


@pytest.fixture(params=["asyncio", "sync"])
async def client(request: pytest.FixtureRequest, place: Place) -> AsyncIterator[Any]:
    """A client of each shell."""
    async with spoken(request.param, place.endpoint) as client:
        yield client


async def test_a_lock_is_held_and_given_back(client: Any) -> None:
    """Its token is good inside, and nowhere else."""
    async with client.session(ttl="10s", name="me") as session:
        lock = session.lock("a/b", wait=0)
        assert lock.state == "free"
        async with lock:
            assert lock.token > session.token
            assert (lock.state, session.state) == ("held", "held")
            assert 0 < lock.left_ms <= 9_000
            assert await lock.check()
            assert [holder.token for holder in (await client.lock("a/b")).holders] == [lock.token]
        assert lock.state == "free"
        with pytest.raises(LockLost, match="it is not held"):
            _ = lock.token
        assert (await client.lock("a/b")).holders == []
        # It can be used again.
        await lock.acquire()
        await lock.release()
    assert session.state == "free"


async def test_a_refusal_says_who_holds_it(client: Any) -> None:
    """With all of the reason as attributes."""
    async with client.session() as holder, client.session() as other:
        async with holder.lock("orders"):
            with pytest.raises(LockHeld) as caught:
                await other.lock("orders", wait=0).acquire()
            assert (caught.value.holder, caught.value.position) == (holder.id, 1)
            explained = await other.explain("/locks/orders")
            assert explained["wants"][0]["holders"][0]["session"] == holder.id
        async with other.lock("orders", wait=0) as lock:
            assert lock.state == "held"


async def test_who_waits_is_granted_in_turn(client: Any) -> None:
    """With a token that is newer."""
    async with client.session() as holder, client.session() as other:
        first = holder.lock("orders")
        old = await first.acquire()
        second = other.lock("orders", wait="20s")
        waiting = asyncio.create_task(second.acquire())
        await until_waited_for(client, other.id)
        await first.release()
        assert await waiting > old


async def until_waited_for(client: Any, session: str) -> None:
    """Return once a session waits for something."""
    while not (await client.explain(session))["wants"]:
        await asyncio.sleep(0.01)


async def test_sharers_share(client: Any) -> None:
    """And keep out who wants it alone."""
    async with (
        client.session() as one,
        client.session() as other,
        client.session() as third,
        one.lock("data", shared=True),
        other.lock("data", shared=True, wait=0),
    ):
        assert len((await client.lock("data")).holders) == 2
        with pytest.raises(LockHeld):
            await third.lock("data", wait=0).acquire()


async def test_several_locks_are_had_together_or_not_at_all(client: Any) -> None:
    """Each with a token of its own."""
    async with client.session() as one, client.session() as other:
        async with one.locks("a", "b", shared=("c",)) as locks:
            assert set(locks.tokens) == {"a", "b", "c"}
            assert locks.token == max(locks.tokens.values())
            with pytest.raises(LockHeld) as caught:
                await other.locks("b", "d", wait=0).acquire()
            assert caught.value.blocked == ["b"]
            async with other.lock("d", wait=0):
                pass
        async with other.locks("a", "b", wait=0):
            pass


async def test_units_of_a_semaphore(client: Any) -> None:
    """As many as there are."""
    semaphore = client.semaphore("printers")
    await semaphore.set_limit(3)
    async with client.session() as session:
        async with session.semaphore("printers", units=2) as units:
            assert await units.check()
            assert units.units == 2
            with pytest.raises(SemaphoreFull) as caught:
                await session.semaphore("printers", units=2, wait=0).acquire()
            assert caught.value.missing == 1
            with pytest.raises(SemaphoreInUse):
                await semaphore.delete()
        assert (await semaphore.show())["held"] == 0
    await semaphore.delete()


async def test_tickets_are_issued_claimed_and_revoked(client: Any) -> None:
    """The claimant learns that its ticket was taken away."""
    told: list[str] = []
    async with client.session(ttl="1s") as provider, client.session(ttl="1s") as consumer:
        offer = await provider.issue("gpus", "gpu 1", b"\x00\xff")
        async with consumer.claim("gpus") as claim:
            assert (claim.ticket, claim.data, claim.issuer) == (
                "gpu 1",
                b"\x00\xff",
                provider.id,
            )
            assert await claim.check()
            with pytest.raises(NoTicketFree):
                await consumer.claim("gpus", wait=0).acquire()
        claim = consumer.claim("gpus", on_state=told.append)
        with pytest.raises(LockLost, match="taken away"):
            await relied_on(claim, offer.revoke)
        assert told == ["lost"]
        assert consumer.state == "held"


async def test_one_claim_for_each_of_a_sessions_tasks(client: Any) -> None:
    """Two claims of one session are two tickets."""
    async with client.session() as session:
        for name in ("x", "y"):
            await session.issue("r", name)
        async with session.claim("r") as one, session.claim("r") as other:
            assert {one.ticket, other.ticket} == {"x", "y"}


async def test_turns_of_a_fifo(client: Any) -> None:
    """One after the other."""
    fifo = client.fifo("checkout")
    await fifo.create(done_timeout="1m")
    await fifo.create(done_timeout="1m")
    async with fifo.turn(wait="10s") as turn:
        assert turn.token > 0
        assert 50_000 < turn.left_ms <= 55_000
        with pytest.raises(NotYourTurn) as caught:
            await fifo.turn(wait="20ms").acquire()
        assert caught.value.position == 2
    async with fifo.turn() as later:
        assert later.token > 0
    while (await fifo.show())["length"]:
        await asyncio.sleep(0.01)
    await fifo.delete()


async def test_a_turn_that_is_over_is_lost(client: Any) -> None:
    """Its time cannot be made longer."""
    fifo = client.fifo("short")
    await fifo.create(done_timeout="1s")
    with pytest.raises(LockLost, match="turn"):
        await relied_on(fifo.turn())


async def relied_on(held: Any, begin: Callable[[], Awaitable[object]] | None = None) -> None:
    """Hold something, and go on as long as it may be relied on."""
    async with held:
        if begin is not None:
            await begin()
        while True:
            held.demand()
            await asyncio.sleep(0.01)


async def test_places_of_a_room(client: Any) -> None:
    """Let in by windows; the pass is all that is needed."""
    room = client.room("sale")
    await room.set(window_size=1, window_interval="200ms", active_windows=5)
    first, second = await room.join(), await room.join()
    assert (await first.until_active()).position == 1
    assert second.standing.status == "waiting"
    with pytest.raises(NotYourTurn) as caught:
        await second.until_active(wait=0)
    assert caught.value.ahead == 0
    again = room.place(second.token)
    assert (await again.until_active(wait="20s")).status == "active"
    assert (await room.show())["joined"] == 2
    await room.delete()


async def test_jobs_are_put_reserved_and_ended(client: Any) -> None:
    """Done, given back, set aside, cancelled."""
    tube = client.tube("mail")
    put = await tube.put("hello", key="k/1")
    with pytest.raises(DuplicateKey) as caught:
        await tube.put("again", key="k/1")
    assert caught.value.job == put.job
    assert await tube.cancel("k/1")
    assert not await tube.cancel(put.job)

    await tube.put(b"\x00", priority=1)
    await tube.put("second", priority=2, ttr="30s")
    one, two = await tube.reserve(limit=2)
    assert (one.body, two.body, two.attempt) == (b"\x00", "second", 1)
    await one.touch()
    await one.done()
    with pytest.raises(LockLost):
        _ = one.token
    await two.bury()
    assert await tube.kick() == 1
    with pytest.raises(ValueError, match="later"):
        await fail_at((await tube.reserve())[0])
    async with (await tube.reserve(wait="5s"))[0] as job:
        assert job.attempt == 3
    assert await tube.reserve() == []


async def fail_at(job: Any) -> None:
    """A handler that cannot do it."""
    async with job:
        assert job.token > 0
        raise ValueError("later")


async def test_a_reservation_that_was_taken_is_lost(client: Any, place: Place) -> None:
    """The handler learns it by its token, and by leaving."""
    tube = client.tube("t")
    await tube.put("x", ttr="1s")
    place.flows = False
    [job] = await tube.reserve()
    # The cluster's time runs away from ours, as in a long sleep of this machine.
    place.node.advance(60_000)
    with pytest.raises(LockLost, match="job"):
        await relied_on(job)


async def test_a_worker_works_off(client: Any) -> None:
    """What raises comes again later, and what is set aside stays there."""
    tube = client.tube("work")
    for body in ("good", "bad", "hopeless"):
        await tube.put(body)
    done: list[tuple[str, int]] = []

    def handle(job: Any) -> None:
        done.append((job.body, job.attempt))
        if job.body == "bad" and job.attempt < 3:
            raise ValueError(job.body)
        if job.body == "hopeless":
            raise LookupError(job.body)
        if job.body == "bad":
            worker.stop()

    worker = client.worker(
        "work",
        handle=handle,
        concurrency=2,
        retry="10ms",
        on_error=lambda job, error: "bury" if isinstance(error, LookupError) else "release",
    )
    await asyncio.wait_for(worker.run(), 60)
    assert sorted(done) == [
        ("bad", 1),
        ("bad", 2),
        ("bad", 3),
        ("good", 1),
        ("hopeless", 1),
    ]
    figures = await tube.show()
    assert (figures["buried"], figures["ready"], figures["reserved"]) == (1, 0, 0)


VALUES: list[Any] = [
    "",
    "text",
    b"\x00\xff",
    b"",
    0,
    -2.5,
    True,
    False,
    [],
    [1, "a"],
    {"a": {"b": 1}},
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
async def test_what_is_carried_comes_back_as_what_it_was(client: Any, value: Any) -> None:
    """In a job, a ticket and a task."""
    tube = client.tube("things")
    await tube.put(value)
    [job] = await tube.reserve()
    pool = client.pool("things")
    await pool.put([{"id": "one", "data": value}])
    runner = client.runner("things")
    found: list[Any] = []

    @runner.task
    def do(task: Any) -> None:
        found.append(task.data)
        runner.stop()

    await runner.run()
    async with client.session() as session:
        offer = await session.issue("shelf", "t", value)
        async with session.claim("shelf") as claim:
            found.append(claim.data)
        await offer.revoke()
    assert [job.body, *found] == [value] * 3
    assert {type(one) for one in [job.body, *found]} == {type(value)}


async def test_a_dict_that_stands_for_bytes_is_refused(client: Any) -> None:
    """It would come back as something else."""
    with pytest.raises(ValueError, match="stands for bytes"):
        await client.tube("things").put({"base64": "AAAA"})


async def test_a_runner_does_its_share(client: Any) -> None:
    """Every task is finished once; what raises rests and is tried again."""
    pool = client.pool("reports")
    await pool.put(["a", "b", {"id": "c", "data": "seven"}])
    done: list[str] = []
    said: list[str] = []
    runner = client.runner(
        "reports",
        concurrency=2,
        retry="10ms",
        tick="20ms",
        on_error=lambda task, error: said.append(f"{task and task.id}: {error}"),
    )

    @runner.task
    def do(task: Any) -> None:
        assert task.token > 0
        done.append(task.id)
        if done.count("a") == 1 and task.id == "a":
            raise ValueError("not yet")

    @runner.task("c")
    def do_c(task: Any) -> None:
        done.append(task.data)

    running = asyncio.create_task(runner.run())
    while (await pool.show())["task_count"]:
        await asyncio.sleep(0.01)
    runner.stop()
    await asyncio.wait_for(running, 60)
    assert sorted(done) == ["a", "a", "b", "seven"]
    assert said == ["a: not yet"]
    assert (await pool.show())["sessions"] == []


async def test_a_leader_leads_until_it_resigns(client: Any) -> None:
    """And whoever asks is told who it is."""
    election = client.election("schedulers")
    assert await election.leader() is None
    async with client.session(name="node 1") as session:
        async with session.candidate("schedulers") as candidacy:
            leader = await election.leader()
            assert (leader.session, leader.token, leader.name) == (
                session.id,
                candidacy.token,
                "node 1",
            )
        await candidacy.acquire()
        await candidacy.resign()
    assert await election.leader() is None


async def test_a_watch_tells_what_happens(client: Any) -> None:
    """From where it is told to begin."""
    seen: list[Event] = []
    async with client.session() as session, session.lock("orders") as lock:
        token = lock.token
    watching = client.watch("/locks/orders", after=0)
    async for event in watching:
        seen.append(event)
        if len(seen) == 2:
            break
    await watching.aclose()
    assert [event.what for event in seen] == ["granted", "released"]
    assert (seen[0].token, seen[0].name, seen[0].kind) == (token, "orders", "lock")


async def test_a_batch_is_one_step(client: Any) -> None:
    """All of it or nothing, if so asked."""
    async with client.session() as session:
        take = {"call": "POST /v1/locks/a/acquire", "session": session.id}
        wrong = {"call": "POST /v1/locks/b/release", "session": session.id, "token": 1}
        with pytest.raises(BatchRefused) as caught:
            await client.batch([take, wrong], atomic=True)
        assert caught.value.at == 1
        answers = await client.batch([take])
        assert answers[0]["status"] == 200


async def test_what_a_session_held_is_lost_with_it(client: Any, place: Place) -> None:
    """Told, refused at every use, and raised on the way out."""
    told: list[str] = []
    session = client.session(ttl="1s", on_state=told.append)
    lock = session.lock("orders", on_state=told.append)

    async def work() -> None:
        async with session:
            await relied_on(lock, end)

    async def end() -> None:
        async with aio.Client(place.endpoint) as other:
            await other.close_session(session.id)

    with pytest.raises(LockLost) as caught:
        await work()
    assert told == ["lost", "lost"]
    assert caught.value.kind in {"session", "lock"}
    assert not caught.value.definite
    with pytest.raises(LockLost):
        lock.demand()


PAIRS = [
    (aio.Client, sync_client.SyncClient),
    (session.Session, sync_holdings.SyncSession),
    (holdings.Lock, sync_holdings.SyncLock),
    (holdings.Locks, sync_holdings.SyncLocks),
    (holdings.Units, sync_holdings.SyncUnits),
    (holdings.Claim, sync_holdings.SyncClaim),
    (holdings.Offer, sync_holdings.SyncOffer),
    (elections.Candidacy, sync_holdings.SyncCandidacy),
    (fifos.Fifo, sync_lines.SyncFifo),
    (fifos.Turn, sync_lines.SyncTurn),
    (rooms.Room, sync_lines.SyncRoom),
    (rooms.Place, sync_lines.SyncPlace),
    (semaphores.Semaphore, sync_lines.SyncSemaphore),
    (semaphores.Resource, sync_lines.SyncResource),
    (elections.Election, sync_lines.SyncElection),
    (jobs.Tube, sync_work.SyncTube),
    (jobs.Job, sync_work.SyncJob),
    (jobs.Worker, sync_work.SyncWorker),
    (tasks.Pool, sync_work.SyncPool),
    (tasks.Runner, sync_work.SyncRunner),
]
# What only one shell needs: plain calls and what the parts of the asyncio client say to each other.
ONE_SIDED = frozenset(
    {
        "acquire_lock",
        "adopt",
        "behind",
        "check_again",
        "fate",
        "clock",
        "forget",
        "issued",
        "keeper",
        "kind",
        "loss",
        "run_in_threads",
        "session_view",
        "turnstile",
        "watch_over",
    }
)
PLAIN = frozenset(
    {
        "acquire",
        "check",
        "close_session",
        "keepalive",
        "keepalives",
        "open_session",
        "release",
        "renewals",
        "transfer",
    }
)


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=lambda kind: kind.__name__)
def test_both_shells_have_the_same_words(one: type, other: type) -> None:
    """With the same parameters, but for what a thread is in place of a task."""
    left_out = ONE_SIDED | (PLAIN if one is aio.Client else frozenset())
    if one is jobs.Job:
        left_out |= {"acquire"}
    words = {name for name in dir(one) if not name.startswith("_")} - left_out
    assert words <= {name for name in dir(other) if not name.startswith("_")}
    for word in words:
        found = getattr(one, word)
        if inspect.isfunction(found):
            parameters = set(inspect.signature(found).parameters)
            others = set(inspect.signature(getattr(other, word)).parameters)
            assert parameters - others <= {"timeout_ms", "policy", "owner"}, word
