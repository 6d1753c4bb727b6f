"""A PNG written in bands of any size decodes to the pixels written, and holds one band in memory."""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PilImage

from preprocessing.formats import zlib_stream
from preprocessing.formats.png_stream import CHANNELS, Depth, PngStream
from preprocessing.image import Pixels
from testing.content_images import draw_pixel_art, draw_screenshot
from testing.data import SET5
from testing.images import draw_photo, icc_profile
from testing.png_reader import read_png


def enlarged(pixels: Pixels) -> Pixels:
    """Return pixels four times as large on each side, as smooth as results are."""
    size = (4 * pixels.shape[1], 4 * pixels.shape[0])
    return np.array(PilImage.fromarray(pixels).resize(size, PilImage.Resampling.BICUBIC))


RESULTS: dict[str, Callable[[], Pixels]] = {
    "photo": lambda: enlarged(np.array(PilImage.open(SET5 / "x4" / "bird.png").convert("RGB"))),
    "drawing": lambda: enlarged(draw_pixel_art()),
    "screenshot": lambda: enlarged(draw_screenshot(96, 128)),
}


def chunks(file: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at < len(file):
        length = int.from_bytes(file[at : at + 4], "big")
        yield file[at + 4 : at + 8], file[at + 8 : at + 8 + length]
        at += 12 + length


def write(
    pixels: npt.NDArray[Any], mode: str, heights: list[int], profile: bytes | None = None, *, depth: Depth = 8
) -> bytes:
    stream = PngStream(pixels.shape[1], pixels.shape[0], mode, profile, depth=depth)
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


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(sorted(CHANNELS)),
    st.integers(1, 20),
    st.integers(1, 20),
    st.lists(st.integers(0, 9), max_size=4),
    st.integers(1, 65_536),
    st.integers(0, 2**32 - 1),
)
def test_sixteen_bits_keep_every_level(
    mode: str, height: int, width: int, heights: list[int], levels: int, seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, levels, (height, width, CHANNELS[mode])).astype(np.uint16)
    assert (read_png(write(pixels, mode, heights, depth=16)) == pixels).all()


def test_sixteen_bits_are_filtered_too() -> None:
    line = np.linspace(0, 65_535, 600).astype(np.uint16)
    pixels = (line[:64, np.newaxis, np.newaxis] // 7 + line[np.newaxis, :, np.newaxis] // 2).repeat(3, axis=2)
    assert len(write(pixels, "RGB", [16, 16], depth=16)) < pixels.nbytes / 20


@pytest.mark.parametrize("kind", ["photo", "drawing", "screenshot"])
def test_file_is_at_most_five_percent_larger_than_pillows(kind: str) -> None:
    pixels = RESULTS[kind]()
    target = BytesIO()
    PilImage.fromarray(pixels).save(target, "PNG")

    assert len(write(pixels, "RGB", [100, 3])) < 1.05 * target.tell()


def test_any_bands_make_the_same_pixel_data() -> None:
    pixels = draw_photo(200, 300)
    files = [write(pixels, "RGB", heights) for heights in ([], [1, 2, 64, 100], [150])]
    data = [b"".join(body for kind, body in chunks(file) if kind == b"IDAT") for file in files]
    assert data[0] == data[1] == data[2]


def test_profile_is_embedded() -> None:
    assert reopen(write(draw_photo(4, 5), "RGB", [2], icc_profile())).info["icc_profile"] == icc_profile()


def test_grey_rows_need_no_channel_axis_and_any_strides_do() -> None:
    grey = draw_photo(9, 8)[::-1, ::-1, 0]
    assert (np.asarray(reopen(write(grey, "L", [4]))) == grey).all()


def test_memory_follows_the_band_not_the_image() -> None:
    width, height, rows = 1024, 4096, 256
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
    assert peak_bytes < 4 * band.nbytes  # the image has 16


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


def test_without_zlib_ng_the_file_has_the_same_pixels_and_about_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = draw_photo(200, 300)
    usual = write(pixels, "RGB", [70])
    monkeypatch.setattr(zlib_stream, "_deflate", zlib)

    plain = write(pixels, "RGB", [70])

    assert (np.asarray(reopen(plain)) == pixels).all()
    assert len(plain) == pytest.approx(len(usual), rel=0.05)
