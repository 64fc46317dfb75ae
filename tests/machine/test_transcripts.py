"""Every transcript in `tests/transcripts/` is what the machine says today."""

from __future__ import annotations

import pytest

from tests.machine.transcripts import FOLDER, replay

PATHS = sorted(FOLDER.glob("*.txt"))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_machine_says_what_the_transcript_says(path: object) -> None:
    """Otherwise `python -m tests.machine.transcripts --write`, and read the difference."""
    text = (FOLDER / str(path)).read_text()
    assert replay(text) == text


def test_there_are_transcripts() -> None:
    """The folder was found."""
    assert len(PATHS) >= 5


def test_a_wrong_answer_is_seen() -> None:
    """A transcript that tells something else is not equal to its replay."""
    text = (FOLDER / "exclusive.txt").read_text()
    wrong = text.replace("Granted", "Refused", 1)
    assert wrong != text
    assert replay(wrong) == text


def test_a_line_that_cannot_be_read_is_not_skipped() -> None:
    """A slip of the pen fails loudly."""
    with pytest.raises(ValueError, match="no request"):
        replay("entry 1 at 0 ms\n  n1 OpenSession\n")
    with pytest.raises(ValueError, match="has no"):
        replay("entry 1 at 0 ms\n  n1/1  KeepAlive sesion=1-a\n")
