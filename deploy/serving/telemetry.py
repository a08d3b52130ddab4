"""What a server counts, in the form Prometheus reads."""

from collections.abc import Iterable
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from graphsys.deploy.serving.registry import TableRegistry

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_SIZES = (1, 4, 16, 64, 256, 1024, 4096, 16384)
_METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "FLIGHT"})


class Telemetry:
    """Counts of one server. Labels take few values: routes as they are declared, never what a client sent."""

    def __init__(self, tables: TableRegistry) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "graphsys_requests", "Requests answered.", ("route", "method", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "graphsys_request_seconds",
            "Seconds from a request's head to the end of its reply.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._batch = Histogram(
            "graphsys_batch_size", "Ids, queries or new nodes per unit of work.", ("kind",), buckets=_SIZES,
            registry=self.registry,
        )  # fmt: skip
        self.in_flight = Gauge("graphsys_requests_in_flight", "Requests under way.", registry=self.registry)
        self.registry.register(_ActiveTable(tables))
        # Finding a label's child takes a lock and a dictionary of tuples; the same few come again and again.
        self._request_child = lru_cache(maxsize=4096)(self._requests.labels)
        self._seconds_child = lru_cache(maxsize=256)(self._seconds.labels)
        self._batch_child = lru_cache(maxsize=16)(self._batch.labels)

    def observe_request(self, *, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request.

        Args:
            route: The route's pattern, or "other".
        """
        named = method if method in _METHODS else "other"
        self._request_child(route, named, str(status)).inc()
        self._seconds_child(route).observe(seconds)

    def observe_batch(self, kind: str, size: int) -> None:
        """Count the size of one unit of work.

        Args:
            kind: ``lookup``, ``search``, ``infer`` or ``predict``.
        """
        self._batch_child(kind).observe(size)

    def render(self) -> bytes:
        """Return all figures as text for Prometheus."""
        return generate_latest(self.registry)


class _ActiveTable(Collector):
    """The active table, read when the figures are asked for."""

    def __init__(self, tables: TableRegistry) -> None:
        self._tables = tables

    def collect(self) -> Iterable[Metric]:
        active = GaugeMetricFamily("graphsys_active_table", "1 for the active version.", labels=("version",))
        rows = GaugeMetricFamily("graphsys_active_rows", "Rows of the active table.")
        version = self._tables.active
        for listing in self._tables.listing():
            if listing.version == version:
                active.add_metric((version,), 1)
                rows.add_metric((), listing.num_rows)
        yield active
        yield rows
