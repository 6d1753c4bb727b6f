"""Hard masks are enlarged with smooth contours, and lose nothing against bicubic interpolation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.alpha import scale_alpha
from preprocessing.hard_alpha import HardAlpha, is_hard
from preprocessing.image import Pixels
from testing.images import draw_alpha
from testing.masks import Shape, draw_blob, draw_lines

# dB that the contour gains over bicubic interpolation: measured 2.6, 1.9, 1.1 and 0.8.
GAINS = {2: 2.3, 3: 1.6, 4: 0.9, 8: 0.6}


def enlarge(alpha: Pixels, scale: int) -> Pixels:
    return HardAlpha(alpha, scale).rows(0, len(alpha) * scale)


@pytest.mark.parametrize("scale", GAINS)
def test_contour_is_closer_to_the_shape_than_bicubic(scale: int) -> None:
    shape = draw_blob(256 // scale, scale)

    gain = shape.edge_psnr(enlarge(shape.hard, scale)) - shape.edge_psnr(scale_alpha(shape.hard, scale))

    assert gain > GAINS[scale]


@pytest.mark.parametrize("scale", [2, 4])
def test_thin_lines_are_not_lost(scale: int) -> None:
    shape = draw_lines(256 // scale, scale)
    enlarged = enlarge(shape.hard, scale)

    assert shape.edge_psnr(enlarged) > shape.edge_psnr(scale_alpha(shape.hard, scale)) - 0.05
    assert abs(float(enlarged.mean()) - float(shape.hard.mean())) < 5


def test_single_pixel_stays_as_bicubic_draws_it() -> None:
    alpha = np.zeros((21, 21), np.uint8)
    alpha[10, 10] = 255

    assert (enlarge(alpha, 4) == scale_alpha(alpha, 4)).all()


@pytest.mark.parametrize(("lowest", "highest"), [(0, 255), (0, 100), (40, 60)])
def test_levels_far_from_an_edge_are_exact(lowest: int, highest: int) -> None:
    alpha = np.full((30, 40), lowest, np.uint8)
    alpha[:, 20:] = highest

    enlarged = enlarge(alpha, 4)

    assert (enlarged[:, :64] == lowest).all()
    assert (enlarged[:, 96:] == highest).all()
    assert set(np.unique(enlarged)) <= set(range(lowest, highest + 1))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.sampled_from([2, 3, 4, 8]), st.integers(0, 2**32 - 1), st.data())
def test_parts_equal_the_whole(height: int, width: int, scale: int, seed: int, data: st.DataObject) -> None:
    random = np.random.default_rng(seed)
    alpha = random.choice(np.array([0, 0, 0, 90, 255, 255], np.uint8), (height, width))
    cuts = sorted(data.draw(st.sets(st.integers(1, height * scale - 1))))

    hard = HardAlpha(alpha, scale)
    parts = [hard.rows(top, bottom) for top, bottom in itertools.pairwise([0, *cuts, height * scale])]

    assert (np.concatenate(parts) == hard.rows(0, height * scale)).all()


@pytest.mark.parametrize("draw", [draw_blob, draw_lines])
def test_anti_aliased_shapes_are_soft_and_thresholded_ones_hard(draw: type[Shape]) -> None:
    shape = draw()  # type: ignore[call-arg]

    assert not is_hard(shape.soft)
    assert is_hard(shape.hard)


def test_few_levels_without_steps_between_are_hard_and_a_gradient_is_soft() -> None:
    areas = np.zeros((40, 40), np.uint8)
    areas[:, 10:], areas[:, 25:] = 128, 255
    nearly = draw_blob().hard
    nearly[0, 0] = 3

    assert is_hard(areas)
    assert is_hard(nearly)
    assert not is_hard(draw_alpha(40, 40))
    assert not is_hard(np.arange(256, dtype=np.uint8)[np.newaxis].repeat(9, axis=0))
