"""Bugs are planted into tickets, and their book must find each by the right name."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cluster.machine.commands import CloseSession
from cluster.machine.commands.tickets import ClaimTicket, IssueTicket, ReleaseTicket, RevokeTicket
from cluster.machine.tickets import tickets
from cluster.machine.tickets.resources import Resource
from cluster.machine.tickets.tickets import Tickets
from tests.simulation import test_timeline
from tests.simulation.timeline import Timeline
from tests.simulation.workloads.tickets import RESOURCES, TicketBook

LAB, SEATS = RESOURCES


class Bench(test_timeline.Bench):
    """A timeline that is judged by the book of tickets."""

    def __init__(self) -> None:
        super().__init__()

        def complain(law: str, _: str) -> None:
            self.complaints.append(law)

        self.timeline = Timeline(lambda: self.now_us, complain, [TicketBook(complain)])

    def claim(self, session: str, **more: Any) -> Any:
        """Claim a ticket of the lab; gives what is known of the answer."""
        return self.outcome(self.do(ClaimTicket(session, LAB, **more)))


def story(bench: Bench) -> None:
    """Issued, claimed, waited for, given back, taken over, revoked; much of it in one entry."""
    provider, a, b, c = bench.open(), bench.open(), bench.open(), bench.open()
    bench.do(IssueTicket(provider, LAB, "a", b"x"))
    grant = bench.claim(a)
    bench.claim(a)
    bench.claim(b, wait_ms=60_000)
    bench.claim(c, wait_ms=60_000)
    bench.do(ReleaseTicket(a, LAB, "a", grant.token))
    bench.do(IssueTicket(a, LAB, "a", b"y"))
    bench.do(RevokeTicket(a, LAB, "a"))
    bench.do(IssueTicket(provider, LAB, "b"))
    bench.commit(
        bench.ask(IssueTicket(a, SEATS, "a", b"1")),
        bench.ask(ClaimTicket(b, SEATS)),
        bench.ask(IssueTicket(a, SEATS, "a", b"2")),
        bench.ask(ClaimTicket(c, SEATS, wait_ms=500)),
        bench.ask(CloseSession(b)),
        bench.ask(CloseSession(a)),
    )
    bench.do(CloseSession(provider))


def test_a_good_history_is_let_pass() -> None:
    """Nothing to complain of."""
    bench = Bench()
    story(bench)
    assert bench.complaints == []


def test_a_second_claimant_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ticket that is held is given away once more."""

    def find(self: Tickets, command: ClaimTicket) -> Any:
        return next(iter(self.resources[command.name].tickets.values()))

    monkeypatch.setattr(Tickets, "_find", find)
    monkeypatch.setattr(tickets, "remove", lambda *_: None)
    bench = Bench()
    provider, a, b = bench.open(), bench.open(), bench.open()
    bench.do(IssueTicket(provider, LAB, "a"))
    bench.claim(a)
    bench.claim(b)
    assert "one claimant" in bench.complaints


def test_a_waiter_beside_a_free_ticket_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """What becomes free is not handed on."""
    monkeypatch.setattr(Tickets, "settle", lambda *_: None)
    bench = Bench()
    story(bench)
    assert "no stuck waiter" in bench.complaints


def test_barging_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last of the line is served first."""
    monkeypatch.setattr(Resource, "first_for", lambda self, _: (self.queue or [None])[-1])
    bench = Bench()
    story(bench)
    assert "no barging" in bench.complaints


def test_tickets_that_outlive_their_issuer_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a session issued goes with it."""
    monkeypatch.setattr(Tickets, "free", lambda *_: None)
    bench = Bench()
    story(bench)
    assert "a session takes all along" in bench.complaints


def test_data_that_nobody_gave_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim is answered with what its ticket has."""
    claimed = tickets._claimed

    def wrong(*args: Any) -> Any:
        return msgspec.structs.replace(claimed(*args), data=b"another")

    monkeypatch.setattr(tickets, "_claimed", wrong)
    bench = Bench()
    story(bench)
    assert "tickets" in bench.complaints
