"""The cluster over HTTP: who leads, how far each node is, and handing leadership over.

RULE: tells what this node knows, at once and without asking others: it must answer when nobody
leads. What it says follows the state machine, not a cache.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec

from cluster.gateway.asking import reply_to
from cluster.gateway.replies import Answer
from cluster.gateway.requests import CONSISTENCY, Ask, Body
from cluster.gateway.routes import Local, Route
from cluster.node.face import NodeFace
from cluster.node.pending import OnReply


class Transfer(Body, frozen=True):
    """Hand leadership to the node `to`, or to the one that is furthest."""

    to: Annotated[str, msgspec.Meta(min_length=1, max_length=63)] | None = None


class NodeView(msgspec.Struct, frozen=True):
    """One node as the answering one sees it.

    `state` is leader, follower, candidate or unreachable; `lag` counts entries behind the commit;
    `last_heard_ms` is how long ago it was heard from, null for never.
    """

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


class ClusterView(msgspec.Struct, frozen=True):
    """The cluster as the answering `node` sees it; `leader` is null when it knows of none.

    Equal `applied` and different `digest` on two nodes would mean that they have diverged.
    """

    cluster: str
    node: str
    leader: str | None
    role: str
    term: int
    commit: int
    applied: int
    digest: str
    ready: bool
    nodes: list[NodeView]


class LeaderView(msgspec.Struct, frozen=True):
    """Who leads after the hand-over, as far as this node knows."""

    leader: str | None
    term: int


async def show(node: NodeFace, _ask: Ask) -> Answer:
    """Show the cluster."""
    status = node.status()
    nodes = [
        NodeView(
            id=other.id,
            http=other.http,
            state=other.state,
            applied=other.applied,
            lag=other.lag,
            connected=other.connected,
            last_heard_ms=other.last_heard_ms,
            digest=other.digest,
            version=other.version,
            fronts=dict(other.fronts),
        )
        for other in status.nodes
    ]
    view = ClusterView(
        cluster=status.cluster,
        node=status.node,
        leader=status.leader,
        role=status.role,
        term=status.term,
        commit=status.commit,
        applied=status.applied,
        digest=status.digest,
        ready=status.ready,
        nodes=nodes,
    )
    return Answer(200, view)


async def transfer(node: NodeFace, ask: Ask) -> Answer:
    """Hand leadership over and say who leads now."""

    def ask_node(on_reply: OnReply) -> None:
        node.transfer(ask.body.to, on_reply)

    await reply_to(ask_node, asyncio.get_running_loop())
    status = node.status()
    return Answer(200, LeaderView(leader=status.leader, term=status.term))


# Taken as on every read, so that a client may send it everywhere; it makes no difference here.
ANY_CONSISTENCY = CONSISTENCY._replace(
    meaning="makes no difference: the answer is always what this node knows now"
)

ROUTES: tuple[Route, ...] = (
    Local(
        method="GET",
        path="/v1/cluster",
        summary="Show who leads and how far each node is, as this node sees it.",
        tag="cluster",
        answer=ClusterView,
        query=(ANY_CONSISTENCY,),
        act=show,
    ),
    Local(
        method="POST",
        path="/v1/cluster/transfer",
        summary="Hand leadership over.",
        tag="cluster",
        body=Transfer,
        answer=LeaderView,
        codes=(
            "node_not_found",
            "no_candidate",
            "transfer_running",
            "transfer_timed_out",
            "not_leader",
            "no_leader",
            "timeout",
        ),
        act=transfer,
    ),
)
