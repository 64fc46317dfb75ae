"""Where the time goes, on the leader and on a follower, under lock cycles at 64 connections.

RULE: py-spy where it is on PATH (it samples from outside), else cProfile
through profiled_node (which doubles the cost of small Python functions: read it as a ranking).

Time is given twice: to the *owner*, the innermost file of `cluster/` on the stack (so that a
library's work counts for who asked for it), and to the function that ran.
"""

from __future__ import annotations

import pstats
import random
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import figures, processes
from benchmarks.contenders import NODES, REPOSITORY, Coterie
from benchmarks.load import Plan
from benchmarks.throughput import run_load

CONNECTIONS = 64
RATE_HZ = 200
SHOWN = 25
WARMUP_S = 1.0

# Below everything: whatever a library does on its own account would be theirs.
_STARTS = re.compile(r"cluster/(app\.py|cli/)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One role's processor time, in microseconds per lock cycle of the whole cluster.

    Attributes:
        tool: py-spy or cProfile; the sum of cProfile's figures is larger than the truth.
        owners: by innermost file of `cluster/`, else by library.
        functions: by function that ran (with py-spy native code counts for its caller in Python).
    """

    role: str
    placement: str
    tool: str
    cycles_per_s: float
    total_us: float
    owners: dict[str, float]
    functions: dict[str, float]


def measure(folder: Path, seconds: float, rng: random.Random) -> list[Profile]:
    """Profile leader and follower, with clients at the leader and then spread."""
    by_pyspy = shutil.which("py-spy") is not None
    measure_one = _by_pyspy if by_pyspy else _by_cprofile
    found: list[Profile] = []
    for placement in ("leader", "spread"):
        here = folder / f"profile-{placement}"
        here.mkdir()
        found += measure_one(here, placement, seconds, rng)
    return found


def report(profiles: Iterable[Profile]) -> str:
    """Make a table of owners and one of functions per profile."""
    parts = []
    for one in profiles:
        where = "at the leader" if one.placement == "leader" else "spread"
        parts.append(
            f"### {one.role}, clients {where}: {one.total_us:.0f} µs per cycle "
            f"({one.tool}, {one.cycles_per_s:,.0f} cycles/s while profiled)"
        )
        for head, costs in (("owner", one.owners), ("function", one.functions)):
            rows = [
                (name, f"{cost:.1f}", f"{cost / one.total_us:.1%}")
                for name, cost in list(costs.items())[:SHOWN]
            ]
            parts.append(figures.table((head, "µs per cycle", "share"), rows))
    return "\n\n".join(parts)


def _by_pyspy(folder: Path, placement: str, seconds: float, rng: random.Random) -> list[Profile]:
    cluster = Coterie(folder, rng)
    try:
        leader = cluster.start()
        follower = (leader + 1) % NODES
        roles = {"leader": leader, "follower": follower}
        spies = [
            subprocess.Popen(
                [
                    "py-spy",
                    "record",
                    *("--pid", str(cluster.pid(node))),
                    *("--rate", str(RATE_HZ)),
                    *("--duration", str(round(seconds + WARMUP_S))),
                    *("--format", "raw"),
                    *("--output", str(folder / f"{role}.raw")),
                    # Who holds the interpreter: waiting for the disk is not work. Blocking, as stacks read
                    # while they change are wrong too often.
                    "--gil",
                    "--function",
                ],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                preexec_fn=processes.dies_with_us(),  # noqa: PLW1509 - we have one thread
                process_group=0,
            )
            for role, node in roles.items()
        ]
        result = run_load(_plan(cluster, leader, placement, seconds + WARMUP_S))
        for spy in spies:
            spy.wait(seconds + 30)
    finally:
        cluster.stop()
    return [
        _sampled(folder / f"{role}.raw", role, placement, result, _cpu_us(result, str(node)))
        for role, node in roles.items()
    ]


def _by_cprofile(folder: Path, placement: str, seconds: float, rng: random.Random) -> list[Profile]:
    output = str(folder / "n{node}.prof")
    cluster = Coterie(folder, rng, wrapper=("-m", "benchmarks.profiled_node", output))
    try:
        leader = cluster.start()
        result = run_load(_plan(cluster, leader, placement, seconds))
    finally:
        cluster.stop()
    follower = (leader + 1) % NODES
    return [
        _traced(Path(output.format(node=node)), role, placement, result)
        for role, node in (("leader", leader), ("follower", follower))
    ]


def _plan(cluster: Coterie, leader: int, placement: str, seconds: float) -> Plan:
    others = [(leader + 1 + step) % NODES for step in range(NODES)]
    at = [leader] if placement == "leader" else others
    return Plan(
        dialect="coterie",
        ports=[cluster.ports[node] for node in at],
        connections=CONNECTIONS,
        seconds=seconds,
        warmup_s=0.0,
        pids={str(node): cluster.pid(node) for node in range(NODES)},
    )


def _cpu_us(result: dict[str, object], node: str) -> float:
    spent, cycles = result["cpu_s"], result["cycles"]
    assert isinstance(spent, dict)
    assert isinstance(cycles, int)
    return float(spent[node]) / max(1, cycles) * 1e6


def _sampled(
    path: Path, role: str, placement: str, result: dict[str, object], total_us: float
) -> Profile:
    """Read py-spy's collapsed stacks: `frame;frame;frame count`, outermost first."""
    owners: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    for line in path.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        owners[_owner(frames)] += int(count)
        functions[_short(frames[-1])] += int(count)
    scale = total_us / max(1, owners.total())
    return Profile(
        role=role,
        placement=placement,
        tool="py-spy",
        cycles_per_s=int(str(result["cycles"])) / float(str(result["seconds"])),
        total_us=total_us,
        owners={name: count * scale for name, count in owners.most_common()},
        functions={name: count * scale for name, count in functions.most_common()},
    )


def _traced(path: Path, role: str, placement: str, result: dict[str, object]) -> Profile:
    """Read cProfile's figures; its own time of each function, without owners for libraries."""
    owners: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    # The attribute exists since Python 2; typeshed does not tell.
    stats = vars(pstats.Stats(str(path)))["stats"]
    for (file, _, function), (_, _, own_s, _, _) in stats.items():
        if "poll" in function or "select" in function or function.endswith("run_until_complete>"):
            continue
        name = f"{function} ({file})"
        owners[_owner([name])] += own_s
        functions[_short(name)] += own_s
    cycles = int(str(result["cycles"]))
    per_cycle = 1e6 / max(1, cycles)
    return Profile(
        role=role,
        placement=placement,
        tool="cProfile",
        cycles_per_s=cycles / float(str(result["seconds"])),
        total_us=sum(owners.values()) * per_cycle,
        owners={name: cost * per_cycle for name, cost in owners.most_common()},
        functions={name: cost * per_cycle for name, cost in functions.most_common()},
    )


def _owner(frames: list[str]) -> str:
    for frame in reversed(frames):
        file = frame.rpartition(" (")[2].rstrip(")").partition(":")[0]
        if "cluster/" in file and "site-packages" not in file and not _STARTS.search(file):
            return "cluster/" + file.rpartition("cluster/")[2]
    file = frames[-1].rpartition(" (")[2].rstrip(")").partition(":")[0]
    return _library(file)


def _library(file: str) -> str:
    for mark in ("site-packages/", "python3."):
        if mark in file:
            rest = file.rpartition(mark)[2].split("/")
            return rest[0] if mark == "site-packages/" else "/".join(rest[1:2])
    return file.partition("/")[0] or "native code"


def _short(frame: str) -> str:
    function, _, file = frame.rpartition(" (")
    file = file.rstrip(")")
    for mark in (f"{REPOSITORY}/", "site-packages/"):
        if mark in file:
            file = file.rpartition(mark)[2]
    return f"{file} {function}"
