"""What of a soft mask goes to the network, and how the rows of the result come out of it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.image import Pixels
from preprocessing.soft_alpha import SoftAlpha
from testing.images import draw_alpha
from testing.masks import draw_blob


def start(alpha: Pixels, scale: int = 4, window: int = 8, halo: int = 24) -> SoftAlpha:
    """Return a mask that was enlarged by repeating its pixels."""
    soft = SoftAlpha(alpha, scale, window=window, halo=halo)
    soft.start()
    soft.add(soft.network_input.repeat(scale, axis=0).repeat(scale, axis=1))
    return soft


def test_shape_on_a_large_canvas_sends_the_shape_and_its_surroundings() -> None:
    canvas = np.zeros((1_000, 2_000), np.uint8)
    canvas[300:364, 500:564] = draw_blob().soft

    soft = start(canvas)

    assert soft.network_input.shape == (136, 160, 3)  # of the shape, 48 on either side, rounded up to the window
    assert (soft.rows(0, 4_000) == canvas.repeat(4, axis=0).repeat(4, axis=1)).all()


def test_rounded_corners_send_the_corners_and_no_middle() -> None:
    alpha = np.full((1_024, 1_024), 255, np.uint8)
    disc = draw_alpha(48, 48)
    for rows, part in ((slice(0, 24), slice(0, 24)), (slice(-24, None), slice(24, 48))):
        for columns, other in ((slice(0, 24), slice(0, 24)), (slice(-24, None), slice(24, 48))):
            alpha[rows, columns] = disc[part, other]

    assert max(start(alpha).shape) <= 112


def test_dropped_lines_keep_the_place_of_the_rest_on_the_window_grid() -> None:
    alpha = np.zeros((300, 8), np.uint8)
    alpha[100], alpha[203] = 200, 100

    sent = SoftAlpha(alpha, 2, window=8, halo=24).network_input[..., 0]
    first, second = np.flatnonzero(sent.any(axis=1)).tolist()

    assert (first % 8, second % 8) == (100 % 8, 203 % 8)
    assert len(sent) < 200


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from([2, 3, 4]), st.integers(0, 2**32 - 1), st.data())
def test_parts_of_any_mask_equal_the_whole(height: int, width: int, scale: int, seed: int, data: st.DataObject) -> None:
    random = np.random.default_rng(seed)
    alpha = np.zeros((height, width), np.uint8)
    top, left = random.integers(0, height), random.integers(0, width)
    alpha[top : top + 9, left : left + 9] = random.integers(0, 256, alpha[top : top + 9, left : left + 9].shape)
    cuts = sorted(data.draw(st.sets(st.integers(1, height * scale - 1))))

    soft = start(alpha, scale, window=2, halo=4)
    parts = [soft.rows(top, bottom) for top, bottom in itertools.pairwise([0, *cuts, height * scale])]

    assert (np.concatenate(parts) == alpha.repeat(scale, axis=0).repeat(scale, axis=1)).all()


def test_constant_areas_are_exact_although_the_network_is_off_by_some_levels() -> None:
    shape = draw_blob()
    soft = SoftAlpha(shape.soft, 4, window=8, halo=24)
    soft.start()
    enlarged = soft.network_input.repeat(4, axis=0).repeat(4, axis=1)
    soft.add(np.clip(enlarged, 3, 252))

    levels = soft.rows(0, 256)

    padded = np.pad(shape.soft, 2, mode="edge")
    around = [padded[y : y + 64, x : x + 64] for y in range(5) for x in range(5)]
    is_constant = np.max(around, axis=0) == np.min(around, axis=0)
    assert is_constant.any()
    assert set(np.unique(levels[is_constant.repeat(4, axis=0).repeat(4, axis=1)])) == {0, 255}


def test_bands_that_do_not_fit_are_rejected() -> None:
    soft = SoftAlpha(draw_alpha(20, 30), 2, window=8, halo=24)
    soft.start()

    soft.add(np.zeros((24, 60, 3), np.uint8))
    assert not soft.is_complete
    with pytest.raises(ValueError, match="rows 24 to 48 of shape"):
        soft.add(np.zeros((24, 60, 3), np.uint8))
    with pytest.raises(ValueError, match="do not fit the mask"):
        soft.add(np.zeros((1, 30, 3), np.uint8))
    soft.add(np.zeros((16, 60, 3), np.uint8))
    assert soft.is_complete
