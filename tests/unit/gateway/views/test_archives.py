"""Several images in one request: a ZIP at once or of a job, a report, limits, charges and refunds of each image."""

from __future__ import annotations

import json
import threading
import zipfile
from io import BytesIO
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from gateway.backend.interface import BackendFaultError
from gateway.jobs import archive_job
from gateway.problems import QueueFull
from gateway.services import services
from testing.backend import FakeBackend
from testing.fixtures import MakeApp
from testing.images import draw_photo, encode_png
from testing.redis_server import wait_for
from testing.requests import PHOTO, post_image, read_image, read_problem

LIMIT_S = 60.0
Sent = list[tuple[bytes, str]]
FAULTS = [BackendFaultError("broken"), BackendFaultError("broken")]
"""An image is sent twice."""


def photo(seed: int) -> bytes:
    return encode_png(draw_photo(8, 12, seed=seed))


def send(client: FlaskClient, key: str, images: Sent, headers: dict[str, str] | None = None, **fields: str) -> Any:
    files = [(BytesIO(data), name) for data, name in images]
    named = {"X-API-Key": key, "Accept": "application/zip", **(headers or {})}
    data = {"variant": "compact_x4", **fields, "image": files}
    return client.post("/api/v1/upscale", data=data, content_type="multipart/form-data", headers=named)


def read_archive(response: TestResponse | bytes) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the files of a ZIP by name, and its report."""
    data = response if isinstance(response, bytes) else response.data
    with zipfile.ZipFile(BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        assert not any(entry.flag_bits & 8 for entry in archive.infolist()), "sizes come first, for readers of streams"
        files = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    return files, json.loads(files.pop("report.json"))


def submit(client: FlaskClient, key: str, images: Sent, **headers: str) -> str:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    accepted = send(client, key, images, {"Prefer": "respond-async", **named})
    assert accepted.status_code == 202, accepted.get_data(as_text=True)
    return str(accepted.headers["Location"])


def await_end(client: FlaskClient, key: str, url: str) -> dict[str, Any]:
    def status() -> dict[str, Any]:
        body: dict[str, Any] = client.get(url, headers={"X-API-Key": key}).get_json()
        return body

    wait_for(lambda: status()["finished_at"], "the end of the job", LIMIT_S)
    return status()


def count_images(client: FlaskClient) -> int:
    meter = services(client.application).usage_meter
    return sum(use.images for use in meter.current_month().clients.values())


def test_archive_has_the_results_of_single_requests(client: FlaskClient, key: str) -> None:
    singles = [post_image(client, key, photo(seed), "?variant=compact_x4").data for seed in range(3)]

    response = send(client, key, [(photo(seed), f"sea{seed}.png") for seed in range(3)])

    assert (response.status_code, response.mimetype) == (200, "application/zip")
    assert response.headers["X-Superres-Images"] == "3"
    assert "upscaled.zip" in response.headers["Content-Disposition"]
    files, report = read_archive(response)
    assert list(files) == [f"sea{seed}_compact_x4.png" for seed in range(3)]
    assert list(files.values()) == singles
    assert (report["succeeded"], report["failed"]) == (3, 0)
    assert [entry["file"] for entry in report["images"]] == list(files)
    assert {entry["width"] for entry in report["images"]} == {48}
    assert count_images(client) == 6


def test_equal_names_are_numbered_and_unsafe_ones_cleaned(client: FlaskClient, key: str) -> None:
    names = ["sea.png", "SEA.png", "sea.png", "../../etc/sea.png", "", "caf\N{LATIN SMALL LETTER E WITH ACUTE}.png"]
    files, _ = read_archive(send(client, key, [(photo(seed), name) for seed, name in enumerate(names)]))

    assert list(files) == [
        "sea_compact_x4.png",
        "SEA_compact_x4-2.png",
        "sea_compact_x4-3.png",
        "sea_compact_x4-4.png",
        "image_compact_x4.png",
        "caf\N{LATIN SMALL LETTER E WITH ACUTE}_compact_x4.png",
    ]
    for seed, data in enumerate(files.values()):
        assert (read_image(data) == draw_photo(8, 12, seed=seed).repeat(4, 0).repeat(4, 1)).all(), "of another upload"


@pytest.mark.parametrize("bad", [b"not an image", PHOTO[:60], b"x" * 100_000, b""])
def test_invalid_image_does_not_lose_the_others(client: FlaskClient, key: str, bad: bytes) -> None:
    response = send(client, key, [(photo(0), "a.png"), (bad, "b.png"), (photo(1), "c.png")])

    files, report = read_archive(response)
    assert list(files) == ["a_compact_x4.png", "c_compact_x4.png"]
    assert (report["succeeded"], report["failed"]) == (2, 1)
    problem = report["images"][1]["problem"]
    assert (report["images"][1]["upload"], report["images"][1]["file"]) == ("b", None)
    assert problem["status"] in (400, 415, 422)
    assert problem["request_id"] == response.headers["X-Request-Id"]


def test_fault_of_one_image_is_reported_and_refunded(make_app: MakeApp, key: str) -> None:
    upscaler = FakeBackend(failures=FAULTS)
    client = make_app(upscaler=upscaler, client_megapixels="3 per hour", client_requests="4 per hour").test_client()

    files, report = read_archive(send(client, key, [(photo(seed), f"{seed}.png") for seed in range(3)]))

    assert list(files) == ["1_compact_x4.png", "2_compact_x4.png"]
    assert report["images"][0]["problem"]["type"] == "/problems/backend-fault"
    assert post_image(client, key, photo(9), "?variant=compact_x4").status_code == 200, "one megapixel is left"
    assert read_problem(post_image(client, key, photo(9), "?variant=compact_x4")) == (429, "limit-reached")
    assert count_images(client) == 3


def test_failure_of_all_is_the_problem_of_the_first(make_app: MakeApp, key: str) -> None:
    client = make_app(upscaler=FakeBackend(failures=FAULTS * 2)).test_client()

    assert read_problem(send(client, key, [(photo(0), "a.png"), (photo(1), "b.png")])) == (502, "backend-fault")
    assert read_problem(send(client, key, [(b"no", "a.png"), (b"no", "b.png")])) == (415, "unknown-format")


def test_all_images_are_admitted_or_none(make_app: MakeApp, key: str, upscaler: FakeBackend) -> None:
    client = make_app(client_megapixels="2 per hour").test_client()

    refused = send(client, key, [(photo(seed), "a.png") for seed in range(3)])

    assert read_problem(refused) == (429, "limit-reached")
    assert upscaler.calls == []
    files, _ = read_archive(send(client, key, [(photo(seed), "a.png") for seed in range(2)]))
    assert len(files) == 2, "the refused request has cost nothing"


def test_each_image_counts_as_a_request(make_app: MakeApp, key: str) -> None:
    client = make_app(client_requests="3 per hour").test_client()
    assert send(client, key, [(photo(seed), "a.png") for seed in range(3)]).status_code == 200

    assert read_problem(send(client, key, [(photo(0), "a.png")])) == (429, "limit-reached")


def test_number_and_pixels_of_the_images_are_limited(make_app: MakeApp, key: str, upscaler: FakeBackend) -> None:
    client = make_app(max_images=2, max_images_pixels=150).test_client()

    many = send(client, key, [(photo(seed), "a.png") for seed in range(3)])
    large = send(client, key, [(photo(seed), "a.png") for seed in range(2)])

    assert read_problem(many) == (413, "too-large")
    assert "3 images; the maximum is 2" in many.get_json()["detail"]
    assert read_problem(large) == (413, "too-many-pixels")
    assert "192 pixels; the maximum for one request is 150" in large.get_json()["detail"]
    assert send(client, key, [(photo(0), "a.png")]).status_code == 200
    assert len(upscaler.calls) == 1


def test_several_images_need_the_header(client: FlaskClient, key: str) -> None:
    refused = send(client, key, [(photo(0), "a.png"), (photo(1), "b.png")], {"Accept": "*/*"})

    assert read_problem(refused) == (400, "missing-image")
    assert "Accept: application/zip" in refused.get_json()["detail"]
    raw = post_image(client, key, headers={"Accept": "application/zip"})
    assert read_problem(raw) == (400, "missing-image")


def test_dry_run_quotes_each_image(client: FlaskClient, key: str, upscaler: FakeBackend) -> None:
    body = send(client, key, [(photo(0), "a.png"), (b"no", "b.png"), (photo(1), "c.png")], dry_run="1").get_json()

    assert [quote and quote["megapixels"] for quote in body["images"]] == [1, None, 1]
    assert body["megapixels"] == 2
    assert upscaler.calls == []


def test_cached_images_are_free(make_app: MakeApp, key: str) -> None:
    client = make_app(cache_max_bytes=1_000_000, client_megapixels="2 per hour").test_client()
    images = [(photo(0), "a.png"), (photo(1), "b.png")]
    first, _ = read_archive(send(client, key, images))

    second, report = read_archive(send(client, key, images))

    assert second == first
    assert [entry["cache"] for entry in report["images"]] == ["hit", "hit"]
    assert count_images(client) == 2


def test_queue_that_fills_up_makes_later_images_wait(
    client: FlaskClient, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_job, "_SLOT_RETRY_S", 0.001)
    runner = services(client.application).runner
    real, calls = runner.submit, list[int]()

    def submit(*arguments: Any) -> Any:
        calls.append(len(calls))
        if calls[-1] in (1, 2):
            raise QueueFull("The queue is full.")
        return real(*arguments)

    monkeypatch.setattr(runner, "submit", submit)

    files, report = read_archive(send(client, key, [(photo(seed), f"{seed}.png") for seed in range(2)]))

    assert (len(files), report["failed"], len(calls)) == (2, 0, 4)


def test_result_is_sent_before_the_next_image_is_begun(client: FlaskClient, key: str, upscaler: FakeBackend) -> None:
    response = send(client, key, [(photo(seed), f"{seed}.png") for seed in range(3)])
    parts = iter(response.response)

    first = next(parts)

    assert b"0_compact_x4.png" in first
    assert len(upscaler.calls) == 1
    files, _ = read_archive(first + b"".join(parts))
    assert len(files) == len(upscaler.calls) == 3


def test_client_that_disconnects_ends_the_rest(client: FlaskClient, key: str, upscaler: FakeBackend) -> None:
    response = send(client, key, [(photo(seed), f"{seed}.png") for seed in range(3)])
    parts = iter(response.response)
    next(parts)

    response.close()

    assert list(parts) == []
    assert len(upscaler.calls) == 1


def test_requests_for_several_images_leave_threads_for_others(make_app: MakeApp, key: str) -> None:
    client = make_app(max_concurrent_jobs=1, queue_size=1).test_client()
    images = [(photo(0), "a.png"), (photo(1), "b.png")]
    first = send(client, key, images)

    assert read_problem(send(client, key, images)) == (503, "queue-full")

    assert post_image(client, key).status_code == 200
    first.close()
    assert send(client, key, images).status_code == 200


def test_job_of_several_images_has_the_archive_as_its_result(client: FlaskClient, key: str) -> None:
    images = [(photo(0), "a.png"), (b"not an image", "b.png"), (photo(1), "c.png")]
    url = submit(client, key, images, Idempotency_Key="k")

    ended = await_end(client, key, url)

    assert (ended["state"], ended["images"]) == ("done", {"count": 3, "done": 3})
    facts = ended["result"]
    assert (facts["filename"], facts["media_type"]) == ("upscaled.zip", "application/zip")
    assert facts["notes"] == ["1 of 3 images failed: report.json in the archive says why."]
    assert (facts["width"], facts["variant"], facts["checks"]) == (None, None, None)
    download = client.get(facts["url"], headers={"X-API-Key": key})
    assert download.mimetype == "application/zip"
    files, report = read_archive(download)
    assert list(files) == ["a_compact_x4.png", "c_compact_x4.png"]
    assert (report["succeeded"], report["failed"]) == (2, 1)
    wait_for(lambda: count_images(client) == 2, "the count of the images", LIMIT_S)
    assert submit(client, key, images, Idempotency_Key="k") == url
    other = send(client, key, images[:2], {"Prefer": "respond-async", "Idempotency-Key": "k"})
    assert read_problem(other) == (422, "idempotency-key-reused")


def test_job_whose_images_all_fail_has_failed_and_costs_nothing(make_app: MakeApp, key: str) -> None:
    app = make_app(upscaler=FakeBackend(failures=FAULTS * 2), client_megapixels="2 per hour")
    client = app.test_client()
    images = [(photo(0), "a.png"), (photo(1), "b.png")]

    ended = await_end(client, key, submit(client, key, images))

    assert (ended["state"], ended["problem"]["type"]) == ("failed", "/problems/backend-fault")
    assert await_end(client, key, submit(client, key, images))["state"] == "done", "the megapixels were refunded"


def test_cancelled_job_stops_and_releases_its_memory(make_app: MakeApp, key: str) -> None:
    upscaler = FakeBackend(gate=threading.Event())
    app = make_app(upscaler=upscaler)
    client = app.test_client()
    url = submit(client, key, [(photo(seed), "a.png") for seed in range(3)])
    upscaler.arrived.acquire(timeout=LIMIT_S)

    assert client.delete(url, headers={"X-API-Key": key}).status_code == 204

    wait_for(lambda: not services(app).async_jobs.count_running(), "the end of the thread", LIMIT_S)
    wait_for(lambda: not services(app).upload_memory.reserved_bytes(), "the release of the uploads", LIMIT_S)
    assert len(upscaler.calls) == 1
    assert await_end(client, key, url)["state"] == "cancelled"


def test_results_beyond_the_memory_are_reported(make_app: MakeApp, key: str) -> None:
    size = len(post_image(make_app().test_client(), key, query="?variant=compact_x4").data)
    client = make_app(results_max_bytes=2 * (8_192 + 2 * size + size // 2)).test_client()
    url = submit(client, key, [(PHOTO, f"{number}.png") for number in range(3)])

    ended = await_end(client, key, url)

    files, report = read_archive(client.get(ended["result"]["url"], headers={"X-API-Key": key}).data)
    assert (len(files), report["succeeded"], report["failed"]) == (2, 2, 1)
    assert report["images"][-1]["problem"]["type"] == "/problems/result-too-large"


def test_delete_of_a_job_deletes_all_copies_in_the_cache(make_app: MakeApp, key: str) -> None:
    app = make_app(cache_max_bytes=1_000_000)
    client = app.test_client()
    url = submit(client, key, [(photo(0), "a.png"), (photo(1), "b.png")])
    await_end(client, key, url)
    assert services(app).result_cache.stats().count == 2

    assert client.delete(url, headers={"X-API-Key": key}).status_code == 204

    assert services(app).result_cache.stats().count == 0


@pytest.mark.parametrize(("small_jobs_per_slot", "left"), [(1, 14), (4, 2)])
def test_requests_for_several_images_leave_the_threads_of_all_other_work(
    make_app: MakeApp, small_jobs_per_slot: int, left: int
) -> None:
    """Of 44 threads, 4 x small_jobs_per_slot are for images in process, 24 for the queue, and 2 for pages."""
    app = make_app(threads=44, max_concurrent_jobs=4, queue_size=24, small_jobs_per_slot=small_jobs_per_slot)
    taken = 0
    with app.app_context():
        while services().archive_threads.acquire(blocking=False):
            taken += 1
    assert taken == left
