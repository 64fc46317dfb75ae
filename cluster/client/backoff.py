"""Pauses between repeats: longer each time, and never in step with other clients.

RULE: the only file of the client that draws lots.
Source: Brooker, "Exponential Backoff And Jitter" (the decorrelated kind keeps herds apart).
"""

from __future__ import annotations

import random


class Backoff:
    """The pauses of one call.

    Args:
        first_ms: the shortest pause, and where the series starts.
        most_ms: the longest.
        rng: a seeded source in tests.
    """

    __slots__ = ("_first_ms", "_last_ms", "_most_ms", "_rng")

    def __init__(self, first_ms: int, most_ms: int, rng: random.Random | None = None):
        self._first_ms = first_ms
        self._most_ms = most_ms
        self._last_ms = first_ms
        self._rng = random.Random() if rng is None else rng

    def next_ms(self) -> int:
        """The next pause: between the first and three times the last one, within the limit."""
        drawn_ms = self._rng.randint(self._first_ms, max(self._first_ms, 3 * self._last_ms))
        self._last_ms = min(self._most_ms, drawn_ms)
        return self._last_ms
