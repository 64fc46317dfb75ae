"""What this node knows of the others: who is connected, who was heard when, what each says.

RULE: plain bookkeeping, given the time. Nothing here decides anything replicated.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cluster.wire.frames import Status


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One member as we know it. `state` is leader, follower, candidate or unreachable."""

    id: str
    http: str
    state: str
    applied: int
    lag: int
    connected: bool
    last_heard_ms: int | None
    digest: str
    version: str
    fronts: dict[str, str]


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """The cluster as this node knows it."""

    cluster: str
    node: str
    leader: str | None
    term: int
    commit: int
    applied: int
    digest: str
    role: str
    ready: bool
    why_not_ready: str | None
    stale_ms: int
    nodes: tuple[NodeStatus, ...]


@dataclass(slots=True)
class _Heard:
    status: Status | None = None
    at: float = float("-inf")


class Peers:
    """The other members. Times are monotonic seconds.

    Args:
        fresh_for: who was not heard for so long is not reachable.
    """

    def __init__(self, names: Iterable[str], *, fresh_for: float) -> None:
        self._heard = {name: _Heard() for name in names}
        self._connected: set[str] = set()
        self._fresh_for = fresh_for

    @property
    def connected(self) -> list[str]:
        """Those our outbound stream is up to, in order of their names."""
        return sorted(self._connected)

    def is_connected(self, peer: str | None) -> bool:
        """Our outbound stream to it is up."""
        return peer in self._connected

    def connect(self, peer: str) -> None:
        """Our outbound stream to `peer` is up."""
        self._connected.add(peer)

    def disconnect(self, peer: str) -> None:
        """Our outbound stream to `peer` is gone."""
        self._connected.discard(peer)

    def __contains__(self, name: str) -> bool:
        """It is a member."""
        return name in self._heard

    def hear(self, peer: str, now: float) -> None:
        """A readable frame of `peer` has come."""
        self._heard[peer].at = now

    def heard_at(self, peer: str | None) -> float | None:
        """When last; None where it is no peer."""
        heard = None if peer is None else self._heard.get(peer)
        return None if heard is None else heard.at

    def note(self, peer: str, status: Status) -> None:
        """Keep what `peer` says of itself."""
        self._heard[peer].status = status

    def statuses(self, now: float, *, leader: str | None, commit_index: int) -> list[NodeStatus]:
        """Every peer as it looks from here."""
        return [
            self._status(peer, heard, now, leader, commit_index)
            for peer, heard in self._heard.items()
        ]

    def _status(
        self, peer: str, heard: _Heard, now: float, leader: str | None, commit_index: int
    ) -> NodeStatus:
        status = heard.status
        is_connected = peer in self._connected
        applied = 0 if status is None else status.applied_index
        if not is_connected or now - heard.at >= self._fresh_for:
            state = "unreachable"
        elif peer == leader:
            state = "leader"
        elif status is None or status.role == "leader":
            state = "follower"
        else:
            state = status.role
        return NodeStatus(
            id=peer,
            http="" if status is None else status.http,
            state=state,
            applied=applied,
            lag=max(0, commit_index - applied),
            connected=is_connected,
            last_heard_ms=None if heard.at == float("-inf") else int((now - heard.at) * 1000),
            digest="" if status is None else status.digest,
            version="" if status is None else status.version,
            fronts={} if status is None else status.fronts,
        )
