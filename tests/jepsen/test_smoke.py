"""The command line: what it chooses to run. The smoke itself is `python jepsen-style --smoke`."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from jepsen import nemeses, workloads

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def line() -> ModuleType:
    """The module behind `python jepsen-style`."""
    spec = importlib.util.spec_from_file_location("line", ROOT / "jepsen-style" / "__main__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plans(
    line: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: str
) -> list[tuple[str, str, int, float]]:
    """What these words on the command line choose."""
    monkeypatch.setattr(sys, "argv", ["jepsen-style", *words])
    return [
        (plan.workload, plan.nemesis, plan.seed, plan.minutes)
        for plan in line._plans(line._options())
    ]


def test_the_smoke_is_a_fixed_choice(line: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same pairs each time, all of them known, and short."""
    chosen = plans(line, monkeypatch, "--smoke")
    assert chosen == plans(line, monkeypatch, "--smoke")
    assert ("mixed", "mixed") in {(workload, nemesis) for workload, nemesis, _, _ in chosen}
    for workload, nemesis, _, minutes in chosen:
        assert workload in workloads.WORKLOADS
        assert nemesis in nemeses.names()
        assert minutes <= 0.2
        # Where there is neither a compiler nor libfaketime the smoke must still run.
        nemeses.make(nemesis, equipment=())


def test_minutes_are_shared_by_all_runs(line: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every workload under every nemesis with every seed."""
    words = ("--workload", "all", "--nemesis", "none,mixed", "--seeds", "3:5", "--minutes", "15")
    chosen = plans(line, monkeypatch, *words)
    assert len(chosen) == 2 * 2 * len(workloads.WORKLOADS)
    assert {seed for _, _, seed, _ in chosen} == {3, 4}
    assert sum(minutes for *_, minutes in chosen) == pytest.approx(15, abs=0.01)


@pytest.mark.parametrize("words", [("--workload", "gardening"), ("--nemesis", "mixed,hail")])
def test_a_name_that_is_none_is_refused(words: tuple[str, str]) -> None:
    """Before anything starts, with where to find the names."""
    command = [sys.executable, str(ROOT / "jepsen-style"), *words]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "--list" in ended.stderr
