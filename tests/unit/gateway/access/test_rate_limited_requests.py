"""Rate limits over HTTP: what a request is charged, what is refunded, what the response says."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from gateway.access.api_keys import ApiKeyStore
from gateway.backend.interface import BackendFaultError, BackendUnavailableError
from testing import images
from testing.backend import FakeBackend
from testing.fixtures import MakeApp
from testing.requests import PHOTO, form, post_image, read_problem

# 1.5 megapixels, charged as 2.
BIG = images.encode_png(np.full((1_000, 1_500, 3), 128, np.uint8))
V4 = "203.0.113.7"


def test_response_has_rate_limit_headers(make_app: MakeApp) -> None:
    client = make_app(anonymous_requests="3 per minute", anonymous_megapixels="9 per hour").test_client()

    response = client.post("/", **form(BIG))

    assert response.status_code == 303
    headers = response.headers
    assert headers["RateLimit-Policy"] == '"requests-60";q=3;w=60, "megapixels-3600";q=9;w=3600'
    assert headers["RateLimit"].startswith('"requests-60";r=2;t=')
    assert '"megapixels-3600";r=7;t=3' in headers["RateLimit"]
    assert (headers["X-RateLimit-Limit"], headers["X-RateLimit-Remaining"]) == ("3", "2")
    assert int(headers["X-RateLimit-Reset"]) > 1_700_000_000


def test_request_rate_rejects_before_the_body_is_read(make_app: MakeApp, upscaler: FakeBackend) -> None:
    client = make_app(anonymous_requests="2 per minute").test_client()
    assert [client.post("/", **form()).status_code for _ in range(2)] == [303, 303]

    refused = client.post("/", data=b"never read", content_type="nonsense", headers={"Accept": "application/json"})

    assert read_problem(refused) == (429, "limit-reached")
    assert refused.get_json()["detail"].startswith("The limit is 2 requests per minute. Try again in ")
    assert refused.get_json()["retry_after_s"] == int(refused.headers["Retry-After"])
    assert refused.headers["X-RateLimit-Remaining"] == "0"
    assert len(upscaler.calls) == 2


def test_megapixel_rate_rejects_before_decoding(
    make_app: MakeApp, upscaler: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_app(anonymous_megapixels="3 per hour").test_client()
    assert client.post("/", **form(BIG)).status_code == 303
    monkeypatch.setattr("gateway.jobs.job_codec.decode", None)

    refused = client.post("/", **form(BIG), headers={"Accept": "application/json"})

    assert read_problem(refused) == (429, "limit-reached")
    assert "3 megapixels per hour" in refused.get_json()["detail"]
    assert len(upscaler.calls) == 1


TRUNCATED = images.truncated(PHOTO)


@pytest.mark.parametrize(
    ("data", "failure", "requests", "megapixels"),
    [
        (PHOTO, None, 1, 1),
        (b"no image", None, 1, 0),  # invalid input costs no megapixels
        (TRUNCATED, None, 1, 0),  # found when it is decoded
        (PHOTO, BackendUnavailableError("booting"), 0, 0),  # failures of the service cost nothing
        (PHOTO, BackendFaultError("stub died"), 0, 0),
        (PHOTO, MemoryError(), 0, 0),
    ],
)
@pytest.mark.parametrize("way", ["form", "api"])
def test_failed_requests_are_refunded(
    make_app: MakeApp, key: str, way: str, data: bytes, failure: Exception | None, requests: int, megapixels: int
) -> None:
    app = make_app(
        upscaler=FakeBackend(failures=[failure, failure] if failure else []),
        anonymous_requests="9 per hour",
        anonymous_megapixels="9 per hour",
        client_requests="9 per hour",
        client_megapixels="9 per hour",
    )

    def ask(image: bytes) -> dict[str, int]:
        """Return what remains of each limit."""
        client = app.test_client()
        response = client.post("/", **form(image)) if way == "form" else post_image(client, key, image)
        parts = response.headers["RateLimit"].split(", ")
        return {part.split('"')[1].split("-")[0]: int(part.split("r=")[1].split(";")[0]) for part in parts}

    assert {"megapixels": 9, **ask(data)} == {"requests": 9 - requests, "megapixels": 9 - megapixels}


def test_full_queue_refunds_megapixels_and_counts_the_request(make_app: MakeApp, key: str) -> None:
    gate = threading.Event()
    upscaler = FakeBackend(gate=gate)
    app = make_app(upscaler=upscaler, max_concurrent_jobs=1, queue_size=0)
    worker = threading.Thread(target=lambda: post_image(app.test_client(), key))
    worker.start()
    assert upscaler.arrived.acquire(timeout=120)

    refused = app.test_client().post("/", **form(), headers={"Accept": "application/json"})
    gate.set()
    worker.join(120)

    assert read_problem(refused) == (503, "queue-full")
    assert '"requests-60";r=59' in refused.headers["RateLimit"]
    assert '"megapixels-3600";r=120' in refused.headers["RateLimit"]


def test_keys_of_one_client_share_its_rate(make_app: MakeApp, tmp_path: Path) -> None:
    app = make_app(client_requests="50 per hour", anonymous_requests="1 per hour")
    keys = ApiKeyStore(tmp_path / "keys.json")
    small, large = keys.new("small", requests="2 per hour"), keys.new("large")
    client = app.test_client()

    assert [post_image(client, small).status_code for _ in range(3)] == [200, 200, 429]
    assert [post_image(client, large).status_code for _ in range(3)] == [200, 200, 200]
    assert post_image(client, keys.new("small", requests="2 per hour")).status_code == 429
    assert client.post("/", **form()).status_code == 303, "the address has its own"


def test_invalid_keys_count_against_the_address_and_valid_keys_do_not(make_app: MakeApp, key: str) -> None:
    client = make_app(anonymous_requests="3 per minute").test_client()

    assert [post_image(client, f"ssr_guess{n}").status_code for n in range(5)] == [401, 401, 401, 429, 429]
    assert post_image(client, key).status_code == 200


def test_wake_calls_have_a_rate_of_their_own(make_app: MakeApp, upscaler: FakeBackend) -> None:
    client = make_app(wake_rate="2 per minute").test_client()

    responses = []
    for _ in range(3):
        responses.append(client.post("/api/v1/wake"))
        upscaler.state_tracker.mark_asleep()

    assert [response.status_code for response in responses] == [202, 202, 429]
    assert responses[2].get_json()["detail"].startswith("The limit is 2 wake calls per minute. Try again in ")
    assert read_problem(responses[2]) == (429, "limit-reached")
    assert client.post("/", **form()).status_code == 303


def test_wake_call_that_starts_no_boot_is_not_counted(make_app: MakeApp, upscaler: FakeBackend) -> None:
    client = make_app(wake_rate="2 per minute").test_client()

    assert {client.post("/api/v1/wake").status_code for _ in range(5)} == {202}, "the first began the boot"
    upscaler.state_tracker.mark_up()
    assert {client.post("/api/v1/wake").status_code for _ in range(5)} == {202}, "it is up"
    upscaler.state_tracker.mark_asleep()
    assert client.post("/api/v1/wake").status_code == 202
    upscaler.state_tracker.mark_failed()
    assert client.post("/api/v1/wake").status_code == 429, "two of them began a boot"
    assert upscaler.wakes == 11, "each that is let in counts as use"


def test_rejected_wake_calls_do_not_ban_the_client(make_app: MakeApp, upscaler: FakeBackend) -> None:
    client = make_app(wake_rate="1 per minute", ban_after="3 per minute").test_client()
    statuses = []
    for _ in range(9):
        statuses.append(client.post("/api/v1/wake").status_code)
        upscaler.state_tracker.mark_asleep()

    assert statuses == [202] + [429] * 8
    assert client.post("/", **form()).status_code == 303


def test_concurrent_requests_of_a_client_are_limited(make_app: MakeApp, key: str) -> None:
    gate = threading.Event()
    upscaler = FakeBackend(gate=gate)
    app = make_app(upscaler=upscaler, max_concurrent_jobs=8, max_concurrent_requests=2)
    workers = [threading.Thread(target=lambda: post_image(app.test_client(), key).close()) for _ in range(2)]
    for worker in workers:
        worker.start()
    for _ in workers:
        assert upscaler.arrived.acquire(timeout=120)

    refused = post_image(app.test_client(), key)
    gate.set()
    for worker in workers:
        worker.join(120)

    assert read_problem(refused) == (429, "too-many-at-once")
    assert int(refused.headers["Retry-After"]) >= 1
    assert post_image(app.test_client(), key).status_code == 200


def test_client_behind_proxies_is_limited_by_its_own_address(make_app: MakeApp) -> None:
    client = make_app(trusted_hops=1, anonymous_requests="1 per hour").test_client()

    def ask(forwarded_for: str) -> int:
        return client.post("/", **form(), headers={"X-Forwarded-For": forwarded_for}).status_code

    assert ask("203.0.113.7") == 303
    assert ask("198.51.100.1, 203.0.113.7") == 429, "a forged entry gains nothing"
    assert ask("203.0.113.8") == 303


def test_queued_images_of_a_client_are_limited_and_megapixels_refunded(make_app: MakeApp, key: str) -> None:
    gate = threading.Event()
    upscaler = FakeBackend(gate=gate)
    app = make_app(upscaler=upscaler, max_concurrent_jobs=1, queue_size=8, queue_size_per_client=1)
    responses: list[int] = []
    workers = [threading.Thread(target=lambda: responses.append(post_image(app.test_client(), key).status_code))]
    workers[0].start()
    assert upscaler.arrived.acquire(timeout=120)

    def wait_for(waiting: int) -> None:
        end = time.monotonic() + 120
        while app.test_client().get("/api/v1/status").get_json()["queue"]["waiting"] != waiting:
            assert time.monotonic() < end, "the queue did not fill"
            time.sleep(0.01)

    workers.append(threading.Thread(target=lambda: responses.append(post_image(app.test_client(), key).status_code)))
    workers[1].start()
    wait_for(1)
    refused = post_image(app.test_client(), key)
    workers.append(threading.Thread(target=lambda: responses.append(app.test_client().post("/", **form()).status_code)))
    workers[2].start()
    wait_for(2)
    gate.set()
    for worker in workers:
        worker.join(120)

    assert read_problem(refused) == (429, "too-many-at-once")
    assert int(refused.headers["Retry-After"]) >= 1
    assert '"megapixels-3600";r=998' in refused.headers["RateLimit"], "the two before it are charged, this one is not"
    assert sorted(responses) == [200, 200, 303]
