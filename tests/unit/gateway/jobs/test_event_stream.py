"""Event streams of jobs, the backend's status and the wake call, on the fake backend."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image as PilImage

from gateway.backend.interface import BackendMisconfiguredError
from gateway.cancellation import CancelToken
from gateway.config.settings import Settings
from gateway.jobs.event_stream import MAX_PREVIEW_PROFILE_BYTES, JobEvents
from gateway.jobs.options import make_request, parse_options
from gateway.jobs.queue import Capacity, JobQueue
from gateway.jobs.runner import JobRunner, QueuedJob
from gateway.services import services
from testing import images
from testing.backend import FakeBackend
from testing.clock import ManualClock
from testing.fixtures import MakeApp
from testing.images import draw_photo, encode_png
from testing.requests import PHOTO, post_image, read_events, read_image, read_problem

EVENTS = {"Accept": "text/event-stream"}


def submit_job(upscaler: FakeBackend, queue: JobQueue | None = None, data: bytes = PHOTO, **options: str) -> QueuedJob:
    settings = Settings(default_variant="compact_x4")
    request = make_request(data, "photo.png", parse_options(options, settings), settings)
    return JobRunner(upscaler, queue or JobQueue(Capacity(running=1, waiting=3)), deadline_s=120.0).submit(
        request, "the-id"
    )


def test_stream_reports_progress_and_ends_with_the_bytes_of_the_plain_response(client: FlaskClient, key: str) -> None:
    plain = post_image(client, key)

    streamed = post_image(client, key, headers=EVENTS)

    assert streamed.content_type.startswith("text/event-stream")
    events = read_events(streamed.data)
    assert [name for name, _ in events if name not in ("state", "")] == ["choice", "progress", "progress", "result"]
    assert [body["bands_done"] for name, body in events if name == "progress"] == [1, 2]
    result = events[-1][1]
    assert client.get(result.pop("url")).data == plain.data
    assert result.pop("upload_url") is None, "an API client has its upload"
    assert result.pop("expires_s") == 900.0
    assert result.pop("seconds") >= 0.0
    assert result == {
        "filename": "image_compact_x4.png",
        "media_type": "image/png",
        "width": 128,
        "height": 96,
        "bytes": len(plain.data),
        "variant": "compact_x4",
        "strength": 1.0,
        "choice": next(body for name, body in events if name == "choice"),
        "notes": [],
        "checks": None,
        "cache": "miss",
    }


def test_stream_says_how_the_gateway_turned_what_browsers_do_not_turn(client: FlaskClient, key: str) -> None:
    pixels = draw_photo(24, 32)
    by_xmp = images.png_with_xmp(pixels, images.xmp_with_orientation(6))
    by_exif = images.encode_png(pixels, exif=images.exif_with_orientation(6))

    for data, expected in ((by_xmp, [{"value": 6, "width": 24, "height": 32}]), (by_exif, [])):
        events = read_events(post_image(client, key, data, headers=EVENTS).data)
        assert [body for name, body in events if name == "orientation"] == expected
        assert (events[-1][1]["width"], events[-1][1]["height"]) == (96, 128)


def test_client_that_rejects_events_gets_the_image(client: FlaskClient, key: str) -> None:
    plain = post_image(client, key, headers={"Accept": "image/*, text/event-stream;q=0"})

    assert plain.content_type == "image/png"


@pytest.mark.parametrize(
    ("pixels", "profile", "mode"),
    [
        (draw_photo(24, 32), images.icc_profile(), "RGB"),
        (images.draw_grey(24, 32), images.icc_profile(b"GRAY"), "L"),
        (draw_photo(24, 32), images.icc_profile(n_bytes=MAX_PREVIEW_PROFILE_BYTES + 1), "RGB"),
    ],
    ids=["colour", "grey", "large"],
)
def test_bands_have_the_profile_of_the_result(
    client: FlaskClient, key: str, pixels: images.Pixels, profile: bytes, mode: str
) -> None:
    data = encode_png(pixels, icc_profile=profile)

    streamed = post_image(client, key, data, query="?bands=1", headers=EVENTS)

    bands = [body for name, body in read_events(streamed.data) if name == "band"]
    opened = [PilImage.open(BytesIO(base64.b64decode(band["data"]))) for band in bands]
    expected = profile if len(profile) <= MAX_PREVIEW_PROFILE_BYTES else None
    assert len(opened) == 2
    assert {(band.mode, band.info.get("icc_profile")) for band in opened} == {(mode, expected)}


def test_bands_add_up_to_the_image(client: FlaskClient, key: str) -> None:
    streamed = post_image(client, key, query="?bands=1", headers=EVENTS)

    bands = [body for name, body in read_events(streamed.data) if name == "band"]
    assert [(band["top"], band["rows"], band["width"], band["height"]) for band in bands] == [
        (0, 48, 128, 96),
        (48, 48, 128, 96),
    ]
    painted = np.concatenate([read_image(base64.b64decode(band["data"])) for band in bands])
    whole = draw_photo(24, 32).repeat(4, 0).repeat(4, 1)
    assert np.abs(painted.astype(int) - whole).mean() < 4, "a JPEG of quality 80"


def test_wide_band_is_sent_smaller() -> None:
    data = encode_png(draw_photo(8, 1000))
    stream = JobEvents(submit_job(FakeBackend(), data=data), FakeBackend().state_tracker, with_bands=True)
    stream.start()

    bands = [body for name, body in read_events(b"".join(stream.events())) if name == "band"]

    assert bands[0]["width"] == 4000
    assert PilImage.open(BytesIO(base64.b64decode(bands[0]["data"]))).width == 2048


def test_rejections_come_before_the_stream_begins(client: FlaskClient, key: str) -> None:
    assert read_problem(post_image(client, "no-such-key", headers=EVENTS)) == (401, "key-required")
    assert read_problem(post_image(client, key, b"not an image", headers=EVENTS)) == (415, "unknown-format")
    refused = client.post("/", data={}, headers=EVENTS, content_type="multipart/form-data")
    assert refused.content_type == "application/problem+json", "the page's script reads it"


def test_full_queue_rejects_before_the_stream_begins(make_app: MakeApp, key: str) -> None:
    upscaler = FakeBackend(gate=threading.Event())
    app = make_app(upscaler=upscaler, max_concurrent_jobs=1, queue_size=0)
    first = app.test_client().post("/api/v1/upscale", data=PHOTO, headers={"X-API-Key": key, **EVENTS}, buffered=False)
    assert upscaler.arrived.acquire(timeout=120)

    assert read_problem(post_image(app.test_client(), key, headers=EVENTS)) == (503, "queue-full")

    first.close()


@pytest.mark.parametrize(
    ("failure", "status", "slug"),
    [(BackendMisconfiguredError("a secret"), 502, "backend-fault"), (RuntimeError("a secret"), 500, "internal-error")],
)
def test_later_failure_is_a_problem_event(
    make_app: MakeApp, key: str, failure: Exception, status: int, slug: str
) -> None:
    app = make_app(upscaler=FakeBackend(failures=[failure]), client_requests="9 per hour", client_megapixels="")

    streamed = post_image(app.test_client(), key, headers=EVENTS)

    name, problem = read_events(streamed.data)[-1]
    assert streamed.status_code == 200
    assert (name, problem["status"], problem["type"]) == ("problem", status, f"/problems/{slug}")
    assert problem["request_id"] == streamed.headers["X-Request-Id"]
    assert "secret" not in problem["detail"]
    assert f'superres_gateway_problems_total{{slug="{slug}"}} 1.0' in services(app).metrics.text()
    assert "r=8;" in post_image(app.test_client(), key).headers["RateLimit"], "our own failures are not charged"


def take(events: Iterator[bytes], name: str) -> dict[str, Any]:
    """Return the next event with this name; other events in the same chunk are skipped."""
    text = b""
    for chunk in events:
        text += chunk
        if text.endswith(b"\n\n"):
            for found, body in read_events(text):
                if found == name:
                    return body
            text = b""
    raise AssertionError(f"the stream ended without {name}")


def test_queue_position_is_reported_as_it_changes() -> None:
    gate, queue = threading.Event(), JobQueue(Capacity(running=1, waiting=3))
    upscaler = FakeBackend(gate=gate)
    streams = [JobEvents(submit_job(upscaler, queue), upscaler.state_tracker, with_bands=False) for _ in range(3)]
    for stream in streams:
        stream.start()
    events = streams[2].events()

    assert take(events, "queue") == {"position": 2, "ahead": 2}
    gate.set()
    assert take(events, "result")["width"] == 128
    for stream in streams[:2]:
        take(stream.events(), "result")


def test_state_is_reported_each_second_while_booting() -> None:
    gate, clock = threading.Event(), ManualClock()
    upscaler = FakeBackend(gate=gate)
    upscaler.state_tracker = type(upscaler.state_tracker)(clock=clock)
    upscaler.wake()
    stream = JobEvents(submit_job(upscaler), upscaler.state_tracker, with_bands=False, clock=clock)
    stream.start()
    events = stream.events()

    assert take(events, "state") == {"state": "booting", "elapsed_s": 0.0, "usual_s": None, "reason": None}
    clock.now += 1.0
    assert take(events, "state") == {"state": "booting", "elapsed_s": 1.0, "usual_s": None, "reason": None}
    clock.now += 6.0
    gate.set()
    assert take(events, "state") in (
        {"state": "booting", "elapsed_s": 7.0, "usual_s": None, "reason": None},
        {"state": "up", "elapsed_s": None, "usual_s": {"p50": 7.0, "p90": 7.0}, "reason": None},
    )
    assert take(events, "result")["width"] == 128


def test_silent_stream_sends_heartbeats() -> None:
    gate, clock = threading.Event(), ManualClock()
    upscaler = FakeBackend(gate=gate)
    stream = JobEvents(submit_job(upscaler), upscaler.state_tracker, with_bands=False, clock=clock)
    stream.start()
    events = stream.events()
    next(events)

    clock.now += 5.0

    assert next(events) == b": heartbeat\n\n"
    gate.set()
    take(events, "result")


def test_closing_the_stream_cancels_the_job_at_the_backend() -> None:
    upscaler, queue = FakeBackend(gate=threading.Event()), JobQueue(Capacity(running=1, waiting=1))
    stream = JobEvents(submit_job(upscaler, queue), upscaler.state_tracker, with_bands=False)
    stream.start()
    events = stream.events()
    next(events)
    assert upscaler.arrived.acquire(timeout=120)

    events.close()  # type: ignore[attr-defined]  # a generator, as gunicorn closes it

    queue.acquire().wait(120, CancelToken())  # the slot is free again
    assert upscaler.stops == 1


def test_status_wakes_nothing(client: FlaskClient, upscaler: FakeBackend) -> None:
    response = client.get("/api/v1/status").get_json()

    assert response["backend"].pop("since_s") >= 0.0
    assert response["backend"] == {"state": "asleep", "usual_boot_s": None, "reason": None}
    assert {name: response["queue"][name] for name in ("running", "waiting")} == {"running": 0, "waiting": 0}
    assert client.get("/").status_code == 200
    assert (upscaler.wakes, upscaler.calls) == (0, [])


def test_wake_boots_the_backend(client: FlaskClient, upscaler: FakeBackend) -> None:
    response = client.post("/api/v1/wake")

    assert (response.status_code, response.get_json(), upscaler.wakes) == (202, {"state": "booting"}, 1)
    assert client.get("/api/v1/status").get_json()["backend"]["state"] == "booting"


def test_wake_of_a_backend_that_is_up_returns_up(client: FlaskClient, key: str) -> None:
    post_image(client, key)

    assert client.post("/api/v1/wake").get_json() == {"state": "up"}
