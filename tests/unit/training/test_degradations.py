"""Each kind of damage does what its name says, to colour and to grey images."""

from __future__ import annotations

import numpy as np
import pytest

from testing import images
from training.degradations import (
    Pixels,
    add_coloured_noise,
    add_noise,
    add_unclipped_noise,
    blur,
    double_jpeg,
    jpeg,
    sharpen,
    to_grey,
    webp,
)

PHOTO = images.draw_photo(64, 72)
GREY = images.draw_grey(64, 72)[..., None]
MIDDLE = np.full((96, 96, 3), 128, np.uint8)


def roughness(pixels: Pixels) -> float:
    return float(np.abs(np.diff(pixels.astype(int), axis=1)).mean())


@pytest.mark.parametrize("image", [PHOTO, GREY], ids=["colour", "grey"])
def test_damage_keeps_shape_and_type(image: Pixels) -> None:
    rng = np.random.default_rng(1)
    made = (
        add_noise(image, 9, rng),
        add_coloured_noise(image, 9, 2.5, rng),
        blur(image, rng),
        double_jpeg(image, rng),
        jpeg(image, 30),
        sharpen(image, rng),
        webp(image, 30),
    )
    for damaged in made:
        assert damaged.shape == image.shape
        assert damaged.dtype == np.uint8
        assert not np.array_equal(damaged, image)


@pytest.mark.parametrize("sigma", [2.0, 12.0])
def test_noise_has_the_strength_that_was_asked_for(sigma: float) -> None:
    rng = np.random.default_rng(2)
    for noisy in (add_noise(MIDDLE, sigma, rng), add_unclipped_noise(MIDDLE, sigma, rng)):
        assert noisy.astype(np.float64).std() == pytest.approx(sigma, rel=0.05)
    assert add_coloured_noise(MIDDLE, sigma, 2.0, rng).astype(np.float64).std() == pytest.approx(sigma, rel=0.1)


def test_coloured_noise_has_wide_grains_and_little_luminance() -> None:
    rng = np.random.default_rng(3)
    white, wide = add_noise(MIDDLE, 10, rng), add_coloured_noise(MIDDLE, 10, 3.0, rng)
    assert roughness(wide) < 0.7 * roughness(white)
    assert to_grey(wide).std() < 0.5 * wide.std()


def test_blur_smooths_and_sharpening_does_the_opposite() -> None:
    rng = np.random.default_rng(4)
    assert roughness(blur(PHOTO, rng)) < roughness(PHOTO) < roughness(sharpen(PHOTO, rng))


def test_a_second_jpeg_has_its_own_grid() -> None:
    twice = [double_jpeg(PHOTO, np.random.default_rng(seed)) for seed in range(4)]
    assert all(np.abs(made.astype(int) - PHOTO).mean() < 20 for made in twice)
    assert not np.array_equal(twice[0], twice[1])


def test_grey_of_a_grey_image_is_the_image() -> None:
    assert np.array_equal(to_grey(GREY.repeat(3, axis=2)), GREY)
    assert to_grey(GREY) is GREY
