"""Figures: percentiles, tables for people, and the facts of the machine they were made on.

RULE: reads, counts and formats; starts nothing that lasts.
"""

from __future__ import annotations

import math
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from time import perf_counter_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Latencies of one kind, in milliseconds."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    max: float


def summary(latencies_ns: Iterable[int]) -> Latency | None:
    """Summarise; None for no latency at all."""
    ordered = sorted(latencies_ns)
    if not ordered:
        return None
    return Latency(
        count=len(ordered),
        mean=sum(ordered) / len(ordered) / 1e6,
        p50=percentile(ordered, 0.5) / 1e6,
        p90=percentile(ordered, 0.9) / 1e6,
        p99=percentile(ordered, 0.99) / 1e6,
        max=ordered[-1] / 1e6,
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of all do not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Make a markdown table; all but the first column is set to the right."""
    lines = [list(head), ["---", *("---:" for _ in head[1:])]]
    lines += [[str(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def sync_us(folder: Path, count: int = 300) -> dict[str, float]:
    """Measure what a small append and `fdatasync` cost in `folder`, microseconds."""
    costs = []
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(count):
            started = perf_counter_ns()
            os.write(file.fileno(), b"\0" * 256)
            os.fdatasync(file.fileno())
            costs.append((perf_counter_ns() - started) / 1000)
    costs.sort()
    return {"p50": percentile(costs, 0.5), "p99": percentile(costs, 0.99)}


def machine(folder: Path, repository: Path) -> dict[str, object]:
    """Tell what the figures were made on: machine, kernel, disk, versions."""
    known = ("aiohttp", "cbor2", "msgspec", "pysyncobj", "uvloop")
    return {
        "processors": os.cpu_count(),
        "processor": _processor(),
        "kernel": platform.release(),
        "file_system": _said_by(["stat", "--file-system", "--format=%T", str(folder)]),
        "fdatasync_us": sync_us(folder),
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        "commit": _said_by(["git", "-C", str(repository), "describe", "--always", "--dirty"]),
        **{name: _version(name) for name in known},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _said_by(command: Sequence[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
