"""The checks around every test can fail: planted leftovers are found and named.

RULE: each planted test runs in a pytest of its own, under this repository's settings.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PLANTED = """
import asyncio, gc, logging, random, socket, subprocess, threading

def test_process():
    subprocess.Popen(["sleep", "60"])

def test_socket():
    socket.socket()

def test_old_cycle():
    cycle = [socket.socket()]
    cycle.append(cycle)
    gc.collect()

def test_silence():
    logging.disable(logging.CRITICAL)

async def test_task():
    await asyncio.open_connection("127.0.0.1", SERVER.getsockname()[1])

def test_lots(rng, seed):
    assert (rng.random(), seed) == (random.Random(7).random(), 8)

def test_tidy():
    with subprocess.Popen(["true"]), socket.socket():
        pass

SERVER = socket.create_server(("127.0.0.1", 0))
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pytest says of the planted tests, run with seed 7."""
    file = tmp_path_factory.mktemp("planted") / "test_planted.py"
    file.write_text(PLANTED)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    settings = ["-c", str(ROOT / "pyproject.toml"), "--seed", "7", "--color=no", str(file)]
    ran = subprocess.run(
        [*command, *settings], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return ran.stdout


@pytest.mark.parametrize(
    "line",
    [
        "test_process - Failed: left behind: processes {",
        "test_socket - ",
        "test_old_cycle - ",
        "test_silence - Failed: left behind: logging disabled",
        "test_task - ",
        "replay: pytest ",
        "--seed 7",
    ],
)
def test_a_planted_leftover_is_reported(report: str, line: str) -> None:
    """What is left open, and a log left silenced, fails its test; and a seed is told."""
    assert line in report


def test_a_tidy_test_passes(report: str) -> None:
    """A test that ends what it starts is not blamed for its neighbours."""
    assert "test_tidy" not in report
