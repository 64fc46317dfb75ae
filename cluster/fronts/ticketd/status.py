"""ticketd's status page.

RULE: values out. What Go's runtime would tell is told of our process, as far as it has the like.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import resource
import sys
from typing import Any, Final

VERSION: Final = "0.2.0"
"""Of the server whose place we take: clients may look at it."""

_NS_PER_S = 1_000_000_000
_MIB = 1024 * 1024


def status(started_ms: int, uptime_s: float) -> dict[str, Any]:
    """The page.

    Args:
        started_ms: since 1970.
    """
    cpus = os.cpu_count() or 1
    uptime_ns = round(uptime_s * _NS_PER_S)
    return {
        "Version": VERSION,
        "Uptime": uptime(uptime_ns // _NS_PER_S),
        "Started": _rfc3339(started_ms // 1000 * 1000),
        "Uptime_t": uptime_ns,
        "Started_t": _rfc3339(started_ms),
        "NumCpus": cpus,
        "GoMaxProcs": cpus,
        "NumGoroutines": len(asyncio.all_tasks()),
        "HeapAllocMB": _resident_mib(),
        "StackAllocMB": 0.0,
        "SysAllocMB": _resident_mib(),
        "HeapObjects": sys.getallocatedblocks(),
    }


def uptime(seconds: int) -> str:
    """As in `3 days, 04:05:06`."""
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return f"{days} days, {hour:02}:{minute:02}:{second:02}"


def _rfc3339(at_ms: int) -> str:
    """In UTC, with as much of a fraction as there is."""
    seconds, millis = divmod(at_ms, 1000)
    text = dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}{f'.{millis:03}'.rstrip('0') if millis else ''}Z"


def _resident_mib() -> float:
    """The most that this process ever had in memory; Linux tells it in KiB, macOS in bytes."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / _MIB if sys.platform == "darwin" else size / 1024
