"""`dry_run=1`: what an upscale would cost. Nothing is decoded, charged or woken."""

from __future__ import annotations

import pytest

from gateway.services import services
from testing.backend import FakeBackend
from testing.clock import ManualClock
from testing.fixtures import MakeApp
from testing.images import draw_photo, encode_png
from testing.requests import post_image, read_problem

NAMED = "?dry_run=1&variant=compact_x4"


def test_quote_has_sizes_and_shares_and_calls_nothing(make_app: MakeApp, key: str) -> None:
    upscaler = FakeBackend()
    client = make_app(upscaler=upscaler, client_megapixels="8 per hour; 40 per day").test_client()
    data = encode_png(draw_photo(1000, 1500))

    quotes = [post_image(client, key, data, query=f"{NAMED}&format=jpeg").get_json() for _ in range(3)]

    assert quotes[0] == quotes[2], "nothing was charged"
    assert quotes[0] == {
        "variant": "compact_x4",
        "format": "jpeg",
        "depth": 8,
        "cache": "miss",
        "upload": {"width": 1500, "height": 1000, "pixels": 1_500_000},
        "result": {"width": 6000, "height": 4000, "pixels": 24_000_000},
        "megapixels": 2,
        "allowance": [
            {"limit": 8, "window_s": 3600, "remaining": 8, "share": 0.25, "fits": True, "reset_s": 0},
            {"limit": 40, "window_s": 86400, "remaining": 40, "share": 0.05, "fits": True, "reset_s": 0},
        ],
        "seconds": {"queue": 0.0, "boot": None, "work": None, "total": None},
    }
    assert (upscaler.calls, upscaler.wakes) == ([], 0)


def test_quote_knows_what_was_used(make_app: MakeApp, key: str) -> None:
    client = make_app(client_megapixels="2 per hour").test_client()
    assert [post_image(client, key).status_code for _ in range(2)] == [200, 200]

    (limit,) = post_image(client, key, query=NAMED).get_json()["allowance"]

    assert (limit["remaining"], limit["share"], limit["fits"]) == (0, 0.5, False)
    assert 3590 < limit["reset_s"] <= 3600


def test_quote_estimates_from_finished_jobs(make_app: MakeApp, key: str, clock: ManualClock) -> None:
    class SlowBackend(FakeBackend):
        def upscale_bands(self, *arguments: object, **options: object):  # type: ignore[no-untyped-def]
            clock.now += 3.0
            yield from super().upscale_bands(*arguments, **options)  # type: ignore[arg-type]

    app = make_app(upscaler=SlowBackend(), clock=clock)
    client = app.test_client()
    post_image(client, key, query="?variant=compact_x4")

    quoted = post_image(client, key, encode_png(draw_photo(48, 32)), query=NAMED).get_json()

    assert quoted["seconds"] == {"queue": 0.0, "boot": 0.0, "work": 6.0, "total": 6.0}, "twice the pixels of the first"
    other = post_image(client, key, query="?dry_run=1&variant=nearest_x4").get_json()
    assert other["seconds"]["work"] is None


def test_quote_counts_the_jobs_ahead(make_app: MakeApp, key: str) -> None:
    app = make_app(max_concurrent_jobs=1)
    slots = [services(app).queue.acquire("another") for _ in range(2)]

    quoted = post_image(app.test_client(), key, query=NAMED).get_json()

    assert quoted["seconds"]["queue"] == 10.0, "two jobs of 5 s"
    for slot in slots:
        slot.release()


def test_cached_result_costs_nothing(make_app: MakeApp, key: str) -> None:
    client = make_app(cache_max_bytes=1_000_000).test_client()
    post_image(client, key)

    quoted = post_image(client, key, query="?dry_run=1").get_json()

    assert (quoted["cache"], quoted["megapixels"], quoted["allowance"]) == ("hit", 0, [])
    assert quoted["variant"] == "compact_x4", "the upload was looked at before"
    assert quoted["seconds"]["total"] == 0.0


@pytest.mark.parametrize(
    ("data", "query", "expected"),
    [
        (b"not an image", "?dry_run=1", (415, "unknown-format")),
        (encode_png(draw_photo(8, 8)), "?dry_run=yes", (400, "bad-parameter")),
        (encode_png(draw_photo(8, 9000)), "?dry_run=1", (413, "side-too-long")),
    ],
)
def test_quote_of_an_invalid_request_is_its_problem(
    make_app: MakeApp, key: str, data: bytes, query: str, expected: tuple[int, str]
) -> None:
    assert read_problem(post_image(make_app().test_client(), key, data, query=query)) == expected
