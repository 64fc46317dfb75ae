"""Figures: what the node and the gateway tell Prometheus.

RULE: reads counters that others keep anyway; nothing here is on the way of a request.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import msgspec

from cluster.gateway.admission import Admission
from cluster.gateway.connections import Connections
from cluster.gateway.watchers import Hub
from cluster.node.face import NodeFace
from cluster.telemetry.metrics import Figure


def of_node(node: NodeFace) -> Iterator[Figure]:
    """Read the node: its place in the cluster, its peers, its state, its work."""
    status = node.status()
    yield Figure("coterie_raft_term", "Term of this node.", status.term)
    yield Figure("coterie_raft_commit_index", "Last position known as committed.", status.commit)
    yield Figure("coterie_raft_applied_index", "Last position applied.", status.applied)
    yield Figure("coterie_raft_is_leader", "1 on the leader.", status.role == "leader")
    yield Figure("coterie_raft_has_leader", "1 while a leader is known.", status.leader is not None)
    yield Figure("coterie_ready", "1 while the node serves.", status.ready)
    yield Figure(
        "coterie_stale_seconds", "How old this node's state may be.", status.stale_ms / 1000
    )
    peers = [peer for peer in status.nodes if peer.id != status.node]
    for peer in peers:
        yield Figure(
            "coterie_peer_connected",
            "1 while our stream to the peer stands.",
            peer.connected,
            {"peer": peer.id},
        )
    for peer in peers:
        yield Figure(
            "coterie_peer_lag_entries",
            "Entries the peer has still to apply, by its last word.",
            peer.lag,
            {"peer": peer.id},
        )
    for kind, count in msgspec.structs.asdict(node.machine.counts()).items():
        yield Figure(f"coterie_machine_{kind}", f"Replicated state: {_words(kind)}.", count)
    yield Figure("coterie_requests_under_way", "Taken and not yet answered.", node.under_way)
    yield Figure("coterie_requests_parked", "Standing in a queue of the cluster.", node.parked)
    for item in dataclasses.fields(node.counters):
        yield Figure(
            f"coterie_node_{item.name}",
            f"Since the start: {_words(item.name)}.",
            getattr(node.counters, item.name),
            only_rises=True,
        )


def of_gateway(connections: Connections, admission: Admission, hub: Hub) -> Iterator[Figure]:
    """Read the gateway: its connections and the requests in progress."""
    yield Figure("coterie_http_connections", "Open connections.", len(connections))
    for lane, count in admission.inside.items():
        yield Figure(
            "coterie_http_in_progress", "Requests in progress, by lane.", count, {"lane": lane}
        )
    yield Figure(
        "coterie_http_refused",
        "Requests refused as there were too many.",
        admission.refused,
        only_rises=True,
    )
    yield Figure(
        "coterie_http_connections_refused",
        "Connections refused as there were too many.",
        connections.refused,
        only_rises=True,
    )
    yield Figure(
        "coterie_http_connections_evicted",
        "Connections closed as they dawdled.",
        connections.evicted,
        only_rises=True,
    )
    yield Figure("coterie_http_watchers", "Streams of events.", len(hub))
    yield Figure(
        "coterie_http_watchers_refused",
        "Streams of events refused as there were too many.",
        hub.refused,
        only_rises=True,
    )
    yield Figure(
        "coterie_http_watchers_cut",
        "Streams of events ended as their clients did not read.",
        hub.cut,
        only_rises=True,
    )


def _words(name: str) -> str:
    return name.replace("_", " ")
