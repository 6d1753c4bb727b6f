"""Alpha without anti-aliasing: says whether a mask is hard, and enlarges hard masks with smooth contours.

A network takes the steps of a hard mask for its shape, so it loses 1.5 to 1.9 dB against bicubic interpolation. Here
the contour is blurred, interpolated and sharpened again. Where that would lose a detail, such as a line one pixel wide,
the result is bicubic. Measured in docs/explanation/codec.md.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage
from PIL import ImageFilter

from preprocessing.alpha import scale_alpha
from preprocessing.depth import max_level, to_depth
from preprocessing.image import Pixels

# An edge is where the levels within one pixel differ by this much. It is soft where the pixel lies between the extremes
# by more than the tolerance. Of the edge pixels of anti-aliased shapes 30 to 50 % are soft.
_EDGE_LEVELS, _TOLERANCE_LEVELS, _MAX_SOFT_SHARE = 128, 16, 0.1
# Gaussian of sigma 1.1 pixels in 256ths; their sum is exact, so constant areas keep their level.
_BLUR = (2, 18, 61, 94, 61, 18, 2)
# Contrast after the blur: the best of 1.5, 2, 3 and 4 for four shapes at scale 4.
_GAIN = 4
_CONTRAST = np.clip(np.rint((np.arange(256) - 127.5) * _GAIN + 127.5), 0, 255).astype(np.uint8)
# Rows of alpha around a strip that its values depend on: blur 3, interpolation 3, comparison 1, blending 2.
_MARGIN_ROWS = 9


def is_hard(alpha: Pixels) -> bool:
    """Return whether a mask [H, W] has edges, and these have no intermediate levels."""
    if _count_levels(alpha) == 2:
        return True
    alpha = to_depth(alpha, 8)
    mask = PilImage.fromarray(alpha)
    lowest, highest = (np.asarray(mask.filter(rank(3))) for rank in (ImageFilter.MinFilter, ImageFilter.MaxFilter))
    is_edge = highest - lowest >= _EDGE_LEVELS
    is_soft = is_edge & (alpha - lowest > _TOLERANCE_LEVELS) & (highest - alpha > _TOLERANCE_LEVELS)
    return bool(np.count_nonzero(is_soft) < _MAX_SOFT_SHARE * np.count_nonzero(is_edge))


class HardAlpha:
    """A hard mask [H, W] that is enlarged row by row."""

    def __init__(self, alpha: Pixels, scale: int) -> None:
        self._alpha, self._scale = alpha, scale

    @cached_property
    def _levels(self) -> tuple[int, int] | None:
        """The two levels of the mask, if it has two; they are spread to 0 and the highest level for the contour."""
        if _count_levels(self._alpha) != 2:
            return None
        return int(self._alpha.min()), int(self._alpha.max())

    def rows(self, top: int, bottom: int) -> Pixels:
        """Return rows `top` to `bottom` of the enlarged mask, [bottom - top, W * scale]."""
        scale, height = self._scale, len(self._alpha)
        first, last = max(0, top // scale - _MARGIN_ROWS), min(height, -(-bottom // scale) + _MARGIN_ROWS)
        crop = self._alpha[first:last]
        if crop.min() == crop.max():
            return np.full((bottom - top, crop.shape[1] * scale), crop[0, 0])
        top, bottom = top - first * scale, bottom - first * scale
        if self._levels is None:
            return _enlarge(crop, scale, top, bottom)
        lowest, highest = self._levels
        full = max_level(crop)
        enlarged = _enlarge(np.where(crop == highest, full, 0).astype(crop.dtype), scale, top, bottom)
        levels = np.rint(lowest + np.arange(full + 1) * ((highest - lowest) / full)).astype(crop.dtype)
        return levels[enlarged]


def _count_levels(alpha: Pixels) -> int:
    return int(np.count_nonzero(np.bincount(alpha.ravel(), minlength=256)))


def _enlarge(alpha: Pixels, scale: int, top: int, bottom: int) -> Pixels:
    """Return rows `top` to `bottom` of the enlarged mask; rows near the ends of `alpha` see it continue there."""
    first, last = max(0, top // scale - 2), min(len(alpha), -(-bottom // scale) + 2)
    smooth = _sharpen(scale_alpha(_blur(alpha), scale, first * scale, last * scale))
    weight = _find_lost(to_depth(alpha[first:last], 8), to_depth(smooth, 8), scale)
    weight = weight.astype(np.uint16 if alpha.dtype == np.uint8 else np.uint32)
    part = slice(top - first * scale, bottom - first * scale)
    bicubic = scale_alpha(alpha, scale, top, bottom)
    weight, smooth = weight[part], smooth[part]
    return ((weight * bicubic + (255 - weight) * smooth + 127) // 255).astype(alpha.dtype)


def _sharpen(alpha: Pixels) -> Pixels:
    if alpha.dtype == np.uint8:
        return _CONTRAST[alpha]
    middle = np.float32(65_535 / 2)
    return np.clip(np.rint((alpha - middle) * _GAIN + middle), 0, 65_535).astype(np.uint16)


def _blur(alpha: Pixels) -> Pixels:
    blurred = alpha.astype(np.uint32)
    reach = len(_BLUR) // 2
    for axis, side in enumerate(alpha.shape):
        padded = np.pad(blurred, [(reach, reach) if axis == padded_axis else (0, 0) for padded_axis in (0, 1)], "edge")
        blurred = np.zeros(alpha.shape, np.uint32)
        for offset, weight in enumerate(_BLUR):
            blurred += np.uint32(weight) * (
                padded[offset : offset + side] if axis == 0 else padded[:, offset : offset + side]
            )
    return ((blurred + 32_768) >> 16).astype(alpha.dtype)


def _find_lost(alpha: Pixels, smooth: Pixels, scale: int) -> Pixels:
    """Return 255 near pixels whose level the smooth contour does not keep, 0 elsewhere: [H * scale, W * scale].

    The contour may run through a pixel at 0 or 255, so the mean of its enlarged pixels may differ by half of the range.
    From a pixel at an intermediate level, which a hard contour never has, it may differ by less.
    """
    height, width = alpha.shape
    total = smooth.reshape(height, scale, width, scale).sum(axis=(1, 3), dtype=np.int32)
    allowed = 127 - np.minimum(alpha, 255 - alpha).astype(np.int32)
    lost: npt.NDArray[np.bool_] = np.abs(total - alpha.astype(np.int32) * scale**2) > allowed * scale**2
    near = PilImage.fromarray(lost.astype(np.uint8) * np.uint8(255)).filter(ImageFilter.MaxFilter(3))
    return np.asarray(near.resize((width * scale, height * scale), PilImage.Resampling.BILINEAR))
