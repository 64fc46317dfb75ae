"""One scheduler in a fleet of gunicorn workers: killed, paused, told to end.

What the workers have written is judged: tokens never fall, and no slot was run by two leaders.
"""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
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
            runs = self.runs()
            judge(runs)
            newer = [run for run in runs if run[1] > after]
            return newer[-1] if len(newer) >= count else None

        return await until(are_there, f"{count} runs under a token newer than {after}")


async def start(programs: Programs, *options: str, ttl: str = "2s") -> tuple[Program, Fleet]:
    """A gunicorn with three workers, whose job is due each second."""
    ledger = programs.folder / "ledger.db"
    gunicorn = await programs.start(
        "gunicorn",
        *module("gunicorn", "--bind", "127.0.0.1:0", *options),
        REPORT_LEDGER=str(ledger),
        REPORT_SECOND="*",
        SCHEDULER_TTL=ttl,
    )
    return gunicorn, Fleet(ledger)


async def pause(pid: int, ledger: Path) -> None:
    """Have a worker stand still, but not while it writes: that would keep all others waiting."""

    async def stands_still() -> bool:
        os.kill(pid, signal.SIGSTOP)
        stat = Path(f"/proc/{pid}/stat")

        async def is_stopped() -> bool:
            return stat.read_text().rpartition(")")[2].split()[0] == "T"

        await until(is_stopped, f"process {pid} stopped")
        with closing(sqlite3.connect(ledger, timeout=0, isolation_level=None)) as db:
            try:
                db.execute("BEGIN IMMEDIATE")
                db.execute("ROLLBACK")
            except sqlite3.OperationalError:
                os.kill(pid, signal.SIGCONT)
                return False
        return True

    await until(stands_still, f"process {pid} paused beside its work")


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


async def test_another_worker_takes_over_from_one_that_is_killed(
    cluster: Cluster, tmp_path: Path
) -> None:
    """The leading worker dies by SIGKILL: another of the three runs the job from then on."""
    async with running(cluster, "scheduler", tmp_path) as programs:
        gunicorn, fleet = await start(programs)
        _, token, pid = await fleet.until_runs(2)
        os.kill(pid, signal.SIGKILL)
        await fleet.until_runs(2, after=token)
        port = (await gunicorn.until_said(r"Listening at: http://127\.0\.0\.1:(\d+)")).group(1)

        async def is_told() -> bool:
            async with (
                aiohttp.ClientSession() as http,
                http.get(f"http://127.0.0.1:{port}/") as response,
            ):
                leader = (await response.json())["leader"]
            _, newest, worker = fleet.runs()[-1]
            assert worker != pid
            return (
                leader is not None
                and leader["token"] == newest
                and leader["name"].endswith(f" {worker}")
            )

        await until(is_told, "the workers tell who leads")
        judge(fleet.runs())


async def test_a_paused_worker_comes_back_too_late(cluster: Cluster, tmp_path: Path) -> None:
    """The leading worker stands still for longer than its TTL: woken up, it writes nothing under
    its old token, and it can be elected again. The application was loaded before the fork.
    """
    async with running(cluster, "scheduler", tmp_path) as programs:
        gunicorn, fleet = await start(programs, "--preload")
        _, token, pid = await fleet.until_runs(1)
        await pause(pid, programs.folder / "ledger.db")
        _, newer, _ = await fleet.until_runs(1, after=token)
        os.kill(pid, signal.SIGCONT)
        await gunicorn.until_said(f"worker {pid} runs no jobs any more")
        await fleet.until_runs(2, after=newer - 1)
        judge(fleet.runs())


async def test_a_fleet_that_is_told_to_end_resigns(cluster: Cluster, tmp_path: Path) -> None:
    """SIGTERM: gunicorn ends with 0, and nobody leads any more, long before the TTL is over."""
    async with running(cluster, "scheduler", tmp_path) as programs:
        gunicorn, fleet = await start(programs, ttl="10m")
        await fleet.until_runs(1)
        gunicorn.signal(signal.SIGTERM)
        assert await gunicorn.ended() == 0

        async def is_free() -> bool:
            leader = await cluster.leader()
            return await cluster.holders(leader, "election/report scheduler") == []

        await until(is_free, "the leadership given back")
        judge(fleet.runs())
