"""`depth`: results of 16 bits per channel for uploads that have them, or on request, and only where memory allows."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.config.settings import Settings
from gateway.jobs.event_stream import _preview
from gateway.jobs.job import Progress, Result
from gateway.jobs.options import UpscaleRequest, make_request, parse_options
from gateway.jobs.result_cache import cache_key
from gateway.problems import BadParameter, ResultTooLarge
from preprocessing.working_memory import DEEP_DECODER_BYTES
from testing import images
from testing.backend import FakeBackend
from testing.deep_images import draw_gradient, png16, tiff16
from testing.jobs import make_runner
from testing.png_reader import read_png

GRADIENT = draw_gradient(24, 30, 4)
DEEP, SHALLOW = png16(GRADIENT[..., :3]), images.encode_png(images.draw_photo(24, 30))
REDUCED = "The image has 16 bits per channel: it was reduced to 8."


def request(data: bytes, max_job_memory_bytes: int = 300_000_000, **parameters: str) -> UpscaleRequest:
    settings = Settings(max_job_memory_bytes=max_job_memory_bytes)
    options = parse_options({"variant": "compact_x2", **parameters}, settings)
    return make_request(data, "photo.png", options, settings)


def run(data: bytes, **parameters: str) -> Result:
    return make_runner(FakeBackend()).run(request(data, **parameters), "id")  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_upload_of_16_bits_gives_16_bits(channels: int) -> None:
    result = run(png16(GRADIENT[..., :channels]))

    samples = read_png(result.data)
    assert samples.dtype == np.uint16
    assert samples.shape == (48, 60, channels)
    colours = max(1, channels - (channels in (2, 4)))
    repeated = GRADIENT[..., :colours].repeat(2, axis=0).repeat(2, axis=1)
    assert (samples[..., :colours] == repeated)[samples[..., -1] > 0].all()
    assert result.notes == ()


def test_tiff_of_16_bits_gives_16_bits() -> None:
    assert read_png(run(tiff16(GRADIENT[..., :3])).data).dtype == np.uint16


@pytest.mark.parametrize(
    ("data", "depth", "sample", "notes"),
    [
        (SHALLOW, "", np.uint8, ()),
        (SHALLOW, "16", np.uint16, ()),
        (DEEP, "auto", np.uint16, ()),
        (DEEP, "8", np.uint8, (REDUCED,)),
    ],
)
def test_depth_of_the_result(data: bytes, depth: str, sample: type, notes: tuple[str, ...]) -> None:
    result = run(data, depth=depth)
    assert read_png(result.data).dtype == sample
    assert result.notes == notes


@pytest.mark.parametrize(("output", "name"), [("jpeg", "JPEG"), ("webp", "WebP"), ("avif", "AVIF")])
def test_other_formats_have_8_bits_and_say_so(output: str, name: str) -> None:
    assert run(DEEP, format=output).notes == (REDUCED, f"{name} has 8 bits per channel. Use PNG to keep 16.")
    with pytest.raises(
        BadParameter, match=f"{name} results have 8 bits per channel. Use the format png for 16"
    ) as raised:
        run(DEEP, format=output, depth="16")
    assert raised.value.extensions["parameter"] == "depth"


def test_format_of_the_upload_decides_for_the_same_format() -> None:
    assert read_png(run(SHALLOW, format="same", depth="16").data).dtype == np.uint16
    with pytest.raises(BadParameter, match="JPEG results have 8 bits"):
        run(images.encode_jpeg(images.draw_photo(24, 30)), format="same", depth="16")


def test_invalid_depth_is_rejected_with_the_allowed_ones() -> None:
    with pytest.raises(BadParameter, match=r"Invalid depth '12'\. Allowed: auto, 8, 16\."):
        run(SHALLOW, depth="12")


def test_results_of_both_depths_are_cached_apart() -> None:
    keys = [cache_key(request(DEEP, depth=depth)) for depth in ("", "auto", "16", "8")]
    assert keys[0] == keys[1] == keys[2] != keys[3]


def test_size_strength_and_pixel_art_keep_16_bits() -> None:
    for parameters in (
        {"variant": "compact_x2", "scale": "1.5"},
        {"variant": "compact_color_denoise_25", "strength": "0.5"},
        {"variant": "nearest_x4"},
        {"variant": "auto"},
    ):
        assert len(np.unique(read_png(run(DEEP, **parameters).data))) > 600, parameters


@pytest.mark.parametrize(
    ("variant", "max_bytes", "text"),
    [
        (
            "compact_x4",
            3_000_000,
            "a result of 640,000 pixels needs more memory than max_job_memory_bytes; the maximum",
        ),
        ("compact_x2", 200 * 200 * DEEP_DECODER_BYTES - 1, "decoding 40,000 pixels needs more memory"),
    ],
)
def test_16_bits_need_more_memory(variant: str, max_bytes: int, text: str) -> None:
    """An image that fits in 8 bits is upscaled in 8 bits with a note, unless the client asks for 16."""
    data = png16(np.zeros((200, 200, 3), np.uint16))

    automatic, fitting = (request(data, n_bytes, variant=variant) for n_bytes in (max_bytes, 10 * max_bytes))

    assert automatic.options.output.depth == 8
    assert text in automatic.options.output.depth_note
    assert fitting.options.output.depth == 16
    assert fitting.working_bytes > automatic.working_bytes
    with pytest.raises(ResultTooLarge, match=f"In 16 bits per channel, {text}.*Use depth=8"):
        request(data, max_bytes, variant=variant, depth="16")


def test_previews_are_made_of_16_bits_too() -> None:
    seen: list[Progress] = []
    make_runner(FakeBackend()).submit(request(DEEP), "id").run(seen.append)
    for progress in seen:
        assert progress.band is not None
        assert progress.band.pixels.dtype == np.uint16
        assert _preview(progress, progress.band)["media_type"] == "image/jpeg"
