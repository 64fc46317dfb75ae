"""One exception per code, kept equal to the table of the nodes."""

from __future__ import annotations

import msgspec
import pytest

from cluster import errors
from cluster.client import refusals
from cluster.client.core import error_of
from cluster.gateway.replies import fifos, jobs, locks, rooms, semaphores, several, tasks, tickets
from cluster.gateway.replies.base import REASONS
from cluster.gateway.replies.kinds import KINDS

# A node says it of a peer it lost; at the client it is the same thing.
BY_THEIR_OWN_CLASS = {
    "no_leader": errors.NoLeader,
    "overloaded": errors.Overloaded,
    "shutting_down": errors.ShuttingDown,
    "timeout": errors.Timeout,
    "connection_lost": errors.ConnectionLost,
}


def reasons() -> dict[str, type[msgspec.Struct]]:
    """What nodes add to each code."""
    found = dict(REASONS)
    for room in (locks, semaphores, tickets, fifos, rooms, jobs, tasks, several):
        found |= room.REASONS
    return found


def test_every_code_has_an_exception_and_every_exception_a_code() -> None:
    """Neither side may grow alone."""
    assert {*refusals.REFUSALS, *refusals.FAILURES, *BY_THEIR_OWN_CLASS} == set(KINDS)


@pytest.mark.parametrize("code", sorted(KINDS))
def test_a_code_is_raised_as_its_class(code: str) -> None:
    """With the family that its table says, and what may be tried again."""
    kind = KINDS[code]
    document = {"code": code, "detail": "d", "definite": kind.definite, "retryable": kind.retryable}
    error = error_of(kind.status, document, "http://a:1")
    known = {**refusals.REFUSALS, **refusals.FAILURES, **BY_THEIR_OWN_CLASS}
    assert type(error) is known[code]
    assert (error.code, error.definite, error.retryable) == (code, kind.definite, kind.retryable)
    family = errors.Definite if kind.definite else errors.Indefinite
    assert isinstance(error, family)


@pytest.mark.parametrize("code", sorted(reasons()))
def test_the_reason_is_attributes(code: str) -> None:
    """Every member that nodes send has its attribute, and none is made up."""
    members = reasons()[code].__struct_fields__
    assert set(refusals.REFUSALS[code].words) == set(members)
    document = {"code": code, "detail": "d", "definite": True}
    error = error_of(KINDS[code].status, document | dict.fromkeys(members, 7), "http://a:1")
    assert isinstance(error, errors.Refused)
    assert {member: getattr(error, member) for member in members} == error.reason


def test_an_older_node_may_leave_members_out() -> None:
    """They are None, and the code still counts."""
    error = error_of(409, {"code": "lock_held", "detail": "d"}, "http://a:1")
    assert isinstance(error, refusals.LockHeld)
    assert (error.holder, error.position, error.blocked) == (None, None, None)


def test_a_code_of_a_newer_node_is_a_plain_refusal() -> None:
    """With its reason as it came."""
    error = error_of(409, {"code": "moon_full", "detail": "d", "phase": 4}, "http://a:1")
    assert type(error) is errors.Refused
    assert error.reason == {"phase": 4}
