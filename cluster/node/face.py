"""What the gateway and the fronts ask of a node.

RULE: a protocol only. The real node is `cluster.node.node.Node`; tests put the machine behind the
same face without replication.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from cluster.machine.commands import Command
from cluster.machine.machine import Machine
from cluster.node.peers import ClusterStatus
from cluster.node.pending import OnReply
from cluster.node.settings import Counters


class NodeFace(Protocol):
    """The node's verbs. Each function given is called once, with the reply, mostly later."""

    @property
    def machine(self) -> Machine:
        """Local state, to be read and never changed."""

    @property
    def counters(self) -> Counters:
        """What has happened since the start."""

    @property
    def applied_index(self) -> int:
        """Log position that the local state reflects."""

    @property
    def under_way(self) -> int:
        """Requests taken and not yet answered, parked ones apart."""

    @property
    def parked(self) -> int:
        """Requests that wait in a queue of the machine."""

    def submit(
        self,
        command: Command,
        on_reply: OnReply,
        *,
        timeout_ms: int = 10_000,
        key: str | None = None,
        fingerprint: bytes | None = None,
        patient: bool = False,
    ) -> int:
        """Take a command; returns the handle for `hang_up`.

        `patient`: it waits for a leader as long as its timeout lets it.

        Raises:
            Overloaded, ShuttingDown, Refused: it was not taken.
        """

    def hang_up(self, handle: int, /) -> None:
        """Nobody waits for this reply any more; a parked request leaves its queue."""

    def read(self, on_ready: OnReply, *, timeout_ms: int = 10_000) -> None:
        """Reply once local state includes everything acknowledged before this call."""

    def on_applied(self, callback: Callable[[], None], /) -> Callable[[], None]:
        """Have `callback` called after every round that moved the local state.

        It must be quick and must not raise. Returns how to end that.
        """

    def now_ms(self) -> int:
        """Estimate of cluster time now."""

    def status(self) -> ClusterStatus:
        """Describe the cluster as this node sees it."""

    def transfer(self, to: str | None, on_reply: OnReply) -> None:
        """Hand leadership to `to`, or to whom the leader thinks best."""
