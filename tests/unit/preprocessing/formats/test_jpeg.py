"""A JPEG whose last scan was cut is rejected even when an end marker was added again."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage

from preprocessing.codec import Image, UploadLimits, decode, probe
from preprocessing.errors import UnreadableImageError
from preprocessing.formats.jpeg import read_jpeg
from preprocessing.formats.jpeg_scans import can_be_complete, has_all_blocks
from testing import images
from testing.data import UPLOADS

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
    arithmetic = read_jpeg(jpeg.replace(b"\xff\xc0", b"\xff\xc9", 1)).required_chunks
    assert has_all_blocks(arithmetic, PilImage.new("RGB", (1, 1)), lambda _: pytest.fail("decoded"))
    assert not can_be_complete(arithmetic)
    assert can_be_complete(read_jpeg(jpeg).required_chunks)


def test_frame_header_that_is_too_short_is_a_refusal_and_no_crash() -> None:
    jpeg = images.encode_jpeg(PHOTO)[:-2]  # without its end marker, so that the scans are looked at
    at = jpeg.index(b"\xff\xc0")
    for length in range(2, 8):
        short = b"\xff\xc0" + struct.pack(">H", length) + bytes(length - 2)
        with pytest.raises(UnreadableImageError):
            probe(jpeg[:at] + short + jpeg[at:], LIMITS)


FLAT_BELOW = np.concatenate((PHOTO[:45], np.full_like(PHOTO[45:], 128)))
FLAT_ABOVE = np.concatenate((np.full_like(PHOTO[:45], 128), PHOTO[45:]))
CONTENTS = {"photo": PHOTO, "flat below": FLAT_BELOW, "flat above": FLAT_ABOVE, "grey": PHOTO[..., 0].copy()}


@pytest.mark.parametrize("options", KINDS, ids=repr)
@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("tail", [b"", b"\0\0", bytes(900), b"\xff", b"\xff\0"], ids=["cut", "2", "900", "ff", "ff00"])
def test_jpeg_without_its_end_is_read_with_a_note(name: str, options: dict[str, Any], tail: bytes) -> None:
    whole = images.encode_jpeg(CONTENTS[name], **options)
    image = read(whole[:-2] + tail)
    assert (image.pixels == read(whole).pixels).all()
    assert ["no end marker" in note for note in image.notes] == [True]
    assert read(whole).notes == ()


@pytest.mark.parametrize("options", KINDS, ids=repr)
@pytest.mark.parametrize("name", CONTENTS)
def test_cut_jpeg_is_rejected_whatever_follows(name: str, options: dict[str, Any]) -> None:
    """Zeros are valid bits, and enough of them are taken for the missing blocks."""
    whole = images.encode_jpeg(CONTENTS[name], **options)
    rng = np.random.default_rng(3)
    start = start_of_last_scan(whole)
    tails = [b"", b"\0\0", bytes(900), bytes(len(whole)), END, bytes(900) + END]
    cuts = [len(whole) - 2 - missing for missing in (80, 200)] + rng.integers(start, len(whole) - 80, 4).tolist()
    for cut in [cut for cut in cuts if cut > start]:
        for tail in tails:
            with pytest.raises(UnreadableImageError, match=r"Truncated"):
                read(whole[:cut] + tail)


def test_progressive_jpeg_that_ends_between_two_scans_is_rejected() -> None:
    whole = images.encode_jpeg(PHOTO, progressive=True)
    scans = [at for at in range(len(whole)) if whole[at : at + 2] == b"\xff\xda"]
    for at in scans[1:]:
        with pytest.raises(UnreadableImageError, match="no end marker found"):
            read(whole[:at])


def test_sequential_jpeg_that_lacks_a_component_is_rejected() -> None:
    jpeg = images.encode_jpeg(PHOTO)
    scan = jpeg.index(b"\xff\xda")
    only_luma = jpeg[:scan] + b"\xff\xda\0\x08\1\1\0\0\x3f\0" + jpeg[scan + 14 :]
    with pytest.raises(UnreadableImageError, match="no end marker found"):
        read(only_luma[:-2])


@pytest.mark.parametrize(
    "options", [{"optimize": True}, {"optimize": True, "quality": 5}, {"subsampling": 2}], ids=repr
)
@pytest.mark.parametrize("level", [0, 128, 255])
def test_flat_jpeg_whose_scan_ends_with_zeros_is_read(options: dict[str, Any], level: int) -> None:
    """Optimised tables code a flat block in two zero bits."""
    flat = np.full((400, 300, 3), level, np.uint8)
    flat[:8, :8] = PHOTO[:8, :8]
    for pixels in (flat, np.full_like(flat, level)):
        assert read(images.encode_jpeg(pixels, **options)).notes == ()


@pytest.mark.parametrize("name", ["noEOI.jpg", "noEOI_trailing_zeros.jpg"])
def test_reported_jpegs_without_an_end_are_read(name: str) -> None:
    image = read((UPLOADS / name).read_bytes())
    assert image.pixels.mean(axis=(0, 1)).round().tolist() == [153, 119, 73]
    assert len(image.notes) == 1
