"""Admission: what Triton's models ask of an image before anything is done with it. No torch, no Triton.

The limits hold for raw clients too; the gateway has its own, which are as strict or stricter.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from preprocessing.tiling import Grid, choose_grid
from swinir.custom_variants import find_row
from swinir.zoo import Variant


class RequestLimitError(ValueError):
    """The image cannot be served as it is; the text names the number and the limit."""


def admit_tiles(height: int, width: int, variant: str, *, weights_dir: Path | None) -> None:
    """Raise Refused for tiles larger than any that a grid makes for the variant, or UnknownVariant."""
    most = find_row(variant, weights_dir).max_tile_px
    if max(height, width) > most:
        raise RequestLimitError(f"TILES are {width} x {height}; the limit for {variant} is {most} a side")


def admit(
    height: int, width: int, variant: str, *, limits: Mapping[str, int], weights_dir: Path | None
) -> tuple[Variant, Grid]:
    """Return the variant's row and the grid of an image; raises Refused or UnknownVariant.

    `limits` has max_pixels and max_output_pixels, and max_tiles where an image must go through in one request.
    """
    row = find_row(variant, weights_dir)
    pixels = height * width
    if not pixels:
        raise RequestLimitError(f"IMAGE is {height} x {width}: it has no pixels")
    most = min(limits["max_pixels"], limits["max_output_pixels"] // row.scale**2)
    if pixels > most:
        raise RequestLimitError(f"IMAGE has {pixels} pixels ({width} x {height}); the limit for {variant} is {most}")
    grid = choose_grid(height, width, window=row.window, halo=row.halo, max_tile_px=row.max_tile_px)
    count = grid.rows * grid.columns
    if count > limits.get("max_tiles", count):
        raise RequestLimitError(f"IMAGE of {width} x {height} needs {count} tiles; the limit is {limits['max_tiles']}")
    return row, grid
