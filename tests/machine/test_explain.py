"""Explanations: who is in the way, and deadlocks that are certain, or only possible."""

from __future__ import annotations

import random

import pytest

from cluster.machine import explain as module
from cluster.machine.commands import AcquireLock, AcquireLocks
from cluster.machine.commands.semaphores import AcquireSemaphore, SetSemaphore
from cluster.machine.commands.tickets import ClaimTicket
from cluster.machine.explain import Circle, Edge, Explanation, explain
from cluster.machine.machine import Machine
from cluster.machine.outcome import LockHeld
from cluster.machine.outcome.semaphores import SemaphoreFull
from cluster.machine.outcome.tickets import NoTicketFree
from cluster.wire import cbor
from tests.machine.all_walk import AllWalk
from tests.machine.drive import Drive


def told(drive: Drive, session: str, about: tuple[str, str] | None = None) -> Explanation:
    """What is said about a session."""
    found = explain(drive.machine.core, session, drive.machine.now_ms, about)
    assert found is not None
    return found


def hold_and_wait(drive: Drive, *steps: tuple[str, str, str]) -> None:
    """Have each (session, lock held, lock wanted) hold the one and wait for the other."""
    for session, held, _ in steps:
        drive.one(AcquireLock(session, held))
    for session, _, wanted in steps:
        drive.one(AcquireLock(session, wanted, wait_ms=9000))


def test_a_session_that_is_not_there_has_no_explanation() -> None:
    """And one that waits for nothing an empty one."""
    drive = Drive()
    (ann,) = drive.open(9000)
    assert explain(drive.machine.core, "9-no", 0) is None
    assert told(drive, ann) == Explanation((), None, 1, True)


def test_a_circle_of_locks_is_certain() -> None:
    """However long, told by any of its members, and by one who waits for them."""
    drive = Drive()
    ann, bob, cid, dan = drive.open(9999, 9999, 9999, 9999)
    hold_and_wait(drive, (ann, "a", "b"), (bob, "b", "c"), (cid, "c", "a"))
    circle = told(drive, bob).circle
    assert circle == Circle(
        True,
        (
            Edge(bob, "lock", "c", cid),
            Edge(cid, "lock", "a", ann),
            Edge(ann, "lock", "b", bob),
        ),
    )
    drive.one(AcquireLock(dan, "a", wait_ms=9000))
    found = told(drive, dan).circle
    assert found is not None
    assert found.is_certain
    assert dan not in [edge.session for edge in found.edges]


def test_a_chain_is_no_circle() -> None:
    """The last one may go on."""
    drive = Drive()
    ann, bob, cid = drive.open(9999, 9999, 9999)
    hold_and_wait(drive, (ann, "a", "b"), (bob, "b", "c"))
    drive.one(AcquireLock(cid, "d"))
    assert told(drive, ann).circle is None


def test_one_of_two_sharers_in_the_circle_is_enough() -> None:
    """Who wants the lock alone needs both of them to go."""
    drive = Drive()
    ann, bob, cid = drive.open(9999, 9999, 9999)
    drive.one(AcquireLock(ann, "a"))
    drive.one(AcquireLock(bob, "s", shared=True))
    drive.one(AcquireLock(cid, "s", shared=True))
    drive.one(AcquireLock(ann, "s", wait_ms=9000))
    assert told(drive, ann).circle is None
    drive.one(AcquireLock(bob, "a", wait_ms=9000))
    circle = told(drive, ann).circle
    assert circle is not None
    assert circle.is_certain


def test_units_may_come_from_any_holder() -> None:
    """So a circle over a semaphore is certain only when all its holders are in it."""
    drive = Drive()
    ann, bob, cid = drive.open(9999, 9999, 9999)
    drive.one(SetSemaphore("s", 2))
    drive.ask(AcquireSemaphore(bob, "s"), AcquireSemaphore(cid, "s"), AcquireLock(ann, "a"))
    drive.one(AcquireSemaphore(ann, "s", wait_ms=9000))
    drive.one(AcquireLock(bob, "a", wait_ms=9000))
    circle = told(drive, ann).circle
    assert circle is not None
    assert not circle.is_certain
    drive.one(AcquireLock(cid, "a", wait_ms=9000))
    circle = told(drive, ann).circle
    assert circle is not None
    assert circle.is_certain


def test_who_waits_for_several_locks_needs_all_of_them() -> None:
    """One of them in the circle is enough, though the other one will be free."""
    drive = Drive()
    ann, bob, cid = drive.open(9999, 9999, 9999)
    drive.one(AcquireLock(ann, "a"))
    drive.one(AcquireLock(bob, "b"))
    drive.one(AcquireLock(cid, "c"))
    drive.one(AcquireLocks(ann, (("b", False), ("c", False)), wait_ms=9000))
    assert told(drive, ann).circle is None
    assert [want.name for want in told(drive, ann).wants] == ["b", "c"]
    drive.one(AcquireLock(bob, "a", wait_ms=9000))
    circle = told(drive, ann).circle
    assert circle == Circle(True, (Edge(ann, "lock", "b", bob), Edge(bob, "lock", "a", ann)))


def test_who_waits_for_two_things_apart_may_go_on_with_either() -> None:
    """Another thread of the session may free what is wanted: that is no certain deadlock."""
    drive = Drive()
    ann, bob, cid = drive.open(9999, 9999, 9999)
    hold_and_wait(drive, (ann, "a", "b"), (bob, "b", "a"))
    drive.one(AcquireLock(cid, "c"))
    drive.one(AcquireLock(ann, "c", wait_ms=9000))
    circle = told(drive, ann).circle
    assert circle is not None
    assert not circle.is_certain


def test_locks_held_already_are_not_in_the_way() -> None:
    """They count as granted, whoever waits for them."""
    drive = Drive()
    ann, bob = drive.open(9999, 9999)
    drive.ask(AcquireLock(ann, "a"), AcquireLock(bob, "b"))
    drive.one(AcquireLock(bob, "a", wait_ms=9000))
    drive.one(AcquireLocks(ann, (("a", False), ("b", False)), wait_ms=9000))
    wants = {want.name: want for want in told(drive, ann).wants}
    assert wants["a"].obstacles == ()
    assert [each.blocker.session for each in wants["b"].obstacles] == [bob]


def test_the_end_of_the_leases_in_the_way_is_told() -> None:
    """The latest of the holders', if nobody renews."""
    drive = Drive()
    ann, bob, cid = drive.open(500, 800, 9999)
    drive.ask(AcquireLock(ann, "a", shared=True), AcquireLock(bob, "a", shared=True))
    drive.one(AcquireLock(cid, "a", wait_ms=300), now_ms=100)
    (want,) = told(drive, cid).wants
    assert (want.free_in_ms, want.ends_in_ms, want.position) == (700, 300, 1)
    assert [each.expires_in_ms for each in want.obstacles] == [400, 700]


def test_a_long_queue_is_counted_to_its_end() -> None:
    """The position is the one that a refusal tells, however few of those before are shown."""
    drive = Drive()
    ann, bob, *others = drive.open(*[9999] * 152)
    drive.ask(AcquireLock(ann, "a"), AcquireLock(bob, "a", priority=1, wait_ms=9000))
    drive.ask(*(AcquireLock(other, "a", wait_ms=9000) for other in others[1:]))
    refusal = drive.one(AcquireLock(others[0], "a"))
    (want,) = told(drive, others[0], ("lock", "a")).wants
    assert isinstance(refusal, LockHeld)
    assert want.position == refusal.position == 150
    assert (len(want.obstacles), want.shown_all, want.free_in_ms) == (100, False, 9999)


def test_the_end_of_more_holders_than_are_shown_is_not_told() -> None:
    """The latest of them may be any."""
    drive = Drive()
    sessions = drive.open(*[9999] * 102)
    drive.ask(*(AcquireLock(session, "a", shared=True) for session in sessions[1:]))
    (want,) = told(drive, sessions[0], ("lock", "a")).wants
    assert (want.position, want.shown_all, want.free_in_ms) == (1, False, None)


@pytest.mark.parametrize("number", range(8))
def test_who_would_be_refused_is_told_why_and_who_would_not_that_nobody_is_in_the_way(
    number: int, seed: int
) -> None:
    """Whoever asks without waiting for it is told at the place where it is told to stand."""
    walk, machine = AllWalk(random.Random(seed * 1000 + number)), Machine()
    for index in range(1, 121):
        walk.pass_time(machine)
        walk.read(machine.apply(index, walk.batch(machine)))
        if index % 10:
            continue
        things = [("lock", AcquireLock, name) for name, _ in machine.locks]
        things += [("semaphore", AcquireSemaphore, name) for name, _ in machine.semaphores]
        things += [("ticket", ClaimTicket, name) for name, _ in machine.tickets]
        for session in machine.sessions:
            waits = {wait[:2] for wait in machine.sessions.info(session.id, 0).waits}
            for kind, ask, name in things:
                if (kind, name) in waits:
                    continue
                refusal = machine.checks[ask].refusal(ask(session.id, name))
                found = explain(machine.core, session.id, machine.now_ms, (kind, name))
                assert found is not None
                (want,) = found.wants
                if refusal is None:
                    assert want.obstacles == ()
                elif isinstance(refusal, LockHeld | SemaphoreFull | NoTicketFree):
                    # Nobody is in the way where there is nothing to be had.
                    assert want.obstacles or (refusal.holder, refusal.position) == (None, 1)
                    assert want.holds or want.position == refusal.position


@pytest.mark.parametrize(("bound", "most"), [("SESSIONS_MAX", 2), ("STEPS_MAX", 3)])
def test_bounds_hide_and_say_so(bound: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A circle beyond a bound is not found, and nothing is claimed."""
    drive = Drive()
    ann, bob, cid = drive.open(9999, 9999, 9999)
    hold_and_wait(drive, (ann, "a", "b"), (bob, "b", "c"), (cid, "c", "a"))
    monkeypatch.setattr(module, bound, most)
    found = told(drive, ann)
    assert not found.is_complete
    assert found.circle is None or not found.circle.is_certain


@pytest.mark.parametrize("number", range(12))
def test_whatever_happens_can_be_explained_and_changes_nothing(number: int, seed: int) -> None:
    """Every session of a machine that everything is asked of, with what it waits for and does not.

    A certain circle is one indeed: each of its members waits, and the next one is in its way.
    """
    walk, machine = AllWalk(random.Random(seed * 1000 + number)), Machine()
    for index in range(1, 121):
        walk.pass_time(machine)
        walk.read(machine.apply(index, walk.batch(machine)))
        if index % 10:
            continue
        before = machine.full_digest(cbor.encode)
        for info in machine.sessions.list(machine.now_ms):
            for about in (None, ("lock", "door"), ("ticket", "r"), ("tube", "mail"), ("fifo", "f")):
                found = explain(machine.core, info.session, machine.now_ms, about)
                assert found is not None
                assert found.is_complete
            found = explain(machine.core, info.session, machine.now_ms)
            assert found is not None
            waits = {(kind, name): position for kind, name, position in info.waits}
            assert {(want.kind, want.name): want.position for want in found.wants} == waits
            if found.circle is not None and found.circle.is_certain:
                edges = found.circle.edges
                for edge, following in zip(edges, (*edges[1:], edges[0]), strict=True):
                    assert edge.blocked_by == following.session
                    owner = machine.sessions.info(edge.session, machine.now_ms)
                    assert owner is not None
                    assert (edge.kind, edge.name) in {wait[:2] for wait in owner.waits}
        assert machine.full_digest(cbor.encode) == before
