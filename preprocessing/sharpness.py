"""How sharp the sharpest edges of an image are: those of an image that was enlarged or is out of focus are all soft."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from preprocessing.noise import cut_cells

# Mean step between neighbouring pixels from which a cell has an edge: weaker ones are noise.
_MIN_STEP = 4
# Fewer cells with an edge than this say nothing.
_MIN_CELLS = 32
# The sharpest of the cells, but for noise and single pixels. Most of a photo may be out of focus.
_SHARPEST_PERCENT = 97


class EdgeSharpness:
    """The sharpness of each cell with an edge of the tiles that were added."""

    def __init__(self) -> None:
        self._cells: list[npt.NDArray[np.float64]] = []

    def add(self, luma: npt.NDArray[np.int32]) -> None:
        """Measure a tile [h, w] of levels."""
        for levels in (luma, luma.T):
            step = np.diff(levels, axis=1)
            # How much a step differs from the one before: all of it for a step that is one pixel wide.
            bend = np.abs(np.diff(step, axis=1))
            steps, bends = (cut_cells(values).mean(axis=1) for values in (np.abs(step[:, :-1]), bend))
            has_edge = steps >= _MIN_STEP
            self._cells.append(bends[has_edge] / steps[has_edge])

    def level(self) -> float | None:
        """Return the sharpness, at most 2 but for single pixels; None if too few cells have an edge.

        It is the mean change from a step between two pixels to the next one, as a share of the steps. An edge of one
        pixel gives 2, an even slope 0.
        """
        cells = np.concatenate(self._cells) if self._cells else np.zeros(0)
        return float(np.percentile(cells, _SHARPEST_PERCENT)) if len(cells) >= _MIN_CELLS else None
