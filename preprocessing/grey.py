"""Keeps grey images grey: a network may add colour to an image that has none.

Grey means R = G = B in every pixel, in one-channel images and in those stored as RGB. It is decided for the whole image
and not for a tile, so that tiles of one image agree.
"""

from __future__ import annotations

import numpy as np

from preprocessing.image import Pixels

# Weights of R, G and B in the luminance, of 65,536: BT.601 full range, as Pillow's "L". Their sum is exact, so a grey
# pixel keeps its level.
_WEIGHTS = (19595, 38470, 7471)
# Rows that are looked at, or converted, at once.
_ROWS = 64


def is_grey(image: Pixels) -> bool:
    """Return whether R = G = B in all pixels of an image [H, W, 3]. Stops at the first rows with colour."""
    return all(
        bool((rows[..., :2] == rows[..., 1:]).all())
        for rows in (image[top : top + _ROWS] for top in range(0, len(image), _ROWS))
    )


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
