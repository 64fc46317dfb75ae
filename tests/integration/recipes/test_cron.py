"""Cron in a fleet: lines of a crontab under a lock, and schedules that the cluster keeps."""

from __future__ import annotations

import re
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from jepsen.progress import progress, until

from cluster.client.aio import Client
from tests.integration.cluster import Cluster
from tests.integration.recipes.programs import RECIPES, ROOT, Program, Programs, running

pytestmark = pytest.mark.asyncio(loop_scope="package")


def crontab_line(word: str) -> str:
    """The command of the line of our crontab that has this word, as cron hands it to the shell."""
    lines = (RECIPES / "cron" / "crontab").read_text(encoding="utf-8").splitlines()
    found = [line for line in lines if word in line and not line.startswith("#")]
    assert len(found) == 1
    command = found[0].split(maxsplit=5)[5]
    assert "%" not in command, "cron takes it for a newline"
    return command


class Run(NamedTuple):
    """A run of a command that a schedule was due for."""

    slot_ms: int
    token: int
    server: str


async def test_a_line_runs_on_one_server(cluster: Cluster, tmp_path: Path) -> None:
    """Three servers run the same line at one time: one runs the command and keeps the lock, two
    leave with 75 and without a word. Once it is free, the command's own exit code and all that it
    says are handed on.
    """
    async with running(cluster, "cron", tmp_path) as programs:
        ledger = tmp_path / "ledger"
        programs.install("report", f"echo run >> {ledger}; echo failed >&2; exit 3")
        line = crontab_line("cron/report")
        servers = [
            await programs.start(f"server-{each}", "sh", "-c", line, HOLD="infinity")
            for each in (1, 2, 3)
        ]

        async def two_have_left() -> bool:
            return sum(not server.is_running for server in servers) == 2

        await until(two_have_left, "two servers leave")
        (active,) = (server for server in servers if server.is_running)
        for server in servers:
            if server is not active:
                assert (await server.ended(), server.said) == (75, "")
        await active.until_said("failed")
        assert ledger.read_text() == "run\n"
        active.signal_group(signal.SIGTERM)
        await active.ended()
        # The lock is being given back: wait for it.
        freed = line.replace("--wait 0", "--wait 5m")
        ended = await programs.finish("later", "sh", "-c", freed, HOLD="0")
        assert ended == (3, "failed\n")
        assert ledger.read_text() == "run\nrun\n"


async def test_a_line_leaves_where_the_lock_is_held(cluster: Cluster, tmp_path: Path) -> None:
    """Somebody else has the lock: nothing runs, and nothing is said that cron would mail."""
    async with (
        running(cluster, "cron", tmp_path) as programs,
        Client(programs.endpoints, timeout_ms=120_000) as client,
        client.session(ttl="5m") as session,
        session.lock("cron/refresh"),
    ):
        programs.install("refresh", "echo ran")
        line = crontab_line("cron/refresh")
        assert await programs.finish("cron", "sh", "-c", line) == (75, "")


async def test_the_cluster_keeps_the_schedule(cluster: Cluster, tmp_path: Path) -> None:
    """A task is due each second; two servers share the work. One is killed, and the other goes on:
    in order, each due time once, but for the one that was under way.
    """
    async with running(cluster, "cron", tmp_path) as programs:
        ledger = tmp_path / "ledger"
        programs.install("tick", f'echo "$COTERIE_SLOT_MS $COTERIE_TOKEN $SERVER" >> {ledger}')
        words = ("coterie", "tasks", "schedule", "fleet-cron", "tick", "--data", "tick")
        code, said = await programs.finish("schedule", *words, "--cron", "* * * * * *")
        assert code == 0, said
        servers = [await _serve(programs, name) for name in ("one", "two")]
        *_, last = await until(_runs_by(ledger), "two runs")
        killed = next(server for server in servers if server.name == last.server)
        await killed.end()
        others = {server.name for server in servers} - {killed.name}
        await until(_runs_by(ledger, *others, after=last.token), "two runs of the other")
        runs = _runs(ledger)
    assert all(earlier.token < later.token for earlier, later in pairwise(runs)), runs
    assert all(earlier.slot_ms <= later.slot_ms for earlier, later in pairwise(runs)), runs
    assert all(run.slot_ms % 1_000 == 0 for run in runs), runs
    repeated = {slot for slot, count in Counter(run.slot_ms for run in runs).items() if count > 1}
    # Which the server that was killed had in hand.
    assert len(repeated) <= 1, runs


async def test_the_commands_of_the_page_work(cluster: Cluster, tmp_path: Path) -> None:
    """Each `coterie tasks` that the page shows, in its order."""
    page = (ROOT / "docs" / "pages" / "recipes" / "cron.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\$ (coterie tasks .+)$", page, re.MULTILINE)
    assert len(lines) == 5
    async with running(cluster, "cron", tmp_path) as programs:
        for number, line in enumerate(lines):
            code, said = await programs.finish(f"line-{number}", "sh", "-c", line)
            assert code == 0, (line, said)


async def _serve(programs: Programs, name: str) -> Program:
    return await programs.start(name, "python", "fleetcron.py", FLEETCRON_TTL="5s", SERVER=name)


def _runs(ledger: Path) -> list[Run]:
    """All runs so far, in the order of writing."""
    text = ledger.read_text() if ledger.exists() else ""
    found = []
    for line in text.splitlines():
        slot, token, server = line.split()
        found.append(Run(int(slot), int(token), server))
    progress.reached(ledger, len(found))
    return found


def _runs_by(
    ledger: Path, *servers: str, after: int = 0
) -> Callable[[], Awaitable[list[Run] | None]]:
    """What finds the runs of these servers (of all when none is named), once there are two."""

    async def found() -> list[Run] | None:
        runs = [
            run
            for run in _runs(ledger)
            if run.token > after and (not servers or run.server in servers)
        ]
        return runs if len(runs) >= 2 else None

    return found
