"""Grey in, grey out: an image without colour keeps none, and its luminance is that of Pillow."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from preprocessing.codec import UploadLimits, decode, probe
from preprocessing.grey import is_grey, is_nearly_grey, keep_grey, to_grey
from preprocessing.image import Pixels
from testing.images import draw_grey, draw_photo, encode_jpeg, encode_png, save

LIMITS = UploadLimits(max_bytes=1_000_000, max_pixels=1_000_000, max_side=1_000)


def test_one_coloured_pixel_makes_an_image_coloured() -> None:
    grey = np.repeat(np.arange(150 * 70, dtype=np.uint32).astype(np.uint8).reshape(150, 70, 1), 3, axis=2)
    assert is_grey(grey)
    for channel in range(3):
        coloured = grey.copy()
        coloured[149, 69, channel] ^= 1
        assert not is_grey(coloured)


def test_luminance_is_that_of_pillow() -> None:
    image = np.random.default_rng(0).integers(0, 256, (131, 97, 3), np.uint8)
    grey = to_grey(image)
    assert (grey[..., 0] == np.asarray(Image.fromarray(image).convert("L"))).all()
    assert is_grey(grey)


def test_grey_levels_are_kept() -> None:
    levels = np.repeat(np.arange(256, dtype=np.uint8).reshape(1, 256, 1), 3, axis=2)
    assert (to_grey(levels) == levels).all()


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (200, 65)])
def test_result_of_a_grey_image_is_grey(shape: tuple[int, int]) -> None:
    restored = draw_photo(4 * shape[0], 4 * shape[1])
    assert is_grey(keep_grey(restored, draw_grey(*shape)[..., None].repeat(3, axis=2)))


def test_result_of_a_coloured_image_keeps_its_colour() -> None:
    restored = draw_photo(64, 64)
    assert keep_grey(restored, draw_photo(16, 16)) is restored


def add_chroma(grey: Pixels, blue: int, red: int) -> Pixels:
    """Return a grey image [H, W] whose chroma is off by up to `blue` and `red` steps, without a tint."""
    random = np.random.default_rng(0)
    steps = [
        random.integers(-step, step + 1, grey.shape) if step else np.zeros(grey.shape, int) for step in (blue, red)
    ]
    samples = np.dstack((grey, *(128 + step for step in steps))).astype(np.uint8)
    return np.asarray(Image.fromarray(samples, "YCbCr").convert("RGB"))


GREY = draw_grey(96, 128)


@pytest.mark.parametrize("quality", [10, 50, 75, 95, 100])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_grey_stored_as_rgb_stays_grey_in_jpeg(quality: int, subsampling: int) -> None:
    data = encode_jpeg(GREY[..., np.newaxis].repeat(3, axis=2), quality=quality, subsampling=subsampling)

    assert is_grey(decode(probe(data, LIMITS)).pixels)


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_grey_stored_as_webp_becomes_grey(quality: int) -> None:
    image = Image.fromarray(GREY[..., np.newaxis].repeat(3, axis=2))
    data = save(image, "WEBP", quality=quality)

    assert not is_grey(np.asarray(Image.open(BytesIO(data)).convert("RGB")))  # so that the test can fail
    decoded = decode(probe(data, LIMITS))
    assert is_grey(decoded.pixels)
    assert not decoded.is_grey  # the result has three channels, as the upload


def test_steps_of_chroma_are_near_grey() -> None:
    assert is_nearly_grey(add_chroma(GREY, 1, 1))
    assert not is_nearly_grey(add_chroma(GREY, 2, 2))


@pytest.mark.parametrize("tint", [(1, 0.99, 0.97), (0.98, 1, 0.99), (1, 1, 0.985)])
def test_faint_tints_are_no_grey(tint: tuple[float, float, float]) -> None:
    tinted = np.rint(GREY[..., np.newaxis] * np.array(tint)).astype(np.uint8)
    assert not is_nearly_grey(tinted)
    assert not is_grey(decode(probe(encode_jpeg(tinted, quality=75), LIMITS)).pixels)


def test_uniform_tint_of_two_levels_is_no_grey() -> None:
    assert not is_nearly_grey(np.full((64, 64, 3), (250, 250, 252), np.uint8))


@pytest.mark.parametrize("seed", range(4))
def test_photo_with_a_twentieth_of_its_colour_is_not_grey(seed: int) -> None:
    photo = draw_photo(96, 128, seed)
    grey = to_grey(photo).astype(float)
    assert not is_nearly_grey(np.rint(grey + 0.05 * (photo - grey)).astype(np.uint8))


def test_near_grey_of_a_png_is_kept() -> None:
    pixels = GREY[..., np.newaxis].repeat(3, axis=2)
    pixels[0, 0, 0] ^= 1

    assert (decode(probe(encode_png(pixels), LIMITS)).pixels == pixels).all()
