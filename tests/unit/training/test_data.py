"""Crops show the same part of an image twice, and the images held out are never among them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from testing import images
from training import data
from training.data import Crops, hold_out, read_images
from training.degradations import Pixels, jpeg
from training.recipes import RECIPES, Degradation, Recipe, bicubic, real_world
from training.train import DRAWING_SIDE


def undamaged(target: Pixels, _rng: np.random.Generator) -> Pixels:
    return target


def faint_jpeg(target: Pixels, _rng: np.random.Generator) -> Pixels:
    return jpeg(target, 95)


UNDAMAGED = Degradation(undamaged, undamaged)
FAINT_JPEG = Degradation(faint_jpeg, faint_jpeg, border_px=8)


def recipe(scale: int, degradation: Degradation, *, drawn_share: float = 0.0, grey_share: float = 0.0) -> Recipe:
    variant = replace(RECIPES["compact_x4"].variant, scale=scale)
    return Recipe(variant, degradation, drawn_share, grey_share)


def slope(height: int, width: int) -> Pixels:
    """An image whose red gives the column and whose green gives the row."""
    y, x = np.mgrid[0:height, 0:width]
    return np.dstack((x, y, np.full_like(x, 99))).astype(np.uint8)


def block_means(pixels: Pixels, scale: int) -> Pixels:
    """Mean of the target pixels of each input pixel, [B, H, W, C] -> [B, H / scale, W / scale, C]."""
    batch, height, width, channels = pixels.shape
    blocks = pixels.reshape(batch, height // scale, scale, width // scale, scale, channels)
    return np.rint(blocks.mean(axis=(2, 4))).astype(np.uint8)


@pytest.fixture
def plain_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "PERMUTED_SHARE", 0.0)


@pytest.mark.usefixtures("plain_colours")
@pytest.mark.parametrize(
    ("degradation", "scale", "levels"),
    [(bicubic(4), 4, 2), (bicubic(2), 2, 2), (UNDAMAGED, 1, 0), (FAINT_JPEG, 1, 6), (real_world(4), 4, 25)],
)
def test_input_and_target_show_the_same_part_turned_alike(degradation: Degradation, scale: int, levels: int) -> None:
    crops = Crops([slope(240, 200), slope(180, 244)], recipe(scale, degradation), seed=7)

    given, target = next(crops.batches(16, 48))

    assert given.shape == (48, 16, 16, 3)
    assert target.shape == (48, 16 * scale, 16 * scale, 3)
    apart = np.abs(given.astype(int) - block_means(target, scale)).mean(axis=(1, 2))
    # Means over a crop: noise averages out; another part or orientation of the slope would not.
    assert apart[:, :2].max() <= levels
    directions = {
        (int(np.sign(t[0, -1, 0] - int(t[0, 0, 0]))), int(np.sign(t[-1, 0, 1] - int(t[0, 0, 1])))) for t in target
    }
    assert directions == {(dx, dy) for dx in (-1, 1) for dy in (-1, 1)} | {(0, 0)}, "some were turned, some mirrored"


def test_half_of_the_crops_are_shrunk_and_half_have_exchanged_colours() -> None:
    _, target = next(Crops([slope(250, 250)], recipe(1, UNDAMAGED), seed=2).batches(32, 200))

    steps = np.abs(np.diff(target.astype(int), axis=2)).max(axis=(1, 2, 3))
    steps = np.maximum(steps, np.abs(np.diff(target.astype(int), axis=1)).max(axis=(1, 2, 3)))
    assert 0.3 < (steps > 1).mean() < 0.7, "a slope of one level per pixel is steeper once it is shrunk"
    blue_is_flat = (target[..., 2] == 99).all(axis=(1, 2))
    assert 0.5 < blue_is_flat.mean() < 0.8, "a third of the permutations leave blue where it is"


def test_the_same_seed_draws_the_same_crops_and_another_does_not() -> None:
    photos = [images.draw_photo(80, 96)]
    one, again, other = (next(Crops(photos, recipe(2, real_world(2)), seed=seed).batches(16, 2)) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not np.array_equal(one[0], other[0])


def test_photos_that_are_all_smaller_than_a_crop_are_refused_with_the_numbers() -> None:
    crops = Crops([slope(320, 480), slope(480, 320)], recipe(4, bicubic(4)), seed=1, drawings=[slope(480, 480)])
    words = "None of 2 photos has 384 pixels on both sides, as crops of 96 pixels at scale 4 need."
    with pytest.raises(ValueError, match=re.escape(words)):
        next(crops.batches(96, 1))


def test_a_photo_as_large_as_a_crop_is_drawn_whole_and_a_smaller_one_never() -> None:
    exact, smaller = np.full((32, 32, 3), 200, np.uint8), np.full((200, 31, 3), 10, np.uint8)
    _, target = next(Crops([smaller, exact], recipe(2, real_world(2)), seed=1).batches(16, 16))
    assert (target == 200).all()


def test_drawings_make_up_their_share_of_the_crops() -> None:
    photo, drawing = np.full((64, 64, 3), 200, np.uint8), np.full((DRAWING_SIDE, DRAWING_SIDE, 3), 10, np.uint8)
    crops = Crops([photo], recipe(1, UNDAMAGED, drawn_share=0.2), seed=1, drawings=[drawing])
    _, target = next(crops.batches(16, 500))
    assert 0.14 < (target == 10).all(axis=(1, 2, 3)).mean() < 0.26


def test_grey_crops_stay_grey_through_the_damage() -> None:
    crops = Crops([images.draw_photo(120, 120)], recipe(2, real_world(2), grey_share=1.0), seed=1)
    given, target = next(crops.batches(24, 24))
    for pixels in (given, target):
        assert (pixels == pixels[..., :1]).all()


@pytest.mark.parametrize("variant", ["compact_gray_denoise_25", "compact_gray_jpeg_20"])
def test_images_of_one_channel_stay_so(variant: str) -> None:
    grey = images.draw_grey(80, 80)[..., None]
    given, target = next(Crops([grey], RECIPES[variant], seed=1, drawings=[grey]).batches(24, 8))
    assert given.shape == target.shape == (8, 24, 24, 1)


def test_every_tenth_image_is_held_out_of_training(tmp_path: Path) -> None:
    for name in data.TRAINING_SETS:
        (tmp_path / name).mkdir()
        for number in range(5):
            Image.fromarray(images.draw_photo(8, 9, seed=number)).save(tmp_path / name / f"{number}.png")

    loaded = read_images(tmp_path, grey=False)
    kept, held_out = hold_out(loaded)

    assert (len(loaded), len(kept), len(held_out)) == (20, 18, 2)
    assert loaded[0].shape == (8, 9, 3)
    assert not any(image is other for image in kept for other in held_out)
