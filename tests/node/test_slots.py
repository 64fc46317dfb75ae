"""Slots of scheduled tasks: the leader works them out, the machine fires each of them once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from cluster.machine.commands.tasks import (
    ALLOW,
    SKIP,
    FinishTasks,
    NewTask,
    PauseTask,
    PutTasks,
    Schedule,
    SetSlot,
    Work,
)
from cluster.machine.outcome.tasks import TaskInfo, Wanted, Worked
from cluster.node import schedules
from tests.node.nodes import WALL_MS, Nodes, nodes_by_hand

Make = Callable[..., Nodes]


@pytest.fixture
def make() -> Iterator[Make]:
    """Make three nodes whose clock is moved by their steps."""
    with nodes_by_hand() as maker:
        yield maker


def every(every_ms: int, overlap: int = SKIP, catchup_ms: int = 60_000) -> Schedule:
    """An interval."""
    return Schedule(every_ms, 0, "", "", overlap, catchup_ms, 0)


def put(nodes: Nodes, node: str, schedule: Schedule) -> None:
    """Put a scheduled task."""
    nodes.answer(nodes.submit(node, PutTasks("p", (NewTask("t", schedule=schedule),))))
    nodes.until(lambda: all("p" in nodes[name].machine.tasks.pools for name in nodes.running))


def task(nodes: Nodes, node: str) -> TaskInfo:
    """The task in the state of a node."""
    info = nodes[node].machine.tasks.task_info("p", "t", nodes[node].machine.now_ms)
    assert info is not None
    return info


def slots(nodes: Nodes, node: str) -> list[int]:
    """Runs there are, as ms after the simulated beginning."""
    return [run.slot_ms - WALL_MS for run in task(nodes, node).runs if run.slot_ms is not None]


def is_known(nodes: Nodes) -> bool:
    """Every node knows the next slot."""
    return all(task(nodes, node).slot_ms is not None for node in nodes.running)


@pytest.mark.parametrize("asked", ["a", "b"])
def test_the_leader_answers_and_every_node_knows_the_slot(make: Make, asked: str) -> None:
    """Whoever was asked to put the task."""
    nodes = make()
    nodes.elect("a")
    put(nodes, asked, every(3_600_000))
    nodes.until(lambda: is_known(nodes))
    nodes.until(nodes.is_level)
    assert len({task(nodes, node) for node in nodes.names}) == 1


def test_an_idle_cluster_fires_in_time_and_once_for_each_slot(make: Make) -> None:
    """Nobody asks for anything: the leader's timer does it."""
    nodes = make()
    nodes.elect("a")
    put(nodes, "a", every(1_000, ALLOW))
    nodes.until(lambda: len(slots(nodes, "b")) == 5, within=20)
    found = slots(nodes, "b")
    assert found == list(range(found[0], found[0] + 5_000, 1_000))
    now_ms = round((nodes.now() - 1000) * 1000)
    assert found[-1] <= now_ms < found[-1] + 1_000


def test_a_worker_is_given_the_slot_and_the_next_one_comes(make: Make) -> None:
    """A parked `Work` is answered by the slot itself."""
    nodes = make()
    nodes.elect("a")
    session = nodes.session("b")
    put(nodes, "a", every(1_000))
    for _ in range(3):
        worked = nodes.answer(nodes.submit("b", Work(session, "p", None, 5_000)), within=10)
        assert isinstance(worked, Worked)
        ((id, _, _, token, slot_ms),) = worked.tasks
        assert slot_ms is not None
        assert slot_ms % 1_000 == 0
        nodes.answer(nodes.submit("c", FinishTasks(session, "p", ((id, token),))))
    assert task(nodes, "c").fired == 3


def test_the_next_leader_goes_on_and_no_slot_fires_twice(make: Make) -> None:
    """Questions that a lost leader took along are asked again."""
    nodes = make()
    nodes.elect("a")
    put(nodes, "b", every(500, ALLOW))
    nodes.until(lambda: len(slots(nodes, "b")) >= 2, within=10)
    nodes.crash("a")
    nodes.until(lambda: nodes.leader in {"b", "c"} and len(slots(nodes, "b")) >= 10, within=30)
    found = slots(nodes, "b")
    assert found == list(range(found[0], found[0] + 500 * len(found), 500))
    assert task(nodes, "b").missed == 0


def test_slots_nobody_was_there_for_are_missed_in_one_step(make: Make) -> None:
    """A cluster that stood still runs what is within the catch-up window, and counts the rest."""
    nodes = make()
    nodes.elect("a")
    put(nodes, "a", every(1_000, ALLOW, catchup_ms=2_000))
    nodes.until(lambda: is_known(nodes))
    for name in nodes.names:
        nodes.crash(name)
    nodes.run(30.0)
    for name in nodes.names:
        nodes.start(name)
    nodes.until(lambda: "p" in nodes["a"].machine.tasks.pools)
    nodes.until(lambda: len(slots(nodes, "a")) >= 3, within=30)
    found = slots(nodes, "a")
    assert found == list(range(found[0], found[0] + 1_000 * len(found), 1_000))
    missed = task(nodes, "a").missed
    assert missed >= 25
    assert found[0] % 1_000 == 0


def test_a_paused_task_does_not_wake_anybody(make: Make) -> None:
    """No question, no slot; resumed, it has one again."""
    nodes = make()
    leader = nodes.elect("a")
    put(nodes, "a", every(1_000))
    nodes.until(lambda: is_known(nodes))
    nodes.answer(nodes.submit("a", PauseTask("p", "t", True)))
    sealed = leader.counters.entries_sealed
    nodes.run(5.0)
    assert leader.counters.entries_sealed == sealed
    assert task(nodes, "a").fired == 0
    nodes.answer(nodes.submit("a", PauseTask("p", "t", False)))
    nodes.until(lambda: len(slots(nodes, "a")) == 1, within=10)


def test_a_schedule_that_this_node_cannot_read_stops_nothing_else(make: Make) -> None:
    """It is asked once, and others get their slots."""
    nodes = make()
    nodes.elect("a")
    strange = Schedule(0, 0, "* * * * *", "Mars/Olympus", SKIP, 60_000, 0)
    new = (NewTask("s", schedule=strange), NewTask("t", schedule=every(1_000)))
    nodes.answer(nodes.submit("a", PutTasks("p", new)))
    nodes.until(lambda: len(slots(nodes, "a")) == 1, within=10)
    info = nodes["a"].machine.tasks.task_info("p", "s", 0)
    assert info is not None
    assert info.slot_ms is None


def test_many_schedules_at_once_are_all_answered(make: Make) -> None:
    """More than one round takes."""
    nodes = make()
    nodes.elect("a")
    new = tuple(NewTask(f"t{number}", schedule=every(3_600_000)) for number in range(300))
    nodes.answer(nodes.submit("b", PutTasks("p", new)))
    nodes.until(lambda: not len(nodes["c"].machine.tasks.slots), within=10)
    nodes.until(nodes.is_level)
    assert nodes["c"].machine.next_wall_ms() is not None


def test_slots_that_take_long_to_work_out_do_not_hold_the_leader_up(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a long standstill every cron has a thousand missed slots: it takes more rounds."""
    nodes = make()
    leader = nodes.elect("a")
    asked: Counter[int] = Counter()
    answer = schedules.answer

    def answer_slowly(wanted: Wanted, wall_ms: int) -> SetSlot:
        asked[leader.counters.rounds] += 1
        nodes.steps += 5  # 10 ms
        return answer(wanted, wall_ms)

    monkeypatch.setattr(schedules, "answer", answer_slowly)
    new = tuple(NewTask(f"t{number}", schedule=every(3_600_000)) for number in range(40))
    nodes.submit("a", PutTasks("p", new))
    nodes.until(lambda: asked.total() == 40 and not len(nodes["c"].machine.tasks.slots))
    assert max(asked.values()) == 2
    assert nodes.leader == "a"
