"""Whether pixels were a JPEG once, and of which quality; the file may be of another format now.

A JPEG keeps each coefficient of a block's cosine transform as a multiple of a step from its quantisation table. Decoded
pixels still show these multiples, also after a crop or a second, better JPEG; scaling removes them.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

Levels = npt.NDArray[np.int32]

_BLOCK_PX = 8
# Where the grid may begin, because images are cropped.
_PLACES = _BLOCK_PX * _BLOCK_PX

# The lowest frequencies (vertical, horizontal), which photos of any quality keep, and their steps at quality 50 in
# table K.1 of ITU-T T.81, which libjpeg scales by the quality.
_STEPS = {(0, 1): 11, (0, 2): 10, (0, 3): 16, (1, 0): 12, (1, 1): 12, (1, 2): 14, (2, 0): 14, (2, 1): 13, (3, 0): 14}
_FREQUENCIES = 4
# Above 92 the steps are hardly larger than the rounding of pixels to whole levels. Best first: some tables are equal.
_QUALITIES = np.arange(92, 9, -1)
_MIN_STEP = 3
# Coefficients smaller than this share of a step are zeros, which are multiples of every step.
_ZERO_SHARE = 0.25
_BIN = 0.5
_BINS = 256

# Mean cosine of the coefficients' phases between two multiples: 1 on them, 0 for pixels that never were a JPEG.
# docs/explanation/automatic-variant.md has the measurement.
_MIN_MEAN_COSINE = 0.25
# In standard deviations too, because small images have few coefficients, and the best of 5,312 pairs is taken.
_MIN_DEVIATIONS = 6.0


class JpegHistory:
    """Counts coefficients of tiles for each of the 64 places where the 8-pixel grid may begin."""

    def __init__(self) -> None:
        self._counts = np.zeros((len(_STEPS), _PLACES * _BINS), np.int32)

    def add(self, luma: Levels) -> None:
        """Count a tile [h, w] of levels 0 to 255; its offset in the image is a multiple of 8 pixels."""
        if min(luma.shape) < _BLOCK_PX:
            return
        # Clipping moves coefficients off the multiples.
        y, x = np.nonzero(_block_sums((luma <= 1) | (luma >= 254)) == 0)
        places = (y % _BLOCK_PX * _BLOCK_PX + x % _BLOCK_PX) * _BINS
        rows = sliding_window_view(luma.astype(np.float32), _BLOCK_PX, axis=1) @ _cosines()
        columns = sliding_window_view(rows, _BLOCK_PX, axis=0)
        for index, (down, across) in enumerate(_STEPS):
            coefficients = np.abs((columns[:, :, across] @ _cosines()[:, down])[y, x])
            bins = np.minimum(coefficients / _BIN, _BINS - 1).astype(np.intp)
            self._counts[index] += np.bincount(places + bins, minlength=_PLACES * _BINS).astype(np.int32)

    def quality(self) -> int | None:
        """Return the quality, 10 to 92, whose multiples the coefficients keep; None if they keep none."""
        sums, numbers = (np.zeros((_PLACES, len(_QUALITIES))) for _ in range(2))
        for counts, table in zip(self._counts, _tables(), strict=True):
            found = counts.reshape(_PLACES, _BINS)[:, :-1]
            end = int(found.any(axis=0).nonzero()[0].max(initial=-1)) + 1  # bins behind it are empty
            found = found[:, :end]
            # Qualities of equal steps share a column, so that rounding cannot prefer one of them.
            sums += (found.astype(np.float64) @ table.cosines[:end])[:, table.columns]
            larger = np.zeros((_PLACES, _BINS), np.int64)  # coefficients in a bin and those behind it
            larger[:, :end] = found[:, ::-1].cumsum(axis=1)[:, ::-1]
            numbers += larger[:, table.first_bins][:, table.columns]
        means = sums / np.maximum(1, numbers)
        deviations = means * np.sqrt(2 * numbers)  # the cosine of a random phase has the variance 1/2
        means[(means < _MIN_MEAN_COSINE) | (deviations < _MIN_DEVIATIONS)] = 0
        # A crop between two JPEGs leaves two grids; the worse of them is what shows.
        found_at = means.max(axis=1) > 0
        return int(_QUALITIES[means.argmax(axis=1)[found_at]].min()) if found_at.any() else None


class _StepTable(NamedTuple):
    """How well coefficients of one frequency keep to multiples, for the different steps of all qualities."""

    cosines: npt.NDArray[np.float64]
    """[bins, steps]: 1 for a coefficient that is a multiple of the step, -1 in the middle; 0 where it says nothing."""
    first_bins: npt.NDArray[np.intp]
    """[steps]: the first bin that says something; the last bin, which is always empty here, if none does."""
    columns: npt.NDArray[np.intp]
    """[qualities]: index of each quality's step."""


@functools.cache
def _tables() -> tuple[_StepTable, ...]:
    """Return the tables of `_STEPS`: 0.9 MB, which took four fifths of the time when each image computed them."""
    percent = np.where(_QUALITIES < 50, 5_000 // _QUALITIES, 200 - 2 * _QUALITIES)
    coefficient = ((np.arange(_BINS - 1) + 0.5) * _BIN)[:, np.newaxis]  # the last bin holds all larger ones
    tables = []
    for step_at_50 in _STEPS.values():
        steps, columns = np.unique(np.maximum(1, (step_at_50 * percent + 50) // 100), return_inverse=True)
        says_something = (steps >= _MIN_STEP) & (coefficient >= _ZERO_SHARE * steps)
        cosines = np.cos(2 * np.pi * coefficient / steps) * says_something
        first_bins = np.where(says_something.any(axis=0), says_something.argmax(axis=0), _BINS - 1)
        tables.append(_StepTable(cosines, first_bins, columns))
    return tuple(tables)


@functools.cache
def _cosines() -> npt.NDArray[np.float32]:
    """The lowest functions of the orthonormal cosine transform, [8, 4]."""
    x, frequency = np.mgrid[0:_BLOCK_PX, 0:_FREQUENCIES]
    scale = np.where(frequency == 0, np.sqrt(1 / _BLOCK_PX), np.sqrt(2 / _BLOCK_PX))
    return (scale * np.cos((2 * x + 1) * frequency * np.pi / (2 * _BLOCK_PX))).astype(np.float32)


def _block_sums(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Number of true pixels in the block of 8 x 8 that begins at each pixel. Doubles the block along each side."""
    sums = mask.astype(np.uint8)
    for reach in (1, 2, 4):
        sums = sums[:-reach] + sums[reach:]
        sums = sums[:, :-reach] + sums[:, reach:]
    return sums
