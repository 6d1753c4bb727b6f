"""Prometheus metrics of the gateway, served on their own port. No label identifies a client.

Requests and problems are counted as their responses are sent, the phases of a job as it ends. Everything else is read
at each scrape. Every label has a bounded number of values, regardless of what clients send. docs/reference/metrics.md
lists all metrics.
"""

from __future__ import annotations

import importlib.metadata
import platform
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from gateway.backend.state import BackendState, StateName
from gateway.jobs.phases import Phase
from gateway.jobs.queue import QueueState
from gateway.jobs.result_cache import CacheStats
from gateway.problems import all_problems
from gateway.usage.records import MonthlyUsage

PREFIX = "superres_gateway_"
METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")
# Final states of asynchronous jobs.
FINAL_STATES = ("done", "failed", "cancelled", "lost")
# What an attempt to deliver a webhook leads to.
WEBHOOK_RESULTS = ("delivered", "retried", "failed")
# Bucket bounds in seconds: a page takes milliseconds, an image that waits for a boot half a minute.
DURATION_BUCKETS_S = (0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
# As above, finer at the start: phases of a small image take some 10 ms.
PHASE_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
# Variants with series of their own; all further ones share the name "other". The zoo has 38, imports add any number.
# Each variant has up to five histograms.
MAX_VARIANTS = 64

# Each counter and histogram would have another series with the time at which it was created.
disable_created_metrics()  # type: ignore[no-untyped-call]


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
    queue_size: int
    deadline_s: float


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
            ("method", "route"),
            buckets=DURATION_BUCKETS_S,
            registry=self._registry,
        )
        self._problems = Counter(
            f"{PREFIX}problems", "Error responses sent, by problem type.", ("slug",), registry=self._registry
        )
        for kind in all_problems():
            self._problems.labels(kind.slug)  # 0: a rate needs a value before the first problem
        self._phases = Histogram(
            f"{PREFIX}job_seconds",
            "Time of a job in each phase.",
            ("phase", "variant"),
            buckets=PHASE_BUCKETS_S,
            registry=self._registry,
        )
        self._async_jobs = Counter(
            f"{PREFIX}async_jobs", "Asynchronous jobs that ended, by final state.", ("state",), registry=self._registry
        )
        for state in FINAL_STATES:
            self._async_jobs.labels(state)
        self._webhooks = Counter(
            f"{PREFIX}webhooks",
            "Attempts to deliver a webhook, by what they led to.",
            ("result",),
            registry=self._registry,
        )
        for result in WEBHOOK_RESULTS:
            self._webhooks.labels(result)
        self._variants: set[str] = set()
        self._lock = threading.Lock()
        Info(f"{PREFIX}build", "Versions of the gateway and of Python.", registry=self._registry).info(
            {"version": importlib.metadata.version("serverless-superres"), "python": platform.python_version()}
        )
        ProcessCollector(registry=self._registry)
        self._registry.register(_ScrapeCollector(sources))

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a response. `route` is the URL rule, not the URL."""
        method = method if method in METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._durations.labels(method, route).observe(seconds)

    def count_problem(self, slug: str) -> None:
        """Count an error response."""
        self._problems.labels(slug).inc()

    def count_async_job(self, state: str) -> None:
        """Count an asynchronous job that ended."""
        self._async_jobs.labels(state).inc()

    def count_webhook(self, result: str) -> None:
        """Count an attempt to deliver a webhook."""
        self._webhooks.labels(result).inc()

    def observe_phases(self, variant: str, seconds: Mapping[Phase, float]) -> None:
        """Record the seconds of each phase of a job that ended."""
        with self._lock:
            if len(self._variants) < MAX_VARIANTS:
                self._variants.add(variant)
            label = variant if variant in self._variants else "other"
        for phase, phase_s in seconds.items():
            self._phases.labels(phase, label).observe(phase_s)

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
        yield _gauge("queue_size", "Maximum number of images waiting in the queue.", self._sources.queue_size)
        yield _gauge("deadline_seconds", "Maximum time of a job, its waiting included.", self._sources.deadline_s)

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
