"""Limits of a request to Triton's models, checked before any work. Imports neither torch nor Triton.

They apply to clients that use Triton directly; the gateway has limits of its own, which are as strict or stricter.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from preprocessing.depth import Pixels, from_bytes
from preprocessing.tiling import Grid
from swinir.custom_variants import find_row
from swinir.image_grid import tile_grid
from swinir.zoo import Variant


class RequestLimitError(ValueError):
    """The image is outside the limits; the message has the number and the limit."""


def read_samples(name: str, packed: npt.NDArray[np.uint8]) -> Pixels:
    """Return the samples of an input of this name, uint8 or uint16 [..., 3], from its bytes [..., 3] or [..., 6].

    Raises RequestLimitError for another number of bytes per pixel.
    """
    if packed.shape[-1] not in (3, 6):
        raise RequestLimitError(
            f"{name} has {packed.shape[-1]} bytes per pixel; send 3 (RGB) or 6 (RGB of 16 bits, low bytes first)"
        )
    return from_bytes(packed)


def check_tiles(height: int, width: int, variant: str, *, weights_dir: Path | None) -> None:
    """Raise RequestLimitError for tiles larger than the maximum of the variant; raises UnknownVariantError."""
    max_side = find_row(variant, weights_dir).max_tile_px
    if max(height, width) > max_side:
        raise RequestLimitError(f"TILES are {width} x {height}; the limit for {variant} is {max_side} per side")


def check_image(
    height: int, width: int, variant: str, *, limits: Mapping[str, int], weights_dir: Path | None
) -> tuple[Variant, Grid]:
    """Return the variant's row and the grid of an image [height, width, 3].

    `limits` has max_pixels and max_output_pixels, and may have max_tiles and max_columns, the tiles of one band.
    Raises RequestLimitError and UnknownVariantError.
    """
    row = find_row(variant, weights_dir)
    pixels = height * width
    if not pixels:
        raise RequestLimitError(f"IMAGE is {height} x {width}: it has no pixels")
    max_pixels = min(limits["max_pixels"], limits["max_output_pixels"] // row.scale**2)
    if pixels > max_pixels:
        raise RequestLimitError(
            f"IMAGE has {pixels} pixels ({width} x {height}); the limit for {variant} is {max_pixels}"
        )
    grid = tile_grid(row, height, width)
    count = grid.rows * grid.columns
    if count > limits.get("max_tiles", count):
        raise RequestLimitError(f"IMAGE of {width} x {height} needs {count} tiles; the limit is {limits['max_tiles']}")
    if grid.columns > limits.get("max_columns", grid.columns):
        raise RequestLimitError(
            f"IMAGE of {width} x {height} needs {grid.columns} tiles for a band; the limit is {limits['max_columns']}"
        )
    return row, grid
