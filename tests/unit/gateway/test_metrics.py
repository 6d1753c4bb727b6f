"""Metrics: their own port, documented names and a bounded number of labels."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from gateway.backend.state import BackendState
from gateway.jobs.queue import QueueState
from gateway.jobs.result_cache import CacheStats
from gateway.metrics import METHODS, Metrics, MetricsError, Sources
from gateway.usage.store import ClientUsage, MonthlyUsage
from testing.data import ROOT
from testing.raw_http import reserve_port

MONTH = MonthlyUsage("2026-11", 12.0, 300.0, {"alice": ClientUsage(2, 5.0)})


def sources(**changes: Callable[[], Any]) -> Sources:
    looks: dict[str, Any] = {
        "backend": lambda: BackendState("booting", 3.0, (11.0, 14.0)),
        "queue": lambda: QueueState(1, 2, is_full=False, retry_after_s=3.0),
        "cache": lambda: CacheStats(3, 4_000, 5, 6),
        "month": lambda: MONTH,
        "upload_bytes": lambda: 7_000,
        "gpu_budget_s": 3_600.0,
    }
    return Sources(**{**looks, **changes})


def values(text: str) -> dict[str, float]:
    return {name: float(value) for name, value in re.findall(r"^(superres_\S+) (\S+)$", text, re.MULTILINE)}


def test_scrape_reads_the_sources() -> None:
    metrics = Metrics(sources())
    metrics.count_request("GET", "/", 200, 0.2)
    metrics.count_request("POST", "/api/v1/upscale", 503, 11.0)
    metrics.count_problem("queue-full")

    exported = values(metrics.text())

    assert exported['superres_gateway_requests_total{method="POST",route="/api/v1/upscale",status="503"}'] == 1
    assert exported['superres_gateway_request_duration_seconds_bucket{le="0.5",route="/"}'] == 1
    assert exported['superres_gateway_problems_total{slug="queue-full"}'] == 1
    assert exported['superres_gateway_backend_state{state="booting"}'] == 1
    assert exported['superres_gateway_backend_state{state="up"}'] == 0
    assert exported['superres_gateway_boot_duration_seconds{quantile="0.9"}'] == 14
    assert exported["superres_gateway_jobs_queued"] == 2
    assert exported['superres_gateway_cache_lookups_total{result="hit"}'] == 5
    assert exported['superres_gateway_monthly_gpu_seconds{kind="idle"}'] == 295
    assert exported["superres_gateway_monthly_gpu_budget_seconds"] == 3_600
    assert exported["superres_gateway_upload_memory_bytes"] == 7_000


def test_invented_method_is_not_a_label() -> None:
    metrics = Metrics(sources())
    for number in range(50):
        metrics.count_request(f"MADE-UP-{number}", "-", 405, 0.1)
    for method in METHODS:
        metrics.count_request(method, "-", 405, 0.1)

    methods = set(re.findall(r'requests_total{method="([^"]+)"', metrics.text()))
    assert methods == {*METHODS, "other"}


def test_registering_reads_no_source() -> None:
    def look() -> Any:
        raise AssertionError("nobody has scraped yet")

    Metrics(sources(backend=look, queue=look, cache=look, month=look, upload_bytes=look))


def test_all_metrics_are_documented() -> None:
    metrics = Metrics(sources())
    metrics.count_request("GET", "/", 200, 0.2)
    metrics.count_problem("queue-full")
    exported = set(re.findall(r"^# TYPE (superres_\S+)", metrics.text(), re.MULTILINE))
    written = set(re.findall(r"^\| `(superres_\w+)", (ROOT / "docs/reference/metrics.md").read_text(), re.MULTILINE))

    assert {name for name in exported if not name.endswith("_created")} == written


def test_metrics_are_served_on_their_own_port() -> None:
    metrics = Metrics(sources())
    with reserve_port() as port:
        stop = metrics.serve("127.0.0.1", port)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
                assert "superres_gateway_jobs_running" in response.read().decode()
            with pytest.raises(MetricsError, match="SUPERRES_METRICS_PORT"):
                Metrics(sources()).serve("127.0.0.1", port)
        finally:
            stop()
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10)
