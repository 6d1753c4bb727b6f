"""The quality of a JPEG is read from its pixels, and nothing is read from pixels that never were one."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as PilImage

from preprocessing.jpeg_history import JpegHistory
from testing.content_images import add_noise, draw_clean_photo, draw_comic, draw_pixel_art, pass_through_jpeg
from testing.images import Pixels

PHOTO = draw_clean_photo()
TILE_PX = 128


def find_quality(pixels: Pixels) -> int | None:
    levels = np.asarray(PilImage.fromarray(pixels).convert("L"), np.int32)
    history = JpegHistory()
    for top in range(0, levels.shape[0], TILE_PX):
        for left in range(0, levels.shape[1], TILE_PX):
            history.add(levels[top : top + TILE_PX, left : left + TILE_PX])
    return history.quality()


@pytest.mark.parametrize("quality", [20, 40, 60, 75, 80, 85])
@pytest.mark.parametrize("name", ["photo", "comic"])
def test_quality_within_one(name: str, quality: int) -> None:
    found = find_quality(pass_through_jpeg({"photo": PHOTO, "comic": draw_comic()}[name], quality))
    assert found is not None
    assert abs(found - quality) <= 1


@pytest.mark.parametrize(("top", "left"), [(0, 3), (5, 0), (7, 2)])
def test_crop_moves_the_grid_and_keeps_the_quality(top: int, left: int) -> None:
    assert find_quality(pass_through_jpeg(PHOTO, 70)[top:, left:]) == 70


@pytest.mark.parametrize(("top", "left"), [(0, 0), (3, 5), (4, 4)])
def test_first_quality_shows_through_a_second_better_jpeg(top: int, left: int) -> None:
    first = pass_through_jpeg(PHOTO, 60)
    assert find_quality(pass_through_jpeg(first[top:, left:], 92)) == 60


@pytest.mark.parametrize(
    "pixels",
    [
        PHOTO,
        draw_comic(),
        draw_pixel_art(),
        add_noise(PHOTO, 8),
        np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8),
        np.full((64, 64, 3), 90, np.uint8),
        PHOTO[:7, :90],
        pass_through_jpeg(PHOTO, 98),
        np.asarray(PilImage.fromarray(pass_through_jpeg(PHOTO, 40)).resize((150, 130), PilImage.Resampling.BICUBIC)),
    ],
    ids=["photo", "comic", "pixel art", "noisy", "noise", "flat", "lower than a block", "JPEG of 98", "scaled JPEG"],
)
def test_nothing_is_found_in_pixels_without_the_steps_of_a_jpeg(pixels: Pixels) -> None:
    assert find_quality(pixels) is None
