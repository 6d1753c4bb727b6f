"""Tiles for tests of the engines, one kind for each rule of theirs."""

from __future__ import annotations

import numpy as np

from preprocessing.depth import to_depth
from swinir.inference.engine import Tiles
from testing.images import draw_photo
from testing.networks import draw_tiles


def draw_kinds() -> dict[str, Tiles]:
    """Return tiles to which each rule applies: plain photos, noise, flat, neutral, smooth corners, 16 bits."""
    flat, neutral = draw_photo(80, 72, seed=1), draw_photo(64, 56, seed=2)
    flat[:60, :60] = (200, 30, 30)
    neutral[:, :40] = neutral[:, :40, :1]
    corners = (np.mgrid[:48, :40].sum(axis=0) // 8 % 250)[..., None].repeat(3, axis=2).astype(np.uint8)
    corners[..., 1] //= 2
    return {
        "photo": np.stack([draw_photo(64, 40, seed=3), draw_photo(64, 40, seed=4)]),
        "noise": draw_tiles(2, 19, 33),
        "flat": flat[np.newaxis],
        "neutral": neutral[np.newaxis],
        "corners": corners[np.newaxis],
        "16 bits": to_depth(draw_photo(40, 48, seed=5), 16)[np.newaxis] + np.uint16(77),
    }
