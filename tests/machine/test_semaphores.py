"""Semaphores: units under a limit, fair order, resizing, and refusals that explain themselves."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.machine import limits
from cluster.machine.commands import Abandon, CloseSession
from cluster.machine.commands.semaphores import (
    AcquireSemaphore,
    DeleteSemaphore,
    ReleaseSemaphore,
    SetSemaphore,
)
from cluster.machine.machine import Machine
from cluster.machine.outcome import (
    Abandoned,
    Closed,
    NotHolder,
    Queued,
    QueueFull,
    SessionExpired,
    SessionNotFound,
    StaleToken,
    Withdrawn,
)
from cluster.machine.outcome.semaphores import (
    SemaphoreDeleted,
    SemaphoreFull,
    SemaphoreInfo,
    SemaphoreInUse,
    SemaphoreNotFound,
    SemaphoreSet,
    SemaphoreTooSmall,
    UnitsGranted,
    UnitsReleased,
)
from cluster.machine.primitive import Blocker
from cluster.wire import snapshot
from tests.machine.drive import Drive
from tests.machine.test_snapshot import plain


def ask(session: str, units: int = 1, wait_ms: int = 0, priority: int = 0) -> AcquireSemaphore:
    """Ask for units of the dock."""
    return AcquireSemaphore(session, "dock", units, priority, wait_ms)


def dock(limit: int, sessions: int = 3) -> tuple[Drive, list[str]]:
    """A semaphore of so many units, and sessions that want them; grants begin with token 10."""
    drive = Drive()
    drive.ask(SetSemaphore("dock", limit))
    ids = drive.open(*[10_000] * sessions)
    while drive.machine.index < 9:
        drive.at(0)
    return drive, ids


class TestSet:
    def test_makes_a_semaphore(self) -> None:
        """The first limit makes it, the same again changes nothing."""
        drive = Drive()
        assert drive.one(SetSemaphore("dock", 2)) == SemaphoreSet("dock", 2, True, None, 0, 0, 0)
        assert drive.one(SetSemaphore("dock", 2)) == SemaphoreSet("dock", 2, False, 2, 0, 0, 0)
        assert drive.machine.counts().semaphores == 1

    def test_a_higher_limit_grants_those_who_wait_at_once(self) -> None:
        """In order, as many as fit, in the same entry, after the answer."""
        drive, (a, b, c) = dock(1)
        drive.ask(ask(a), ask(b, wait_ms=500), ask(c, wait_ms=500))
        assert drive.ask(SetSemaphore("dock", 2)) == [
            SemaphoreSet("dock", 2, False, 1, 1, 1, 2),
            UnitsGranted("dock", b, 11, 1),
        ]

    def test_a_lower_limit_takes_nothing_away(self) -> None:
        """Grants resume when enough came back."""
        drive, (a, b, c) = dock(3)
        drive.ask(ask(a, 2), ask(b, 1))
        assert drive.one(SetSemaphore("dock", 1)) == SemaphoreSet("dock", 1, False, 3, 3, 2, 0)
        assert drive.one(ask(c, wait_ms=500)) == Queued("dock", 1)
        assert drive.ask(ReleaseSemaphore(a, "dock", 10)) == [UnitsReleased("dock", 2)]
        assert drive.ask(ReleaseSemaphore(b, "dock", 11)) == [
            UnitsReleased("dock", 1),
            UnitsGranted("dock", c, 14, 1),
        ]

    def test_a_limit_of_zero_closes_it_for_the_time_being(self) -> None:
        """Whoever waits goes on waiting, and is granted when it opens again."""
        drive, (a, b, _) = dock(0)
        assert drive.one(ask(a)) == SemaphoreFull("dock", 1, 0, 0, 0, None, 0, None, 0, 1)
        assert drive.one(ask(b, 5, wait_ms=500)) == Queued("dock", 1)
        assert drive.ask(SetSemaphore("dock", 5))[1:] == [UnitsGranted("dock", b, 12, 5)]

    def test_who_waits_for_more_than_a_new_limit_is_refused_at_the_head(self) -> None:
        """It would hold up everybody behind it for nothing."""
        drive, (a, b, c) = dock(3)
        drive.ask(ask(a), ask(b, 3, wait_ms=500), ask(c, wait_ms=500))
        assert drive.ask(SetSemaphore("dock", 2)) == [
            SemaphoreSet("dock", 2, False, 3, 1, 1, 2),
            SemaphoreTooSmall("dock", 3, 2),
            UnitsGranted("dock", c, 11, 1),
        ]

    def test_refuses_more_semaphores_than_the_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Those there are can still be resized."""
        monkeypatch.setattr(limits, "SEMAPHORES_MAX", 1)
        drive, _ = dock(1)
        assert drive.one(SetSemaphore("pier", 1)) == QueueFull("semaphores", 1)
        assert isinstance(drive.one(SetSemaphore("dock", 2)), SemaphoreSet)


class TestDelete:
    def test_deletes_one_that_nobody_uses(self) -> None:
        """Afterwards there is none of the name."""
        drive, (a, *_) = dock(1)
        assert drive.one(DeleteSemaphore("dock")) == SemaphoreDeleted("dock")
        assert drive.one(DeleteSemaphore("dock")) == SemaphoreNotFound("dock")
        assert drive.one(ask(a)) == SemaphoreNotFound("dock")
        assert drive.machine.semaphores.info("dock", 0) is None

    def test_refuses_while_somebody_holds_or_waits(self) -> None:
        """Says who has held longest, and how many wait."""
        drive, (a, b, _) = dock(1)
        drive.ask(ask(a), now_ms=100)
        drive.ask(ask(b, wait_ms=500))
        drive.at(150)
        assert drive.one(DeleteSemaphore("dock")) == SemaphoreInUse("dock", 1, 1, a, 50, 10)
        drive.ask(SetSemaphore("dock", 0))
        drive.ask(ReleaseSemaphore(a, "dock", 10))
        assert drive.one(DeleteSemaphore("dock")) == SemaphoreInUse("dock", 0, 1, None, 0, None)


class TestPartOfAGrant:
    def test_goes_back_and_the_rest_is_kept(self) -> None:
        """Under the same token; the next waiter gets what is free."""
        drive, (a, b, *_) = dock(3)
        drive.ask(ask(a, 3), ask(b, 2, wait_ms=500))
        assert drive.ask(ReleaseSemaphore(a, "dock", 10, 1)) == [UnitsReleased("dock", 1)]
        assert drive.ask(ReleaseSemaphore(a, "dock", 10, 1)) == [
            UnitsReleased("dock", 1),
            UnitsGranted("dock", b, 12, 2),
        ]
        assert drive.machine.semaphores.info("dock", 0) == SemaphoreInfo(
            "dock", 3, 3, ((a, 10, 1, 0), (b, 12, 2, 0)), ()
        )

    def test_more_than_it_has_is_all_of_it(self) -> None:
        """The grant is over, and a second release finds none."""
        drive, (a, b, *_) = dock(3)
        drive.ask(ask(a, 2), ask(b, 1))
        assert drive.one(ReleaseSemaphore(a, "dock", 10, 9)) == UnitsReleased("dock", 2)
        assert drive.one(ReleaseSemaphore(a, "dock", 10, 1)) == StaleToken(
            "dock", 10, 11, "semaphore"
        )

    def test_what_is_left_ends_with_the_session(self) -> None:
        """All units are free again."""
        drive, (a, *_) = dock(3)
        drive.ask(ask(a, 3))
        drive.ask(ReleaseSemaphore(a, "dock", 10, 2))
        drive.ask(CloseSession(a))
        assert drive.machine.semaphores.info("dock", 0) == SemaphoreInfo("dock", 3, 0, (), ())


class TestAcquire:
    def test_each_is_a_grant_of_its_own(self) -> None:
        """A session may have many, each under its token, each given back alone."""
        drive, (a, *_) = dock(3)
        assert drive.ask(ask(a), ask(a, 2)) == [
            UnitsGranted("dock", a, 10, 1),
            UnitsGranted("dock", a, 11, 2),
        ]
        assert drive.one(ReleaseSemaphore(a, "dock", 10)) == UnitsReleased("dock", 1)
        assert drive.machine.semaphores.info("dock", 0) == SemaphoreInfo(
            "dock", 3, 2, ((a, 11, 2, 0),), ()
        )

    def test_refuses_when_full_and_says_why(self) -> None:
        """What is held of which limit, by how many, since when, and where one would stand."""
        drive, (a, b, c) = dock(3)
        drive.ask(ask(a, 2), now_ms=10)
        drive.ask(ask(b, 2, wait_ms=500), now_ms=20)
        assert drive.one(ask(c, 2), now_ms=50) == SemaphoreFull("dock", 2, 2, 3, 1, a, 40, 10, 1, 2)
        assert drive.one(ask(c, 2, priority=-1)) == SemaphoreFull(
            "dock", 2, 2, 3, 1, a, 40, 10, 1, 1
        )

    def test_the_head_holds_up_smaller_ones(self) -> None:
        """One unit is free, but who came first wants two: nobody barges in."""
        drive, (a, b, c) = dock(3)
        drive.ask(ask(a, 2), ask(b, 2, wait_ms=500))
        assert drive.one(ask(c, 1, wait_ms=500)) == Queued("dock", 2)
        assert drive.ask(ReleaseSemaphore(a, "dock", 10)) == [
            UnitsReleased("dock", 2),
            UnitsGranted("dock", b, 12, 2),
            UnitsGranted("dock", c, 13, 1),
        ]

    def test_a_more_urgent_one_goes_first(self) -> None:
        """Smaller priority first, equal ones in order of arrival; one that fits is granted."""
        drive, (a, b, c) = dock(3)
        drive.ask(ask(a, 2), ask(b, 2, wait_ms=500))
        assert drive.one(ask(c, 1, priority=-1)) == UnitsGranted("dock", c, 11, 1)
        assert drive.one(ask(a, 1, wait_ms=500, priority=-2)) == Queued("dock", 1)

    def test_refuses_more_units_than_there_are(self) -> None:
        """Even if it would wait: no release would ever help."""
        drive, (a, *_) = dock(2)
        assert drive.one(ask(a, 3, wait_ms=500)) == SemaphoreTooSmall("dock", 3, 2)

    def test_needs_a_living_session_and_a_semaphore(self) -> None:
        """Expired, unknown, never made."""
        drive = Drive()
        (session,) = drive.open(100, now_ms=0)
        assert drive.one(ask("ff-x")) == SessionNotFound("ff-x")
        assert drive.one(ask(session)) == SemaphoreNotFound("dock")
        assert drive.one(ask(session), now_ms=100) == SessionExpired(session)

    def test_keeps_its_limits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Things of a session, grants, waiters, parked requests."""
        drive, (a, b, c) = dock(5)
        drive.ask(ask(a))
        monkeypatch.setattr(limits, "OWNED_PER_SESSION_MAX", 1)
        assert drive.one(ask(a)) == QueueFull("things of a session", 1)
        monkeypatch.setattr(limits, "OWNED_PER_SESSION_MAX", 9)
        monkeypatch.setattr(limits, "GRANTS_PER_SEMAPHORE_MAX", 1)
        assert drive.one(ask(b)) == QueueFull("grants of a semaphore", 1)
        monkeypatch.setattr(limits, "GRANTS_PER_SEMAPHORE_MAX", 9)
        drive.ask(ask(b, 5, wait_ms=500))
        monkeypatch.setattr(limits, "WAITERS_PER_SEMAPHORE_MAX", 1)
        assert drive.one(ask(c, wait_ms=500)) == QueueFull("waiters of a semaphore", 1)
        monkeypatch.setattr(limits, "WAITERS_PER_SEMAPHORE_MAX", 9)
        monkeypatch.setattr(limits, "PARKED_MAX", 1)
        assert drive.one(ask(c, wait_ms=500)) == QueueFull("parked requests", 1)

    def test_a_full_table_of_grants_holds_up_the_queue(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A waiter is not granted over it, whatever is free."""
        drive, (a, b, c) = dock(2)
        drive.ask(ask(a), ask(b), ask(c, 2, wait_ms=500))
        monkeypatch.setattr(limits, "GRANTS_PER_SEMAPHORE_MAX", 2)
        assert drive.ask(SetSemaphore("dock", 9))[1:] == []
        assert drive.ask(ReleaseSemaphore(a, "dock", 10))[1:] == [UnitsGranted("dock", c, 12, 2)]


class TestRelease:
    def test_is_conditional_on_the_token(self) -> None:
        """A stale one, somebody else's, one of nobody, no semaphore."""
        drive, (a, b, _) = dock(2)
        drive.ask(ask(a), ask(b))
        assert drive.one(ReleaseSemaphore(a, "dock", 9)) == StaleToken("dock", 9, 11, "semaphore")
        assert drive.one(ReleaseSemaphore(a, "dock", 11)) == NotHolder("dock", a, "semaphore")
        assert drive.one(ReleaseSemaphore(a, "dock", 10)) == UnitsReleased("dock", 1)
        assert drive.one(ReleaseSemaphore(b, "dock", 11)) == UnitsReleased("dock", 1)
        assert drive.one(ReleaseSemaphore(b, "dock", 11)) == NotHolder("dock", b, "semaphore")
        assert drive.one(ReleaseSemaphore(b, "pier", 11)) == SemaphoreNotFound("pier")
        assert drive.one(ReleaseSemaphore("ff-x", "dock", 1)) == SessionNotFound("ff-x")


class TestSessions:
    def test_the_end_of_a_session_frees_all_its_grants(self) -> None:
        """In one step, and those who wait are granted in it."""
        drive, (a, b, c) = dock(2)
        drive.ask(ask(a), ask(a), ask(b, 2, wait_ms=900), ask(c, wait_ms=900))
        assert drive.ask(CloseSession(a)) == [Closed(a), UnitsGranted("dock", b, 12, 2)]
        assert [event.what for event in drive.machine.core.events] == [
            "closed",
            "lost",
            "lost",
            "granted",
        ]

    def test_a_session_that_is_due_is_not_granted(self) -> None:
        """Two end at the same time: the second gets nothing of the first."""
        drive = Drive()
        drive.ask(SetSemaphore("dock", 1), now_ms=0)
        a, b, c = drive.open(100, 100, 1000)
        drive.ask(ask(a), ask(b, wait_ms=500), ask(c, wait_ms=500))
        assert drive.at(100) == [SessionExpired(b), UnitsGranted("dock", c, 6, 1)]

    def test_a_wait_ends_and_lets_those_behind_it_in(self) -> None:
        """The refusal tells the place that was lost."""
        drive, (a, b, c) = dock(3)
        drive.ask(ask(a, 2), ask(b, 2, wait_ms=50), ask(c, 1, wait_ms=500))
        assert drive.at(50) == [
            SemaphoreFull("dock", 2, 2, 3, 1, a, 50, 10, 1, 1),
            UnitsGranted("dock", c, 11, 1),
        ]

    def test_who_hangs_up_leaves_the_queue(self) -> None:
        """And those behind move up."""
        drive, (a, b, c) = dock(3)
        drive.ask(ask(a, 2), ask(b, 2, wait_ms=50), ask(c, 1, wait_ms=500))
        seq = drive.seqs["n1", 1] - 1
        assert drive.ask(Abandon(seq)) == [
            Withdrawn(),
            Abandoned(),
            UnitsGranted("dock", c, 11, 1),
        ]


class TestPictures:
    def test_shows_holders_and_waiters_in_order(self) -> None:
        """Since when, how long still, with which priority."""
        drive, (a, b, c) = dock(3)
        drive.ask(ask(a, 3), now_ms=10)
        drive.ask(ask(b, 2, wait_ms=500), ask(c, wait_ms=100, priority=-1), now_ms=20)
        assert drive.machine.semaphores.info("dock", 30) == SemaphoreInfo(
            "dock", 3, 3, ((a, 10, 3, 20),), ((c, 1, -1, 10, 90), (b, 2, 0, 10, 490))
        )

    def test_lists_by_prefix_in_order_of_name(self) -> None:
        """`after` need not be there any more."""
        drive = Drive()
        drive.ask(*(SetSemaphore(name, 1) for name in ("b", "a/2", "a/1", "a/3")))
        semaphores = drive.machine.semaphores

        def names(**query: Any) -> list[str]:
            return [info.name for info in semaphores.list(0, **query)]

        assert names() == ["a/1", "a/2", "a/3", "b"]
        assert names(prefix="a/", limit=2) == ["a/1", "a/2"]
        assert names(prefix="a/", after="a/15") == ["a/2", "a/3"]

    def test_a_token_is_checked_against_all_grants(self) -> None:
        """Any present grant is valid; the newest is told."""
        drive, (a, b, _) = dock(2)
        assert drive.machine.semaphores.check("dock", 10) == (False, None)
        drive.ask(ask(a), ask(b))
        check = drive.machine.semaphores.check
        assert [check("dock", token) for token in (9, 10, 11)] == [
            (False, 11),
            (True, 11),
            (True, 11),
        ]
        assert check("pier", 10) == (False, None)

    def test_blockers_are_all_holders_and_those_before(self) -> None:
        """Oneself too: who holds all units and wants one more waits for itself."""
        drive, (a, b, c) = dock(2)
        drive.ask(ask(a, 2), now_ms=5)
        drive.ask(ask(b, wait_ms=500), ask(a, wait_ms=500), now_ms=6)
        semaphores = drive.machine.semaphores
        place = next(p for p in semaphores.places() if p.session == a)
        before = [Blocker(a, 10, 5, None), Blocker(b, None, 6, 1)]
        assert list(semaphores.blockers("dock", a, place)) == before
        assert list(semaphores.blockers("dock", c, None)) == [*before, Blocker(a, None, 6, 2)]
        assert list(semaphores.blockers("pier", c, None)) == []


def busy() -> Machine:
    """A machine with semaphores in every state."""
    drive, (a, b, c) = dock(3)
    drive.ask(SetSemaphore("shut", 0), SetSemaphore("idle", 7))
    drive.ask(ask(a, 2), ask(b), ask(c, 2, wait_ms=500), ask(c, wait_ms=900), now_ms=10)
    drive.ask(AcquireSemaphore(a, "shut", wait_ms=700, priority=-1), key="k", fingerprint=b"f")
    return drive.machine


class TestSnapshots:
    def test_a_loaded_machine_is_the_same(self) -> None:
        """Rows, counts, pictures, sessions' records."""
        machine = busy()
        loaded = Machine.load(snapshot.decode(snapshot.encode(machine.dump())))
        assert plain(loaded.dump()) == plain(machine.dump())
        assert loaded.counts() == machine.counts()
        assert loaded.semaphores.list(20) == machine.semaphores.list(20)
        assert loaded.sessions.list(20) == machine.sessions.list(20)

    @pytest.mark.parametrize(
        ("kind", "column", "value"),
        [
            ("semaphores", 0, "zzz"),
            ("semaphores", 1, -1),
            ("semaphores", 1, 9),
            ("semaphore grants", 0, "unknown"),
            ("semaphore grants", 1, "9-nobody"),
            ("semaphore grants", 2, 0),
            ("semaphore grants", 2, 99),
            ("semaphore grants", 2, 12),
            ("semaphore grants", 3, 0),
            ("semaphore places", 0, "unknown"),
            ("semaphore places", 0, "idle"),
            ("semaphore places", 1, "9-nobody"),
            ("semaphore places", 2, 0),
            ("semaphore places", 2, 4),
            ("semaphore places", 4, 99),
            ("semaphore places", 4, 2),
        ],
    )
    def test_refuses_records_that_contradict_one_another(
        self, kind: str, column: int, value: object
    ) -> None:
        """Every field is checked, alone and against the others."""
        rows = plain(busy().dump())
        (row,) = (row for row in rows if row[0] == kind)
        row[1][0][column] = value
        with pytest.raises(ValueError, match="no snapshot of ours"):
            Machine.load(rows)
