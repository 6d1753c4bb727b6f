"""The encoder writes the same file for any bands, in bounded memory."""

from __future__ import annotations

import tracemalloc
from io import BytesIO
from typing import get_args

import numpy as np
import pytest
from PIL import Image as PilImage

from preprocessing import encoder as encoder_module
from preprocessing.alpha import scale_alpha
from preprocessing.codec import BandEncoder, Image, OutputFormat, encode
from preprocessing.errors import UnsupportedOutputError
from preprocessing.formats.jpeg import STRIP_ROWS, JpegStream
from preprocessing.image import Pixels
from testing import images

PHOTO, ALPHA = images.draw_photo(24, 40), images.draw_alpha(24, 40)
LARGE = PHOTO.repeat(2, axis=0).repeat(2, axis=1)
IMAGES = {
    "colour": Image(PHOTO),
    "with alpha": Image(PHOTO, alpha=ALPHA),
    "grey": Image(np.repeat(PHOTO[..., :1], 3, axis=2), is_grey=True),
    "with a profile": Image(PHOTO, icc_profile=images.icc_profile(b"RGB ")),
}


def encode_bands(original: Image, format_: OutputFormat, cuts: tuple[int, ...]) -> bytes:
    encoder = BandEncoder(original, 2, format_, 90)
    large = original.pixels.repeat(2, axis=0).repeat(2, axis=1)
    for band in np.split(large, cuts):
        encoder.add(band)
    return encoder.finish()


def decoded(data: bytes) -> tuple[str, bytes, bytes | None]:
    opened = PilImage.open(BytesIO(data))
    return opened.mode, opened.tobytes(), opened.info.get("icc_profile")


@pytest.mark.parametrize("format_", get_args(OutputFormat))
@pytest.mark.parametrize("kind", IMAGES)
def test_bands_decode_like_the_whole_image(kind: str, format_: OutputFormat) -> None:
    original = IMAGES[kind]
    whole = Image(
        original.pixels.repeat(2, axis=0).repeat(2, axis=1),
        alpha=None if original.alpha is None else scale_alpha(original.alpha, 2),
        is_grey=original.is_grey,
        icc_profile=original.icc_profile,
    )

    assert decoded(encode_bands(original, format_, (10, 11, 40))) == decoded(encode(whole, format_, 90))


@pytest.mark.parametrize("kind", ["colour", "grey"])
def test_steps_are_bounded_and_do_not_change_the_file(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    original, lengths = IMAGES[kind], []
    tall = Image(np.tile(original.pixels, (20, 1, 1)), is_grey=original.is_grey)
    expected = encode(tall, "jpeg")

    class RecordingStream(JpegStream):
        def rows(self, pixels: Pixels) -> bytes:
            lengths.append(len(pixels))
            return super().rows(pixels)

    monkeypatch.setattr(encoder_module, "JpegStream", RecordingStream)
    monkeypatch.setattr(encoder_module, "STEP_PIXELS", tall.width * 2 * STRIP_ROWS + 1)

    assert encode(tall, "jpeg") == expected
    assert max(lengths) == 2 * STRIP_ROWS
    assert sum(lengths) == tall.height > 3 * STRIP_ROWS


@pytest.mark.parametrize("format_", get_args(OutputFormat))
@pytest.mark.parametrize("kind", IMAGES)
def test_shrunk_bands_decode_like_the_whole_image_shrunk(kind: str, format_: OutputFormat) -> None:
    original, size = IMAGES[kind], (60, 36)
    large = original.pixels.repeat(2, axis=0).repeat(2, axis=1)
    encoder = BandEncoder(original, 2, format_, 90, shrink_to=size)

    returned = np.concatenate([encoder.add(band) for band in np.split(large, (10, 11, 40))])

    pixels = np.asarray(PilImage.fromarray(large).resize(size, PilImage.Resampling.LANCZOS))
    alpha = None if original.alpha is None else PilImage.fromarray(scale_alpha(original.alpha, 2))
    whole = Image(
        pixels,
        alpha=None if alpha is None else np.asarray(alpha.resize(size, PilImage.Resampling.HAMMING)),
        is_grey=original.is_grey,
        icc_profile=original.icc_profile,
    )
    assert decoded(encoder.finish()) == decoded(encode(whole, format_, 90))
    assert np.array_equal(returned, pixels)


def test_same_bands_make_the_same_bytes() -> None:
    assert encode_bands(IMAGES["with alpha"], "png", (10, 40)) == encode_bands(IMAGES["with alpha"], "png", (10, 40))


@pytest.mark.parametrize("format_", ["png", "jpeg"])
def test_rows_missing_or_too_many_are_rejected(format_: OutputFormat) -> None:
    encoder = BandEncoder(IMAGES["colour"], 2, format_, 90)
    encoder.add(LARGE[:40])
    with pytest.raises(ValueError, match="8 of 48 rows are missing"):
        encoder.finish()
    with pytest.raises(ValueError, match="do not fit"):
        encoder.add(LARGE[:9])
    with pytest.raises(ValueError, match="do not fit"):
        BandEncoder(IMAGES["colour"], 2, format_, 90).add(PHOTO)


def test_image_the_format_cannot_hold_is_rejected_before_any_band() -> None:
    with pytest.raises(UnsupportedOutputError):
        BandEncoder(Image(np.zeros((2, 9000, 3), np.uint8)), 2, "webp", 90)


@pytest.mark.parametrize("format_", ["png", "jpeg"])
def test_memory_follows_the_band_for_any_image_holds(format_: OutputFormat) -> None:
    original = Image(np.zeros((1_024, 512, 3), np.uint8), alpha=np.full((1_024, 512), 9, np.uint8))
    band, pixels = np.zeros((32, 2_048, 3), np.uint8), 4_096 * 2_048
    tracemalloc.start()  # includes numpy's memory

    encoder = BandEncoder(original, 4, format_, 90)
    for _ in range(4_096 // len(band)):
        encoder.add(band)
    data = encoder.finish()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert most - len(data) < pixels / 4, f"{most / pixels:.1f} bytes a pixel"
