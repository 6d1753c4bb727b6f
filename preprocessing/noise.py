"""Noise of an image, estimated where it is smoothest; texture is taken for noise, so the estimate is an upper bound."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocessing.depth import Pixels

# Side of a cell in pixels: the block of a JPEG.
CELL_PX = 8

# Fewer cells than this say nothing about noise.
_MIN_CELLS = 48
# The share of the cells that counts as smooth.
_SMOOTH_PERCENT = 10
# Standard deviation of Immerkaer's operator for white noise of 1 level.
_RESIDUE = 6


class NoiseLevels:
    """The noise of each cell of the tiles that were added."""

    def __init__(self) -> None:
        self._cells: list[npt.NDArray[np.float64]] = []

    def add(self, luma: npt.NDArray[np.int32]) -> None:
        """Measure a tile [h, w] of levels by Immerkaer's operator (1996).

        A flat or evenly rising cell without noise gives 0.
        """
        noise = cut_cells(np.abs(_find_residue(luma))).mean(axis=1) * (math.sqrt(math.pi / 2) / _RESIDUE)
        self._cells.append(noise[_is_exposed(luma)])

    def level(self) -> float | None:
        """Return the noise of the smoothest tenth of the cells in levels; None if too few cells say something.

        Cells of one colour do not count, unless they are most of the image: a noisy photo may have a frame.
        """
        cells = self._all()
        uneven = cells[cells > 0]
        if 2 * len(uneven) >= len(cells):
            cells = uneven
        return _percentiles(cells, _SMOOTH_PERCENT)[0] if len(cells) >= _MIN_CELLS else None

    def estimate(self) -> tuple[float, float]:
        """Return the noise of the smoothest tenth of the cells in levels, and the quartile's as a multiple of it."""
        cells = self._all()
        if len(cells) < _MIN_CELLS:
            return 0.0, math.inf
        smooth, quartile = _percentiles(cells, _SMOOTH_PERCENT, 25)
        return smooth, quartile / smooth if smooth else math.inf

    def _all(self) -> npt.NDArray[np.float64]:
        return np.concatenate(self._cells) if self._cells else np.zeros(0)


class ChannelNoise:
    """How alike the noise of red, green and blue is, where the tiles that were added are smoothest."""

    def __init__(self) -> None:
        self._cells: list[npt.NDArray[np.float64]] = []

    def add(self, pixels: Pixels) -> None:
        """Measure a tile [h, w, 3] uint8."""
        planes = [pixels[..., channel].astype(np.int32) for channel in range(3)]
        pairs = itertools.combinations_with_replacement([_find_residue(plane) for plane in planes], 2)
        products = np.stack([cut_cells(one * other).mean(axis=1) for one, other in pairs])
        is_exposed = np.logical_and.reduce([_is_exposed(plane) for plane in planes])
        self._cells.append(products[:, is_exposed])

    def correlation(self) -> float:
        """Return the mean correlation of two channels, -1 to 1; 0 if too few cells say something."""
        products = np.concatenate(self._cells, axis=1) if self._cells else np.zeros((6, 0))
        of_channels = products[[0, 3, 5]]  # the pairs of a channel with itself
        products, of_channels = (values[:, of_channels.max(axis=0) > 0] for values in (products, of_channels))
        if products.shape[1] < _MIN_CELLS:
            return 0.0
        noisiest = of_channels.max(axis=0)
        limit = np.percentile(noisiest, _SMOOTH_PERCENT)
        red, red_green, red_blue, green, green_blue, blue = products[:, noisiest <= limit].sum(axis=1)
        if min(red, green, blue) <= 0:
            return 0.0
        alike = (
            red_green / math.sqrt(red * green),
            red_blue / math.sqrt(red * blue),
            green_blue / math.sqrt(green * blue),
        )
        return sum(alike) / len(alike)


def _find_residue(levels: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Return Immerkaer's operator of a tile [h, w], [h - 2, w - 2]: the noise, `_RESIDUE` times as large."""
    rows = levels[:-2] - 2 * levels[1:-1] + levels[2:]
    return rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]


def _is_exposed(levels: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Return for each cell of the residue whether its levels are neither black nor white: clipping hides noise."""
    level = cut_cells(levels[1:-1, 1:-1]).mean(axis=1)
    return (level > 16) & (level < 240)


def _percentiles(values: npt.NDArray[np.float64], *percents: int) -> list[float]:
    """Return `np.percentile`, which takes ten times as long for a small image."""
    last = len(values) - 1
    places = [percent * last / 100 for percent in percents]
    wanted = {index for place in places for index in (math.floor(place), math.ceil(place))}
    ordered = np.partition(values, sorted(wanted))
    return [float(np.interp(place % 1, (0, 1), ordered[[math.floor(place), math.ceil(place)]])) for place in places]


def cut_cells(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return whole cells of 8 x 8 pixels of an array [h, w] as rows of 64."""
    height, width = (side // CELL_PX for side in values.shape)
    whole = values[: height * CELL_PX, : width * CELL_PX]
    return whole.reshape(height, CELL_PX, width, CELL_PX).swapaxes(1, 2).reshape(-1, CELL_PX * CELL_PX)
