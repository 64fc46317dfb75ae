"""A real node with a million jobs: filled, snapshotted while a client looks on, started again.

RULE: one process of `coterie serve` and a client over HTTP; what the client sees is what counts.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.cli.local import LocalCluster, planned_anywhere

JOBS = 1_000_000
PER_BATCH = 1_000
BODY = "x" * 64
READY_WITHIN_S = 300.0
CALM_S = 3.0
"""Before the snapshot, to see what stalls there are anyway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """What was seen.

    Attributes:
        filled_s: time to put all jobs, in batches over HTTP.
        calm_gap_ms: longest time between two acknowledgements without a snapshot.
        gap_ms: the same from before to after the snapshot.
        snapshot_s: from the first request after which it was due until its file was there.
        snapshot_mb: size of the file.
        resident_mb: of the node, before the snapshot.
        ready_s: from the start of a new process on this folder until it serves.
    """

    jobs: int
    filled_s: float
    resident_mb: float
    calm_gap_ms: float
    gap_ms: float
    snapshot_s: float
    snapshot_mb: float
    ready_s: float


def measure(folder: Path, say: Callable[[str], None], jobs: int = JOBS) -> Restart:
    """Fill, watch a snapshot, stop, start."""
    return asyncio.run(_measure(folder / "restart", say, jobs))


async def _measure(folder: Path, say: Callable[[str], None], jobs: int) -> Restart:
    (member,) = planned_anywhere(1)
    cluster = Node(folder, [member])
    cluster.prepare(log_level="warning")
    file = folder / f"{member.name}.toml"
    # By entries alone, far enough behind the filling that we can wait for it.
    due = jobs // PER_BATCH + 20_000
    table = tomllib.loads(file.read_text()) | {"snapshot_entries": due, "snapshot_bytes": 1 << 40}
    peers = table.pop("peers", None)
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    if peers:
        lines += ["[peers]", *(f'{name} = "{at}"' for name, at in peers.items())]
    file.write_text("\n".join(lines) + "\n")
    try:
        await cluster.start()
        await cluster.until_ready(within_s=READY_WITHIN_S)
        client = Client(member.http.host, member.http.port)
        filled_s = await asyncio.to_thread(client.fill, jobs)
        say(f"{jobs:,} jobs put in {filled_s:.1f} s")
        pid = cluster.pid(member.name)
        resident_mb = _resident_mb(pid)
        seen = await asyncio.to_thread(client.watch, folder / member.name, due)
        say(f"snapshot {seen}")
        await cluster.stop()
        began_s = time.monotonic()
        await cluster.start()
        await cluster.until_ready(within_s=READY_WITHIN_S)
        ready_s = time.monotonic() - began_s
        found = await asyncio.to_thread(Client(member.http.host, member.http.port).jobs)
        assert found == jobs, f"{found} jobs after the restart"
    finally:
        await cluster.kill()
    calm_gap_s, gap_s, snapshot_s, size = seen
    return Restart(
        jobs=jobs,
        filled_s=filled_s,
        resident_mb=resident_mb,
        calm_gap_ms=calm_gap_s * 1e3,
        gap_ms=gap_s * 1e3,
        snapshot_s=snapshot_s,
        snapshot_mb=size / 1e6,
        ready_s=ready_s,
    )


class Node(LocalCluster):
    """A cluster of one."""

    def pid(self, name: str) -> int:
        """Of its process."""
        return self._processes[name].pid


class Client:
    """One connection, one request after the other."""

    def __init__(self, host: str, port: int) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=READY_WITHIN_S)

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """One request; its answer must be a success."""
        data = None if body is None else json.dumps(body).encode()
        self._connection.request(method, path, data, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        text = answer.read()
        assert answer.status < 300, text
        return json.loads(text)

    def fill(self, jobs: int) -> float:
        """Put jobs, many in one entry; gives the seconds it took."""
        began_s = time.monotonic()
        for number in range(0, jobs, PER_BATCH):
            call = f"POST /v1/tubes/mail{number // PER_BATCH % 100}/jobs"
            commands = [{"call": call, "body": {"body": BODY}}] * min(PER_BATCH, jobs - number)
            self.ask("POST", "/v1/batch", {"commands": commands})
        return time.monotonic() - began_s

    def jobs(self) -> int:
        """How many there are."""
        return int(self.ask("GET", "/v1/tubes?limit=1")["totals"]["jobs"])

    def watch(self, data: Path, due: int) -> tuple[float, float, float, int]:
        """Renew a session again and again, until a snapshot has come.

        Returns:
            longest time between two acknowledgements before it was due and from then on, how long
            the snapshot took in seconds, and its size in bytes.
        """
        session = self.ask("POST", "/v1/sessions", {"ttl": "1h"})["session"]
        path = f"/v1/sessions/{session}/keepalive"
        calm_gap_s = gap_s = 0.0
        began_s = last_s = time.monotonic()
        due_s: float | None = None
        while True:
            answered = self.ask("POST", path)
            assert answered["session"] == session
            now_s = time.monotonic()
            if due_s is None:
                calm_gap_s = max(calm_gap_s, now_s - last_s)
                if now_s - began_s > CALM_S and self._applied() >= due - 200:
                    due_s = now_s
            else:
                gap_s = max(gap_s, now_s - last_s)
                if found := [one for one in data.rglob("*") if _is_snapshot(one)]:
                    return calm_gap_s, gap_s, now_s - due_s, found[0].stat().st_size
            last_s = time.monotonic()

    def _applied(self) -> int:
        return int(self.ask("GET", "/v1/cluster?consistency=stale")["applied"])


def report(restart: Restart) -> str:
    """A table."""
    rows = {
        f"putting them, {PER_BATCH:,} to a batch, one batch after the other": (
            f"{restart.filled_s:.1f} s"
        ),
        "the node's memory then": f"{restart.resident_mb:,.0f} MB",
        "snapshot": f"{restart.snapshot_mb:,.0f} MB, there after {restart.snapshot_s:.1f} s",
        "longest time between two acknowledgements, before": f"{restart.calm_gap_ms:.0f} ms",
        "the same while the snapshot is taken": f"{restart.gap_ms:.0f} ms",
        "stopped, started again: serves after": f"{restart.ready_s:.1f} s",
    }
    head = (
        f"One node, {restart.jobs:,} ready jobs of {len(BODY)} bytes; a client that renews its "
        "session, one request after the other."
    )
    lines = [f"| {what} | {value} |" for what, value in rows.items()]
    return "\n".join([head, "", "| | |", "| --- | ---: |", *lines])


def _is_snapshot(path: Path) -> bool:
    return path.name.startswith("snapshot-") and path.suffix == ".snap"


def _resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")
