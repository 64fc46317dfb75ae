"""Metrics in Prometheus' text form."""

from __future__ import annotations

from cluster.telemetry.metrics import Figure, Metrics


def test_a_route_counts_by_status_and_measures_time() -> None:
    """Counter and histogram carry the method and the row of the table."""
    metrics = Metrics()
    route = metrics.route("GET", "/v1/locks/{name}")
    route.done(200, 0.003)
    route.done(200, 0.2)
    route.done(404, 0.0001)
    page = metrics.page(0.0).decode()
    labels = 'method="GET",route="/v1/locks/{name}"'
    assert f'coterie_http_requests_total{{{labels},status="200"}} 2.0' in page
    assert f'coterie_http_requests_total{{{labels},status="404"}} 1.0' in page
    assert f'coterie_http_request_seconds_bucket{{le="0.005",{labels}}} 2.0' in page
    assert f"coterie_http_request_seconds_count{{{labels}}} 3.0" in page


def test_a_time_on_a_bound_counts_below_it_and_one_beyond_all_bounds_above() -> None:
    """`le` means less or equal; the last bucket has everything, and the sum is theirs."""
    metrics = Metrics()
    route = metrics.route("GET", "/a")
    for seconds in (0.0, 0.0005, 30.0, 31.0):
        route.done(200, seconds)
    page = metrics.page(0.0).decode()
    name, labels = "coterie_http_request_seconds", 'method="GET",route="/a"'
    assert f'{name}_bucket{{le="0.0005",{labels}}} 2.0' in page
    assert f'{name}_bucket{{le="30.0",{labels}}} 3.0' in page
    assert f'{name}_bucket{{le="+Inf",{labels}}} 4.0' in page
    assert f"{name}_sum{{{labels}}} 61.0005" in page


def test_a_route_that_is_asked_for_twice_counts_once() -> None:
    """Two servers of one process share its figures; no series is on a page twice."""
    metrics = Metrics()
    metrics.route("GET", "/a").done(200, 0.1)
    metrics.route("GET", "/a").done(200, 0.1)
    page = metrics.page(0.0).decode()
    assert page.count('coterie_http_requests_total{method="GET",route="/a",status="200"} 2.0') == 1


def test_watched_figures_are_read_for_every_page() -> None:
    """Gauges and counters, labelled or not; a page is kept for a second."""
    values = iter([1.0, 2.0])
    metrics = Metrics()

    def read() -> list[Figure]:
        value = next(values)
        return [
            Figure("coterie_lag", "Lag.", value, {"peer": "n2"}),
            Figure("coterie_lag", "Lag.", 7, {"peer": "n3"}),
            Figure("coterie_rounds", "Rounds.", 5, only_rises=True),
        ]

    metrics.watch(read)
    page = metrics.page(10.0).decode()
    assert 'coterie_lag{peer="n2"} 1.0' in page
    assert 'coterie_lag{peer="n3"} 7.0' in page
    assert "# TYPE coterie_rounds_total counter" in page
    assert metrics.page(10.9).decode() == page
    assert 'coterie_lag{peer="n2"} 2.0' in metrics.page(11.0).decode()


def test_two_nodes_in_one_process_do_not_share_a_registry() -> None:
    """Nothing is kept in the library's global registry."""
    first, second = Metrics(), Metrics()
    first.route("GET", "/a").done(200, 0.1)
    assert 'route="/a"' not in second.page(0.0).decode()
