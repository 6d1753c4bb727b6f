"""A JPEG whose last scan was cut is rejected even when an end marker was added again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from preprocessing.codec import Image, UploadLimits, decode, probe
from preprocessing.errors import UnreadableImageError
from preprocessing.formats.jpeg import lengthen_last_scan, read_jpeg
from testing import images

LIMITS = UploadLimits(max_bytes=20_000_000, max_pixels=1_000_000, max_side=5_000)
KINDS: list[dict[str, Any]] = [
    {},
    {"subsampling": 2},
    {"progressive": True},
    {"optimize": True, "quality": 5},
    {"restart_marker_blocks": 1},
    {"subsampling": 2, "progressive": True, "restart_marker_rows": 1},
]
PHOTO = images.draw_photo(90, 130)
END = b"\xff\xd9"


def read(data: bytes) -> Image:
    return decode(probe(data, LIMITS))


def start_of_last_scan(jpeg: bytes) -> int:
    return jpeg.rindex(b"\xff\xda") + 14


@pytest.mark.parametrize("options", KINDS, ids=repr)
@pytest.mark.parametrize("channels", [1, 3])
def test_scan_that_was_cut_and_given_an_end_again_is_rejected(options: dict[str, Any], channels: int) -> None:
    jpeg = images.encode_jpeg(PHOTO if channels == 3 else PHOTO[..., 0].copy(), **options)
    start = start_of_last_scan(jpeg)
    for keep in (0.1, 0.5, 0.95):
        cut = jpeg[: start + int((len(jpeg) - start) * keep)] + END
        with pytest.raises(UnreadableImageError, match="its last scan lacks blocks"):
            read(cut)


def test_scan_cut_right_at_a_restart_marker_is_rejected() -> None:
    jpeg = images.encode_jpeg(PHOTO, restart_marker_blocks=3)
    for marker in (b"\xff\xd0", b"\xff\xd4", b"\xff\xd7"):
        at = jpeg.index(marker, start_of_last_scan(jpeg))
        for cut in (jpeg[:at], jpeg[: at + 2]):
            with pytest.raises(UnreadableImageError, match="its last scan lacks blocks"):
                read(cut + END)


@pytest.mark.parametrize("options", KINDS, ids=repr)
@pytest.mark.parametrize("shape", [(1, 1), (7, 9), (16, 16), (33, 600)])
def test_whole_jpeg_of_any_kind_and_size_is_read(options: dict[str, Any], shape: tuple[int, int]) -> None:
    photo = images.draw_photo(*shape)
    for pixels in (photo, photo[..., 0].copy(), np.full_like(photo, 128)):
        assert read(images.encode_jpeg(pixels, **options)).pixels.shape == photo.shape
    assert read(images.ycck_jpeg(photo)).pixels.shape == photo.shape


def test_fill_bytes_before_the_end_are_accepted() -> None:
    jpeg = images.encode_jpeg(PHOTO)
    assert (read(jpeg[:-2] + b"\xff\xff\xff" + END).pixels == read(jpeg).pixels).all()


def test_arithmetic_coded_jpeg_is_not_checked() -> None:
    jpeg = images.encode_jpeg(PHOTO)
    assert lengthen_last_scan(read_jpeg(jpeg).required_chunks) is not None
    assert lengthen_last_scan(read_jpeg(jpeg.replace(b"\xff\xc0", b"\xff\xc9", 1)).required_chunks) is None
