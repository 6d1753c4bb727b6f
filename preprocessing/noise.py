"""Noise of an image, estimated where it is smoothest; texture is taken for noise, so the estimate is an upper bound."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

# Side of a cell in pixels: the block of a JPEG.
CELL_PX = 8

# Fewer cells than this say nothing about noise.
_MIN_CELLS = 48
# The share of the cells that counts as smooth.
_SMOOTH_PERCENT = 10


class NoiseLevels:
    """The noise of each cell of the tiles that were added."""

    def __init__(self) -> None:
        self._cells: list[npt.NDArray[np.float64]] = []

    def add(self, luma: npt.NDArray[np.int32]) -> None:
        """Measure a tile [h, w] of levels by Immerkaer's operator (1996).

        A flat or evenly rising cell without noise gives 0.
        """
        rows = luma[:-2] - 2 * luma[1:-1] + luma[2:]
        residue = np.abs(rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:])
        level = cut_cells(luma[1:-1, 1:-1]).mean(axis=1)
        is_exposed = (level > 16) & (level < 240)  # clipping hides noise
        self._cells.append(cut_cells(residue).mean(axis=1)[is_exposed] * (math.sqrt(math.pi / 2) / 6))

    def level(self) -> float | None:
        """Return the noise of the smoothest tenth of the cells in levels; None if too few cells say something.

        Cells of one colour do not count, unless they are most of the image: a noisy photo may have a frame.
        """
        cells = self._all()
        uneven = cells[cells > 0]
        if 2 * len(uneven) >= len(cells):
            cells = uneven
        return float(np.percentile(cells, _SMOOTH_PERCENT)) if len(cells) >= _MIN_CELLS else None

    def estimate(self) -> tuple[float, float]:
        """Return the noise of the smoothest tenth of the cells in levels, and the quartile's as a multiple of it."""
        cells = self._all()
        if len(cells) < _MIN_CELLS:
            return 0.0, math.inf
        smooth, quartile = (float(value) for value in np.percentile(cells, (_SMOOTH_PERCENT, 25)))
        return smooth, quartile / smooth if smooth else math.inf

    def _all(self) -> npt.NDArray[np.float64]:
        return np.concatenate(self._cells) if self._cells else np.zeros(0)


def cut_cells(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return whole cells of 8 x 8 pixels of an array [h, w] as rows of 64."""
    height, width = (side // CELL_PX for side in values.shape)
    whole = values[: height * CELL_PX, : width * CELL_PX]
    return whole.reshape(height, CELL_PX, width, CELL_PX).swapaxes(1, 2).reshape(-1, CELL_PX * CELL_PX)
