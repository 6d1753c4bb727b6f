"""The rules for flat areas, neutral areas and smooth corners in NumPy, without torch.

The same rules as in `flats` and `neutrals`, which say why they exist, for images [N, H, W, 3].
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

# As in `flats` and `neutrals`, which say how they were chosen; a test holds them equal.
FLAT_REACH_PX = 24
NEUTRAL_REACH_PX, NEUTRAL_RAMP_PX = 6, 2
EQUAL = 0.5 / 255
CORNER_PX, CORNER_RAMP_PX, MAX_CORNER_RANGE = 8, 4, 8 / 255

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]


def flat_weights(images: Floats, reach: int) -> Floats | None:
    """Return the weight of the input's colour for each pixel, [N, H, W]; None where nothing is flat."""
    radius, ramp = flat_radii(reach)
    return _ramp(~spread(_differs(images), radius), ramp)


def flat_radii(reach: int) -> tuple[int, int]:
    """Return the radius of the box that must be constant, without one pixel, and that of the ramp."""
    ramp = reach // 3
    return max(0, reach - ramp - 1), ramp  # neighbours are compared, so the box is a pixel larger


def neutral_weights(images: Floats) -> Floats | None:
    """Return the weight of the luminance for each pixel, [N, H, W]; None where nothing is neutral."""
    red, green, blue = np.moveaxis(images, 3, 0)
    has_colour = (np.abs(red - green) > np.float32(EQUAL)) | (np.abs(green - blue) > np.float32(EQUAL))
    return _ramp(~spread(has_colour, NEUTRAL_REACH_PX - NEUTRAL_RAMP_PX), NEUTRAL_RAMP_PX)


def _ramp(holds: npt.NDArray[np.bool_], radius: int) -> Floats | None:
    if not holds.any():
        return None
    weights = box_sum(holds, radius) / box_sum(np.ones_like(holds[:1]), radius)
    return np.ascontiguousarray(weights, np.float32)


def _differs(images: Floats) -> npt.NDArray[np.bool_]:
    """Return for each pixel whether one of its four neighbours has another colour, [N, H, W]."""
    differs = np.zeros(images.shape[:3], bool)
    down = _any_channel(images[:, 1:] != images[:, :-1])
    right = _any_channel(images[:, :, 1:] != images[:, :, :-1])
    differs[:, 1:] |= down
    differs[:, :-1] |= down
    differs[:, :, 1:] |= right
    differs[:, :, :-1] |= right
    return differs


def _any_channel(differs: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return [N, H, W] for [N, H, W, 3]. ``any(axis=3)`` takes 14 times as long (208 x 208)."""
    return differs[..., 0] | differs[..., 1] | differs[..., 2]


def spread(holds: npt.NDArray[np.bool_], radius: int) -> npt.NDArray[np.bool_]:
    """Return for each pixel of [N, H, W] whether any pixel in the box of `radius` around it holds.

    The same as ``box_sum(holds, radius) > 0``, in half the time: the box doubles along each side until it is complete.
    """
    for axis in (1, 2):
        margins = [(0, 0)] * 3
        margins[axis] = (radius, radius)
        wide = np.moveaxis(np.pad(holds, margins), axis, 0)
        covered, box = 1, 2 * radius + 1
        while covered < box:
            step = min(covered, box - covered)
            wide = wide[:-step] | wide[step:]
            covered += step
        holds = np.moveaxis(wide, 0, axis)
    return holds


def box_sum(values: npt.NDArray[Any], radius: int) -> Integers:
    """Return the sum over the box of `radius` around each pixel of [N, H, W], cut at the borders."""
    sums = values.astype(np.int32)
    for axis in (1, 2):
        line = np.arange(sums.shape[axis])
        totals = np.cumsum(sums, axis, dtype=np.int32)
        totals = np.insert(totals, 0, 0, axis)
        upper = totals.take(np.minimum(line + radius + 1, len(line)), axis)
        sums = upper - totals.take(np.maximum(line - radius, 0), axis)
    return sums


def keep_corners(restored: Floats, images: Floats) -> None:
    """Replace the values of smooth corners by bicubic interpolation, in place, as `neutrals.keep_corners` does.

    ``restored`` is [N, H * scale, W * scale, 3], ``images`` [N, H, W, 3].
    """
    _, height, width, _ = images.shape
    scale = restored.shape[1] // height
    if scale == 1 or min(height, width) < 2 * CORNER_PX:
        return
    is_smooth = _corner_ranges(images) <= np.float32(MAX_CORNER_RANGE)
    for index, bottom, right in np.argwhere(is_smooth).tolist():
        side, weight = CORNER_PX * scale, _corner_weights(scale)[:: -1 if bottom else 1, :: -1 if right else 1]
        block = images[index, _edge(CORNER_PX, at_end=bottom), _edge(CORNER_PX, at_end=right)]
        corner = restored[index, _edge(side, at_end=bottom), _edge(side, at_end=right)]
        smooth = _enlarge_corner(block, scale)
        step = smooth - corner
        corner[:] = np.where(weight < 0.5, corner + weight * step, smooth - step * (1 - weight))


def _corner_ranges(images: Floats) -> Floats:
    """Return the largest range of a channel in each corner, [N, 2, 2]: top and bottom, left and right."""
    count, height, width, _ = images.shape
    blocks = images[:, _ends(height)[:, np.newaxis], _ends(width)].reshape(count, 2, CORNER_PX, 2, CORNER_PX, 3)
    values = np.ascontiguousarray(blocks.transpose(1, 3, 5, 0, 2, 4)).reshape(2, 2, 3, count, -1)
    return np.asarray((values.max(axis=4) - values.min(axis=4)).max(axis=2).transpose(2, 0, 1), np.float32)


@functools.lru_cache(maxsize=64)
def _ends(side: int) -> npt.NDArray[np.int64]:
    """Return the numbers of the pixels in the corners of a line."""
    return np.concatenate([np.arange(CORNER_PX), np.arange(side - CORNER_PX, side)])


def _enlarge_corner(block: Floats, scale: int) -> Floats:
    """Return what `enlarge` returns for one block [CORNER_PX, CORNER_PX, 3], within 1e-6, in less time."""
    matrix = _bicubic(CORNER_PX, scale)
    rows = matrix @ block.reshape(CORNER_PX, -1)
    return np.asarray(matrix @ rows.reshape(-1, CORNER_PX, 3), np.float32)


@functools.lru_cache(maxsize=16)
def _corner_weights(scale: int) -> Floats:
    """Return the weight of the interpolation in the top left corner, [side, side, 1]."""
    line = (np.arange(CORNER_PX * scale, dtype=np.float32) + np.float32(0.5)) / np.float32(scale)
    ramp = ((CORNER_PX - line) / CORNER_RAMP_PX).clip(0, 1)
    return np.minimum(ramp[:, None], ramp)[..., None]


def _edge(count: int, *, at_end: bool) -> slice:
    return slice(-count, None) if at_end else slice(0, count)


def enlarge(images: Floats, scale: int) -> Floats:
    """Return [N, H, W, C] enlarged by bicubic interpolation, as torch's ``interpolate`` does."""
    if scale == 1:
        return images
    down, across = (_bicubic(side, scale) for side in images.shape[1:3])
    rows = np.einsum("yh,nhwc->nywc", down, images, optimize=True)
    return np.ascontiguousarray(np.einsum("xw,nywc->nyxc", across, rows, optimize=True))


@functools.lru_cache(maxsize=16)
def _bicubic(side: int, scale: int) -> Floats:
    """Return the matrix [side * scale, side] of Keys' cubic interpolation with a = -0.75."""
    a = -0.75
    at = (np.arange(side * scale) + 0.5) / scale - 0.5
    first = np.floor(at).astype(np.int64)
    matrix = np.zeros((side * scale, side))
    for tap in range(-1, 3):
        x = np.abs(at - (first + tap))
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        np.add.at(matrix, (np.arange(len(at)), (first + tap).clip(0, side - 1)), np.where(x <= 1, near, far))
    return matrix.astype(np.float32)
