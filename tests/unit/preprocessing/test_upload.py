"""`probe`: which uploads are rejected by their headers, with which message, and which are accepted."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from preprocessing.codec import MAX_DECODED_PIXELS, UploadLimits, decode, probe
from preprocessing.errors import (
    EmptyUploadError,
    ImageError,
    SideTooLongError,
    TooManyBytesError,
    TooManyPixelsError,
    UnknownFormatError,
    UnreadableImageError,
)
from testing import images

LIMITS = UploadLimits(max_bytes=1_000_000, max_pixels=1_000_000, max_side=5_000)


def test_empty_upload_is_rejected() -> None:
    with pytest.raises(EmptyUploadError, match="0 bytes"):
        probe(b"", LIMITS)


def test_text_named_png_is_rejected_because_only_bytes_count() -> None:
    with pytest.raises(UnknownFormatError, match="an unknown format"):
        probe(b"hello, I am photo.png", LIMITS)


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\0\0\0\x1cftypqt  ", "a video"),
        (b"%PDF-1.7", "a PDF"),
        (b"  <svg xmlns=", "SVG"),
        (b"\0\0\0\x0cJXL ", "a JPEG XL"),
    ],
)
def test_format_that_is_not_read_is_called_by_its_name(start: bytes, name: str) -> None:
    with pytest.raises(UnknownFormatError, match=f"The upload is {name}"):
        probe(start + bytes(100), LIMITS)


def test_upload_over_the_bytes_is_rejected_with_both_numbers() -> None:
    data = images.encode_png(images.draw_photo(20, 20))
    with pytest.raises(TooManyBytesError, match=f"{len(data):,} bytes; 100 is the limit"):
        probe(data, UploadLimits(max_bytes=100, max_pixels=1_000_000, max_side=5_000))


def test_header_of_30000_by_30000_is_rejected() -> None:
    with pytest.raises(TooManyPixelsError, match=r"30000 x 30000 = 900,000,000 pixels; 1,000,000 is the limit"):
        probe(images.png_header_only(30_000, 30_000), LIMITS)


def test_size_is_checked_before_damage() -> None:
    data = images.truncated(images.encode_webp(images.draw_photo(60, 60)), keep=0.95)
    with pytest.raises(TooManyPixelsError):
        probe(data, UploadLimits(max_bytes=1_000_000, max_pixels=3_599, max_side=60))
    with pytest.raises(UnreadableImageError):
        probe(data, UploadLimits(max_bytes=1_000_000, max_pixels=3_600, max_side=60))


def test_canvas_of_268_megapixels_in_a_webp_is_rejected() -> None:
    webp = images.encode_webp(images.draw_photo(8, 8), icc_profile=images.icc_profile())
    huge = webp[:24] + struct.pack("<I", 16_383)[:3] * 2 + webp[30:]
    with pytest.raises(TooManyPixelsError, match="16384 x 16384"):
        probe(huge, LIMITS)


def test_too_long_side_is_rejected() -> None:
    data = images.encode_png(images.draw_photo(1, 5_001))
    with pytest.raises(SideTooLongError, match=r"5001 x 1 pixels; 5,000 is the limit per side"):
        probe(data, LIMITS)


@pytest.mark.parametrize("name", ["png", "jpeg", "webp"])
def test_limits_are_inclusive(name: str) -> None:
    data = getattr(images, f"encode_{name}")(images.draw_photo(10, 20))
    upload = probe(data, UploadLimits(max_bytes=len(data), max_pixels=200, max_side=20))
    assert (upload.width, upload.height) == (20, 10)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", ["png", "jpeg", "webp"])
def test_truncated_upload_is_rejected_with_what_to_do(name: str, keep: float) -> None:
    data = getattr(images, f"encode_{name}")(images.draw_photo(64, 64))
    with pytest.raises(UnreadableImageError, match=r"Send the whole file|send the whole file"):
        decode(probe(images.truncated(data, keep), LIMITS))


def test_facts_of_an_upload_are_those_of_its_header() -> None:
    photo = images.draw_photo(12, 18)
    cases = {
        ("PNG", "RGB", 1): images.encode_png(photo),
        ("PNG", "P", 1): images.palette_png(photo),
        ("PNG", "L", 1): images.encode_png(images.draw_grey(12, 18)),
        ("PNG", "1", 1): images.one_bit_png(photo[..., 0] > 99),
        ("PNG", "I;16", 1): images.grey16_png(photo[..., 0].astype(np.uint16)),
        ("PNG", "RGB", 2): images.animated_png([photo, ~photo]),
        ("JPEG", "RGB", 1): images.encode_jpeg(photo),
        ("JPEG", "L", 1): images.encode_jpeg(images.draw_grey(12, 18)),
        ("JPEG", "CMYK", 1): images.cmyk_jpeg(photo),
        ("WEBP", "RGB", 1): images.encode_webp(photo),
        ("WEBP", "RGB", 3): images.animated_webp([photo, ~photo, photo]),
    }
    for facts, data in cases.items():
        upload = probe(data, LIMITS)
        assert (upload.format, upload.mode, upload.frames) == facts
        assert (upload.width, upload.height, upload.data) == (18, 12, data)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_width_and_height_are_reported_as_displayed(orientation: int) -> None:
    upload = probe(images.encode_jpeg_with_orientation(images.draw_photo(10, 30), orientation), LIMITS)
    assert (upload.width, upload.height, upload.orientation) == (30, 10, orientation)


def test_limits_that_no_decoder_could_keep_are_rejected() -> None:
    with pytest.raises(ValueError, match="89,478,485"):
        UploadLimits(max_bytes=1, max_pixels=MAX_DECODED_PIXELS + 1, max_side=1)
    with pytest.raises(ValueError, match="at least 1"):
        UploadLimits(max_bytes=0, max_pixels=1, max_side=1)


def test_every_image_error_has_a_unique_slug() -> None:
    kinds = [subclass.kind for subclass in ImageError.__subclasses__()]
    assert sorted(kinds) == [
        "empty-upload",
        "side-too-long",
        "too-many-bytes",
        "too-many-pixels",
        "unknown-format",
        "unreadable-image",
        "unsupported-output",
    ]


PHOTO = images.draw_photo(8, 8)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (images.encode_png(PHOTO), False),
        (images.encode_jpeg(PHOTO), False),
        (images.encode_webp(PHOTO), False),
        (images.palette_png(PHOTO), False),
        (images.palette_png_with_transparency(PHOTO), True),
        (images.png_with_transparent_colour(PHOTO, (1, 2, 3)), True),
        (images.encode_png(np.dstack((PHOTO, images.draw_alpha(8, 8)))), True),
        (images.encode_png(np.dstack((PHOTO[..., 0], images.draw_alpha(8, 8)))), True),
        (images.encode_webp(np.dstack((PHOTO, images.draw_alpha(8, 8)))), True),
    ],
)
def test_header_shows_possible_transparency(data: bytes, *, expected: bool) -> None:
    assert probe(data, LIMITS).may_be_transparent == expected
