"""The story of a seed."""

from __future__ import annotations

from tests.simulation.trace import Trace


def test_the_hash_depends_on_every_step_and_its_time() -> None:
    """Another byte or another moment gives another hash."""
    traces = [Trace() for _ in range(4)]
    for trace, (time_us, what) in zip(
        traces, [(1, b"a"), (1, b"a"), (2, b"a"), (1, b"b")], strict=True
    ):
        trace.mark(0, b"start")
        trace.mark(time_us, what)
    hashes = [trace.hash for trace in traces]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_keeping_lines_does_not_change_the_hash() -> None:
    """A story that is told is the same story."""
    silent, told = Trace(), Trace(keep=True)
    for trace in (silent, told):
        trace.say(1_500_000, "n1", "starts")
        trace.mark(1, b"x")
    assert silent.hash == told.hash
    assert silent.story() == ""
    assert told.story() == "  1.500000  n1       starts"


def test_a_bounded_story_keeps_its_end() -> None:
    """What led to the violation is what is wanted."""
    trace = Trace(keep=True, tail_max=10)
    for number in range(100):
        trace.say(number, "n1", f"line {number}")
    lines = trace.story().splitlines()
    assert len(lines) == 10
    assert lines[-1].endswith("line 99")
