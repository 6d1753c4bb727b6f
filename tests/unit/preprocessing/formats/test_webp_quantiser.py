"""The quantiser index of lossy WebP files, from headers written bit by bit and from those of libwebp."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image as PilImage

from preprocessing.codec import UploadLimits, probe
from preprocessing.formats.container import Container
from preprocessing.formats.webp import read_webp
from preprocessing.formats.webp_quantiser import read_quantiser
from testing.images import draw_photo, encode_png

LIMITS = UploadLimits(max_bytes=10_000_000, max_pixels=1_000_000, max_side=4_000)
NO_FILTER = [(0, 1), (0, 6), (0, 3), (0, 1)]
ONE_PARTITION = [(0, 2)]


def encode_bits(numbers: list[tuple[int, int]]) -> bytes:
    """Return what the decoder of section 7.3 reads as these (number, bits), of an equal chance each."""
    low, span, shifts = 0, 255, 0
    for number, count in numbers:
        for place in reversed(range(count)):
            split = 1 + ((span - 1) >> 1)
            low, span = (low + split, span - split) if number >> place & 1 else (low, split)
            while span < 128:
                low, span, shifts = low << 1, span << 1, shifts + 1
    n_bits = 8 + shifts
    return (low << -n_bits % 8).to_bytes(-(-n_bits // 8), "big") + bytes(4)


def signed(value: int, count: int) -> list[tuple[int, int]]:
    return [(1, 1), (abs(value), count), (int(value < 0), 1)] if value else [(0, 1)]


def segments(values: list[int], *, absolute: bool, with_map: bool = True) -> list[tuple[int, int]]:
    found = [(int(with_map), 1), (1, 1), (int(absolute), 1)]
    found += [each for value in values for each in signed(value, 7)]
    found += [each for value in (3, 0, -5, 0) for each in signed(value, 6)]
    return found + ([(1, 1), (200, 8), (0, 1), (1, 1), (9, 8)] if with_map else [])


def webp(fields: list[tuple[int, int]]) -> Container:
    body = b"\x10\x00\x00\x9d\x01\x2a\x10\x00\x10\x00" + encode_bits([(0, 2), *fields])
    body += bytes(len(body) % 2)
    return read_webp(
        b"RIFF" + (12 + len(body)).to_bytes(4, "little") + b"WEBPVP8 " + len(body).to_bytes(4, "little") + body
    )


@pytest.mark.parametrize("index", [0, 1, 26, 85, 127])
def test_index_of_a_frame_without_segments(index: int) -> None:
    assert read_quantiser(webp([(0, 1), *NO_FILTER, *ONE_PARTITION, (index, 7)])) == index


@pytest.mark.parametrize(
    ("values", "absolute", "base", "mean"),
    [
        ([10, 20, 30, 40], True, 99, 25),
        ([-10, 0, 4, 10], False, 50, 51),
        ([-100, 100, 0, 0], False, 50, (0 + 127 + 50 + 50) / 4),
    ],
)
@pytest.mark.parametrize("with_map", [True, False])
def test_index_is_the_mean_of_the_segments(
    values: list[int], absolute: bool, base: int, mean: float, with_map: bool
) -> None:
    fields = [(1, 1), *segments(values, absolute=absolute, with_map=with_map), *NO_FILTER, *ONE_PARTITION, (base, 7)]

    assert read_quantiser(webp(fields)) == mean


def test_deltas_of_the_loop_filter_are_skipped() -> None:
    deltas = [each for value in (2, 0, -2, 63, 4, -63, 0, 1) for each in signed(value, 6)]
    loop_filter = [(1, 1), (33, 6), (5, 3), (1, 1), (1, 1), *deltas]

    assert read_quantiser(webp([(0, 1), *loop_filter, (3, 2), (77, 7)])) == 77


def encode_webp(quality: int, **options: bool) -> Container:
    buffer = BytesIO()
    PilImage.fromarray(draw_photo(96, 128)).save(buffer, "WEBP", quality=quality, **options)
    return probe(buffer.getvalue(), LIMITS).container


def test_index_falls_with_the_quality_of_libwebp() -> None:
    found = [read_quantiser(encode_webp(quality)) for quality in (0, 20, 40, 60, 80, 100)]

    assert all(index is not None for index in found)
    assert found == sorted(found, key=lambda index: -(index or 0))
    assert found[-1] == 0
    assert (found[1] or 0) > 45 > (found[3] or 99)


def test_lossless_and_other_files_have_none() -> None:
    assert read_quantiser(encode_webp(80, lossless=True)) is None
    assert read_quantiser(probe(encode_png(draw_photo(8, 8)), LIMITS).container) is None


def test_damaged_frames_never_fail() -> None:
    random = np.random.default_rng(0)
    for length in range(120):
        body = random.bytes(length)
        container = Container(format="WEBP", width=1, height=1, mode="RGB", required_chunks=[b"VP8 \0\0\0\0" + body])
        index = read_quantiser(container)
        assert index is None or 0 <= index <= 127
        framed = b"\x10\x00\x00\x9d\x01\x2a\x10\x00\x10\x00" + body
        container = Container(format="WEBP", width=1, height=1, mode="RGB", required_chunks=[b"VP8 \0\0\0\0" + framed])
        index = read_quantiser(container)
        assert index is None or 0 <= index <= 127
