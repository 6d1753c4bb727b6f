"""Resampling: shrinks an image whose rows arrive band by band, with memory for few rows.

Colour is shrunk by Lanczos with three lobes, alpha by Hamming, which never leaves the range of its input: Lanczos draws
a faint outline around hard masks. Samples are used as they are stored, which is sRGB as a rule and not linear light, as
Pillow, imgproxy and Real-ESRGAN do.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image as PilImage

from preprocessing.image import Pixels
from preprocessing.resizing import resize

# Rows of the source that are added at once: 2 MB of an RGBA image of 8,192 columns.
STEP_ROWS = 64
# Rows of the result that are computed at once. A multiple of 1 to 6, so that at the usual scales a chunk begins at a
# whole row of the source: Pillow takes positions as float32.
CHUNK_ROWS = 60
# Rows and columns that Lanczos reads on either side, in pixels of the result, and 1 for rounding.
_LANCZOS_SUPPORT = 3
_ROUNDING_ROWS = 1

Rows = tuple[Pixels, Pixels | None]
"""Colour [h, W, 3] and alpha [h, W] of some rows; alpha is None for an opaque image."""


class BandResampler:
    """Shrinks an image: call `add` with its rows from top to bottom. The values do not depend on how they are split."""

    def __init__(self, source: tuple[int, int], target: tuple[int, int], *, is_exact: bool = False) -> None:
        """`source` and `target` are (width, height) in pixels; the target is at most as large on either side.

        With `is_exact`, each pixel of the result is the mean of the area that it covers, so pixels that were repeated
        keep their colours wherever they cover a whole pixel. Raises ValueError for a target that is larger.
        """
        if not (0 < target[0] <= source[0] and 0 < target[1] <= source[1]):
            raise ValueError(f"{source} cannot be shrunk to {target}")
        box, lanczos, hamming = PilImage.Resampling.BOX, PilImage.Resampling.LANCZOS, PilImage.Resampling.HAMMING
        self._colour_filter, self._alpha_filter = (box, box) if is_exact else (lanczos, hamming)
        self._source, self._target = source, target
        self._margin_rows = math.ceil(_LANCZOS_SUPPORT * source[1] / target[1]) + _ROUNDING_ROWS
        self._rows_done = 0
        # Rows of the source at the target's width, and the index of the first.
        self._colour: Pixels = np.empty((0, target[0], 3), np.uint8)
        self._alpha: Pixels = np.empty((0, target[0]), np.uint8)
        self._top = 0

    def add(self, colour: Pixels, alpha: Pixels | None) -> Rows:
        """Take the next rows [h, width, 3] with their alpha [h, width] and return the rows that are finished, if any.

        Raises ValueError for a wrong width or too many rows.
        """
        bottom = self._top + len(self._colour) + len(colour)
        if colour.shape[1:] != (self._source[0], 3) or bottom > self._source[1]:
            raise ValueError(f"rows of shape {list(colour.shape)} do not fit {self._source}")
        width, has_alpha = self._target[0], alpha is not None
        self._colour = np.concatenate((self._colour, _shrink_columns(colour, width, self._colour_filter)))
        if alpha is not None:
            self._alpha = np.concatenate((self._alpha, _shrink_columns(alpha, width, self._alpha_filter)))
        colours, alphas = [self._colour[:0]], [self._alpha[:0]]
        while self._rows_done < self._target[1]:
            last = min(self._rows_done + CHUNK_ROWS, self._target[1])
            if bottom < self._find_end(last):
                break
            colours.append(self._shrink_rows(self._colour, last, self._colour_filter))
            if has_alpha:
                alphas.append(self._shrink_rows(self._alpha, last, self._alpha_filter))
            self._rows_done = last
            self._drop_rows()
        return np.concatenate(colours), np.concatenate(alphas) if has_alpha else None

    def _shrink_rows(self, rows: Pixels, last: int, kernel: PilImage.Resampling) -> Pixels:
        """Return the rows of the result from the first that is missing to `last`, not included."""
        first, (width, height) = self._rows_done, self._target
        source_height = self._source[1]
        # A chunk always sees the same rows of the source, so it has the same values wherever the bands end.
        top = self._find_start(first)
        chunk = rows[top - self._top : self._find_end(last) - self._top]
        box = (0, first * source_height / height - top, width, last * source_height / height - top)
        return resize(chunk, (width, last - first), kernel, box)

    def _find_start(self, row: int) -> int:
        """Return the first row of the source that is read for the result from `row` on."""
        return max(0, row * self._source[1] // self._target[1] - self._margin_rows)

    def _find_end(self, row: int) -> int:
        """Return the end of the rows of the source that are read for the result up to `row`, not included."""
        return min(self._source[1], -(-row * self._source[1] // self._target[1]) + self._margin_rows)

    def _drop_rows(self) -> None:
        """Forget the rows of the source that no later chunk reads."""
        top = self._find_start(self._rows_done)
        self._colour, self._alpha = self._colour[top - self._top :], self._alpha[top - self._top :]
        self._top = top


def buffer_rows(source_height: int, target_height: int, step_rows: int) -> int:
    """Return the maximum number of rows that a resampler holds if `step_rows` rows are added at a time."""
    ratio = source_height / target_height
    return step_rows + math.ceil((CHUNK_ROWS + 2 * _LANCZOS_SUPPORT) * ratio) + 2 * _ROUNDING_ROWS + 2


def _shrink_columns(rows: Pixels, width: int, kernel: PilImage.Resampling) -> Pixels:
    """Return rows [h, W] or [h, W, 3] with `width` columns. Columns first, always, so that both passes round alike."""
    if rows.shape[1] == width:
        return rows
    return resize(rows, (width, len(rows)), kernel)
