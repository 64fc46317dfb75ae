"""The one deadline of these tests: nothing has moved for so long."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from jepsen.progress import Progress, progress, until


def test_only_what_was_not_reached_before_counts() -> None:
    """A node that starts again and applies its log once more gets nowhere new."""
    seen = Progress()
    for number in (0, 3, 3, 1, 2, 3, 4):
        seen.reached("n1 applied", number)
    assert seen.marks == 2
    seen.reached("n2 applied", 1)
    assert seen.marks == 3


async def test_what_stands_still_is_given_up() -> None:
    """With the words of what was waited for."""
    ticks = itertools.count()

    async def never() -> bool:
        return False

    with pytest.raises(AssertionError, match="nothing has moved for 3 s: a leader"):
        await until(never, "a leader", still_s=3.0, clock=lambda: float(next(ticks)))


async def test_a_look_that_never_ends_is_given_up_too() -> None:
    """A node may hold its answer back for ever."""
    ticks = itertools.count()

    async def hangs() -> bool:
        return await asyncio.Event().wait()

    with pytest.raises(AssertionError, match="an answer"):
        await until(hangs, "an answer", still_s=2.0, clock=lambda: float(next(ticks)))


async def test_what_moves_is_waited_for() -> None:
    """However long it takes."""
    ticks = itertools.count()

    def clock() -> float:
        progress.mark()
        return float(next(ticks))

    async def at_last() -> bool:
        return next(ticks) > 20

    assert await until(at_last, "the end", still_s=1.0, clock=clock)


async def test_what_a_look_raises_is_passed_on() -> None:
    """As it is, at once."""

    async def fails() -> bool:
        raise KeyError("n9")

    with pytest.raises(KeyError, match="n9"):
        await until(fails, "nothing")
