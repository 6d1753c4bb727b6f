"""Mixing: blends a restored image with its original, which has equal size, by a strength in whole percent."""

from __future__ import annotations

import numpy as np

from preprocessing.image import Pixels

FULL_STRENGTH_PERCENT = 100
# Rows mixed at once: 12 bytes per pixel of these rows, 6 MB at 8,192 columns; twice as much for 16 bits.
_STEP_ROWS = 64


def mix(original: Pixels, restored: Pixels, strength_percent: int) -> Pixels:
    """Return original + strength * (restored - original), rounded once, half to even, as Triton's models round.

    Both arrays are [h, W, 3], both uint8 or both uint16. The sum is computed in whole numbers, so 0 gives exactly the
    original and 100 exactly `restored`, which is then not copied. Raises ValueError for different shapes or types and a
    strength outside 0..100.
    """
    if original.shape != restored.shape or original.dtype != restored.dtype:
        raise ValueError(
            f"{restored.dtype} rows of shape {list(restored.shape)} cannot be mixed with {original.dtype} "
            f"{list(original.shape)}"
        )
    if not 0 <= strength_percent <= FULL_STRENGTH_PERCENT:
        raise ValueError(f"a strength of {strength_percent} % is outside 0..100")
    if strength_percent == FULL_STRENGTH_PERCENT:
        return restored
    mixed = np.empty_like(restored)
    # Hold 255 * 100 and 65,535 * 100. Halves are exact in float32, so rint sees every tie.
    sums = np.uint16 if restored.dtype == np.uint8 else np.uint32
    for start in range(0, len(restored), _STEP_ROWS):
        rows = slice(start, start + _STEP_ROWS)
        total = np.multiply(original[rows], FULL_STRENGTH_PERCENT - strength_percent, dtype=sums)
        total += np.multiply(restored[rows], strength_percent, dtype=sums)
        mixed[rows] = np.rint(total / np.float32(FULL_STRENGTH_PERCENT))
    return mixed
