"""A PNG written in bands of any size decodes to the pixels written, and holds one band in memory."""

from __future__ import annotations

import tracemalloc
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PilImage

from preprocessing.formats.png import CHANNELS, PngStream
from preprocessing.image import Pixels
from testing.images import draw_photo, icc_profile


def write(pixels: Pixels, mode: str, heights: list[int], profile: bytes | None = None) -> bytes:
    stream = PngStream(pixels.shape[1], pixels.shape[0], mode, profile)
    parts, top = [stream.header()], 0
    for height in heights:
        parts.append(stream.rows(pixels[top : top + height]))
        top += height
    return b"".join((*parts, stream.rows(pixels[top:]), stream.finish()))


def reopen(data: bytes) -> PilImage.Image:
    opened = PilImage.open(BytesIO(data), formats=["PNG"])
    opened.load()
    return opened


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(CHANNELS)),
    st.integers(1, 40),
    st.integers(1, 40),
    st.lists(st.integers(0, 9), max_size=6),
    st.integers(0, 2**32 - 1),
)
def test_any_bands_of_any_mode_decode_to_the_pixels(
    mode: str, height: int, width: int, heights: list[int], seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, CHANNELS[mode]), np.uint8)
    opened = reopen(write(pixels, mode, heights))
    assert opened.mode == mode
    assert (np.asarray(opened).reshape(pixels.shape) == pixels).all()


def test_profile_is_embedded() -> None:
    assert reopen(write(draw_photo(4, 5), "RGB", [2], icc_profile())).info["icc_profile"] == icc_profile()


def test_grey_rows_need_no_channel_axis_and_any_strides_do() -> None:
    grey = draw_photo(9, 8)[::-1, ::-1, 0]
    assert (np.asarray(reopen(write(grey, "L", [4]))) == grey).all()


def test_memory_follows_the_band_not_the_image() -> None:
    width, height, rows = 1024, 4096, 64
    band = draw_photo(rows, width)
    stream = PngStream(width, height, "RGB")
    stream.rows(band)
    tracemalloc.start()
    try:
        for _ in range(height // rows - 1):
            stream.rows(band)
        stream.finish()
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 4 * band.nbytes  # the image has 64


def test_missing_and_surplus_rows_are_errors() -> None:
    stream = PngStream(4, 3, "RGB")
    stream.rows(np.zeros((2, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="3 rows and 1 of them were never written"):
        stream.finish()
    with pytest.raises(ValueError, match="2 rows arrived and 1 of 3 were missing"):
        stream.rows(np.zeros((2, 4, 3), np.uint8))


@pytest.mark.parametrize(
    "wrong", [np.zeros((1, 5, 3), np.uint8), np.zeros((1, 4), np.uint8), np.zeros((1, 4, 3), np.float32)]
)
def test_rows_of_another_shape_or_type_are_errors(wrong: Pixels) -> None:
    with pytest.raises(ValueError, match=r"uint8 \[h, 4, 3\], not"):
        PngStream(4, 3, "RGB").rows(wrong)


@pytest.mark.parametrize(("width", "height", "mode"), [(0, 1, "L"), (1, 2**31, "L"), (1, 1, "P")])
def test_png_that_cannot_be_is_rejected_at_once(width: int, height: int, mode: str) -> None:
    with pytest.raises(ValueError, match="A PNG"):
        PngStream(width, height, mode)
