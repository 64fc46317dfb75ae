"""Ceilings: what one node's HTTP alone can do, and what the load tool can ask for.

RULE: runs wrk where it is installed, and the load tool against a server that grants everything.
"""

from __future__ import annotations

import random
import re
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import figures, processes
from benchmarks.contenders import NODES, REPOSITORY, Contender
from benchmarks.load import Plan
from benchmarks.throughput import run_load

CONNECTIONS = 64
SESSIONS = 64
_RATE = re.compile(r"Requests/sec:\s+([\d.]+)")
_LATENCY = re.compile(r"\s(50|99)%\s+([\d.]+)(us|ms|s)\b")
_BAD = re.compile(r"Non-2xx or 3xx responses: (\d+)")
_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """Requests per second of one kind at 64 connections; latency in milliseconds.

    Attributes:
        node_us: processor time of the asked process per request, microseconds.
    """

    what: str
    requests_per_s: float
    p50: float
    p99: float
    node_us: float
    refused: int


def of_tool(folder: Path, seconds: float, rng: random.Random) -> Ceiling:
    """Run the load tool against a server that does nothing."""
    port = processes.free_ports(1, rng)[0]
    server = processes.start(
        [sys.executable, "-m", "benchmarks.echo", str(port)],
        log=folder / "echo.log",
        environment={},
        folder=REPOSITORY,
    )
    try:
        _await_port(port)
        result = run_load(
            Plan(
                dialect="coterie",
                ports=[port],
                connections=CONNECTIONS,
                seconds=seconds,
                pids={"echo": server.pid},
            )
        )
    finally:
        processes.end(server)
    cycles, took = int(str(result["cycles"])), float(str(result["seconds"]))
    cycle, spent = result["cycle"], result["cpu_s"]
    assert isinstance(cycle, dict)
    assert isinstance(spent, dict)
    return Ceiling(
        what="load tool against a server that grants at once: cycles",
        requests_per_s=cycles / took,
        p50=cycle["p50"],
        p99=cycle["p99"],
        node_us=spent["echo"] / max(1, cycles) * 1e6,
        refused=0,
    )


def of_node(contender: Contender, folder: Path, seconds: float) -> list[Ceiling]:
    """Run wrk against Coterie's leader and one follower; nothing where wrk is not installed."""
    if shutil.which("wrk") is None:
        return []
    leader = contender.settled()
    follower = (leader + 1) % NODES
    found = [_wrk(contender, leader, "GET /livez at the leader", "/livez", None, seconds)]
    script = folder / "keepalive.lua"
    sessions = [
        contender.ask(leader, "POST", "/v1/sessions", b'{"ttl":"60s"}')["session"]
        for _ in range(SESSIONS)
    ]
    script.write_text(_KEEPALIVE.replace("SESSIONS", ", ".join(f'"{one}"' for one in sessions)))
    for node, where in ((leader, "the leader"), (follower, "a follower")):
        what = f"POST keepalive at {where}"
        found.append(_wrk(contender, node, what, "/", script, seconds))
    for session in sessions:
        contender.ask(leader, "DELETE", f"/v1/sessions/{session}")
    return found


def report(ceilings: list[Ceiling]) -> str:
    """Make the table."""
    head = ("64 connections", "per second", "p50 ms", "p99 ms", "CPU µs each", "refused")
    rows = [
        (
            one.what,
            f"{one.requests_per_s:,.0f}",
            f"{one.p50:.2f}",
            f"{one.p99:.2f}",
            f"{one.node_us:.0f}",
            one.refused,
        )
        for one in ceilings
    ]
    return figures.table(head, rows)


# Each connection of wrk is at any session; a keepalive is a replicated command each.
_KEEPALIVE = """
local sessions = {SESSIONS}
local next = 0
request = function()
  next = next % #sessions + 1
  return wrk.format("POST", "/v1/sessions/" .. sessions[next] .. "/keepalive")
end
"""


def _wrk(
    contender: Contender, node: int, what: str, path: str, script: Path | None, seconds: float
) -> Ceiling:
    pid = contender.pid(node)
    before = processes.cpu_s(pid)
    done = subprocess.run(
        [
            "wrk",
            *("--threads", "1"),
            *("--connections", str(CONNECTIONS)),
            *("--duration", f"{max(1, round(seconds))}s"),
            "--latency",
            *(() if script is None else ("--script", str(script))),
            f"http://127.0.0.1:{contender.ports[node]}{path}",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 30,
        preexec_fn=processes.dies_with_us(),
        process_group=0,
    )
    spent = processes.cpu_s(pid) - before
    rate, bad = _RATE.search(done.stdout), _BAD.search(done.stdout)
    latency = {
        share: float(value) * _MS[unit] for share, value, unit in _LATENCY.findall(done.stdout)
    }
    per_s = float(rate[1]) if rate else 0.0
    return Ceiling(
        what=what,
        requests_per_s=per_s,
        p50=latency.get("50", float("nan")),
        p99=latency.get("99", float("nan")),
        node_us=spent / max(1.0, per_s * round(seconds)) * 1e6,
        refused=int(bad[1]) if bad else 0,
    )


def _await_port(port: int, patience_s: float = 10.0) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
