"""An answer for a client that is gone is taken back, and never from one who heard of it too."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from cluster.machine.commands.fifos import AwaitTurn, CreateFifo, FinishTurn, JoinFifo, UnhearTurn
from cluster.machine.outcome import Queued, Withdrawn
from cluster.machine.outcome.fifos import TurnAccepted
from cluster.machine.outcome.several import Batched
from cluster.machine.undo import undo
from cluster.replication.engine import EngineSettings
from tests.node.nodes import Ask, Nodes, nodes_by_hand

SMALL = EngineSettings(snapshot_entries=20, snapshot_chunk_bytes=300, snapshot_window_bytes=900)
HOUR_MS = 3_600_000

Make = Callable[..., Nodes]


@pytest.fixture
def make() -> Iterator[Make]:
    """Make three nodes whose clock is moved by their steps."""
    with nodes_by_hand() as maker:
        yield maker


def with_fifo(make: Make, **how: object) -> Nodes:
    """Nodes, led by a, with two tickets in a fifo of long timeouts."""
    nodes = make(**how)
    nodes.elect("a")
    nodes.submit("a", CreateFifo("q", HOUR_MS, HOUR_MS, HOUR_MS, 0))
    for ticket in ("one", "two"):
        nodes.submit("a", JoinFifo("q", ticket))
    nodes.until(lambda: states(nodes) == ["notified", "waiting"])
    return nodes


def states(nodes: Nodes, name: str = "a") -> list[str]:
    """States of the tickets, in order, in the local state of a node."""
    machine = nodes[name].machine
    return [turn.state for turn in machine.fifos.turns("q", machine.now_ms)]


def wait(nodes: Nodes, name: str, ticket: str, key: str | None = None) -> Ask:
    """Wait for a turn through a node."""
    command = AwaitTurn("q", ticket, wait_ms=HOUR_MS)
    return nodes.submit(name, command, key=key, fingerprint=b"f" if key else None)


def waiting_on_the_second(
    make: Make, *names: str, key: str | None = None
) -> tuple[Nodes, list[Ask]]:
    """The first ticket has its turn, and the nodes wait on the second."""
    nodes = with_fifo(make, engine=SMALL)
    nodes.answer(wait(nodes, "a", "one"))
    asks = [wait(nodes, name, "two", key) for name in names]
    nodes.until(lambda: sum(nodes[name].parked for name in set(names)) == len(names))
    return nodes, asks


def finish_first(nodes: Nodes) -> None:
    """The first ticket is done, and the turn is the second's."""
    nodes.answer(nodes.submit("a", FinishTurn("q", "one")))
    assert states(nodes) == ["accepted"]


def test_a_turn_accepted_for_a_client_that_hung_up_on_the_way_is_taken_back(make: Make) -> None:
    """The request had been sent; its answer came to nobody."""
    nodes = with_fifo(make)
    ask = wait(nodes, "b", "one")
    nodes.step()
    nodes["b"].hang_up(ask.handle)
    nodes.until(lambda: states(nodes)[0] == "accepted")
    nodes.until(lambda: all(states(nodes, name)[0] == "notified" for name in "abc"))
    assert isinstance(nodes.answer(wait(nodes, "c", "one")), TurnAccepted)
    nodes.run(0.5)
    assert (ask.replies, nodes["b"].under_way, nodes["b"].parked) == ([], 0, 0)
    assert states(nodes)[0] == "accepted"


def test_a_turn_that_crossed_the_hang_up_of_a_waiter_is_taken_back(make: Make) -> None:
    """Its node heard of the turn after it had given the wait up."""
    nodes, (ask,) = waiting_on_the_second(make, "b")
    nodes.isolate("b")
    finish_first(nodes)
    nodes["b"].hang_up(ask.handle)
    nodes.heal()
    nodes.until(lambda: all(states(nodes, name) == ["notified"] for name in "abc"))
    assert ask.replies == []
    assert nodes["b"].under_way == 0


def test_a_turn_that_came_within_a_snapshot_after_the_hang_up_is_taken_back(make: Make) -> None:
    """The node never sees the entry, but finds the answer in the state."""
    nodes, (ask,) = waiting_on_the_second(make, "b")
    nodes.isolate("b")
    finish_first(nodes)
    nodes["b"].hang_up(ask.handle)
    for number in range(40):
        nodes.answer(nodes.submit("a", JoinFifo("q", f"more {number}")))
    nodes.heal()
    nodes.until(lambda: nodes["b"].engine.snapshots_installed == 1)
    nodes.until(lambda: states(nodes)[0] == "notified")
    nodes.until(lambda: nodes["b"].under_way == 0)


def test_a_turn_is_never_taken_from_another_who_heard_of_it(make: Make) -> None:
    """Two wait on one ticket and one hangs up: the other keeps the turn."""
    nodes, (gone, there) = waiting_on_the_second(make, "b", "c")
    nodes.isolate("b")
    finish_first(nodes)
    nodes["b"].hang_up(gone.handle)
    nodes.heal()
    accepted = nodes.answer(there)
    nodes.until(nodes.is_level)
    nodes.run(1.0)
    assert isinstance(accepted, TurnAccepted)
    (turn,) = nodes["a"].machine.fifos.turns("q", 0)
    assert (turn.state, turn.token) == ("accepted", accepted.token)


def test_a_turn_that_can_be_asked_for_again_is_kept(make: Make) -> None:
    """Under its Idempotency-Key a repeat gets the very answer, so that nothing is taken back."""
    nodes, (ask,) = waiting_on_the_second(make, "b", key="k")
    nodes.isolate("b")
    finish_first(nodes)
    nodes["b"].hang_up(ask.handle)
    nodes.heal()
    nodes.until(nodes.is_level)
    nodes.run(1.0)
    assert states(nodes) == ["accepted"]
    assert isinstance(nodes.answer(wait(nodes, "c", "two", "k")), TurnAccepted)


def test_a_wait_that_ended_with_its_client_leaves_nothing_to_undo(make: Make) -> None:
    """The usual case: the place is left, and the turn comes to be accepted."""
    nodes, (ask,) = waiting_on_the_second(make, "b")
    nodes["b"].hang_up(ask.handle)
    nodes.until(lambda: nodes["b"].under_way == 0 and nodes.is_level())
    nodes.answer(nodes.submit("a", FinishTurn("q", "one")))
    nodes.run(0.5)
    assert states(nodes) == ["notified"]


def test_most_outcomes_need_no_undoing() -> None:
    """What was never given, or ends by itself."""
    assert undo(Withdrawn()) == ()
    assert undo(Queued("q", 1)) == ()
    assert undo(TurnAccepted("q", "t", 7)) == (UnhearTurn("q", "t", 7),)


def test_what_a_batch_gave_is_undone_one_by_one() -> None:
    """In its order."""
    batched = Batched((TurnAccepted("q", "t", 7), Withdrawn(), TurnAccepted("p", "s", 8)))
    assert undo(batched) == (UnhearTurn("q", "t", 7), UnhearTurn("p", "s", 8))
