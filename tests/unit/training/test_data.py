"""Training data: pairs of crops at one position, degraded by the recipe."""

from __future__ import annotations

import re

import numpy as np
import pytest

from testing import images
from training import data
from training.data import Crops, Pixels, jpeg, real_world, resize


def slope(height: int, width: int) -> Pixels:
    """Return an image whose red encodes the column and whose green the row."""
    y, x = np.mgrid[0:height, 0:width]
    return np.dstack((x, y, np.full_like(x, 99))).astype(np.uint8)


def block_means(pixels: Pixels, scale: int) -> Pixels:
    """Return the mean of the target for each pixel of the input, [B, H, W, C] -> [B, H / scale, W / scale, C]."""
    batch, height, width, channels = pixels.shape
    blocks = pixels.reshape(batch, height // scale, scale, width // scale, scale, channels)
    return np.rint(blocks.mean(axis=(2, 4))).astype(np.uint8)


def draw(crops: Crops, patch: int, batch: int) -> tuple[Pixels, Pixels]:
    return next(crops.batches(patch, batch))


@pytest.mark.parametrize(
    ("recipe", "scale", "levels"),
    [("bicubic", 4, 2), ("bicubic", 2, 2), ("noise:0", 1, 0), ("jpeg:95", 1, 6), ("real", 4, 25)],
)
def test_input_and_target_show_one_position_and_rotation(recipe: str, scale: int, levels: int) -> None:
    given, target = draw(Crops([slope(240, 200), slope(180, 244)], recipe, scale, seed=7), 16, 64)

    assert given.shape == (64, 16, 16, 3)
    assert target.shape == (64, 16 * scale, 16 * scale, 3)
    apart = np.abs(given.astype(int) - block_means(target, scale)).mean(axis=(1, 2))
    # Mean over a crop: noise averages out, another position or rotation of the slope would not.
    assert apart[:, :2].max() <= levels
    directions = {
        (int(np.sign(t[0, -1, 0] - int(t[0, 0, 0]))), int(np.sign(t[-1, 0, 1] - int(t[0, 0, 1])))) for t in target
    }
    assert directions == {(dx, dy) for dx in (-1, 1) for dy in (-1, 1)} | {(0, 0)}, "some were turned, some mirrored"


def test_same_seed_draws_the_same_crops_and_another_does_not() -> None:
    photographs = [images.draw_photo(80, 96)]
    one, again, other = (draw(Crops(photographs, "real", 2, seed=seed), 16, 2) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not np.array_equal(one[0], other[0])


def test_photos_smaller_than_a_crop_are_rejected() -> None:
    crops = Crops([slope(320, 480), slope(480, 320)], "bicubic", 4, seed=1)
    words = "None of 2 photographs has 384 pixels on both sides, as crops of 96 pixels at scale 4 take."
    with pytest.raises(ValueError, match=re.escape(words)):
        draw(crops, 96, 1)


def test_photo_of_crop_size_is_drawn_whole() -> None:
    exact, smaller = np.full((32, 32, 3), 200, np.uint8), np.full((200, 31, 3), 10, np.uint8)
    _, target = draw(Crops([smaller, exact], "real", 2, seed=1), 16, 32)
    assert (target == 200).all()


def test_small_photo_takes_the_border_from_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    degraded: list[int] = []

    def note(pixels: Pixels, quality: int) -> Pixels:
        degraded.append(pixels.shape[0])
        return jpeg(pixels, quality)

    monkeypatch.setattr(data, "jpeg", note)
    too_small, hardly, large = slope(15, 250), slope(20, 100), slope(60, 60)
    draw(Crops([too_small, hardly, large], "jpeg:50", 1, seed=3), 16, 100)

    assert set(degraded) == {20, 16 + 2 * 8}


@pytest.mark.parametrize("recipe", ["real", "jpeg:20", "noise:25", "bicubic"])
def test_grey_photos_stay_of_one_channel(recipe: str) -> None:
    given, target = draw(Crops([images.draw_grey(80, 80)[..., None]], recipe, 1, seed=1), 24, 2)
    assert given.shape == target.shape == (2, 24, 24, 1)


def test_unknown_recipe_is_rejected_by_name() -> None:
    with pytest.raises(ValueError, match="recipe is 'fog'"):
        draw(Crops([slope(40, 40)], "fog", 1, seed=1), 16, 1)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_real_recipe_degrades_and_keeps_the_size(scale: int) -> None:
    photo = images.draw_photo(101, 90)
    clean = resize(photo, 101 // scale, 90 // scale).astype(int)
    for seed in range(8):
        made = real_world(photo, scale, np.random.default_rng(seed))
        assert made.shape == clean.shape
        assert made.dtype == np.uint8
        assert not np.array_equal(made, clean)
        assert np.abs(made.mean(axis=(0, 1)) - clean.mean(axis=(0, 1))).max() < 4, "no colour is lost on the way"
        assert np.corrcoef(made.ravel(), clean.ravel())[0, 1] > 0.6
