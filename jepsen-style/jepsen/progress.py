"""What has moved in the clusters that run: a slow machine moves, a cluster that is stuck does not.

RULE: no deadline of a test or a run but this one. Under load everything takes tens of times longer (a node
that starts needs a second of processor time), so a fixed deadline fails for load alone; here a test
fails when nothing has moved for so long.

Only what gets somewhere counts, and cannot go on for ever without: a process that comes up, a log
position or a number of grants that was not reached before. Elections, refusals and repeated
requests do not, so that clients and candidates that go round in circles are found out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import TypeVar

STILL_S = 90.0
LOOK_EVERY_S = 0.02
_WATCH_EVERY_S = 0.25

T = TypeVar("T")


class Progress:
    """Counts what has moved.

    Attributes:
        marks: how much has; only ever rising.
    """

    def __init__(self) -> None:
        self.marks = 0
        self._most: dict[Hashable, int] = {}

    def mark(self) -> None:
        """Something has happened that does not happen again by itself."""
        self.marks += 1

    def reached(self, what: Hashable, number: int) -> None:
        """Something has come so far; what it had reached before does not count."""
        if number > self._most.get(what, 0):
            self._most[what] = number
            self.marks += 1


progress = Progress()
"""Of all clusters of this process that have no count of their own."""


async def until(
    condition: Callable[[], Awaitable[T | None]],
    what: str,
    *,
    still_s: float = STILL_S,
    clock: Callable[[], float] = time.monotonic,
    moved: Progress = progress,
) -> T:
    """Ask again and again until the answer is true in Python's sense, and return it.

    Args:
        what: is waited for, in the words of the failure.
        still_s: fail when nothing has moved for so long.
        moved: counts it.
    Raises:
        AssertionError: it has; and whatever the condition raises.
    """

    async def look() -> T:
        while not (answer := await condition()):  # noqa: ASYNC110
            await asyncio.sleep(LOOK_EVERY_S)
        return answer

    looking = asyncio.create_task(look())
    marks, since_s = moved.marks, clock()
    try:
        # A look may take long, or for ever.
        while not (await asyncio.wait({looking}, timeout=_WATCH_EVERY_S))[0]:
            now_s = clock()
            if moved.marks > marks:
                marks, since_s = moved.marks, now_s
            elif now_s - since_s >= still_s:
                raise AssertionError(f"nothing has moved for {still_s:g} s: {what}")
        return looking.result()
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
