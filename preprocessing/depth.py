"""The depth of samples, 8 bits (uint8) or 16 bits (uint16) per channel: converts, resizes and packs them."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage

from preprocessing.image import Pixels

Depth: TypeAlias = Literal[8, 16]
"""Bits per sample."""

# Rows that are converted at once: 4 bytes per sample of these rows.
_ROWS = 64


def depth_of(samples: npt.NDArray[Any]) -> Depth:
    """Return the depth of samples, uint8 or uint16."""
    return 16 if samples.dtype == np.uint16 else 8


def max_level(samples: npt.NDArray[Any]) -> int:
    """Return the highest level of samples: 255 or 65,535."""
    return 65_535 if samples.dtype == np.uint16 else 255


def to_depth(samples: Pixels, depth: Depth) -> Pixels:
    """Return samples of any shape in a depth; those that have it already are not copied.

    0 and the highest level stay what they are: 16 bits are levels of 8 times 257, and 8 bits are rounded.
    """
    if depth_of(samples) == depth:
        return samples
    if depth == 16:
        return samples.astype(np.uint16) * np.uint16(257)
    reduced = np.empty(samples.shape, np.uint8)
    for top in range(0, len(samples), _ROWS):
        part = samples[top : top + _ROWS].astype(np.uint32)
        reduced[top : top + _ROWS] = (part * 255 + 32_895) >> 16  # = round(v / 257), for every v
    return reduced


def resize(
    samples: Pixels,
    size: tuple[int, int],
    kernel: PilImage.Resampling,
    box: tuple[float, float, float, float] | None = None,
) -> Pixels:
    """Return samples [H, W] or [H, W, 3] resized by Pillow to (width, height), in the same depth.

    Pillow resizes 8 bits as they are. 16 bits are resized in float32, one channel after the other, then rounded and
    clipped.
    """
    if samples.dtype == np.uint8:
        return np.asarray(PilImage.fromarray(samples).resize(size, kernel, box=box))
    if samples.ndim == 3:
        resized = np.empty((size[1], size[0], samples.shape[2]), np.uint16)
        for channel in range(samples.shape[2]):
            resized[..., channel] = resize(samples[..., channel], size, kernel, box)
        return resized
    floats = np.array(PilImage.fromarray(samples.astype(np.float32)).resize(size, kernel, box=box))
    return np.clip(np.rint(floats, out=floats), 0, 65_535, out=floats).astype(np.uint16)


def to_bytes(samples: Pixels) -> npt.NDArray[np.uint8]:
    """Return samples [..., C] as the models take them: uint8 as they are, uint16 as pairs of bytes, [..., 2 * C].

    The low byte of a pair comes first.
    """
    if samples.dtype == np.uint8:
        return samples.view(np.uint8)
    return np.ascontiguousarray(samples, "<u2").view(np.uint8)


def from_bytes(packed: npt.NDArray[np.uint8], channels: int = 3) -> Pixels:
    """Return the samples of `to_bytes`, [..., channels], without a copy where the bytes of a pixel lie side by side."""
    if packed.shape[-1] == channels:
        return packed
    return np.ascontiguousarray(packed).view("<u2")
