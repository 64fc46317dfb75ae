"""The books of several locks and of batches find planted bugs, each within a few seeds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from cluster.machine import several
from cluster.machine.commands.several import Several
from cluster.machine.locks import book as lockbook
from cluster.machine.locks import locks, multilocks
from cluster.machine.locks.book import Lock, LockBook, MultiPlace, Wants
from cluster.machine.locks.multilocks import MultiLocks
from cluster.machine.outcome.locks import GrantedMany
from cluster.machine.sessions import Session
from tests.simulation.report import Job, run_job

SEEDS = range(12)
Plant = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The library logs each of its troubles; here they are the subject."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def those_who_wait_for_several_are_overtaken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a lock is free, whoever comes gets it."""

    def blind(lock: Lock, priority: int, arrival: int) -> int:
        queue = [place for place in lock.queue if not isinstance(place[2], MultiPlace)]
        return sum(place[:2] < (priority, arrival) for place in queue)

    rank_of = lockbook.rank_of
    monkeypatch.setattr(locks, "rank_of", lambda *of: min(blind(*of), rank_of(*of)))


def a_held_lock_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several locks are given to whoever is first in all queues."""
    monkeypatch.setattr(multilocks, "_fits", lambda lock, session, shared: True)


def the_last_one_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """All but one of the locks are given."""
    grant = MultiLocks._grant

    def most(self: MultiLocks, session: Session, wants: Wants) -> GrantedMany:
        given = grant(self, session, wants[:-1] or wants)
        _, token, shared = given.locks[-1]
        rest = tuple((other, token, shared) for other, _ in wants[len(given.locks) :])
        return GrantedMany((*given.locks, *rest), session.id)

    monkeypatch.setattr(MultiLocks, "_grant", most)


def the_dead_keep_their_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that ends takes its first lock along only."""
    take = LockBook.take

    def forgetful(self: LockBook, name: str, token: int) -> None:
        if name != "sim-west":
            take(self, name, token)

    monkeypatch.setattr(LockBook, "take", forgetful)


def nothing_is_looked_at_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    """All or nothing is carried out like any batch."""
    monkeypatch.setattr(several.Batches, "_refused", lambda self, command: None)


def only_the_first_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others may be refused when it is too late."""
    refused = several.Batches._refused

    def hasty(self: several.Batches, command: Several) -> object:
        return refused(self, Several(command.commands[:1], atomic=True))

    monkeypatch.setattr(several.Batches, "_refused", hasty)


@pytest.mark.parametrize(
    ("plant", "workload", "laws"),
    [
        (those_who_wait_for_several_are_overtaken, "multilocks", {"no barging"}),
        (a_held_lock_is_no_obstacle, "multilocks", {"mutual exclusion"}),
        (the_last_one_is_left_out, "multilocks", {"all or none"}),
        (the_dead_keep_their_locks, "multilocks", {"a session takes all along", "locks"}),
        (nothing_is_looked_at_beforehand, "batch", {"all or none"}),
        (only_the_first_is_looked_at, "batch", {"all or none"}),
    ],
)
def test_a_planted_bug_is_found(
    plant: Plant, workload: str, laws: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the law that it breaks."""
    plant(monkeypatch)
    found = set()
    for seed in SEEDS:
        result = run_job(Job(seed, seconds=12.0, workload=workload))
        if result.invariant is not None:
            found.add(result.invariant)
            if found & laws:
                return
    pytest.fail(f"found {found or 'nothing'} in seeds {SEEDS}")


def test_two_places_of_one_session_are_no_barging() -> None:
    """One for several locks, before others, and one for one of them behind: told of at both."""
    result = run_job(Job(30110, workload="multilocks"))
    assert result.invariant is None, result.detail
    assert result.counts["multilocks: granted several"] > 0
