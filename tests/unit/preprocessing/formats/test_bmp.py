"""BMP: kinds that Windows programs write, decoded to the right pixels, and what is refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image as PilImage

from preprocessing.codec import decode, probe
from preprocessing.errors import TooManyPixelsError
from testing import images
from testing.decoding import LIMITS, read, refusal

PHOTO = images.draw_photo(13, 21)
BMP = images.save(PilImage.fromarray(PHOTO), "BMP", dpi=(300, 150))


def v4_bmp(pixels: images.Pixels, alpha: images.Pixels) -> bytes:
    """Encode a top-down BMP of 32 bits with masks, as browsers put it into the clipboard."""
    height, width, _ = pixels.shape
    body = np.dstack((pixels[..., ::-1], alpha)).tobytes()
    header = struct.pack("<IiiHHIIiiII", 108, width, -height, 1, 32, 3, len(body), 0, 0, 0, 0)
    masks = struct.pack("<4I4s", 0xFF0000, 0xFF00, 0xFF, 0xFF000000, b"BGRs")
    header = (header + masks).ljust(108, b"\0")
    return b"BM" + struct.pack("<IHHI", 14 + 108 + len(body), 0, 0, 14 + 108) + header + body


def test_pixels_and_resolution_are_kept() -> None:
    image = read(BMP)
    assert (image.pixels == PHOTO).all()
    assert image.dpi is not None
    assert [round(dpi) for dpi in image.dpi] == [300, 150]
    assert image.notes == ()


def test_grey_palette_stays_grey() -> None:
    grey = images.draw_grey(13, 21)
    image = read(images.save(PilImage.fromarray(grey), "BMP"))
    assert image.is_grey
    assert (image.pixels[..., 0] == grey).all()


def test_top_down_bmp_with_alpha() -> None:
    alpha = images.draw_alpha(13, 21)
    image = read(v4_bmp(PHOTO, alpha))
    assert image.alpha is not None
    assert (image.alpha == alpha).all()
    assert (image.pixels[alpha == 255] == PHOTO[alpha == 255]).all()


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
def test_truncated_bmp_is_refused_with_the_numbers(keep: float) -> None:
    assert f"declares {len(BMP):,} bytes; it has" in refusal(images.truncated(BMP, keep))


def test_size_is_checked_in_the_header() -> None:
    with pytest.raises(TooManyPixelsError, match="30000 x 30000"):
        probe(BMP[:18] + struct.pack("<ii", 30_000, -30_000) + BMP[26:54], LIMITS)


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        (18, struct.pack("<i", -21), "declares -21 x 13 pixels"),
        (22, struct.pack("<i", 0), "declares 21 x 0 pixels"),
        (14, struct.pack("<I", 41), "no image size found"),
        (28, struct.pack("<H", 64), "64 bits per pixel"),
        (30, struct.pack("<I", 4), "the compression 4"),
    ],
)
def test_header_that_cannot_be_right_is_refused_in_words(at: int, value: bytes, words: str) -> None:
    assert words in refusal(BMP[:at] + value + BMP[at + len(value) :])


def test_only_headers_are_read_before_decoding() -> None:
    upload = probe(BMP, LIMITS)
    assert (upload.format, upload.mode, upload.width, upload.height) == ("BMP", "RGB", 21, 13)
    assert decode(upload).pixels.shape == (13, 21, 3)
