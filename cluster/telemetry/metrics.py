"""Metrics in Prometheus' text form, base units (seconds, bytes), in a registry of our own.

RULE: no lookups on the hot path: whoever counts keeps the counting object. A page is made at most
once a second, whoever asks, so that scraping cannot hold the node up.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from typing import Final, NamedTuple

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

PAGE_AGE_S_MAX = 1.0
"""A page younger than this is served again."""

# Half a millisecond is a good local answer, ten seconds is the default timeout; long polls go on.
LATENCY_BUCKETS_S = (
    0.0005,
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
)


class Figure(NamedTuple):
    """One number read when a page is made.

    Attributes:
        name: with the unit last; counters without `_total`.
        meaning: one sentence.
        value: now.
        labels: which one of several.
        only_rises: it is a counter.
    """

    name: str
    meaning: str
    value: float
    labels: Mapping[str, str] = {}
    only_rises: bool = False


class RouteFigures:
    """What one route counts. Kept by the route.

    Plain numbers of the event loop's one thread: the library's own counters take a lock for each.
    """

    __slots__ = ("_buckets", "_statuses", "_sum_s", "method", "route")

    def __init__(self, method: str, route: str):
        self.method = method
        self.route = route
        self._statuses: dict[int, int] = {}
        self._buckets = [0] * (len(LATENCY_BUCKETS_S) + 1)
        self._sum_s = 0.0

    def done(self, status: int, seconds: float) -> None:
        """Count one request that ended with `status` after `seconds`."""
        statuses = self._statuses
        statuses[status] = statuses.get(status, 0) + 1
        # A bound belongs to its own bucket.
        self._buckets[bisect_left(LATENCY_BUCKETS_S, seconds)] += 1
        self._sum_s += seconds

    def add_to(self, requests: CounterMetricFamily, latency: HistogramMetricFamily) -> None:
        """Put what was counted on a page; nothing, where no request came."""
        for status, count in sorted(self._statuses.items()):
            requests.add_metric((self.method, self.route, str(status)), count)
        if self._statuses:
            bounds = (*map(floatToGoString, LATENCY_BUCKETS_S), "+Inf")
            rising = zip(bounds, accumulate(self._buckets), strict=True)
            latency.add_metric(
                (self.method, self.route), [(b, float(n)) for b, n in rising], self._sum_s
            )


class Metrics:
    """The registry of one node."""

    CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._routes: dict[tuple[str, str], RouteFigures] = {}
        self._registry.register(_RouteCollector(self._routes))
        self._page = b""
        self._made_at = float("-inf")

    def route(self, method: str, route: str) -> RouteFigures:
        """Return what a route counts with; ask once and keep it."""
        return self._routes.setdefault((method, route), RouteFigures(method, route))

    def watch(self, read: Callable[[], Iterable[Figure]]) -> None:
        """Call `read` for every page. Figures of one name come one after the other."""
        self._registry.register(_Watcher(read))

    def page(self, now_s: float) -> bytes:
        """Return the page, at most PAGE_AGE_S_MAX old.

        Args:
            now_s: seconds of any clock that never falls.
        """
        if now_s - self._made_at >= PAGE_AGE_S_MAX:
            self._page = generate_latest(self._registry)
            self._made_at = now_s
        return self._page


class _RouteCollector(Collector):
    def __init__(self, routes: Mapping[tuple[str, str], RouteFigures]):
        self._routes = routes

    def describe(self) -> Iterable[Metric]:
        return self._families()

    def collect(self) -> Iterable[Metric]:
        families = requests, latency = self._families()
        for route in self._routes.values():
            route.add_to(requests, latency)
        return families

    def _families(self) -> tuple[CounterMetricFamily, HistogramMetricFamily]:
        return (
            CounterMetricFamily(
                "coterie_http_requests",
                "Requests answered, by route and status; 499 is a client that hung up.",
                labels=("method", "route", "status"),
            ),
            HistogramMetricFamily(
                "coterie_http_request_seconds",
                "From the parsed head of a request to its answer, waits included.",
                labels=("method", "route"),
            ),
        )


class _Watcher(Collector):
    def __init__(self, read: Callable[[], Iterable[Figure]]):
        self._read = read

    def describe(self) -> Iterable[Metric]:
        # Nothing to say before the first page: the names are the reader's.
        return ()

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for figure in self._read():
            family = families.get(figure.name)
            if family is None:
                kind = CounterMetricFamily if figure.only_rises else GaugeMetricFamily
                family = kind(figure.name, figure.meaning, labels=list(figure.labels))
                families[figure.name] = family
            assert isinstance(family, (CounterMetricFamily, GaugeMetricFamily))
            family.add_metric(list(figure.labels.values()), figure.value)
        return families.values()
