"""Draws shapes as alpha: the true shape at the size of a result, and what an upload has of it, soft or hard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from preprocessing.image import Pixels

# Samples per pixel of the result, on each side.
_SAMPLES = 4


@dataclass(frozen=True)
class Shape:
    """One shape at two sizes."""

    truth: npt.NDArray[np.float32]
    """[side * scale, side * scale], 0 to 255: the share of each pixel of the result that the shape covers."""
    soft: Pixels
    """[side, side]: the same for each pixel of the upload, as an anti-aliased mask."""
    hard: Pixels
    """[side, side]: 255 where the shape covers half of a pixel of the upload, else 0."""

    def edge_psnr(self, enlarged: Pixels) -> float:
        """Return the PSNR in dB of an enlarged mask against the truth, within 8 pixels of the shape's contour."""
        is_edge = (self.truth > 0) & (self.truth < 255)
        for axis in (0, 1):
            is_edge = np.any([np.roll(is_edge, shift, axis) for shift in range(-8, 9)], axis=0)
        return float(10 * np.log10(255**2 / np.square(enlarged - self.truth)[is_edge].mean()))


def draw_blob(side: int = 64, scale: int = 4) -> Shape:
    """Draw a shape with round lobes and sharp corners between them."""
    count = side * scale * _SAMPLES
    y, x = (np.mgrid[0:count, 0:count] + 0.5) / count - 0.5
    angle = np.arctan2(y, x)
    radius = 0.24 + 0.16 * np.cos(2 * angle) + 0.08 * np.cos(5 * angle) + 0.04 * np.sin(9 * angle)
    return _shrink(np.hypot(y, x) < radius, scale)


def draw_lines(side: int = 64, scale: int = 4) -> Shape:
    """Draw lines that are 1.2 pixels of the upload wide, 6 pixels apart, slightly slanted."""
    count = side * scale * _SAMPLES
    y, x = np.mgrid[0:count, 0:count] * (side / count)
    return _shrink((x + 0.21 * y) % 6 < 1.2, scale)


def _shrink(samples: npt.NDArray[np.bool_], scale: int) -> Shape:
    truth = _means(samples.astype(np.float32) * 255, _SAMPLES)
    means = _means(truth, scale)
    return Shape(truth, np.rint(means).astype(np.uint8), np.where(means >= 127.5, 255, 0).astype(np.uint8))


def _means(values: npt.NDArray[np.float32], factor: int) -> npt.NDArray[np.float32]:
    rows, columns = (length // factor for length in values.shape)
    means: npt.NDArray[np.float32] = values.reshape(rows, factor, columns, factor).mean(axis=(1, 3))
    return means
