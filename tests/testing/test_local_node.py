"""The node without replication: its time, its wall clock, and commands of nobody's."""

from __future__ import annotations

import pytest

from cluster.machine.commands import Command
from cluster.machine.commands.sessions import KeepAlive, OpenSession
from cluster.machine.commands.tasks import ALLOW, NewTask, PutTasks, Schedule, Work
from cluster.machine.outcome import SessionExpired, SessionNotFound
from cluster.machine.outcome.sessions import Opened, Renewed
from cluster.machine.outcome.tasks import Worked
from cluster.testing.local_node import LocalNode

WALL_MS = 1_767_225_600_000
EVERY_MINUTE = Schedule(
    every_ms=60_000, start_ms=0, cron="", timezone="", overlap=ALLOW, catchup_ms=0, jitter_ms=0
)
MINUTELY = NewTask("minutely", schedule=EVERY_MINUTE)


@pytest.fixture
def node() -> LocalNode:
    """One whose wall clock goes."""
    return LocalNode(wall_ms=WALL_MS)


def opened(node: LocalNode, ttl_ms: int = 10_000) -> str:
    """Open a session."""
    outcome = node.carry_out(OpenSession(nonce="ab" * 8, ttl_ms=ttl_ms))
    assert isinstance(outcome, Opened)
    return outcome.session


def test_commands_of_nobodys_are_answered_at_once(node: LocalNode) -> None:
    """Each in an entry of its own, without a loop."""
    session = opened(node)
    node.advance(9_999)
    assert isinstance(node.carry_out(KeepAlive(session)), Renewed)
    node.advance(10_000)
    assert isinstance(node.carry_out(KeepAlive(session)), SessionExpired | SessionNotFound)


def test_it_knows_what_is_next(node: LocalNode) -> None:
    """The end of a session, by cluster time."""
    assert node.next_due_ms() is None
    opened(node)
    assert node.next_due_ms() == node.now_ms() + 10_000


def test_a_schedule_comes_due_by_the_wall_clock(node: LocalNode) -> None:
    """As a leader does, the node says when the next slot is; the slot is due when it comes."""
    session = opened(node, ttl_ms=3_600_000)
    node.carry_out(PutTasks("reports", (MINUTELY,)))
    assert worked(node, Work(session, "reports")) == ()
    due_ms = node.next_due_ms()
    assert due_ms is not None
    node.advance(due_ms - node.now_ms() - 1)
    assert worked(node, Work(session, "reports")) == ()
    node.advance(1)
    assert node.wall_ms() % 60_000 == 0
    assert len(worked(node, Work(session, "reports"))) == 1


def test_without_a_wall_clock_schedules_stay_unanswered() -> None:
    """For tests that answer them themselves."""
    node = LocalNode()
    node.carry_out(PutTasks("reports", (MINUTELY,)))
    assert len(node.machine.tasks.wanting()) == 1
    assert node.wall_ms() == 0


def worked(node: LocalNode, command: Command) -> tuple[object, ...]:
    """The tasks that an ask for work gets."""
    outcome = node.carry_out(command)
    assert isinstance(outcome, Worked), outcome
    return tuple(outcome.tasks)
