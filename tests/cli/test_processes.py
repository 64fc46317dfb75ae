"""Child processes: how they ended."""

from __future__ import annotations

import pytest

from cluster.cli import processes


@pytest.mark.parametrize(("returncode", "code"), [(0, 0), (7, 7), (-9, 137), (-15, 143)])
def test_an_end_is_told_as_a_shell_does(returncode: int, code: int) -> None:
    """128 and the signal."""
    assert processes.exit_code_of(returncode) == code


@pytest.mark.parametrize(
    ("returncode", "words"),
    [(3, "ended with exit code 3"), (-9, "was ended by SIGKILL"), (-99, "was ended by signal 99")],
)
def test_an_end_is_told_in_words(returncode: int, words: str) -> None:
    """With the signal's name where it has one."""
    assert processes.ending_of(returncode) == words


def test_a_group_that_is_gone_takes_no_signal() -> None:
    """And that is no error. (No process has so large a number.)"""
    processes.signal_group(2**30, 9)
