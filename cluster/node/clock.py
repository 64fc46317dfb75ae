"""Clocks: the process's own two, and the cluster's, which only a leader moves.

RULE: the only module that reads a clock. Everything else is given the time.

Cluster (lease) time is a column of the log. It runs with the leader's monotonic clock from where
the last leader's left off and stands still while nobody leads, so no election and no step of a wall
clock ends a lease early.
"""

from __future__ import annotations

import time

# A follower's guess at cluster time goes on for so long after the last word of the leader.
_GUESS_MS_MAX = 1_000


# Seconds; never falls, not even when the wall clock is set.
monotonic = time.monotonic


def wall_ms() -> int:
    """Milliseconds since 1970. For people and schedules: nothing that must be safe uses it."""
    return time.time_ns() // 1_000_000


class ClusterClock:
    """Cluster time as one node knows it. All arguments `now` are monotonic seconds."""

    def __init__(self) -> None:
        self._base_ms: int | None = None
        self._base_at = 0.0
        self._seen_ms = 0
        self._seen_at = 0.0
        self._hint: tuple[int, int] = (0, 0)

    @property
    def leads(self) -> bool:
        return self._base_ms is not None

    def lead(self, now: float, *, applied_ms: int, last_term: int) -> None:
        """Begin to move cluster time.

        Args:
            applied_ms: time of the last entry applied; all earlier leaders' entries are.
            last_term: term of the last entry before our own first one. A leader's word about its
                clock counts only if nobody led between it and us: else its clock may have run
                beside that of another, and leases given by the other would end early.
        """
        hint_term, hint_ms = self._hint
        base_ms = max(applied_ms, hint_ms) if hint_term == last_term else applied_ms
        self._base_ms, self._base_at = base_ms, now

    def stand_still(self, seconds: float) -> None:
        """Leave out a time in which the leader did nothing: nobody could renew a lease in it."""
        self._base_at += seconds

    def follow(self) -> None:
        """Stop moving cluster time."""
        self._base_ms = None

    def now_ms(self, now: float) -> int:
        """Cluster time, on the leader."""
        assert self._base_ms is not None
        return self._base_ms + int((now - self._base_at) * 1000)

    def hear(self, now: float, *, term: int, leader_ms: int) -> None:
        """The leader of `term`, whom we follow, says what its clock shows."""
        self._hint = (term, leader_ms)
        self.see(now, leader_ms)

    def see(self, now: float, applied_ms: int) -> None:
        """Cluster time has reached `applied_ms`."""
        if applied_ms > self._seen_ms:
            self._seen_ms, self._seen_at = applied_ms, now

    def guess_ms(self, now: float) -> int:
        """Cluster time as far as this node can tell; for reading remaining times only."""
        if self._base_ms is not None:
            return self.now_ms(now)
        return self._seen_ms + min(int((now - self._seen_at) * 1000), _GUESS_MS_MAX)
