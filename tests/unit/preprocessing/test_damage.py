"""The damage of an image: the quality of the worst JPEG that it was, and the noise where it is smoothest."""

from __future__ import annotations

import numpy as np
import pytest

from preprocessing.damage import find_jpeg_quality, has_shared_noise, measure_noise
from preprocessing.image import Image, Pixels
from testing.content_images import add_noise, draw_clean_photo, pass_through_jpeg
from testing.images import encode_jpeg
from testing.requests import read_image

PHOTO = draw_clean_photo()
GREY = PHOTO[..., [1, 1, 1]]


@pytest.mark.parametrize(
    ("pixels", "quality"),
    [
        (PHOTO, None),
        (pass_through_jpeg(PHOTO, 60), 60),
        (pass_through_jpeg(pass_through_jpeg(PHOTO, 60), 97), 60),
        (pass_through_jpeg(PHOTO, 60)[3:, 5:], 60),
        (PHOTO[:5, :5], None),
    ],
)
def test_quality_is_that_of_the_worst_jpeg(pixels: Pixels, quality: int | None) -> None:
    assert find_jpeg_quality(Image(pixels)) == quality


@pytest.mark.parametrize("sigma", [3, 6, 12, 25])
def test_noise_is_about_that_of_the_image(sigma: int) -> None:
    noise = measure_noise(Image(add_noise(PHOTO, sigma)), of_luma=False)

    assert noise is not None
    assert 0.6 * sigma <= noise <= 1.1 * sigma


def test_noise_is_that_of_the_noisiest_channel() -> None:
    pixels = PHOTO.copy()
    pixels[..., 2] = add_noise(PHOTO, 12)[..., 2]

    noisiest = measure_noise(Image(pixels[..., [2, 2, 2]]), of_luma=False)
    assert measure_noise(Image(pixels), of_luma=False) == noisiest


def test_noise_of_the_luminance_is_less_where_channels_differ() -> None:
    noisy = Image(add_noise(PHOTO, 10))

    of_luma, of_channels = measure_noise(noisy, of_luma=True), measure_noise(noisy, of_luma=False)

    assert of_luma is not None
    assert of_channels is not None
    assert 0.5 < of_luma / of_channels < 0.8


def test_clean_image_has_little_noise() -> None:
    noise = measure_noise(Image(PHOTO), of_luma=False)

    assert noise is not None
    assert noise < 1.5


def test_plain_frame_hides_no_noise() -> None:
    noisy = add_noise(PHOTO, 10)
    framed = np.pad(noisy, ((48, 48), (0, 0), (0, 0)), constant_values=128)

    noise = measure_noise(Image(framed), of_luma=False)

    assert noise == pytest.approx(measure_noise(Image(noisy), of_luma=False), rel=0.2)


@pytest.mark.parametrize("pixels", [PHOTO[:24, :32], np.full((128, 128, 3), 255, np.uint8)], ids=["tiny", "white"])
def test_noise_of_too_few_cells_is_unknown(pixels: Pixels) -> None:
    assert measure_noise(Image(pixels), of_luma=False) is None


def test_flat_image_has_no_noise() -> None:
    assert measure_noise(Image(np.full((128, 128, 3), 128, np.uint8)), of_luma=False) == 0


def add_shared_noise(pixels: Pixels, sigma: float) -> Pixels:
    """Return the pixels with the same noise in all channels."""
    noise = np.random.default_rng(0).normal(scale=sigma, size=(*pixels.shape[:2], 1))
    return np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)


def tint(pixels: Pixels) -> Pixels:
    """Return the pixels in sepia."""
    return np.rint(pixels * np.array([0.95, 0.85, 0.7])).astype(np.uint8)


@pytest.mark.parametrize(
    "pixels",
    [
        add_shared_noise(PHOTO, 8),
        tint(add_shared_noise(GREY, 25)),
        read_image(encode_jpeg(add_noise(PHOTO, 20), quality=90, subsampling=2)),  # half the resolution of colours
    ],
    ids=["colour", "sepia", "jpeg"],
)
def test_noise_that_is_the_same_in_all_channels_is_shared(pixels: Pixels) -> None:
    assert has_shared_noise(Image(pixels))


@pytest.mark.parametrize(
    "pixels",
    [
        add_noise(PHOTO, 8),
        add_noise(GREY, 25),
        add_shared_noise(PHOTO, 2),  # hardly more than texture
        PHOTO,
        add_shared_noise(PHOTO, 8)[:24, :32],
        np.full((128, 128, 3), 128, np.uint8),
    ],
    ids=["colour", "strong", "weak", "none", "tiny", "flat"],
)
def test_other_noise_is_not_shared(pixels: Pixels) -> None:
    assert not has_shared_noise(Image(pixels))


def test_noise_of_one_channel_is_not_shared() -> None:
    pixels = GREY.copy()
    pixels[..., 0] = add_shared_noise(GREY, 12)[..., 0]

    assert not has_shared_noise(Image(pixels))
