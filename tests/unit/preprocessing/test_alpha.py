"""Alpha is scaled separately, and visible edges have no fringe."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PilImage

from preprocessing.alpha import bleed_colour, scale_alpha
from preprocessing.image import Pixels
from testing.images import draw_alpha, draw_photo


def enlarge(pixels: Pixels) -> Pixels:
    """Replace the network by bicubic interpolation, which also mixes neighbours."""
    height, width, _ = pixels.shape
    return np.asarray(PilImage.fromarray(pixels).resize((width * 4, height * 4), PilImage.Resampling.BICUBIC))


def blend_on(background: int, pixels: Pixels, alpha: Pixels) -> Pixels:
    weight = alpha[..., np.newaxis] / 255
    return np.rint(pixels * weight + background * (1 - weight)).astype(np.uint8)


@pytest.mark.parametrize("hidden", [0, 255])
def test_no_dark_or_white_fringe_appears_after_enlarging(hidden: int) -> None:
    alpha = np.where(draw_alpha(40, 40) > 127, 255, 0).astype(np.uint8)  # a hard edge, where fringes show most
    pixels = np.where((alpha > 0)[..., np.newaxis], np.uint8(128), np.uint8(hidden)).repeat(3, axis=2)

    def fringe(prepared: Pixels) -> int:
        seen = blend_on(128, enlarge(prepared), scale_alpha(alpha, 4))
        return int(np.abs(seen.astype(int) - 128).max())

    assert fringe(bleed_colour(pixels, alpha)) == 0
    assert fringe(pixels) > 20  # so that the test can fail


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 33), st.integers(1, 33), st.integers(0, 2**32 - 1), st.floats(0.01, 0.99))
def test_visible_pixels_stay_and_hidden_ones_lie_between_them(height: int, width: int, seed: int, share: float) -> None:
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (height, width, 3), np.uint8)
    alpha = np.where(random.random((height, width)) < share, random.integers(1, 256, (height, width)), 0).astype(
        np.uint8
    )
    bled = bleed_colour(pixels, alpha)
    visible = alpha > 0
    assert (bled[visible] == pixels[visible]).all()
    if visible.any():
        assert (bled >= pixels[visible].min(axis=0)).all()
        assert (bled <= pixels[visible].max(axis=0)).all()
        hidden_changed = np.where(visible[..., np.newaxis], pixels, 255 - pixels)
        assert (bleed_colour(hidden_changed, alpha) == bled).all()
        assert (bleed_colour(bled, alpha) == bled).all()


def test_hidden_pixel_takes_the_rounded_mean_of_its_neighbours() -> None:
    pixels = np.array([[10, 11], [11, 200]], np.uint8)[..., np.newaxis].repeat(3, axis=2)
    alpha = np.array([[255, 1], [9, 0]], np.uint8)
    assert bleed_colour(pixels, alpha)[1, 1].tolist() == [11, 11, 11]


def test_one_visible_pixel_fills_the_whole_image() -> None:
    alpha = np.zeros((61, 130), np.uint8)
    alpha[3, 7] = 1
    pixels = draw_photo(61, 130)
    assert (bleed_colour(pixels, alpha) == pixels[3, 7]).all()


def test_each_side_is_filled_from_its_own_neighbours() -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, :10], pixels[:, -10:] = (255, 0, 0), (0, 0, 255)
    alpha = np.zeros((64, 64), np.uint8)
    alpha[:, :10] = alpha[:, -10:] = 255
    bled = bleed_colour(pixels, alpha).astype(int)
    assert (bled[:, 10, 0] > 200).all()
    assert (bled[:, -11, 2] > 200).all()


@pytest.mark.parametrize("level", [0, 255])
def test_nothing_hidden_or_nothing_visible_changes_nothing(level: int) -> None:
    pixels = draw_photo(9, 7)
    assert (bleed_colour(pixels, np.full((9, 7), level, np.uint8)) == pixels).all()


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
def test_alpha_takes_the_size_of_the_result_and_keeps_full_and_none(scale: int) -> None:
    alpha = np.zeros((12, 20), np.uint8)
    alpha[:, 10:] = 255
    scaled = scale_alpha(alpha, scale)
    assert scaled.shape == (12 * scale, 20 * scale)
    assert (scaled[:, : 8 * scale] == 0).all()
    assert (scaled[:, 12 * scale :] == 255).all()
    assert (scale_alpha(np.full((1, 1), 77, np.uint8), scale) == 77).all()


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.sampled_from([1, 2, 3, 4, 8]), st.integers(0, 2**32 - 1), st.data())
def test_alpha_scaled_in_parts_equals_alpha_scaled_at_once(
    height: int, width: int, scale: int, seed: int, data: st.DataObject
) -> None:
    alpha = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    cuts = sorted(data.draw(st.sets(st.integers(1, height * scale - 1))) if height * scale > 1 else set())
    edges = [0, *cuts, height * scale]

    parts = [scale_alpha(alpha, scale, top, bottom) for top, bottom in itertools.pairwise(edges)]

    assert (np.concatenate(parts) == scale_alpha(alpha, scale)).all()
