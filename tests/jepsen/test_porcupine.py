"""Our search and Porcupine's say the same of random histories."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from jepsen.crosscheck import Made, NoTool, compare, make, ours, theirs, tool


@pytest.fixture(scope="module")
def program() -> Path:
    """Porcupine, built by the Go on PATH; where there is none the tests are skipped, loudly.

    Where CI=true they fail instead: a check that is not made must not look like one that passed.
    """
    try:
        return tool()
    except NoTool as why:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no Porcupine to compare with: {why}")
        print("!" * 80)
        print(f"NOT COMPARED WITH PORCUPINE: {why}; put a Go of 1.23 or newer on PATH")
        print("!" * 80)
        pytest.skip(f"NOT COMPARED WITH PORCUPINE: {why}")


def test_both_checkers_agree_on_random_histories(program: Path) -> None:
    """Hundreds of them, of registers and locks; many spoilt. The command takes ten thousand."""
    result = compare(program, range(100_000, 100_600))
    print(result)
    print(
        "replay: PYTHONPATH=jepsen-style python -m jepsen.crosscheck --histories 600 --seed 100000"
    )
    assert result.differing == []
    assert result.wronged == []
    assert result.illegal > 30
    assert set(result.by_model) == {"lock", "register"}


def test_porcupine_sees_what_we_would_miss(program: Path) -> None:
    """It is not made to agree: it says no by itself to what cannot be."""
    bad = next(made for made in map(make, range(1_000)) if made.is_spoilt and ours(made) is False)
    good = make(next(seed for seed in range(1_000) if not make(seed).is_spoilt))
    swapped = Made(bad.model, bad.operations, is_spoilt=False)
    assert theirs(program, [bad, good, swapped]) == [False, True, False]
