"""What a node must know, and what it counts.

RULE: values only; where they come from is decided in `config.py` and `app.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.replication.engine import EngineSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """What a node must know. Lengths of time in seconds.

    Attributes:
        peers: names of the other members.
        http: address of our HTTP API as clients see it.
        fronts: address of every compatible front this node serves, by name.
        forward_bytes_max: of requests that another leader was given and has not answered.
        inbox_bytes_max: frames of peers that may wait for the next round.
        round_every: at the most between two rounds.
        sweep_every: how often requests under way are looked over.
        resend_after: a request without an answer for so long is sent again, under the same id.
        no_leader_after: how long a request waits for a leader to appear.
        status_every: between two words about ourselves to our peers.
    """

    node: str
    peers: tuple[str, ...]
    http: str = ""
    version: str = ""
    fronts: dict[str, str] = field(default_factory=dict)
    engine: EngineSettings = field(default_factory=EngineSettings)
    segment_bytes: int = 64 << 20
    pending_max: int = 20_000
    queue_requests_max: int = 50_000
    queue_bytes_max: int = 64 << 20
    forward_bytes_max: int = 16 << 20
    inbox_bytes_max: int = 128 << 20
    round_every: float = 0.02
    sweep_every: float = 0.1
    resend_after: float = 1.0
    no_leader_after: float = 2.5
    status_every: float = 0.5


@dataclass(slots=True)
class Counters:
    """What has happened since the start; only ever rising."""

    rounds: int = 0
    entries_sealed: int = 0
    commands_sealed: int = 0
    entries_applied: int = 0
    commands_applied: int = 0
    commands_taken: int = 0
    commands_forwarded: int = 0
    commands_resent: int = 0
    reads: int = 0
    frames_refused: int = 0
    leader_changes: int = 0
