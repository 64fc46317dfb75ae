"""Tasks: fair shares, one live holder, tokens; schedules whose slots fire once."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.machine import limits
from cluster.machine.commands import Abandon, Batch, CloseSession, Command, Group
from cluster.machine.commands.tasks import (
    ALLOW,
    BUFFER,
    SKIP,
    FinishTasks,
    LeavePool,
    NewTask,
    PauseTask,
    PutTasks,
    ReleaseTasks,
    RemovePool,
    RemoveTask,
    RunTask,
    Schedule,
    SetSlot,
    Work,
)
from cluster.machine.machine import Machine
from cluster.machine.outcome import (
    Abandoned,
    Closed,
    Outcome,
    Queued,
    QueueFull,
    SessionExpired,
    SessionNotFound,
    Withdrawn,
)
from cluster.machine.outcome.tasks import (
    PoolLeft,
    PoolNotFound,
    PoolRemoved,
    SlotSet,
    SlotVoid,
    TaskInfo,
    TaskNotFound,
    TaskNotScheduled,
    TaskPaused,
    TaskRan,
    TaskRemoved,
    TasksFinished,
    TasksPut,
    TasksReleased,
    Worked,
)
from cluster.wire import cbor, snapshot
from tests.machine.drive import Drive


class WallDrive(Drive):
    """A drive with a wall clock, which stands where it is put."""

    wall_ms = 0

    def entry(self, now_ms: int, *groups: Group) -> list[Outcome]:
        """Apply an entry as it is."""
        answers = self.machine.apply(self.machine.index + 1, Batch(now_ms, self.wall_ms, groups))
        self.told = [(a.request.node, a.request.seq, a.outcome) for a in answers]
        return [answer.outcome for answer in answers]

    def wall(self, wall_ms: int) -> None:
        """Set the wall clock, and apply an empty entry."""
        self.wall_ms = wall_ms
        self.at(self.machine.now_ms)

    def work(self, session: str, **more: Any) -> Worked:
        """Ask for work in pool p."""
        outcome = self.one(Work(session, "p", **more))
        assert isinstance(outcome, Worked), outcome
        return outcome

    def ids(self, session: str, **more: Any) -> list[str]:
        """Ask for work; what it is."""
        return [task.id for task in self.work(session, **more).tasks]

    def held(self, session: str) -> tuple[tuple[str, int | None], ...]:
        """Ask for work; ids and tokens as a finish wants them."""
        return tuple((task.id, task.token) for task in self.work(session).tasks)

    def task(self, id: str = "a") -> TaskInfo:
        """The picture of a task of pool p."""
        info = self.machine.tasks.task_info("p", id, self.machine.now_ms)
        assert info is not None
        return info

    def slot(self, slot_ms: int | None, jitter_ms: int = 0, missed: int = 0) -> Outcome:
        """Answer the only question there is."""
        (wanted,) = self.machine.tasks.wanting()
        return self.one(
            SetSlot(wanted.pool, wanted.task, wanted.revision, slot_ms, jitter_ms, missed)
        )

    def events(self) -> list[tuple[str, str | None, object]]:
        """What watchers of tasks are told of the last entry."""
        return [
            (event.what, event.session, dict(event.more).get("task"))
            for event in self.machine.core.events
            if event.kind == "task"
        ]


def put(*ids: str, **more: Any) -> PutTasks:
    """Put plain tasks into pool p."""
    return PutTasks("p", tuple(NewTask(id) for id in ids), **more)


def every(
    overlap: int = SKIP, catchup_ms: int = 100, paused: bool | None = None, every_ms: int = 1_000
) -> PutTasks:
    """Put task a with a schedule, which means nothing here, into pool p."""
    schedule = Schedule(every_ms, 0, "", "", overlap, catchup_ms, 0)
    return PutTasks("p", (NewTask("a", None, True, schedule, paused),))


def scheduled(overlap: int = SKIP, catchup_ms: int = 100) -> WallDrive:
    """A machine at wall time 1000 with task a, whose next slot is 2000."""
    drive = WallDrive()
    drive.wall_ms = 1_000
    drive.one(every(overlap, catchup_ms))
    assert drive.slot(2_000) == SlotSet()
    return drive


class TestPut:
    def test_counts_what_it_did(self) -> None:
        """New, changed, same and gone ones, and how many there are."""
        drive = WallDrive()
        assert drive.one(put("a", "b")) == TasksPut("p", 2, 0, 0, 0, 2)
        changed = PutTasks("p", (NewTask("a"), NewTask("b", b"x"), NewTask("c")))
        assert drive.one(changed) == TasksPut("p", 1, 1, 1, 0, 3)
        assert drive.one(put("c", "d", replace=True)) == TasksPut("p", 1, 0, 1, 2, 2)

    def test_the_last_word_on_a_task_counts(self) -> None:
        """A task named twice is one task."""
        drive = WallDrive()
        twice = PutTasks("p", (NewTask("a", b"1"), NewTask("a", b"2")))
        assert drive.one(twice) == TasksPut("p", 1, 0, 0, 0, 1)
        assert drive.task().data == b"2"

    def test_settings_of_the_pool_stay_until_they_are_named(self) -> None:
        """Cap and give-back belong to the pool, not to the call."""
        drive = WallDrive()
        drive.ask(put(cap=2, give_back=True), put("a"), put(cap=0))
        info = drive.machine.tasks.info("p", 0)
        assert info is not None
        assert (info.cap, info.give_back, info.tasks) == (0, True, 1)

    def test_what_is_held_stays_held_with_new_data(self) -> None:
        """The holder sees the new data when it asks again, under the same token."""
        drive = WallDrive()
        (session,) = drive.open(1000)
        drive.ask(put("a"))
        before = drive.work(session).tasks[0]
        drive.ask(PutTasks("p", (NewTask("a", b"new", False),)))
        after = drive.work(session).tasks[0]
        assert (after.token, after.data, after.is_text) == (before.token, b"new", False)

    def test_replacing_takes_tasks_from_their_holders(self) -> None:
        """The holder is told, and its finish comes too late."""
        drive = WallDrive()
        (session,) = drive.open(1000)
        drive.ask(put("a", "b"))
        held = drive.held(session)
        drive.ask(put("b", replace=True))
        assert ("revoked", session, "a") in drive.events()
        assert drive.one(FinishTasks(session, "p", held)) == TasksFinished(
            "p", ("b",), (("a", "task_not_found", None),)
        )

    def test_refuses_more_than_the_limits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Pools, tasks of a pool, tasks of all; what is there already counts no more."""
        monkeypatch.setattr(limits, "POOLS_MAX", 2)
        monkeypatch.setattr(limits, "TASKS_PER_POOL_MAX", 2)
        monkeypatch.setattr(limits, "TASKS_MAX", 3)
        drive = WallDrive()
        assert drive.one(put("a", "b", "c")) == QueueFull("tasks of a pool", 2)
        assert drive.machine.counts().pools == 0
        drive.ask(put("a", "b"))
        assert drive.one(put("c")) == QueueFull("tasks of a pool", 2)
        assert drive.one(put("c", "d", replace=True)) == TasksPut("p", 2, 0, 0, 2, 2)
        many = PutTasks("q", (NewTask("a"), NewTask("b")))
        assert drive.one(many) == QueueFull("tasks", 3)
        assert isinstance(drive.one(PutTasks("q", (NewTask("a"),))), TasksPut)
        assert drive.one(PutTasks("r", ())) == QueueFull("pools", 2)
        assert isinstance(drive.one(put("c")), TasksPut)


class TestShares:
    def test_the_share_is_rounded_up(self) -> None:
        """Seven tasks for two: four and three."""
        drive = WallDrive()
        one, two = drive.open(1000, 1000)
        drive.ask(put(*"abcdefg"))
        assert drive.work(one, limit=1).share == 7
        assert drive.ids(two) == ["b", "c", "d", "e"]
        assert drive.ids(one) == ["a", "f", "g"]

    def test_oldest_first(self) -> None:
        """What was put first is given first; nothing starves."""
        drive = WallDrive()
        (session,) = drive.open(1000)
        drive.ask(put("z"), put("a", "m"))
        assert drive.ids(session) == ["z", "a", "m"]

    def test_all_that_is_held_comes_again(self) -> None:
        """A lost answer costs nothing: same tasks, same tokens."""
        drive = WallDrive()
        (session,) = drive.open(1000)
        drive.ask(put("a", "b"))
        assert drive.work(session) == drive.work(session)

    def test_a_limit_of_nothing_joins_and_tells_what_is_held(self) -> None:
        """Nothing is taken and nobody is parked, but every share counts the session."""
        drive = WallDrive()
        one, two = drive.open(10_000, 10_000)
        drive.one(put("a", "b", "c", "d"))
        assert drive.ids(two, limit=0, wait_ms=1_000) == []
        assert drive.ids(one) == ["a", "b"]
        assert drive.ids(one, limit=0) == ["a", "b"]
        drive.one(RemoveTask("p", "c"))
        drive.one(RemoveTask("p", "d"))
        assert drive.ids(two, limit=0, wait_ms=1_000) == []
        assert drive.machine.core.parked == 0

    def test_cap_and_limit_bound_the_share(self) -> None:
        """The smallest of the three."""
        drive = WallDrive()
        (session,) = drive.open(1000)
        drive.ask(put(*"abcd", cap=3))
        assert drive.ids(session, limit=2) == ["a", "b"]
        assert drive.ids(session) == ["a", "b", "c"]
        assert drive.ids(session, limit=1) == ["a", "b", "c"]

    def test_surplus_stays_without_give_back(self) -> None:
        """As in go-session-lock: a newcomer gets what becomes free, no more."""
        drive = WallDrive()
        one, two = drive.open(1000, 1000)
        drive.ask(put("a", "b"))
        assert drive.ids(one) == ["a", "b"]
        assert drive.ids(two) == []
        assert drive.ids(one) == ["a", "b"]

    def test_surplus_goes_back_newest_first(self) -> None:
        """The worker is told, and the tasks keep their age."""
        drive = WallDrive()
        one, two, three = drive.open(1000, 1000, 1000)
        drive.ask(put(*"abcde", give_back=True))
        held = drive.held(one)
        drive.work(two)
        worked = drive.work(one)
        assert [task.id for task in worked.tasks] == ["a", "b", "c"]
        assert worked.given_back == (held[4], held[3])
        assert drive.events() == [("given back", one, "e"), ("given back", one, "d")]
        assert drive.ids(two) == ["d", "e"]
        assert drive.ids(three) == []
        assert drive.work(one).given_back == (held[2],)
        assert drive.ids(three) == ["c"]

    def test_a_smaller_cap_takes_back_as_well(self) -> None:
        """With give-back on."""
        drive = WallDrive()
        (session,) = drive.open(1000)
        drive.ask(put(*"abc", give_back=True))
        drive.work(session)
        drive.ask(put(cap=1))
        assert drive.ids(session) == ["a"]

    def test_a_worker_who_is_gone_counts_no_more(self) -> None:
        """The share is over living workers."""
        drive = WallDrive()
        one, two = drive.open(100, 1000, now_ms=0)
        drive.ask(put("a", "b"))
        drive.ask(Work(one, "p", 1), Work(two, "p", 1))
        assert drive.work(two).share == 1
        drive.at(100)
        assert drive.work(two).share == 2

    def test_is_a_keepalive(self) -> None:
        """Who works lives on; at the deadline it is too late, as for any keepalive."""
        drive = WallDrive()
        (session,) = drive.open(100, now_ms=0)
        drive.ask(put("a"))
        drive.ask(Work(session, "p"), now_ms=60)
        drive.ask(Work(session, "p"), now_ms=159)
        assert drive.one(Work(session, "p"), now_ms=259) == SessionExpired(session)

    def test_needs_a_session_and_a_pool(self) -> None:
        """In this order."""
        drive = WallDrive()
        (session,) = drive.open(1000)
        assert drive.one(Work("ff-x", "p")) == SessionNotFound("ff-x")
        assert drive.one(Work(session, "p")) == PoolNotFound("p")

    def test_refuses_more_workers_than_the_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who works there already goes on."""
        monkeypatch.setattr(limits, "WORKERS_PER_POOL_MAX", 1)
        drive = WallDrive()
        one, two = drive.open(1000, 1000)
        drive.ask(put("a"))
        drive.work(one)
        assert drive.one(Work(two, "p")) == QueueFull("workers of a pool", 1)
        assert drive.ids(one) == ["a"]

    def test_gives_no_more_than_a_session_may_have(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Working there is one thing, each task another."""
        monkeypatch.setattr(limits, "OWNED_PER_SESSION_MAX", 3)
        monkeypatch.setattr(limits, "TASKS_PER_WORKER_MAX", 10)
        drive = WallDrive()
        (session,) = drive.open(1000)
        drive.ask(put(*"abcd"))
        assert drive.ids(session) == ["a", "b"]
        drive.ask(PutTasks("q", ()))
        assert drive.one(Work(session, "q")) == QueueFull("things of a session", 3)

    def test_gives_no_more_than_an_answer_may_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The share may be larger."""
        monkeypatch.setattr(limits, "TASKS_PER_WORKER_MAX", 2)
        drive = WallDrive()
        (session,) = drive.open(1000)
        drive.ask(put(*"abcd"))
        assert drive.ids(session) == ["a", "b"]


class TestWaiting:
    def test_a_worker_with_nothing_to_do_waits(self) -> None:
        """The task that is put goes to who has waited longest, under a token."""
        drive = WallDrive()
        one, two = drive.open(1000, 1000)
        drive.ask(put())
        assert drive.one(Work(one, "p", None, 500)) == Queued("p", 1)
        assert drive.one(Work(two, "p", None, 500)) == Queued("p", 2)
        told = drive.ask(put("a"))
        assert isinstance(told[1], Worked)
        assert (told[1].session, [task.id for task in told[1].tasks]) == (one, ["a"])
        assert drive.machine.counts().parked == 1

    def test_who_holds_something_does_not_wait(self) -> None:
        """It is told at once what it has."""
        drive = WallDrive()
        (session,) = drive.open(1000)
        drive.ask(put("a"))
        assert drive.ids(session, wait_ms=500) == ["a"]
        assert drive.ids(session, wait_ms=500) == ["a"]

    def test_many_tasks_are_shared_among_all_who_wait(self) -> None:
        """Each gets its share in one step."""
        drive = WallDrive()
        one, two = drive.open(1000, 1000)
        drive.ask(put())
        drive.ask(Work(one, "p", None, 500), Work(two, "p", 1, 500))
        told = drive.ask(put(*"abcd"))
        given = [[task.id for task in worked.tasks] for worked in told[1:]]  # type: ignore[attr-defined]
        assert given == [["a", "b"], ["c"]]

    def test_a_wait_that_is_over_is_told_that_there_is_nothing(self) -> None:
        """At its deadline; the worker stays one."""
        drive = WallDrive()
        (session,) = drive.open(1000, now_ms=0)
        drive.ask(put())
        drive.ask(Work(session, "p", None, 100))
        assert drive.at(100) == [Worked("p", session, 0, (), ())]
        info = drive.machine.tasks.info("p", 100)
        assert info is not None
        assert info.workers == ((session, 0, 100, False),)

    def test_tasks_of_a_dead_session_go_to_those_who_wait_in_the_same_step(self) -> None:
        """Nobody else asks in between."""
        drive = WallDrive()
        one, two = drive.open(100, 1000, now_ms=0)
        drive.ask(put("a"))
        drive.work(one)
        drive.ask(Work(two, "p", None, 500))
        (told,) = drive.at(100)
        assert isinstance(told, Worked)
        assert [task.id for task in told.tasks] == ["a"]
        assert [what for what, _, _ in drive.events()] == ["left", "lost", "granted"]

    def test_one_who_dies_at_that_very_time_is_given_nothing(self) -> None:
        """Both end at once: the task stays free."""
        drive = WallDrive()
        one, two = drive.open(100, 100, now_ms=0)
        drive.ask(put("a"))
        drive.work(one)
        drive.ask(Work(two, "p", None, 500))
        assert drive.at(100) == [SessionExpired(two)]
        assert drive.task().runs[0].session is None

    def test_given_back_tasks_go_to_those_who_wait(self) -> None:
        """The newcomer waits; the one with too much comes to ask."""
        drive = WallDrive()
        one, two = drive.open(1000, 1000)
        drive.ask(put("a", "b", give_back=True))
        drive.work(one)
        drive.ask(Work(two, "p", None, 500))
        first, second = drive.ask(Work(one, "p"))
        assert isinstance(first, Worked)
        assert isinstance(second, Worked)
        assert [task.id for task in first.tasks] == ["a"]
        assert [task.id for task in second.tasks] == ["b"]

    def test_an_abandoned_wait_leaves_the_line(self) -> None:
        """It stays a worker, and is given nothing."""
        drive = WallDrive()
        (session,) = drive.open(1000)
        drive.ask(put())
        drive.ask(Work(session, "p", None, 500))
        assert drive.ask(Abandon(3)) == [Withdrawn(), Abandoned()]
        drive.ask(put("a"))
        assert drive.task().runs[0].session is None

    def test_a_second_wait_shares_the_place(self) -> None:
        """Both are told the same; the first limit counts."""
        drive = WallDrive()
        (session,) = drive.open(1000)
        drive.ask(put())
        drive.ask(Work(session, "p", 1, 500))
        assert drive.one(Work(session, "p", 9, 500)) == Queued("p", 1)
        told = drive.ask(put("a", "b"))
        assert told[1] == told[2]
        assert isinstance(told[1], Worked)
        assert len(told[1].tasks) == 1

    def test_refuses_more_parked_requests_than_the_limit(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And changes nothing: the session has not joined."""
        monkeypatch.setattr(limits, "PARKED_MAX", 0)
        drive = WallDrive()
        (session,) = drive.open(1000)
        drive.ask(put())
        assert drive.one(Work(session, "p", None, 500)) == QueueFull("parked requests", 0)
        assert drive.machine.counts().pool_workers == 0


class TestHandIn:
    def test_a_finished_task_is_gone(self) -> None:
        """Each by its own token."""
        drive = WallDrive()
        (session,) = drive.open(1000)
        drive.ask(put("a", "b"))
        held = drive.held(session)
        assert drive.one(FinishTasks(session, "p", held[:1])) == TasksFinished("p", ("a",), ())
        assert drive.one(FinishTasks(session, "p", held)) == TasksFinished(
            "p", ("b",), (("a", "task_not_found", None),)
        )
        assert drive.machine.counts().tasks == 0
        assert drive.machine.counts().pools == 1

    def test_a_late_worker_finishes_nothing(self) -> None:
        """Its session is over; and with another session, its token is stale."""
        drive = WallDrive()
        one, two = drive.open(100, 1000, now_ms=0)
        drive.ask(put("a"))
        held = drive.held(one)
        drive.at(100)
        assert drive.one(FinishTasks(one, "p", held)) == SessionExpired(one)
        assert drive.one(FinishTasks(two, "p", held)) == TasksFinished(
            "p", (), (("a", "not_holder", None),)
        )
        ((_, token),) = drive.held(two)
        assert drive.one(FinishTasks(two, "p", held)) == TasksFinished(
            "p", (), (("a", "stale_token", token),)
        )

    def test_another_sessions_token_is_no_good(self) -> None:
        """Knowing a token is not holding the task."""
        drive = WallDrive()
        one, two = drive.open(1000, 1000)
        drive.ask(put("a"))
        held = drive.held(one)
        assert drive.one(FinishTasks(two, "p", held)) == TasksFinished(
            "p", (), (("a", "not_holder", held[0][1]),)
        )

    def test_who_asks_for_neither_session_nor_token_finishes_anything(self) -> None:
        """For go-session-lock's clients, who know ids only: held or not, known or not."""
        drive = WallDrive()
        (session,) = drive.open(1000)
        drive.ask(put("a", "b"))
        drive.work(session, limit=1)
        ids = (("a", None), ("b", None), ("x", None), ("a", None))
        assert drive.one(FinishTasks(None, "p", ids)) == TasksFinished(
            "p", ("a", "b"), (("x", "task_not_found", None), ("a", "task_not_found", None))
        )
        owner = drive.machine.sessions.info(session, 0)
        assert owner is not None
        assert [thing[2] for thing in owner.holds] == [""]

    def test_released_tasks_go_to_the_end_of_the_line(self) -> None:
        """So that one that nobody can do does not hold up the others."""
        drive = WallDrive()
        one, two = drive.open(1000, 1000)
        drive.ask(put("a", "b", cap=1))
        held = drive.held(one)
        assert drive.one(ReleaseTasks(one, "p", held)) == TasksReleased("p", ("a",), ())
        assert drive.ids(two) == ["b"]
        assert drive.one(ReleaseTasks(one, "p", held)) == TasksReleased(
            "p", (), (("a", "not_holder", None),)
        )

    def test_who_leaves_frees_all_and_waits_no_more(self) -> None:
        """In one step; leaving twice is fine."""
        drive = WallDrive()
        one, two = drive.open(1000, 1000)
        drive.ask(put("a", "b"))
        drive.work(one)
        drive.ask(Work(two, "p", None, 500))
        first, second = drive.ask(LeavePool(one, "p"))
        assert first == PoolLeft("p", 2)
        assert isinstance(second, Worked)
        assert len(second.tasks) == 2
        assert drive.one(LeavePool(one, "p")) == PoolLeft("p", 0)
        drive.ask(put(replace=True))
        drive.ask(Work(two, "p", None, 500))
        told, left = drive.ask(LeavePool(two, "p"))
        assert (told, left) == (Worked("p", two, 0, (), ()), PoolLeft("p", 0))

    def test_needs_a_session_and_a_pool(self) -> None:
        """In this order, whatever the command."""
        drive = WallDrive()
        (session,) = drive.open(1000)
        for kind in (FinishTasks, ReleaseTasks):
            assert drive.one(kind("ff-x", "p", ())) == SessionNotFound("ff-x")
            assert drive.one(kind(session, "p", ())) == PoolNotFound("p")
        assert drive.one(LeavePool("ff-x", "p")) == SessionNotFound("ff-x")
        assert drive.one(LeavePool(session, "p")) == PoolNotFound("p")


class TestRemove:
    def test_takes_a_task_away_from_whoever_holds_it(self) -> None:
        """The holder is named to the one and told to the other."""
        drive = WallDrive()
        (session,) = drive.open(1000)
        drive.ask(put("a"))
        drive.work(session)
        assert drive.one(RemoveTask("p", "a")) == TaskRemoved("p", "a", (session,))
        assert drive.events()[0] == ("revoked", session, "a")
        assert drive.one(RemoveTask("p", "a")) == TaskNotFound("p", "a")
        assert drive.one(RemoveTask("q", "a")) == PoolNotFound("q")

    def test_takes_a_pool_away_with_all_in_it(self) -> None:
        """Workers, tasks, waits and timers; nothing is left behind."""
        drive = scheduled()
        one, two = drive.open(1000, 1000)
        drive.ask(put("b"))
        drive.work(one)
        drive.ask(Work(two, "p", None, 500))
        assert drive.ask(RemovePool("p")) == [PoolNotFound("p"), PoolRemoved("p", 2)]
        counts = drive.machine.counts()
        assert (counts.pools, counts.tasks, counts.pool_workers, counts.parked) == (0, 0, 0, 0)
        assert drive.machine.next_wall_ms() is None
        for session in (one, two):
            owner = drive.machine.sessions.info(session, 0)
            assert owner is not None
            assert (owner.holds, owner.waits) == ((), ())
        assert drive.one(RemovePool("p")) == PoolNotFound("p")


class TestSlots:
    def test_a_scheduled_task_asks_for_its_slot_and_waits_for_it(self) -> None:
        """It is no work until then, and counts in no share."""
        drive = WallDrive()
        drive.wall_ms = 1_000
        (session,) = drive.open(10**6)
        drive.ask(every())
        (wanted,) = drive.machine.tasks.wanting()
        assert (wanted.pool, wanted.task, wanted.after_ms) == ("p", "a", 1_000)
        assert drive.slot(2_000, 30) == SlotSet()
        assert drive.machine.tasks.wanting() == []
        assert drive.machine.next_wall_ms() == 2_030
        assert drive.work(session).share == 0
        drive.wall(2_029)
        assert drive.ids(session) == []
        drive.wall(2_030)
        assert [task.slot_ms for task in drive.work(session).tasks] == [2_000]

    def test_every_slot_fires_once_whatever_the_clock_does(self) -> None:
        """After a step back the next slot is still later than the last one."""
        drive = scheduled(ALLOW)
        drive.wall(2_000)
        drive.wall(500)
        (wanted,) = drive.machine.tasks.wanting()
        assert wanted.after_ms == 2_000
        assert drive.slot(2_000) == SlotVoid()
        assert drive.slot(1_500) == SlotVoid()
        assert drive.slot(3_000) == SlotSet()
        drive.wall(2_999)
        assert drive.task().fired == 1
        drive.wall(3_000)
        assert drive.task().fired == 2

    def test_only_the_first_answer_to_the_latest_question_counts(self) -> None:
        """Two leaders may have asked themselves."""
        drive = WallDrive()
        drive.ask(every())
        (wanted,) = drive.machine.tasks.wanting()
        answer = SetSlot("p", "a", wanted.revision, 50)
        assert drive.one(answer) == SlotSet()
        assert drive.one(answer) == SlotVoid()
        drive.ask(RemoveTask("p", "a"), every())
        assert drive.one(answer) == SlotVoid()
        assert drive.one(SetSlot("p", "x", 1, 50)) == SlotVoid()
        assert drive.one(SetSlot("q", "a", 1, 50)) == SlotVoid()

    def test_questions_are_in_order_and_can_be_read_on(self) -> None:
        """By revision, which rises."""
        drive = WallDrive()
        schedule = Schedule(1, 0, "", "", SKIP, 1, 0)
        drive.ask(PutTasks("p", tuple(NewTask(id, schedule=schedule) for id in "cab")))
        asked = drive.machine.tasks.wanting()
        assert [wanted.task for wanted in asked] == ["c", "a", "b"]
        assert drive.machine.tasks.wanting(asked[0].revision, 1) == asked[1:2]

    def test_a_slot_that_comes_too_late_is_missed(self) -> None:
        """Beyond the catch-up window, which counts from when it was due."""
        drive = scheduled(catchup_ms=100)
        drive.wall(2_101)
        assert (drive.task().fired, drive.task().missed) == (0, 1)
        drive.slot(3_000, 50)
        drive.wall(3_150)
        assert (drive.task().fired, drive.task().missed) == (1, 1)

    def test_many_that_are_due_at_once_are_spread_over_entries(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No entry pays for all that are due at six o'clock; whoever lags behind goes on alike."""
        monkeypatch.setattr(limits, "SLOTS_DUE_PER_ENTRY_MAX", 2)
        drive = WallDrive()
        drive.wall_ms = 1_000
        schedule = Schedule(1_000, 0, "", "", SKIP, 100, 0)
        drive.one(PutTasks("p", tuple(NewTask(id, schedule=schedule) for id in "abcde")))
        asked = drive.machine.tasks.wanting()
        drive.ask(*(SetSlot(one.pool, one.task, one.revision, 2_000) for one in asked))
        fired = []
        for _ in range(3):
            assert drive.machine.next_wall_ms() == 2_000
            drive.machine = Machine.load(drive.machine.dump())
            drive.wall(2_050)
            fired.append([task for what, _, task in drive.events() if what == "fired"])
        assert fired == [["a", "b"], ["c", "d"], ["e"]]
        assert drive.machine.next_wall_ms() is None

    def test_slots_missed_before_are_counted_in_one_step(self) -> None:
        """The leader has found so many."""
        drive = WallDrive()
        drive.ask(every())
        drive.slot(5_000, missed=7)
        assert drive.task().missed == 7
        assert drive.events() == [("missed", None, "a")]

    def test_a_schedule_may_be_over(self) -> None:
        """No slot any more; a new schedule begins anew."""
        drive = WallDrive()
        drive.ask(every())
        assert drive.slot(None) == SlotSet()
        assert (drive.machine.tasks.wanting(), drive.task().is_over) == ([], True)
        drive.ask(every(every_ms=2_000))
        assert (len(drive.machine.tasks.wanting()), drive.task().is_over) == (1, False)

    def test_a_finished_run_leaves_the_task(self) -> None:
        """It waits for its next slot."""
        drive = scheduled()
        (session,) = drive.open(10**6)
        drive.wall(2_000)
        held = drive.held(session)
        assert drive.one(FinishTasks(session, "p", held)) == TasksFinished("p", ("a",), ())
        assert drive.one(FinishTasks(session, "p", held)) == TasksFinished(
            "p", (), (("a", "not_holder", None),)
        )
        assert drive.task().runs == ()


class TestOverlap:
    def three_slots(self, overlap: int) -> WallDrive:
        """Three slots come up while nobody finishes anything."""
        drive = scheduled(overlap)
        for slot_ms in (2_000, 3_000, 4_000):
            drive.wall(slot_ms)
            drive.slot(slot_ms + 1_000)
        return drive

    def test_skip_runs_the_first_only(self) -> None:
        """The others are counted."""
        task = self.three_slots(SKIP).task()
        assert ([run.slot_ms for run in task.runs], task.skipped) == ([2_000], 2)

    def test_buffer_keeps_one_for_afterwards(self) -> None:
        """It runs when the present run ends, however."""
        drive = self.three_slots(BUFFER)
        assert (drive.task().buffered_ms, drive.task().skipped) == (3_000, 1)
        (session,) = drive.open(10**6)
        drive.ask(FinishTasks(session, "p", drive.held(session)))
        task = drive.task()
        assert ([run.slot_ms for run in task.runs], task.buffered_ms) == ([3_000], None)
        assert (task.fired, task.skipped) == (2, 1)

    def test_allow_runs_all_each_with_a_holder_and_a_token(self) -> None:
        """Runs of one task are things of their own."""
        drive = self.three_slots(ALLOW)
        one, two = drive.open(10**6, 10**6)
        drive.ask(Work(two, "p", 1))
        worked = drive.work(one)
        assert worked.share == 2
        assert [task.slot_ms for task in worked.tasks] == [3_000, 4_000]
        held = tuple((task.id, task.token) for task in worked.tasks)
        assert drive.one(FinishTasks(one, "p", held[:1])) == TasksFinished("p", ("a",), ())
        assert [run.slot_ms for run in drive.task().runs] == [2_000, 4_000]

    def test_allow_has_a_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """More runs of one task are skipped."""
        monkeypatch.setattr("cluster.machine.tasks.slots.RUNS_PER_TASK_MAX", 2)
        task = self.three_slots(ALLOW).task()
        assert (len(task.runs), task.skipped) == (2, 1)


class TestByHand:
    def test_runs_now_as_a_slot_would(self) -> None:
        """The schedule goes on as if nothing had been."""
        drive = scheduled(BUFFER)
        drive.wall_ms = 1_500
        whats = [drive.one(RunTask("p", "a")) for _ in range(3)]
        assert whats == [TaskRan("p", "a", what) for what in ("started", "buffered", "skipped")]
        assert [run.slot_ms for run in drive.task().runs] == [1_500]
        assert drive.task().slot_ms == 2_000

    def test_a_paused_schedule_has_no_slots(self) -> None:
        """Nor are they made up for; by hand it runs."""
        drive = scheduled()
        assert drive.one(PauseTask("p", "a", True)) == TaskPaused("p", "a", True)
        assert drive.machine.next_wall_ms() is None
        drive.wall(9_000)
        assert drive.one(RunTask("p", "a")) == TaskRan("p", "a", "started")
        assert drive.one(PauseTask("p", "a", False)) == TaskPaused("p", "a", False)
        (wanted,) = drive.machine.tasks.wanting()
        assert wanted.after_ms == 9_000
        assert drive.task().missed == 0

    def test_pausing_twice_asks_nothing_twice(self) -> None:
        """The question under way stays the same."""
        drive = WallDrive()
        drive.ask(every())
        before = drive.machine.tasks.wanting()
        drive.ask(PauseTask("p", "a", False))
        assert drive.machine.tasks.wanting() == before

    def test_putting_it_again_leaves_a_pause_alone(self) -> None:
        """Unless it says otherwise."""
        drive = WallDrive()
        drive.ask(every(paused=True))
        assert drive.task().paused
        assert drive.one(every()) == TasksPut("p", 0, 0, 1, 0, 1)
        assert drive.one(every(paused=False)) == TasksPut("p", 0, 1, 0, 0, 1)
        assert not drive.task().paused

    def test_needs_a_schedule(self) -> None:
        """A plain task can be had until it is finished."""
        drive = WallDrive()
        drive.ask(put("a"))
        commands: tuple[Command, ...] = (RunTask("p", "a"), PauseTask("p", "a", True))
        for command in commands:
            assert drive.one(command) == TaskNotScheduled("p", "a")
        assert drive.one(RunTask("p", "x")) == TaskNotFound("p", "x")
        assert drive.one(PauseTask("q", "x", True)) == PoolNotFound("q")


class TestChangeOfSchedule:
    def test_another_schedule_asks_anew_and_keeps_its_counts(self) -> None:
        """No slot of the old one comes again."""
        drive = scheduled()
        drive.wall(2_000)
        drive.wall_ms = 500
        assert drive.one(every(every_ms=7_000)) == TasksPut("p", 0, 1, 0, 0, 1)
        (wanted,) = drive.machine.tasks.wanting()
        assert (wanted.schedule.every_ms, wanted.after_ms) == (7_000, 2_000)
        assert drive.task().fired == 1

    def test_a_task_without_schedule_any_more_is_to_be_done_once(self) -> None:
        """Its run goes on, or there is one now."""
        drive = scheduled()
        drive.ask(put("a"))
        assert (drive.machine.next_wall_ms(), len(drive.task().runs)) == (None, 1)
        (session,) = drive.open(10**6)
        drive.ask(FinishTasks(session, "p", drive.held(session)))
        assert drive.machine.counts().tasks == 0

    def test_a_task_with_a_schedule_from_now_on_waits_for_its_slot(self) -> None:
        """What somebody is at goes on; what nobody is at does not begin."""
        drive = WallDrive()
        (session,) = drive.open(10**6)
        drive.ask(put("a"))
        drive.ask(every())
        assert drive.task().runs == ()
        drive.ask(RemoveTask("p", "a"), put("a"))
        held = drive.held(session)
        drive.ask(every())
        assert drive.one(FinishTasks(session, "p", held)) == TasksFinished("p", ("a",), ())
        assert drive.task().runs == ()


def busy() -> WallDrive:
    """A machine with something of everything about tasks in it."""
    drive = WallDrive()
    drive.wall_ms = 1_000
    one, two, three = drive.open(10**6, 10**6, 10**6)
    drive.ask(put("x", "y", "z", cap=2, give_back=True), every(ALLOW))
    drive.slot(2_000, 5)
    drive.ask(Work(one, "p"), Work(two, "p", 1))
    drive.ask(PutTasks("q", ()), Work(three, "q", 3, 500))
    schedule = Schedule(0, 0, "* * * * *", "UTC", BUFFER, 100, 10)
    drive.ask(PutTasks("r", (NewTask("s", b"\xff", False, schedule),)))
    drive.ask(RunTask("r", "s"), RunTask("r", "s"), RunTask("r", "s"))
    drive.ask(PutTasks("r", (NewTask("t", None, True, schedule, True),)))
    return drive


def plain(drive: Drive) -> list[Any]:
    """Rows as they come back from bytes."""
    return list(snapshot.decode(snapshot.encode(drive.machine.dump())))


class TestSnapshot:
    def test_a_loaded_machine_goes_on_as_the_one_it_was_taken_of(self) -> None:
        """Workers, holders, the line, slots, questions and counts."""
        drive = busy()
        loaded = WallDrive(Machine.load(plain(drive)))
        loaded.seqs = dict(drive.seqs)
        assert plain(loaded) == plain(drive)
        assert loaded.machine.counts() == drive.machine.counts()
        assert loaded.machine.next_wall_ms() == drive.machine.next_wall_ms() == 2_005
        assert loaded.machine.tasks.wanting() == drive.machine.tasks.wanting()
        for step in (drive, loaded):
            step.wall(2_005)
            step.ask(PutTasks("q", (NewTask("n"),)), CloseSession("1-s"))
        assert drive.told == loaded.told
        assert drive.machine.full_digest(cbor.encode) == loaded.machine.full_digest(cbor.encode)
        assert any(isinstance(told[2], Closed) for told in loaded.told)

    @pytest.mark.parametrize(
        ("table", "number", "place", "value"),
        [
            ("pools", 0, 0, "z"),
            ("pools", 0, 1, -1),
            ("pools", 0, 3, 1),
            ("pool workers", 0, 1, "ff-x"),
            ("pool workers", 0, 2, 99_999),
            ("pool workers", 1, 1, "1-s"),
            ("pool workers", 0, 0, "nowhere"),
            ("tasks", 0, 1, "zz"),
            ("tasks", 0, 0, "nowhere"),
            ("tasks", 0, 2, "text"),
            ("task timings", 0, 1, "nobody"),
            ("task timings", 0, 3, True),
            ("task timings", 0, 4, 99_999),
            ("task timings", 0, 5, 5_000),
            ("task timings", 0, 7, None),
            ("task timings", 0, 8, True),
            ("task timings", 0, 9, 5),
            ("task runs", 0, 1, "nobody"),
            ("task runs", 0, 2, 99),
            ("task runs", 0, 4, "3-s"),
            ("task runs", 0, 4, None),
            ("task runs", 0, 5, 1),
            ("task runs", 1, 5, 0),
            ("task places", 0, 0, "p"),
            ("task places", 0, 1, "1-s"),
            ("task places", 0, 2, 0),
            ("task places", 0, 3, 99),
        ],
    )
    def test_refuses_records_that_contradict_one_another(
        self, table: str, number: int, place: int, value: object
    ) -> None:
        """Whatever is wrong stops the node at its start."""
        rows = plain(busy())
        (row,) = (row for row in rows if row[0] == table)
        assert row[1][number][place] != value
        row[1][number][place] = value
        with pytest.raises(ValueError, match="no snapshot of ours"):
            Machine.load(rows)

    def test_refuses_rows_of_a_kind_in_another_order(self) -> None:
        """Pools, workers, tasks, timings and runs stand in one order only."""
        for table in ("pools", "pool workers", "tasks", "task timings", "task runs"):
            rows = plain(busy())
            (row,) = (row for row in rows if row[0] == table)
            row[1].reverse()
            with pytest.raises(ValueError, match="no snapshot of ours"):
                Machine.load(rows)


def test_blockers_are_holders_then_those_who_wait_before() -> None:
    """For explain: who is at work, since when, under which token."""
    drive = WallDrive()
    one, two, three = drive.open(1000, 1000, 1000)
    drive.ask(put("a"))
    ((_, token),) = drive.held(one)
    drive.ask(Work(two, "p", None, 500))
    drive.ask(Work(three, "p", None, 500))
    found = list(drive.machine.tasks.blockers("p", three, None))
    assert [(b.session, b.token, b.position) for b in found[:2]] == [
        (one, token, None),
        (two, None, 1),
    ]
    place = list(drive.machine.tasks.places())[1]
    assert len(list(drive.machine.tasks.blockers("p", three, place))) == 2
    assert list(drive.machine.tasks.blockers("q", three, None)) == []
