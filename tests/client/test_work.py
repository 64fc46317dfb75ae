"""Workers, runners and elections when things go wrong: the asyncio shell."""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import pytest

from cluster.client import aio
from cluster.client.aio import Client, now_ms
from cluster.client.core import Answer, Request
from cluster.client.elections import Candidacy
from cluster.client.jobs import Job
from cluster.client.refusals import BadRequest
from cluster.client.tasks import Task
from cluster.errors import LockLost, Timeout
from cluster.testing.place import Place, running_place


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    """A cluster of one."""
    async with running_place() as place:
        yield place


@pytest.fixture
async def client(place: Place) -> AsyncIterator[Client]:
    """A client of it."""
    async with Client(place.endpoint) as client:
        yield client


async def until(what: Callable[[], Awaitable[bool]]) -> None:
    """Return once it is so; the test's time limit is the deadline."""
    while not await what():
        await asyncio.sleep(0.01)


def asks_to_end(_: object) -> None:
    """As a command's `main` does, at its end."""
    sys.exit(3)


async def awaits_cancelled(_: object) -> None:
    """Somebody has cancelled what we wait for, and not us."""
    task = asyncio.create_task(asyncio.sleep(3_600))
    task.cancel()
    await task


class TestWorker:
    """Jobs."""

    async def test_cancelled_it_gives_back_what_it_had_begun(self, client: Client) -> None:
        """At once, not when its time is over."""
        tube = client.tube("t")
        await tube.put("x", ttr="1h")
        begun = asyncio.Event()

        async def handle(job: Job) -> None:
            begun.set()
            await asyncio.sleep(3_600)

        working = asyncio.create_task(client.worker("t", handle=handle).run())
        await begun.wait()
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        [job] = await tube.reserve(wait="10s")
        assert job.attempt == 2

    async def test_stopped_it_ends_what_it_had_begun(self, client: Client) -> None:
        """And takes nothing more."""
        tube = client.tube("t")
        for body in ("1", "2", "3"):
            await tube.put(body)
        done: list[str | bytes] = []

        async def handle(job: Job) -> None:
            worker.stop()
            await asyncio.sleep(0)
            done.append(job.body)

        worker = client.worker("t", handle=handle)
        await worker.run()
        assert done == ["1"]
        assert (await tube.show())["ready"] == 2

    async def test_stopped_while_it_waits_it_leaves_no_reservation(self, client: Client) -> None:
        """A job that comes just then is there for others."""
        worker = client.worker("t", handle=lambda job: None)
        working = asyncio.create_task(worker.run())

        tubes = client.tube("t")
        await tubes.put("warm up")
        await until(lambda: self._is_empty(client))
        worker.stop()
        await working
        await tubes.put("x")
        [job] = await tubes.reserve(wait="10s")
        assert job.body == "x"

    async def _is_empty(self, client: Client) -> bool:
        figures = await client.tube("t").show()
        return figures["ready"] + figures["reserved"] == 0

    async def test_a_thread_is_waited_for(self, client: Client) -> None:
        """It cannot be cancelled: its job is nobody else's before it is through."""
        tube = client.tube("t")
        await tube.put("x", ttr="1h")
        begun, may_end = threading.Event(), threading.Event()

        def handle(job: Job) -> None:
            begun.set()
            may_end.wait(30)

        working = asyncio.create_task(client.worker("t", handle=handle).run())
        await asyncio.to_thread(begun.wait, 30)
        working.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not working.done()
        assert (await tube.show())["reserved"] == 1
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await working
        # It was through, and so it is done.
        assert await tube.reserve() == []

    async def test_a_handler_whose_reservation_ran_out_is_cancelled(
        self, client: Client, place: Place
    ) -> None:
        """Somebody else has the job; whoever wants to know is told."""
        tube = client.tube("t")
        await tube.put("x", ttr="1s")
        lost: list[int] = []
        begun = asyncio.Event()

        async def handle(job: Job) -> None:
            if job.attempt > 1:
                worker.stop()
                return
            begun.set()
            await asyncio.sleep(3_600)

        worker = client.worker("t", handle=handle, on_lost=lambda job: lost.append(job.id))
        working = asyncio.create_task(worker.run())
        await begun.wait()
        place.node.advance(60_000)
        await working
        assert len(lost) == 1

    async def test_what_a_handler_loses_besides_is_no_loss_of_its_job(self, client: Client) -> None:
        """It has failed, and is judged as whoever fails."""
        tube = client.tube("t")
        await tube.put("x")
        judged: list[str] = []
        lost: list[int] = []

        async def handle(job: Job) -> None:
            async with client.session() as session, session.lock("orders") as lock:
                session.keeper.lose("as the test says")
                assert lock.token

        def on_error(job: Job, error: Exception) -> Literal["bury"]:
            assert isinstance(error, LockLost)
            judged.append(error.kind)
            worker.stop()
            return "bury"

        worker = client.worker(
            "t", handle=handle, on_error=on_error, on_lost=lambda job: lost.append(job.id)
        )
        await worker.run()
        assert (judged, lost) == (["lock"], [])
        assert (await tube.show())["buried"] == 1

    async def test_a_handler_may_end_its_job_itself(self, client: Client) -> None:
        """What it decides counts."""
        tube = client.tube("t")
        await tube.put("x")

        async def handle(job: Job) -> None:
            await job.bury()
            worker.stop()

        worker = client.worker("t", handle=handle)
        await worker.run()
        assert (await tube.show())["buried"] == 1

    @pytest.mark.parametrize("handle", [asks_to_end, awaits_cancelled])
    async def test_a_handler_that_would_end_it_all_has_failed(
        self, client: Client, handle: Callable[[Any], object]
    ) -> None:
        """By an exit, in a thread, or by a cancellation that was not its own."""
        tube = client.tube("t")
        await tube.put("x")
        said: list[Exception] = []

        def on_error(job: Job, error: Exception) -> Literal["bury"]:
            said.append(error)
            worker.stop()
            return "bury"

        worker = client.worker("t", handle=handle, on_error=on_error)
        await worker.run()
        assert [type(error) for error in said] == [RuntimeError]
        assert (await tube.show())["buried"] == 1

    async def test_what_makes_no_sense_ends_it(self, client: Client) -> None:
        """It would be refused for ever."""
        with pytest.raises(BadRequest):
            await client.worker("", handle=lambda job: None).run()
        with pytest.raises(ValueError, match="tube"):
            client.worker(handle=lambda job: None)


class TestRunner:
    """Tasks."""

    async def test_stop_hands_the_rest_back_before_the_session_ends(self, client: Client) -> None:
        """Another runner has it at once."""
        pool = client.pool("p")
        await pool.put(["a", "b"])
        begun, may_end = asyncio.Event(), asyncio.Event()
        runner = client.runner("p", concurrency=1)
        done: list[str] = []

        @runner.task
        async def do(task: Task) -> None:
            begun.set()
            await may_end.wait()
            done.append(task.id)

        running = asyncio.create_task(runner.run())
        await begun.wait()
        runner.stop()
        runner.stop()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not running.done()
        may_end.set()
        await running
        assert len(done) == 1
        shown = await pool.show()
        assert (shown["task_count"], shown["free_count"], shown["sessions"]) == (1, 1, [])

    async def test_what_ended_while_the_cluster_was_asked_is_not_begun_again(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The answer was made before its end was told, and still names it."""
        pool = client.pool("p")
        await pool.put(["a"])
        runner = client.runner("p", tick="1ms")
        done: list[str] = []
        may_end, has_ended = asyncio.Event(), asyncio.Event()
        answers = 0
        call = client.call

        async def late(request: Request, **limits: Any) -> Answer:
            nonlocal answers
            reply = await call(request, **limits)
            if request.path.endswith("/finish"):
                has_ended.set()
            if request.path.endswith("/work"):
                answers += 1
                if answers == 2:
                    may_end.set()
                    await has_ended.wait()
                    while runner._running:
                        await asyncio.sleep(0)
                    runner.stop()
            return reply

        monkeypatch.setattr(client, "call", late)

        @runner.task
        async def do(task: Task) -> None:
            await may_end.wait()
            done.append(task.id)

        await runner.run()
        assert done == ["a"]

    async def test_a_lost_session_cancels_and_is_followed_by_a_new_one(
        self, client: Client, place: Place
    ) -> None:
        """What was being done is not ours any more; nothing of it is finished by us."""
        pool = client.pool("p")
        await pool.put(["a"])
        runner = client.runner("p", ttl="1s", on_error=lambda task, error: said.append(error))
        said: list[Exception] = []
        tokens: list[int] = []
        begun, cancelled = asyncio.Event(), asyncio.Event()

        @runner.task
        async def do(task: Task) -> None:
            tokens.append(task.token)
            if len(tokens) == 1:
                begun.set()
                try:
                    await asyncio.sleep(3_600)
                finally:
                    with pytest.raises(LockLost):
                        task.demand()
                    cancelled.set()
            runner.stop()

        running = asyncio.create_task(runner.run())
        await begun.wait()
        [session] = (await pool.show())["sessions"]
        await client.close_session(session["session"])
        await cancelled.wait()
        await running
        assert len(tokens) == 2
        assert tokens[1] > tokens[0]
        assert [type(error) for error in said] == [LockLost]
        assert (await pool.show())["task_count"] == 0

    async def test_a_task_that_completes_nothing_does_not_spin(self, client: Client) -> None:
        """It rests, longer each time."""
        pool = client.pool("p")
        await pool.put(["a"])
        runner = client.runner("p", retry="20ms", tick="5ms")
        began: list[int] = []

        @runner.task
        async def do(task: Task) -> None:
            began.append(client.clock())
            if len(began) == 4:
                runner.stop()
            raise ValueError("never")

        await runner.run()
        rests = [later - earlier for earlier, later in itertools.pairwise(began)]
        assert all(rest >= least for rest, least in zip(rests, (20, 40, 80), strict=True))
        assert (await pool.show())["task_count"] == 1

    @pytest.mark.parametrize("do", [asks_to_end, awaits_cancelled])
    async def test_a_task_that_would_end_it_all_has_failed(
        self, client: Client, do: Callable[[Any], object]
    ) -> None:
        """It rests, and is not begun again at once."""
        await client.pool("p").put(["a"])
        said: list[Exception] = []

        def on_error(task: Task | None, error: Exception) -> None:
            said.append(error)
            runner.stop()

        runner = client.runner("p", on_error=on_error)
        runner.task(do)
        await runner.run()
        assert [type(error) for error in said] == [RuntimeError]

    async def test_a_pool_that_is_not_there_yet_is_waited_for(self, client: Client) -> None:
        """Runners may start before anybody has put tasks."""
        runner = client.runner("p", tick="10ms")
        done: list[str] = []

        @runner.task
        async def do(task: Task) -> None:
            done.append(task.id)
            runner.stop()

        running = asyncio.create_task(runner.run())
        await asyncio.sleep(0)
        await client.pool("p").put(["a"])
        await running
        assert done == ["a"]

    async def test_what_is_given_back_is_cancelled(self, client: Client) -> None:
        """A second worker comes, and the pool gives back what is over the share."""
        pool = client.pool("p")
        await pool.put(["a", "b"], give_back=True)
        runner = client.runner("p", concurrency=2, tick="10ms")
        began: set[str] = set()
        cancelled: list[str] = []

        @runner.task
        async def do(task: Task) -> None:
            began.add(task.id)
            try:
                await asyncio.sleep(3_600)
            except asyncio.CancelledError:
                with pytest.raises(LockLost, match="another worker"):
                    _ = task.token
                cancelled.append(task.id)
                raise

        running = asyncio.create_task(runner.run())

        async def both() -> bool:
            return len(began) == 2

        await until(both)
        second = client.runner("p", tick="10ms")
        taken: list[str] = []

        @second.task
        async def take(task: Task) -> None:
            taken.append(task.id)
            second.stop()

        await second.run()
        assert cancelled == taken
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    async def test_a_runner_without_anything_to_do_says_so(self, client: Client) -> None:
        """Before it joins."""
        with pytest.raises(RuntimeError, match=r"@runner\.task"):
            await client.runner("p").run()


class TestElection:
    """One leader at a time."""

    async def test_a_deposed_leader_is_cancelled_and_stands_again(self, client: Client) -> None:
        """It is told of both."""
        told: list[str] = []
        election = client.election(
            "g",
            ttl="1s",
            on_elected=lambda token: told.append("elected"),
            on_deposed=lambda token: told.append("deposed"),
        )
        elected = asyncio.Queue[int]()

        async def lead(leadership: Candidacy) -> None:
            elected.put_nowait(leadership.token)
            await asyncio.sleep(3_600)

        running = asyncio.create_task(election.run(lead))
        first = await elected.get()
        leader = await election.leader()
        assert leader is not None
        await client.close_session(leader.session)
        assert await elected.get() > first
        election.stop()
        await running
        assert told == ["elected", "deposed"] * 2
        assert await election.leader() is None

    async def test_the_next_candidate_follows(self, client: Client) -> None:
        """When the leader returns by itself it resigns for good."""
        order: list[str] = []

        async def lead(name: str) -> None:
            async def leading(leadership: Candidacy) -> None:
                assert leadership.state == "held"
                order.append(name)

            await client.election("g").run(leading)

        await asyncio.gather(lead("one"), lead("two"))
        assert sorted(order) == ["one", "two"]

    async def test_what_a_leader_raises_is_raised(self, client: Client) -> None:
        """It is its own mistake, and no reason to lead again."""

        async def lead(leadership: Candidacy) -> None:
            raise ValueError("a bug")

        with pytest.raises(ValueError, match="a bug"):
            await client.election("g").run(lead)
        assert await client.election("g").leader() is None

    async def test_who_would_end_it_all_has_failed(self, client: Client) -> None:
        """It is no stop, and nobody is to believe that it leads still."""
        with pytest.raises(RuntimeError, match="cancelled"):
            await client.election("g").run(awaits_cancelled)
        with pytest.raises(RuntimeError, match="asked for the program to end: 3"):
            await client.election("g").run_in_threads(asks_to_end)
        assert await client.election("g").leader() is None

    async def test_leaders_in_threads_leave_the_loops_threads_alone(self, client: Client) -> None:
        """Those are few, and resolve names: who leads for hours must not keep others waiting."""
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        lead_all = threading.Barrier(3)
        leading = [
            client.election(group).run_in_threads(lambda _: lead_all.wait(30))
            for group in ("g1", "g2")
        ]
        await asyncio.gather(*leading, asyncio.to_thread(lead_all.wait, 30))

    async def test_cancelled_it_resigns(self, client: Client) -> None:
        """The group is free at once."""
        leads = asyncio.Event()

        async def lead(leadership: Candidacy) -> None:
            leads.set()
            await asyncio.sleep(3_600)

        running = asyncio.create_task(client.election("g").run(lead))
        await leads.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert await client.election("g").leader() is None


class Delayed(Client):
    """A client whose requests to some paths wait, once they were answered or before they go."""

    def __init__(self, endpoint: str, ending: str, *, is_before: bool = False):
        super().__init__(endpoint, clock=self.later)
        self.skipped_ms = 0
        self.ending = ending
        self.is_before = is_before
        self.reached, self.may_go_on = asyncio.Event(), asyncio.Event()

    def later(self) -> int:
        """Its clock: `skipped_ms` later than the place has it."""
        return now_ms() + self.skipped_ms

    async def call(self, request: Request, **patience: Any) -> Answer:
        if not request.path.endswith(self.ending):
            return await super().call(request, **patience)
        if not self.is_before:
            answer = await super().call(request, **patience)
        self.reached.set()
        await self.may_go_on.wait()
        return answer if not self.is_before else await super().call(request, **patience)


async def test_a_touch_that_comes_after_the_end_is_no_loss(place: Place) -> None:
    """The job was deleted, the answer is on its way, and a touch is refused meanwhile."""
    told: list[str] = []
    async with Delayed(place.endpoint, "/delete") as client:
        tube = client.tube("t")
        await tube.put("x", ttr="1h")
        [job] = await tube.reserve(on_state=told.append)
        job.keep(asyncio.current_task())
        doing = asyncio.create_task(job.done())
        await client.reached.wait()
        job.keeper.renew_early()
        while job.keeper._renewing is not None:
            await asyncio.sleep(0)
        client.may_go_on.set()
        await doing
    assert told == []
    assert job.state == "free"


async def test_a_reserve_that_is_cancelled_while_it_looks_gives_back(place: Place) -> None:
    """A job came after a long wait; it is asked for its time, and nobody waits for it any more."""
    async with Delayed(place.endpoint, "/touch", is_before=True) as client:
        tube = client.tube("t")
        reserving = asyncio.create_task(tube.reserve(wait="1m"))
        async with Client(place.endpoint) as other:

            async def waits() -> bool:
                return bool((await other.tube("t").show())["waiting"])

            await until(waits)
            client.skipped_ms = 300
            await other.tube("t").put("x", ttr="1s")
            place.flows = False
            await client.reached.wait()
            reserving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reserving

            async def is_ready() -> bool:
                return bool((await other.tube("t").show())["ready"] == 1)

            await until(is_ready)
            place.flows = True


async def test_a_turn_whose_ticket_is_unknown_keeps_nobody_waiting(place: Place) -> None:
    """It was drawn, and who drew it was cancelled before the answer came."""
    async with Delayed(place.endpoint, "/fifos/f/tickets") as client:
        fifo = client.fifo("f")
        await fifo.create(accept_timeout="1h", wait_timeout="1h")
        taking = asyncio.create_task(fifo.turn().acquire())
        await client.reached.wait()
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
        client.may_go_on.set()
        async with Client(place.endpoint) as other, other.fifo("f").turn(wait="1m") as turn:
            assert turn.token


async def test_an_answer_that_is_missing_does_not_end_what_was_begun(place: Place) -> None:
    """The cluster has no leader for a while; the session lives, and so does the work."""

    class Deaf(Client):
        deaf = False
        asked = 0

        async def call(self, request: Request, **patience: Any) -> Answer:
            if self.deaf and request.path.endswith("/work"):
                self.asked += 1
                raise Timeout("nobody leads")
            return await super().call(request, **patience)

    said: list[Exception] = []
    async with Deaf(place.endpoint) as client:
        await client.pool("p").put(["one"])
        begun, may_end = asyncio.Event(), asyncio.Event()
        runner = client.runner("p", tick="10ms", on_error=lambda _, error: said.append(error))
        times = 0

        @runner.task
        async def do(task: Task) -> None:
            nonlocal times
            times += 1
            begun.set()
            await may_end.wait()
            runner.stop()

        running = asyncio.create_task(runner.run())
        await begun.wait()
        client.deaf = True
        while client.asked < 2:
            await asyncio.sleep(0.01)
        client.deaf = False
        may_end.set()
        await running
    assert times == 1
    assert {type(error) for error in said} == {Timeout}


async def test_a_callback_that_raises_is_said_and_survived(client: Client) -> None:
    """By the loop's handler; the worker goes on."""
    said: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: said.append(str(context["exception"]))
    )
    tube = client.tube("t")
    for body in ("1", "2"):
        await tube.put(body)

    async def handle(job: Job) -> None:
        if job.body == "1":
            raise ValueError("from the handler")
        worker.stop()

    def on_error(job: Job, error: Exception) -> Any:
        raise LookupError("from the callback")

    worker = client.worker("t", handle=handle, on_error=on_error)
    await worker.run()
    assert said == ["from the callback"]


async def test_a_stand_that_makes_no_sense_is_refused(client: Client) -> None:
    """Standing again would not help, and nobody would ever know."""

    async def lead(candidacy: Candidacy) -> None:
        pytest.fail("it led")

    with pytest.raises(BadRequest):
        await client.election("g" * 300).run(lead)
    with pytest.raises(BadRequest):
        await client.election("g", ttl="1ms").run(lead)


async def test_a_turn_that_ends_while_the_client_closes_cancels_nobody(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes on behind the caller is broken off; the caller was not cancelled."""
    monkeypatch.setattr(aio, "FAREWELL_MS", 1)
    async with Delayed(place.endpoint, "/done") as client:
        await client.fifo("f").create(done_timeout="1h")
        turn = client.fifo("f").turn()
        await turn.acquire()
        releasing = asyncio.create_task(turn.release())
        await client.reached.wait()
        await client.close()
        await releasing
        assert not releasing.cancelled()
