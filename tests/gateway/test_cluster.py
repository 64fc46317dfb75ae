"""The cluster over HTTP."""

from __future__ import annotations

from cluster import errors
from tests.gateway.conftest import Api


async def test_the_cluster_is_shown_as_this_node_sees_it(api: Api) -> None:
    """The document of the contract, and what else a person would ask."""
    await api.open()
    got = await api.get("/v1/cluster")
    assert got.status == 200
    digest = api.node.machine.digest
    assert got.body == {
        "cluster": "test",
        "node": "n1",
        "leader": "n1",
        "role": "leader",
        "term": 1,
        "commit": 1,
        "applied": 1,
        "digest": digest,
        "ready": True,
        "nodes": [
            {
                "id": "n1",
                "http": "127.0.0.1:0",
                "state": "leader",
                "applied": 1,
                "lag": 0,
                "connected": True,
                "last_heard_ms": 0,
                "digest": digest,
                "version": "0",
                "fronts": {"ticketd": "127.0.0.1:9000"},
            }
        ],
    }


async def test_the_cluster_is_shown_while_nobody_leads(api: Api) -> None:
    """Then it is asked most, and says so."""
    api.node.leader = None
    for path in ("/v1/cluster", "/v1/cluster?consistency=stale"):
        got = await api.get(path)
        assert (got.status, got.body["leader"], got.body["ready"]) == (200, None, False)


async def test_leadership_is_handed_over(api: Api) -> None:
    """With a target or without; the answer says who leads now."""
    got = await api.post("/v1/cluster/transfer", {"to": "n2"})
    assert (got.status, got.body) == (200, {"leader": "n2", "term": 1})
    assert (await api.post("/v1/cluster/transfer")).status == 200


async def test_a_hand_over_that_fails_says_why(api: Api) -> None:
    """The node's refusal keeps its code, its status and its reason."""
    reason: dict[str, object] = {"nodes": ["n1"]}
    api.node.fail_with = errors.Refused("no n9", code="node_not_found", status=404, reason=reason)
    got = await api.post("/v1/cluster/transfer", {"to": "n9"})
    assert (got.status, got.code, got.body["nodes"]) == (404, "node_not_found", ["n1"])
    assert (await api.post("/v1/cluster/transfer", {"to": ""})).body["field"] == "to"
    assert (await api.post("/v1/cluster/transfer", {"too": "n1"})).body["field"] == "too"
