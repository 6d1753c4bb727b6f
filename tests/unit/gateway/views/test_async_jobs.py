"""Asynchronous jobs over HTTP, stored in memory: 202, status, result, DELETE and Idempotency-Key."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from gateway.access.api_keys import ApiKeyStore
from gateway.async_jobs.record import new_job_id
from gateway.backend.interface import BackendFaultError
from gateway.services import services
from testing.backend import FakeBackend
from testing.clock import ManualClock
from testing.fixtures import MakeApp
from testing.images import draw_photo, encode_png
from testing.redis_server import wait_for
from testing.requests import PHOTO, api_form, post_image, read_problem

ASYNC = {"Prefer": "respond-async"}


class Caller:
    """A client of the API with its key."""

    def __init__(self, client: FlaskClient, key: str) -> None:
        self._client, self._headers = client, {"X-API-Key": key}

    def post(self, data: bytes = PHOTO, query: str = "?variant=compact_x4", **headers: str) -> TestResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._client.post(f"/api/v1/upscale{query}", data=data, headers={**self._headers, **ASYNC, **named})

    def get(self, url: str, **headers: str) -> TestResponse:
        return self._client.get(url, headers={**self._headers, **headers})

    def delete(self, url: str) -> TestResponse:
        return self._client.delete(url, headers=self._headers)

    def status(self, url: str) -> dict[str, Any]:
        response = self.get(url)
        assert response.status_code == 200, response.get_data(as_text=True)
        body: dict[str, Any] = response.get_json()
        return body

    def finish(self, url: str) -> dict[str, Any]:
        """Wait until a job has ended, and return its status."""
        wait_for(lambda: self.status(url)["finished_at"], "the end of the job")
        return self.status(url)


@pytest.fixture
def caller(client: FlaskClient, key: str) -> Caller:
    return Caller(client, key)


def gated(make_app: MakeApp, key: str, **changes: object) -> tuple[Flask, Caller, threading.Event, FakeBackend]:
    """Return an application whose backend waits at a gate, and a caller of it."""
    gate = threading.Event()
    upscaler = FakeBackend(gate=gate, work_s=1.5)
    app = make_app(upscaler=upscaler, **changes)
    return app, Caller(app.test_client(), key), gate, upscaler


def count_images(app: Flask) -> int:
    """Return how many finished images this month's usage has."""
    return sum(use.images for use in services(app).usage_meter.current_month().clients.values())


def test_job_is_accepted_and_ends_with_the_bytes_of_the_plain_response(
    client: FlaskClient, caller: Caller, key: str
) -> None:
    plain = post_image(client, key, query="?variant=compact_x4")

    accepted = caller.post()

    assert accepted.status_code == 202
    assert accepted.headers["Preference-Applied"] == "respond-async"
    url = accepted.headers["Location"]
    assert accepted.get_json() == {"id": url.rpartition("/")[2], "url": url}
    ended = caller.finish(url)
    assert ended["state"] == "done"
    assert (ended["queue"], ended["backend"], ended["problem"], ended["left_s"]) == (None, None, None, None)
    assert (ended["bands_done"], ended["bands"], ended["attempts"]) == (2, 2, 1)
    facts = ended["result"]
    assert (facts["width"], facts["height"], facts["bytes"]) == (128, 96, len(plain.data))
    assert facts["filename"] == "image_compact_x4.png"
    download = caller.get(facts["url"])
    assert (download.status_code, download.data) == (200, plain.data)
    rest = caller.get(facts["url"], **{"Range": "bytes=100-", "If-Range": download.headers["ETag"]})
    assert (rest.status_code, rest.data) == (206, plain.data[100:])


def test_multipart_form_and_other_preferences(client: FlaskClient, key: str) -> None:
    headers = {"X-API-Key": key, "Prefer": "wait=10, Respond-Async; x=1"}

    accepted = client.post("/api/v1/upscale", **api_form(filename="sea.png", format="webp"), headers=headers)

    assert accepted.status_code == 202
    ended = Caller(client, key).finish(accepted.headers["Location"])
    assert ended["result"]["filename"] == "sea_compact_x4.webp"
    assert post_image(client, key, headers={"Prefer": "respond-asyncx"}).status_code == 200


def test_status_reports_queue_bands_estimate_and_gpu_seconds(make_app: MakeApp, key: str) -> None:
    app, caller, gate, upscaler = gated(make_app, key, max_concurrent_jobs=1)
    first, second = (caller.post().headers["Location"] for _ in range(2))
    assert upscaler.arrived.acquire(timeout=120)

    running, queued = caller.status(first), caller.status(second)

    assert running["state"] == "running"
    assert running["backend"]["state"] == "asleep"
    assert (queued["state"], queued["queue"]) == ("queued", {"position": 1, "ahead": 1})
    assert (queued["result"], queued["problem"], queued["finished_at"]) == (None, None, None)
    assert read_problem(caller.get(f"{first}/result")) == (409, "job-not-finished")
    gate.set()
    assert [caller.finish(url)["gpu_s"] for url in (first, second)] == [3.0, 3.0]
    wait_for(lambda: count_images(app) == 2, "the count of the images")


def test_delete_cancels_an_unfinished_job(make_app: MakeApp, key: str) -> None:
    app, caller, _, upscaler = gated(make_app, key, client_megapixels="1 per hour")
    url = caller.post().headers["Location"]
    assert upscaler.arrived.acquire(timeout=120)

    assert caller.delete(url).status_code == 204

    assert caller.status(url)["state"] == "cancelled"
    wait_for(lambda: upscaler.stops == 1, "the end of the backend's work")
    wait_for(lambda: not services(app).async_jobs.count_running(), "the end of the thread")
    wait_for(lambda: not services(app).upload_memory.reserved_bytes(), "the release of the upload's memory")
    assert caller.status(url)["state"] == "cancelled"
    assert read_problem(caller.get(f"{url}/result")) == (409, "job-not-finished")
    assert count_images(app) == 0
    assert caller.delete(url).status_code == 204
    assert read_problem(caller.get(url)) == (404, "unknown-job")


def test_delete_forgets_a_finished_job_and_its_result(caller: Caller) -> None:
    url = caller.post().headers["Location"]
    caller.finish(url)

    assert caller.delete(url).status_code == 204

    for response in (caller.get(url), caller.get(f"{url}/result"), caller.delete(url)):
        assert read_problem(response) == (404, "unknown-job")


def test_failed_job_has_its_problem_and_costs_nothing(make_app: MakeApp, key: str) -> None:
    upscaler = FakeBackend(failures=[BackendFaultError("broken"), BackendFaultError("broken")])
    caller = Caller(make_app(upscaler=upscaler, client_megapixels="1 per hour").test_client(), key)

    url = caller.post().headers["Location"]

    ended = caller.finish(url)
    assert (ended["state"], ended["result"]) == ("failed", None)
    assert (ended["problem"]["type"], ended["problem"]["status"]) == ("/problems/backend-fault", 502)
    assert caller.post().status_code == 202, "the megapixel was refunded"


def test_rejected_request_leaves_no_job(make_app: MakeApp, key: str) -> None:
    _, caller, gate, _ = gated(make_app, key, max_concurrent_jobs=1, queue_size=1)
    urls = [caller.post().headers["Location"] for _ in range(2)]

    assert read_problem(caller.post(Idempotency_Key="a")) == (503, "queue-full")

    gate.set()
    assert [caller.finish(url)["state"] for url in urls] == ["done", "done"]
    assert caller.post(Idempotency_Key="a").status_code == 202, "the key of a rejected request is free again"
    assert read_problem(caller.post(b"not an image")) == (415, "unknown-format")


def test_job_belongs_to_its_client(app: Flask, tmp_path: Any, key: str) -> None:
    own, other = Caller(app.test_client(), key), Caller(app.test_client(), ApiKeyStore(tmp_path / "keys.json").new("b"))
    url = own.post(Idempotency_Key="a").headers["Location"]
    own.finish(url)

    for response in (other.get(url), other.get(f"{url}/result"), other.delete(url)):
        assert read_problem(response) == (404, "unknown-job")
    assert read_problem(app.test_client().get(url)) == (401, "key-required")
    assert other.post(Idempotency_Key="a").headers["Location"] != url, "keys belong to a client too"
    assert own.status(url)["state"] == "done"


def test_result_expires_before_its_job(make_app: MakeApp, key: str, clock: ManualClock) -> None:
    caller = Caller(make_app(clock=clock, results_max_age_s=60.0, jobs_max_age_s=600.0).test_client(), key)
    url = caller.post().headers["Location"]
    caller.finish(url)

    clock.now += 61

    assert caller.status(url)["state"] == "done"
    gone = caller.get(f"{url}/result")
    assert read_problem(gone) == (410, "result-expired")
    assert "1 minutes" in gone.get_json()["detail"]
    clock.now += 600
    assert read_problem(caller.get(url)) == (404, "unknown-job")


def test_job_of_an_earlier_run_is_lost_in_words(caller: Caller, app: Flask) -> None:
    lost = caller.get(f"/api/v1/jobs/{new_job_id('0123abcd')}")

    assert read_problem(lost) == (410, "job-lost")
    assert "restarted" in lost.get_json()["detail"]
    own = new_job_id(services(app).async_jobs.run_id)
    assert read_problem(caller.get(f"/api/v1/jobs/{own}")) == (404, "unknown-job")
    assert read_problem(caller.get("/api/v1/jobs/x")) == (404, "unknown-job")


def test_same_key_and_body_is_the_same_job(make_app: MakeApp, key: str) -> None:
    app, caller, gate, upscaler = gated(make_app, key, client_megapixels="1 per hour")

    first, second = (caller.post(Idempotency_Key="4f1c") for _ in range(2))

    assert (first.status_code, second.status_code) == (202, 202)
    assert first.headers["Location"] == second.headers["Location"]
    gate.set()
    assert caller.finish(first.headers["Location"])["state"] == "done"
    assert caller.post(Idempotency_Key="4f1c").headers["Location"] == first.headers["Location"]
    assert len(upscaler.calls) == 1
    assert count_images(app) == 1


@pytest.mark.parametrize(
    ("data", "query"),
    [(encode_png(draw_photo(8, 8)), "?variant=compact_x4"), (PHOTO, "?variant=compact_x4&format=webp"), (PHOTO, "")],
)
def test_same_key_with_another_request_is_a_problem(caller: Caller, data: bytes, query: str) -> None:
    url = caller.post(Idempotency_Key="a").headers["Location"]

    assert read_problem(caller.post(data, query, Idempotency_Key="a")) == (422, "idempotency-key-reused")

    assert caller.finish(url)["state"] == "done"


@pytest.mark.parametrize("value", ["with space", "x" * 129, "\x7f"])
def test_invalid_key_is_rejected(caller: Caller, value: str) -> None:
    assert read_problem(caller.post(Idempotency_Key=value)) == (400, "bad-parameter")


def test_key_is_known_for_a_time(make_app: MakeApp, key: str, clock: ManualClock) -> None:
    caller = Caller(make_app(clock=clock, jobs_max_age_s=600.0).test_client(), key)
    first = caller.post(Idempotency_Key="a").headers["Location"]
    caller.finish(first)

    clock.now += 601

    assert caller.post(PHOTO, "", Idempotency_Key="a").headers["Location"] != first


def test_oldest_finished_jobs_are_forgotten_first(make_app: MakeApp, key: str) -> None:
    _, caller, gate, upscaler = gated(make_app, key, jobs_max_per_client=2, max_concurrent_jobs=2)
    gate.set()
    first, second = (caller.post().headers["Location"] for _ in range(2))
    for url in (first, second):
        caller.finish(url)
    gate.clear()
    running = [caller.post().headers["Location"] for _ in range(2)]

    assert read_problem(caller.post()) == (429, "too-many-at-once"), "both are unfinished"

    gate.set()
    assert [caller.finish(url)["state"] for url in running] == ["done", "done"]
    for url in (first, second):
        assert read_problem(caller.get(url)) == (404, "unknown-job")
    del upscaler


def test_polls_have_a_limit_of_their_own(make_app: MakeApp, key: str) -> None:
    caller = Caller(make_app(poll_rate="3 per minute", client_requests="1 per hour").test_client(), key)
    url = caller.post().headers["Location"]

    statuses = [caller.get(url).status_code for _ in range(4)]

    assert statuses == [200, 200, 200, 429]


def test_cached_result_is_a_job_that_costs_nothing(make_app: MakeApp, key: str) -> None:
    app = make_app(cache_max_bytes=1_000_000, client_megapixels="1 per hour")
    caller = Caller(app.test_client(), key)
    caller.finish(caller.post().headers["Location"])

    ended = caller.finish(caller.post().headers["Location"])

    assert (ended["state"], ended["result"]["cache"], ended["gpu_s"]) == ("done", "hit", 0.0)
    assert count_images(app) == 1


def test_upload_keeps_its_memory_until_the_job_ends(make_app: MakeApp, key: str) -> None:
    app, caller, gate, _ = gated(make_app, key)

    url = caller.post().headers["Location"]

    assert services(app).upload_memory.reserved_bytes() == len(PHOTO)
    gate.set()
    caller.finish(url)
    wait_for(lambda: not services(app).upload_memory.reserved_bytes(), "the release")


def test_estimate_of_a_job_without_bands(make_app: MakeApp, key: str) -> None:
    app, caller, gate, upscaler = gated(make_app, key, max_concurrent_jobs=1)
    gate.set()
    caller.finish(caller.post().headers["Location"])
    gate.clear()
    services(app).runner.pace.observe("compact_x4", 768, {})
    first, second = (caller.post().headers["Location"] for _ in range(2))

    assert caller.status(first)["left_s"] is not None
    assert caller.status(second)["left_s"] >= caller.status(first)["left_s"]
    gate.set()
    caller.finish(second)
    del upscaler


def test_delete_of_a_job_deletes_the_copy_in_the_cache(make_app: MakeApp, key: str, upscaler: FakeBackend) -> None:
    app = make_app(cache_max_bytes=1_000_000)
    caller = Caller(app.test_client(), key)
    url = caller.post().headers["Location"]
    caller.finish(url)
    assert services(app).result_cache.stats().count == 1

    assert caller.delete(url).status_code == 204

    assert services(app).result_cache.stats().count == 0
    assert caller.finish(caller.post().headers["Location"])["result"]["cache"] == "miss"
    assert len(upscaler.calls) == 2
