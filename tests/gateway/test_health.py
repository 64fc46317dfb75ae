"""Probes, metrics and the document."""

from __future__ import annotations

import pytest

from tests.gateway.conftest import Api, MakeApi


async def test_a_live_node_says_so_even_without_a_leader(api: Api) -> None:
    """Restarting a node that waits for a leader helps nobody."""
    api.node.leader = None
    got = await api.get("/livez")
    assert (got.status, got.body) == (200, {"live": True})
    assert (await api.call("HEAD", "/livez")).status == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/openapi.json", "/docs"])
async def test_probes_and_scrapers_bring_their_own_query(api: Api, path: str) -> None:
    """`/readyz?verbose`, `/metrics?module=x`: a probe must not fail over what it asks."""
    assert (await api.get(f"{path}?verbose&module=x&module=%ff")).status == 200


async def test_readiness_has_a_reason(api: Api) -> None:
    """200 while the node serves, else 503 and why not."""
    assert (await api.get("/readyz")).body == {"ready": True}
    api.node.leader = None
    got = await api.get("/readyz")
    assert (got.status, got.code) == (503, "not_ready")
    assert got.body["detail"] == "no leader is known"
    assert got.headers["Retry-After"] == "1"


async def test_metrics_count_requests_by_route_and_status(make_api: MakeApi) -> None:
    """The route is the row of the table, never the path: names do not make series."""
    now = [0.0]
    api = await make_api(clock=lambda: now[0])
    session = await api.open()
    await api.acquire("orders", session)
    await api.acquire("orders", "nobody")
    await api.get("/nowhere")
    page = (await api.get("/metrics")).body
    route = 'method="POST",route="/v1/locks/{name}/acquire"'
    assert f'coterie_http_requests_total{{{route},status="200"}} 1.0' in page
    assert f'coterie_http_requests_total{{{route},status="404"}} 1.0' in page
    assert f"coterie_http_request_seconds_count{{{route}}} 2.0" in page
    assert 'coterie_http_requests_total{method="*",route="elsewhere",status="404"} 1.0' in page
    assert "coterie_machine_sessions 1.0" in page
    assert "coterie_raft_is_leader 1.0" in page
    assert "coterie_http_connections 1.0" in page
    assert "orders" not in page


async def test_a_page_of_metrics_is_made_once_a_second(make_api: MakeApi) -> None:
    """Scraping in a loop costs a copy, not a page."""
    now = [0.0]
    api = await make_api(clock=lambda: now[0])
    first = (await api.get("/metrics")).body
    await api.open()
    assert (await api.get("/metrics")).body == first
    now[0] = 1.0
    assert "coterie_machine_sessions 1.0" in (await api.get("/metrics")).body


async def test_the_document_is_served_as_json(api: Api) -> None:
    """What stands in it is looked at in test_openapi.py."""
    got = await api.get("/openapi.json")
    assert got.headers["Content-Type"] == "application/json"
    assert got.body["openapi"] == "3.1.0"
    assert "/openapi.json" in got.body["paths"]


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/openapi.json", "/v1/cluster"])
async def test_every_answer_carries_the_log_position(api: Api, path: str) -> None:
    """Also those that are not about the log."""
    assert (await api.get(path)).headers["Coterie-Index"] == "0"
    await api.open()
    assert (await api.get(path)).headers["Coterie-Index"] == "1"
