"""Fifos: turns in the order of the tickets, four timeouts, waiters that live, and snapshots."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest

from cluster.machine import limits
from cluster.machine.commands import Abandon, Batch, Group, Origin, Request
from cluster.machine.commands.fifos import (
    AwaitTurn,
    CreateFifo,
    DestroyFifo,
    FinishTurn,
    JoinFifo,
    LeaveFifo,
    UnhearTurn,
)
from cluster.machine.fifos.holds import Holds
from cluster.machine.machine import Machine
from cluster.machine.outcome import Abandoned, Outcome, Queued, QueueFull, StaleToken, Withdrawn
from cluster.machine.outcome.fifos import (
    FifoCreated,
    FifoDestroyed,
    FifoExists,
    FifoInfo,
    FifoInUse,
    FifoJoined,
    FifoLeft,
    FifoNotFound,
    HoldInfo,
    NotYourTurn,
    OverridesNotAllowed,
    TurnAccepted,
    TurnDropped,
    TurnFinished,
    TurnInfo,
    TurnNotAccepted,
    TurnNotFound,
    TurnUnheard,
)
from tests.machine.drive import Drive

WAIT, ACCEPT, DONE, UNUSED = 1000, 60, 200, 5000


def create(name: str = "q", *, allow: bool = False, **times: int) -> CreateFifo:
    """A fifo with short times."""
    return CreateFifo(
        name,
        times.get("wait", WAIT),
        times.get("accept", ACCEPT),
        times.get("done", DONE),
        times.get("unused", UNUSED),
        allow,
    )


def fifo(*tickets: str, **times: int) -> Drive:
    """A machine with one fifo and tickets in it, at 0 ms."""
    drive = Drive()
    drive.ask(create(**times), *(JoinFifo("q", ticket) for ticket in tickets), now_ms=0)
    return drive


def states(drive: Drive, name: str = "q") -> list[tuple[str, str]]:
    """Tickets and their states, in order."""
    turns = drive.machine.fifos.turns(name, drive.machine.now_ms)
    assert [turn.position for turn in turns] == list(range(1, len(turns) + 1))
    return [(turn.ticket, turn.state) for turn in turns]


def whats(drive: Drive) -> list[tuple[str, object]]:
    """What watchers are told of the last entry, with the ticket."""
    return [(e.what, dict(e.more).get("ticket")) for e in drive.machine.core.events]


class TestFifo:
    def test_is_made_once(self) -> None:
        """Equal settings find the fifo that is there; others are refused and told what there is."""
        drive = Drive()
        made = FifoCreated("q", WAIT, ACCEPT, DONE, UNUSED, False, is_new=True)
        assert drive.one(create()) == made
        assert drive.one(create()) == FifoCreated("q", WAIT, ACCEPT, DONE, UNUSED, False, False)
        exists = FifoExists("q", WAIT, ACCEPT, DONE, UNUSED, False)
        assert drive.one(create(done=1)) == exists
        assert drive.one(create(allow=True)) == exists

    def test_is_destroyed_when_empty_or_by_force(self) -> None:
        """Tickets protect it; by force they go with it, and who waits is told."""
        drive = fifo("a", "b")
        drive.ask(AwaitTurn("q", "b", 500))
        assert drive.one(DestroyFifo("q")) == FifoInUse("q", 2)
        assert drive.ask(DestroyFifo("q", force=True)) == [
            FifoNotFound("q"),
            FifoDestroyed("q", 2),
        ]
        assert drive.one(DestroyFifo("q")) == FifoNotFound("q")
        assert drive.machine.next_deadline_ms() is None
        assert (drive.machine.counts().fifos, drive.machine.counts().fifo_tickets) == (0, 0)
        drive = fifo()
        assert drive.one(DestroyFifo("q")) == FifoDestroyed("q", 0)

    def test_a_new_fifo_of_an_old_name_is_another(self) -> None:
        """Tickets and clocks of the one before do not reach it."""
        drive = fifo("a")
        drive.ask(DestroyFifo("q", force=True), create(), JoinFifo("q", "b"), now_ms=30)
        assert drive.one(AwaitTurn("q", "a")) == TurnNotFound("q", "a")
        drive.at(ACCEPT)
        assert states(drive) == [("b", "notified")]

    def test_every_call_on_no_fifo_says_so(self) -> None:
        """Whatever the ticket."""
        drive = Drive()
        for command in (
            JoinFifo("q", "a"),
            AwaitTurn("q", "a", 10),
            FinishTurn("q", "a"),
            LeaveFifo("q", "a"),
            DestroyFifo("q"),
        ):
            assert drive.one(command) == FifoNotFound("q")

    def test_every_call_on_no_ticket_says_so(self) -> None:
        """Tickets of another fifo are none of this one."""
        drive = fifo("a")
        drive.ask(create("p"), JoinFifo("p", "b"))
        for ticket in ("b", "z"):
            assert drive.one(AwaitTurn("q", ticket, 10)) == TurnNotFound("q", ticket)
            assert drive.one(FinishTurn("q", ticket)) == TurnNotFound("q", ticket)
            assert drive.one(LeaveFifo("q", ticket)) == TurnNotFound("q", ticket)
        assert drive.one(JoinFifo("q", "b")) == TurnNotFound("q", "b")
        assert drive.machine.fifos.fifo_of("b") == "p"
        assert drive.machine.fifos.fifo_of("z") is None


class TestTurns:
    def test_the_first_ticket_is_notified_at_once(self) -> None:
        """On an empty queue that is inside the very call; the others wait."""
        drive = Drive()
        drive.ask(create())
        assert drive.one(JoinFifo("q", "a")) == FifoJoined("q", "a", "notified", 1, 0, 0)
        assert drive.one(JoinFifo("q", "b")) == FifoJoined("q", "b", "waiting", 2, None, 0)
        assert states(drive) == [("a", "notified"), ("b", "waiting")]

    def test_a_ticket_taken_again_is_the_same(self) -> None:
        """The id says which; nothing else changes."""
        drive = fifo("a", "b")
        assert drive.one(JoinFifo("q", "b")) == FifoJoined("q", "b", "waiting", 2, None, 0)
        assert len(states(drive)) == 2

    def test_waiting_at_the_head_accepts(self) -> None:
        """At once, under a new token; a repeat gets the same one and changes nothing."""
        drive = fifo("a")
        accepted = drive.one(AwaitTurn("q", "a"), now_ms=10)
        assert accepted == TurnAccepted("q", "a", 4)
        assert whats(drive) == [("accepted", "a")]
        assert drive.one(AwaitTurn("q", "a", 100), now_ms=50) == accepted
        drive.at(10 + DONE - 1)
        assert states(drive) == [("a", "accepted")]
        drive.at(10 + DONE)
        assert states(drive) == []

    def test_who_does_not_wait_is_told_how_many_are_ahead(self) -> None:
        """Refused with the position; the ticket keeps its place."""
        drive = fifo("a", "b", "c")
        assert drive.one(AwaitTurn("q", "c")) == NotYourTurn("q", "c", 3, None, 0)
        assert drive.one(AwaitTurn("q", "c", 100)) == Queued("q", 3)

    def test_done_promotes_the_next_in_the_same_entry(self) -> None:
        """To who waits on it; all of them get one token."""
        drive = fifo("a", "b", "c")
        drive.ask(AwaitTurn("q", "a"))
        drive.ask(AwaitTurn("q", "b", 100), AwaitTurn("q", "b", 200), AwaitTurn("q", "c", 300))
        assert drive.ask(FinishTurn("q", "a")) == [
            TurnFinished("q", "a"),
            TurnAccepted("q", "b", 7),
            TurnAccepted("q", "b", 7),
        ]
        assert whats(drive) == [("done", "a"), ("accepted", "b")]
        assert states(drive) == [("b", "accepted"), ("c", "waiting")]

    def test_done_promotes_one_that_nobody_waits_on(self) -> None:
        """It is notified, and its clock runs from there."""
        drive = fifo("a", "b")
        drive.ask(AwaitTurn("q", "a"))
        drive.ask(FinishTurn("q", "a"), now_ms=50)
        assert states(drive) == [("b", "notified")]
        drive.at(50 + ACCEPT - 1)
        assert states(drive) == [("b", "notified")]
        drive.at(50 + ACCEPT)
        assert states(drive) == []

    def test_done_needs_an_accepted_turn_and_its_token(self) -> None:
        """Without a token the ticket will do; a wrong one is stale."""
        drive = fifo("a", "b")
        assert drive.one(FinishTurn("q", "a")) == TurnNotAccepted("q", "a", "notified", 1)
        assert drive.one(FinishTurn("q", "b")) == TurnNotAccepted("q", "b", "waiting", 2)
        drive.ask(AwaitTurn("q", "a"))
        assert drive.one(FinishTurn("q", "a", 1)) == StaleToken("q", 1, 5, "fifo")
        assert drive.one(FinishTurn("q", "a", 5)) == TurnFinished("q", "a")
        assert drive.one(FinishTurn("q", "a", 5)) == TurnNotFound("q", "a")

    def test_a_ticket_is_given_up_in_any_state(self) -> None:
        """Who waits on it is told; the next one is promoted if it was the first."""
        drive = fifo("a", "b", "c")
        drive.ask(AwaitTurn("q", "b", 500), AwaitTurn("q", "c", 500))
        assert drive.ask(LeaveFifo("q", "b")) == [TurnDropped("q", "b"), FifoLeft("q", "b")]
        assert drive.ask(LeaveFifo("q", "a")) == [FifoLeft("q", "a"), TurnAccepted("q", "c", 6)]
        assert drive.ask(LeaveFifo("q", "c")) == [FifoLeft("q", "c")]
        assert states(drive) == []

    def test_a_wait_ends_with_the_position(self) -> None:
        """409 at the API: the ticket keeps its place and may be waited on again."""
        drive = fifo("a", "b", accept=0)
        drive.ask(AwaitTurn("q", "b", 100), AwaitTurn("q", "b", 300), now_ms=0)
        assert drive.at(100) == [NotYourTurn("q", "b", 2, None, 0)]
        assert drive.at(300) == [NotYourTurn("q", "b", 2, None, 0)]
        assert drive.one(AwaitTurn("q", "b", 10)) == Queued("q", 2)


class TestTimeouts:
    def test_one_wait_lasts_at_most_its_timeout(self) -> None:
        """However long the client would wait."""
        drive = fifo("a", "b", wait=100, accept=0)
        drive.ask(AwaitTurn("q", "b", 10**9), now_ms=50)
        assert drive.at(149) == []
        assert drive.at(150) == [NotYourTurn("q", "b", 2, None, 0)]

    def test_a_turn_that_nobody_accepts_goes_to_the_next(self) -> None:
        """One after the other, each with its whole time."""
        drive = fifo("a", "b", "c")
        drive.at(ACCEPT)
        assert whats(drive) == [("not_accepted", "a"), ("notified", "b")]
        drive.at(2 * ACCEPT - 1)
        assert states(drive) == [("b", "notified"), ("c", "waiting")]
        drive.at(2 * ACCEPT)
        assert states(drive) == [("c", "notified")]

    def test_a_turn_that_is_not_done_goes_to_the_next(self) -> None:
        """Armed by the acceptance itself, whoever else calls or not."""
        drive = fifo("a", "b")
        drive.ask(AwaitTurn("q", "a"), AwaitTurn("q", "b", 900), now_ms=10)
        assert drive.machine.next_deadline_ms() == 10 + DONE
        assert drive.at(10 + DONE) == [TurnAccepted("q", "b", drive.machine.tokens.last)]
        assert whats(drive) == [("not_done", "a"), ("accepted", "b")]
        assert drive.machine.next_deadline_ms() == 10 + 2 * DONE

    def test_zero_means_no_timeout(self) -> None:
        """Nothing is armed, and everything stays."""
        drive = fifo("a", "b", wait=0, accept=0, done=0, unused=0)
        drive.ask(AwaitTurn("q", "b", limits.LENGTH_MS_MAX))
        assert drive.machine.next_deadline_ms() == limits.LENGTH_MS_MAX
        drive.ask(AwaitTurn("q", "a"))
        drive.at(10**9)
        assert states(drive) == [("a", "accepted"), ("b", "waiting")]

    def test_overrides_hold_for_one_ticket(self) -> None:
        """Where the fifo allows them."""
        drive = Drive()
        drive.ask(create(allow=True), JoinFifo("q", "a", 0, 500, 900), JoinFifo("q", "b"), now_ms=0)
        drive.at(499)
        assert states(drive) == [("a", "notified"), ("b", "waiting")]
        drive.ask(AwaitTurn("q", "a"))
        drive.at(499 + 900)
        assert states(drive) == [("b", "notified")]
        drive.at(499 + 900 + ACCEPT)
        assert states(drive) == []

    def test_overrides_are_refused_or_left_out(self) -> None:
        """Refused, so that nobody believes in them; left out for those who never were told."""
        drive = fifo()
        assert drive.one(JoinFifo("q", "a", 5)) == OverridesNotAllowed("q")
        assert drive.one(JoinFifo("q", "a", None, None, 0)) == OverridesNotAllowed("q")
        joined = drive.one(JoinFifo("q", "a", None, 10**6, None, lenient=True))
        assert joined == FifoJoined("q", "a", "notified", 1, 0, 0)
        drive.at(ACCEPT)
        assert states(drive) == []

    def test_an_unused_fifo_is_destroyed(self) -> None:
        """Only while it has no tickets, counted from its last use."""
        drive = fifo("a", accept=0)
        drive.ask(AwaitTurn("q", "a"), now_ms=100)
        drive.at(100 + DONE)
        assert drive.at(100 + DONE + UNUSED - 1) == []
        assert drive.machine.fifos.info("q", 100 + DONE + UNUSED - 1) is not None
        drive.at(100 + DONE + UNUSED)
        assert whats(drive) == [("unused", None)]
        assert drive.one(JoinFifo("q", "b")) == FifoNotFound("q")
        assert drive.machine.next_deadline_ms() is None

    def test_a_fifo_in_use_is_never_destroyed(self) -> None:
        """A ticket keeps it, however long it waits."""
        drive = fifo("a", accept=0)
        for now_ms in range(0, 5 * UNUSED, UNUSED // 2):
            drive.at(now_ms)
        assert states(drive) == [("a", "notified")]

    def test_a_fifo_may_drop_tickets_that_nobody_waits_on(self) -> None:
        """Unused then means what it says; but who waits keeps it, and the end of a wait is a use."""
        drive = Drive()
        drop = CreateFifo("q", WAIT, 0, 0, UNUSED, drops_tickets=True)
        drive.ask(drop, JoinFifo("q", "a"), JoinFifo("q", "b"), now_ms=0)
        drive.ask(AwaitTurn("q", "b", WAIT), now_ms=UNUSED - 1)
        drive.at(UNUSED + WAIT - 2)
        assert states(drive) == [("a", "notified"), ("b", "waiting")]
        drive.at(UNUSED + WAIT - 1)
        info = drive.machine.fifos.info("q", drive.machine.now_ms)
        assert info is not None and info.destroyed_in_ms == UNUSED
        drive.at(UNUSED + WAIT - 1 + UNUSED)
        assert whats(drive) == [("unused", None)]
        assert drive.machine.counts().fifo_tickets == 0
        assert drive.machine.next_deadline_ms() is None

    def test_making_it_again_is_a_use(self) -> None:
        """Whoever makes sure that there is a fifo will use it."""
        drive = fifo()
        drive.ask(create(), now_ms=UNUSED - 1)
        drive.at(2 * UNUSED - 2)
        assert drive.machine.counts().fifos == 1
        drive.at(2 * UNUSED - 1)
        assert drive.machine.counts().fifos == 0


class TestDeadWaiters:
    def test_a_waiter_that_hung_up_accepts_nothing(self) -> None:
        """Its turn comes to nobody: it is notified, and lost in time."""
        drive = fifo("a", "b")
        drive.ask(AwaitTurn("q", "a"))
        drive.ask(AwaitTurn("q", "b", 900))
        assert drive.ask(Abandon(5)) == [Withdrawn(), Abandoned()]
        drive.ask(FinishTurn("q", "a"))
        assert states(drive) == [("b", "notified")]

    def test_another_waiter_on_the_ticket_accepts(self) -> None:
        """One of two hung up: the other is told."""
        drive = fifo("a", "b")
        drive.ask(AwaitTurn("q", "a"))
        drive.ask(AwaitTurn("q", "b", 900), AwaitTurn("q", "b", 900))
        drive.ask(Abandon(5))
        outcomes = drive.ask(FinishTurn("q", "a"))
        assert outcomes == [TurnFinished("q", "a"), TurnAccepted("q", "b", 6)]

    def test_an_acceptance_nobody_heard_of_is_taken_back(self) -> None:
        """The ticket is notified again and its accept clock runs; the next wait accepts anew."""
        drive = fifo("a", "b")
        token = accept(drive, "a", now_ms=10)
        assert drive.one(UnhearTurn("q", "a", token), now_ms=30) == TurnUnheard("q", "a", True)
        assert whats(drive) == [("unheard", "a"), ("notified", "a")]
        assert states(drive) == [("a", "notified"), ("b", "waiting")]
        assert drive.machine.next_deadline_ms() == 30 + ACCEPT
        again = accept(drive, "a", now_ms=30)
        assert again > token
        assert drive.one(FinishTurn("q", "a", token)) == StaleToken("q", token, again, "fifo")

    def test_an_acceptance_that_one_heard_of_stays(self) -> None:
        """Each of those who were told counts, whether they waited or asked again."""
        drive = fifo("a", "b")
        accept(drive, "a")
        drive.ask(AwaitTurn("q", "b", 900), AwaitTurn("q", "b", 900))
        drive.ask(FinishTurn("q", "a"))
        token = accept(drive, "b")
        for _ in range(2):
            assert drive.one(UnhearTurn("q", "b", token)) == TurnUnheard("q", "b", False)
        assert drive.one(UnhearTurn("q", "b", token)) == TurnUnheard("q", "b", True)

    def test_a_late_word_about_an_older_acceptance_changes_nothing(self) -> None:
        """The token says which acceptance it is about."""
        drive = fifo("a")
        first = accept(drive, "a")
        drive.ask(UnhearTurn("q", "a", first))
        accept(drive, "a")
        assert drive.one(UnhearTurn("q", "a", first)) == TurnUnheard("q", "a", False)
        assert states(drive) == [("a", "accepted")]
        assert drive.one(UnhearTurn("q", "z", first)) == TurnUnheard("q", "z", False)
        assert drive.one(UnhearTurn("p", "a", first)) == TurnUnheard("p", "a", False)

    def test_who_shares_a_wait_by_key_counts_each(self) -> None:
        """Two clients with one Idempotency-Key were both told."""
        drive = fifo("a", "b")
        accept(drive, "a")
        for node in ("n2", "n3"):
            drive.ask(AwaitTurn("q", "b", 900), node=node, key="k", fingerprint=b"f")
        outcomes = drive.ask(FinishTurn("q", "a"))
        (token, _) = [o.token for o in outcomes if isinstance(o, TurnAccepted)]
        assert drive.one(UnhearTurn("q", "b", token)) == TurnUnheard("q", "b", False)
        assert drive.one(UnhearTurn("q", "b", token)) == TurnUnheard("q", "b", True)


def accept(drive: Drive, ticket: str, now_ms: int | None = None) -> int:
    """Accept a turn that has come; gives the token."""
    outcome = drive.one(AwaitTurn("q", ticket), now_ms=now_ms)
    assert isinstance(outcome, TurnAccepted)
    return outcome.token


class TestEstimates:
    def test_the_wait_is_told_from_the_fifos_own_holds(self) -> None:
        """The rest of the present turn, and a mean one for each between."""
        drive = fifo("a", "b", "c", "d", accept=0, done=0)
        for ticket, ends_ms in (("a", 100), ("b", 300)):
            accept(drive, ticket)
            drive.ask(FinishTurn("q", ticket), now_ms=ends_ms)
        accept(drive, "c")
        assert drive.one(AwaitTurn("q", "d"), now_ms=350) == NotYourTurn("q", "d", 2, 100, 2)
        assert drive.one(JoinFifo("q", "e"), now_ms=900) == FifoJoined(
            "q", "e", "waiting", 3, 150, 2
        )
        info = drive.machine.fifos.info("q", 900)
        assert info is not None
        assert info.holds == HoldInfo(2, 150, 200)

    def test_the_last_holds_weigh_more(self) -> None:
        """A fifo that has become slow says so after a few turns; the past is bounded."""
        holds = Holds()
        assert (holds.eta_ms(0, 0), holds.eta_ms(1, 0)) == (0, None)
        for _ in range(50):
            holds.add(10)
        assert holds.info() == HoldInfo(50, 10, 10)
        for _ in range(40):
            holds.add(1000)
        assert holds.count == 90
        assert 990 < holds.mean_ms <= 1000
        assert len(holds.recent) == limits.HOLDS_KEPT_MAX
        assert holds.info().p90_ms == 1000
        assert holds.eta_ms(3, 5000) == 2 * holds.mean_ms


class TestLimits:
    def test_there_are_only_so_many_fifos(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that is there can be made again."""
        monkeypatch.setattr(limits, "FIFOS_MAX", 1)
        drive = fifo()
        assert drive.one(create("p")) == QueueFull("fifos", 1)
        assert isinstance(drive.one(create()), FifoCreated)

    def test_there_are_only_so_many_tickets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """In one fifo, and in all together."""
        drive = fifo("a", "b")
        drive.ask(create("p"))
        monkeypatch.setattr(limits, "TICKETS_PER_FIFO_MAX", 2)
        assert drive.one(JoinFifo("q", "c")) == QueueFull("tickets of a fifo", 2)
        monkeypatch.setattr(limits, "FIFO_TICKETS_MAX", 2)
        assert drive.one(JoinFifo("p", "c")) == QueueFull("tickets of fifos", 2)

    def test_there_are_only_so_many_waits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The refusal is the cluster's own."""
        drive = fifo("a", "b", "c")
        monkeypatch.setattr(limits, "PARKED_MAX", 1)
        drive.ask(AwaitTurn("q", "b", 100))
        assert drive.one(AwaitTurn("q", "c", 100)) == QueueFull("parked requests", 1)


class TestReading:
    def test_shows_a_fifo_and_its_tickets(self) -> None:
        """Settings, order, states, who waits, since when and until when."""
        drive = fifo("a", "b")
        accept(drive, "a", now_ms=10)
        drive.ask(AwaitTurn("q", "b", 500), AwaitTurn("q", "b", 500), now_ms=20)
        fifos = drive.machine.fifos
        holds = HoldInfo(0, None, None)
        assert fifos.info("q", 50) == FifoInfo(
            "q", WAIT, ACCEPT, DONE, UNUSED, False, 2, None, holds
        )
        assert fifos.turns("q", 50) == [
            TurnInfo("q", "a", 2, "accepted", 1, 5, 0, 0, 0, 50, 40, DONE - 40),
            TurnInfo("q", "b", 4, "waiting", 2, None, None, 0, 2, 50, 50, None),
        ]
        assert fifos.turn("q", "b", 50) == fifos.turns("q", 50)[1]
        assert fifos.turns("q", 50, after=2) == fifos.turns("q", 50)[1:]
        assert fifos.turns("q", 50, limit=1) == fifos.turns("q", 50)[:1]
        assert (fifos.turn("q", "z", 0), fifos.turn("p", "a", 0), fifos.turns("p", 0)) == (
            None,
            None,
            [],
        )

    def test_an_idle_fifo_tells_its_end(self) -> None:
        """Nobody uses it: how long it will still be there."""
        drive = fifo()
        info = drive.machine.fifos.info("q", 100)
        assert info is not None
        assert info.destroyed_in_ms == UNUSED - 100

    def test_lists_by_name_page_by_page(self) -> None:
        """Within a prefix, after the last one seen."""
        drive = Drive()
        drive.ask(*(create(name) for name in ("b/2", "a", "b/1", "c")))
        fifos = drive.machine.fifos
        assert [info.name for info in fifos.list(0)] == ["a", "b/1", "b/2", "c"]
        assert [info.name for info in fifos.list(0, prefix="b/", limit=1)] == ["b/1"]
        assert [info.name for info in fifos.list(0, prefix="b/", after="b/1")] == ["b/2"]
        assert fifos.list(0, prefix="z") == []

    def test_explains_who_is_ahead(self) -> None:
        """The ticket whose turn it is, then those between, up to one's own place."""
        drive = fifo("a", "b", "c")
        token = accept(drive, "a", now_ms=10)
        drive.ask(AwaitTurn("q", "c", 500))
        (place,) = drive.machine.fifos.places()
        ahead = list(drive.machine.fifos.blockers("q", "", place))
        assert ahead == [(None, token, 10, None), (None, None, 0, 2)]
        assert len(list(drive.machine.fifos.blockers("q", "", None))) == 3
        assert list(drive.machine.fifos.blockers("p", "", None)) == []


class TestChecks:
    @pytest.mark.parametrize(
        "command",
        [
            create("new"),
            create(),
            create(done=7),
            DestroyFifo("q"),
            DestroyFifo("q", force=True),
            DestroyFifo("new"),
            JoinFifo("q", "new"),
            JoinFifo("q", "a"),
            JoinFifo("q", "new", 7),
            JoinFifo("new", "new"),
            FinishTurn("q", "a"),
            FinishTurn("q", "a", 1),
            FinishTurn("q", "b"),
            FinishTurn("q", "new"),
            LeaveFifo("q", "b"),
            LeaveFifo("q", "new"),
        ],
    )
    def test_a_check_tells_what_the_command_will_be_refused_with(self, command: Any) -> None:
        """And changes nothing."""
        drive = fifo("a", "b")
        accept(drive, "a")
        before = list(drive.machine.dump())
        check = drive.machine.fifos.checks[type(command)]
        refusal = check.refusal(command)
        assert check.thing(command) == ("fifo", command.name)
        assert list(drive.machine.dump()) == before
        outcome = drive.one(command)
        if refusal is None:
            assert type(outcome).__name__ in {
                "FifoCreated",
                "FifoDestroyed",
                "FifoJoined",
                "TurnFinished",
                "FifoLeft",
            }
        else:
            assert outcome == refusal


def plain(rows: Any) -> Any:
    """Rows as they come back from bytes."""
    from tests.machine.test_snapshot import plain as as_plain

    return as_plain(rows)


def busy() -> Drive:
    """A machine with fifos in every state."""
    drive = fifo("a", "b", "c", "d", unused=9000)
    drive.ask(create("p", accept=0, done=0, unused=0), JoinFifo("p", "x"), create("idle"))
    accept(drive, "a", now_ms=5)
    drive.ask(FinishTurn("q", "a"), now_ms=25)
    accept(drive, "b", now_ms=30)
    drive.ask(AwaitTurn("q", "b"), AwaitTurn("q", "c", 500), AwaitTurn("q", "c", 700))
    drive.ask(AwaitTurn("q", "c", 700), key="k", fingerprint=b"f", node="n2")
    return drive


class TestSnapshot:
    def test_a_loaded_machine_goes_on_as_the_first(self) -> None:
        """Same rows, same pictures, and the same answers to whatever comes."""
        drive = busy()
        loaded = Machine.load(plain(drive.machine.dump()))
        assert plain(loaded.dump()) == plain(drive.machine.dump())
        assert loaded.counts() == drive.machine.counts()
        assert loaded.fifos.list(40) == drive.machine.fifos.list(40)
        assert loaded.fifos.turns("q", 40) == drive.machine.fifos.turns("q", 40)
        other = Drive(loaded)
        other.seqs = dict(drive.seqs)
        for command, now_ms in (
            (FinishTurn("q", "b"), 50),
            (UnhearTurn("q", "c", drive.machine.tokens.last + 1), 60),
            (AwaitTurn("q", "d", 1000), 300),
            (KEEP, 20_000),
        ):
            assert drive.ask(command, now_ms=now_ms) == other.ask(command, now_ms=now_ms)
            assert drive.machine.digest == loaded.digest
            assert plain(loaded.dump()) == plain(drive.machine.dump())

    @pytest.mark.parametrize(
        ("kind", "row", "column", "value"),
        [
            ("fifos", 0, 0, "zz"),
            ("fifos", 0, 1, 0),
            ("fifos", 0, 1, 10**9),
            ("fifos", 1, 1, 1),
            ("fifos", 0, 2, -1),
            ("fifos", 0, 5, 0),
            ("fifos", 0, 6, 1),
            ("fifos", 0, 7, -1),
            ("fifos", 1, 7, 5),
            ("fifos", 2, 8, 5),
            ("fifos", 2, 8, -1),
            ("fifos", 2, 9, -1),
            ("fifos", 2, 10, [-5]),
            ("fifos", 2, 10, [1, 2]),
            ("fifos", 2, 11, 1),
            ("fifo tickets", 0, 0, "zz"),
            ("fifo tickets", 0, 0, "none"),
            ("fifo tickets", 0, 1, "b"),
            ("fifo tickets", 0, 2, 0),
            ("fifo tickets", 2, 2, 10**9),
            ("fifo tickets", 3, 2, 1),
            ("fifo tickets", 1, 3, 10**9),
            ("fifo tickets", 1, 5, -1),
            ("fifo tickets", 1, 6, 7),
            ("fifo tickets", 1, 7, "waiting"),
            ("fifo tickets", 1, 7, "gone"),
            ("fifo tickets", 1, 8, -1),
            ("fifo tickets", 1, 9, 1),
            ("fifo tickets", 1, 9, 10**9),
            ("fifo tickets", 1, 10, -1),
            ("fifo tickets", 1, 11, 0),
            ("fifo tickets", 1, 11, -2),
            ("fifo tickets", 1, 12, 1),
            ("fifo tickets", 2, 7, "notified"),
            ("fifo tickets", 2, 9, 5),
            ("fifo tickets", 2, 10, 5),
            ("fifo tickets", 2, 11, 1),
            ("fifo tickets", 2, 12, 0),
            ("fifo tickets", 2, 12, 10**9),
            ("fifo tickets", 3, 12, 1),
        ],
    )
    def test_refuses_records_that_contradict_one_another(
        self, kind: str, row: int, column: int, value: object
    ) -> None:
        """Every field is checked, alone and against the others."""
        rows = plain(busy().machine.dump())
        (found,) = (each for each in rows if each[0] == kind)
        assert found[1][row][column] != value
        found[1][row][column] = value
        with pytest.raises(ValueError, match="no snapshot of ours"):
            Machine.load(rows)

    def test_raises_nothing_but_value_errors(self, rng: random.Random) -> None:
        """Rows with anything anywhere are refused, or make a machine that can be saved again."""
        original = plain(busy().machine.dump())
        junk: list[Any] = [None, True, -1, 0, 1, 10**18, "", "q", "waiting", b"x", [], [[1]]]
        for _ in range(1000):
            rows = copy.deepcopy(original)
            kind = rng.choice(("fifos", "fifo tickets"))
            (target,) = (row[1] for row in rows if row[0] == kind)
            record = rng.choice(target)
            record[rng.randrange(len(record))] = rng.choice(junk)
            try:
                machine = Machine.load(rows)
            except ValueError:
                continue
            assert plain(Machine.load(plain(machine.dump())).dump()) == plain(machine.dump())


KEEP = LeaveFifo("q", "nobody")


def test_commands_of_one_entry_see_one_another() -> None:
    """Take, wait, done and take again within an entry, each settled before the next."""
    machine = Machine()
    commands = (
        create(),
        JoinFifo("q", "a"),
        AwaitTurn("q", "a"),
        JoinFifo("q", "b"),
        FinishTurn("q", "a"),
        AwaitTurn("q", "b"),
    )
    requests = tuple(Request(seq, command) for seq, command in enumerate(commands, 1))
    answers = machine.apply(1, Batch(0, 0, (Group(Origin("n1", 1), 0, requests),)))
    outcomes: list[Outcome] = [answer.outcome for answer in answers]
    assert outcomes[2:] == [
        TurnAccepted("q", "a", 4),
        FifoJoined("q", "b", "waiting", 2, None, 0),
        TurnFinished("q", "a"),
        TurnAccepted("q", "b", 7),
    ]
