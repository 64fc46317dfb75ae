"""Bugs are planted into semaphores, and their book must find each by the right name."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.machine.commands import CloseSession
from cluster.machine.commands.semaphores import (
    AcquireSemaphore,
    DeleteSemaphore,
    ReleaseSemaphore,
    SetSemaphore,
)
from cluster.machine.core import Core
from cluster.machine.semaphores import Semaphore, Semaphores
from tests.simulation import test_timeline
from tests.simulation.timeline import Timeline
from tests.simulation.workloads.semaphores import SEMAPHORES, SemaphoreBook

DOCK, PIER = SEMAPHORES


class Bench(test_timeline.Bench):
    """A timeline that is judged by the book of semaphores."""

    def __init__(self) -> None:
        super().__init__()

        def complain(law: str, _: str) -> None:
            self.complaints.append(law)

        self.timeline = Timeline(lambda: self.now_us, complain, [SemaphoreBook(complain)])

    def acquire(self, session: str, units: int = 1, wait_ms: int = 0) -> Any:
        """Ask for units of the dock; gives what is known of the answer."""
        return self.outcome(self.do(AcquireSemaphore(session, DOCK, units, 0, wait_ms)))


def story(bench: Bench) -> None:
    """Full, waited for, given back, resized, ended, deleted; much of it in one entry."""
    bench.do(SetSemaphore(DOCK, 3))
    a, b, c = bench.open(), bench.open(), bench.open()
    grant = bench.acquire(a, 2)
    bench.acquire(b, 2, wait_ms=60_000)
    bench.acquire(c)
    bench.acquire(c, 1, wait_ms=60_000)
    bench.do(ReleaseSemaphore(a, DOCK, grant.token))
    bench.do(SetSemaphore(DOCK, 1))
    bench.commit(
        bench.ask(SetSemaphore(PIER, 1)),
        bench.ask(AcquireSemaphore(a, PIER)),
        bench.ask(AcquireSemaphore(c, PIER, wait_ms=500)),
        bench.ask(CloseSession(a)),
        bench.ask(CloseSession(b)),
        bench.ask(SetSemaphore(PIER, 0)),
    )
    bench.do(CloseSession(c))
    bench.do(DeleteSemaphore(DOCK))


def test_a_good_history_is_let_pass() -> None:
    """Nothing to complain of."""
    bench = Bench()
    story(bench)
    assert bench.complaints == []


def test_a_unit_too_many_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Capacity."""
    monkeypatch.setattr(Semaphore, "fits", lambda self, units: self.held + units <= self.limit + 1)
    bench = Bench()
    story(bench)
    assert "capacity" in bench.complaints


def test_barging_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small request slips past the head."""
    monkeypatch.setattr(Semaphore, "rank", lambda *_: 0)
    bench = Bench()
    story(bench)
    assert "no barging" in bench.complaints


def test_units_that_outlive_their_session_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a session held is freed with it."""
    monkeypatch.setattr(Semaphores, "free", lambda *_: None)
    bench = Bench()
    story(bench)
    assert "a session takes all along" in bench.complaints


def test_a_grant_that_nobody_is_told_of_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waited gets units, and no answer."""

    def grant(core: Core, place: Any, _: Any) -> None:
        core.sessions.get(place.session).unstand(place)  # type: ignore[union-attr]
        for parked in place.parked.values():
            core._unpark(parked)

    monkeypatch.setattr(Core, "grant", grant)
    bench = Bench()
    bench.do(SetSemaphore(DOCK, 1))
    first = bench.acquire(bench.open())
    bench.acquire(bench.open(), wait_ms=60_000)
    bench.do(ReleaseSemaphore(first.session, DOCK, first.token))
    assert "grants are told" in bench.complaints


def test_a_limit_that_is_forgotten_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The book and the machine compare what they hold."""
    bench = Bench()
    bench.do(SetSemaphore(DOCK, 3))
    monkeypatch.setattr(bench.timeline.machine.semaphores._by_name[DOCK], "limit", 2)
    bench.commit()
    assert bench.complaints == ["semaphores"]
