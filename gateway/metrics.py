"""The metrics: what Prometheus may know of this gateway, on a port of their own. Names, routes and slugs; no people.

Requests are counted as their answers are sent; everything else is looked up when somebody scrapes. Every label has a
bounded number of values, whatever clients send. docs/reference/metrics.md lists the names.
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
from gateway.jobs.result_cache import CacheState
from gateway.usage.store import MonthlyUsage

PREFIX = "superres_gateway_"
METHODS = ("GET", "HEAD", "POST", "OPTIONS")
SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
"""Upper ends of the histogram: pages take milliseconds, a picture behind a boot half a minute."""


class MetricsError(Exception):
    """The metrics cannot be served; the text says why and what to do."""


@dataclass(frozen=True)
class Sources:
    """Where a scrape looks; each answers at once and wakes nobody."""

    backend: Callable[[], BackendState]
    places: Callable[[], QueueState]
    cache: Callable[[], CacheState]
    month: Callable[[], MonthlyUsage]
    upload_bytes: Callable[[], int]
    budget_gpu_s: float


class Metrics:
    """What is counted. Safe to use from several threads."""

    def __init__(self, sources: Sources) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            f"{PREFIX}requests", "Answers sent.", ("method", "route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            f"{PREFIX}request_seconds",
            "From the request's headers to the end of its answer.",
            ("route",),
            buckets=SECONDS,
            registry=self._registry,
        )
        self._problems = Counter(f"{PREFIX}problems", "Problems answered.", ("slug",), registry=self._registry)
        self._registry.register(_Looks(sources))

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answer. `route` is the rule, never the address."""
        self._requests.labels(method if method in METHODS else "other", route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_problem(self, slug: str) -> None:
        """Count a problem."""
        self._problems.labels(slug).inc()

    def text(self) -> str:
        """Return what a scrape gets."""
        return generate_latest(self._registry).decode()

    def serve(self, host: str, port: int) -> Callable[[], None]:
        """Answer scrapes on a thread of its own until the function returned is called. Raises MetricsError."""
        try:
            server, thread = start_http_server(port, addr=host, registry=self._registry)
        except OSError as error:
            raise MetricsError(
                f"The metrics cannot be served on {host} port {port} ({error.strerror or error}). "
                "Set SUPERRES_METRICS_PORT to a free port, or to 0 for none."
            ) from error

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return stop


class _Looks:
    """Prometheus' collector of what is looked up at a scrape."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._lock = threading.Lock()

    def describe(self) -> Iterable[Metric]:
        return ()  # so that registering it asks nothing

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            yield from self._backend()
            yield from self._queue()
            yield from self._cache()
            yield from self._money()
            yield _gauge("upload_bytes", "Bytes of uploads in memory, or promised room.", self._sources.upload_bytes())

    def _backend(self) -> Iterable[Metric]:
        state = self._sources.backend()
        states = GaugeMetricFamily(f"{PREFIX}backend_state", "1 for the state it is in.", labels=["state"])
        for name in get_args(StateName):
            states.add_metric([name], float(name == state.name))
        yield states
        usual = GaugeMetricFamily(f"{PREFIX}usual_boot_seconds", "Of past boots; absent before.", labels=["quantile"])
        for quantile, seconds in zip(("0.5", "0.9"), state.usual_boot_s or (), strict=False):
            usual.add_metric([quantile], seconds)
        yield usual

    def _queue(self) -> Iterable[Metric]:
        state = self._sources.places()
        yield _gauge("pictures_at_work", "Pictures being made.", state.at_work)
        yield _gauge("pictures_waiting", "Pictures in the queue.", state.waiting)

    def _cache(self) -> Iterable[Metric]:
        state = self._sources.cache()
        asked = CounterMetricFamily(f"{PREFIX}cache_requests", "Pictures looked for in the cache.", labels=["answer"])
        asked.add_metric(["hit"], state.hits)
        asked.add_metric(["miss"], state.misses)
        yield asked
        yield _gauge("cache_bytes", "Bytes of results in the cache.", state.n_bytes)
        yield _gauge("cache_results", "Results in the cache.", state.count)

    def _money(self) -> Iterable[Metric]:
        month = self._sources.month()
        spent = GaugeMetricFamily(
            f"{PREFIX}month_gpu_seconds", "GPU seconds of this calendar month (UTC).", labels=["kind"]
        )
        for kind, seconds in (("boot", month.boot_s), ("work", month.work_s), ("idle", month.idle_s)):
            spent.add_metric([kind], seconds)
        yield spent
        yield _gauge("month_budget_gpu_seconds", "What may be spent; 0: no end.", self._sources.budget_gpu_s)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(PREFIX + name, text, value=value)
