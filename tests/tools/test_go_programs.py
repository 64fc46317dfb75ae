"""The builder of Go programs: what it builds, and what it says when it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tools import go_programs
from tests.tools.toxiproxy_server import CannotBuildError


def test_every_program_is_pinned() -> None:
    """A module each, with the sums of what it needs from elsewhere."""
    assert "goyaad" in go_programs.names()
    for name in go_programs.names():
        module = (go_programs.SOURCES / name / "go.mod").read_text()
        assert (go_programs.SOURCES / name / "go.sum").exists() or "require" not in module


def test_a_program_that_is_not_there() -> None:
    """Is no reason to look for a Go."""
    with pytest.raises(CannotBuildError, match="no sources"):
        go_programs.build("nobody's")


@pytest.mark.parametrize("is_ci", [False, True])
def test_a_test_without_its_program_skips_and_fails_in_ci(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_ci: bool
) -> None:
    """Loudly in either case."""
    monkeypatch.setenv("CI", "true" if is_ci else "")
    outcome = pytest.fail.Exception if is_ci else pytest.skip.Exception
    with pytest.raises(outcome, match="NO GO PROGRAM nobody's"):
        go_programs.program("nobody's")
    assert "!!!!" in capsys.readouterr().out


def test_what_does_not_compile_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the words of Go; nothing is left of the attempt."""
    go_programs.program("goyaad")  # Skips where there is no Go.
    monkeypatch.setattr(go_programs, "SOURCES", tmp_path)
    monkeypatch.setattr(go_programs, "TOOLS", tmp_path / "tools")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "go.mod").write_text("module bad\n\ngo 1.22\n")
    (tmp_path / "bad" / "main.go").write_text("package main\n\nfunc main() { nothing() }\n")
    with pytest.raises(CannotBuildError, match="undefined: nothing"):
        go_programs.build("bad")
    go_programs.main()
    assert "bad: NOT BUILT" in capsys.readouterr().out
    assert list((tmp_path / "tools").iterdir()) == [tmp_path / "tools" / "bin"]
