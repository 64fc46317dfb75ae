"""The five functions of go-session-lock, by the sentences of its plpgsql."""

from __future__ import annotations

import pytest

from cluster.fronts.sessionlock.calls import POOL, Calls, Full, SessionGone
from cluster.machine import limits
from cluster.testing.local_node import LocalNode
from cluster.wire import commands
from tests.fronts.around import around

TWO_MINUTES_MS = 120_000


def made() -> tuple[LocalNode, Calls]:
    """A machine, and the functions over it."""
    node = LocalNode()
    return node, Calls(around(node).desk)


async def given(calls: Calls, session: int, cap: int | None = None) -> list[str]:
    """Ids of what a session has to do."""
    return [task.id for task in await calls.get_work(session, cap)]


async def put(calls: Calls, count: int) -> None:
    """Put tasks 1 to count."""
    await calls.add_tasks([(str(number), None) for number in range(1, count + 1)])


async def test_numbers_of_sessions_rise() -> None:
    """Any node finds a session by its number alone."""
    node, calls = made()
    first, second = await calls.start_session(), await calls.start_session()
    assert 0 < first < second
    await Calls(around(node).desk).bump_session(first)


@pytest.mark.parametrize("limit", ["WORKERS_PER_POOL_MAX", "POOLS_MAX"])
async def test_a_session_that_cannot_work_is_none(
    monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """Whoever tries again and again leaves none behind."""
    node, calls = made()
    monkeypatch.setattr(limits, limit, 0)
    with pytest.raises(Full):
        await calls.start_session()
    assert len(node.machine.sessions) == 0


async def test_a_session_lives_two_minutes_and_at_their_end() -> None:
    """At the boundary it can still be bumped, later never again."""
    node, calls = made()
    session = await calls.start_session()
    node.advance(TWO_MINUTES_MS)
    await calls.bump_session(session)
    node.advance(TWO_MINUTES_MS + 1)
    for _ in range(2):
        with pytest.raises(SessionGone, match=r"^Session not found\.$"):
            await calls.bump_session(session)


@pytest.mark.parametrize("number", [0, -1, 10**12, 2**63, -(2**63), 2**70])
async def test_a_number_of_no_session_is_not_found(number: int) -> None:
    """Whatever integer a program sends; ending it is fine."""
    _, calls = made()
    await put(calls, 1)
    with pytest.raises(SessionGone):
        await calls.bump_session(number)
    with pytest.raises(SessionGone):
        await calls.get_work(number, None)
    await calls.end_session(number)


async def test_ending_twice_is_fine() -> None:
    """An ended session is dead for good."""
    _, calls = made()
    session = await calls.start_session()
    await calls.end_session(session)
    await calls.end_session(session)
    with pytest.raises(SessionGone):
        await calls.get_work(session, None)


async def test_every_living_session_counts_when_work_is_shared() -> None:
    """Also one that has not asked yet: ceil(7 / 2), the rest for the other."""
    _, calls = made()
    first, second = await calls.start_session(), await calls.start_session()
    await put(calls, 7)
    assert await given(calls, first) == ["1", "2", "3", "4"]
    assert await given(calls, second) == ["5", "6", "7"]


async def test_the_cap_bounds_what_is_picked_up_and_null_does_not() -> None:
    """Zero and less pick up nothing; what is held comes all the same."""
    _, calls = made()
    session = await calls.start_session()
    await put(calls, 4)
    assert await given(calls, session, 0) == []
    assert await given(calls, session, -3) == []
    assert await given(calls, session, 2) == ["1", "2"]
    assert await given(calls, session, 1) == ["1", "2"]
    assert await given(calls, session, None) == ["1", "2", "3", "4"]


@pytest.mark.parametrize("cap", [2**62, 2**62 + 1, 2**63 - 1])
async def test_a_cap_may_be_any_bigint(cap: int) -> None:
    """The largest ones bound nothing."""
    _, calls = made()
    session = await calls.start_session()
    await put(calls, 2)
    assert await given(calls, session, cap) == ["1", "2"]


async def test_unfinished_tasks_come_back_and_surplus_stays() -> None:
    """Nobody gives back; a newcomer gets what becomes free."""
    _, calls = made()
    first = await calls.start_session()
    await put(calls, 4)
    assert len(await given(calls, first)) == 4
    second = await calls.start_session()
    assert await given(calls, second) == []
    assert await given(calls, first) == ["1", "2", "3", "4"]
    await calls.end_session(first)
    assert await given(calls, second) == ["1", "2", "3", "4"]


async def test_a_dead_sessions_tasks_are_anyones() -> None:
    """By its time, without anybody's doing."""
    node, calls = made()
    first = await calls.start_session()
    await put(calls, 2)
    assert await given(calls, first) == ["1", "2"]
    node.advance(TWO_MINUTES_MS)
    second = await calls.start_session()
    node.advance(1)
    assert await given(calls, second) == ["1", "2"]


async def test_get_work_is_a_keepalive() -> None:
    """As in the original, which bumps first."""
    node, calls = made()
    session = await calls.start_session()
    for _ in range(3):
        node.advance(TWO_MINUTES_MS)
        assert await given(calls, session) == []


async def test_anybody_may_finish_anything() -> None:
    """Held or free, known or not, twice, none, and what can be no id at all."""
    node, calls = made()
    session = await calls.start_session()
    await put(calls, 3)
    assert await given(calls, session, 1) == ["1"]
    await calls.finish_tasks(["1", "3", "3", "99", "", "x" * 300, "a\0b", "\ud800"])
    assert await given(calls, session) == ["2"]
    await calls.finish_tasks([])
    assert [task.id for task in node.machine.tasks.tasks_of(POOL, 0)] == ["2"]


async def test_finishing_in_a_pool_that_is_not_there_is_fine() -> None:
    """Nobody has put work yet."""
    _, calls = made()
    await calls.finish_tasks(["1"])


async def test_a_task_put_again_gets_the_new_data() -> None:
    """It stays with its holder."""
    _, calls = made()
    session = await calls.start_session()
    await calls.add_tasks([("1", b"old")])
    assert await given(calls, session) == ["1"]
    await calls.add_tasks([("1", b"new")])
    (task,) = await calls.get_work(session, None)
    assert task.data == b"new"


@pytest.mark.parametrize("bad", [("", None), ("x" * 201, None), ("a\nb", None), ("1", b"x" * 5000)])
async def test_what_cannot_be_a_task_is_refused_by_name(bad: tuple[str, bytes | None]) -> None:
    """And nothing of the call is put."""
    node, calls = made()
    with pytest.raises(ValueError, match="use"):
        await calls.add_tasks([("fine", None), bad])
    assert not node.taken


async def test_more_tasks_than_a_command_takes_go_in_several() -> None:
    """A program may finish twenty thousand at once."""
    _, calls = made()
    await put(calls, 12_000)
    session = await calls.start_session()
    await calls.finish_tasks(str(number) for number in range(1, 12_000))
    assert await given(calls, session) == ["12000"]


async def test_more_bytes_than_a_command_takes_go_in_several() -> None:
    """Long ids and much data: no command is larger than the log takes."""
    node, calls = made()
    ids = [f"{number:05}" + "ü" * 97 for number in range(9_000)]
    session = await calls.start_session()
    await calls.add_tasks([(id, b"x" * limits.TASK_DATA_BYTES_MAX) for id in ids[:1_000]])
    await calls.add_tasks([(id, None) for id in ids[1_000:]])
    assert await calls.task_count() == len(ids)
    assert await given(calls, session) == ids[: limits.TASKS_PER_WORKER_MAX]
    await calls.finish_tasks(ids)
    assert await calls.task_count() == 0
    assert max(len(commands.encode(one)) for one in node.taken) < commands.COMMAND_BYTES_MAX
