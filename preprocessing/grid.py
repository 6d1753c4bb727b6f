"""The grid: where the tiles of an image lie, chosen so that few pixels are computed twice.

Pure geometry on integers; `tiling` moves the pixels. Tile offsets and core edges are multiples of the attention window,
so windows lie in a tile where they would lie in the whole image.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

# The longest side of a grid: 256 times that of any decoded image, and products stay far below 64 bits.
MAX_SIDE_PX = 2**24


class GridError(ValueError):
    """The numbers do not make a valid grid, or an array does not fit the grid; the message names both."""


@dataclass(frozen=True)
class Grid:
    """Tiles of one shape that cover an image with its margin, padded to the next multiple of the window; all in pixels.

    Raises GridError when the tiles do not cover the image.
    """

    height: int
    width: int
    window: int
    halo: int
    """Minimum distance of a core from every inner side of its tile; a multiple of the window."""
    margin: int
    """Reflected pixels before the first and after the last of the image: a multiple of the window, at most the halo."""
    tile_height: int
    tile_width: int
    rows: int
    columns: int

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not 0 <= value <= MAX_SIDE_PX or (value == 0 and name not in ("halo", "margin")):
                raise GridError(f"The {name} of a grid is 1 to {MAX_SIDE_PX} (halo and margin may be 0), not {value}.")
        for name, value in (("halo", self.halo), ("margin", self.margin)):
            if value % self.window:
                raise GridError(f"The {name} {value} is not a multiple of the window {self.window}.")
        if self.margin > self.halo:
            raise GridError(f"The margin {self.margin} is wider than the halo {self.halo}.")
        self._check_axis("rows", self.height, self.tile_height, self.rows)
        self._check_axis("columns", self.width, self.tile_width, self.columns)

    @cached_property
    def tops(self) -> tuple[int, ...]:
        """First row of each row of tiles, in rows of the image: the first is -margin."""
        return self._offsets(self.height, self.tile_height, self.rows)

    @cached_property
    def lefts(self) -> tuple[int, ...]:
        """First column of each column of tiles, in columns of the image: the first is -margin."""
        return self._offsets(self.width, self.tile_width, self.columns)

    @cached_property
    def row_edges(self) -> tuple[int, ...]:
        """Where cores meet: row i of tiles owns rows [row_edges[i], row_edges[i + 1]) of the image."""
        return _edges(self.tops, self.tile_height, self.height, self.window)

    @cached_property
    def column_edges(self) -> tuple[int, ...]:
        """Where cores meet: column i of tiles owns columns [column_edges[i], column_edges[i + 1]) of the image."""
        return _edges(self.lefts, self.tile_width, self.width, self.window)

    @property
    def computed_ratio(self) -> float:
        """Pixels computed per pixel of the image; 1.0 means no halo, margin or padding."""
        return self.rows * self.tile_height * self.columns * self.tile_width / (self.height * self.width)

    def to_array(self) -> npt.NDArray[np.int32]:
        """Return the grid as an int32 [9] tensor for Triton, in the order of its fields."""
        return np.array(dataclasses.astuple(self), dtype=np.int32)

    @classmethod
    def from_array(cls, array: npt.NDArray[np.int32]) -> Grid:
        """Return the grid of an int32 [9] tensor; raises GridError when its tiles do not cover the image."""
        if array.dtype != np.int32 or array.shape != (len(dataclasses.fields(cls)),):
            raise GridError(
                f"A grid is an int32 [{len(dataclasses.fields(cls))}] tensor, not {array.dtype} {list(array.shape)}."
            )
        return cls(*(int(number) for number in array))

    def _check_axis(self, name: str, side: int, tile: int, count: int) -> None:
        padded = pad_length(side + 2 * self.margin, self.window)
        steps = (padded - tile) // self.window
        if tile % self.window:
            raise GridError(f"A tile side of {tile} px is not a multiple of the window {self.window}.")
        if count == 1 and tile != padded:
            raise GridError(f"One tile of {tile} px does not cover the {padded} px of the padded side exactly.")
        if count > 1 and not count - 1 <= steps <= (count - 1) * (tile - 2 * self.halo) // self.window:
            raise GridError(
                f"{count} {name} of {tile} px with a halo of {self.halo} do not cover a padded side of {padded} px "
                "so that every tile has a core."
            )

    def _offsets(self, side: int, tile: int, count: int) -> tuple[int, ...]:
        """Spread the tiles evenly over the padded side, on multiples of the window."""
        steps = (pad_length(side + 2 * self.margin, self.window) - tile) // self.window
        return tuple(self.window * (index * steps // max(1, count - 1)) - self.margin for index in range(count))


@lru_cache(maxsize=64)
def choose_grid(height: int, width: int, *, window: int, halo: int, max_tile_px: int, margin: int = 0) -> Grid:
    """Return the grid that computes the fewest pixels with tile sides of at most `max_tile_px`.

    Halo and margin are rounded up to multiples of the window. A side that fits one tile with its margins becomes one
    tile, padded to the next multiple of the window; otherwise all tiles get an even size. Raises GridError when
    `max_tile_px` leaves no core inside the halo, or the margin is wider than the halo.
    """
    if min(height, width, window, max_tile_px) < 1 or min(halo, margin) < 0:
        raise GridError(
            f"No grid for {height} x {width} px, window {window}, halo {halo}, margin {margin}, tiles of "
            f"{max_tile_px} px."
        )
    halo, margin = pad_length(halo, window), pad_length(margin, window)
    tile_height, rows = _choose_axis(height + 2 * margin, window, halo, max_tile_px)
    tile_width, columns = _choose_axis(width + 2 * margin, window, halo, max_tile_px)
    return Grid(height, width, window, halo, margin, tile_height, tile_width, rows, columns)


def pad_length(length: int, window: int) -> int:
    """Return the length rounded up to a multiple of the window."""
    return -(-length // window) * window


def _choose_axis(side: int, window: int, halo: int, max_tile_px: int) -> tuple[int, int]:
    """Return (tile side, count) with the smallest count * tile side; the smaller count wins a draw.

    `count` tiles cover tile + (count - 1) * (tile - 2 * halo). One more tile costs 2 * halo, but may waste less in
    rounding to windows.
    """
    padded, largest = pad_length(side, window), max_tile_px // window * window
    if 0 < padded <= largest:
        return padded, 1
    core = largest - 2 * halo
    if core < window:
        raise GridError(
            f"Tiles of at most {max_tile_px} px leave no core inside a halo of {halo} px on both sides "
            f"with windows of {window} px: allow {2 * halo + window} px."
        )
    inner = padded - 2 * halo  # covered by the cores of `count` tiles, between the two outer halos
    fewest = -(-inner // core)
    choices = []
    for count in range(fewest, min(2 * fewest, inner // window) + 1):
        tile = pad_length(-(-inner // count), window) + 2 * halo
        choices.append((count * tile, count, tile))
    _, count, tile = min(choices)
    return tile, count


def _edges(offsets: tuple[int, ...], tile: int, side: int, window: int) -> tuple[int, ...]:
    """Cut each overlap in its middle, rounded down to a multiple of the window: at least a halo from either end."""
    middles = ((before + tile + after) // 2 for before, after in pairwise(offsets))
    return (0, *(middle // window * window for middle in middles), side)
