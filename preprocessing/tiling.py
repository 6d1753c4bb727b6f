"""Tiling: splits an image into tiles and stitches tiles into an image, whole or one row of tiles at a time.

Cores are copied and never blended: on an aligned grid no seam appears. Works on any dtype and number of
channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocessing.grid import Grid, GridError, choose_grid, pad_length

__all__ = ["Grid", "GridError", "bands", "choose_grid", "pad_to_window", "split", "split_band", "stitch", "stitch_band"]

Array = npt.NDArray[Any]


def split(image: Array, grid: Grid) -> Array:
    """Return the tiles of an image [H, W, C] as [N, T, T', C], row by row. An image that is one tile is not copied."""
    _check_image(image, grid)
    if _is_only_tile(grid):
        return image[np.newaxis]
    tiles = np.empty((grid.rows * grid.columns, grid.tile_height, grid.tile_width, image.shape[2]), image.dtype)
    for row in range(grid.rows):
        _fill_row(tiles[row * grid.columns : (row + 1) * grid.columns], image, grid, row)
    return tiles


def split_band(image: Array, grid: Grid, row: int) -> Array:
    """Return one row of tiles as [columns, T, T', C], left to right."""
    _check_image(image, grid)
    tiles = np.empty((grid.columns, grid.tile_height, grid.tile_width, image.shape[2]), image.dtype)
    _fill_row(tiles, image, grid, row)
    return tiles


def pad_to_window(image: Array, window: int, margin: int = 0) -> Array:
    """Return [H, W, C] with its margin on all sides, padded right and below to the next multiple of the window.

    These are the pixels of the tiles.
    """
    height, width = image.shape[:2]
    rows = _source(-margin, pad_length(height + 2 * margin, window), height)
    return image[rows[:, np.newaxis], _source(-margin, pad_length(width + 2 * margin, window), width)]


def bands(grid: Grid) -> list[tuple[int, int]]:
    """Return (first row, rows) of the band of each row of tiles, in pixels of the input."""
    edges = grid.row_edges
    return [(top, bottom - top) for top, bottom in pairwise(edges)]


def stitch(tiles: Array, grid: Grid, scale: int) -> Array:
    """Return the image [H * scale, W * scale, C] of the restored tiles [N, T * scale, T' * scale, C].

    A tile that is the whole image is not copied.
    """
    _check_tiles(tiles, grid, grid.rows * grid.columns, scale)
    if _is_only_tile(grid):
        return tiles[0]
    image = np.empty((grid.height * scale, grid.width * scale, tiles.shape[3]), tiles.dtype)
    for row, (top, rows) in enumerate(bands(grid)):
        tiles_of_row = tiles[row * grid.columns : (row + 1) * grid.columns]
        _copy_cores(image[top * scale : (top + rows) * scale], tiles_of_row, grid, row, scale)
    return image


def stitch_band(tiles_of_row: Array | Sequence[Array], grid: Grid, row: int, scale: int) -> Array:
    """Return the band [rows * scale, W * scale, C] of one row of tiles, each [T * scale, T' * scale, C].

    The tiles may be one array or a sequence of arrays. A tile that is the whole image is not copied.
    """
    _check_tiles(tiles_of_row, grid, grid.columns, scale)
    if _is_only_tile(grid):
        return tiles_of_row[0]
    top, bottom = grid.row_edges[row : row + 2]
    first = tiles_of_row[0]
    band = np.empty(((bottom - top) * scale, grid.width * scale, first.shape[2]), first.dtype)
    _copy_cores(band, tiles_of_row, grid, row, scale)
    return band


def _is_only_tile(grid: Grid) -> bool:
    """Return whether one tile is the whole image, without padding."""
    return grid.rows == grid.columns == 1 and (grid.height, grid.width) == (grid.tile_height, grid.tile_width)


def _fill_row(tiles: Array, image: Array, grid: Grid, row: int) -> None:
    top = grid.tops[row]
    for tile, left in zip(tiles, grid.lefts, strict=True):
        bottom, right = top + grid.tile_height, left + grid.tile_width
        if top >= 0 and bottom <= grid.height and left >= 0 and right <= grid.width:
            tile[...] = image[top:bottom, left:right]
        else:
            rows = _source(top, grid.tile_height, grid.height)
            tile[...] = image[rows[:, np.newaxis], _source(left, grid.tile_width, grid.width)]


def _source(offset: int, length: int, side: int) -> npt.NDArray[np.intp]:
    """Return the index in the image of each row (or column) of a padded range.

    Padding reflects at both ends, as the published network does at the far one. Reflection gives `side - 1` lines; then
    the last of them repeats.
    """
    lines = np.arange(offset, offset + length)
    before, after = np.minimum(-lines, side - 1), np.maximum(2 * (side - 1) - lines, 0)
    return np.where(lines < 0, before, np.where(lines < side, lines, after))


def _copy_cores(band: Array, tiles_of_row: Array | Sequence[Array], grid: Grid, row: int, scale: int) -> None:
    top, bottom = (scale * (edge - grid.tops[row]) for edge in grid.row_edges[row : row + 2])
    edges = grid.column_edges
    for tile, left, start, stop in zip(tiles_of_row, grid.lefts, edges, edges[1:], strict=False):
        core = tile[top:bottom, scale * (start - left) : scale * (stop - left)]
        band[:, scale * start : scale * stop] = core


def _check_image(image: Array, grid: Grid) -> None:
    if image.ndim != 3 or image.shape[:2] != (grid.height, grid.width):
        raise GridError(f"The grid is for an image [{grid.height}, {grid.width}, C], not {list(image.shape)}.")


def _check_tiles(tiles: Array | Sequence[Array], grid: Grid, count: int, scale: int) -> None:
    expected = (grid.tile_height * scale, grid.tile_width * scale)
    shapes = sorted({tile.shape for tile in tiles})
    if scale < 1 or len(tiles) != count or len(shapes) != 1 or len(shapes[0]) != 3 or shapes[0][:2] != expected:
        found = " and ".join(str([len(tiles), *shape]) for shape in shapes) or "none"
        raise GridError(
            f"The grid at scale {scale} needs tiles [{count}, {', '.join(map(str, expected))}, C], not {found}."
        )
