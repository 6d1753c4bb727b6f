"""Keeps grey images grey: a network may add colour to an image that has none.

Grey means R = G = B in every pixel, in one-channel images and in those stored as RGB. It is decided for the whole image
and not for a tile, so that tiles of one image agree.
"""

from __future__ import annotations

import numpy as np

from preprocessing.depth import Pixels

# Weights of R, G and B in the luminance, of 65,536: BT.601 full range, as Pillow's "L". Their sum is exact, so a grey
# pixel keeps its level.
_WEIGHTS = (19595, 38470, 7471)
# Rows that are looked at, or converted, at once.
_ROWS = 64
# What lossy coding makes of grey: one step of chroma, up or down, moves the channels apart by at most 3 levels, and by
# 0 on the average. Pillow's JPEG keeps grey exactly, lossy WebP within 1 level. Photos with 5 % of their colour differ
# by at least 4 levels somewhere, and the faintest tint that was tried, sepia of 3 %, by 6.
_NEAR_LEVELS, _NEAR_MEAN_LEVELS = 3, 0.5


def is_grey(image: Pixels) -> bool:
    """Return whether R = G = B in all pixels of an image [H, W, 3]. Stops at the first rows with colour."""
    return all(
        bool((rows[..., :2] == rows[..., 1:]).all())
        for rows in (image[top : top + _ROWS] for top in range(0, len(image), _ROWS))
    )


def is_nearly_grey(image: Pixels) -> bool:
    """Return whether an image [H, W, 3] is grey but for what lossy coding adds: at most 3 levels, and no tint."""
    sums = np.zeros(2, np.int64)
    for top in range(0, len(image), _ROWS):
        rows = image[top : top + _ROWS]
        if int((rows.max(axis=2) - rows.min(axis=2)).max(initial=0)) > _NEAR_LEVELS:
            return False
        sums += (rows[..., ::2].astype(np.int16) - rows[..., 1:2]).sum(axis=(0, 1), dtype=np.int64)
    return bool((np.abs(sums) <= _NEAR_MEAN_LEVELS * image.shape[0] * image.shape[1]).all())


def to_grey(image: Pixels) -> Pixels:
    """Return the luminance of an image [H, W, 3] in three equal channels, rounded to the nearest level."""
    grey = np.empty_like(image)
    for top in range(0, len(image), _ROWS):
        red, green, blue = (
            weight * image[top : top + _ROWS, :, channel].astype(np.uint32) for channel, weight in enumerate(_WEIGHTS)
        )
        grey[top : top + _ROWS] = ((red + green + blue + 32768) >> 16)[..., np.newaxis]
    return grey


def keep_grey(restored: Pixels, image: Pixels) -> Pixels:
    """Return the restored image, in grey when the image that it was made from is grey."""
    return to_grey(restored) if is_grey(image) else restored
