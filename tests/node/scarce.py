"""Descriptors made scarce, in this process."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator

from cluster.node.descriptors import KEPT_BACK


@contextlib.contextmanager
def scarce_descriptors() -> Iterator[None]:
    """Clients have taken as many as they may; some are left for everybody else."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    few = min(2 * lowest - 1, lowest - 1 + KEPT_BACK)
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
