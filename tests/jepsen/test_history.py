"""The list of what happened: lines, and operations made of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from jepsen.history import Recorder, Type, load, operations


def test_an_operation_is_an_invoke_and_its_completion() -> None:
    """Two processes overlap; each end finds its own beginning."""
    recorder = Recorder()
    first, second = recorder.process(), recorder.process()
    recorder.note(first, Type.INVOKE, "acquire", "a", {"wait_ms": 0}, node="n1")
    recorder.note(second, Type.INVOKE, "acquire", "a", node="n2")
    recorder.note(second, Type.FAIL, "acquire", "a", error="lock_held")
    recorder.note(first, Type.OK, "acquire", "a", {"token": 7})
    one, two = operations(recorder.lines)
    assert (one.start, one.end, one.result, one.node) == (0, 3, {"token": 7}, "n1")
    assert (two.start, two.end, two.outcome, two.error) == (1, 2, Type.FAIL, "lock_held")
    assert not one.is_open and not two.is_open


def test_what_nobody_knows_is_open_for_ever() -> None:
    """Info and no completion at all are the same to a checker: no end."""
    recorder = Recorder()
    first, second = recorder.process(), recorder.process()
    recorder.note(first, Type.INVOKE, "put", "mail")
    recorder.note(first, Type.INFO, "put", "mail", error="timeout")
    recorder.note(second, Type.INVOKE, "put", "mail")
    known, cut = operations(recorder.lines)
    assert known.is_open and known.end is None and known.error == "timeout"
    assert cut.is_open and cut.end_ns is None


def test_the_nemesis_does_no_operations() -> None:
    """Its lines are in the history and not among the operations."""
    recorder = Recorder()
    recorder.note(-1, Type.INFO, "kill", value={"phase": "begin", "nodes": ["n1"]})
    assert operations(recorder.lines) == []


@pytest.mark.parametrize("ends_first", [False, True])
def test_refuses_a_history_that_cannot_be(ends_first: bool) -> None:
    """One process, one thing at a time, begun before it ends."""
    recorder = Recorder()
    if ends_first:
        recorder.note(0, Type.OK, "acquire", "a")
    else:
        recorder.note(0, Type.INVOKE, "acquire", "a")
        recorder.note(0, Type.INVOKE, "acquire", "b")
    with pytest.raises(ValueError, match="process 0"):
        operations(recorder.lines)


def test_a_history_comes_back_from_its_file(tmp_path: Path) -> None:
    """Line for line."""
    file = tmp_path / "history.jsonl"
    recorder = Recorder(file)
    recorder.note(recorder.process(), Type.INVOKE, "put", "mail", {"body": "é"}, node="n3")
    recorder.note(0, Type.OK, "put", "mail", [1, None])
    recorder.close()
    assert load(file) == recorder.lines
