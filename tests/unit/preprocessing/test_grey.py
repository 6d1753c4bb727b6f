"""Grey in, grey out: an image without colour keeps none, and its luminance is that of Pillow."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from preprocessing.grey import is_grey, keep_grey, to_grey
from testing.images import draw_grey, draw_photo


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
