"""Checks of the output: what the engine measured on each restored tile, and the summary for an image.

Imports no torch. The engine returns one row per tile, float32 [6] in the order of `FIELDS`; Triton's output CHECKS
carries the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]

# Columns of a tile's row:
#   rerun            1 when the tile was run again in float32, else 0
#   halvings         times its micro-batch was halved because memory ran out
#   lowest, highest  smallest and largest value before clamping, in levels of 255
#   clamped          share of values outside 0..255 by more than half a level
#   back_error       mean squared difference, in levels squared, between the input tile and the output scaled down
FIELDS = ("rerun", "halvings", "lowest", "highest", "clamped", "back_error")
# The PSNR reported for images without any difference, where the formula gives infinity.
IDENTICAL_DB = 99.0


@dataclass(frozen=True)
class OutputChecks:
    """Checks of one image's output. Finiteness is not a field: an output that is not finite is an error instead."""

    tiles: int
    """Tiles of the image."""
    reruns: int
    """Tiles that were not finite in the first pass and were run again in float32."""
    halvings: int
    """Times a micro-batch was halved because memory ran out: the maximum over the tiles."""
    lowest: float
    """Smallest value before clamping to 0..255, in levels."""
    highest: float
    """Largest value before clamping to 0..255, in levels."""
    clamped: float
    """Share of values outside 0..255 by more than half a level."""
    back_db: float
    """PSNR between the input and the output scaled back down to its size: high when nothing was moved or recoloured."""

    def to_header(self) -> str:
        """Return every value with its name, for the header X-Superres-Checks."""
        return (
            f"finite; tiles={self.tiles}; reruns={self.reruns}; halvings={self.halvings}; "
            f"range={self.lowest:.1f}..{self.highest:.1f}; clamped={self.clamped:.5f}; back_db={self.back_db:.2f}"
        )


def mix_rows(rows: Rows, strength: float) -> Rows:
    """Return rows for a result of which `strength`, 0 to 1, is the network's output and the rest the input.

    The mix differs from the input by `strength` times as much; the other columns still describe the network's output.
    """
    mixed = rows.copy()
    mixed[:, FIELDS.index("back_error")] *= strength**2
    return mixed


def summarise(rows: Rows) -> OutputChecks:
    """Return the checks of an image from the rows of its tiles, float32 [N, 6]; raises ValueError for other arrays."""
    if rows.ndim != 2 or rows.shape[1] != len(FIELDS) or not len(rows) or not np.isfinite(rows).all():
        raise ValueError(f"CHECKS has shape {list(rows.shape)}; expected finite rows of {len(FIELDS)} numbers")
    column: dict[str, Any] = dict(zip(FIELDS, rows.T.astype(np.float64), strict=True))
    error = float(column["back_error"].mean())
    return OutputChecks(
        tiles=len(rows),
        reruns=int(column["rerun"].sum()),
        halvings=int(column["halvings"].max()),
        lowest=float(column["lowest"].min()),
        highest=float(column["highest"].max()),
        clamped=float(column["clamped"].mean()),
        back_db=min(IDENTICAL_DB, 10 * float(np.log10(255.0**2 / error))) if error > 0 else IDENTICAL_DB,
    )
