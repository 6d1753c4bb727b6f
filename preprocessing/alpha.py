"""Alpha around super-resolution: colour bled under it before, alpha scaled on its own after.

What lies under alpha 0 is invisible and arbitrary (black, white, a leftover), yet a network reads it and mixes it into
the visible edge: a dark or white fringe. So visible colour is bled over it first.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage

from preprocessing.image import Pixels

Mask = npt.NDArray[np.bool_]

_REACH_ROWS = 3
"""How far bicubic interpolation looks beyond a row is 2; one more for what rounding may add."""


def bleed_colour(pixels: Pixels, alpha: Pixels) -> Pixels:
    """Return pixels with every one under alpha 0 filled from the visible ones near it; [H, W, 3] uint8.

    Visible pixels are returned as they are, and only they count, so bleeding twice changes nothing. Pull-push over a
    pyramid: averages of what is visible go down by halves until nothing is empty, then fill what is empty on the way
    up. Time and memory are a small constant a pixel, however far the nearest visible pixel lies. When nothing is
    visible the pixels are returned unchanged.
    """
    visible = alpha > 0
    if visible.all() or not visible.any():
        return pixels
    return _fill(pixels, visible)


def _fill(pixels: Pixels, visible: Mask) -> Pixels:
    if visible.all():
        return pixels
    coarse = _fill(*_halve(pixels, visible))
    height, width = visible.shape
    doubled = PilImage.fromarray(coarse).resize(
        (coarse.shape[1] * 2, coarse.shape[0] * 2), PilImage.Resampling.BILINEAR
    )
    filled = np.array(doubled)[:height, :width]
    np.copyto(filled, pixels, where=visible[..., np.newaxis])
    return filled


def _halve(pixels: Pixels, visible: Mask) -> tuple[Pixels, Mask]:
    """Average the visible pixels of each 2x2 block; a block is visible when any of its pixels is."""
    height, width = ((side + 1) // 2 for side in visible.shape)
    total = np.zeros((height, width, 3), np.uint16)
    count = np.zeros((height, width, 1), np.uint16)
    for top in (0, 1):
        for left in (0, 1):
            part = visible[top::2, left::2, np.newaxis]
            rows, columns = part.shape[:2]
            total[:rows, :columns] += pixels[top::2, left::2] * part
            count[:rows, :columns] += part
    mean = (total + count // 2) // np.maximum(count, 1)
    return mean.astype(np.uint8), count[..., 0] > 0


def scale_alpha(alpha: Pixels, scale: int, top: int = 0, bottom: int | None = None) -> Pixels:
    """Return alpha [H, W] scaled to [H * scale, W * scale] by bicubic interpolation, clipped to 0..255.

    Of that the rows from `top` to `bottom`, where they are given: the same values, with memory for these rows alone.
    """
    height, width = alpha.shape
    bottom = height * scale if bottom is None else bottom
    if scale == 1:
        return alpha[top:bottom].copy()
    upper, lower = top // scale, -(-bottom // scale)
    first, last = max(0, upper - _REACH_ROWS), min(height, lower + _REACH_ROWS)
    # Columns first, always: Pillow takes rows first where that is less work, and rounds in between.
    wide = PilImage.fromarray(alpha[first:last]).resize((width * scale, last - first), PilImage.Resampling.BICUBIC)
    size, box = (width * scale, (lower - upper) * scale), (0, upper - first, width * scale, lower - first)
    whole_rows = np.array(wide.resize(size, PilImage.Resampling.BICUBIC, box=box))
    return whole_rows[top - upper * scale : bottom - upper * scale]
