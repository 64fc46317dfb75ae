"""The fixtures that are clusters of processes, in the runs of pytest of a project of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.testing.installed import Project, count_of, examples

pytest_plugins = ["pytester"]

WITHIN_S = 120.0
# Processes that start at once on a busy machine.
pytestmark = pytest.mark.timeout(300)

SHARED = """
import asyncio
import pytest
from cluster import LockLost

def test_the_leader_dies(coterie_cluster):
    with coterie_cluster.sync_client() as client, client.session(ttl="30s") as session:
        with session.lock("orders") as lock:
            killed = coterie_cluster.kill("leader")
            assert killed not in coterie_cluster.running
            assert coterie_cluster.leader() in coterie_cluster.running
            assert coterie_cluster.state(killed) is None
            assert lock.state == "held"

def test_it_is_whole_again_and_knows_what_it_knew(coterie_cluster):
    assert coterie_cluster.running == coterie_cluster.nodes == ("n1", "n2", "n3")
    with coterie_cluster.sync_client() as client:
        client.tube("mail").put("kept")
    stopped = coterie_cluster.stop("n1")
    coterie_cluster.restart(stopped)
    with coterie_cluster.sync_client() as client:
        assert [job.body for job in client.tube("mail").reserve()] == ["kept"]

@pytest.mark.asyncio
async def test_a_coroutine_uses_it(coterie_cluster):
    async with coterie_cluster.client() as client, client.session() as session:
        async with session.lock("orders", wait="30s") as lock:
            await asyncio.to_thread(coterie_cluster.kill)
            await asyncio.to_thread(coterie_cluster.wait_ready)
            assert lock.token

def test_a_node_is_paused_and_left_so(coterie_cluster):
    paused = coterie_cluster.pause("leader")
    assert coterie_cluster.leader() != paused

def test_words_that_make_no_sense_are_told(coterie_cluster):
    for name in coterie_cluster.nodes:
        assert coterie_cluster.state(name).ready
    with pytest.raises(ValueError, match='there is no node "n9"; there are n1, n2, n3'):
        coterie_cluster.kill("n9")
    with pytest.raises(ValueError, match='node "n1" is not down'):
        coterie_cluster.restart("n1")

def test_nobody_leads_a_minority(coterie_cluster):
    coterie_cluster.kill()
    coterie_cluster.kill()
    with pytest.raises(TimeoutError, match="of 3 nodes 1 run, 0 of them paused"):
        coterie_cluster.leader(within="1ms")

def test_fails(coterie_cluster):
    coterie_cluster.kill("n2")
    assert not "what the nodes wrote is shown"
"""


def test_a_shared_cluster_through_a_run(project: Project) -> None:
    """Killed, stopped, paused, whole again before each test; its log where one fails; and gone."""
    project.write("test_shared.py", SHARED)
    result = project.run("-vv")
    result.assert_outcomes(passed=6, failed=1)
    text = result.stdout.str()
    log = text.partition("- coterie nodes -")[2]
    assert log.count("coterie nodes") == 0
    # Only since the test began, before which the two that had died were started.
    assert len(re.findall(r"^n\d \| info serving ", log, re.MULTILINE)) == 2
    assert nodes_below(project.pytester.path) == []


def test_the_examples_of_the_page_pass(project: Project) -> None:
    """What the page on testing shows of processes, copied as it stands."""
    files = examples(of_processes=True)
    for name, text in files.items():
        project.write(name, text)
    assert count_of(files) >= 4
    project.run().assert_outcomes(passed=count_of(files))
    assert nodes_below(project.pytester.path) == []


def test_settings_rule_and_workers_of_xdist_do_not_meet(project: Project) -> None:
    """Each worker has a cluster of its own; here, each test."""
    project.set("coterie_nodes = 1\ncoterie_cluster_scope = function\ncoterie_log_level = warning")
    project.write(
        "test_many.py",
        "import pytest\n"
        "@pytest.mark.parametrize('number', range(2))\n"
        "def test_many(coterie_cluster, number):\n"
        "    assert coterie_cluster.nodes == ('n1',)\n"
        "    assert coterie_cluster.log() == []\n"
        "    with coterie_cluster.sync_client() as client, client.session() as session:\n"
        "        assert session.lock('orders', wait='0s').acquire()\n",
    )
    project.run("-n", "2").assert_outcomes(passed=2)
    assert nodes_below(project.pytester.path) == []


def test_a_cluster_that_does_not_come_up_says_why(project: Project) -> None:
    """In the words of its nodes, without a traceback of ours."""
    project.set("coterie_log_level = loud")
    project.write("test_any.py", "def test_any(coterie_cluster):\n    pass\n")
    result = project.run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*coterie_cluster: the cluster did not come up: n? ended*", "*log_level*loud*"]
    )
    assert "Traceback" not in result.stdout.str()
    assert nodes_below(project.pytester.path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="it is Linux that ends children with parents")
def test_nothing_outlives_a_run_that_is_killed(project: Project) -> None:
    """By SIGKILL, so that no code of ours can end the nodes."""
    project.set("coterie_nodes = 1")
    project.write(
        "test_any.py",
        "import signal\n"
        "def test_any(coterie_cluster):\n"
        "    print('up', flush=True)\n"
        "    signal.pause()\n",
    )
    folder = project.pytester.path
    command = [sys.executable, "-m", "pytest", "-s", f"--rootdir={project.folder}"]
    with subprocess.Popen(
        [*command, f"-c{project.folder}/pytest.ini", f"--basetemp={folder}/temp", "project"],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        try:
            assert run.stdout is not None
            assert any("up" in line for line in run.stdout)
            assert len(nodes_below(folder)) == 1
        finally:
            run.send_signal(signal.SIGKILL)
    until(lambda: nodes_below(folder) == [])


def nodes_below(folder: Path) -> list[int]:
    """Processes of nodes whose settings lie below a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().decode().split("\0")
            is_alive = (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
            if is_alive and any(word.startswith(f"{folder}{os.sep}") for word in words):
                found.append(int(process.name))
    return [pid for pid in found if pid != os.getpid()]


def until(condition: Callable[[], bool]) -> None:
    """Ask until it is so."""
    late_s = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < late_s, "it did not come to that"
        time.sleep(0.01)
