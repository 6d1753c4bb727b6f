"""Alpha with soft edges: what of it a network has to enlarge, and the enlarged rows.

Masks are mostly constant, and so are their rows and columns around a shape. Lines that equal their neighbours are left
out of what goes to the network, so an icon on a large canvas costs as much as the icon alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage
from PIL import ImageFilter

from preprocessing.image import Pixels

Lines = npt.NDArray[np.intp]

# Where all levels within this many pixels are equal, the result has exactly this level: bicubic interpolation reads as
# far. Without it, some networks leave 1 or 2 levels in areas without alpha.
_CONSTANT_PX = 2


class SoftAlpha:
    """A mask [H, W] that a network enlarges: give it `network_input`, `add` the bands, then read `rows`."""

    def __init__(self, alpha: Pixels, scale: int, *, window: int, halo: int) -> None:
        """`halo` is how far the network sees, in pixels; lines are left out in multiples of its window."""
        self._alpha, self._scale = alpha, scale
        kept_rows, self._row_positions = _keep_lines((alpha[1:] == alpha[:-1]).all(axis=1), halo, window)
        columns = alpha[kept_rows]
        kept_columns, self._column_positions = _keep_lines(
            (columns[:, 1:] == columns[:, :-1]).all(axis=0), halo, window
        )
        self._kept = np.ascontiguousarray(columns[:, kept_columns])
        self._enlarged: Pixels = np.empty((0, 0), alpha.dtype)
        self._rows_done = 0

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of `network_input`."""
        return self._kept.shape[0], self._kept.shape[1]

    @property
    def network_input(self) -> Pixels:
        """The mask as a grey image [h, w, 3], without repeated lines."""
        return self._kept[..., np.newaxis].repeat(3, axis=2)

    @property
    def is_complete(self) -> bool:
        """Whether all bands were added."""
        return 0 < self._rows_done == len(self._enlarged)

    def start(self) -> None:
        """Forget bands that were added, because the network starts from the top."""
        self._enlarged = np.empty((self.shape[0] * self._scale, self.shape[1] * self._scale), self._alpha.dtype)
        self._rows_done = 0

    def add(self, band: Pixels) -> None:
        """Add the next rows of the enlarged input, [rows, w * scale, 3]; raises ValueError if they do not fit."""
        top, bottom = self._rows_done, self._rows_done + len(band)
        if band.shape[1:] != (self._enlarged.shape[1], 3) or bottom > len(self._enlarged):
            raise ValueError(f"rows {top} to {bottom} of shape {list(band.shape)} do not fit the mask")
        self._enlarged[top:bottom] = band[..., 1]
        self._rows_done = bottom

    def rows(self, top: int, bottom: int) -> Pixels:
        """Return rows `top` to `bottom` of the enlarged mask, [bottom - top, W * scale]."""
        scale = self._scale
        rows = self._enlarged[_enlarge_positions(self._row_positions, scale)[top:bottom]]
        enlarged = rows[:, _enlarge_positions(self._column_positions, scale)]
        levels, is_constant = self._find_constant(top // scale, -(-bottom // scale))
        part = np.arange(top, bottom) // scale - top // scale
        np.copyto(enlarged, levels[part].repeat(scale, axis=1), where=is_constant[part].repeat(scale, axis=1))
        return enlarged

    def _find_constant(self, top: int, bottom: int) -> tuple[Pixels, npt.NDArray[np.bool_]]:
        """Return rows of the mask itself, and where all levels around are equal."""
        first, last = max(0, top - _CONSTANT_PX), min(len(self._alpha), bottom + _CONSTANT_PX)
        rows = self._alpha[first:last]
        mask = PilImage.fromarray(rows if rows.dtype == np.uint8 else rows.astype(np.int32))  # no filter takes uint16
        side = 2 * _CONSTANT_PX + 1
        lowest, highest = (
            np.asarray(mask.filter(rank(side))) for rank in (ImageFilter.MinFilter, ImageFilter.MaxFilter)
        )
        part = slice(top - first, bottom - first)
        return self._alpha[top:bottom], (lowest == highest)[part]


def _enlarge_positions(positions: Lines, scale: int) -> Lines:
    return (positions[:, np.newaxis] * scale + np.arange(scale)).ravel()


def _keep_lines(equals_next: npt.NDArray[np.bool_], context: int, window: int) -> tuple[Lines, Lines]:
    """Return the lines that are kept, and for every line its position among them.

    Of a run of equal lines, `context` are kept at either end. A line that is left out has the position of an equal one.
    """
    is_kept = np.ones(len(equals_next) + 1, np.bool_)
    breaks = (np.flatnonzero(~equals_next) + 1).tolist()
    for start, end in zip([0, *breaks], [*breaks, len(is_kept)], strict=True):
        surplus = (end - start - 2 * context) // window * window
        if surplus > 0:
            is_kept[start + context : start + context + surplus] = False
    return np.flatnonzero(is_kept), np.cumsum(is_kept) - 1
