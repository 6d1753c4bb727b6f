"""Grids of a variant: the tiles in which the service computes an image, or the image as one tile. Imports no torch."""

from __future__ import annotations

from preprocessing.grid import MAX_SIDE_PX
from preprocessing.tiling import Grid, choose_grid
from swinir.zoo import Variant


def tile_grid(row: Variant, height: int, width: int) -> Grid:
    """Return the grid of an image [height, width, 3] as the service computes it."""
    return _grid(row, height, width, row.max_tile_px)


def one_tile_grid(row: Variant, height: int, width: int) -> Grid:
    """Return the grid of an image [height, width, 3] as one tile, with the padding of the service and no other seam."""
    return _grid(row, height, width, MAX_SIDE_PX)


def _grid(row: Variant, height: int, width: int, max_tile_px: int) -> Grid:
    return choose_grid(height, width, window=row.window, halo=row.halo, margin=row.margin, max_tile_px=max_tile_px)
