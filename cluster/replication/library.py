"""The library: the one PySyncObj we trust, and what stands in for some of its parts.

RULE: nothing of Raft is decided here. Its private names are touched in `member.py`, `catchup.py`,
`elections.py` and `engine.py` only, which are one class in four layers; each name is on the list
below, or the start is refused.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pysyncobj
from pysyncobj import syncobj
from pysyncobj.node import Node as StockNode
from pysyncobj.transport import Transport as StockTransport

from cluster.replication.guard import EngineFault

LIBRARY_VERSION = "0.3.17"
LIBRARY_SHA256 = "e8bdf06797085d734df86e24ab4802fe87893dff77268565ec036f7ad4a1cfe4"

# What our layers rely on beyond the library's public face. An upgrade means: read the diff, run
# the simulator and all its ablations again, then change these constants.
PRIVATE_METHODS = (
    "_SyncObj__onMessageReceived",
    "_SyncObj__setCurrentTerm",
    "_SyncObj__setState",
    "_SyncObj__sendAppendEntries",
    "_SyncObj__applyLogEntries",
    "_SyncObj__doApplyCommand",
    "_SyncObj__deleteEntriesFrom",
    "_SyncObj__generateRaftTimeout",
    "_onTick",
    "_checkCommandsToApply",
    "_applyCommand",
    "transferLeadership",
    "forceLogCompaction",
)
PRIVATE_ATTRIBUTES = (
    "_SyncObj__transport",
    "_SyncObj__raftState",
    "_SyncObj__raftCurrentTerm",
    "_SyncObj__votedForNodeId",
    "_SyncObj__raftLeader",
    "_SyncObj__raftElectionDeadline",
    "_SyncObj__raftLog",
    "_SyncObj__serializer",
    "_SyncObj__raftCommitIndex",
    "_SyncObj__raftLastApplied",
    "_SyncObj__raftNextIndex",
    "_SyncObj__raftMatchIndex",
    "_SyncObj__lastResponseTime",
    "_SyncObj__connectedNodes",
    "_SyncObj__commandsWaitingCommit",
    "_SyncObj__noopIDx",
    "_SyncObj__newAppendEntriesTime",
    "_SyncObj__needLoadDumpFile",
    "_SyncObj__transferInProgress",
    "_poller",
)

FOLLOWER, CANDIDATE, LEADER = 0, 1, 2
"""States of a member, as the library numbers them."""


def check_library() -> None:
    """Refuse any PySyncObj but the one whose private names were read and simulated.

    Raises:
        EngineFault: names what differs.
    """
    cure = f"install exactly pysyncobj=={LIBRARY_VERSION} (pip install -r requirements.lock)"
    version = pysyncobj.version.VERSION
    if version != LIBRARY_VERSION:
        raise EngineFault(f"pysyncobj is version {version}, not {LIBRARY_VERSION}: {cure}")
    missing = [name for name in PRIVATE_METHODS if not hasattr(syncobj.SyncObj, name)]
    source = inspect.getsource(syncobj.SyncObj.__init__)
    for name in PRIVATE_ATTRIBUTES:
        plain = name.removeprefix("_SyncObj")
        if f"self.{plain}" not in source:
            missing.append(name)
    if missing:
        raise EngineFault(f"pysyncobj lacks the private names {', '.join(missing)}: {cure}")
    digest = hashlib.sha256(Path(inspect.getfile(syncobj)).read_bytes()).hexdigest()
    if digest != LIBRARY_SHA256:
        raise EngineFault(f"pysyncobj's syncobj.py was changed (sha256 {digest}): {cure}")


def use_clock(clock: Callable[[], float]) -> None:
    """Replace the library's monotonic clock (one per process). For the simulator."""
    syncobj.monotonicTime = clock


def now() -> float:
    """Monotonic seconds, as the library reads them."""
    return float(syncobj.monotonicTime())


class Peer(int, StockNode):
    """A member as the library sees it: a small number with a name.

    The library keys its tables by members and compares them by a property, in Python: a twentieth
    of a command's cost. A number does both at once, and keeps the order of a set of them the same
    in every run.
    """

    id = ""

    def __new__(cls, number: int, name: str) -> Self:
        """Make member `number` of this node's own list."""
        return super().__new__(cls, number)

    def __init__(self, number: int, name: str) -> None:
        StockNode.__init__(self, name)
        object.__setattr__(self, "id", name)


class Outbox(StockTransport):
    """The transport as the library sees it: hands every message to the engine."""

    def __init__(self, on_send: Callable[[Peer, dict[str, Any]], bool]) -> None:
        super().__init__(None, None, ())
        self.send = on_send


class Idle:
    """Stands where the library keeps its poller: the event loop is ours."""

    def poll(self, timeout: float) -> None:
        """Return at once."""
