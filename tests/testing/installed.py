"""Coterie as a stranger's project has it: installed, with its plugin found by its entry point.

RULE: writes what an installer would write, and runs pytest in a process of its own.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "pages" / "testing.md"
BLOCK = re.compile(r'^```python title="([\w.]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
TEST = re.compile(r"^(?:async )?def test_", re.MULTILINE)
PROCESSES = ("coterie_cluster", "coterie_fresh_cluster", "ProcessCluster")

SETTINGS = """
[pytest]
addopts =
    --strict-config --strict-markers -p no:cacheprovider
    # Of no use here, and slow to load.
    -p no:schemathesis -p no:hypothesispytest -p no:aiohttp -p no:pytest_cov -p no:platformdirs
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""


def install(site: Path) -> None:
    """Make a folder that says what is installed, as `pip install` does."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    entries = [f"{name} = {place}" for name, place in project["entry-points"]["pytest11"].items()]
    info = site / "coterie-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: coterie\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("\n".join(["[pytest11]", *entries, ""]))


class Project:
    """A project whose tests are run, in a folder of its own.

    Args:
        pytester: whose folder it is.
    """

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
        self.pytester = pytester
        install(pytester.path / "site")
        places = (ROOT, pytester.path / "site")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, places)))
        monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
        self.folder = pytester.mkdir("project")
        self.write("pytest.ini", SETTINGS)

    def write(self, name: str, text: str) -> None:
        """Add a file."""
        (self.folder / name).write_text(text, encoding="utf-8")

    def set(self, line: str) -> None:
        """Add a line to the settings."""
        self.write("pytest.ini", f"{SETTINGS}{line}\n")

    def run(self, *arguments: str) -> pytest.RunResult:
        """Run its tests."""
        rootdir = f"--rootdir={self.folder}"
        return self.pytester.runpytest_subprocess(
            rootdir, f"-c{self.folder}/pytest.ini", *arguments
        )


def examples(*, of_processes: bool) -> dict[str, str]:
    """The files that the page on testing shows, by their titles.

    Args:
        of_processes: those that start some; else the others.
    """
    found: list[tuple[str, str]] = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert len(found) == len(dict(found)), "two examples have one title"
    return {
        title: text
        for title, text in found
        if any(word in text for word in PROCESSES) is of_processes
    }


def count_of(files: dict[str, str]) -> int:
    """How many tests there are."""
    return sum(len(TEST.findall(text)) for text in files.values())
