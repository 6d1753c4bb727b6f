"""The GPU budget over HTTP: who is charged, what happens above the budget, and what is free."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from flask import Flask

from gateway.cli.main import cli
from gateway.jobs.runner import ANONYMOUS
from gateway.services import services
from gateway.usage.file_store import FileUsageStore
from gateway.usage.meter import UsageMeter
from gateway.usage.records import ClientUsage, UsageBatch, format_month
from testing.backend import FakeBackend
from testing.fixtures import MakeApp
from testing.requests import PHOTO, form, post_image, read_events, read_problem

CACHE = 10_000_000
EVENTS = {"Accept": "text/event-stream"}


def find_meter(app: Flask) -> UsageMeter:
    return services(app).usage_meter


def spent(app: Flask) -> Flask:
    """Return an application that has spent more than its monthly budget."""
    find_meter(app).record_work("earlier", 100.0, 1)
    return app


def test_work_is_charged_to_the_keys_client(make_app: MakeApp, key: str) -> None:
    upscaler = FakeBackend(work_s=0.25)
    app = make_app(upscaler=upscaler)
    client = app.test_client()
    for _ in range(2):
        assert post_image(client, key).status_code == 200
    assert client.post("/", **form()).status_code == 303

    month = find_meter(app).current_month()

    assert month.clients == {"tests": ClientUsage(2, 1.0), ANONYMOUS: ClientUsage(1, 0.5)}
    assert client.get("/api/v1/status").get_json()["month"]["work_s"] == 1.5


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
def test_used_up_budget_rejects_requests_that_cost_gpu_seconds(make_app: MakeApp, key: str, accept: str) -> None:
    upscaler = FakeBackend()
    client = spent(make_app(upscaler=upscaler, monthly_gpu_budget_s=100)).test_client()

    response = post_image(client, key, headers={"Accept": accept})

    assert read_problem(response) == (503, "budget-spent")
    assert "100 GPU seconds are used up" in response.get_json()["detail"]
    left_s = int(response.headers["Retry-After"])
    assert 0 < left_s <= 31 * 86_400
    assert format_month(time.time() + left_s + 1) != format_month(time.time())
    assert upscaler.calls == []


def test_used_up_budget_is_shown_on_the_form_and_stops_wake_calls(make_app: MakeApp) -> None:
    upscaler = FakeBackend()
    client = spent(make_app(upscaler=upscaler, monthly_gpu_budget_s=100)).test_client()

    assert "100 GPU seconds are used up" in client.get("/").get_data(as_text=True)
    sent = client.post("/", **form())
    assert sent.status_code == 503
    assert "100 GPU seconds are used up" in sent.get_data(as_text=True)
    assert read_problem(client.post("/api/v1/wake")) == (503, "budget-spent")
    assert (upscaler.wakes, upscaler.calls) == (0, [])
    assert client.get("/api/v1/status").get_json()["month"]["is_spent"] is True


def test_unspent_budget_is_not_mentioned(make_app: MakeApp, key: str) -> None:
    client = make_app(monthly_gpu_budget_s=100).test_client()

    assert "GPU seconds are used up" not in client.get("/").get_data(as_text=True)
    assert post_image(client, key).status_code == 200


def test_cached_results_are_sent_after_the_budget_is_used_up(make_app: MakeApp, key: str) -> None:
    app = make_app(monthly_gpu_budget_s=100, cache_max_bytes=CACHE)
    client = app.test_client()
    made = post_image(client, key)
    spent(app)

    again = post_image(client, key)

    assert (again.status_code, again.data) == (200, made.data)
    assert read_problem(post_image(client, key, query="?format=webp")) == (503, "budget-spent")


def test_cache_hit_is_free_and_wakes_nothing(make_app: MakeApp, key: str) -> None:
    upscaler = FakeBackend(work_s=0.25)
    app = make_app(upscaler=upscaler, cache_max_bytes=CACHE, client_megapixels="1 per hour")
    client = app.test_client()

    responses = [post_image(client, key) for _ in range(3)]

    assert [response.headers["X-Superres-Cache"] for response in responses] == ["miss", "hit", "hit"]
    assert len({response.data for response in responses}) == 1
    assert len(upscaler.calls) == 1
    assert find_meter(app).current_month().clients == {"tests": ClientUsage(1, 0.5)}


def test_form_and_stream_share_the_cache_with_the_api(make_app: MakeApp, key: str) -> None:
    upscaler = FakeBackend()
    client = make_app(upscaler=upscaler, cache_max_bytes=CACHE).test_client()
    plain = post_image(client, key)

    events = read_events(post_image(client, key, headers=EVENTS).data)
    page = client.post("/", follow_redirects=True, **form())

    name, result = events[-1]
    assert (name, result["cache"]) == ("result", "hit")
    assert client.get(result["url"]).data == plain.data
    assert page.status_code == 200
    assert len(upscaler.calls) == 1


def test_failure_is_not_cached(make_app: MakeApp, key: str) -> None:
    upscaler = FakeBackend(failures=[MemoryError()])
    client = make_app(upscaler=upscaler, cache_max_bytes=CACHE).test_client()

    assert post_image(client, key).status_code == 500
    again = post_image(client, key)

    assert (again.status_code, again.headers["X-Superres-Cache"]) == (200, "miss")


def test_usage_shows_months_clients_and_the_budget(tmp_path: Path) -> None:
    now = format_month(time.time())
    uses = {
        (now, "alice"): ClientUsage(12, 340.0),
        (now, ANONYMOUS): ClientUsage(3, 20.0),
        ("2026-01", "bob"): ClientUsage(1, 5.0),
    }
    FileUsageStore(tmp_path / "meter.json").add(UsageBatch((), uses))
    environ = {"SUPERRES_STATE_DIR": str(tmp_path), "SUPERRES_MONTHLY_GPU_BUDGET_S": "3600"}

    shown = CliRunner().invoke(cli, ["usage"], env=environ)
    before = CliRunner().invoke(cli, ["usage", "--month", "2026-01"], env=environ)

    assert shown.exit_code == 0, shown.output
    lines = shown.output.splitlines()
    assert lines[1].split() == ["2026-01", "5.0", "0.0", "5.0", "0.0", "1"]
    assert lines[2].split() == [now, "360.0", "0.0", "360.0", "0.0", "15"]
    assert lines[3] == f"{now}: 10 % of the budget used (monthly_gpu_budget_s = 3,600)."
    assert [line.split() for line in lines[-2:]] == [["alice", "340.0", "12"], [ANONYMOUS, "20.0", "3"]]
    assert before.output.splitlines()[-1].split() == ["bob", "5.0", "1"]


@pytest.mark.parametrize("month", ["garbage", "2026-13", "2026-1", "2026-11-01"])
def test_usage_rejects_an_invalid_month(tmp_path: Path, month: str) -> None:
    shown = CliRunner().invoke(cli, ["usage", "--month", month], env={"SUPERRES_STATE_DIR": str(tmp_path)})

    assert shown.exit_code == 2
    assert f"Invalid month '{month}': expected YYYY-MM." in shown.output


def test_usage_command_reports_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "meter.json").write_text("nonsense")

    shown = CliRunner().invoke(cli, ["usage"], env={"SUPERRES_STATE_DIR": str(tmp_path)})

    assert shown.exit_code == 1
    assert "meter.json is invalid" in shown.output


def test_metrics_count_and_are_not_public(make_app: MakeApp, key: str) -> None:
    app = make_app(cache_max_bytes=CACHE)
    client = app.test_client()
    with (
        post_image(client, key) as first,
        post_image(client, key) as second,
        post_image(client, key, b"text") as refused,
    ):
        assert [response.status_code for response in (first, second, refused)] == [200, 200, 415]
    assert client.get("/metrics").status_code == 404

    metrics_text: Any = services(app).metrics.text()

    assert 'requests_total{method="POST",route="/api/v1/upscale",status="200"} 2.0' in metrics_text
    assert 'problems_total{slug="unknown-format"} 1.0' in metrics_text
    assert 'cache_lookups_total{result="hit"} 1.0' in metrics_text
    assert str(PHOTO) not in metrics_text


def test_upload_memory_is_released(make_app: MakeApp, key: str) -> None:
    app = make_app()
    client = app.test_client()
    for data, status in ((PHOTO, 200), (b"text", 415), (b"", 400)):
        with post_image(client, key, data) as response:
            assert response.status_code == status
    with client.post("/", **form()) as response:
        assert response.status_code == 303

    assert services(app).upload_memory.reserved_bytes() == 0


def test_without_upload_memory_an_upload_is_rejected_unread(make_app: MakeApp, key: str) -> None:
    app = make_app()
    intake = services(app).upload_memory
    intake._wait_s = 0.01
    held = intake.reserve(intake.max_bytes, "somebody else")

    refused = post_image(app.test_client(), key)
    held.release()

    assert read_problem(refused) == (503, "uploads-full")
    assert int(refused.headers["Retry-After"]) >= 1
    assert post_image(app.test_client(), key).status_code == 200
