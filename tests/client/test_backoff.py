"""Pauses between repeats."""

from __future__ import annotations

import random

from cluster.client.backoff import Backoff


def test_pauses_grow_within_their_limits(rng: random.Random) -> None:
    """Each is at least the first, at most three times the last, never above the limit."""
    backoff = Backoff(10, 500, rng)
    last_ms = 10
    for _ in range(200):
        pause_ms = backoff.next_ms()
        assert 10 <= pause_ms <= min(500, 3 * last_ms)
        last_ms = pause_ms


def test_two_clients_are_not_in_step() -> None:
    """They draw their own lots."""
    one, two = Backoff(10, 10_000, random.Random(1)), Backoff(10, 10_000, random.Random(2))
    assert [one.next_ms() for _ in range(8)] != [two.next_ms() for _ in range(8)]
