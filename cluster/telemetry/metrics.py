"""Metrics in Prometheus' text form, base units (seconds, bytes), in a registry of our own.

RULE: no lookups on the hot path: whoever counts keeps the counting object. A page is made at most
once a second, whoever asks, so that scraping cannot hold the node up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

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
    """What one route counts. Kept by the route."""

    __slots__ = ("_counter", "_labels", "_observe", "_statuses")

    def __init__(self, counter: Counter, latency: Histogram, method: str, route: str):
        self._counter = counter
        self._labels = (method, route)
        self._observe = latency.labels(method, route).observe
        self._statuses: dict[int, Callable[[], None]] = {}

    def done(self, status: int, seconds: float) -> None:
        """Count one request that ended with `status` after `seconds`."""
        count = self._statuses.get(status)
        if count is None:
            child = self._counter.labels(*self._labels, str(status))
            count = self._statuses[status] = child.inc
        count()
        self._observe(seconds)


class Metrics:
    """The registry of one node."""

    CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        # Without this every series has a second one that says when it began: a third of the page.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._requests = Counter(
            "coterie_http_requests",
            "Requests answered, by route and status; 499 is a client that hung up.",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self._latency = Histogram(
            "coterie_http_request_seconds",
            "From the parsed head of a request to its answer, waits included.",
            ["method", "route"],
            buckets=LATENCY_BUCKETS_S,
            registry=self._registry,
        )
        self._page = b""
        self._made_at = float("-inf")

    def route(self, method: str, route: str) -> RouteFigures:
        """Return what a route counts with; ask once and keep it."""
        return RouteFigures(self._requests, self._latency, method, route)

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
