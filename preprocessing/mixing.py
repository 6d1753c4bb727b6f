"""Mixing: blends a restored image with its original, which has equal size, by a strength in whole percent."""

from __future__ import annotations

import numpy as np

from preprocessing.image import Pixels

FULL_STRENGTH_PERCENT = 100
# Rows mixed at once: 12 bytes per pixel of these rows, 6 MB at 8,192 columns.
_STEP_ROWS = 64


def mix(original: Pixels, restored: Pixels, strength_percent: int) -> Pixels:
    """Return original + strength * (restored - original), rounded once, half to even, as Triton's models round.

    Both arrays are uint8 [h, W, 3]. The sum is computed in whole numbers, so 0 gives exactly the original and 100
    exactly `restored`, which is then not copied. Raises ValueError for different shapes and a strength outside 0..100.
    """
    if original.shape != restored.shape:
        raise ValueError(f"rows of shape {list(restored.shape)} cannot be mixed with {list(original.shape)}")
    if not 0 <= strength_percent <= FULL_STRENGTH_PERCENT:
        raise ValueError(f"a strength of {strength_percent} % is outside 0..100")
    if strength_percent == FULL_STRENGTH_PERCENT:
        return restored
    mixed = np.empty_like(restored)
    for start in range(0, len(restored), _STEP_ROWS):
        rows = slice(start, start + _STEP_ROWS)
        # At most 255 * 100, so uint16 holds it. Halves are exact in float32, so rint sees every tie.
        total = np.multiply(original[rows], FULL_STRENGTH_PERCENT - strength_percent, dtype=np.uint16)
        total += np.multiply(restored[rows], strength_percent, dtype=np.uint16)
        mixed[rows] = np.rint(total / np.float32(FULL_STRENGTH_PERCENT))
    return mixed
