"""Exactly once: repeats by number and by key, lives of nodes, acknowledgements."""

from __future__ import annotations

import pytest

from cluster.machine import limits
from cluster.machine.commands import (
    Abandon,
    AcquireLock,
    Group,
    KeepAlive,
    OpenSession,
    Origin,
    ReleaseLock,
    Request,
    RequestId,
)
from cluster.machine.commands.jobs import PutJob, ReserveJobs
from cluster.machine.machine import Machine
from cluster.machine.outcome import (
    Abandoned,
    Granted,
    KeyReused,
    LockHeld,
    Opened,
    Queued,
    Released,
    SessionExpired,
    Undecodable,
    Void,
    Withdrawn,
)
from cluster.wire import snapshot
from tests.machine.drive import Drive

DAY_MS = limits.IDEMPOTENCY_KEY_MS


class TestNumbers:
    def test_a_repeat_gets_the_first_answer_and_does_nothing(self) -> None:
        """A request that stands in two entries takes effect once."""
        drive = Drive()
        (session,) = drive.open(1000)
        acquire = AcquireLock(session, "door")
        granted = drive.one(acquire)
        drive.ask(ReleaseLock(session, "door", 2))
        assert drive.repeat([2], acquire) == [granted]
        assert drive.machine.counts().locks == 0
        assert drive.repeat([1], OpenSession("s", 1000)) == [Opened(session, 1000, 1)]
        assert drive.machine.counts().sessions == 1

    def test_a_repeat_within_one_entry_is_a_repeat(self) -> None:
        """Twice the same number in one group is one request."""
        drive = Drive()
        twice = Request(1, OpenSession("s", 1000))
        assert (
            drive.entry(0, Group(Origin("n1", 1), 0, (twice, twice)))
            == [Opened("1-s", 1000, 1)] * 2
        )
        assert drive.machine.counts().sessions == 1

    def test_a_repeat_of_a_parked_request_stays_parked(self) -> None:
        """It is told its present position, and the grant once."""
        drive = Drive()
        first, second, third = drive.open(*[1000] * 3)
        drive.ask(AcquireLock(first, "door"))
        acquire = AcquireLock(third, "door", wait_ms=500)
        drive.ask(AcquireLock(second, "door", wait_ms=500), acquire)
        assert drive.repeat([6], acquire) == [Queued("door", 2)]
        drive.ask(Abandon(5))
        assert drive.repeat([6], acquire) == [Queued("door", 1)]
        assert drive.resolved(seq=6) == Queued("door", 1)
        outcomes = drive.ask(ReleaseLock(first, "door", 4))
        assert outcomes == [Released("door"), Granted("door", third, 7, False)]
        assert drive.resolved(seq=6) == outcomes[1]

    def test_what_is_acknowledged_is_forgotten_and_void(self) -> None:
        """Below ack nothing is remembered, and a late repeat is not applied."""
        drive = Drive()
        drive.open(1000, 1000)
        drive.entry(0, Group(Origin("n1", 1), 2, ()))
        assert drive.resolved(seq=1) is None
        assert drive.resolved(seq=2) is not None
        assert drive.repeat([1], OpenSession("s", 1000)) == [Void()]
        assert drive.machine.counts().sessions == 2

    def test_ack_never_falls(self) -> None:
        """An older ack that comes late revives nothing."""
        drive = Drive()
        drive.open(1000)
        drive.entry(0, Group(Origin("n1", 1), 2, ()))
        drive.entry(0, Group(Origin("n1", 1), 1, ()))
        assert drive.repeat([1], OpenSession("s", 1000)) == [Void()]

    def test_a_far_ack_costs_no_more_than_what_is_kept(self) -> None:
        """A jump over 2^60 numbers is over at once."""
        drive = Drive()
        drive.open(1000, 1000)
        drive.entry(0, Group(Origin("n1", 1), 2**60, ()))
        assert drive.machine.counts().answers == 0

    def test_an_acknowledgement_passes_over_waits(self) -> None:
        """One long wait keeps no other answer alive; it goes on, and is told once."""
        drive = Drive()
        first, second = drive.open(1000, 1000)
        drive.ask(AcquireLock(first, "door"))
        acquire = AcquireLock(second, "door", wait_ms=500)
        drive.ask(acquire)
        assert drive.entry(0, Group(Origin("n1", 1), 9, ())) == []
        assert drive.machine.counts().answers == 1
        assert drive.repeat([4], acquire) == [Queued("door", 1)]
        assert drive.machine.waits_of(Origin("n1", 1)) == [4]
        assert drive.machine.waits_of(Origin("n1", 2)) == []
        assert drive.machine.waits_of(Origin("n9", 1)) == []
        drive.entry(0, Group(Origin("n1", 1), 9, (Request(9, ReleaseLock(first, "door", 3)),)))
        assert drive.told[1] == ("n1", 4, Granted("door", second, 6, False))
        assert drive.resolved(seq=4) is None
        assert drive.repeat([4], acquire) == [Void()]
        assert drive.machine.waits_of(Origin("n1", 1)) == []

    def test_a_wait_that_was_passed_over_can_be_abandoned(self) -> None:
        """A hang-up finds it, whatever has been acknowledged since."""
        drive = Drive()
        first, second = drive.open(1000, 1000)
        drive.ask(AcquireLock(first, "door"))
        drive.ask(AcquireLock(second, "door", wait_ms=500))
        group = Group(Origin("n1", 1), 9, (Request(9, Abandon(4)),))
        assert drive.entry(0, group) == [Withdrawn(), Abandoned()]
        assert drive.machine.counts().parked == 0
        assert drive.resolved(seq=4) is None

    def test_a_former_life_is_void(self) -> None:
        """Requests of an earlier start of the node are not applied."""
        drive = Drive()
        drive.open(1000)
        drive.ask(OpenSession("s", 1000), boot=2)
        assert drive.one(OpenSession("s", 1000), boot=1) == Void()
        assert drive.machine.counts().sessions == 2

    def test_a_new_life_leaves_the_queues_of_the_former(self) -> None:
        """Nobody can be told any more: the parked requests go, and others move up."""
        drive = Drive()
        first, second, third = drive.open(*[1000] * 3, now_ms=0)
        drive.ask(AcquireLock(first, "door", shared=True))
        drive.ask(AcquireLock(second, "door", wait_ms=500), node="n2")
        drive.ask(AcquireLock(third, "door", shared=True, wait_ms=500))
        drive.ask(node="n2", boot=2)
        assert drive.told == [("n1", 5, Granted("door", third, 5, True))]
        assert drive.machine.answer(RequestId("n2", 1, 1)) is None
        assert drive.machine.counts().parked == 0

    def test_an_undecodable_command_is_refused_and_remembered(self) -> None:
        """A poison command is an answer like any other; its neighbours are applied."""
        drive = Drive()
        outcomes = drive.ask(None, OpenSession("s", 1000))
        assert outcomes == [Undecodable(), Opened("1-s", 1000, 1)]
        assert drive.resolved(seq=1) == Undecodable()

    def test_a_hang_up_that_overtakes_its_request_is_remembered(self) -> None:
        """The request that comes after its own Abandon is not applied."""
        drive = Drive()
        (session,) = drive.open(1000)
        abandon = Group(Origin("n1", 1), 0, (Request(3, Abandon(2)),))
        assert drive.entry(0, abandon) == [Abandoned()]
        assert drive.repeat([2], AcquireLock(session, "door")) == [Withdrawn()]
        assert drive.machine.counts().locks == 0

    def test_abandoning_what_cannot_have_been_asked_changes_nothing(self) -> None:
        """Numbers at or above the Abandon's own, or acknowledged ones, are left alone."""
        drive = Drive()
        (session,) = drive.open(1000)
        assert drive.ask(Abandon(2), Abandon(7), ack=1) == [Abandoned(), Abandoned()]
        assert drive.ask(Abandon(0)) == [Abandoned()]
        granted = drive.repeat([7], AcquireLock(session, "door"))
        assert granted == [Granted("door", session, 4, False)]

    def test_nodes_do_not_share_numbers(self) -> None:
        """The same number of another node is another request."""
        drive = Drive()
        drive.ask(OpenSession("s", 1000), node="n1")
        drive.ask(OpenSession("s", 1000), node="n2")
        assert drive.machine.counts().sessions == 2


class TestKeys:
    def test_the_same_key_gets_the_first_answer_on_any_node(self) -> None:
        """A client that repeats itself elsewhere opens no second session."""
        drive = Drive()
        opened = drive.one(OpenSession("one", 1000), key="k", fingerprint=b"f")
        again = drive.one(OpenSession("two", 1000), node="n2", key="k", fingerprint=b"f")
        assert again == opened == Opened("1-one", 1000, 1)
        assert drive.machine.counts().sessions == 1

    def test_a_refusal_is_an_answer_too(self) -> None:
        """What was refused under a key stays refused under it."""
        drive = Drive()
        first, second = drive.open(1000, 1000)
        drive.ask(AcquireLock(first, "door"))
        refused = drive.one(AcquireLock(second, "door"), key="k", fingerprint=b"f")
        assert isinstance(refused, LockHeld)
        drive.ask(ReleaseLock(first, "door", 3))
        assert drive.one(AcquireLock(second, "door"), key="k", fingerprint=b"f") == refused

    def test_a_key_with_another_request_is_refused(self) -> None:
        """Whether the first one is answered or still waits."""
        drive = Drive()
        first, second = drive.open(1000, 1000)
        drive.ask(AcquireLock(first, "door"), key="done", fingerprint=b"f")
        drive.ask(AcquireLock(second, "door", wait_ms=50), key="parked", fingerprint=b"f")
        for key in ("done", "parked"):
            again = drive.one(KeepAlive(first), key=key, fingerprint=b"g")
            assert again == KeyReused(key)

    def test_a_repeat_joins_the_wait_of_the_first(self) -> None:
        """It is queued where the first one is, and both are told the grant."""
        drive = Drive()
        first, second = drive.open(1000, 1000, now_ms=0)
        drive.ask(AcquireLock(first, "door"))
        acquire = AcquireLock(second, "door", wait_ms=500)
        drive.ask(acquire, key="k", fingerprint=b"f")
        drive.ask(acquire, node="n2", key="k", fingerprint=b"f", now_ms=300)
        assert drive.told == [("n2", 1, Queued("door", 1))]
        drive.ask(ReleaseLock(first, "door", 3))
        granted = Granted("door", second, 5, False)
        assert drive.told[1:] == [("n1", 4, granted), ("n2", 1, granted)]
        assert drive.one(acquire, node="n3", key="k", fingerprint=b"f") == granted

    def test_a_joined_wait_ends_for_both_at_the_deadline_of_the_first(self) -> None:
        """One key, one answer."""
        drive = Drive()
        first, second = drive.open(1000, 1000, now_ms=0)
        drive.ask(AcquireLock(first, "door"))
        acquire = AcquireLock(second, "door", wait_ms=500)
        drive.ask(acquire, key="k", fingerprint=b"f")
        drive.ask(acquire, node="n2", key="k", fingerprint=b"f", now_ms=300)
        assert drive.at(500) == [LockHeld("door", first, 500, 3, 0, 1)] * 2

    def test_hanging_up_one_of_two_leaves_the_other_waiting(self) -> None:
        """A client that moved to another node keeps its place when the first node lets go."""
        drive = Drive()
        first, second = drive.open(1000, 1000)
        drive.ask(AcquireLock(first, "door"))
        acquire = AcquireLock(second, "door", wait_ms=500)
        drive.ask(acquire, key="k", fingerprint=b"f")
        drive.ask(acquire, node="n2", key="k", fingerprint=b"f")
        assert drive.ask(Abandon(4)) == [Withdrawn(), Abandoned()]
        assert drive.machine.counts().waiters == 1
        drive.ask(ReleaseLock(first, "door", 3))
        assert drive.told[1:] == [("n2", 1, Granted("door", second, 6, False))]

    def test_a_withdrawn_request_frees_its_key(self) -> None:
        """Nothing took effect: a repeat after the hang-up starts afresh."""
        drive = Drive()
        first, second = drive.open(1000, 1000)
        drive.ask(AcquireLock(first, "door"))
        acquire = AcquireLock(second, "door", wait_ms=500)
        drive.ask(acquire, key="k", fingerprint=b"f")
        drive.ask(Abandon(4))
        assert drive.one(acquire, node="n2", key="k", fingerprint=b"f") == Queued("door", 1)

    def test_a_restarted_node_lets_the_client_join_again(self) -> None:
        """The former life's wait is gone, and so is its hold on the key."""
        drive = Drive()
        first, second = drive.open(1000, 1000)
        drive.ask(AcquireLock(first, "door"))
        acquire = AcquireLock(second, "door", wait_ms=500)
        drive.ask(acquire, node="n2", key="k", fingerprint=b"f")
        outcomes = drive.ask(acquire, node="n2", boot=2, key="k", fingerprint=b"f")
        assert outcomes == [Queued("door", 1)]

    def test_a_waiting_session_that_ends_settles_its_key(self) -> None:
        """The repeat is told what the first was told."""
        drive = Drive()
        first, second = drive.open(1000, 100, now_ms=0)
        drive.ask(AcquireLock(first, "door"))
        acquire = AcquireLock(second, "door", wait_ms=500)
        drive.ask(acquire, key="k", fingerprint=b"f")
        assert drive.at(100) == [SessionExpired(second)]
        assert drive.one(acquire, key="k", fingerprint=b"f") == SessionExpired(second)

    def test_a_key_is_forgotten_a_day_after_its_answer(self) -> None:
        """Counted in cluster time from the answer, not from the question."""
        drive = Drive()
        first, second = drive.open(10 * DAY_MS, 10 * DAY_MS, now_ms=0)
        drive.ask(AcquireLock(first, "door"))
        acquire = AcquireLock(second, "door", wait_ms=1000)
        drive.ask(acquire, key="k", fingerprint=b"f")
        (refused,) = drive.at(1000)
        late = DAY_MS + 999
        assert drive.one(acquire, key="k", fingerprint=b"f", now_ms=late) == refused
        later = DAY_MS + 1000
        assert isinstance(drive.one(acquire, key="k", fingerprint=b"f", now_ms=later), Queued)

    def test_too_many_keys_push_out_the_oldest(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Those that were answered first go first; one that waits is never pushed out."""
        monkeypatch.setattr(limits, "IDEMPOTENCY_KEYS_MAX", 2)
        drive = Drive()
        first, second = drive.open(1000, 1000)
        drive.ask(AcquireLock(first, "door"))
        acquire = AcquireLock(second, "door", wait_ms=500)
        drive.ask(acquire, key="parked", fingerprint=b"f")
        for key in ("a", "b", "c"):
            drive.ask(KeepAlive(first), key=key, fingerprint=b"f")
        assert drive.machine.counts().keys == 2
        assert list(drive.machine.requests.keys) == ["b", "c"]
        assert drive.one(acquire, node="n2", key="parked", fingerprint=b"f") == Queued("door", 1)

    def test_large_answers_push_out_the_oldest(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Jobs that were given out are in their answers; after a load they weigh the same."""
        monkeypatch.setattr(limits, "IDEMPOTENCY_BYTES_MAX", 3_000)
        drive = Drive()
        for key in ("a", "b", "c", "d"):
            drive.ask(PutJob("mail", b"x" * 1_000))
            drive.ask(ReserveJobs(("mail",)), key=key, fingerprint=b"f")
        assert list(drive.machine.requests.keys) == ["c", "d"]
        size = drive.machine.requests.key_bytes
        loaded = Machine.load(snapshot.decode(snapshot.encode(drive.machine.dump())))
        assert loaded.requests.key_bytes == size > 2_000
        drive.ask(PutJob("mail", b"x" * 5_000))
        drive.ask(ReserveJobs(("mail",)), key="large", fingerprint=b"f")
        assert list(drive.machine.requests.keys) == ["large"]
        drive.at(2 * DAY_MS)
        assert drive.machine.requests.key_bytes == 0

    def test_old_keys_leave_in_bounded_steps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No entry pays for a whole day of keys."""
        monkeypatch.setattr(limits, "KEYS_FORGOTTEN_PER_ENTRY_MAX", 3)
        drive = Drive()
        (session,) = drive.open(1000, now_ms=0)
        for number in range(5):
            drive.ask(KeepAlive(session), key=f"k{number}", fingerprint=b"f")
        drive.at(DAY_MS)
        assert drive.machine.counts().keys == 2
        drive.at(DAY_MS)
        assert drive.machine.counts().keys == 0

    def test_an_undecodable_command_does_not_take_a_key(self) -> None:
        """The client may try again under it, on a node that knows the command."""
        drive = Drive()
        assert drive.one(None, key="k", fingerprint=b"f") == Undecodable()
        assert isinstance(drive.one(OpenSession("s", 10), key="k", fingerprint=b"f"), Opened)
