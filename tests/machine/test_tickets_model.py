"""Tickets against the model, and against their laws, on thousands of random entries.

A failing walk prints its number; `--seed N` shifts all walks to other ones.
"""

from __future__ import annotations

import random

import pytest

from cluster.machine.commands import Command
from cluster.machine.commands.tickets import ClaimTicket, IssueTicket, ReleaseTicket, RevokeTicket
from cluster.machine.events import Event
from cluster.machine.machine import Machine
from cluster.machine.outcome import Outcome, Queued
from cluster.machine.outcome.tickets import TicketClaimed, TicketInfo
from cluster.wire import cbor, snapshot
from tests.machine.naive import Stroll, batch_of, records_of, step
from tests.machine.ticket_model import TicketModel

WALKS = range(60)
ENTRIES = 150
NAMES = ("printers", "seats")
TICKETS = ("a", "b", "c")


class TicketStroll(Stroll):
    """Few resources with few tickets, so that there is mostly none free."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self.claims: list[TicketClaimed] = []

    def command(self) -> Command:
        rng, name, ticket = self.rng, self.rng.choice(NAMES), self.rng.choice(TICKETS)
        dice = rng.random()
        if dice < 0.25:
            data = rng.choice((None, b"", b"x", b"\xff"))
            is_text = data is not None and data != b"\xff" and rng.random() < 0.5
            refresh = rng.random() < 0.3
            return IssueTicket(self.session(), name, ticket, data, is_text, refresh)
        if dice < 0.33:
            return RevokeTicket(self.session(), name, ticket, rng.random() < 0.4)
        if dice < 0.6 and self.claims:
            claim = rng.choice(self.claims)
            session = claim.session if rng.random() < 0.9 else self.session()
            token = claim.token if rng.random() < 0.9 else rng.randrange(claim.token + 3)
            ticket = claim.ticket if rng.random() < 0.95 else "z"
            return ReleaseTicket(session, claim.name, ticket, token if rng.random() < 0.9 else None)
        return ClaimTicket(
            self.session(),
            name,
            wait_ms=self.wait_ms(),
            ticket=ticket if rng.random() < 0.3 else None,
            another=rng.random() < 0.3,
        )

    def learn(self, outcome: Outcome) -> None:
        if isinstance(outcome, TicketClaimed):
            self.claims = [*self.claims[-6:], outcome]


def stroll(seed: int, number: int) -> TicketStroll:
    """One walk."""
    return TicketStroll(random.Random(seed * 10_000 + number))


@pytest.mark.parametrize("number", WALKS)
def test_tickets_answer_as_the_model_does(number: int, seed: int) -> None:
    """Every answer, picture and deadline is the one the plain model gives."""
    walk, machine, model = stroll(seed, number), Machine(), TicketModel()
    for _ in range(ENTRIES):
        now_ms, commands = walk.entry(machine.next_deadline_ms())
        told = step(machine, now_ms, commands)
        assert told == model.apply(machine.index, now_ms, commands)
        walk.read(told)
        assert machine.next_deadline_ms() == model.next_deadline_ms()
        assert records_of(machine) == model.records()
        for name in NAMES:
            assert machine.tickets.info(name, machine.now_ms) == model.info(name)
            for ticket in TICKETS:
                found = machine.tickets.ticket(name, ticket, machine.now_ms)
                assert (found is None) == (model.ticket(name, ticket) is None)
        counts = machine.counts()
        assert (counts.tickets, counts.ticket_claims, counts.ticket_bytes) == (
            len(model.tickets),
            sum(ticket.claim is not None for ticket in model.tickets),
            sum(len(ticket.data or b"") for ticket in model.tickets),
        )
        assert counts.ticket_waiters == sum(len(model.places(name)) for name in NAMES)
        assert counts.resources == sum(model.exists(name) for name in NAMES)


@pytest.mark.parametrize("number", WALKS)
def test_tickets_from_a_snapshot_go_on_as_the_ones_it_was_taken_of(number: int, seed: int) -> None:
    """Two machines fed the same log give equal answers, digests and dumps, loaded or not."""
    walk, steady, moved = stroll(seed, number), Machine(), Machine()
    moves = set(walk.rng.sample(range(ENTRIES), 5))
    for index in range(1, ENTRIES + 1):
        now_ms, commands = walk.entry(steady.next_deadline_ms())
        told = step(steady, now_ms, commands)
        assert step(moved, now_ms, commands) == told
        assert moved.digest == steady.digest
        walk.read(told)
        if index in moves:
            before = list(map(cbor.encode, moved.dump()))
            moved = Machine.load(snapshot.decode(snapshot.encode(moved.dump())))
            assert list(map(cbor.encode, moved.dump())) == before
    assert moved.full_digest(cbor.encode) == steady.full_digest(cbor.encode)


@pytest.mark.parametrize("number", WALKS)
def test_no_ticket_is_ever_held_twice(number: int, seed: int) -> None:
    """Told by the events alone: one claimant, only of what was issued, everybody told of a loss."""
    walk, machine, book = stroll(seed, number), Machine(), Book()
    for _ in range(ENTRIES):
        now_ms, commands = walk.entry(machine.next_deadline_ms())
        walk.read(step(machine, now_ms, commands))
        for event in machine.core.events:
            book.hear(event)
        pictures: dict[tuple[str, str], TicketInfo] = {}
        for name in NAMES:
            info = machine.tickets.info(name, machine.now_ms)
            if info is None:
                continue
            pictures.update({(name, ticket.ticket): ticket for ticket in info.tickets})
            free = {ticket.ticket for ticket in info.tickets if ticket.claim is None}
            for _, wanted, *_ in info.waiters:
                assert not (free if wanted is None else wanted in free), "a free ticket is kept"
        assert {key: (t.issuer, t.token) for key, t in pictures.items()} == book.issued
        assert {key: t.claim[:2] for key, t in pictures.items() if t.claim} == book.claimed


class Book:
    """What the events say: who issued each ticket and who holds it, as (session, token)."""

    def __init__(self) -> None:
        self.issued: dict[tuple[str, str], tuple[str | None, int]] = {}
        self.claimed: dict[tuple[str, str], tuple[str | None, int]] = {}
        self.newest = 0

    def hear(self, event: Event) -> None:
        """Take one event in."""
        if event.kind != "ticket":
            return
        key, whose = (event.name, dict(event.more)["ticket"]), (event.session, event.token)
        if event.what in {"issued", "granted"}:
            assert event.token > self.newest
            self.newest = event.token
        if event.what == "issued":
            assert key not in self.issued
            self.issued[key] = whose
        elif event.what == "changed":
            assert self.issued[key] == whose
        elif event.what == "granted":
            assert key in self.issued
            assert key not in self.claimed
            self.claimed[key] = whose
        else:
            assert event.what in {"released", "lost", "revoked"}
            if self.issued.get(key) == whose:
                assert event.what != "released"
                del self.issued[key]
            else:
                assert self.claimed.pop(key) == whose


def test_a_ticket_held_twice_would_be_seen() -> None:
    """The book is no ornament: it complains of a second claimant, and of a claim on nothing."""
    issued = Event("issued", "ticket", "seats", "1-s", 1, (("ticket", "a"),))
    granted = issued._replace(what="granted", session="2-s", token=2)
    book = Book()
    with pytest.raises(AssertionError):
        book.hear(granted)
    book = Book()
    book.hear(issued)
    book.hear(granted)
    with pytest.raises(AssertionError):
        book.hear(granted._replace(session="3-s", token=3))


def test_a_walk_meets_what_it_should_meet() -> None:
    """The walks are not idle: every kind of answer about tickets occurs in them."""
    met: set[str] = set()
    for number in WALKS:
        walk, machine = stroll(0, number), Machine()
        for _ in range(ENTRIES):
            now_ms, commands = walk.entry(machine.next_deadline_ms())
            told = step(machine, now_ms, commands)
            walk.read(told)
            met.update(type(outcome).__name__ for _, outcome in told)
    assert met >= {
        Queued.__name__,
        "NoTicketFree",
        "NotHolder",
        "NotIssuer",
        "ResourceNotFound",
        "SessionExpired",
        "StaleToken",
        "TicketClaimed",
        "TicketIssued",
        "TicketNotFound",
        "TicketReleased",
        "TicketRevoked",
        "Withdrawn",
    }


@pytest.mark.parametrize("number", range(20))
def test_a_check_foretells_the_refusal(number: int, seed: int) -> None:
    """What a command would be refused with is what it is refused with, and looking does nothing."""
    walk, machine = stroll(seed, number), Machine()
    for _ in range(ENTRIES):
        now_ms, commands = walk.entry(machine.next_deadline_ms())
        walk.read(step(machine, now_ms, []))
        for seq, command in commands:
            foretold = None
            check = machine.tickets.checks.get(type(command))
            if check is not None:
                before = list(map(cbor.encode, machine.dump()))
                foretold = check.refusal(command)
                assert list(map(cbor.encode, machine.dump())) == before
            (answer,) = [
                a.outcome
                for a in machine.apply(machine.index + 1, batch_of(now_ms, [(seq, command)]))
                if a.request.seq == seq
            ]
            walk.read([(seq, answer)])
            if foretold is not None:
                assert answer == foretold or isinstance(answer, Queued)
            elif check is not None:
                assert type(answer).__name__ in {
                    "TicketClaimed",
                    "TicketIssued",
                    "TicketReleased",
                    "TicketRevoked",
                }
