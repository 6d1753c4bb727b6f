"""The last steps of restored tiles in C: blend by weights, round, and measure range and way back. Imports no torch.

Tiles are float32 [N, H * scale, W * scale, 3], their images [N, H, W, 3] in 0..1.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from swinir.inference.engine import LUMINANCE, Tiles
from swinir.inference.pixel_rules import (
    EQUAL,
    NEUTRAL_RAMP_PX,
    NEUTRAL_REACH_PX,
    flat_radii,
    flat_weights,
    neutral_weights,
)

Floats = npt.NDArray[np.float32]

# Bits of the weights of the way back, as in Pillow and torch: the largest weight is below 2^15.
_MAX_WEIGHT, _MAX_SHIFT = 1 << 15, 22


class TileRanges(NamedTuple):
    """What the values of tiles span."""

    extremes: Floats
    """[N, 2]: the smallest and largest value, in the range of the tiles; both NaN if the tile has a NaN."""
    clamped: npt.NDArray[np.float64]
    """[N]: share of values that in levels are outside 0..255 by more than 0.5."""

    def find_not_finite(self) -> list[int]:
        """Return the numbers of the tiles that have a NaN or infinity."""
        return [int(index) for index in np.flatnonzero(~np.isfinite(self.extremes).all(axis=1))]


class _FilterStruct(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("taps", "shift")),
        *((name, ctypes.c_void_p) for name in ("starts", "counts", "weights")),
    )


class ShrinkFilter:
    """Antialiased bicubic weights that shrink a line to ``side`` pixels by a whole factor.

    Inner pixels have ``4 * scale`` weights each, the same ones. The C code computes them together.
    """

    def __init__(self, side: int, scale: int) -> None:
        size, support = side * scale, 2 * scale
        centres = (np.arange(side) + 0.5) * scale
        first = np.maximum((centres - support + 0.5).astype(np.int64), 0)
        count = np.minimum((centres + support + 0.5).astype(np.int64), size) - first
        offsets = np.arange(count.max())
        x = np.abs((offsets + first[:, None] - centres[:, None] + 0.5) / scale)
        near, far = (1.5 * x - 2.5) * x * x + 1, (((x - 5) * x + 8) * x - 4) * -0.5
        weights = np.where(x < 1, near, np.where(x < 2, far, 0.0)) * (offsets < count[:, None])
        weights /= weights.sum(axis=1, keepdims=True)
        shift = 0
        while shift < _MAX_SHIFT and int(0.5 + weights.max() * (1 << (shift + 1))) < _MAX_WEIGHT:
            shift += 1
        scaled = weights * (1 << shift)
        self.starts, self.counts = first.astype(np.int32), count.astype(np.int32)
        self.weights = np.ascontiguousarray(np.trunc(scaled + np.copysign(0.5, scaled)), np.int32)
        self.struct = _FilterStruct(
            len(offsets), shift, self.starts.ctypes.data, self.counts.ctypes.data, self.weights.ctypes.data
        )


_filter = functools.lru_cache(maxsize=16)(ShrinkFilter)


def round_tiles(library: Any, threads: int, tiles: Floats, levels: Tiles, deep: Tiles | None = None) -> TileRanges:
    """Clamp tiles in 0..1 and round them to ``levels``, uint8, and ``deep``, uint16. Return what their values span.

    Reads each value once. Values that are not finite are undefined in ``levels`` and ``deep``. Raises MemoryError.
    """
    count = len(tiles)
    extremes, outside = np.empty((count, 2), np.float32), np.empty(count, np.int64)
    _check(
        library.round_tiles(
            tiles.ctypes.data,
            count,
            tiles[0].size,
            levels.ctypes.data,
            None if deep is None else deep.ctypes.data,
            extremes.ctypes.data,
            outside.ctypes.data,
            threads,
        )
    )
    return TileRanges(extremes, outside / tiles[0].size)


def find_flats(library: Any, threads: int, images: Floats, reach: int) -> Floats | None:
    """Return `pixel_rules.flat_weights`. Raises MemoryError."""
    return _find_areas(library, threads, images, -1.0, *flat_radii(reach))


def find_neutrals(library: Any, threads: int, images: Floats) -> Floats | None:
    """Return `pixel_rules.neutral_weights`. Raises MemoryError."""
    return _find_areas(library, threads, images, EQUAL, NEUTRAL_REACH_PX - NEUTRAL_RAMP_PX, NEUTRAL_RAMP_PX)


def _find_areas(library: Any, threads: int, images: Floats, tolerance: float, radius: int, ramp: int) -> Floats | None:
    count, height, width, _ = images.shape
    weights, found = np.empty((count, height, width), np.float32), np.empty(count, np.bool_)
    _check(
        library.find_areas(
            images.ctypes.data,
            count,
            height,
            width,
            tolerance,
            radius,
            ramp,
            weights.ctypes.data,
            found.ctypes.data,
            threads,
        )
    )
    return weights if found.any() else None


def blend(
    library: Any, threads: int, tiles: Floats, images: Floats, weights: Floats | None, *, to_grey: bool = False
) -> None:
    """Mix tiles with the colours of their images, or with their own luminance, by weights [N, H, W], in place."""
    if weights is None:
        return
    _, height, width, _ = images.shape
    scale = tiles.shape[1] // height
    for tile, image, weight in zip(tiles, images, weights, strict=True):
        if weight.any():
            _check(
                library.blend_tile(
                    tile.ctypes.data, image.ctypes.data, weight.ctypes.data, height, width, scale, to_grey, threads
                )
            )


def measure_back_errors(library: Any, threads: int, levels: Tiles, images: Floats) -> Floats:
    """Return the mean squared difference in levels between images and tiles shrunk to their size, [N].

    Shrunk by antialiased bicubic interpolation, rounded to levels after each direction. Raises MemoryError.
    """
    count, height, width, _ = images.shape
    scale = levels.shape[1] // height
    if scale == 1:
        return np.asarray(((levels - images * np.float32(255)) ** 2).reshape(count, -1).mean(axis=1), np.float32)
    errors = np.empty(count, np.float32)
    across, down = (ctypes.byref(_filter(side, scale).struct) for side in (width, height))
    _check(
        library.measure_way_back(
            levels.ctypes.data,
            images.ctypes.data,
            count,
            height,
            width,
            scale,
            across,
            down,
            errors.ctypes.data,
            threads,
        )
    )
    return errors


def measure_tile_error(library: Any) -> float:
    """Return the largest difference between these functions and NumPy on small tiles, relative to the magnitude."""
    random = np.random.default_rng(0)
    images = random.random((2, 6, 10, 3), np.float32)
    tiles = (images.repeat(2, 1).repeat(2, 2) * np.float32(1.5) - np.float32(0.25)).astype(np.float32)
    levels, deep = np.empty(tiles.shape, np.uint8), np.empty(tiles.shape, np.uint16)
    ranges = round_tiles(library, 2, tiles, levels, deep)
    inner = tiles.clip(0, 1)
    wrong = (levels != np.rint(inner * np.float32(255))).sum() + (deep != np.rint(inner * np.float32(65535))).sum()
    in_levels = (tiles * np.float32(255)).reshape(2, -1)
    errors = [
        float(wrong),
        np.abs(ranges.extremes[:, 0] / tiles.min(axis=(1, 2, 3)) - 1).max(),
        np.abs(ranges.extremes[:, 1] / tiles.max(axis=(1, 2, 3)) - 1).max(),
        np.abs(ranges.clamped - (np.abs(in_levels - 127.5) > 128).mean(axis=1)).max(),
    ]
    back = ((shrink_in_numpy(levels, (6, 10)) - images * 255.0) ** 2).mean(axis=(1, 2, 3))
    errors.append(np.abs(measure_back_errors(library, 2, levels, images) / back - 1).max())
    weights = random.random((2, 6, 10), np.float32)
    wide = weights.repeat(2, 1).repeat(2, 2)[..., None]
    for to_grey in (False, True):
        mixed = tiles.copy()
        blend(library, 2, mixed, images, weights, to_grey=to_grey)
        target = (tiles @ np.array(LUMINANCE))[..., None] if to_grey else images.repeat(2, 1).repeat(2, 2)
        errors.append(np.abs(mixed - (tiles + wide * (target - tiles))).max())
    images[0, :, :7], images[1, 1:] = 0.25, 0.5  # flat and neutral areas, which end inside
    for found, expected in (
        (find_flats(library, 2, images, 3), flat_weights(images, 3)),
        (find_neutrals(library, 2, images), neutral_weights(images)),
    ):
        errors.append(np.inf if found is None or expected is None else np.abs(found - expected).max())
    return float(np.max(errors))


def shrink_in_numpy(levels: npt.NDArray[Any], sides: tuple[int, int]) -> npt.NDArray[Any]:
    """Return tiles shrunk to this height and width as in `measure_back_errors`."""
    height, width = sides
    return _shrink(_shrink(levels, width, axis=2), height, axis=1)


def _shrink(levels: npt.NDArray[Any], side: int, axis: int) -> npt.NDArray[Any]:
    """Return tiles with this side, by the weights of the filter in whole numbers."""
    matrix = np.zeros((side, levels.shape[axis]), np.int64)
    weights = _filter(side, levels.shape[axis] // side)
    for row, first, count, each in zip(matrix, weights.starts, weights.counts, weights.weights, strict=True):
        row[first : first + count] = each[:count]
    sums = np.moveaxis(np.tensordot(matrix, levels.astype(np.int64), (1, axis)), 0, axis)
    shift = weights.struct.shift
    return ((sums + (1 << (shift - 1))) >> shift).clip(0, 255)


def _check(failed: int) -> None:
    if failed:
        raise MemoryError("not enough memory for the checks of a tile")
