"""Jobs: order, reservations and their tokens, what ends them, keys, pauses, dead letters, limits."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cluster.machine import limits
from cluster.machine.commands import Abandon, Batch, CloseSession, Command, Several
from cluster.machine.commands.jobs import (
    BuryJob,
    CancelJob,
    CancelKey,
    DeadLetter,
    DeleteJob,
    KeepTubes,
    KickJob,
    KickTube,
    PauseTube,
    PutJob,
    ReleaseJob,
    ReserveJob,
    ReserveJobs,
    ReturnJob,
    TouchJob,
)
from cluster.machine.machine import Machine
from cluster.machine.outcome import (
    Abandoned,
    Batched,
    BatchRefused,
    Outcome,
    Queued,
    QueueFull,
    SessionExpired,
    StaleToken,
    Withdrawn,
)
from cluster.machine.outcome.jobs import (
    Cancelled,
    DuplicateKey,
    JobDeleted,
    JobInfo,
    JobKicked,
    JobMoved,
    JobNotFound,
    JobPut,
    JobReserved,
    NotReserved,
    OneReserved,
    Reservation,
    Reserved,
    Touched,
    TubeKicked,
    TubePaused,
    TubesKept,
)
from cluster.machine.undo import undo
from cluster.wire import cbor, commands
from cluster.wire.cbor import WireError
from tests.machine.drive import Drive

MAIL = ("mail",)


def put(tube: str = "mail", **more: Any) -> PutJob:
    """A job of little interest."""
    return PutJob(tube, b"work", **more)


def taken(drive: Drive, *tubes: str, **more: Any) -> list[Reservation]:
    """Reserve, and give what came at once."""
    outcome = drive.one(ReserveJobs(tubes or MAIL, **more))
    assert isinstance(outcome, Reserved)
    return list(outcome.jobs)


def reserved(outcome: Outcome) -> tuple[Reservation, ...]:
    """What an answer gave out."""
    assert isinstance(outcome, Reserved)
    return outcome.jobs


def ids(jobs: list[Reservation]) -> list[int]:
    """Which jobs."""
    return [job.job for job in jobs]


def held(drive: Drive, **more: Any) -> tuple[int, int]:
    """Put a job and reserve it: its id and token."""
    drive.one(put(**more))
    (job,) = taken(drive)
    return job.job, job.token


def seen(drive: Drive, job: int) -> JobInfo:
    """The picture of a job."""
    info = drive.machine.jobs.pictures.job(job, drive.machine.now_ms)
    assert info is not None
    return info


def told(drive: Drive) -> list[str]:
    """What watchers heard of the last entry."""
    return [event.what for event in drive.machine.core.events]


class TestOrder:
    def test_smaller_priority_goes_first_then_the_older_job(self) -> None:
        """Over all tubes that are asked, as beanstalkd has it."""
        drive = Drive()
        drive.ask(put(priority=5), put("pics", priority=-1), put(priority=5), put(priority=0))
        jobs = taken(drive, "mail", "pics", "none", limit=9)
        assert ids(jobs) == [2, 4, 1, 3]
        assert [job.token for job in jobs] == sorted(job.token for job in jobs)

    def test_a_job_that_comes_back_stands_before_younger_ones(self) -> None:
        """Its id is its place among equals."""
        drive = Drive()
        job, token = held(drive)
        drive.ask(put(), ReleaseJob(job, token))
        assert ids(taken(drive, limit=2)) == [1, 2]

    def test_delayed_jobs_become_ready_at_their_time(self) -> None:
        """Not a millisecond early, in order of time and then of id."""
        drive = Drive()
        drive.ask(put(delay_ms=50), put(delay_ms=20), put(delay_ms=20), now_ms=0)
        assert drive.machine.next_deadline_ms() == 20
        assert taken(drive) == []
        drive.at(19)
        assert taken(drive) == []
        drive.at(20)
        assert ids(taken(drive, limit=9)) == [2, 3]
        drive.at(50)
        assert ids(taken(drive)) == [1]

    def test_jobs_by_due_time_come_as_they_fell_due(self) -> None:
        """What goyaad promises; a release with a delay gives a new due time."""
        drive = Drive()
        drive.ask(
            put(delay_ms=50, by_due=True), put(delay_ms=20, by_due=True), put(by_due=True), now_ms=0
        )
        drive.at(60)
        jobs = taken(drive, limit=9)
        assert ids(jobs) == [3, 2, 1]
        drive.ask(*(ReleaseJob(job.job, job.token) for job in jobs))
        (first,) = taken(drive)
        assert first.job == 3
        drive.one(ReleaseJob(3, first.token, delay_ms=5))
        drive.at(70)
        assert ids(taken(drive, limit=9)) == [2, 1, 3]

    def test_many_that_are_due_at_once_are_spread_over_entries(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """So that no entry pays for a million; the rest comes a millisecond later."""
        monkeypatch.setattr(limits, "JOBS_DUE_PER_ENTRY_MAX", 2)
        drive = Drive()
        drive.ask(*(put(delay_ms=10) for _ in range(5)), now_ms=0)
        counts = []
        for now_ms in (10, 10, 11, 12):
            drive.at(now_ms)
            counts.append(drive.machine.jobs.pictures.totals().ready)
        assert counts == [2, 2, 4, 5]
        assert drive.machine.next_deadline_ms() is None


class TestWaiting:
    def test_waiters_are_served_in_order_of_arrival(self) -> None:
        """Without sessions; the position counts from 1."""
        drive = Drive()
        assert drive.ask(*[ReserveJobs(MAIL, wait_ms=100)] * 2, now_ms=0) == [
            Queued("mail", 1),
            Queued("mail", 2),
        ]
        drive.ask(put(), put())
        got = [(seq, ids(list(o.jobs))) for _, seq, o in drive.told if isinstance(o, Reserved)]
        assert got == [(1, [1]), (2, [2])]

    def test_a_wait_over_several_tubes_ends_with_one_job(self) -> None:
        """It leaves the queues of all of them."""
        drive = Drive()
        drive.one(ReserveJobs(("a", "b"), wait_ms=100), now_ms=0)
        drive.one(put("b"))
        assert drive.machine.jobs.pictures.tube("a", 0) is None
        drive.one(put("a"))
        assert drive.machine.jobs.pictures.totals().ready == 1

    def test_a_session_shows_each_queue_in_which_it_waits(self) -> None:
        """With its position there."""
        drive = Drive()
        (session,) = drive.open(1000, now_ms=0)
        drive.ask(ReserveJobs(("b",), wait_ms=50), ReserveJobs(("a", "b"), session, wait_ms=50))
        info = drive.machine.sessions.info(session, 0)
        assert info is not None
        assert info.waits == (("tube", "a", 1), ("tube", "b", 2))

    def test_a_wait_that_runs_out_gets_an_empty_answer(self) -> None:
        """And leaves no trace."""
        drive = Drive()
        drive.one(ReserveJobs(MAIL, wait_ms=100), now_ms=0)
        assert drive.at(100) == [Reserved(())]
        assert drive.machine.jobs.pictures.tubes(100) == []

    def test_who_hangs_up_gets_no_job(self) -> None:
        """The next one does."""
        drive = Drive()
        drive.ask(*[ReserveJobs(MAIL, wait_ms=100)] * 2, now_ms=0)
        assert drive.ask(Abandon(1)) == [Withdrawn(), Abandoned()]
        drive.one(put())
        assert [seq for _, seq, outcome in drive.told if isinstance(outcome, Reserved)] == [2]

    def test_a_session_that_ends_takes_its_waits_along(self) -> None:
        """At the very time at which a job is due, too."""
        drive = Drive()
        (session,) = drive.open(50, now_ms=0)
        drive.ask(ReserveJobs(MAIL, session, wait_ms=500), put(delay_ms=50))
        assert drive.at(50) == [SessionExpired(session)]
        assert seen(drive, 1).state == "ready"

    def test_a_waiter_is_given_as_many_as_it_asked_for(self) -> None:
        """Of those that are there at that moment."""
        drive = Drive()
        drive.ask(put(), put(), put(), PauseTube("mail", 10), now_ms=0)
        drive.one(ReserveJobs(MAIL, limit=2, wait_ms=100))
        (outcome,) = drive.at(10)
        assert isinstance(outcome, Reserved)
        assert ids(list(outcome.jobs)) == [1, 2]


class TestReservation:
    def test_one_worker_at_a_time_has_a_job(self) -> None:
        """Everything is conditional on the token of the present reservation."""
        drive = Drive()
        job, token = held(drive, ttr_ms=1000)
        assert taken(drive) == []
        assert drive.one(ReserveJob(job)) == JobReserved(job, None, 0, 1000, token)
        assert drive.one(DeleteJob(job)) == JobReserved(job, None, 0, 1000, token)
        assert drive.one(KickJob(job)) == JobReserved(job, None, 0, 1000, token)
        for command in held_commands(job, token + 5):
            assert drive.one(command) == StaleToken(str(job), token + 5, token, "job")

    def test_a_reservation_ends_with_its_ttr(self) -> None:
        """The job is ready again, and the token stale for ever."""
        drive = Drive()
        job, token = held(drive, ttr_ms=1000)
        drive.at(999)
        assert seen(drive, job).time_left_ms == 1
        drive.at(1000)
        assert (seen(drive, job).state, seen(drive, job).timeouts) == ("ready", 1)
        assert "timed_out" in told(drive)
        for command in held_commands(job, token):
            assert drive.one(command) == NotReserved(job, token, "ready")
        (again,) = taken(drive)
        assert again.attempt == 2
        for command in held_commands(job, token):
            assert drive.one(command) == StaleToken(str(job), token, again.token, "job")

    def test_a_touch_counts_from_its_entry(self) -> None:
        """The whole TTR again."""
        drive = Drive()
        job, token = held(drive, ttr_ms=1000)
        assert drive.one(TouchJob(job, token), now_ms=900) == Touched(job, "mail", 1000)
        drive.at(1899)
        assert seen(drive, job).state == "reserved"
        drive.at(1900)
        assert seen(drive, job).state == "ready"

    def test_a_ttr_is_a_second_at_least(self) -> None:
        """As in beanstalkd, where 0 means 1."""
        drive = Drive()
        drive.one(put(ttr_ms=0))
        assert taken(drive)[0].ttr_ms == 1000

    def test_a_job_is_done_once(self) -> None:
        """After that there is no such job, and its id is not used again."""
        drive = Drive()
        job, token = held(drive)
        assert drive.one(DeleteJob(job, token)) == JobDeleted(job, "mail")
        for command in held_commands(job, token):
            assert drive.one(command) == JobNotFound(job)
        assert drive.one(put()) == JobPut(job + 1, "mail", "ready")

    def test_what_nobody_has_is_deleted_without_a_token(self) -> None:
        """Ready, delayed or buried."""
        drive = Drive()
        job, token = held(drive)
        drive.ask(BuryJob(job, token), put(delay_ms=10), put())
        for number in (1, 2, 3):
            assert drive.one(DeleteJob(number)) == JobDeleted(number, "mail")

    def test_a_release_may_change_priority_and_delay(self) -> None:
        """And counts."""
        drive = Drive()
        job, token = held(drive)
        assert drive.one(ReleaseJob(job, token, 7, 100)) == JobMoved(job, "mail", "delayed")
        info = seen(drive, job)
        assert (info.priority, info.delay_ms, info.releases) == (7, 100, 1)
        drive.at(100)
        (again,) = taken(drive)
        drive.one(ReleaseJob(job, again.token))
        assert (seen(drive, job).priority, seen(drive, job).delay_ms) == (7, 0)

    def test_this_very_job_is_reserved_from_any_state(self) -> None:
        """Delayed, buried, or in a paused tube."""
        drive = Drive()
        drive.ask(put(delay_ms=1000), PauseTube("mail", 10_000), now_ms=0)
        outcome = drive.one(ReserveJob(1))
        assert isinstance(outcome, OneReserved)
        drive.one(BuryJob(1, outcome.reservation.token))
        assert isinstance(drive.one(ReserveJob(1)), OneReserved)
        assert drive.one(ReserveJob(2)) == JobNotFound(2)
        drive.at(1000)
        assert seen(drive, 1).state == "reserved"

    def test_the_end_of_a_session_gives_its_jobs_back_uncounted(self) -> None:
        """In the same entry, to whoever waits."""
        drive = Drive()
        (session,) = drive.open(10_000)
        drive.one(put())
        (job,) = taken(drive, session=session)
        drive.one(ReserveJobs(MAIL, wait_ms=500))
        drive.one(CloseSession(session))
        assert [type(outcome).__name__ for _, _, outcome in drive.told] == ["Closed", "Reserved"]
        info = seen(drive, job.job)
        assert (info.reserves, info.timeouts, info.releases) == (2, 0, 0)
        assert drive.one(ReserveJobs(MAIL, session)) == SessionExpired(session)

    def test_a_reservation_nobody_heard_of_is_taken_back(self) -> None:
        """As if it had not been."""
        drive = Drive()
        job, token = held(drive)
        assert drive.one(ReturnJob(job, token)) == JobMoved(job, "mail", "ready")
        assert seen(drive, job).reserves == 0
        assert taken(drive)[0].attempt == 1

    def test_what_takes_a_reservation_back_is_known(self) -> None:
        """Every job of an answer that nobody heard; what came after that is left alone."""
        drive = Drive()
        drive.ask(put(), put(), put())
        answers = [drive.one(ReserveJobs(MAIL, limit=2)), drive.one(ReserveJob(3))]
        drive.one(DeleteJob(1, next(iter(reserved(answers[0]))).token))
        made = [command for answer in answers for command in undo(answer)]
        assert [type(outcome) for outcome in drive.ask(*made)] == [JobNotFound, JobMoved, JobMoved]
        assert ids(taken(drive, limit=9)) == [2, 3]


def held_commands(job: int, token: int) -> list[Command]:
    """All that can be done under a token."""
    return [
        DeleteJob(job, token),
        ReleaseJob(job, token),
        BuryJob(job, token),
        TouchJob(job, token),
        ReturnJob(job, token),
    ]


class TestBuried:
    def test_buried_jobs_wait_for_a_kick_in_the_order_of_their_burial(self) -> None:
        """Buried ones first; only when there are none, delayed ones."""
        drive = Drive()
        drive.ask(put(), put(), put(delay_ms=900), put(delay_ms=800), now_ms=0)
        first, second = taken(drive, limit=2)
        drive.ask(BuryJob(second.job, second.token, 3), BuryJob(first.job, first.token))
        assert seen(drive, 2).priority == 3
        assert drive.one(KickTube("mail", 1)) == TubeKicked("mail", 1)
        assert (seen(drive, 2).state, seen(drive, 1).state) == ("ready", "buried")
        assert drive.one(KickTube("mail", 9)) == TubeKicked("mail", 1)
        assert drive.one(KickTube("mail", 1)) == TubeKicked("mail", 1)
        assert (seen(drive, 4).state, seen(drive, 3).state) == ("ready", "delayed")
        assert drive.one(KickTube("none", 1)) == TubeKicked("none", 0)

    def test_one_job_is_kicked(self) -> None:
        """One that is ready stays so."""
        drive = Drive()
        drive.one(put(delay_ms=100))
        assert drive.one(KickJob(1)) == JobKicked(1, "mail", True)
        assert drive.one(KickJob(1)) == JobKicked(1, "mail", False)
        assert drive.one(KickJob(2)) == JobNotFound(2)
        assert seen(drive, 1).kicks == 1
        assert drive.machine.next_deadline_ms() is None

    def test_a_kick_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """And says how many."""
        monkeypatch.setattr(limits, "JOBS_PER_KICK_MAX", 2)
        drive = Drive()
        drive.ask(*[put(delay_ms=10)] * 3)
        assert drive.one(KickTube("mail", 2**32)) == TubeKicked("mail", 2)


class TestCancel:
    def test_a_cancelled_job_is_never_reserved(self) -> None:
        """Whoever waits for one."""
        drive = Drive()
        drive.ask(put(delay_ms=10), ReserveJobs(MAIL, wait_ms=100), now_ms=0)
        assert drive.one(CancelJob(1)) == Cancelled(1, True, "gone", None)
        assert drive.at(10) == []
        assert drive.one(CancelJob(1)) == Cancelled(1, False, "gone", None)
        assert drive.one(CancelJob(77)) == Cancelled(77, False, "gone", None)

    def test_a_reserved_job_is_not_cancelled(self) -> None:
        """Of the two that come in one entry, the first decides."""
        drive = Drive()
        drive.ask(put(ttr_ms=1000), ReserveJobs(MAIL), CancelJob(1), now_ms=0)
        assert drive.told[-1][2] == Cancelled(1, False, "reserved", 1000)
        drive.ask(put(), CancelJob(2), ReserveJobs(MAIL))
        assert [outcome for _, _, outcome in drive.told[1:]] == [
            Cancelled(2, True, "gone", None),
            Reserved(()),
        ]

    def test_a_key_lives_once_in_a_tube(self) -> None:
        """Free again once its job is done or cancelled."""
        drive = Drive()
        assert drive.ask(put(key="k"), put(key="k"), put("pics", key="k")) == [
            JobPut(1, "mail", "ready"),
            DuplicateKey("mail", "k", 1, "ready"),
            JobPut(2, "pics", "ready"),
        ]
        assert drive.one(CancelKey("mail", "k")) == Cancelled(1, True, "gone", None)
        assert drive.one(CancelKey("mail", "k")) == Cancelled(None, False, "gone", None)
        job, token = held(drive, key="k")
        assert drive.one(CancelKey("mail", "k")) == Cancelled(job, False, "reserved", 60_000)
        drive.one(DeleteJob(job, token))
        assert drive.one(put(key="k")) == JobPut(4, "mail", "ready")


class TestDeadLetter:
    def test_a_job_that_failed_too_often_goes_to_another_tube(self) -> None:
        """Ready there, with its history; its key is free again."""
        drive = Drive()
        letter = DeadLetter("dead", 2, False)
        drive.one(put(ttr_ms=1000, key="k", dead_letter=letter, delay_ms=0), now_ms=0)
        for _ in range(2):
            taken(drive)
            drive.at(drive.machine.now_ms + 1000)
        info = seen(drive, 1)
        assert (info.tube, info.state, info.came_from) == ("dead", "ready", "mail")
        assert (info.timeouts, info.key, info.dead_letter) == (2, "k", None)
        assert told(drive) == ["timed_out", "dead_lettered"]
        assert drive.machine.jobs.pictures.tube("mail", 0) is None
        assert drive.ask(put(key="k"), CancelKey("dead", "k")) == [
            JobPut(2, "mail", "ready"),
            Cancelled(None, False, "gone", None),
        ]
        drive.at(drive.machine.now_ms)
        (again,) = taken(drive, "dead")
        assert again.attempt == 3

    def test_a_job_stays_while_there_is_no_room_for_the_other_tube(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is tried again, and goes when its next reservation fails and there is room."""
        monkeypatch.setattr(limits, "TUBES_MAX", 2)
        drive = Drive()
        job, _ = held(drive, dead_letter=DeadLetter("dead", 1, False), ttr_ms=1000)
        drive.one(put("other"))
        drive.at(1000)
        assert (seen(drive, job).tube, seen(drive, job).state) == ("mail", "ready")
        taken(drive)
        drive.one(DeleteJob(2))
        drive.at(2000)
        assert (seen(drive, job).tube, seen(drive, job).came_from) == ("dead", "mail")

    def test_releases_count_where_that_is_asked_for(self) -> None:
        """Else only reservations that ran out do; a session's end counts as neither."""
        drive = Drive()
        (session,) = drive.open(10_000)
        for counts, tube in ((False, "mail"), (True, "dead")):
            drive.one(put(dead_letter=DeadLetter("dead", 1, counts)))
            (job,) = taken(drive)
            drive.one(ReleaseJob(job.job, job.token, delay_ms=50))
            assert drive.told[0][2] == JobMoved(job.job, tube, "ready" if counts else "delayed")
        drive.one(put(dead_letter=DeadLetter("dead", 1, True)))
        taken(drive, session=session)
        drive.one(CloseSession(session))
        assert seen(drive, 3).tube == "mail"


class TestPause:
    def test_a_paused_tube_grants_nothing(self) -> None:
        """Put, peek, kick, reserve by id and delete go on."""
        drive = Drive()
        assert drive.one(PauseTube("mail", 100), now_ms=0) == TubePaused("mail", 100)
        drive.ask(put(), put(), put(delay_ms=10))
        assert taken(drive) == []
        assert isinstance(drive.one(ReserveJobs(MAIL, wait_ms=1000)), Queued)
        assert drive.one(DeleteJob(1)) == JobDeleted(1, "mail")
        assert drive.one(KickTube("mail", 5)) == TubeKicked("mail", 1)
        (outcome,) = drive.at(100)
        assert isinstance(outcome, Reserved)
        assert ids(list(outcome.jobs)) == [2]

    def test_a_pause_is_ended_or_made_another_one(self) -> None:
        """The last word holds."""
        drive = Drive()
        drive.ask(put(), PauseTube("mail", 100), PauseTube("mail", 500), now_ms=0)
        drive.at(100)
        assert taken(drive) == []
        assert drive.one(PauseTube("mail", 0)) == TubePaused("mail", 0)
        assert len(taken(drive)) == 1
        info = drive.machine.jobs.pictures.tube("mail", 100)
        assert info is not None
        assert info.pauses == 3

    def test_only_a_pause_keeps_an_empty_tube(self) -> None:
        """Afterwards it leaves no trace."""
        drive = Drive()
        drive.one(PauseTube("mail", 100), now_ms=0)
        assert [info.tube for info in drive.machine.jobs.pictures.tubes(0)] == ["mail"]
        drive.at(100)
        assert drive.machine.jobs.pictures.tubes(100) == []
        assert drive.one(PauseTube("none", 0)) == TubePaused("none", 0)
        assert drive.machine.jobs.pictures.tubes(100) == []


class TestLimits:
    @pytest.mark.parametrize(
        ("name", "limit", "what"),
        [
            ("JOBS_MAX", 1, "jobs"),
            ("JOB_BYTES_MAX", 7, "bytes of jobs"),
            ("TUBES_MAX", 1, "tubes"),
        ],
    )
    def test_a_put_over_a_limit_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, name: str, limit: int, what: str
    ) -> None:
        """And is no more once there is room."""
        monkeypatch.setattr(limits, name, limit)
        drive = Drive()
        assert drive.ask(put(), put("pics")) == [
            JobPut(1, "mail", "ready"),
            QueueFull(what, limit),
        ]
        drive.one(DeleteJob(1))
        assert drive.one(put("pics")) == JobPut(2, "pics", "ready")

    @pytest.mark.parametrize(
        ("name", "what"),
        [
            ("WAITERS_PER_TUBE_MAX", "waiters of a tube"),
            ("PARKED_MAX", "parked requests"),
            ("TUBES_MAX", "tubes"),
        ],
    )
    def test_a_wait_over_a_limit_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, name: str, what: str
    ) -> None:
        """Whoever waits already goes on."""
        monkeypatch.setattr(limits, name, 1)
        drive = Drive()
        drive.one(ReserveJobs(MAIL, wait_ms=100))
        assert drive.one(ReserveJobs(("mail", "pics"), wait_ms=100)) == QueueFull(what, 1)
        assert drive.machine.jobs.pictures.totals().waiting == 1

    def test_an_answer_is_bounded_in_bytes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One job comes always."""
        monkeypatch.setattr(limits, "RESERVED_BYTES_MAX", 9)
        drive = Drive()
        drive.ask(PutJob("mail", b"x" * 20), put(), put(), put())
        assert [ids(taken(drive, limit=9)) for _ in range(3)] == [[1], [2, 3], [4]]

    def test_a_session_holds_so_many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It gets fewer than it asked for, then a refusal."""
        monkeypatch.setattr(limits, "OWNED_PER_SESSION_MAX", 2)
        drive = Drive()
        (session,) = drive.open(1000)
        drive.ask(*[put()] * 3)
        assert len(taken(drive, session=session, limit=3)) == 2
        full = QueueFull("things of a session", 2)
        assert drive.one(ReserveJobs(MAIL, session)) == full
        assert drive.one(ReserveJob(3, session)) == full

    def test_lengths_go_as_far_as_beanstalkd_needs(self) -> None:
        """32 bits of seconds, over the wire as well."""
        most_ms = (2**32 - 1) * 1000
        command = put(delay_ms=most_ms, ttr_ms=most_ms)
        assert commands.decode(commands.encode(command)) == command
        drive = Drive()
        drive.one(command)
        assert drive.machine.next_deadline_ms() == most_ms

    @pytest.mark.parametrize(
        "command",
        [
            ReserveJobs(("mail", "a\nb")),
            ReserveJobs(("ä" * 101,)),
            put(dead_letter=DeadLetter("\x7f", 1, False)),
            put("a\x00"),
        ],
    )
    def test_names_of_tubes_are_checked_on_the_wire(self, command: Command) -> None:
        """Wherever they stand in a command."""
        with pytest.raises(WireError):
            commands.decode(commands.encode(command))


class TestChecks:
    def test_what_is_checked_is_what_is_refused(self) -> None:
        """For each command of an all-or-nothing batch, and nothing is changed by looking."""
        drive = Drive()
        drive.ask(put(key="k"), put(), put(delay_ms=50))
        (job,) = taken(drive)
        machine = drive.machine
        before = list(map(cbor.encode, machine.dump()))
        made: list[Command] = [
            put(key="k"),
            put(key="new"),
            put(),
            CancelJob(job.job),
            CancelJob(9),
        ]
        for number in (1, 2, 3, 9):
            made += [DeleteJob(number), *held_commands(number, job.token)[:-1]]
        for command in made:
            check = machine.jobs.checks[type(command)]
            refusal = check.refusal(command)
            assert list(map(cbor.encode, machine.dump())) == before
            other = Drive(Machine.load(plain(machine.dump())))
            other.seqs = dict(drive.seqs)
            outcome = other.one(command)
            assert refusal in {None, outcome}
            if refusal is None:
                assert not isinstance(
                    outcome, (JobNotFound, NotReserved, StaleToken, JobReserved, DuplicateKey)
                )

    def test_a_batch_needs_room_for_all_of_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The headroom says for how many."""
        monkeypatch.setattr(limits, "JOBS_MAX", 5)
        drive = Drive()
        check = drive.machine.jobs.checks[PutJob]
        drive.machine.core.headroom = 5
        assert check.refusal(put()) is None
        drive.machine.core.headroom = 6
        assert check.refusal(put()) == QueueFull("jobs", 5)

    def test_all_jobs_of_a_batch_are_put_or_none(self) -> None:
        """As many as there are into one tube; one key that lives spoils them all."""
        drive = Drive()
        made = Several((put(key="k"), put(), put(), put(delay_ms=5)), True)
        assert isinstance(drive.one(made), Batched)
        assert isinstance(drive.one(made), BatchRefused)
        assert drive.machine.jobs.pictures.totals().put == 4

    def test_things_of_a_batch_are_told_apart(self) -> None:
        """Puts without a key touch nothing that another command could."""
        checks = Machine().jobs.checks
        assert checks[PutJob].thing(put()) == ()
        assert checks[PutJob].thing(put(key="1")) != checks[CancelJob].thing(CancelJob(1))
        assert checks[DeleteJob].thing(DeleteJob(1)) == checks[TouchJob].thing(TouchJob(1, 2))


def test_those_before_a_waiter_block_it() -> None:
    """Who has a job is in nobody's way."""
    drive = Drive()
    (session,) = drive.open(1000, now_ms=0)
    held(drive)
    drive.ask(ReserveJobs(MAIL, wait_ms=50), ReserveJobs(MAIL, session, wait_ms=50))
    blockers = list(drive.machine.jobs.blockers("mail", session, None))
    assert [(one.session, one.position) for one in blockers] == [(None, 1), (session, 2)]
    place = next(p for p in drive.machine.jobs.places() if p.session == session)
    assert len(list(drive.machine.jobs.blockers("mail", session, place))) == 1
    assert list(drive.machine.jobs.blockers("none", session, None)) == []


# Snapshots.


def plain(rows: Any) -> Any:
    """Rows as they come back from bytes: lists, no tuples."""
    return [cbor.decode(cbor.encode(row), max_bytes=10**8) for row in rows]


def busy() -> Drive:
    """Jobs in every state, waiters, a pause, a dead letter."""
    drive = Drive()
    (session,) = drive.open(10_000, now_ms=0)
    drive.ask(
        put(key="k", priority=-3),
        put(delay_ms=500, by_due=True),
        put("pics", dead_letter=DeadLetter("dead", 1, True)),
        put("pics"),
        put("pics"),
        put("pics", key="moved", dead_letter=DeadLetter("dead", 1, True)),
        PauseTube("mail", 700),
    )
    jobs = taken(drive, "pics", limit=4)
    drive.ask(
        BuryJob(jobs[1].job, jobs[1].token),
        BuryJob(jobs[2].job, jobs[2].token),
        ReleaseJob(jobs[3].job, jobs[3].token),
        ReserveJob(2, session),
        put(delay_ms=900),
        now_ms=10,
    )
    drive.ask(ReserveJobs(("mail", "pics"), session, 2, 300), ReserveJobs(("pics",), wait_ms=400))
    drive.ask(ReserveJobs(("idle", "mail"), wait_ms=400, hold_ms=5), now_ms=20)
    drive.ask(KeepTubes(session, ("pics", "zero")), KeepTubes(session, MAIL))
    return drive


def test_a_loaded_machine_has_the_same_jobs() -> None:
    """Rows, pictures, deadlines; and it goes on in the same way."""
    drive = busy()
    loaded = Machine.load(plain(drive.machine.dump()))
    assert plain(loaded.dump()) == plain(drive.machine.dump())
    assert loaded.counts() == drive.machine.counts()
    assert loaded.next_deadline_ms() == drive.machine.next_deadline_ms()
    for pictures in (loaded.jobs.pictures, drive.machine.jobs.pictures):
        assert [info.tube for info in pictures.tubes(20)] == [
            "dead",
            "idle",
            "mail",
            "pics",
            "zero",
        ]
    assert loaded.jobs.pictures.tubes(20) == drive.machine.jobs.pictures.tubes(20)
    for now_ms in (510, 700, 20_000, 90_000):
        answers = [one.apply(one.index + 1, Batch(now_ms, 0)) for one in (loaded, drive.machine)]
        assert answers[0] == answers[1]
    assert plain(loaded.dump()) == plain(drive.machine.dump())


def test_a_snapshot_in_the_middle_of_a_crowd_goes_on_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Jobs that had to wait for another entry wait until the same time."""
    monkeypatch.setattr(limits, "JOBS_DUE_PER_ENTRY_MAX", 1)
    drive = Drive()
    drive.ask(*[put(delay_ms=10)] * 3, put("pics", delay_ms=10), now_ms=0)
    drive.at(10)
    loaded = Machine.load(plain(drive.machine.dump()))
    assert loaded.next_deadline_ms() == drive.machine.next_deadline_ms() == 11


@pytest.mark.parametrize(
    ("kind", "record", "column", "value"),
    [
        ("job counters", 0, 0, 3),
        ("job counters", 0, 0, -1),
        ("job counters", 0, 1, 2),
        ("job counters", 0, 2, 1),
        ("job counters", 0, 3, -1),
        ("job counters", 0, 4, -1),
        ("job counters", 0, 4, 10**6),
        ("tubes", 0, 0, "zzz"),
        ("tubes", 0, 1, 0),
        ("tubes", 0, 1, 2),
        ("tubes", 2, 5, None),
        ("tubes", 2, 6, None),
        ("tubes", 2, 6, -5),
        ("tubes", 3, 0, "other"),
        ("jobs", 0, 0, 2),
        ("jobs", 0, 0, 0),
        ("jobs", 0, 1, "none"),
        ("jobs", 0, 2, "text"),
        ("jobs", 0, 7, 10),
        ("jobs", 0, 9, -(10**15)),
        ("jobs", 0, 10, 4),
        ("jobs", 0, 10, 2),
        ("jobs", 0, 11, 5),
        ("jobs", 1, 10, 0),
        ("jobs", 3, 11, 0),
        ("jobs", 3, 11, 2),
        ("jobs", 3, 11, 9),
        ("jobs", 6, 4, "k"),
        ("reservations", 0, 0, 0),
        ("reservations", 0, 0, 10**6),
        ("reservations", 0, 1, 1),
        ("reservations", 0, 1, 99),
        ("reservations", 0, 1, 2),
        ("reservations", 0, 2, "1-nobody"),
        ("reservations", 0, 4, -1),
        ("tube places", 0, 0, []),
        ("tube places", 0, 0, ["none"]),
        ("tube places", 0, 0, ["idle", "idle"]),
        ("tube places", 0, 0, ["dead"]),
        ("tube places", 0, 2, 0),
        ("tube places", 0, 3, 10**6),
        ("tube places", 0, 5, 0),
        ("kept tubes", 0, 0, 10**6),
        ("kept tubes", 0, 1, "1-nobody"),
        ("kept tubes", 0, 2, "none"),
        ("tube places", 1, 1, "1-nobody"),
    ],
)
def test_refuses_records_that_contradict_one_another(
    kind: str, record: int, column: int, value: object
) -> None:
    """Every field is checked, alone and against the others."""
    rows = plain(busy().machine.dump())
    (row,) = (row for row in rows if row[0] == kind)
    row[1][record][column] = value
    with pytest.raises(ValueError, match="no snapshot of ours"):
        Machine.load(rows)


def test_refuses_a_record_that_is_missing_or_there_twice() -> None:
    """No record may be left out, and none may stand for two."""
    rows = plain(busy().machine.dump())
    kinds = {"job counters", "tubes", "jobs", "reservations", "tube places"}
    for place, row in enumerate(rows):
        if row[0] not in kinds:
            continue
        for number in range(len(row[1])):
            if row[0] == "jobs" and number in {0, 3, 4, 6}:
                continue  # Some jobs could be missing, as nothing else tells of them.
            less, more = copy.deepcopy(rows), copy.deepcopy(rows)
            del less[place][1][number]
            less[-1][1] -= 1
            more[place][1].append(more[place][1][number])
            more[-1][1] += 1
            for wrong in (less, more):
                with pytest.raises(ValueError, match="no snapshot of ours"):
                    Machine.load(wrong)


class TestKeptTubes:
    def test_a_kept_tube_stays_with_its_counts_when_it_is_empty(self) -> None:
        """Until it is dropped: then it goes, and what was counted of it."""
        drive = Drive()
        (session,) = drive.open(60_000)
        assert drive.one(KeepTubes(session, MAIL)) == TubesKept(session)
        job, token = held(drive)
        drive.one(DeleteJob(job, token))
        info = drive.machine.jobs.pictures.tube("mail", 0)
        assert info is not None
        assert (info.total_jobs, info.deletes) == (1, 1)
        drive.one(KeepTubes(session, drop=MAIL))
        assert drive.machine.jobs.pictures.tube("mail", 0) is None

    def test_it_stays_as_long_as_anybody_keeps_it(self) -> None:
        """The end of a session ends what it kept, whatever else it had."""
        drive = Drive()
        first, second = drive.open(60_000, 60_000)
        drive.ask(KeepTubes(first, MAIL), KeepTubes(second, MAIL), KeepTubes(second, MAIL))
        drive.one(put())
        assert ids(taken(drive, session=second)) == [1]
        drive.one(CloseSession(second))
        drive.one(DeleteJob(1))
        assert drive.machine.jobs.pictures.tube("mail", 0) is not None
        drive.at(60_001)
        assert len(drive.machine.jobs.stock.tubes) == 0

    def test_what_is_kept_and_dropped_is_kept(self) -> None:
        """And dropping what one does not keep is nothing."""
        drive = Drive()
        (session,) = drive.open(60_000)
        drive.one(KeepTubes(session, MAIL, ("mail", "pics")))
        assert list(drive.machine.jobs.stock.tubes) == ["mail"]

    def test_who_is_gone_keeps_nothing(self) -> None:
        """Nor does one who would keep more than there may be."""
        drive = Drive()
        (session,) = drive.open(10)
        drive.at(10)
        assert isinstance(drive.one(KeepTubes(session, MAIL)), SessionExpired)
        assert len(drive.machine.jobs.stock.tubes) == 0


class TestJobsOfOthers:
    """What goyaad's front needs of jobs that it shares with others."""

    def test_a_delivery_may_last_less_than_the_ttr(self) -> None:
        """At once or after waiting; touched, it lasts for the TTR."""
        drive = Drive()
        drive.ask(put(ttr_ms=60_000), now_ms=0)
        (first,) = taken(drive, hold_ms=5_000)
        assert (first.ttr_ms, seen(drive, 1).time_left_ms) == (5_000, 5_000)
        drive.one(TouchJob(1, first.token))
        assert seen(drive, 1).time_left_ms == 60_000
        drive.ask(ReserveJobs(MAIL, wait_ms=1_000, hold_ms=7_000))
        drive.ask(put(ttr_ms=60_000))
        assert seen(drive, 2).time_left_ms == 7_000
        drive.at(7_000)
        assert (seen(drive, 2).state, seen(drive, 2).timeouts) == ("ready", 1)

    def test_a_touch_takes_no_time_away(self) -> None:
        """A delivery that lasts longer than the TTR still does, on a loaded machine too."""
        drive = Drive()
        drive.ask(put(ttr_ms=1_000), now_ms=0)
        (job,) = taken(drive, hold_ms=5_000)
        assert drive.one(TouchJob(1, job.token), now_ms=100) == Touched(1, "mail", 4_900)
        for machine in (drive.machine, Machine.load(drive.machine.dump())):
            assert machine.next_deadline_ms() == 5_000
        assert drive.one(TouchJob(1, job.token), now_ms=4_900) == Touched(1, "mail", 1_000)
        drive.at(5_899)
        assert seen(drive, 1).state == "reserved"
        drive.at(5_900)
        assert seen(drive, 1).state == "ready"

    def test_what_was_due_before_it_was_put_goes_first(self) -> None:
        """Also before the beginning of cluster time; among those that stand by due time."""
        drive = Drive()
        drive.ask(
            put(by_due=True),
            put(by_due=True, overdue_ms=10**12),
            put(by_due=True, overdue_ms=2 * 10**12),
            put(),
            now_ms=1_000,
        )
        assert ids(taken(drive, limit=4)) == [4, 3, 2, 1]
        assert seen(drive, 3).due_in_ms == -2 * 10**12

    def test_numbers_and_keys_may_be_one_name_space(self) -> None:
        """A key is refused that is the number of a job, and no job gets a number that is a key."""
        drive = Drive()
        drive.ask(put(), put(key="4"), put(key="5"))
        assert drive.one(put(key="1", is_id=True)) == DuplicateKey("mail", "1", 1, "ready")
        for key in ("01", "2", "x1", "1" * 19):
            assert isinstance(drive.one(put(key=key, is_id=True)), JobPut)
        drive = Drive()
        drive.ask(put(key="2"), put(key="3"), put())
        assert list(drive.machine.jobs.stock.jobs) == [1, 2, 4]
        assert drive.machine.jobs.pictures.totals().put == 3
