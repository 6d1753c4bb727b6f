"""Metrics: their own port, documented names and a bounded number of labels."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from gateway.backend.state import BackendState
from gateway.jobs.queue import QueueState
from gateway.jobs.result_cache import CacheStats
from gateway.metrics import MAX_VARIANTS, METHODS, Metrics, MetricsError, Sources
from gateway.problems import all_problems
from gateway.services import services
from gateway.usage.records import ClientUsage, MonthlyUsage
from testing.data import ROOT
from testing.raw_http import reserve_port
from testing.requests import form, post_image

MONTH = MonthlyUsage("2026-11", 12.0, 300.0, {"alice": ClientUsage(2, 5.0)})


def sources(**changes: Callable[[], Any]) -> Sources:
    looks: dict[str, Any] = {
        "backend": lambda: BackendState("booting", 3.0, (11.0, 14.0)),
        "queue": lambda: QueueState(1, 2, is_full=False, retry_after_s=3.0),
        "cache": lambda: CacheStats(3, 4_000, 5, 6),
        "month": lambda: MONTH,
        "upload_bytes": lambda: 7_000,
        "gpu_budget_s": 3_600.0,
        "queue_size": 24,
        "deadline_s": 300.0,
    }
    return Sources(**{**looks, **changes})


def values(text: str) -> dict[str, float]:
    return {name: float(value) for name, value in re.findall(r"^(superres_\S+) (\S+)$", text, re.MULTILINE)}


def test_scrape_reads_the_sources() -> None:
    metrics = Metrics(sources())
    metrics.count_request("GET", "/", 200, 0.2)
    metrics.count_request("POST", "/api/v1/upscale", 503, 11.0)
    metrics.count_problem("queue-full")
    metrics.observe_phases("compact_x4", {"queue": 0.0, "work": 3.0})

    exported = values(metrics.text())

    assert exported['superres_gateway_requests_total{method="POST",route="/api/v1/upscale",status="503"}'] == 1
    assert exported['superres_gateway_request_duration_seconds_bucket{le="0.5",method="GET",route="/"}'] == 1
    assert exported['superres_gateway_problems_total{slug="queue-full"}'] == 1
    assert exported['superres_gateway_backend_state{state="booting"}'] == 1
    assert exported['superres_gateway_backend_state{state="up"}'] == 0
    assert exported['superres_gateway_boot_duration_seconds{quantile="0.9"}'] == 14
    assert exported["superres_gateway_jobs_queued"] == 2
    assert exported['superres_gateway_cache_lookups_total{result="hit"}'] == 5
    assert exported['superres_gateway_monthly_gpu_seconds{kind="idle"}'] == 295
    assert exported["superres_gateway_monthly_gpu_budget_seconds"] == 3_600
    assert exported["superres_gateway_upload_memory_bytes"] == 7_000
    assert exported['superres_gateway_job_seconds_bucket{le="2.5",phase="work",variant="compact_x4"}'] == 0
    assert exported['superres_gateway_job_seconds_bucket{le="5.0",phase="work",variant="compact_x4"}'] == 1
    assert exported["superres_gateway_queue_size"] == 24
    assert exported["superres_gateway_deadline_seconds"] == 300


def test_invented_method_is_not_a_label() -> None:
    metrics = Metrics(sources())
    for number in range(50):
        metrics.count_request(f"MADE-UP-{number}", "-", 405, 0.1)
    for method in METHODS:
        metrics.count_request(method, "-", 405, 0.1)

    methods = set(re.findall(r'requests_total{method="([^"]+)"', metrics.text()))
    assert methods == {*METHODS, "other"} == set(re.findall(r'seconds_count{method="([^"]+)"', metrics.text()))


def test_many_imported_variants_share_a_label() -> None:
    metrics = Metrics(sources())
    for number in range(3 * MAX_VARIANTS):
        metrics.observe_phases(f"custom_{number}", {"queue": 0.1})

    variants = re.findall(r'job_seconds_count{phase="queue",variant="([^"]+)"} (\S+)', metrics.text())
    assert len(variants) == MAX_VARIANTS + 1
    assert dict(variants)["other"] == f"{2 * MAX_VARIANTS:.1f}"


def test_hostile_requests_add_no_series(client: FlaskClient, app: Flask, key: str) -> None:
    def attack(name: str) -> int:
        client.get(f"/{name}").close()
        client.open(f"/results/{name}/after", method=name.upper()).close()
        client.get(f"/problems/{name}").close()
        client.open("/", method=name.upper(), headers={"Host": name, "User-Agent": name}).close()
        client.post("/", **form(variant=name, format=name)).close()
        post_image(client, key, query=f"?variant={name}").close()
        post_image(client, key, query=f"?{name}={name}").close()
        post_image(client, name).close()
        post_image(client, key, query="?variant=compact_x4").close()
        assert name not in services(app).metrics.text()
        return len(services(app).metrics.text().splitlines())

    assert len({attack(name) for name in ("invented", "another", "third-one")}) == 1


def test_every_problem_has_a_counter_from_the_start() -> None:
    assert {kind.slug for kind in all_problems()} == set(
        re.findall(r'problems_total{slug="([^"]+)"} 0.0', Metrics(sources()).text())
    )


def test_build_and_process_are_described() -> None:
    text = Metrics(sources()).text()

    [(python, version)] = re.findall(r'^superres_gateway_build_info{python="(.+)",version="(.+)"} 1.0$', text, re.M)
    assert version == importlib.metadata.version("serverless-superres")
    assert python == platform.python_version()
    assert float(re.findall(r"^process_resident_memory_bytes (\S+)$", text, re.M)[0]) > 1_000_000
    assert "_created" not in text


def test_registering_reads_no_source() -> None:
    def look() -> Any:
        raise AssertionError("nobody has scraped yet")

    Metrics(sources(backend=look, queue=look, cache=look, month=look, upload_bytes=look))


def test_all_metrics_are_documented() -> None:
    metrics = Metrics(sources())
    metrics.count_request("GET", "/", 200, 0.2)
    metrics.observe_phases("compact_x4", {"queue": 0.1})
    exported = re.findall(r"^# TYPE (\S+)", metrics.text(), re.MULTILINE)
    written = re.findall(r"^\| `(\w+)", (ROOT / "docs/reference/metrics.md").read_text(), re.MULTILINE)

    assert sorted(exported) == sorted(written)


def test_metrics_are_served_on_their_own_port() -> None:
    metrics = Metrics(sources())
    with reserve_port() as port:
        stop = metrics.serve("127.0.0.1", port)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=120) as response:
                assert "superres_gateway_jobs_running" in response.read().decode()
            with pytest.raises(MetricsError, match="SUPERRES_METRICS_PORT"):
                Metrics(sources()).serve("127.0.0.1", port)
        finally:
            stop()
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=120)
