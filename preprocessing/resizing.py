"""Resizes samples of 8 or 16 bits by Pillow."""

from __future__ import annotations

import numpy as np
from PIL import Image as PilImage

from preprocessing.depth import Pixels


def resize(
    samples: Pixels,
    size: tuple[int, int],
    kernel: PilImage.Resampling,
    box: tuple[float, float, float, float] | None = None,
) -> Pixels:
    """Return samples [H, W] or [H, W, 3] resized by Pillow to (width, height), in the same depth.

    Pillow resizes 8 bits as they are. 16 bits are resized in float32, one channel after the other, then rounded and
    clipped.
    """
    if samples.dtype == np.uint8:
        return np.asarray(PilImage.fromarray(samples).resize(size, kernel, box=box))
    if samples.ndim == 3:
        resized = np.empty((size[1], size[0], samples.shape[2]), np.uint16)
        for channel in range(samples.shape[2]):
            resized[..., channel] = resize(samples[..., channel], size, kernel, box)
        return resized
    floats = np.array(PilImage.fromarray(samples.astype(np.float32)).resize(size, kernel, box=box))
    return np.clip(np.rint(floats, out=floats), 0, 65_535, out=floats).astype(np.uint16)
