"""A node whose time the test passes: what it and its clients believe, in threads and coroutines."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from cluster.client.core import Policy, Request
from cluster.client.jobs import Job
from cluster.client.refusals import DuplicateKey, LockHeld
from cluster.client.sync.work import SyncJob
from cluster.client.tasks import Task
from cluster.errors import Indefinite, LockLost, Overloaded, Timeout
from cluster.testing import VirtualCluster
from cluster.testing.virtual import BEGIN

WITHIN_S = 60.0

pytestmark = pytest.mark.both_loops


@pytest.fixture
def coterie() -> Iterator[VirtualCluster]:
    """One of each test."""
    with VirtualCluster() as coterie:
        yield coterie


class TestTime:
    """What `advance` does to a cluster and its clients."""

    def test_a_day_keeps_what_is_kept(self, coterie: VirtualCluster) -> None:
        """Client and cluster agree after any length, to the millisecond of a renewal."""
        with coterie.sync_client() as client:
            session = client.session(ttl="10s").open()
            lock = session.lock("orders")
            token = lock.acquire()
            for length in ("1ms", "7s", "1h", timedelta(days=1), 9_999):
                coterie.advance(length)
                assert lock.state == "held"
                assert client.lock("orders").holders[0].token == token
            session.close()

    def test_a_session_of_somebody_else_ends(self, coterie: VirtualCluster) -> None:
        """What no client of the fixture keeps alive lasts for its TTL, and no longer."""
        body = json.dumps({"ttl": "10s"}).encode()
        request = urllib.request.Request(
            f"{coterie.url}/v1/sessions", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as response:
            session = json.load(response)["session"]
        coterie.advance("9999ms")
        with urllib.request.urlopen(f"{coterie.url}/v1/sessions/{session}") as response:
            assert json.load(response)["expires_in_ms"] == 1
        coterie.advance("1ms")
        with pytest.raises(urllib.error.HTTPError, match="410") as gone:
            urllib.request.urlopen(f"{coterie.url}/v1/sessions/{session}")
        gone.value.close()

    def test_a_job_in_hand_is_touched(self, coterie: VirtualCluster) -> None:
        """As long as its worker works; one that was only reserved comes back."""
        with coterie.sync_client() as client:
            tube = client.tube("mail")
            tube.put("long", ttr="5s")
            (job,) = tube.reserve()
            job.keep(threading.current_thread())
            coterie.advance("10m")
            assert job.state == "held"
            job.done()
            tube.put("dropped", ttr="5s")
            (dropped,) = tube.reserve()
            coterie.advance("5s")
            assert dropped.state == "lost"
            assert [again.attempt for again in tube.reserve()] == [2]

    def test_a_session_without_an_owner_ends(self, coterie: VirtualCluster) -> None:
        """No more than in earnest is anything kept for a thread that has ended."""
        with coterie.sync_client() as client:
            made = []
            thread = threading.Thread(target=lambda: made.append(client.session(ttl="1s").open()))
            thread.start()
            thread.join()
            coterie.advance("1h")
            assert made[0].state == "lost"

    async def test_a_coroutine_passes_time_by_a_plain_call(self, coterie: VirtualCluster) -> None:
        """Its loop is blocked meanwhile, and what its clients keep is kept all the same."""
        async with coterie.client() as client, client.session(ttl="1s") as session:
            lock = session.lock("orders")
            await lock.acquire()
            coterie.advance("10m")
            assert lock.state == "held"
            assert await lock.check()

    async def test_a_thread_passes_the_time_of_a_loop(self, coterie: VirtualCluster) -> None:
        """Whoever passes it, each keeper is told in its own loop."""
        told: list[str] = []
        async with coterie.client() as client:
            session = client.session(ttl="10s", owner="process", on_state=told.append)
            await session.open()
            coterie.cut(client)
            await asyncio.to_thread(coterie.advance, "9s")
            assert told == ["grace", "lost"]

    def test_a_loop_that_stands_keeps_nothing(self, coterie: VirtualCluster) -> None:
        """Whose loop does not run would not have renewed either."""
        with asyncio.Runner() as runner:
            client = coterie.client()
            session = client.session(ttl="10s", owner="process")
            runner.run(session.open())
            coterie.advance("10s")
            assert session.state == "lost"
            runner.run(client.close())

    def test_a_delayed_job_comes_to_a_waiting_worker(self, coterie: VirtualCluster) -> None:
        """Whoever works in a thread takes what comes due."""
        done = threading.Event()

        def handle(job: SyncJob) -> None:
            assert job.body == "later"
            done.set()

        with coterie.sync_client() as client, ThreadPoolExecutor() as threads:
            worker = client.worker("mail", handle=handle)
            running = threads.submit(worker.run)
            coterie.until_waiting()
            client.tube("mail").put("later", delay="1m")
            coterie.advance("59s")
            assert not done.is_set()
            coterie.advance("1s")
            assert done.wait(WITHIN_S)
            worker.stop()
            running.result(WITHIN_S)

    def test_a_session_that_another_has_ended_is_lost(self, coterie: VirtualCluster) -> None:
        """The cluster is asked, and says that it is no more; its holder is told."""
        told: list[str] = []
        with coterie.sync_client() as client, coterie.sync_client() as other:
            session = client.session(ttl="10s", on_state=told.append).open()
            other.call(Request("DELETE", f"/v1/sessions/{session.id}"))
            assert session.state == "held"
            coterie.advance("2s")
            assert (session.state, told) == ("lost", ["lost"])

    def test_a_claim_that_was_revoked_is_lost(self, coterie: VirtualCluster) -> None:
        """What others can take away is asked for, as with every renewal."""
        with coterie.sync_client() as issuer, coterie.sync_client() as claimer:
            offers, claims = issuer.session().open(), claimer.session().open()
            offer = offers.issue("db", "shard 1")
            claim = claims.claim("db", wait="0s")
            claim.acquire()
            offer.revoke()
            assert claim.state == "held"
            coterie.advance("5s")
            assert claim.state == "lost"

    def test_time_is_not_passed_while_it_is_told_of(
        self, coterie: VirtualCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A callback that passes time would wait for itself: it is told so."""
        monkeypatch.setattr("cluster.testing.virtual.LOOK_S_MOST", 0.1)
        told: list[str] = []

        def on_state(state: str) -> None:
            with pytest.raises(RuntimeError, match="time is being passed already"):
                coterie.advance("1s")
            told.append(state)

        async def lose() -> None:
            async with coterie.client() as client:
                session = client.session(ttl="10s", owner="process", on_state=on_state)
                await session.open()
                coterie.cut(client)
                coterie.advance("8s")
                coterie.heal(client)
                told.append(session.state)

        asyncio.run(lose())
        assert told == ["grace", "held", "held"]

    def test_no_time_passes_by_itself(self, coterie: VirtualCluster) -> None:
        """It begins at one moment, for all tests alike."""
        assert coterie.wall == BEGIN
        coterie.advance_to(datetime(2026, 2, 1, tzinfo=UTC))
        assert coterie.wall == datetime(2026, 2, 1, tzinfo=UTC)

    @pytest.mark.parametrize(
        ("wall", "complaint"),
        [
            (datetime(2026, 2, 1), "has no time zone"),  # noqa: DTZ001 - that is the point
            (datetime(2025, 12, 31, tzinfo=UTC), "is past: the wall clock shows 2026-01-01"),
        ],
    )
    def test_no_time_goes_back(
        self, coterie: VirtualCluster, wall: datetime, complaint: str
    ) -> None:
        """A moment that cannot be reached is refused."""
        with pytest.raises(ValueError, match=complaint):
            coterie.advance_to(wall)

    def test_an_interval_comes_as_often_as_it_is_looked_at(self, coterie: VirtualCluster) -> None:
        """Schedules go by the wall clock, which goes with cluster time."""
        ran: list[datetime] = []
        has_run = threading.Semaphore(0)
        with coterie.sync_client() as client, ThreadPoolExecutor() as threads:
            client.pool("ticks").put([{"id": "tick", "schedule": {"every": "1m"}}])
            runner = client.runner("ticks")

            @runner.task
            def tick(task: Task) -> None:
                ran.append(coterie.wall)
                has_run.release()

            running = threads.submit(runner.run)
            for _ in range(3):
                coterie.until_waiting()
                coterie.advance("1m")
                assert has_run.acquire(timeout=WITHIN_S)
            runner.stop()
            running.result(WITHIN_S)
        assert len(ran) == 3


class TestWaits:
    """Who stands in a queue while time stands."""

    def test_a_test_of_one_thread_can_wait(self, coterie: VirtualCluster) -> None:
        """Waits are passed over, by no more time than they take."""
        with coterie.sync_client() as client:
            held, wants = client.session().open(), client.session().open()
            held.lock("orders").acquire()
            began_ms = coterie.now_ms
            with coterie.skip_waits(), pytest.raises(LockHeld):
                wants.lock("orders", wait="30s").acquire()
            assert coterie.now_ms - began_ms == 30_000
            assert held.state == "held"

    def test_a_wait_ends_as_soon_as_it_can(self, coterie: VirtualCluster) -> None:
        """Where the holder goes first, the lock is granted."""
        with coterie.sync_client() as client, coterie.sync_client() as dying:
            dying.session(ttl="10s").open().lock("orders").acquire()
            wants = client.session().open()
            coterie.cut(dying)
            began_ms = coterie.now_ms
            with coterie.skip_waits():
                assert wants.lock("orders", wait="30s").acquire()
            assert coterie.now_ms - began_ms == 10_000

    def test_who_does_not_come_is_told(self, coterie: VirtualCluster) -> None:
        """A test that waits for a waiter does not wait for ever."""
        with pytest.raises(TimeoutError, match="0 requests stand in queues, not 1"):
            coterie.until_waiting(within_s=0.0)

    async def test_a_coroutine_is_told_the_other_word(self, coterie: VirtualCluster) -> None:
        """The plain call would block those who are to come."""
        with pytest.raises(RuntimeError, match="async_until_waiting"):
            coterie.until_waiting()

    async def test_a_waiter_gets_what_is_given_back(self, coterie: VirtualCluster) -> None:
        """In tasks of one loop."""
        async with coterie.client() as client, client.session() as one, client.session() as other:
            async with one.lock("orders") as lock:
                waiting = asyncio.create_task(other.lock("orders", wait="30s").acquire())
                await coterie.async_until_waiting()
                assert coterie.waiting == 1
                first = lock.token
            assert await waiting > first


class TestCut:
    """A client that gets no answer."""

    def test_its_calls_fail_as_at_the_end_of_their_patience(self, coterie: VirtualCluster) -> None:
        """At once, and until it is healed; others are served."""
        with coterie.sync_client() as client, coterie.sync_client() as other:
            coterie.cut(client)
            with pytest.raises(Timeout, match="cut this client off"):
                client.lock("orders")
            assert other.lock("orders").holders == []
            coterie.heal(client)
            assert client.lock("orders").holders == []

    def test_all_are_cut_also_those_that_come_later(self, coterie: VirtualCluster) -> None:
        """Until all are healed."""
        with coterie.sync_client() as client:
            coterie.cut()
            with coterie.sync_client() as later:
                for each in (client, later):
                    with pytest.raises(Indefinite):
                        each.cluster()
                coterie.heal()
                assert later.cluster().leader == "n1"

    def test_a_client_can_be_made_cut(self, coterie: VirtualCluster) -> None:
        """For a program that starts while the cluster is out of reach."""
        with coterie.sync_client(cut=True) as client, pytest.raises(Timeout):
            client.session().open()

    def test_who_waits_has_waited_in_vain(self, coterie: VirtualCluster) -> None:
        """Its place in the queue is free, as its connection is gone."""
        with coterie.sync_client() as client, coterie.sync_client() as cut:
            holder, wants = client.session().open(), cut.session().open()
            holder.lock("orders").acquire()
            with ThreadPoolExecutor() as threads:
                waiting = threads.submit(wants.lock("orders", wait="30s").acquire)
                coterie.until_waiting()
                coterie.cut(cut)
                with pytest.raises(Timeout):
                    waiting.result(WITHIN_S)
            coterie.heal(cut)

    def test_grace_comes_first_and_ends_with_the_cut(self, coterie: VirtualCluster) -> None:
        """Told by state and by callback, at the moments of the lease."""
        told: list[str] = []
        with coterie.sync_client() as client:
            session = client.session(ttl="10s", on_state=told.append).open()
            coterie.cut(client)
            coterie.advance("7999ms")
            assert (session.state, told) == ("held", [])
            coterie.advance("1ms")
            assert (session.state, told) == ("grace", ["grace"])
            coterie.heal(client)
            assert (session.state, told) == ("held", ["grace", "held"])
            coterie.advance("1h")
            assert told == ["grace", "held"]

    def test_the_holder_knows_before_the_next_one_has_it(self, coterie: VirtualCluster) -> None:
        """However far time is passed at once."""
        order: list[str] = []
        with coterie.sync_client() as cut, coterie.sync_client() as client:
            session = cut.session(ttl="10s", on_state=order.append).open()
            session.lock("orders").acquire()
            coterie.cut(cut)
            wants = client.session().open()
            with ThreadPoolExecutor() as threads:

                def acquire() -> None:
                    wants.lock("orders", wait="1h").acquire()
                    order.append("granted")

                waiting = threads.submit(acquire)
                coterie.until_waiting()
                coterie.advance("30m")
                waiting.result(WITHIN_S)
        assert order == ["grace", "lost", "granted"]

    async def test_the_task_inside_is_cancelled(self, coterie: VirtualCluster) -> None:
        """Work under a lock that is lost ends, also in another task than the one that advances."""
        async with coterie.client() as client:
            inside = asyncio.Event()

            async def work() -> None:
                async with client.session(ttl="10s") as session, session.lock("orders"):
                    inside.set()
                    await asyncio.Event().wait()

            working = asyncio.create_task(work())
            await inside.wait()
            coterie.cut(client)
            coterie.advance("9s")
            with pytest.raises(LockLost):
                await working
            coterie.heal(client)

    async def test_a_watch_is_held_back(self, coterie: VirtualCluster) -> None:
        """What happened meanwhile comes after it."""
        async with coterie.client() as watcher, coterie.client() as client:
            async with client.session() as session, session.lock("orders"):
                pass
            watching = watcher.watch("/locks/", after=1)
            await asyncio.wait_for(anext(watching), WITHIN_S)
            coterie.cut(watcher)
            following = asyncio.ensure_future(anext(watching))
            async with client.session() as session, session.lock("second"):
                await asyncio.wait({following}, timeout=0.05)
                assert not following.done()
            coterie.heal(watcher)
            await asyncio.wait_for(following, WITHIN_S)
            await watching.aclose()


class TestPause:
    """A client whose process stands still."""

    def test_it_believes_what_it_believed(self, coterie: VirtualCluster) -> None:
        """Two hold one lock, by different tokens, until the first one wakes."""
        with coterie.sync_client() as slow, coterie.sync_client() as quick:
            lock = slow.session(ttl="10s").open().lock("orders")
            lock.acquire()
            coterie.pause(slow)
            coterie.advance("1h")
            with quick.session() as session, session.lock("orders") as its:
                assert lock.state == "held"
                assert lock.token < its.token
            coterie.resume(slow)
            assert lock.state == "lost"

    def test_a_short_pause_costs_nothing(self, coterie: VirtualCluster) -> None:
        """What the cluster has kept is kept."""
        with coterie.sync_client() as client:
            session = client.session(ttl="10s").open()
            coterie.pause(client)
            coterie.advance("5s")
            coterie.resume(client)
            coterie.advance("1h")
            assert session.state == "held"


class TestStrangers:
    """Clients of somebody else."""

    def test_a_client_of_another_is_refused(self, coterie: VirtualCluster) -> None:
        """Nothing that is done to it here would reach it."""
        with VirtualCluster() as other, other.sync_client() as client:
            for what in (coterie.cut, coterie.heal, coterie.pause, coterie.resume):
                with pytest.raises(TypeError, match="was not made by"):
                    what(client)


class TestFailures:
    """Failures that the test plants."""

    def test_as_many_requests_fail_as_were_asked_for(self, coterie: VirtualCluster) -> None:
        """Those that match, in the order they come."""
        with coterie.sync_client() as client:
            coterie.fail_next("overloaded", times=2, on="GET /v1/locks")
            assert client.cluster().leader == "n1"
            for _ in range(2):
                with pytest.raises(Overloaded):
                    client.lock("orders")
            assert client.lock("orders").holders == []

    def test_a_patient_client_never_sees_them(self, coterie: VirtualCluster) -> None:
        """The SDK repeats what may be repeated, where its policy lets it."""
        patient = Policy(pause_first_ms=1, pause_most_ms=1)
        with coterie.sync_client(policy=patient) as client:
            coterie.fail_next("no_leader", times=3)
            client.tube("mail").put("once")
            coterie.lose_next()
            client.tube("mail").put("twice")
            assert [job.body for job in client.tube("mail").reserve(limit=9)] == ["once", "twice"]

    def test_a_program_of_its_own_meets_them(self, coterie: VirtualCluster) -> None:
        """They are answers of the node, with their problem documents."""
        coterie.fail_next("shutting_down")
        with pytest.raises(urllib.error.HTTPError) as failure:
            urllib.request.urlopen(f"{coterie.url}/v1/locks/orders")
        with failure.value:
            problem = json.load(failure.value)
        assert (problem["code"], problem["definite"]) == ("shutting_down", True)

    def test_what_was_not_met_is_taken_back(self, coterie: VirtualCluster) -> None:
        """All of it."""
        with coterie.sync_client() as client:
            coterie.fail_next("internal", times=9)
            coterie.lose_next()
            coterie.clear_faults()
            client.tube("mail").put("welcome")

    def test_a_code_that_is_none_is_told(self, coterie: VirtualCluster) -> None:
        """With those that there are."""
        with pytest.raises(ValueError, match='"overlaoded" is no code of a problem; there are bad'):
            coterie.fail_next("overlaoded")

    def test_a_lost_answer_was_an_answer(self, coterie: VirtualCluster) -> None:
        """What was asked for is done; who asked does not know."""
        with coterie.sync_client() as client:
            tube = client.tube("mail")
            coterie.lose_next(on="/jobs")
            with pytest.raises(Indefinite):
                tube.put("welcome", key="ann")
            coterie.lose_next(on="/jobs")
            # A refusal is no success that could be lost.
            with pytest.raises(DuplicateKey):
                tube.put("welcome", key="ann")

    def test_a_lock_whose_grant_was_lost_is_given_back(self, coterie: VirtualCluster) -> None:
        """By the SDK, behind the caller, who does not know that it holds it."""
        with coterie.sync_client() as client, client.session() as session:
            coterie.lose_next(on="acquire")
            with pytest.raises(Indefinite):
                session.lock("orders").acquire()
            with client.session() as other:
                assert other.lock("orders", wait="30s").acquire()


class TestEnd:
    """Closing."""

    def test_it_may_be_closed_again(self) -> None:
        """And says so to whoever goes on."""
        coterie = VirtualCluster()
        coterie.close()
        coterie.close()
        with pytest.raises(RuntimeError, match="this cluster is closed"):
            coterie.advance("1s")

    def test_who_waits_at_the_end_is_not_waited_for(self) -> None:
        """A worker that was not stopped ends with the clients."""
        with ThreadPoolExecutor() as threads:
            with VirtualCluster() as coterie:
                worker = coterie.sync_client().worker("mail", handle=_ignore)
                running = threads.submit(worker.run)
                coterie.until_waiting()
            with pytest.raises(RuntimeError, match="closed"):
                running.result(WITHIN_S)

    def test_the_documents_of_the_api_are_there(self, coterie: VirtualCluster) -> None:
        """Made when they are asked for, and whole."""
        with urllib.request.urlopen(f"{coterie.url}/openapi.json") as response:
            assert "/v1/locks/{name}/acquire" in json.load(response)["paths"]
        with urllib.request.urlopen(f"{coterie.url}/readyz") as response:
            assert json.load(response) == {"ready": True}


def _ignore(job: Job) -> None:
    """Nothing is to be done."""
