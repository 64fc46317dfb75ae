"""The book of jobs is fed bad answers and must complain, each time by the right name."""

from __future__ import annotations

import pytest

from cluster.machine.commands import Command, RequestId
from cluster.machine.commands.jobs import (
    BuryJob,
    CancelJob,
    DeleteJob,
    KeepTubes,
    PutJob,
    ReleaseJob,
    ReserveJob,
    ReserveJobs,
)
from cluster.machine.machine import Machine
from cluster.machine.outcome import Outcome
from cluster.machine.outcome.jobs import (
    Cancelled,
    JobDeleted,
    JobMoved,
    JobPut,
    OneReserved,
    Reservation,
    Reserved,
    TubesKept,
)
from tests.simulation.workloads.base import Entry, Fresh
from tests.simulation.workloads.jobs import JobBook

REQUEST = RequestId("a", 1, 1)


class Bench:
    """A book, and what it complained of."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self.book = JobBook(lambda law, _: self.complaints.append(law))
        self.index = 0

    def hear(
        self, command: Command, outcome: Outcome, now_ms: int = 0, gone: tuple[str, ...] = ()
    ) -> None:
        """One entry with one answer; the totals of the machine are what the book expects."""
        self.index += 1
        entry = Entry(
            self.index,
            now_ms,
            now_ms * 1000,
            [Fresh(REQUEST, command, outcome)],
            [],
            [],
            frozenset(gone),
            frozenset(gone),
            [],
            Machine(),
            lambda law, _: self.complaints.append(law),
            {},
        )
        self.book.applied(entry)
        # The empty machine agrees with no book that has jobs: that law has its own test.
        self.complaints = [law for law in self.complaints if law != "jobs"]

    def put(self, job: int = 1, delay_ms: int = 0, key: str | None = None) -> None:
        self.hear(PutJob("t", b"", delay_ms=delay_ms, key=key), JobPut(job, "t", "ready"))

    def reserve(self, token: int, now_ms: int = 0, session: str | None = None) -> None:
        one = Reservation(1, "t", b"", True, token, 1_000, 0, 1, None)
        self.hear(ReserveJobs(("t",), session), Reserved((one,)), now_ms)


@pytest.fixture
def bench() -> Bench:
    """A bench with one job put."""
    bench = Bench()
    bench.put()
    return bench


def test_a_good_history_is_let_pass(bench: Bench) -> None:
    """Put, reserved, ran out, reserved by a session that ends, reserved, done."""
    bench.reserve(5)
    bench.reserve(6, 1_000, "s")
    one = Reservation(1, "t", b"", True, 7, 1_000, 0, 1, None)
    bench.hear(ReserveJob(1), OneReserved(one), 1_100, ("s",))
    bench.hear(DeleteJob(1, 7), JobDeleted(1, "t"), 1_200)
    bench.hear(CancelJob(1), Cancelled(1, False, "gone", None), 1_300)
    assert bench.complaints == []


def test_two_workers_at_a_time_are_seen(bench: Bench) -> None:
    """Before the TTR is over."""
    bench.reserve(5)
    bench.reserve(6, 999)
    assert bench.complaints == ["one worker at a time"]


def test_a_job_that_comes_early_is_seen() -> None:
    """By one millisecond."""
    bench = Bench()
    bench.put(delay_ms=100)
    bench.reserve(5, 99)
    assert bench.complaints == ["no job early"]


def test_a_job_given_out_after_its_cancel_is_seen(bench: Bench) -> None:
    """And a second cancel of it."""
    bench.hear(CancelJob(1), Cancelled(1, True, "gone", None))
    bench.reserve(5)
    bench.hear(CancelJob(1), Cancelled(1, True, "gone", None))
    assert bench.complaints == ["exactly one end of a job"] * 2


def test_a_cancel_of_what_somebody_has_is_seen(bench: Bench) -> None:
    """And one that was refused though nobody had the job."""
    bench.hear(CancelJob(1), Cancelled(1, False, "reserved", 10))
    bench.hear(CancelJob(1), Cancelled(1, False, "gone", None))
    bench.reserve(5)
    bench.hear(CancelJob(1), Cancelled(1, True, "gone", None))
    assert bench.complaints == [
        "a cancelled job is nobody's",
        "exactly one end of a job",
        "a cancelled job is nobody's",
    ]


def test_a_late_token_that_worked_is_seen(bench: Bench) -> None:
    """After the TTR, and another's."""
    bench.reserve(5)
    bench.hear(ReleaseJob(1, 5), JobMoved(1, "t", "ready"), 1_000)
    bench.reserve(6, 1_000)
    bench.hear(BuryJob(1, 5), JobMoved(1, "t", "buried"), 1_001)
    assert bench.complaints == ["a late token is stale"] * 2


def test_two_live_jobs_of_one_key_are_seen() -> None:
    """In one tube."""
    bench = Bench()
    bench.put(1, key="k")
    bench.put(2, key="k")
    assert bench.complaints == ["a key lives once"]


def test_a_lost_job_is_seen(bench: Bench) -> None:
    """The machine has none, the book has one."""
    bench.book.check(Machine())
    assert bench.complaints == ["no job lost"]


def test_a_kept_tube_that_is_gone_is_seen() -> None:
    """Until it is dropped, or its session ends."""
    bench = Bench()
    bench.hear(KeepTubes("s", ("t", "u")), TubesKept("s"))
    assert bench.complaints == ["a kept tube stays"] * 2
    bench.hear(KeepTubes("s", (), ("t",)), TubesKept("s"))
    assert bench.complaints == ["a kept tube stays"] * 3
    bench.hear(CancelJob(1), Cancelled(1, False, "gone", None), 0, ("s",))
    assert bench.complaints == ["a kept tube stays"] * 3
