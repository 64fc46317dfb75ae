"""One scheduler in a fleet of gunicorn workers: killed, paused, told to end.

What the workers have written is judged: tokens never fall, and no slot was run by two leaders.
"""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import aiohttp
import pytest
from jepsen.progress import progress, until

from tests.integration.cluster import Cluster
from tests.integration.recipes.programs import Program, Programs, module, running

pytestmark = pytest.mark.asyncio(loop_scope="package")

Run = tuple[str, int, int]


class Fleet:
    """What the workers of one gunicorn have written."""

    def __init__(self, ledger: Path):
        self._ledger = ledger

    def runs(self) -> list[Run]:
        """Slot, token and worker of each run of the job, in the order of writing."""
        if not self._ledger.exists():
            return []
        with closing(sqlite3.connect(self._ledger, timeout=30)) as db:
            try:
                found = db.execute("SELECT slot, token, pid FROM runs ORDER BY rowid").fetchall()
            except sqlite3.OperationalError:
                # Its tables are not there yet.
                return []
        progress.reached(self._ledger, len(found))
        return found

    async def until_runs(self, count: int, *, after: int = 0) -> Run:
        """Wait for so many runs under tokens newer than this; the last of them."""

        async def are_there() -> Run | None:
            newer = [run for run in self.runs() if run[1] > after]
            return newer[-1] if len(newer) >= count else None

        return await until(are_there, f"{count} runs under a token newer than {after}")


async def start(programs: Programs, *options: str) -> tuple[Program, Fleet]:
    """A gunicorn with three workers, whose job is due each second."""
    ledger = programs.folder / "ledger.db"
    gunicorn = await programs.start(
        "gunicorn",
        *module("gunicorn", "--bind", "127.0.0.1:0", *options),
        REPORT_LEDGER=str(ledger),
        REPORT_SECOND="*",
        SCHEDULER_TTL="2s",
    )
    return gunicorn, Fleet(ledger)


def judge(runs: list[Run]) -> None:
    """See that there was one leader at a time."""
    tokens = [token for _, token, _ in runs]
    assert tokens == sorted(tokens), runs
    by_slot: dict[str, set[int]] = {}
    for slot, token, _ in runs:
        by_slot.setdefault(slot, set()).add(token)
    assert all(len(tokens) == 1 for tokens in by_slot.values()), runs
    workers = {(token, pid) for _, token, pid in runs}
    assert len(workers) == len({token for token, _ in workers}), runs


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["forked", "preloaded"])
async def test_another_worker_takes_over_from_one_that_is_killed(
    cluster: Cluster, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """The leading worker dies by SIGKILL: another of the three runs the job from then on."""
    async with running(cluster, "scheduler", tmp_path) as programs:
        gunicorn, fleet = await start(programs, *options)
        _, token, pid = await fleet.until_runs(2)
        os.kill(pid, signal.SIGKILL)
        _, newer, other = await fleet.until_runs(2, after=token)
        assert other != pid
        port = (await gunicorn.until_said(r"Listening at: http://127\.0\.0\.1:(\d+)")).group(1)
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"http://127.0.0.1:{port}/") as response,
        ):
            leader = (await response.json())["leader"]
        assert leader["token"] == newer
        assert leader["name"].endswith(f" {other}")
        judge(fleet.runs())


async def test_a_paused_worker_comes_back_too_late(cluster: Cluster, tmp_path: Path) -> None:
    """The leading worker stands still for longer than its TTL: woken up, it writes nothing under
    its old token, and it can be elected again.
    """
    async with running(cluster, "scheduler", tmp_path) as programs:
        gunicorn, fleet = await start(programs)
        _, token, pid = await fleet.until_runs(1)
        os.kill(pid, signal.SIGSTOP)
        _, newer, _ = await fleet.until_runs(1, after=token)
        os.kill(pid, signal.SIGCONT)
        await gunicorn.until_said(f"worker {pid} runs no jobs any more")
        await fleet.until_runs(2, after=newer - 1)
        judge(fleet.runs())


async def test_a_fleet_that_is_told_to_end_resigns(cluster: Cluster, tmp_path: Path) -> None:
    """SIGTERM: gunicorn ends with 0, and nobody leads any more, well before any TTL is over."""
    async with running(cluster, "scheduler", tmp_path) as programs:
        gunicorn, fleet = await start(programs)
        await fleet.until_runs(1)
        gunicorn.signal(signal.SIGTERM)
        assert await gunicorn.ended() == 0
        leader = await cluster.leader()
        assert await cluster.holders(leader, "election/report scheduler") == []
        judge(fleet.runs())
