"""Tickets: issued by one, claimed by another, in order, and gone with their issuer."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.machine import limits
from cluster.machine.commands import Abandon, CloseSession
from cluster.machine.commands.jobs import PutJob, ReserveJobs
from cluster.machine.commands.tasks import NewTask, PutTasks, Work
from cluster.machine.commands.tickets import ClaimTicket, IssueTicket, ReleaseTicket, RevokeTicket
from cluster.machine.events import Event
from cluster.machine.machine import Machine
from cluster.machine.outcome import (
    Abandoned,
    Closed,
    NotHolder,
    Outcome,
    Queued,
    QueueFull,
    SessionExpired,
    SessionNotFound,
    StaleToken,
    Withdrawn,
)
from cluster.machine.outcome.jobs import Reserved
from cluster.machine.outcome.tasks import Worked
from cluster.machine.outcome.tickets import (
    NoTicketFree,
    NotIssuer,
    ResourceInfo,
    ResourceNotFound,
    TicketClaimed,
    TicketInfo,
    TicketIssued,
    TicketNotFound,
    TicketReleased,
    TicketRevoked,
)
from cluster.machine.primitive import Blocker
from cluster.wire import snapshot
from tests.machine.drive import Drive
from tests.machine.test_snapshot import plain


def issue(session: str, ticket: str, data: bytes | None = None, **more: Any) -> IssueTicket:
    """Issue a ticket of the lab."""
    return IssueTicket(session, "lab", ticket, data, **more)


def claim(session: str, ticket: str | None = None, **more: Any) -> ClaimTicket:
    """Claim a ticket of the lab."""
    return ClaimTicket(session, "lab", ticket=ticket, **more)


def release(session: str, ticket: str, token: int | None) -> ReleaseTicket:
    """Give a ticket of the lab back."""
    return ReleaseTicket(session, "lab", ticket, token)


def claimed(ticket: str, session: str, token: int, issuer: str) -> TicketClaimed:
    """The answer of a claim on a ticket without data."""
    return TicketClaimed("lab", ticket, session, token, issuer, None, False)


def lab(*tickets: str) -> tuple[Drive, str, list[str]]:
    """A provider's tickets, and four who want them; what comes next has token 20."""
    drive = Drive()
    provider, *others = drive.open(*[10_000] * 5, now_ms=0)
    drive.ask(*(issue(provider, ticket) for ticket in tickets))
    while drive.machine.index < 19:
        drive.at(0)
    return drive, provider, others


def heard(drive: Drive) -> list[tuple[str, str | None, int]]:
    """What the last entry told watchers of tickets: (what, session, token)."""
    events: list[Event] = drive.machine.core.events
    return [(e.what, e.session, e.token) for e in events if e.kind == "ticket"]


class TestIssue:
    def test_makes_the_ticket_and_the_resource(self) -> None:
        """Under a token of its own; both can be seen."""
        drive, provider, _ = lab()
        assert drive.one(issue(provider, "t", b"x", is_text=True)) == TicketIssued(
            "lab", "t", provider, 20, True, None, None
        )
        drive.at(30)
        assert drive.machine.tickets.info("lab", 30) == ResourceInfo(
            "lab", (TicketInfo("lab", "t", provider, 20, 30, b"x", True, None),), (), 1
        )

    def test_again_by_its_issuer_replaces_the_data_and_nothing_else(self) -> None:
        """The token, the claim and the place in the order stay."""
        drive, provider, (a, *_) = lab("t", "u")
        drive.ask(claim(a))
        assert drive.one(issue(provider, "t", b"new")) == TicketIssued(
            "lab", "t", provider, 6, False, None, a
        )
        assert heard(drive) == [("changed", provider, 6)]
        assert drive.one(claim(a)) == TicketClaimed("lab", "t", a, 20, provider, b"new", False)
        drive.ask(issue(provider, "t", b"new"))
        assert heard(drive) == []
        info = drive.machine.tickets.info("lab", 0)
        assert info is not None
        assert [ticket.ticket for ticket in info.tickets] == ["t", "u"]

    def test_by_another_session_takes_it_over(self) -> None:
        """A new token; who had it is told; the claim stays, and outlives the first issuer."""
        drive, provider, (a, b, *_) = lab("t")
        drive.ask(claim(a))
        assert drive.one(issue(b, "t")) == TicketIssued("lab", "t", b, 21, False, provider, a)
        assert heard(drive) == [("lost", provider, 6), ("issued", b, 21)]
        drive.ask(CloseSession(provider))
        assert heard(drive) == []
        assert drive.machine.tickets.check("lab", "t", 20) == (True, 20)

    def test_is_given_to_who_waits(self) -> None:
        """In the same entry; the resource need not have been there."""
        drive, provider, (a, b, *_) = lab()
        assert drive.ask(claim(a, wait_ms=500), claim(b, wait_ms=500)) == [
            Queued("lab", 1),
            Queued("lab", 2),
        ]
        assert drive.ask(issue(provider, "t")) == [
            TicketIssued("lab", "t", provider, 21, True, None, None),
            claimed("t", a, 22, provider),
        ]

    def test_renews_the_session_only_where_that_is_asked_for(self) -> None:
        """As ticketd has it; the native call leaves it off."""
        drive = Drive()
        a, b = drive.open(100, 100, now_ms=0)
        drive.ask(issue(a, "t"), issue(b, "u", refresh=True), now_ms=60)
        drive.at(100)
        assert drive.machine.sessions.get(a) is None
        assert drive.machine.sessions.get(b) is not None

    def test_text_that_is_none_comes_back_as_bytes(self) -> None:
        """Whatever it was called."""
        drive, provider, (a, *_) = lab()
        drive.ask(issue(provider, "t", b"\xff", is_text=True))
        answer = drive.one(claim(a))
        assert isinstance(answer, TicketClaimed)
        assert (answer.data, answer.is_text) == (b"\xff", False)

    def test_needs_a_living_session(self) -> None:
        """Expired and unknown ones issue nothing."""
        drive, provider, _ = lab()
        drive.ask(CloseSession(provider))
        assert drive.one(issue(provider, "t")) == SessionExpired(provider)
        assert drive.one(issue("ff-x", "t")) == SessionNotFound("ff-x")

    def test_keeps_its_limits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Resources, tickets, bytes, things of a session; what is there can be issued again."""
        drive, provider, (a, *_) = lab("t")
        monkeypatch.setattr(limits, "RESOURCES_MAX", 1)
        assert drive.one(IssueTicket(provider, "x", "t")) == QueueFull("resources", 1)
        monkeypatch.setattr(limits, "TICKETS_PER_RESOURCE_MAX", 1)
        assert drive.one(issue(provider, "u")) == QueueFull("tickets of a resource", 1)
        monkeypatch.setattr(limits, "TICKET_DATA_BYTES_TOTAL_MAX", 3)
        assert drive.one(issue(provider, "t", b"xxxx")) == QueueFull("bytes of ticket data", 3)
        assert isinstance(drive.one(issue(provider, "t", b"xxx")), TicketIssued)
        assert isinstance(drive.one(issue(provider, "t", b"xx")), TicketIssued)
        assert drive.machine.counts().ticket_bytes == 2
        monkeypatch.setattr(limits, "OWNED_PER_SESSION_MAX", 0)
        assert drive.one(issue(a, "t")) == QueueFull("things of a session", 0)
        assert isinstance(drive.one(issue(provider, "t")), TicketIssued)


class TestRevoke:
    def test_takes_the_ticket_away_from_its_claimant_too(self) -> None:
        """Both are told, and the last ticket takes the resource along."""
        drive, provider, (a, *_) = lab("t")
        drive.ask(claim(a))
        revoke = RevokeTicket(provider, "lab", "t")
        assert drive.one(revoke) == TicketRevoked("lab", "t", a)
        assert heard(drive) == [("revoked", provider, 6), ("revoked", a, 20)]
        assert drive.one(revoke) == ResourceNotFound("lab")
        assert drive.machine.tickets.info("lab", 0) is None
        info = drive.machine.sessions.info(a, 0)
        assert info is not None
        assert info.holds == ()

    def test_is_for_its_issuer_unless_anybody_may(self) -> None:
        """A front may let everybody revoke everything."""
        drive, provider, (a, *_) = lab("t", "u")
        assert drive.one(RevokeTicket(a, "lab", "t")) == NotIssuer("lab", "t", a, provider)
        assert drive.one(RevokeTicket(a, "lab", "z")) == TicketNotFound("lab", "z")
        assert drive.one(RevokeTicket("ff-x", "lab", "t")) == SessionNotFound("ff-x")
        revoked = drive.one(RevokeTicket(a, "lab", "t", anybody=True))
        assert revoked == TicketRevoked("lab", "t", None)


class TestClaim:
    def test_gives_the_free_one_that_was_issued_first(self) -> None:
        """One that was given back stands where it stood."""
        drive, provider, (a, b, c, _) = lab("z", "y", "x")
        assert drive.ask(claim(a), claim(b)) == [
            claimed("z", a, 20, provider),
            claimed("y", b, 21, provider),
        ]
        drive.ask(release(a, "z", 20))
        assert drive.one(claim(c)) == claimed("z", c, 22, provider)

    def test_again_gives_the_one_held(self) -> None:
        """A retry is harmless; `another` takes one more, and the one held longest comes first."""
        drive, provider, (a, *_) = lab("t", "u")
        first = drive.one(claim(a))
        assert drive.one(claim(a, wait_ms=500)) == first
        assert drive.one(claim(a, another=True)) == claimed("u", a, 22, provider)
        assert drive.one(claim(a)) == first
        assert drive.one(claim(a, "u")) == claimed("u", a, 22, provider)
        assert isinstance(drive.one(claim(a, another=True)), NoTicketFree)

    def test_may_name_the_ticket(self) -> None:
        """That one or none; one that is not there may come."""
        drive, provider, (a, b, c, _) = lab("t", "u")
        assert drive.one(claim(a, "u")) == claimed("u", a, 20, provider)
        assert drive.one(claim(b, "u")) == NoTicketFree("lab", "u", 2, 1, a, 0, 20, 0, 1)
        assert drive.one(claim(b, "v")) == NoTicketFree("lab", "v", 2, 1, None, 0, None, 0, 1)
        assert drive.one(claim(c, "v", wait_ms=500)) == Queued("lab", 1)
        assert drive.ask(issue(provider, "v"))[1:] == [claimed("v", c, 25, provider)]

    def test_refuses_when_none_is_free_and_says_why(self) -> None:
        """How many there are, who holds one longest, where one would stand."""
        drive, _, (a, b, c, d) = lab("t", "u")
        drive.ask(claim(a), claim(b), now_ms=10)
        drive.ask(claim(c, wait_ms=500), now_ms=20)
        refusal = NoTicketFree("lab", None, 2, 2, a, 40, 20, 1, 2)
        assert drive.one(claim(d), now_ms=50) == refusal
        assert drive.one(claim(d, "u")) == NoTicketFree("lab", "u", 2, 2, b, 40, 21, 1, 2)
        nothing = NoTicketFree("attic", None, 0, 0, None, 0, None, 0, 1)
        assert drive.one(ClaimTicket(d, "attic")) == nothing

    def test_waiters_are_served_in_order_of_arrival(self) -> None:
        """A ticket goes to who came first among those it could serve."""
        drive, provider, (a, b, c, d) = lab("t", "u")
        drive.ask(claim(a), claim(a, another=True))
        assert drive.ask(
            claim(b, "u", wait_ms=500), claim(c, wait_ms=500), claim(d, "t", wait_ms=500)
        ) == [Queued("lab", 1), Queued("lab", 2), Queued("lab", 2)]
        assert drive.ask(release(a, "t", 20)) == [
            TicketReleased("lab", "t"),
            claimed("t", c, 22, provider),
        ]
        assert drive.ask(release(a, "u", 21)) == [
            TicketReleased("lab", "u"),
            claimed("u", b, 23, provider),
        ]
        assert drive.ask(release(c, "t", 22))[1:] == [claimed("t", d, 24, provider)]

    def test_who_waits_and_asks_again_keeps_its_place(self) -> None:
        """Both requests get the one ticket; `another` stands for itself."""
        drive, provider, (a, b, *_) = lab("t")
        drive.ask(claim(a))
        assert drive.ask(
            claim(b, wait_ms=500), claim(b, wait_ms=900), claim(b, wait_ms=900, another=True)
        ) == [Queued("lab", 1), Queued("lab", 1), Queued("lab", 2)]
        assert drive.one(claim(b)) == NoTicketFree("lab", None, 1, 1, a, 0, 20, 1, 1)
        grant = claimed("t", b, 23, provider)
        assert drive.ask(release(a, "t", 20))[1:] == [grant, grant]
        assert drive.ask(issue(provider, "u"))[1:] == [claimed("u", b, 25, provider)]

    def test_a_wait_ends_with_the_reason(self) -> None:
        """The place is lost; a resource without tickets is gone with its last waiter."""
        drive, _, (a, b, *_) = lab("t")
        drive.ask(claim(a), claim(b, wait_ms=50), ClaimTicket(b, "attic", wait_ms=50), now_ms=10)
        assert drive.machine.counts().resources == 2
        assert drive.at(60) == [
            NoTicketFree("lab", None, 1, 1, a, 50, 20, 0, 1),
            NoTicketFree("attic", None, 0, 0, None, 0, None, 0, 1),
        ]
        assert drive.machine.counts().resources == 1

    def test_who_hangs_up_is_not_served(self) -> None:
        """The next one is."""
        drive, provider, (a, b, *_) = lab()
        drive.ask(claim(a, wait_ms=500), claim(b, wait_ms=500))
        assert drive.ask(Abandon(drive.seqs["n1", 1] - 1)) == [Withdrawn(), Abandoned()]
        assert drive.ask(issue(provider, "t"))[1:] == [claimed("t", b, 23, provider)]

    def test_keeps_its_limits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Things of a session, waiters, resources, parked requests."""
        drive, _, (a, b, c, _) = lab("t")
        drive.ask(claim(a), claim(b, wait_ms=500))
        monkeypatch.setattr(limits, "OWNED_PER_SESSION_MAX", 1)
        assert drive.one(claim(a, another=True)) == QueueFull("things of a session", 1)
        assert drive.one(ClaimTicket(b, "attic")) == QueueFull("things of a session", 1)
        assert isinstance(drive.one(claim(b, wait_ms=10)), Queued)
        monkeypatch.setattr(limits, "OWNED_PER_SESSION_MAX", 9)
        monkeypatch.setattr(limits, "WAITERS_PER_RESOURCE_MAX", 1)
        assert drive.one(claim(c, wait_ms=10)) == QueueFull("waiters of a resource", 1)
        monkeypatch.setattr(limits, "RESOURCES_MAX", 1)
        attic = ClaimTicket(c, "attic", wait_ms=10)
        assert drive.one(attic) == QueueFull("resources", 1)
        monkeypatch.setattr(limits, "PARKED_MAX", 1)
        assert drive.one(attic) == QueueFull("parked requests", 1)


class TestRelease:
    def test_is_conditional_on_the_token(self) -> None:
        """A stale one, somebody else's, a free one, no such thing."""
        drive, _, (a, b, *_) = lab("t", "u")
        drive.ask(claim(a), claim(b))
        assert drive.one(release(a, "t", 19)) == StaleToken("lab/t", 19, 20, "ticket")
        assert drive.one(release(b, "t", 20)) == NotHolder("lab/t", b, "ticket")
        assert drive.one(release(b, "t", 19)) == StaleToken("lab/t", 19, 20, "ticket")
        assert drive.one(release(a, "t", 20)) == TicketReleased("lab", "t")
        assert drive.one(release(a, "t", 20)) == NotHolder("lab/t", a, "ticket")
        assert drive.one(release(a, "z", 20)) == TicketNotFound("lab", "z")
        assert drive.one(ReleaseTicket(a, "attic", "t", 20)) == ResourceNotFound("attic")
        assert drive.one(release("ff-x", "t", 20)) == SessionNotFound("ff-x")

    def test_without_a_token_the_session_is_enough(self) -> None:
        """For fronts whose words have no place for a token."""
        drive, _, (a, b, *_) = lab("t")
        drive.ask(claim(a))
        assert drive.one(release(b, "t", None)) == NotHolder("lab/t", b, "ticket")
        assert drive.one(release(a, "t", None)) == TicketReleased("lab", "t")


class TestSessions:
    def test_tickets_vanish_with_their_issuer(self) -> None:
        """Their claimants are told, in the same step, whose end it was."""
        drive, provider, (a, *_) = lab("t", "u")
        drive.ask(claim(a))
        assert drive.ask(CloseSession(provider)) == [Closed(provider)]
        assert heard(drive) == [("lost", provider, 6), ("revoked", a, 20), ("lost", provider, 7)]
        assert dict(drive.machine.core.events[2].more) == {"ticket": "t", "by": provider}
        assert len(drive.machine.tickets) == 0
        assert drive.one(claim(a)) == NoTicketFree("lab", None, 0, 0, None, 0, None, 0, 1)

    def test_claims_are_freed_with_their_session(self) -> None:
        """And go to those who wait, in the same step."""
        drive, provider, (a, b, c, _) = lab("t", "u")
        drive.ask(claim(a), claim(a, another=True), claim(b, wait_ms=500), claim(c, wait_ms=500))
        assert drive.ask(CloseSession(a)) == [
            Closed(a),
            claimed("t", b, 22, provider),
            claimed("u", c, 23, provider),
        ]

    def test_one_who_holds_its_own_ticket_loses_both(self) -> None:
        """Whichever of the two it had first."""
        for first_claims in (False, True):
            drive, provider, (a, *_) = lab("t")
            steps = [claim(a), issue(a, "t")] if first_claims else [issue(a, "t"), claim(a)]
            drive.ask(*steps)
            drive.ask(CloseSession(a))
            assert len(drive.machine.tickets) == 0
            assert drive.machine.counts().ticket_claims == 0
            info = drive.machine.sessions.info(provider, 0)
            assert info is not None
            assert info.holds == ()

    def test_a_session_that_is_due_is_not_served(self) -> None:
        """Nor is anybody served with its tickets."""
        drive = Drive()
        a, b, c = drive.open(100, 100, 1000, now_ms=0)
        drive.ask(issue(c, "t"), claim(a), claim(b, wait_ms=500), claim(c, wait_ms=500))
        told: list[Outcome] = drive.at(100)
        assert told == [SessionExpired(b), claimed("t", c, 6, c)]


class TestPictures:
    def test_shows_tickets_claims_and_waiters(self) -> None:
        """In order of first issue, and of arrival."""
        drive, provider, (a, b, *_) = lab("t", "s")
        drive.ask(claim(a), claim(b), claim(a, "s", wait_ms=100), now_ms=10)
        drive.ask(ClaimTicket(b, "lab", 50, "q"), now_ms=20)
        assert drive.machine.tickets.info("lab", 30) == ResourceInfo(
            "lab",
            (
                TicketInfo("lab", "t", provider, 6, 30, None, False, (a, 20, 20)),
                TicketInfo("lab", "s", provider, 7, 30, None, False, (b, 21, 20)),
            ),
            ((a, "s", 20, 80, 1), (b, "q", 10, 40, 1)),
            0,
        )
        assert drive.machine.tickets.ticket("lab", "z", 30) is None
        assert drive.machine.tickets.ticket("attic", "t", 30) is None

    def test_lists_by_prefix_in_order_of_name(self) -> None:
        """`after` need not be there any more."""
        drive, provider, _ = lab()
        drive.ask(*(IssueTicket(provider, name, "t") for name in ("b", "a/2", "a/1", "a/3")))

        def names(**query: Any) -> list[str]:
            return [info.name for info in drive.machine.tickets.list(0, **query)]

        assert names() == ["a/1", "a/2", "a/3", "b"]
        assert names(prefix="a/", limit=2) == ["a/1", "a/2"]
        assert names(prefix="a/", after="a/15") == ["a/2", "a/3"]

    def test_a_token_is_checked_against_the_claim(self) -> None:
        """A free ticket has no token, nor has one that is gone."""
        drive, _, (a, *_) = lab("t")
        check = drive.machine.tickets.check
        assert check("lab", "t", 20) == (False, None)
        drive.ask(claim(a))
        assert (check("lab", "t", 20), check("lab", "t", 6)) == ((True, 20), (False, 20))
        assert check("lab", "z", 20) == check("attic", "t", 20) == (False, None)

    def test_blockers_are_those_who_hold_what_is_wanted_and_those_before(self) -> None:
        """Of a ticket with a name only its claimant, and who wants the same."""
        drive, _, (a, b, c, d) = lab("t", "u")
        drive.ask(claim(a), claim(b), now_ms=5)
        drive.ask(claim(c, "t", wait_ms=500), claim(d, "u", wait_ms=500), now_ms=6)
        tickets = drive.machine.tickets
        place = next(p for p in tickets.places() if p.session == d)
        assert list(tickets.blockers("lab", d, place)) == [Blocker(b, 21, 5, None)]
        assert list(tickets.blockers("lab", "x", None)) == [
            Blocker(a, 20, 5, None),
            Blocker(b, 21, 5, None),
            Blocker(c, None, 6, 1),
            Blocker(d, None, 6, 2),
        ]
        assert list(tickets.blockers("attic", a, None)) == []


def busy() -> Machine:
    """A machine with tickets in every state."""
    drive, provider, (a, b, c, _) = lab("t", "u", "v")
    drive.ask(issue(a, "t", b"\xff"), issue(provider, "u", b"text", is_text=True))
    drive.ask(IssueTicket(b, "attic", "free"), claim(b, "u"), claim(a), now_ms=10)
    drive.ask(claim(c), claim(c, another=True, wait_ms=500), claim(a, "u", wait_ms=600))
    drive.ask(IssueTicket(b, "pier", "free"), ClaimTicket(c, "pier", 800, "later"))
    drive.ask(ClaimTicket(c, "cellar", wait_ms=700), key="k", fingerprint=b"f")
    return drive.machine


class TestSnapshots:
    def test_a_loaded_machine_is_the_same(self) -> None:
        """Rows, counts, pictures, sessions' records."""
        machine = busy()
        loaded = Machine.load(snapshot.decode(snapshot.encode(machine.dump())))
        assert plain(loaded.dump()) == plain(machine.dump())
        assert loaded.counts() == machine.counts()
        assert loaded.tickets.list(20) == machine.tickets.list(20)
        assert loaded.sessions.list(20) == machine.sessions.list(20)

    @pytest.mark.parametrize("is_text", [True, False, None])
    def test_what_payloads_came_as_is_kept(self, is_text: bool | None) -> None:
        """Text, bytes or JSON: of tickets, jobs and tasks alike."""
        drive, provider, (session, *_) = lab()
        drive.ask(
            issue(provider, "t", b"{}", is_text=is_text),
            PutJob("mail", b"{}", is_text),
            PutTasks("pool", (NewTask("a", b"{}", is_text),)),
        )
        drive.machine = Machine.load(snapshot.decode(snapshot.encode(drive.machine.dump())))
        told = drive.ask(claim(session), ReserveJobs(("mail",)), Work(session, "pool"))
        claimed, reserved, given = told
        assert isinstance(claimed, TicketClaimed)
        assert isinstance(reserved, Reserved)
        assert isinstance(given, Worked)
        kept = [claimed.is_text, reserved.jobs[0].is_text, given.tasks[0].is_text]
        assert kept == [is_text] * 3

    def test_heavy_data_make_small_rows(self) -> None:
        """A row of a snapshot is bounded by what is in it."""
        drive, provider, _ = lab()
        drive.ask(*(issue(provider, f"t{number}", b"x" * 65_536) for number in range(4)))
        assert [len(row[1]) for row in drive.machine.dump() if row[0] == "tickets"] == [1] * 4

    @pytest.mark.parametrize(
        ("kind", "record", "column", "value"),
        [
            ("tickets", 0, 0, "zzz"),
            ("tickets", 1, 1, "u"),
            ("tickets", 1, 2, 0),
            ("tickets", 1, 2, 99),
            ("tickets", 2, 2, 6),
            ("tickets", 0, 3, "9-nobody"),
            ("tickets", 0, 4, 99),
            ("tickets", 0, 7, True),
            ("tickets", 1, 7, True),
            ("ticket claims", 0, 0, "unknown"),
            ("ticket claims", 0, 1, "unknown"),
            ("ticket claims", 0, 1, "t"),
            ("ticket claims", 0, 2, "9-nobody"),
            ("ticket claims", 1, 3, 0),
            ("ticket claims", 0, 3, 99),
            ("ticket places", 0, 0, "zzz"),
            ("ticket places", 0, 0, "attic"),
            ("ticket places", 3, 2, "free"),
            ("ticket places", 3, 2, None),
            ("ticket places", 1, 1, "9-nobody"),
            ("ticket places", 1, 4, 99),
            ("ticket places", 2, 4, 1),
        ],
    )
    def test_refuses_records_that_contradict_one_another(
        self, kind: str, record: int, column: int, value: object
    ) -> None:
        """Every field is checked, alone and against the others."""
        rows = plain(busy().dump())
        (row,) = (row for row in rows if row[0] == kind)
        row[1][record][column] = value
        with pytest.raises(ValueError, match="no snapshot of ours"):
            Machine.load(rows)
