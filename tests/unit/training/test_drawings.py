"""Drawings are of the asked size, repeatable, and of every kind."""

from __future__ import annotations

import numpy as np
import pytest

from training.drawings import KINDS, draw_flats, draw_images, draw_text


def test_drawings_come_in_every_kind_and_the_same_for_the_same_seed() -> None:
    one, again, other = (draw_images(len(KINDS), 96, seed) for seed in (1, 1, 2))
    assert all(image.shape == (96, 96, 3) and image.dtype == np.uint8 for image in one)
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("kind", KINDS[1:])
def test_every_kind_but_flats_has_edges(kind: object) -> None:
    image = kind(96, np.random.default_rng(3))  # type: ignore[operator]
    assert np.abs(np.diff(image.astype(int), axis=1)).max() > 30


def test_flats_are_flat_for_32_pixels_and_more() -> None:
    for seed in range(8):
        image = draw_flats(96, np.random.default_rng(seed))
        assert (image[:32, :32] == image[0, 0]).all()


def test_text_is_paper_and_ink() -> None:
    image = draw_text(128, np.random.default_rng(5))
    colours, counts = np.unique(image.reshape(-1, 3), axis=0, return_counts=True)
    assert counts.max() > 0.5 * counts.sum(), "paper"
    assert len(colours) > 2, "letters are antialiased"
