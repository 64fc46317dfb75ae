"""Questions of clients that know no elections: held, and never asked twice in vain."""

from __future__ import annotations

import asyncio

import pytest

from cluster.errors import ConnectionLost, NoLeader, Overloaded, Refused, ShuttingDown, Timeout
from cluster.fronts.desk import Desk
from cluster.machine.commands import AcquireLock, OpenSession
from cluster.machine.commands.jobs import PutJob, ReserveJobs, ReturnJob
from cluster.machine.outcome import Granted, Opened
from cluster.machine.outcome.jobs import JobPut
from cluster.testing.local_node import LocalNode


async def _until(condition: object, *, of: int = 1_000) -> None:
    for _ in range(of):
        if condition():  # type: ignore[operator]
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not come to that")


async def test_a_command_is_answered() -> None:
    """The outcome itself, no envelope."""
    desk = Desk(LocalNode())
    assert isinstance(await desk.ask(OpenSession("s", 1_000)), Opened)


@pytest.mark.parametrize("error", [NoLeader("nobody"), Overloaded("full")])
async def test_what_surely_did_not_happen_is_asked_again(error: Exception) -> None:
    """Nobody leads, the queue is full: the client waits and knows nothing of it."""
    node = LocalNode()
    desk = Desk(node)
    if isinstance(error, Overloaded):
        node.refuse_with = error
    else:
        node.fail_with = error
    asked = asyncio.create_task(desk.ask(OpenSession("s", 1_000)))
    await asyncio.sleep(0)
    assert not asked.done()
    node.refuse_with = node.fail_with = None
    assert isinstance(await asked, Opened)


@pytest.mark.parametrize(
    "error",
    [
        Timeout("late"),
        ConnectionLost("gone"),
        ShuttingDown("going"),
        Refused("no", code="bad", status=400, reason={}),
    ],
)
async def test_what_may_have_happened_is_asked_once(error: Exception) -> None:
    """As is what will be no better soon."""
    node = LocalNode()
    node.fail_with = error
    with pytest.raises(type(error)):
        await Desk(node).ask(OpenSession("s", 1_000))
    assert len(node.taken) == 1


async def test_patience_ends() -> None:
    """By the clock it was given."""
    node, now = LocalNode(), 0.0
    node.fail_with = NoLeader("nobody")

    def clock() -> float:
        nonlocal now
        now += 10.0
        return now

    with pytest.raises(NoLeader):
        await Desk(node, patience_s=100.0, clock=clock).ask(OpenSession("s", 1_000))
    with pytest.raises(NoLeader):
        await Desk(node, patience_s=100.0, clock=clock).read()
    assert 1 < len(node.taken) < 20


async def test_a_client_that_goes_leaves_its_queue() -> None:
    """A cancelled question hangs up at the node."""
    node = LocalNode()
    desk = Desk(node)
    first = await desk.ask(OpenSession("a", 60_000))
    second = await desk.ask(OpenSession("b", 60_000))
    assert isinstance(first, Opened) and isinstance(second, Opened)
    assert isinstance(await desk.ask(AcquireLock(first.session, "x")), Granted)
    waiting = asyncio.create_task(desk.ask(AcquireLock(second.session, "x", wait_ms=60_000)))
    await _until(lambda: node.parked == 1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert len(node.hung_up) == 1


async def test_what_is_granted_to_who_goes_in_that_moment_goes_back() -> None:
    """The answer is there, and nobody takes it any more: a reservation is undone."""
    node = LocalNode()
    desk = Desk(node)
    assert isinstance(await desk.ask(PutJob("t", b"x")), JobPut)
    asked = asyncio.create_task(desk.ask(ReserveJobs(("t",))))
    await _until(lambda: len(node.taken) == 2)
    # The double answers in the next turn of the loop; the task would hear of it in the one after.
    await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await _until(lambda: node.machine.jobs.pictures.jobs("t", "ready", 0))
    assert isinstance(node.taken[-1], ReturnJob)


async def test_a_read_holds_through_an_election() -> None:
    """It is answered by state that is up to date."""
    node = LocalNode()
    node.fail_with = NoLeader("nobody")
    reading = asyncio.create_task(Desk(node).read())
    await asyncio.sleep(0)
    node.fail_with = None
    assert await reading is node.machine
