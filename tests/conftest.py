"""What every test has: a seed to replay, both event loops on request, and a check for leftovers.

RULE: holds fixtures and hooks that any test may use; what one room needs lives beside its tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import hypothesis
import pytest

from cluster.replication import library

pytest_plugins = ["tests.integration.toxiproxy"]

LEFTOVER_GRACE_S = 5.0

# The same examples in every run, so that red means changed; `--hypothesis-profile explore` looks
# further. No deadline: a busy machine is not a failure.
hypothesis.settings.register_profile(
    "repeat",
    derandomize=True,
    deadline=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "explore",
    parent=hypothesis.settings.get_profile("repeat"),
    derandomize=False,
    max_examples=2000,
)
hypothesis.settings.load_profile("repeat")

# A shell has what it runs in the background ignore interrupts, and so do all whom that starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--seed`, the seed of every test that draws lots by the fixtures `seed` and `rng`."""
    parser.addoption("--seed", type=int, default=0, metavar="N", help="seed of the random tests")


@pytest.fixture(autouse=True)
def the_librarys_clock() -> Iterator[None]:
    """One for the whole process, which simulations replace: whoever comes next has the real one."""
    clock = library.syncobj.monotonicTime
    yield
    library.use_clock(clock)


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The run's seed; when the test fails, its captured output says how to replay."""
    number: int = request.config.getoption("--seed")
    print(f"replay: pytest {request.node.nodeid} --seed {number}")
    return number


@pytest.fixture
def rng(seed: int) -> random.Random:
    """A generator of the run's seed, of this test alone."""
    return random.Random(seed)


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run an async test on asyncio's loop, and one marked `both_loops` on uvloop's as well."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.get_closest_marker("both_loops") is not None:
        with contextlib.suppress(ImportError):
            import uvloop

            loops["uvloop"] = uvloop.new_event_loop
    return loops


def pytest_collection_finish() -> None:
    """Set what is loaded by now apart, so that collecting garbage after each test costs little."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves a process, a thread, an open socket or a silenced log behind."""
    processes, threads = _child_pids(), set(threading.enumerate())
    silenced, open_files = logging.root.manager.disable, _open_files()
    yield
    if logging.root.manager.disable != silenced:
        logging.disable(silenced)
        pytest.fail("left behind: logging disabled")
    # An unclosed socket warns when it is collected: have that happen in the test it belongs to.
    # All there is takes long to look through, and is only where a file was left open.
    gc.collect(1)
    if _open_files() > open_files:
        gc.collect()
    left_threads = [
        thread
        for thread in threading.enumerate()
        if thread not in threads and not thread.daemon and _outlives_grace(thread)
    ]
    left_processes = _child_pids() - processes
    for pid in left_processes:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    if left_threads or left_processes:
        pytest.fail(f"left behind: processes {left_processes}, threads {left_threads}")


def _outlives_grace(thread: threading.Thread) -> bool:
    thread.join(LEFTOVER_GRACE_S)
    return thread.is_alive()


def _open_files() -> int:
    """Files and sockets of this process; 0 where the kernel does not tell."""
    with contextlib.suppress(OSError):
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count, in every test
    return 0


def _child_pids() -> set[int]:
    """Children of this process, zombies too; empty where the kernel does not tell."""
    pids: set[int] = set()
    for listing in Path("/proc/self/task").glob("*/children"):
        # A thread may end between the listing and the reading.
        with contextlib.suppress(OSError):
            pids.update(int(pid) for pid in listing.read_text().split())
    return pids
