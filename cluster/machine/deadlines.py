"""Deadlines: one heap for every timer of the machine.

RULE: knows times, kinds and orders, never what a timer is for. Nothing here shows in a snapshot:
whoever owns a timer keeps its deadline, and arms it again after a load.

Strategy: an entry of the heap is (deadline, kind, order, target) and is never searched for. A
target carries its true deadline itself. To disarm it, the deadline is set to DISARMED; to renew
it, to something later. Entries that no longer tell the truth are dropped or put back when they
come to the top, so that a keepalive costs one assignment and no heap operation.
Source: Varghese & Lauck weigh the alternatives; beanstalkd and asyncio do it this way.
"""

from __future__ import annotations

import heapq
from typing import Protocol

DISARMED = -1

# Kinds of timers. At the same time sessions end before waits do: who was ready to wait until the
# holder's session ends gets what it held.
SESSION_ENDS = 1
WAIT_ENDS = 2
FIFO_ACCEPT = 3
FIFO_DONE = 4
FIFO_UNUSED = 5
ROOM_SLIDES = 6
JOB_DUE = 7
JOB_TTR = 8
TUBE_RESUMES = 9
TASK_SLOT = 10
RESOURCE_SWEPT = 11

_COMPACT_FROM = 64


class Timed(Protocol):
    """What can be armed: keeps its deadline in ms of cluster time, or DISARMED."""

    deadline_ms: int


class Deadlines:
    """Timers in the order (deadline, kind, order)."""

    __slots__ = ("_dead", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, int, Timed]] = []
        self._dead = 0

    def __len__(self) -> int:
        """How many timers are armed."""
        return len(self._heap) - self._dead

    def arm(self, kind: int, order: int, target: Timed) -> None:
        """Arm a target at its deadline. Once per target; (kind, order) must be its own.

        Afterwards the owner may move `target.deadline_ms` to a later time, never to an earlier one.
        """
        heapq.heappush(self._heap, (target.deadline_ms, kind, order, target))

    def disarm(self, target: Timed) -> None:
        """Take a target out; one that is out already stays out."""
        if target.deadline_ms == DISARMED:
            return
        target.deadline_ms = DISARMED
        self._dead += 1
        heap = self._heap
        # Amortised: a sweep of n entries follows at least n / 2 disarmings.
        if len(heap) >= _COMPACT_FROM and self._dead * 2 > len(heap):
            self._compact()

    def next_ms(self) -> int | None:
        """The earliest deadline, or None when nothing is armed. Never too early."""
        return self._heap[0][0] if self._settle() else None

    def pop_due(self, now_ms: int) -> tuple[int, Timed] | None:
        """Disarm and return (kind, target) of the first deadline at or before now, if any."""
        heap = self._heap
        if not heap or heap[0][0] > now_ms or not self._settle() or heap[0][0] > now_ms:
            return None
        _, kind, _, target = heapq.heappop(heap)
        target.deadline_ms = DISARMED
        return kind, target

    def _settle(self) -> bool:
        """Bring an entry that tells the truth to the top. False when nothing is armed."""
        heap = self._heap
        while heap:
            deadline_ms, kind, order, target = heap[0]
            if target.deadline_ms == deadline_ms:
                return True
            if target.deadline_ms == DISARMED:
                heapq.heappop(heap)
                self._dead -= 1
            else:
                heapq.heapreplace(heap, (target.deadline_ms, kind, order, target))
        return False

    def _compact(self) -> None:
        # The entries themselves, though some are of earlier deadlines: new ones cost four times this.
        self._heap = [entry for entry in self._heap if entry[3].deadline_ms != DISARMED]
        heapq.heapify(self._heap)
        self._dead = 0
