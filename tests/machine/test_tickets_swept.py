"""Sessions that are swept, and their tickets and locks, against a ticketd written down plainly.

A failing walk prints its number; `--seed N` shifts all walks to other ones.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from cluster.machine import ksuids
from cluster.machine.commands import CloseSession, Command, KeepAlive, OpenSession
from cluster.machine.commands.tickets import (
    ClaimTicket,
    IssueTicket,
    LockResource,
    ReleaseTicket,
    RevokeTicket,
    UnlockResource,
)
from cluster.machine.machine import Machine
from cluster.machine.outcome import (
    Closed,
    Opened,
    Outcome,
    Queued,
    Renewed,
    SessionExpired,
    SessionNotFound,
)
from cluster.machine.outcome.tickets import (
    NoTicketFree,
    NotIssuer,
    ResourceNotFound,
    TicketClaimed,
    TicketIssued,
    TicketNotFound,
    TicketRevoked,
    WrongKind,
)
from cluster.wire import cbor, snapshot
from tests.machine.drive import Drive

SWEEP_MS = 500
WALKS = range(25)
ENTRIES = 150
NAMES = ("a", "b")


def opening(ttl_ms: int, chance: int = 0) -> OpenSession:
    """As the front opens a session."""
    return OpenSession(
        "k", ttl_ms, sweep_ms=SWEEP_MS, ksuid=ksuids.seed_of(1_700_000_000, chance.to_bytes(8))
    )


def opened(drive: Drive, ttl_ms: int = 100_000) -> str:
    """A swept session."""
    outcome = drive.one(opening(ttl_ms))
    assert isinstance(outcome, Opened)
    return outcome.session


# Sessions.


def test_a_ksuid_tells_its_token() -> None:
    """27 letters and digits, in order of time, then of tokens; what is none has no token."""
    ids = [ksuids.made(ksuids.seed_of(1_700_000_000, bytes(8)), token) for token in (1, 2, 2**62)]
    assert ids == sorted(ids)
    assert [len(id) for id in ids] == [27, 27, 27]
    assert [ksuids.token_of(id) for id in ids] == [1, 2, 2**62]
    assert ksuids.made(b"\xff" * 12, 2**64 - 1) == "aWgEPTl1tmebfsQzFP4bxwgy80V"
    assert [ksuids.token_of(id) for id in ("", "z" * 27, "0" * 26, "ä" * 27, "-" * 27)] == [0] * 5


def test_an_ended_session_with_a_ksuid_is_known_to_have_been() -> None:
    """Its id tells, and a list goes on behind it."""
    drive = Drive()
    first, second = opened(drive), opened(drive)
    assert [s.session for s in drive.machine.sessions.list(0, after=first)] == [second]
    drive.one(CloseSession(first))
    assert drive.one(KeepAlive(first)) == SessionExpired(first)
    assert [s.session for s in drive.machine.sessions.list(0, after=first)] == [second]


def test_a_session_of_another_cluster_keeps_its_id() -> None:
    """Taken over twice it is there once; it is found, listed, kept in snapshots, and ends."""
    drive = Drive()
    id = "0ujtsYcgvSTl8PAuAdqWYSMnLOv"
    whole = ksuids.bytes_of(id)
    assert whole is not None
    assert whole.hex() == "0669f7efb5a1cd34b5f99d1154fb6853345c9735"
    take = OpenSession("k", 600, sweep_ms=SWEEP_MS, ksuid=whole)
    assert drive.one(take) == drive.one(take) == Opened(id, 600, 1)
    after = opened(drive)
    drive.machine = Machine.load(snapshot.decode(snapshot.encode(drive.machine.dump())))
    assert [s.session for s in drive.machine.sessions.list(0, after=id)] == [after]
    assert drive.one(KeepAlive(id)) == Renewed(id, 1000)
    drive.at(1000)
    assert drive.one(KeepAlive(id)) == SessionNotFound(id)


def test_a_swept_session_ends_at_the_first_sweep_at_or_after_its_deadline() -> None:
    """Its TTL is a floor: renewed late, it lives on."""
    drive = Drive()
    session = opened(drive, 600)
    assert drive.machine.next_deadline_ms() == 1000
    assert drive.one(KeepAlive(session), now_ms=999) == Renewed(session, 1001)
    assert drive.machine.next_deadline_ms() == 2000
    assert drive.one(KeepAlive(session), now_ms=1400) == Renewed(session, 600)
    drive.at(2000)
    assert drive.machine.sessions.get(session) is None


# What native clients see of it.


def test_a_lock_of_ticketds_is_no_ticket_to_be_had() -> None:
    """Claims and issues are refused as of the wrong kind; it is listed with its one ticket."""
    drive = Drive()
    holder, (native,) = opened(drive), drive.open(100_000)
    drive.one(LockResource(holder, "l"))
    assert drive.one(ClaimTicket(native, "l", wait_ms=50)) == WrongKind("l", True)
    assert drive.one(IssueTicket(native, "l", "t")) == WrongKind("l", True)
    info = drive.machine.tickets.info("l", 0)
    assert info is not None
    assert [(ticket.ticket, ticket.issuer) for ticket in info.tickets] == [("l", holder)]


def test_a_resource_that_somebody_waits_for_is_no_lock() -> None:
    """It has been asked for tickets."""
    drive = Drive()
    holder, (native,) = opened(drive), drive.open(100_000)
    assert isinstance(drive.one(ClaimTicket(native, "r", wait_ms=50)), Queued)
    assert drive.one(LockResource(holder, "r")) == WrongKind("r", False)


def test_one_who_waits_is_not_given_what_is_nobodys() -> None:
    """The claimant of an orphan gives it back to nobody; taken over, it is given on."""
    drive = Drive()
    issuer, claimant, (native,) = opened(drive), opened(drive), drive.open(100_000)
    drive.one(IssueTicket(issuer, "r", "t"))
    drive.one(ClaimTicket(claimant, "r"))
    drive.one(CloseSession(issuer))
    waits = ClaimTicket(native, "r", wait_ms=5_000)
    assert isinstance(drive.one(waits), Queued)
    drive.one(ReleaseTicket(claimant, "r", "t"))
    assert isinstance(drive.one(waits), Queued)
    drive.ask(IssueTicket(claimant, "r", "t"))
    granted = [outcome for *_, outcome in drive.told if isinstance(outcome, TicketClaimed)]
    assert {outcome.session for outcome in granted} == {native}


def test_what_nobody_could_claim_is_not_free() -> None:
    """Neither a lock's one ticket, nor one that waits for the sweep."""
    drive = Drive()
    holder, issuer = opened(drive), opened(drive)
    drive.ask(
        LockResource(holder, "l"), IssueTicket(issuer, "r", "t"), IssueTicket(holder, "r", "u")
    )
    drive.one(CloseSession(issuer))
    pictures = drive.machine.tickets.list(0)
    assert [(len(picture.tickets), picture.free) for picture in pictures] == [(1, 0), (2, 1)]


def test_without_a_sweep_everything_goes_at_once() -> None:
    """A native session's lock and tickets leave nothing behind."""
    drive = Drive()
    (native,) = drive.open(100_000)
    assert isinstance(drive.one(LockResource(native, "l")), TicketIssued)
    assert isinstance(drive.one(UnlockResource(native, "l")), TicketRevoked)
    assert drive.one(UnlockResource(native, "l")) == ResourceNotFound("l")
    drive.one(LockResource(native, "l"))
    drive.one(CloseSession(native))
    assert drive.machine.tickets.info("l", 0) is None


def test_a_sweep_tells_of_tickets_in_their_order_after_a_load_too() -> None:
    """Whichever of their issuers was closed first: watchers are told the same by every node."""
    drive = Drive()
    first, second = opened(drive), opened(drive)
    drive.ask(IssueTicket(first, "r", "a"), IssueTicket(second, "r", "b"))
    (native,) = drive.open(100_000)
    drive.ask(ClaimTicket(native, "r", ticket="a"), ClaimTicket(native, "r", ticket="b"))
    drive.ask(CloseSession(second), CloseSession(first))
    for one in (Drive(Machine.load(drive.machine.dump())), drive):
        one.at(SWEEP_MS)
        ((_, events),) = one.machine.history.after(one.machine.index - 1)
        assert [dict(event.more)["ticket"] for event in events] == ["a", "b"]


# The walk.


@dataclass
class PlainTicket:
    """A ticket of the plain ticketd; `claim` is (session, when in order)."""

    issuer: str | None
    data: bytes
    order: int
    claim: tuple[str, int] | None = None


@dataclass
class PlainResource:
    is_lock: bool
    tickets: dict[str, PlainTicket] = field(default_factory=dict)


@dataclass
class Plain:
    """ticketd, as its specification reads; every answer is a word."""

    now_ms: int = 0
    count: int = 0
    sessions: dict[str, tuple[int, int]] = field(default_factory=dict)
    resources: dict[str, PlainResource] = field(default_factory=dict)

    def until(self, now_ms: int) -> None:
        """Let all sweeps pass up to a time."""
        for at_ms in range((self.now_ms // SWEEP_MS + 1) * SWEEP_MS, now_ms + 1, SWEEP_MS):
            for id in [id for id, (_, due_ms) in self.sessions.items() if due_ms <= at_ms]:
                self.clear(id)
            for name, resource in list(self.resources.items()):
                for each in [t for t, ticket in resource.tickets.items() if ticket.issuer is None]:
                    del resource.tickets[each]
                if not resource.tickets:
                    del self.resources[name]
        self.now_ms = max(self.now_ms, now_ms)

    def clear(self, id: str) -> None:
        """A session is over."""
        del self.sessions[id]
        for resource in self.resources.values():
            for ticket in resource.tickets.values():
                if ticket.claim is not None and ticket.claim[0] == id:
                    ticket.claim = None
                if ticket.issuer == id:
                    ticket.issuer = None

    def refresh(self, id: str) -> None:
        ttl_ms, _ = self.sessions[id]
        self.sessions[id] = (ttl_ms, self.now_ms + ttl_ms)

    def answer(self, command: Command) -> str:
        """What a command is told."""
        self.count += 1
        assert isinstance(
            command,
            KeepAlive
            | CloseSession
            | IssueTicket
            | RevokeTicket
            | ClaimTicket
            | ReleaseTicket
            | LockResource
            | UnlockResource,
        )
        id = command.session
        if id not in self.sessions:
            return "gone"
        if isinstance(command, KeepAlive):
            self.refresh(id)
            return "ok"
        if isinstance(command, CloseSession):
            self.clear(id)
            return "ok"
        resource = self.resources.get(command.name)
        if isinstance(command, IssueTicket):
            return self.issue(command, resource)
        if isinstance(command, LockResource):
            return self.lock(command, resource)
        if isinstance(command, ClaimTicket):
            return "none" if resource is None else self.claim(id, resource)
        if resource is None:
            return "unknown resource"
        if isinstance(command, RevokeTicket):
            return "ok" if resource.tickets.pop(command.ticket, None) else "unknown ticket"
        if isinstance(command, ReleaseTicket):
            ticket = resource.tickets.get(command.ticket)
            if ticket is not None and ticket.claim is not None and ticket.claim[0] == id:
                ticket.claim = None
            return "ok"
        if not resource.is_lock:
            return "wrong kind"
        ticket = resource.tickets.get(command.name)
        if ticket is None or ticket.issuer is None:
            return "unknown ticket"
        if ticket.issuer != id:
            return "another's"
        del resource.tickets[command.name]
        return "ok"

    def issue(self, command: IssueTicket, resource: PlainResource | None) -> str:
        if resource is not None and resource.is_lock:
            return "wrong kind"
        self.refresh(command.session)
        resource = self.resources.setdefault(command.name, PlainResource(False))
        ticket = resource.tickets.setdefault(command.ticket, PlainTicket(None, b"", self.count))
        ticket.issuer, ticket.data = command.session, command.data or b""
        return "ok"

    def lock(self, command: LockResource, resource: PlainResource | None) -> str:
        if resource is not None and not resource.is_lock:
            return "wrong kind"
        resource = self.resources.setdefault(command.name, PlainResource(True))
        ticket = resource.tickets.setdefault(command.name, PlainTicket(None, b"", self.count))
        if ticket.issuer not in {None, command.session}:
            return "none"
        ticket.issuer = command.session
        return "ok"

    def claim(self, id: str, resource: PlainResource) -> str:
        """Its own first, the one held longest; else the free one that was issued first."""
        if resource.is_lock:
            return "wrong kind"
        good = [(name, ticket) for name, ticket in resource.tickets.items() if ticket.issuer]
        own = [(t.claim[1], name) for name, t in good if t.claim and t.claim[0] == id]
        free = [(ticket.order, name) for name, ticket in good if ticket.claim is None]
        if own:
            return min(own)[1]
        if not free:
            return "none"
        resource.tickets[min(free)[1]].claim = (id, self.count)
        return min(free)[1]


def word(command: Command, outcome: Outcome) -> str:
    """What an outcome says, as the plain ticketd says it."""
    if isinstance(outcome, SessionExpired):
        return "gone"
    if isinstance(outcome, WrongKind):
        return "wrong kind"
    if isinstance(outcome, NoTicketFree):
        return "none"
    if isinstance(outcome, TicketClaimed):
        return outcome.ticket
    if isinstance(outcome, ResourceNotFound):
        return "unknown resource"
    if isinstance(command, ReleaseTicket):
        return "ok"
    if isinstance(outcome, TicketNotFound):
        return "unknown ticket"
    if isinstance(outcome, NotIssuer):
        return "another's"
    assert isinstance(outcome, (Closed, Renewed, TicketIssued, TicketRevoked)), outcome
    return "ok"


def any_command(rng: random.Random, sessions: list[str]) -> Command:
    """Something about tickets or locks, mostly of those that live."""
    id, name, ticket = rng.choice(sessions), rng.choice(NAMES), rng.choice(("t", "u", *NAMES))
    made: list[Command] = [
        KeepAlive(id),
        CloseSession(id),
        IssueTicket(id, name, ticket, rng.choice((b"", b"x")), refresh=True),
        IssueTicket(id, name, ticket, b"y", refresh=True),
        RevokeTicket(id, name, ticket, anybody=True),
        ClaimTicket(id, name),
        ClaimTicket(id, name),
        ReleaseTicket(id, name, ticket),
        LockResource(id, name),
        UnlockResource(id, name),
    ]
    return rng.choices(made, (1, 1, 3, 3, 2, 3, 3, 2, 2, 2))[0]


@pytest.mark.parametrize("number", WALKS)
def test_swept_tickets_do_what_ticketd_does(number: int, seed: int) -> None:
    """Every answer and all state, loaded from snapshots on the way."""
    rng = random.Random(seed * 10_000 + number)
    drive, plain = Drive(), Plain()
    sessions: list[str] = []
    now_ms = 0
    for _ in range(ENTRIES):
        now_ms += rng.choice((0, 0, 0, 1, 50, 250, 499, 500))
        plain.until(now_ms)
        # Every deadline has its entry, as in a cluster.
        while (due_ms := drive.machine.next_deadline_ms()) is not None and due_ms <= now_ms:
            drive.at(due_ms)
        if rng.random() < 0.05 or len(sessions) < 4:
            ttl_ms = rng.choice((1, 900, 5_000, 20_000))
            made = drive.one(opening(ttl_ms, drive.machine.index), now_ms=now_ms)
            assert isinstance(made, Opened)
            plain.sessions[made.session] = (ttl_ms, now_ms + ttl_ms)
            sessions = [*sessions[-5:], made.session]
        command = any_command(rng, sessions)
        told = word(command, drive.one(command, now_ms=now_ms))
        assert told == plain.answer(command), command
        if told == "gone":
            sessions = [id for id in sessions if id in plain.sessions]
        if rng.random() < 0.05:
            before = list(map(cbor.encode, drive.machine.dump()))
            drive.machine = Machine.load(snapshot.decode(snapshot.encode(drive.machine.dump())))
            assert list(map(cbor.encode, drive.machine.dump())) == before
        assert state_of(drive.machine) == {
            name: (
                resource.is_lock,
                {
                    each: (t.issuer, t.claim and t.claim[0], t.data)
                    for each, t in resource.tickets.items()
                },
            )
            for name, resource in plain.resources.items()
        }
        assert {session.id for session in drive.machine.sessions} == set(plain.sessions)


def state_of(machine: Machine) -> dict[str, object]:
    """All resources, as one compares them."""
    return {
        name: (
            resource.is_lock,
            {
                each: (
                    None if t.is_orphan else t.issuer,
                    t.claim and t.claim.session,
                    t.data,
                )
                for each, t in resource.tickets.items()
            },
        )
        for name, resource in machine.tickets.resources
    }
