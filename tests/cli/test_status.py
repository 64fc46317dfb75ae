"""`coterie status` and `coterie transfer`: what is believed, how it is judged, what is told."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from cluster.cli.status import DEGRADED, HEALTHY, UNREACHABLE, best_of, judge
from cluster.client.aio import ClusterState
from tests.cli.running import finish
from tests.client.small_server import SmallServer, problem


def node(name: str, **more: Any) -> dict[str, Any]:
    """A node as `/v1/cluster` tells of it."""
    told = {"id": name, "http": f"http://{name}", "state": "follower", "applied": 5, "lag": 0}
    return told | {"connected": True, "digest": "aa", "last_heard_ms": 3, "version": "1"} | more


def view(asked: str = "n1", **more: Any) -> dict[str, Any]:
    """What `/v1/cluster` answers."""
    told = {"cluster": "c", "node": asked, "leader": "n1", "term": 3, "commit": 5, "applied": 5}
    nodes = [node("n1", state="leader"), node("n2"), node("n3")]
    return told | {"digest": "aa", "ready": True, "nodes": nodes} | more


def state(**more: Any) -> ClusterState:
    """The same as a value."""
    return msgspec.convert(view(**more), ClusterState)


class TestJudging:
    """From views to a verdict."""

    def test_the_view_of_the_leader_of_the_newest_term_is_believed(self) -> None:
        """A node that was cut off speaks of an old term."""
        old = state(asked="n2", term=2, leader="n2")
        newest = state(asked="n1", term=3)
        follower = state(asked="n3", term=3, applied=9)
        alone = state(asked="n4", term=9, leader=None)
        assert best_of([old, follower, newest, alone]) is newest
        assert best_of([alone, old]) is old
        assert best_of([]) is None

    def test_all_well_is_healthy(self) -> None:
        """Without reasons."""
        assert judge(state(), {}) == (HEALTHY, [])

    def test_no_answer_at_all_is_unreachable(self) -> None:
        """With what went wrong at each endpoint."""
        verdict, reasons = judge(None, {"http://a:1": "refused"})
        assert (verdict, reasons) == (UNREACHABLE, ["http://a:1 does not answer: refused"])

    @pytest.mark.parametrize(
        ("more", "failures", "said"),
        [
            ({"leader": None}, {}, "nobody leads, says n1"),
            ({"nodes": [node("n2", state="unreachable")]}, {}, "n2 is unreachable"),
            ({"nodes": [node("n2", connected=False)]}, {}, "n2 is follower"),
            ({}, {"http://a:1": "refused"}, "http://a:1 does not answer: refused"),
            (
                {"nodes": [node("n2", state="unreachable", http="http://a:1")]},
                {"http://a:1": "refused"},
                "n2 is unreachable: http://a:1 does not answer: refused",
            ),
            (
                {"nodes": [node("n1"), node("n2", digest="bb"), node("n3", applied=4)]},
                {},
                "nodes have diverged at index 5: n1, n2 differ",
            ),
        ],
    )
    def test_what_is_wrong_is_named(
        self, more: dict[str, Any], failures: dict[str, str], said: str
    ) -> None:
        """Each makes the cluster degraded."""
        verdict, reasons = judge(state(**more), failures)
        assert verdict == DEGRADED
        assert reasons[0].startswith(said)
        assert len(reasons) == 1

    def test_a_value_that_a_node_cannot_know_is_no_fault(self) -> None:
        """Older nodes tell less."""
        assert judge(state(nodes=[{"id": "n2"}]), {})[0] == HEALTHY


class TestCommand:
    """The command in a process of its own."""

    async def test_a_healthy_cluster_ends_with_0(self) -> None:
        """And a table of its nodes."""
        async with SmallServer() as server:
            server.cluster = view()
            code, out, _ = await finish("status", "--endpoints", server.endpoint)
        lines = out.splitlines()
        assert code == 0
        assert lines[0] == "cluster c: healthy, leader n1, term 3, commit 5 (asked n1)"
        assert lines[1].split()[:3] == ["NODE", "STATE", "HTTP"]
        assert lines[2].split() == ["n1", "leader", "http://n1", "5", "0", "3", "ms", "1"]

    async def test_an_endpoint_that_is_down_ends_with_1(self) -> None:
        """The others still tell what they know, here as JSON."""
        async with SmallServer() as server, SmallServer() as down:
            server.cluster = view()
            await down.stop()
            endpoints = f"{down.endpoint},{server.endpoint}"
            code, out, _ = await finish("status", "--endpoints", endpoints, "-o", "json")
        told = json.loads(out)
        assert (code, told["health"], told["leader"]) == (1, "degraded", "n1")
        assert list(told["failures"]) == [f"http://{down.endpoint}"]
        assert [each["id"] for each in told["nodes"]] == ["n1", "n2", "n3"]

    async def test_a_cluster_out_of_reach_ends_with_4(self) -> None:
        """With the reason for each endpoint."""
        async with SmallServer() as server:
            endpoint = server.endpoint
        code, out, _ = await finish("status", "--endpoints", endpoint)
        assert code == 4
        assert out.startswith(f"unreachable\n! http://{endpoint} does not answer: ")

    async def test_leadership_is_handed_over(self) -> None:
        """Refusals and failures have exit codes of their own."""
        async with SmallServer() as server:
            given = ("transfer", "--to", "n3", "--endpoints", server.endpoint)
            assert await finish(*given) == (0, "n3 leads\n", "")

            async def gate(path: str) -> Any:
                return problem(404, "node_not_found")

            server.gate = gate
            code, _, err = await finish(*given)
            assert (code, "node_not_found" in err) == (3, True)
