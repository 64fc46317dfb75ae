"""Peers: what each says of itself, and whether it can be believed to be there."""

from __future__ import annotations

from cluster.node.peers import NodeStatus, Peers
from cluster.wire.frames import Status


def word(role: str = "follower", applied: int = 5) -> Status:
    """What a peer says of itself."""
    return Status(1, role, 3, applied, applied, "d", "http://b", "1", {})


def seen(peers: Peers, now: float, *, leader: str | None = None) -> NodeStatus:
    """The first peer, as it looks from here."""
    return peers.statuses(now, leader=leader, commit_index=9)[0]


def test_a_peer_is_reachable_while_it_is_connected_and_was_heard_of_late() -> None:
    """Both: a stream to a process that hangs stays up for a while."""
    peers = Peers(["b"], fresh_for=1.0)
    assert (seen(peers, 0.0).state, seen(peers, 0.0).last_heard_ms) == ("unreachable", None)
    peers.connect("b")
    peers.hear("b", 4.0)
    peers.note("b", word())
    now = seen(peers, 4.5)
    assert (now.state, now.applied, now.lag, now.last_heard_ms) == ("follower", 5, 4, 500)
    assert seen(peers, 5.0).state == "unreachable"
    peers.hear("b", 5.0)
    peers.disconnect("b")
    assert (seen(peers, 5.0).state, peers.connected) == ("unreachable", [])


def test_who_leads_is_what_we_know_and_not_what_a_peer_says() -> None:
    """A deposed leader may not have heard of it yet."""
    peers = Peers(["b"], fresh_for=1.0)
    peers.connect("b")
    peers.hear("b", 0.0)
    peers.note("b", word(role="leader"))
    assert seen(peers, 0.0).state == "follower"
    assert seen(peers, 0.0, leader="b").state == "leader"


def test_strangers_are_no_peers() -> None:
    """Nothing is known of them."""
    peers = Peers(["b"], fresh_for=1.0)
    assert "b" in peers and "x" not in peers
    assert peers.heard_at("x") is None and peers.heard_at(None) is None
    assert not peers.is_connected(None)
