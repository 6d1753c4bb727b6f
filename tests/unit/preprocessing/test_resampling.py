"""Results are shrunk band by band with the values of the whole image, in memory for few rows."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat

import numpy as np
import pytest
from PIL import Image as PilImage

from preprocessing.image import Pixels
from preprocessing.resampling import STEP_ROWS, BandResampler, buffer_rows
from testing.images import draw_alpha, draw_photo

LANCZOS, HAMMING = PilImage.Resampling.LANCZOS, PilImage.Resampling.HAMMING


def shrink(
    colour: Pixels, alpha: Pixels | None, target: tuple[int, int], rows: Iterable[int], *, is_exact: bool = False
) -> tuple[Pixels, Pixels | None]:
    """Shrink an image whose rows arrive in parts of these sizes."""
    resampler = BandResampler((colour.shape[1], colour.shape[0]), target, is_exact=is_exact)
    parts, top = [], 0
    for count in rows:
        if top >= len(colour):
            break
        part = slice(top, top + count)
        parts.append(resampler.add(colour[part], None if alpha is None else alpha[part]))
        top += count
    shrunk = np.concatenate([each for each, _ in parts])
    return shrunk, None if alpha is None else np.concatenate([each for _, each in parts if each is not None])


def resize(pixels: Pixels, target: tuple[int, int], kernel: PilImage.Resampling) -> Pixels:
    """Shrink a whole image with Pillow, columns first."""
    columns_done = PilImage.fromarray(pixels).resize((target[0], len(pixels)), kernel)
    return np.asarray(columns_done.resize(target, kernel))


@pytest.mark.parametrize("target", [(300, 400), (450, 600), (225, 300), (600, 200), (150, 800)])
def test_usual_scales_have_the_values_of_the_whole_image(target: tuple[int, int]) -> None:
    colour, alpha = draw_photo(800, 600), draw_alpha(800, 600)

    shrunk, shrunk_alpha = shrink(colour, alpha, target, repeat(STEP_ROWS))

    assert np.array_equal(shrunk, resize(colour, target, LANCZOS))
    assert shrunk_alpha is not None
    assert np.array_equal(shrunk_alpha, resize(alpha, target, HAMMING))


@pytest.mark.parametrize("target", [(577, 771), (333, 444), (299, 799), (1, 1), (600, 1)])
def test_other_sizes_differ_by_one_level_in_few_pixels(target: tuple[int, int]) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (800, 600, 3), np.uint8)

    shrunk, _ = shrink(colour, None, target, repeat(STEP_ROWS))

    differences = abs(shrunk.astype(int) - resize(colour, target, LANCZOS))
    assert shrunk.shape == (target[1], target[0], 3)
    assert differences.max() <= 1
    assert (differences > 0).mean() <= 0.0005


@pytest.mark.parametrize("rows", [repeat(1), repeat(977), (1, 2, 300, 5, 1_000), (500, *repeat(17, 100))])
def test_values_do_not_depend_on_how_the_rows_are_split(rows: Iterable[int]) -> None:
    colour, alpha = draw_photo(500, 60), draw_alpha(500, 60)

    split, split_alpha = shrink(colour, alpha, (41, 347), rows)
    whole, whole_alpha = shrink(colour, alpha, (41, 347), [500])

    assert np.array_equal(split, whole)
    assert split_alpha is not None
    assert whole_alpha is not None
    assert np.array_equal(split_alpha, whole_alpha)


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_repeated_pixels_are_repeated_fewer_times_exactly(scale: int) -> None:
    pixels, alpha = draw_photo(50, 40), draw_alpha(50, 40)
    repeated, repeated_alpha = (each.repeat(4, axis=0).repeat(4, axis=1) for each in (pixels, alpha))

    shrunk, shrunk_alpha = shrink(repeated, repeated_alpha, (40 * scale, 50 * scale), repeat(64), is_exact=True)

    assert np.array_equal(shrunk, pixels.repeat(scale, axis=0).repeat(scale, axis=1))
    assert shrunk_alpha is not None
    assert np.array_equal(shrunk_alpha, alpha.repeat(scale, axis=0).repeat(scale, axis=1))


def test_hard_mask_gets_no_outline() -> None:
    mask = np.zeros((400, 400), np.uint8)
    mask[100:300, 100:300] = 255

    _, alpha = shrink(draw_photo(400, 400), mask, (200, 200), repeat(64))

    assert alpha is not None
    assert set(np.unique(alpha[51:149, 51:149])) == {255}
    assert not alpha[:49].any()
    assert not alpha[:, :49].any()


def test_flat_colour_stays_flat() -> None:
    flat = np.full((700, 300, 3), (0, 128, 255), np.uint8)

    shrunk, _ = shrink(flat, None, (211, 499), repeat(64))

    assert (shrunk == (0, 128, 255)).all()


def test_few_rows_are_kept() -> None:
    source, target = (16, 4_000), (8, 1_300)
    resampler = BandResampler(source, target)
    most = 0
    for top in range(0, source[1], STEP_ROWS):
        rows = min(STEP_ROWS, source[1] - top)
        before = len(resampler._colour)
        resampler.add(np.zeros((rows, 16, 3), np.uint8), None)
        most = max(most, before + rows)

    assert most <= buffer_rows(source[1], target[1], STEP_ROWS) < 300


@pytest.mark.parametrize("target", [(11, 10), (10, 11), (0, 5), (5, 0)])
def test_larger_and_empty_targets_are_rejected(target: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="cannot be shrunk"):
        BandResampler((10, 10), target)


@pytest.mark.parametrize("shape", [(11, 10, 3), (5, 9, 3), (5, 10, 4)])
def test_rows_that_do_not_fit_are_rejected(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        BandResampler((10, 10), (5, 5)).add(np.zeros(shape, np.uint8), None)
