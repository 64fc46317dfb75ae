"""Keeping a lease, with a clock that stands until it is moved."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable

import pytest

from cluster.client.keeping import Keeper, Owner, Scope
from cluster.client.lease import Lease
from cluster.client.refusals import LockHeld, SessionExpired
from cluster.errors import LockLost, Timeout


class Kept:
    """A keeper with its own time, and what came of it."""

    def __init__(
        self, renew: Callable[[Lease], Awaitable[Lease]] | None = None, owner: Owner | None = None
    ):
        self.now_ms = 1_000
        self.told: list[str] = []
        lease = Lease.opened(ttl_ms=10_000, expires_in_ms=10_000, sent_ms=self.now_ms)
        self.keeper = Keeper(
            lease,
            kind="session",
            name="s1",
            token=7,
            owner=Owner(None) if owner is None else owner,
            clock=lambda: self.now_ms,
            renew=renew,
            gone=frozenset({"session_expired"}),
            on_state=self.told.append,
        )
        self.keeper.start()

    async def at(self, now_ms: int) -> None:
        """Move the clock, look, and let what that began come to rest."""
        self.now_ms = now_ms
        self.keeper.look()
        for _ in range(5):
            await asyncio.sleep(0)


async def renewed(lease: Lease) -> Lease:
    """A cluster that answers at once, to a request of the moment it was due."""
    return lease.renewed(expires_in_ms=10_000, sent_ms=lease.try_at_ms)


async def silent(lease: Lease) -> Lease:
    """A cluster that is not reached."""
    raise Timeout("no answer")


async def test_a_lease_is_renewed_when_it_is_time() -> None:
    """Again and again, and nothing is told."""
    kept = Kept(renewed)
    for now_ms in (2_999, 3_000, 5_000, 7_000):
        await kept.at(now_ms)
    assert kept.keeper.lease.ends_ms == 17_000
    assert kept.told == []
    kept.keeper.stop()


async def test_who_cannot_renew_is_told_of_grace_and_then_of_loss() -> None:
    """In time: the cluster gives it to nobody else before the lease ends."""
    kept = Kept(silent)
    for now_ms in (3_000, 8_999, 9_000, 9_999):
        await kept.at(now_ms)
        kept.keeper.demand()
    assert kept.told == ["grace"]
    assert kept.keeper.left_ms == 1
    await kept.at(10_000)
    assert kept.told == ["grace", "lost"]
    assert kept.keeper.lease.ends_ms == 11_000
    with pytest.raises(LockLost, match=r'session "s1" \(token 7\) is lost: .* 9000 ms'):
        kept.keeper.demand()
    kept.keeper.stop()


async def test_a_renewal_in_grace_is_told_too() -> None:
    """Work may go on."""
    answers = iter([silent, silent, renewed])

    async def renew(lease: Lease) -> Lease:
        return await next(answers)(lease.missed(8_900))

    kept = Kept(renew)
    for now_ms in (3_000, 9_000, 9_300):
        await kept.at(now_ms)
    assert kept.told == ["grace", "held"]
    kept.keeper.stop()


async def test_the_clock_counts_not_the_timer() -> None:
    """Nobody looked, as the loop was busy or the machine asleep: the use itself finds out."""
    kept = Kept(renewed)
    kept.now_ms = 60_000
    with pytest.raises(LockLost):
        kept.keeper.demand()
    # And a renewal that comes through after that gives nothing back.
    await kept.at(60_001)
    assert kept.told == ["lost"]
    kept.keeper.stop()


async def test_the_cluster_says_that_it_is_over() -> None:
    """At once, whatever the time says; other refusals are tried again."""
    refusals = iter([LockHeld("odd"), SessionExpired("it has ended", status=410)])

    async def renew(lease: Lease) -> Lease:
        raise next(refusals)

    kept = Kept(renew)
    await kept.at(3_000)
    assert kept.told == []
    await kept.at(4_000)
    assert kept.told == ["lost"]
    assert "it has ended" in str(kept.keeper.loss())
    kept.keeper.stop()


async def test_a_bug_in_a_renewal_or_a_listener_is_said_and_survived() -> None:
    """By the loop's own handler; all others are told all the same."""
    said: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: said.append(context["message"]))

    async def renew(lease: Lease) -> Lease:
        raise KeyError("a bug")

    kept = Kept(renew)

    def listener(standing: str) -> None:
        raise ValueError(standing)

    kept.keeper.listen("first", listener)
    kept.keeper.listen("second", kept.told.append)
    await kept.at(3_000)
    await kept.at(9_000)
    assert kept.told == ["grace", "grace"]
    assert said == ["renewing session s1", "told that s1 is grace", "renewing session s1"]
    kept.keeper.stop()
    loop.set_exception_handler(None)


async def test_a_task_that_ended_owns_nothing() -> None:
    """Its lease is renewed no more, and lost at once."""
    task = asyncio.create_task(asyncio.sleep(0))
    kept = Kept(renewed, Owner(task))
    kept.keeper.demand()
    await task
    with pytest.raises(LockLost, match="the task that owned it has ended"):
        kept.keeper.demand()
    await kept.at(3_000)
    assert kept.told == ["lost"]
    assert kept.keeper.lease.ends_ms == 11_000
    kept.keeper.stop()


async def test_a_thread_that_ended_owns_nothing() -> None:
    """As a task."""
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    kept = Kept(renewed, Owner(thread))
    kept.keeper.demand()
    over.set()
    thread.join()
    await kept.at(3_000)
    assert kept.told == ["lost"]
    assert "the thread that owned it has ended" in str(kept.keeper.loss())
    kept.keeper.stop()


async def test_what_nobody_refers_to_is_not_kept() -> None:
    """A handle that was collected cannot be used any more."""

    class Handle:
        """What its owner holds in hand."""

    handle = Handle()
    kept = Kept(renewed, Owner(None, handle))
    await kept.at(3_000)
    assert kept.keeper.lease.ends_ms == 13_000
    del handle
    gc.collect()
    await kept.at(5_000)
    assert kept.told == ["lost"]
    kept.keeper.stop()


async def test_what_was_stopped_tells_nobody() -> None:
    """And may be relied on no more."""
    kept = Kept(silent)
    kept.keeper.stop()
    await kept.at(60_000)
    assert kept.told == []
    with pytest.raises(LockLost, match="given back"):
        kept.keeper.demand()


async def test_who_waits_for_good_standing_is_let_go_on() -> None:
    """Or hears that it is lost."""
    answers = iter([silent, renewed])

    async def renew(lease: Lease) -> Lease:
        return await next(answers)(lease.missed(8_900))

    kept = Kept(renew)
    await kept.at(3_000)
    kept.now_ms = 9_000
    waiting = asyncio.create_task(kept.keeper.until_held())
    await asyncio.sleep(0)
    assert not waiting.done()
    await kept.at(9_300)
    await waiting

    lost = Kept(silent)
    lost.now_ms = 9_000
    waiting = asyncio.create_task(lost.keeper.until_held())
    await lost.at(9_000)
    await lost.at(10_000)
    with pytest.raises(LockLost):
        await waiting
    kept.keeper.stop()
    lost.keeper.stop()


class TestScope:
    """Cancels who entered it, as a timeout does."""

    async def test_the_body_is_cancelled_and_the_way_out_says_why(self) -> None:
        """At its next await."""
        kept = Kept()
        entered = asyncio.Event()

        async def body() -> None:
            with Scope(kept.keeper):
                entered.set()
                await asyncio.sleep(60)

        task = asyncio.create_task(body())
        await entered.wait()
        await kept.at(10_000)
        with pytest.raises(LockLost) as caught:
            await task
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        kept.keeper.stop()

    async def test_somebody_elses_cancellation_stays_one(self) -> None:
        """Also when both come together."""
        kept = Kept()
        entered = asyncio.Event()

        async def body() -> None:
            with Scope(kept.keeper):
                entered.set()
                await asyncio.sleep(60)

        task = asyncio.create_task(body())
        await entered.wait()
        task.cancel()
        kept.keeper.lose("gone")
        with pytest.raises(asyncio.CancelledError):
            await task
        kept.keeper.stop()

    async def test_two_scopes_of_one_task_cancel_it_once(self) -> None:
        """The outer one says so in the end, and the task can go on."""
        kept = Kept()

        async def body() -> None:
            with Scope(kept.keeper), Scope(kept.keeper):
                await asyncio.sleep(60)

        async def work() -> str:
            with pytest.raises(LockLost):
                await body()
            await asyncio.sleep(0)
            return "went on"

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        await kept.at(10_000)
        assert await task == "went on"
        assert task.cancelling() == 0
        kept.keeper.stop()

    async def test_who_catches_the_inner_loss_is_cancelled_again(self) -> None:
        """The outer thing is lost as well, and nothing else would tell at the next await."""
        kept = Kept()
        caught: list[str] = []

        async def body() -> None:
            with Scope(kept.keeper):
                try:
                    with Scope(kept.keeper):
                        await asyncio.sleep(60)
                except LockLost:
                    caught.append("inner")
                await asyncio.sleep(60)
                caught.append("never")

        async def work() -> None:
            try:
                await body()
            except LockLost:
                caught.append("outer")
            await asyncio.sleep(0)

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        await kept.at(10_000)
        await task
        assert caught == ["inner", "outer"]
        assert task.cancelling() == 0
        kept.keeper.stop()

    async def test_a_body_that_ends_well_does_so_in_vain(self) -> None:
        """It never gave the loop a turn in which it could have been told."""
        kept = Kept()

        async def body() -> None:
            with Scope(kept.keeper):
                kept.now_ms = 10_000

        with pytest.raises(LockLost):
            await body()
        await asyncio.sleep(0)
        kept.keeper.stop()

    async def test_what_the_body_raised_is_the_cause(self) -> None:
        """Of the loss that is raised in its place."""
        kept = Kept()
        kept.keeper.demand()

        def fail() -> None:
            with Scope(kept.keeper):
                kept.keeper.lose("gone")
                raise ValueError("because of it")

        with pytest.raises(LockLost) as caught:
            fail()
        assert isinstance(caught.value.__cause__, ValueError)
        kept.keeper.stop()

    async def test_a_disarmed_scope_lets_the_task_be(self) -> None:
        """What was given back can be lost as it likes."""
        kept = Kept()
        with Scope(kept.keeper) as scope:
            scope.disarm()
            await kept.at(10_000)
            await asyncio.sleep(0)
        kept.keeper.stop()


async def test_who_waits_for_good_standing_goes_on_although_nobody_looked() -> None:
    """The clock says grace, no timer has said so yet, and a renewal comes."""
    may_answer = asyncio.Event()

    async def slow(lease: Lease) -> Lease:
        await may_answer.wait()
        return lease.renewed(expires_in_ms=10_000, sent_ms=9_500)

    kept = Kept(slow)
    await kept.at(9_000 - 1)
    kept.now_ms = 9_500
    assert kept.keeper.standing == "grace"
    waiting = asyncio.ensure_future(kept.keeper.until_held())
    await asyncio.sleep(0)
    may_answer.set()
    await asyncio.wait_for(waiting, 30)
    assert kept.told == []
    kept.keeper.stop()


async def test_a_scope_is_not_entered_when_all_is_over() -> None:
    """Nobody would be told of the loss a second time."""
    kept = Kept()
    await kept.at(30_000)
    assert kept.told == ["lost"]
    with pytest.raises(LockLost), Scope(kept.keeper):
        pytest.fail("it was entered")


async def test_a_keeper_at_rest_hears_of_no_loss() -> None:
    """What it keeps is being ended: the refusal of a renewal on its way says nothing new."""

    async def refused(lease: Lease) -> Lease:
        await asyncio.sleep(0)
        raise SessionExpired("it is over")

    kept = Kept(refused)
    kept.now_ms = 5_000
    kept.keeper.look()
    with kept.keeper.at_rest():
        for _ in range(5):
            await asyncio.sleep(0)
        await kept.at(6_000)
    assert kept.keeper.standing == "held"
    await kept.at(6_001)
    assert kept.told == ["lost"]


async def test_tasks_that_begin_at_once_change_nothing() -> None:
    """From 3.12 on a program may have its loop make such: a renewal that runs as it is made."""
    eager = getattr(asyncio, "eager_task_factory", None)
    if eager is None:
        pytest.skip("this Python has no eager tasks")
    asyncio.get_running_loop().set_task_factory(eager)
    kept = Kept(renewed)
    for now_ms in (3_000, 5_000, 7_000):
        await kept.at(now_ms)
    assert kept.keeper.lease.ends_ms == 17_000
    kept.keeper.stop()
