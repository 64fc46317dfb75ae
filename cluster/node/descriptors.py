"""Descriptors: what clients leave to the disk and to the peers.

RULE: counts nothing. The system gives the lowest number that is free, so the next one tells how many
are taken, at whichever port their clients came in.
"""

from __future__ import annotations

import math
import os
import resource
from typing import Final

KEPT_BACK: Final = 256
"""For the journal, snapshots, peers and the listening sockets; half of all where there are few."""


def clients_max() -> float:
    """How many descriptors may be taken before no more clients are let in."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if soft == resource.RLIM_INFINITY else max(soft - KEPT_BACK, soft // 2)


def is_one_left() -> bool:
    """Whether one more client may stay. Asked for each new connection."""
    try:
        lowest = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    os.close(lowest)
    return lowest <= clients_max()
