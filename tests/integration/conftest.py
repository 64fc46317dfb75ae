"""What integration tests have beside what every test has.

RULE: fixtures and hooks only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cluster import shared_processes

LEFTOVER_GRACE_S = 5.0

# The tests watch progress themselves (progress.py); this ends what moves and gets nowhere. On two
# cores shared with five other runs, four spinning processes and a disk kept busy, the longest test
# has taken 150 s.
ONE_TEST_S_MAX = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of real processes more time than the others."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(ONE_TEST_S_MAX))


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves a process or a thread, and end the process.

    As everywhere else, except that a node may stay that belongs to a cluster of the whole module,
    although this test has started it again.
    """
    processes, threads = _children(), set(threading.enumerate())
    yield
    left = _children() - processes - shared_processes()
    for pid in left:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    for thread in set(threading.enumerate()) - threads:
        if not thread.daemon:
            thread.join(LEFTOVER_GRACE_S)
            assert not thread.is_alive(), f"left behind: {thread}"
    assert not left, f"left behind: processes {left}"


def _children() -> set[int]:
    pids: set[int] = set()
    for listing in Path("/proc/self/task").glob("*/children"):
        # A thread may end between the listing and the reading.
        with contextlib.suppress(OSError):
            pids.update(int(pid) for pid in listing.read_text().split())
    return pids
