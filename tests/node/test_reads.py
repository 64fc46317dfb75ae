"""Reads: new, asked, confirmed, served; given up when late, and told once."""

from __future__ import annotations

from cluster.errors import NoLeader
from cluster.node.pending import Answered, Failed, Reply
from cluster.node.reads import ASKED_AGAIN_AFTER_S, Reads


def taken(reads: Reads, *, deadline: float = 10.0) -> list[Reply]:
    """Take one read; what it is told."""
    told: list[Reply] = []
    reads.add(told.append, deadline)
    return told


def test_a_read_is_served_once_its_position_is_applied() -> None:
    """Not before, and not twice."""
    reads = Reads()
    told = taken(reads)
    reads.confirm(reads.take_new(), 7)
    reads.serve(6)
    assert (told, reads.has_new, reads.has_confirmed) == ([], False, True)
    reads.serve(8)
    reads.serve(9)
    assert told == [Answered(None, 8)]
    assert not reads.has_confirmed


def test_who_does_not_lead_confirms_nothing() -> None:
    """The read is new again: somebody else must be asked."""
    reads = Reads()
    told = taken(reads)
    reads.confirm(reads.take_new(), None)
    assert reads.has_new and told == []


def test_a_lost_question_is_asked_again_by_its_own_age() -> None:
    """A younger one that is under way is left alone; an answer to the old one finds nobody."""
    reads = Reads()
    old = taken(reads)
    reads.ask(1, reads.take_new(), 5.0)
    young = taken(reads)
    reads.ask(2, reads.take_new(), 5.2)
    reads.sweep(5.0 + ASKED_AGAIN_AFTER_S, None)
    reads.answer(1, 3)
    reads.answer(2, 3)
    reads.serve(3)
    assert (old, young) == ([], [Answered(None, 3)])
    assert reads.has_new


def test_a_late_read_is_told_wherever_it_stands() -> None:
    """New, asked or confirmed: it surely changed nothing, so the error is definite."""
    reads = Reads()
    confirmed = taken(reads, deadline=1.0)
    reads.confirm(reads.take_new(), 99)
    asked = taken(reads, deadline=1.0)
    reads.ask(1, reads.take_new(), 0.9)
    new = taken(reads, deadline=1.0)
    reads.sweep(1.0, None)
    reads.sweep(2.0, None)
    for told in (confirmed, asked, new):
        (reply,) = told
        assert isinstance(reply, Failed) and reply.error.definite


def test_without_a_leader_all_hear_why() -> None:
    """The error that the node gives is what each is told."""
    reads = Reads()
    told = taken(reads)
    error = NoLeader("nobody leads")
    reads.sweep(1.0, error)
    assert told == [Failed(error)]


def test_closing_tells_everybody() -> None:
    """Nobody waits for a node that has gone."""
    reads = Reads()
    first = taken(reads)
    reads.ask(1, reads.take_new(), 0.0)
    second = taken(reads)
    reads.close()
    assert [type(told[0]) for told in (first, second)] == [Failed, Failed]
    assert not reads.has_new
