"""Checks: what was checked of an answer, tile by tile and of the whole. No torch: it crosses Triton as numbers.

A tile's row is float32 [6], in the order of `FIELDS`; Triton's output CHECKS holds one row a tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]

FIELDS = ("rerun", "halvings", "lowest", "highest", "clamped", "back_error")
"""Of a tile: was it run again in float32 (0 or 1); how often its micro-batch was halved for want of memory; smallest
and largest value before clamping, in levels; share of values off the range by more than half a level; mean squared
difference, in levels squared, between the tile given and the answer shrunk back to its size."""
IDENTICAL_DB = 99.0
"""What stands for "no difference" where a number is needed."""


@dataclass(frozen=True)
class OutputChecks:
    """What was checked of one image's answer. That it is finite is no field: what is not finite is no answer."""

    tiles: int
    reruns: int
    """Tiles that were not finite at first and were run again in float32."""
    halvings: int
    """Most times that memory forced a tile's micro-batch to be halved."""
    lowest: float
    """Smallest value before clamping to 0..255, in levels."""
    highest: float
    """Largest one."""
    clamped: float
    """Share of values that lay off 0..255 by more than half a level."""
    back_db: float
    """PSNR of the answer, shrunk back, against the image given: high when nothing was moved or recoloured."""

    def tell(self) -> str:
        """One sentence for people."""
        again = f"; {self.reruns} of them were computed again in full precision" if self.reruns else ""
        return (
            f"Checked: {self.tiles} tile(s), every number finite{again}. "
            f"Shrunk back, the result matches the upload at {self.back_db:.1f} dB."
        )

    def describe(self) -> str:
        """One line for a header: every figure with its name."""
        return (
            f"finite; tiles={self.tiles}; reruns={self.reruns}; halvings={self.halvings}; "
            f"range={self.lowest:.1f}..{self.highest:.1f}; clamped={self.clamped:.5f}; back_db={self.back_db:.2f}"
        )


def summarise(rows: Rows) -> OutputChecks:
    """Return the checks of an image from its tiles' rows, float32 [N, 6]; ValueError for anything else."""
    if rows.ndim != 2 or rows.shape[1] != len(FIELDS) or not len(rows) or not np.isfinite(rows).all():
        raise ValueError(f"CHECKS has shape {list(rows.shape)}; finite rows of {len(FIELDS)} numbers were expected")
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
