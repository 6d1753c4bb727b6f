"""The log line of a request says why it was refused, who sent it and where the time went; logs.md lists the fields."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from gateway.backend.interface import BackendRejectedError, Band
from gateway.backend.state import BackendStateTracker
from gateway.logs import MAX_FIELD_LENGTH, MAX_MESSAGE_LENGTH, JsonFormatter, log_request
from preprocessing.codec import Pixels
from testing.backend import FakeBackend
from testing.clock import ManualClock
from testing.content_images import draw_clean_photo
from testing.data import ROOT
from testing.fixtures import MakeApp
from testing.images import encode_jpeg
from testing.requests import PHOTO, form, post_image

ReadLine = Callable[[], dict[str, Any]]
WORN = encode_jpeg(draw_clean_photo(), quality=30)
EVENTS = {"Accept": "text/event-stream"}
EVERY_LINE = {"time", "level", "logger", "request_id", "method", "route", "status", "bytes", "address", "ms", "client"}
UPLOAD = {"variant", "format", "input_pixels", "output_pixels", "cache", "upload_s"}
WORK = {"queue_s", "decode_s", "work_s", "encode_s", "bands"}


@pytest.fixture
def last_line(caplog: pytest.LogCaptureFixture) -> ReadLine:
    """A function that returns the last line of a request, as the file would have it."""
    caplog.set_level("INFO", "gateway.request")

    def read() -> dict[str, Any]:
        [*_, record] = [record for record in caplog.records if record.name == "gateway.request"]
        fields: dict[str, Any] = json.loads(JsonFormatter().format(record))
        return fields

    return read


def documented_fields(heading: str) -> set[str]:
    section = (ROOT / "docs/reference/logs.md").read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE))


def test_upscaled_image(client: FlaskClient, key: str, last_line: ReadLine) -> None:
    post_image(client, key, query="?variant=compact_x4&format=webp").close()

    line = last_line()
    assert line.keys() == EVERY_LINE | UPLOAD | WORK
    assert (line["client"], line["variant"], line["format"], line["cache"]) == ("tests", "compact_x4", "webp", "miss")
    assert (line["input_pixels"], line["output_pixels"], line["bands"]) == (32 * 24, 32 * 24 * 16, 2)


class BootingBackend(FakeBackend):
    """Boots for 5 s of a manual clock, then works for 2 s before each of its two bands."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock
        self.state_tracker = BackendStateTracker(clock=clock)

    def upscale_bands(self, pixels: Pixels, variant: str, **others: Any) -> Iterator[Band]:
        self.state_tracker.begin_boot()
        self._clock.now += 5.0
        for band in super().upscale_bands(pixels, variant, **others):
            self._clock.now += 2.0
            yield band


def test_boot_is_apart_from_work(make_app: MakeApp, key: str, clock: ManualClock, last_line: ReadLine) -> None:
    client = make_app(clock=clock, upscaler=BootingBackend(clock)).test_client()
    post_image(client, key, query="?variant=compact_x4").close()

    phases = {name: value for name, value in last_line().items() if name.endswith("_s") and name != "upload_s"}
    assert phases == {"queue_s": 0, "decode_s": 0, "boot_s": 5, "work_s": 4, "encode_s": 0}


def test_choice_and_cache_hit(make_app: MakeApp, key: str, last_line: ReadLine) -> None:
    client = make_app(cache_max_bytes=10_000_000).test_client()
    post_image(client, key, WORN).close()
    first = last_line()
    post_image(client, key, WORN).close()
    again = last_line()

    assert (first["variant"], first["choice"], first["cache"]) == ("compact_real_x4", "worn photo", "miss")
    assert again.keys() == EVERY_LINE | UPLOAD | {"choice"}
    assert (again["variant"], again["choice"], again["cache"]) == ("compact_real_x4", "worn photo", "hit")


def test_form_without_a_key(client: FlaskClient, last_line: ReadLine) -> None:
    client.post("/", **form(variant="compact_x4")).close()

    assert (last_line()["client"], last_line()["variant"]) == ("(anonymous)", "compact_x4")


@pytest.mark.parametrize(
    ("settings", "query", "problem"),
    [
        ({"client_requests": "1 per hour"}, "", "limit-reached"),
        ({}, "?variant=none", "bad-parameter"),
        ({"max_pixels": 10}, "", "too-many-pixels"),
    ],
)
def test_rejected_client_is_named(
    make_app: MakeApp, key: str, last_line: ReadLine, settings: dict[str, Any], query: str, problem: str
) -> None:
    client = make_app(**settings).test_client()
    client.post("/api/v1/wake", headers={"X-API-Key": key}).close()
    post_image(client, key).close()
    post_image(client, key, query=query).close()

    line = last_line()
    assert line.keys() == EVERY_LINE | {"problem"}
    assert (line["client"], line["problem"]) == ("tests", problem)


def test_limit_after_the_upload_shows_its_size(make_app: MakeApp, key: str, last_line: ReadLine) -> None:
    client = make_app(client_megapixels="1 per hour").test_client()
    post_image(client, key, query="?variant=compact_x4").close()
    post_image(client, key, query="?variant=compact_x4").close()

    line = last_line()
    assert line.keys() == EVERY_LINE | UPLOAD | {"problem"}
    assert (line["problem"], line["input_pixels"]) == ("limit-reached", 32 * 24)


def test_problem_of_the_backend_has_the_phases(make_app: MakeApp, key: str, last_line: ReadLine) -> None:
    failing = FakeBackend(failures=[BackendRejectedError("too odd")])
    post_image(make_app(upscaler=failing).test_client(), key).close()
    line = last_line()

    assert (line["problem"], line["status"]) == ("refused-by-backend", 422)
    assert {"queue_s", "decode_s", "work_s"} <= line.keys()
    assert "bands" not in line


def test_problem_in_an_event_stream(make_app: MakeApp, key: str, last_line: ReadLine) -> None:
    failing = FakeBackend(failures=[BackendRejectedError("too odd")])
    response = post_image(make_app(upscaler=failing).test_client(), key, headers=EVENTS)
    assert b"refused-by-backend" in response.data
    response.close()

    assert (last_line()["problem"], last_line()["status"]) == ("refused-by-backend", 200)


def test_wrong_key_is_anonymous(client: FlaskClient, key: str, last_line: ReadLine) -> None:
    for name, value in (("X-API-Key", f"{key}x"), ("Authorization", f"Bearer {key[:-1]}"), ("X-API-Key", "k" * 10_000)):
        client.post("/api/v1/upscale", data=PHOTO, headers={name: value}).close()

        assert (last_line()["client"], last_line()["problem"]) == ("(anonymous)", "key-required")
        assert key[:-1] not in json.dumps(last_line())


def test_no_text_is_longer_than_its_maximum(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "gateway.request")
    logger = logging.getLogger("gateway.request")

    log_request(
        logger, request_id="1", method="M" * 9_000, route="/", status=1, size=1, address="x", problem="a\r\nb\u2028c"
    )
    line = JsonFormatter().format(caplog.records[-1])
    assert len(json.loads(line)["method"]) == MAX_FIELD_LENGTH + len("...")
    assert len(line.splitlines()) == 1
    error = ValueError("v" * 1_000_000)
    logger.error("m" * 1_000_000, exc_info=error)
    assert len(JsonFormatter().format(caplog.records[-1])) < 2 * MAX_MESSAGE_LENGTH + 200


def test_every_field_is_documented() -> None:
    others = {"time", "level", "logger"}
    assert documented_fields("Every line") == others | {"message", "traceback"}
    assert documented_fields("Lines of requests") == (
        EVERY_LINE - others
        | UPLOAD
        | WORK
        | {"problem", "choice", "boot_s", "cause", "trace_id", "async_job", "images"}
    )
