"""Transparency: bleeds colour under alpha 0 before the network runs, and scales alpha on its own afterwards.

Colour under alpha 0 is invisible and arbitrary (black, white, a remainder), but a network reads it and mixes it into
the visible edge: a dark or white fringe. So visible colour is bled over it first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage

from preprocessing.image import Pixels
from preprocessing.resizing import resize

Mask = npt.NDArray[np.bool_]

# Rows needed on either side of a band: bicubic interpolation reads 2, and rounding may add 1.
_MARGIN_ROWS = 3


def bleed_colour(pixels: Pixels, alpha: Pixels) -> Pixels:
    """Return pixels [H, W, 3] where each pixel under alpha 0 is filled from visible pixels near it.

    Visible pixels stay unchanged, and only they are read, so bleeding twice changes nothing. The method is pull-push
    over a pyramid: the mean of the visible pixels is halved in size until no pixel is empty, then empty pixels are
    filled on the way back up. Time and memory per pixel do not depend on how far the nearest visible pixel lies. When
    no pixel is visible, the pixels are returned unchanged.
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
    doubled = resize(coarse, (coarse.shape[1] * 2, coarse.shape[0] * 2), PilImage.Resampling.BILINEAR)
    filled = doubled[:height, :width].copy()
    np.copyto(filled, pixels, where=visible[..., np.newaxis])
    return filled


def _halve(pixels: Pixels, visible: Mask) -> tuple[Pixels, Mask]:
    """Return the mean of the visible pixels of each 2 x 2 block, and which blocks have a visible pixel."""
    height, width = ((side + 1) // 2 for side in visible.shape)
    total: npt.NDArray[Any] = np.zeros((height, width, 3), np.uint16 if pixels.dtype == np.uint8 else np.uint32)
    count = np.zeros((height, width, 1), np.uint16)
    for top in (0, 1):
        for left in (0, 1):
            mask = visible[top::2, left::2, np.newaxis]
            rows, columns = mask.shape[:2]
            total[:rows, :columns] += pixels[top::2, left::2] * mask
            count[:rows, :columns] += mask
    mean = (total + count // 2) // np.maximum(count, 1)
    return mean.astype(pixels.dtype), count[..., 0] > 0


def scale_alpha(alpha: Pixels, scale: int, top: int = 0, bottom: int | None = None) -> Pixels:
    """Return alpha [H, W] scaled to [H * scale, W * scale] by bicubic interpolation, clipped to its levels.

    With `top` and `bottom`, returns these rows of the result only: the same values, with memory for these rows only.
    """
    height, width = alpha.shape
    bottom = height * scale if bottom is None else bottom
    if scale == 1:
        return alpha[top:bottom].copy()
    upper, lower = top // scale, -(-bottom // scale)
    first, last = max(0, upper - _MARGIN_ROWS), min(height, lower + _MARGIN_ROWS)
    # Columns first, always: Pillow starts with rows where that is less work, and rounds in between.
    wide = resize(alpha[first:last], (width * scale, last - first), PilImage.Resampling.BICUBIC)
    size, box = (width * scale, (lower - upper) * scale), (0, upper - first, width * scale, lower - first)
    whole_rows = resize(wide, size, PilImage.Resampling.BICUBIC, box)
    return whole_rows[top - upper * scale : bottom - upper * scale]


def repeat_alpha(alpha: Pixels, scale: int, top: int, bottom: int) -> Pixels:
    """Return rows `top` to `bottom` of alpha [H, W] scaled to [H * scale, W * scale] by repeating each value."""
    rows = alpha[np.arange(top, bottom) // scale]
    return rows.repeat(scale, axis=1)
