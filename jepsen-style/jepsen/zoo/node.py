"""Bugs of the node: its clock, its numbers, its reads, what it says to its clients.

RULE: patches of `cluster.node`, of what it says of itself, and of what tells watchers in
`cluster.gateway`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

from cluster import errors
from cluster.gateway import matching, watchers
from cluster.machine.events import Event
from cluster.machine.machine import Machine
from cluster.node import node as node_module
from cluster.node.clock import ClusterClock
from cluster.node.node import Node
from cluster.node.peers import ClusterStatus
from cluster.node.pending import Answered
from cluster.node.reads import Reads
from cluster.replication.identity import Identity
from jepsen.zoo.species import Plant, Real, Simulated, replaced

Off = AbstractContextManager[Any]


def _no_timers() -> Off:
    """A leader proposes nothing while nobody asks."""
    return replaced(Machine, next_deadline_ms=lambda self: None)


def _boot_not_counted() -> Off:
    """Every life of a node numbers its requests alike."""
    return replaced(Identity, boot=property(lambda self: 1))


def _own_clock() -> Off:
    """A new leader starts cluster time from its own clock."""
    lead = ClusterClock.lead

    def own(self: ClusterClock, now: float, *, applied_ms: int, last_term: int) -> None:
        lead(self, now, applied_ms=max(applied_ms, int(now * 1000)), last_term=last_term)

    return replaced(ClusterClock, lead=own)


def _any_leaders_clock() -> Off:
    """What any leader ever said of its clock counts for the next one."""
    lead = ClusterClock.lead

    def gullible(self: ClusterClock, now: float, *, applied_ms: int, last_term: int) -> None:
        lead(self, now, applied_ms=applied_ms, last_term=self._hint[0])

    return replaced(ClusterClock, lead=gullible)


def _clock_from_nothing() -> Off:
    """A new leader knows nothing of the time that has passed: it stands still for as long."""
    lead = ClusterClock.lead

    def fresh(self: ClusterClock, now: float, *, applied_ms: int, last_term: int) -> None:
        self._hint = (0, 0)
        lead(self, now, applied_ms=0, last_term=last_term)

    return replaced(ClusterClock, lead=fresh)


def _clock_runs_ahead() -> Off:
    """The leader's clock is half as fast again as it should be."""
    read = ClusterClock.now_ms

    def hasty(self: ClusterClock, now: float) -> int:
        return read(self, now + (now - self._base_at) / 2)

    return replaced(ClusterClock, now_ms=hasty)


def _always_ready() -> Off:
    """A node serves, as it says, whatever it knows."""
    return replaced(Node, _why_not_ready=lambda self, *_: None)


def _once_leader() -> Off:
    """Who has led goes on saying so until it hears of another leader."""
    tell = Node.status
    led: dict[str, ClusterStatus] = {}

    def boast(self: Node) -> ClusterStatus:
        status = tell(self)
        if status.leader is not None:
            led.pop(status.node, None)
        if status.role == "leader":
            led[status.node] = status
        return led.get(status.node, status)

    return replaced(Node, status=boast)


def _late_is_never() -> Off:
    """A request without an answer in time is reported as surely not done."""
    return replaced(
        node_module,
        _too_late=lambda waiting: errors.Timeout("no answer in time", definite=True),
        _no_leader=lambda waiting: errors.NoLeader("nobody leads", definite=True),
    )


def _local_reads() -> Off:
    """A node answers reads from what it has, follower or not."""

    def at_once(self: Node, on_ready: Any, *, timeout_ms: int = 10_000) -> None:
        on_ready(Answered(None, self.engine.applied_index))

    return replaced(Node, read=at_once)


def _reads_not_applied() -> Off:
    """A confirmed read does not wait until its position is applied."""
    serve = Reads.serve

    def hasty(self: Reads, applied: int) -> None:
        for read in self._confirmed:
            read.index = min(read.index or 0, applied)
        serve(self, applied)

    return replaced(Reads, serve=hasty)


def _resume_skips() -> Off:
    """Who comes back to watch misses the first entry behind the position it knows."""
    init = watchers.Watcher.__init__

    def hasty(self: watchers.Watcher, hub: watchers.Hub, wanted: Any, cursor: int) -> None:
        later = [index for index, _ in hub.history.after(cursor)]
        init(self, hub, wanted, later[0] if later else cursor)

    return replaced(watchers.Watcher, __init__=hasty)


def _event_lost() -> Off:
    """Of several events of one entry watchers are told all but the last."""
    entry = watchers.Hub.entry

    def most(self: watchers.Hub, index: int, events: Sequence[Event]) -> matching.Entry:
        return entry(self, index, events[:-1] if len(events) > 1 else events)

    return replaced(watchers.Hub, entry=most)


def _event_twice() -> Off:
    """Every seventh entry is told to watchers twice."""
    messages = matching.Entry.messages

    def twice(self: matching.Entry, wanted: matching.Filter) -> list[bytes]:
        return messages(self, wanted) * (2 if self.index % 7 == 0 else 1)

    return replaced(matching.Entry, messages=twice)


_STREAMS = frozenset({"K10 streams"})
_STATUS = frozenset({"K15 status"})

PLANTS: Final = (
    Plant(
        "plant-timers",
        "no timer entries",
        "node",
        _no_timers,
        Simulated(frozenset({"sessions end in time", "no queue stands still"})),
    ),
    Plant(
        "plant-boot",
        "starts of a node not counted",
        "node",
        _boot_not_counted,
        Simulated(frozenset({"refused means never", "works again after healing"})),
    ),
    Plant(
        "plant-clock",
        "leases expire by the leader's own clock",
        "node",
        _own_clock,
        Simulated(frozenset({"no session ends early"})),
    ),
    Plant(
        "plant-hint",
        "any leader's word on its clock counts",
        "node",
        _any_leaders_clock,
        Simulated(frozenset({"no session ends early"}), "idle"),
    ),
    Plant(
        "plant-clock-start",
        "a new leader's clock begins at nothing",
        "node",
        _clock_from_nothing,
        Simulated(frozenset({"cluster time goes on", "sessions end in time"})),
    ),
    Plant(
        "plant-fast-clock",
        "cluster time runs half as fast again",
        "node",
        _clock_runs_ahead,
        Simulated(frozenset({"no session ends early"})),
        Real(frozenset({"K6 sessions"}), "sessions", "none", 8.0),
    ),
    Plant(
        "plant-definite",
        "late is said to be never",
        "node",
        _late_is_never,
        Simulated(frozenset({"refused means never"})),
    ),
    Plant(
        "plant-reads",
        "followers answer reads from local state",
        "node",
        _local_reads,
        Simulated(frozenset({"reads miss nothing"})),
        Real(frozenset({"K1 linearizable locks"}), "locks", "network"),
    ),
    Plant(
        "plant-read-index",
        "a confirmed read does not wait for its position",
        "node",
        _reads_not_applied,
        Simulated(frozenset({"reads miss nothing"}), "partitions"),
    ),
    Plant(
        "status-ready",
        "a node without a leader says that it is ready",
        "node",
        _always_ready,
        real=Real(_STATUS, "locks", "leader-alone"),
    ),
    Plant(
        "status-leader",
        "a deposed leader says that it leads",
        "node",
        _once_leader,
        real=Real(_STATUS, "locks", "leader-alone"),
    ),
    Plant(
        "watch-resume",
        "a resumed stream skips what comes first",
        "gateway",
        _resume_skips,
        real=Real(_STREAMS, "watch", "client-cut"),
    ),
    Plant(
        "watch-lost",
        "the last of several events is not told",
        "gateway",
        _event_lost,
        real=Real(_STREAMS, "watch", "none", 8.0),
    ),
    Plant(
        "watch-twice",
        "some events are told twice",
        "gateway",
        _event_twice,
        real=Real(_STREAMS, "watch", "none", 8.0),
    ),
)
