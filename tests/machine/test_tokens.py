"""Tokens: strictly rising, and never behind the log."""

from __future__ import annotations

from cluster.machine.tokens import Tokens


def test_rises_within_an_entry() -> None:
    """Two grants in one entry have two tokens."""
    tokens = Tokens(index=5)
    assert [tokens.next(), tokens.next(), tokens.next()] == [5, 6, 7]


def test_is_never_behind_the_log() -> None:
    """The first token of a later entry is at least the entry's index."""
    tokens = Tokens(last=7)
    tokens.index = 6
    assert tokens.next() == 8
    tokens.index = 100
    assert tokens.next() == 100
    assert tokens.last == 100
