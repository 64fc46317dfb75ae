"""Semaphores, tickets and rooms: what is out, what is free, and who is where."""

from __future__ import annotations

from typing import Any

import pytest
from jepsen.checkers.rooms import Places
from jepsen.checkers.semaphores import Capacity
from jepsen.checkers.tickets import Claims

from tests.jepsen.story import Story

CAPACITY, CLAIMS, PLACES = Capacity(), Claims(), Places()


@pytest.fixture
def story() -> Story:
    """Sessions that live long."""
    story = Story()
    for name in ("a", "b", "c"):
        story.session(name, 60_000)
    return story


def take(story: Story, session: str, token: int, units: int = 1) -> None:
    """Units at once."""
    story.did(
        "semaphore.acquire", "s", {"session": session, "units": units}, token=token, units=units
    )


def look(story: Story, limit: int, free: int, *holders: tuple[str, int, int]) -> None:
    """A read of the semaphore."""
    shown = [{"session": s, "token": t, "units": u} for s, t, u in holders]
    held = sum(units for _, _, units in holders)
    story.did("semaphore.read", "s", limit=limit, held=held, free=free, holders=shown, waiters=[])


def test_units_up_to_the_limit_are_right(story: Story) -> None:
    """And what comes back may go out again."""
    story.did("semaphore.set", "s", {"limit": 3}, limit=3)
    take(story, "a", 5, 2)
    take(story, "b", 6)
    look(story, 3, 0, ("a", 5, 2), ("b", 6, 1))
    story.did("semaphore.release", "s", {"session": "a", "token": 5}, units=2)
    take(story, "c", 7, 2)
    assert CAPACITY.check(story.lines).passed


def test_one_unit_too_many_is_found(story: Story) -> None:
    """The counter-example has those who have them."""
    story.did("semaphore.set", "s", {"limit": 2}, limit=2)
    take(story, "a", 5, 2)
    take(story, "b", 6)
    verdict = CAPACITY.check(story.lines)
    assert verdict.valid is False
    assert [line.value.get("session") for line in verdict.counterexample][::2] == ["a", "b"]


def test_a_limit_that_sinks_takes_nothing_away(story: Story) -> None:
    """But nothing is granted above it any more."""
    story.did("semaphore.set", "s", {"limit": 2}, limit=2)
    take(story, "a", 5, 2)
    story.did("semaphore.set", "s", {"limit": 1}, limit=1)
    look(story, 1, 0, ("a", 5, 2))
    assert CAPACITY.check(story.lines).passed
    story.did("semaphore.release", "s", {"session": "a", "token": 5}, units=2)
    take(story, "b", 6)
    take(story, "c", 7)
    assert CAPACITY.check(story.lines).valid is False


@pytest.mark.parametrize(
    ("limit", "free", "told_held"), [(3, 2, 2), (3, 1, 1), (4, 2, 2)], ids=["free", "held", "limit"]
)
def test_a_read_that_does_not_add_up_is_found(
    story: Story, limit: int, free: int, told_held: int
) -> None:
    """Held and free make the limit, and holders make what is held."""
    story.did("semaphore.set", "s", {"limit": 3}, limit=3)
    take(story, "a", 5, 2)
    story.did(
        "semaphore.read",
        "s",
        limit=limit,
        held=told_held,
        free=free,
        holders=[{"session": "a", "token": 5, "units": 2}],
    )
    assert CAPACITY.check(story.lines).valid is False


def issue(story: Story, ticket: str, session: str = "a", data: str = "d", token: int = 2) -> None:
    """One is offered."""
    story.did(
        "ticket.issue",
        "r",
        {"session": session, "ticket": ticket, "data": data},
        token=token,
        created=True,
        claimant=None,
    )


def claim(story: Story, ticket: str, session: str, token: int, data: str = "d") -> None:
    """One is claimed."""
    story.did(
        "ticket.claim",
        "r",
        {"session": session},
        ticket=ticket,
        token=token,
        issuer="a",
        data=data,
    )


def test_a_ticket_goes_from_one_to_the_next(story: Story) -> None:
    """Issued, claimed, given back, claimed; and read."""
    issue(story, "t")
    claim(story, "t", "b", 5)
    listed = {"ticket": "t", "issuer": "a", "token": 2, "claimant": "b", "claim_token": 5}
    story.did("ticket.read", "r", tickets=[listed], ticket_count=1, free_count=0)
    story.did("ticket.release", "r", {"session": "b", "ticket": "t", "token": 5}, released=True)
    claim(story, "t", "c", 6)
    assert CLAIMS.check(story.lines).passed


def test_two_claimants_are_found(story: Story) -> None:
    """Nobody can have taken it from the first."""
    issue(story, "t")
    claim(story, "t", "b", 5)
    claim(story, "t", "c", 6)
    assert CLAIMS.check(story.lines).valid is False


def test_a_revoked_ticket_may_be_another_s_once_it_is_issued_again(story: Story) -> None:
    """The claim before is gone with the ticket."""
    issue(story, "t")
    claim(story, "t", "b", 5)
    story.did("ticket.revoke", "r", {"session": "a", "ticket": "t"}, revoked=True, claimant="b")
    issue(story, "t", token=6)
    claim(story, "t", "c", 7)
    assert CLAIMS.check(story.lines).passed


def test_a_claim_after_the_ticket_was_revoked_is_found(story: Story) -> None:
    """Nobody has issued it since."""
    issue(story, "t")
    story.did("ticket.revoke", "r", {"session": "a", "ticket": "t"}, revoked=True, claimant=None)
    claim(story, "t", "c", 7)
    assert CLAIMS.check(story.lines).valid is False


def test_a_ticket_that_nobody_issued_is_found(story: Story) -> None:
    """In a claim and in a list."""
    claim(story, "t", "b", 5)
    assert CLAIMS.check(story.lines).valid is False


def test_data_of_a_former_issue_are_found(story: Story) -> None:
    """They were replaced before the claim was asked for."""
    issue(story, "t", data="old")
    issue(story, "t", data="new")
    claim(story, "t", "b", 5, data="old")
    assert CLAIMS.check(story.lines).valid is False


@pytest.mark.parametrize(
    "read",
    [
        {"tickets": ["t", "t"], "ticket_count": 2, "free_count": 2},
        {"tickets": ["t"], "ticket_count": 1, "free_count": 0},
        {"tickets": ["u"], "ticket_count": 1, "free_count": 1},
        {"tickets": ["t"], "ticket_count": 1, "free_count": 1, "queue_length": 1},
    ],
    ids=["twice", "sum", "unissued", "waits for what is free"],
)
def test_a_list_of_tickets_that_cannot_be_is_found(story: Story, read: dict[str, Any]) -> None:
    """One line says it."""
    issue(story, "t")
    claim(story, "t", "b", 5)
    story.did("ticket.release", "r", {"session": "b", "ticket": "t", "token": 5}, released=True)
    listed = [{"ticket": name, "issuer": "a", "claimant": None} for name in read["tickets"]]
    story.did("ticket.read", "r", **{**read, "tickets": listed})
    verdict = CLAIMS.check(story.lines)
    assert verdict.valid is False
    assert len(verdict.counterexample) == 2


ROOM = {"window_size": 2, "window_interval_ms": 1_000, "active_windows": 2}


def join(story: Story, position: int, status: str = "waiting", ahead: int = 0) -> None:
    """A place."""
    story.did("room.join", "w", position=position, status=status, ahead=ahead)


def show(story: Story, position: int, status: str, ahead: int = 0) -> None:
    """A pass is shown."""
    story.did(
        "room.status", "w", {"position": position}, position=position, status=status, ahead=ahead
    )


def read_room(story: Story, waiting: int, active: int, expired: int, end: int) -> None:
    """Figures of the room."""
    story.did(
        "room.read",
        "w",
        joined=waiting + active + expired,
        waiting=waiting,
        active=active,
        expired=expired,
        window_end=end,
    )


def test_a_room_that_goes_on_is_right() -> None:
    """Places in order, a window that takes its time."""
    story = Story()
    story.did("room.set", "w", ROOM)
    join(story, 1, "active")
    join(story, 2, "active")
    join(story, 3, ahead=1)
    read_room(story, 1, 2, 0, 2)
    story.wait(1_000)
    show(story, 3, "active")
    read_room(story, 0, 3, 0, 4)
    assert PLACES.check(story.lines).passed


def bad_rooms() -> dict[str, Story]:
    """Every way for a room to be wrong."""
    stories = {}

    def new(name: str) -> Story:
        story = stories[name] = Story()
        story.did("room.set", "w", ROOM)
        return story

    story = new("a place twice")
    join(story, 1)
    join(story, 1)
    story = new("who comes later is before")
    join(story, 2)
    join(story, 1)
    story = new("active, and waiting again")
    join(story, 1, "active")
    show(story, 1, "waiting")
    story = new("more are ahead")
    join(story, 5, ahead=2)
    show(story, 5, "waiting", ahead=3)
    story = new("a pass of another place")
    join(story, 1)
    story.did("room.status", "w", {"position": 1}, position=2, status="waiting", ahead=0)
    story = new("figures do not add up")
    join(story, 1, "active")
    story.did("room.read", "w", joined=1, waiting=1, active=1, expired=0, window_end=2)
    story = new("one who joined is not counted")
    join(story, 1, "active")
    read_room(story, 0, 0, 0, 2)
    story = new("more than have asked")
    join(story, 1, "active")
    read_room(story, 0, 2, 0, 2)
    story = new("more are active than may be")
    for position in range(1, 6):
        join(story, position)
    read_room(story, 0, 5, 0, 6)
    story = new("the window goes back")
    join(story, 1, "active")
    read_room(story, 0, 1, 0, 4)
    read_room(story, 0, 1, 0, 2)
    story = new("two steps of the window at once")
    join(story, 1, "active")
    read_room(story, 0, 1, 0, 2)
    read_room(story, 0, 1, 0, 6)
    return stories


@pytest.mark.parametrize("name", list(bad_rooms()))
def test_a_room_that_is_wrong_is_found(name: str) -> None:
    """With few lines that show it."""
    verdict = PLACES.check(bad_rooms()[name].lines)
    assert verdict.valid is False, verdict
    assert 0 < len(verdict.counterexample) <= 4
