"""`variant=auto`: the variant follows the image, and the response says which and why."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage

from gateway.backend.interface import Band
from gateway.backend.state import BackendStateTracker
from gateway.cancellation import CancelledError, CancelToken
from gateway.config.settings import Settings
from gateway.jobs.choice import describe_choice
from gateway.jobs.event_stream import JobEvents
from gateway.jobs.nearest import BAND_ROWS, repeat_bands
from gateway.jobs.options import UpscaleRequest, make_request, parse_options
from gateway.jobs.result_cache import ResultCache
from gateway.problems import BadParameter
from preprocessing.content import Content, ImageKind
from preprocessing.image import Pixels
from testing.backend import FakeBackend
from testing.content_images import draw_clean_photo, draw_pixel_art, draw_screenshot, repeat_pixels
from testing.images import encode_jpeg, encode_png, save
from testing.jobs import make_runner
from testing.requests import read_events
from testing.weights_files import write_weights_file

PHOTO = encode_png(draw_clean_photo(60, 70))
ART = draw_pixel_art()


def auto_request(data: bytes, settings: Settings | None = None, **parameters: str) -> UpscaleRequest:
    settings = settings or Settings()
    return make_request(data, "a.png", parse_options({"variant": "auto", **parameters}, settings), settings)


@pytest.mark.parametrize(
    ("data", "variant", "said"),
    [
        (PHOTO, "compact_x4", "Looks like a clean image ("),
        (encode_jpeg(draw_clean_photo(), quality=40), "compact_real_x4", "Looks like a worn JPEG (JPEG quality 40): "),
        (
            save(PilImage.fromarray(draw_clean_photo()), "WEBP", quality=5),
            "compact_real_x4",
            "Looks like a worn photo (WebP with a quantiser of ",
        ),
        (encode_png(draw_screenshot()), "compact_x4", "Looks like a drawing or screenshot ("),
        (encode_png(ART), "nearest_x4", "Looks like pixel art (6 colours and hard edges): nearest_x4."),
    ],
)
def test_variant_follows_the_image(data: bytes, variant: str, said: str) -> None:
    backend = FakeBackend()
    job = make_runner(backend).submit(auto_request(data), "id")
    assert describe_choice(job.request.options) is None

    result = job.run()

    choice = describe_choice(job.request.options)
    assert choice
    assert choice.variant == job.request.options.variant.name == variant
    assert choice.sentence.startswith(said)
    assert choice.sentence.endswith(f": {variant}.")
    assert result.filename == f"a_{variant}.png"
    assert len(backend.calls) == (variant != "nearest_x4")


def test_default_of_a_request_is_auto_and_a_name_is_kept() -> None:
    assert parse_options({}, Settings()).must_choose
    job = make_runner(FakeBackend()).submit(auto_request(encode_png(ART), variant="compact_x4"), "id")
    assert job.run().filename == "a_compact_x4.png"
    assert describe_choice(job.request.options) is None


def test_missing_variant_is_replaced_and_named() -> None:
    settings = Settings(variants="compact_x4,compact_real_x4")
    job = make_runner(FakeBackend()).submit(auto_request(encode_png(ART), settings), "id")
    job.run()
    choice = describe_choice(job.request.options)
    assert choice
    assert choice.sentence.endswith(": compact_x4. nearest_x4 would fit better, but this service does not offer it.")


def test_limits_and_memory_are_checked_for_the_largest_candidate() -> None:
    settings = Settings(variants="compact_x2,compact_real_x4")
    auto, named = auto_request(PHOTO, settings), auto_request(PHOTO, settings, variant="compact_real_x4")
    assert auto.options.variant.scale == 4
    assert auto.working_bytes == named.working_bytes


@pytest.mark.parametrize("format_name", ["png", "webp"])
@pytest.mark.parametrize("height", [1, BAND_ROWS, BAND_ROWS + 1])
def test_pixel_art_keeps_its_pixels_and_its_alpha(format_name: str, height: int) -> None:
    alpha = np.where((ART[0, 0] == ART).all(axis=2), 0, 255).astype(np.uint8)
    pixels = np.dstack([ART, alpha])[:height]
    request = auto_request(encode_png(pixels), variant="nearest_x4", format=format_name)

    progress: list[Any] = []
    result = make_runner(FakeBackend()).submit(request, "id").run(progress.append)

    upscaled = np.array(PilImage.open(BytesIO(result.data)).convert("RGBA"))
    expected = repeat_pixels(pixels, 4)
    assert np.array_equal(upscaled[..., 3], expected[..., 3])
    if format_name == "png":
        visible = expected[..., 3] > 0
        assert np.array_equal(upscaled[visible], expected[visible])
    assert [(one.bands_done, one.bands) for one in progress] == [
        (index + 1, -(-height // BAND_ROWS)) for index in range(-(-height // BAND_ROWS))
    ]


def test_repeating_pixels_can_be_cancelled() -> None:
    token = CancelToken()
    bands = repeat_bands(np.zeros((BAND_ROWS * 3, 5, 3), np.uint8), 4, token)
    first = next(bands)
    assert isinstance(first, Band)
    assert first.pixels.shape == (BAND_ROWS * 4, 20, 3)
    token.cancel()
    with pytest.raises(CancelledError):
        next(bands)


def test_events_tell_the_choice_before_the_first_band() -> None:
    job = make_runner(FakeBackend()).submit(auto_request(PHOTO), "id")
    stream = JobEvents(job, BackendStateTracker(None), with_bands=True)
    stream.start()

    events = [event for event in read_events(b"".join(stream.events())) if event[0] != "state"]

    assert [name for name, _ in events] == ["choice", *("band", "progress") * 2, "result"]
    choice, result = events[0][1], events[-1][1]
    assert choice.keys() == {"kind", "variant", "alternative", "sentence"}
    assert (choice["kind"], choice["variant"], choice["alternative"]) == (
        "clean photo",
        "compact_x4",
        "compact_real_x4",
    )
    assert result["choice"] == choice
    json.dumps(result)


def test_cached_result_is_found_under_the_chosen_variant() -> None:
    cache = ResultCache(max_bytes=10_000_000, max_count=10, max_age_s=60.0)
    auto = auto_request(PHOTO)
    assert cache.recall(auto) == auto

    job = make_runner(FakeBackend()).submit(auto, "id")
    cache.put(job.request, result := job.run())
    cache.put(job.request, result)

    recalled = cache.recall(auto)
    assert recalled.options.variant.name == "compact_x4"
    assert describe_choice(recalled.options) == describe_choice(job.request.options)
    assert cache.get(recalled)
    assert cache.get(auto_request(PHOTO, variant="compact_x4"))
    assert cache.get(auto_request(PHOTO, variant="compact_real_x4")) is None
    named = auto_request(PHOTO, variant="compact_real_x4")
    assert cache.recall(named) is named


def test_content_expires_with_the_results_and_a_disabled_cache_keeps_none() -> None:
    now = [0.0]
    cache = ResultCache(max_bytes=10_000_000, max_count=10, max_age_s=60.0, clock=lambda: now[0])
    disabled = ResultCache(max_bytes=0, max_count=10, max_age_s=60.0)
    job = make_runner(FakeBackend()).submit(auto_request(PHOTO), "id")
    result = job.run()
    for one in (cache, disabled):
        one.put(job.request, result)
    assert disabled.recall(auto_request(PHOTO)).options.must_choose
    assert not cache.recall(auto_request(PHOTO)).options.must_choose
    now[0] = 61.0
    assert cache.recall(auto_request(PHOTO)).options.must_choose


def test_pixels_of_one_row_are_no_error() -> None:
    pixels: Pixels = np.arange(30, dtype=np.uint8).reshape(1, 10, 3)
    assert make_runner(FakeBackend()).submit(auto_request(encode_png(pixels)), "id").run().width == 40


def test_auto_without_any_weights_names_the_remedy(tmp_path: Path) -> None:
    settings = Settings(state_dir=str(tmp_path), variants="real_x4")
    with pytest.raises(BadParameter, match=r"No variant .* superres weights fetch"):
        parse_options({}, settings)


def test_version_of_the_weights_follows_the_choice(tmp_path: Path) -> None:
    write_weights_file(tmp_path / "weights", "lightweight_x4")
    settings = Settings(state_dir=str(tmp_path), variants="lightweight_x4,compact_real_x4")
    options = parse_options({}, settings)
    assert options.candidates
    for variant, has_version in (("lightweight_x4", True), ("compact_real_x4", False)):
        kind = next(kind for kind in ImageKind if options.candidates[kind].name == variant)
        chosen = options.choose(Content(kind, "", ""))
        assert chosen.variant.name == variant
        assert bool(chosen.weights_version) == has_version
