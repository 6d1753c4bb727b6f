"""Prometheus metrics of the gateway, served on their own port. No label identifies a client.

Requests and problems are counted as their responses are sent; everything else is read at each scrape. Every label has a
bounded number of values, regardless of what clients send. docs/reference/metrics.md lists all metrics.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from gateway.backend.state import BackendState, StateName
from gateway.jobs.queue import QueueState
from gateway.jobs.result_cache import CacheStats
from gateway.usage.store import MonthlyUsage

PREFIX = "superres_gateway_"
METHODS = ("GET", "HEAD", "POST", "OPTIONS")
# Bucket bounds in seconds: a page takes milliseconds, an image that waits for a boot half a minute.
DURATION_BUCKETS_S = (0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)


class MetricsError(Exception):
    """The metrics cannot be served; the message says why and what to do."""


@dataclass(frozen=True)
class Sources:
    """Functions that a scrape calls. Each returns at once and never wakes the backend."""

    backend: Callable[[], BackendState]
    queue: Callable[[], QueueState]
    cache: Callable[[], CacheStats]
    month: Callable[[], MonthlyUsage]
    upload_bytes: Callable[[], int]
    gpu_budget_s: float


class Metrics:
    """The registry of all metrics. Safe to use from several threads."""

    def __init__(self, sources: Sources) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            f"{PREFIX}requests", "Responses sent.", ("method", "route", "status"), registry=self._registry
        )
        self._durations = Histogram(
            f"{PREFIX}request_duration_seconds",
            "Time from the request headers to the end of the response.",
            ("route",),
            buckets=DURATION_BUCKETS_S,
            registry=self._registry,
        )
        self._problems = Counter(
            f"{PREFIX}problems", "Error responses sent, by problem type.", ("slug",), registry=self._registry
        )
        self._registry.register(_ScrapeCollector(sources))

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a response. `route` is the URL rule, not the URL."""
        self._requests.labels(method if method in METHODS else "other", route, str(status)).inc()
        self._durations.labels(route).observe(seconds)

    def count_problem(self, slug: str) -> None:
        """Count an error response."""
        self._problems.labels(slug).inc()

    def text(self) -> str:
        """Return the metrics in the text format of Prometheus."""
        return generate_latest(self._registry).decode()

    def serve(self, host: str, port: int) -> Callable[[], None]:
        """Serve scrapes on a separate thread until the returned function is called. Raises MetricsError."""
        try:
            server, thread = start_http_server(port, addr=host, registry=self._registry)
        except OSError as error:
            raise MetricsError(
                f"Cannot serve metrics on {host} port {port}: {error.strerror or error}. "
                "Set SUPERRES_METRICS_PORT to a free port, or to 0 to turn them off."
            ) from error

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return stop


class _ScrapeCollector:
    """Reads the sources at each scrape."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._lock = threading.Lock()

    def describe(self) -> Iterable[Metric]:
        return ()  # so that registering it reads no source

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            yield from self._backend()
            yield from self._queue()
            yield from self._cache()
            yield from self._gpu_seconds()
            yield _gauge("upload_memory_bytes", "Memory reserved for uploads.", self._sources.upload_bytes())

    def _backend(self) -> Iterable[Metric]:
        state = self._sources.backend()
        states = GaugeMetricFamily(
            f"{PREFIX}backend_state", "1 for the current state, 0 for the others.", labels=["state"]
        )
        for name in get_args(StateName):
            states.add_metric([name], float(name == state.name))
        yield states
        boots = GaugeMetricFamily(
            f"{PREFIX}boot_duration_seconds", "Duration of past boots; absent before the first.", labels=["quantile"]
        )
        for quantile, seconds in zip(("0.5", "0.9"), state.usual_boot_s or (), strict=False):
            boots.add_metric([quantile], seconds)
        yield boots

    def _queue(self) -> Iterable[Metric]:
        state = self._sources.queue()
        yield _gauge("jobs_running", "Images being upscaled.", state.running)
        yield _gauge("jobs_queued", "Images waiting in the queue.", state.waiting)

    def _cache(self) -> Iterable[Metric]:
        state = self._sources.cache()
        lookups = CounterMetricFamily(f"{PREFIX}cache_lookups", "Lookups in the result cache.", labels=["result"])
        lookups.add_metric(["hit"], state.hits)
        lookups.add_metric(["miss"], state.misses)
        yield lookups
        yield _gauge("cache_bytes", "Bytes of results in the cache.", state.n_bytes)
        yield _gauge("cache_entries", "Results in the cache.", state.count)

    def _gpu_seconds(self) -> Iterable[Metric]:
        month = self._sources.month()
        spent = GaugeMetricFamily(
            f"{PREFIX}monthly_gpu_seconds", "GPU seconds of this calendar month (UTC).", labels=["kind"]
        )
        for kind, seconds in (("boot", month.boot_s), ("work", month.work_s), ("idle", month.idle_s)):
            spent.add_metric([kind], seconds)
        yield spent
        yield _gauge("monthly_gpu_budget_seconds", "Budget of a month; 0: unlimited.", self._sources.gpu_budget_s)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(PREFIX + name, text, value=value)
