"""Whether pixels were a JPEG once, and of which quality; the file may be of another format now.

A JPEG keeps each coefficient of a block's cosine transform as a multiple of a step from its quantisation table. Decoded
pixels still show these multiples, also after a crop or a second, better JPEG; scaling removes them.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Levels = npt.NDArray[np.int32]

_BLOCK_PX = 8
# Where the grid may begin, because images are cropped.
_PLACES = _BLOCK_PX * _BLOCK_PX

# The lowest frequencies (vertical, horizontal), which photos of any quality keep, and their steps at quality 50 in
# table K.1 of ITU-T T.81, which libjpeg scales by the quality.
_STEPS = {(0, 1): 11, (0, 2): 10, (0, 3): 16, (1, 0): 12, (1, 1): 12, (1, 2): 14, (2, 0): 14, (2, 1): 13, (3, 0): 14}
_FREQUENCIES = 4
_STEPS_AT_50 = sorted(set(_STEPS.values()))
# Above 92 the steps are hardly larger than the rounding of pixels to whole levels. Best first: some tables are equal.
_QUALITIES = np.arange(92, 9, -1)
_MIN_STEP = 3
# Coefficients smaller than this share of a step are zeros, which are multiples of every step.
_ZERO_SHARE = 0.25
_BIN = 0.5
_BINS = 256
# Bins of coefficients that are zeros at the largest step of all.
_ZERO_BINS = 40

# Mean cosine of the coefficients' phases between two multiples: 1 on them, 0 for pixels that never were a JPEG.
# docs/explanation/automatic-variant.md has the measurement.
_MIN_MEAN_COSINE = 0.25
# In standard deviations too, because small images have few coefficients, and the best of 5,312 pairs is taken.
_MIN_DEVIATIONS = 6.0


class JpegHistory:
    """Counts coefficients of tiles for each of the 64 places where the 8-pixel grid may begin."""

    def __init__(self) -> None:
        # By step at quality 50, magnitude and place. Frequencies of equal steps share their counts. None before the
        # first tile: adding to new zeros takes longer than everything else for a small image.
        self._counts: npt.NDArray[np.intp] | None = None

    def add(self, luma: Levels) -> None:
        """Count a tile [h, w] of levels 0 to 255; its offset in the image is a multiple of 8 pixels."""
        height, width = luma.shape
        if min(height, width) < _BLOCK_PX:
            return
        bins = _transform(luma)
        np.abs(bins, out=bins)
        np.minimum(bins, _BINS - 1, out=bins)
        is_clipped = (luma <= 1) | (luma >= 254)
        if is_clipped.any():  # clipping moves coefficients off the multiples: into the bin that says nothing
            np.maximum(bins, (_block_sums(is_clipped) > 0) * np.float32(_BINS - 1), out=bins)
        index = np.trunc(bins, out=bins)  # below 2^24, so exact in float32
        y, x = np.ogrid[: height - _BLOCK_PX + 1, : width - _BLOCK_PX + 1]
        index *= _PLACES
        index += _first_counts() + (y % _BLOCK_PX * _BLOCK_PX + x % _BLOCK_PX).astype(np.float32)
        shape = (len(_STEPS_AT_50), _BINS, _PLACES)
        counts = np.bincount(index.astype(np.intp).ravel(), minlength=math.prod(shape)).reshape(shape)
        self._counts = counts if self._counts is None else np.add(self._counts, counts, out=self._counts)

    def quality(self) -> int | None:
        """Return the quality, 10 to 92, whose multiples the coefficients keep; None if they keep none."""
        if self._counts is None:
            return None
        known = self._counts[:, :-1].astype(np.float32)  # the last bin holds all larger coefficients
        edges = np.zeros((len(known), _ZERO_BINS + 2, _PLACES), np.float32)  # coefficients in the bins before one
        np.cumsum(known[:, :_ZERO_BINS], axis=1, out=edges[:, 1:-1])
        known.sum(axis=1, out=edges[:, -1])
        sums, numbers = (np.zeros((len(_QUALITIES), _PLACES), np.float32) for _ in range(2))
        for counts, before, table in zip(known, edges, _tables(), strict=True):
            # Qualities of equal steps share a row, so that rounding cannot prefer one of them.
            sums += (table.cosines @ counts)[table.rows]
            numbers += (before[-1] - before[table.first_bins])[table.rows]
        means = sums / np.maximum(1, numbers)
        deviations = means * np.sqrt(2 * numbers)  # the cosine of a random phase has the variance 1/2
        means[(means < _MIN_MEAN_COSINE) | (deviations < _MIN_DEVIATIONS)] = 0
        # A crop between two JPEGs leaves two grids; the worse of them is what shows.
        found_at = means.max(axis=0) > 0
        return int(_QUALITIES[means.argmax(axis=0)[found_at]].min()) if found_at.any() else None


class _StepTable(NamedTuple):
    """How well coefficients keep to multiples, for the different steps of all qualities; for one step at quality 50."""

    cosines: npt.NDArray[np.float32]
    """[steps, bins]: 1 for a coefficient that is a multiple of the step, -1 in the middle; 0 where it says nothing."""
    first_bins: npt.NDArray[np.intp]
    """[steps]: the first bin that says something; -1 if none does."""
    rows: npt.NDArray[np.intp]
    """[qualities]: index of each quality's step."""


@functools.cache
def _tables() -> tuple[_StepTable, ...]:
    """Return the tables of `_STEPS_AT_50`: 0.2 MB, which took most of the time when each image computed them."""
    percent = np.where(_QUALITIES < 50, 5_000 // _QUALITIES, 200 - 2 * _QUALITIES)
    coefficient = (np.arange(_BINS - 1) + 0.5) * _BIN  # the last bin holds all larger ones
    tables = []
    for step_at_50 in _STEPS_AT_50:
        steps, rows = np.unique(np.maximum(1, (step_at_50 * percent + 50) // 100), return_inverse=True)
        column = steps[:, np.newaxis]
        says_something = (column >= _MIN_STEP) & (coefficient >= _ZERO_SHARE * column)
        cosines = np.cos(2 * np.pi * coefficient / column) * says_something
        first_bins = np.where(says_something.any(axis=1), says_something.argmax(axis=1), -1)
        tables.append(_StepTable(cosines.astype(np.float32), first_bins, rows))
    return tuple(tables)


@functools.cache
def _first_counts() -> npt.NDArray[np.float32]:
    """Return where the counts of each frequency begin, [frequencies, 1, 1]."""
    steps = [_STEPS_AT_50.index(step) for step in _STEPS.values()]
    return np.array(steps, np.float32)[:, np.newaxis, np.newaxis] * (_BINS * _PLACES)


@functools.cache
def _cosines() -> npt.NDArray[np.float32]:
    """The lowest functions of the orthonormal cosine transform, [4, 8]."""
    frequency, x = np.mgrid[0:_FREQUENCIES, 0:_BLOCK_PX]
    scale = np.where(frequency == 0, np.sqrt(1 / _BLOCK_PX), np.sqrt(2 / _BLOCK_PX))
    return np.asarray(scale * np.cos((2 * x + 1) * frequency * np.pi / (2 * _BLOCK_PX)), np.float32)


def _transform(luma: Levels) -> npt.NDArray[np.float32]:
    """Return the coefficients of the block that begins at each pixel in bins, [frequencies, h - 7, w - 7].

    Each direction is a product of matrices over all pixels in a row: what reaches over the end of a line is cut off.
    """
    height, width = luma.shape
    down = _cosines() @ _shifted(luma.astype(np.float32).ravel() * np.float32(1 / _BIN), width)
    coefficients = np.empty((len(_STEPS), *luma.shape), np.float32)
    flat = coefficients.reshape(len(_STEPS), -1)
    first = 0
    for number, line in enumerate(down):
        across = [other for one, other in _STEPS if one == number]
        values = _cosines()[across] @ _shifted(line, 1)
        flat[first : first + len(across), : values.shape[1]] = values
        first += len(across)
    return coefficients[:, : height - _BLOCK_PX + 1, : width - _BLOCK_PX + 1]


def _shifted(values: npt.NDArray[np.float32], stride: int) -> npt.NDArray[np.float32]:
    """Return each value with the next seven in steps of `stride`, [8, n]."""
    count = len(values) - (_BLOCK_PX - 1) * stride
    return np.stack([values[stride * index : stride * index + count] for index in range(_BLOCK_PX)])


def _block_sums(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Number of true pixels in the block of 8 x 8 that begins at each pixel. Doubles the block along each side."""
    sums = mask.astype(np.uint8)
    for reach in (1, 2, 4):
        sums = sums[:-reach] + sums[reach:]
        sums = sums[:, :-reach] + sums[:, reach:]
    return sums
