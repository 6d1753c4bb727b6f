"""The depth of samples, 8 bits (uint8) or 16 bits (uint16) per channel: converts and packs them.

Imports only NumPy, because each of Triton's models imports it at the start of the backend.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8 | np.uint16]
"""Samples of 8 or 16 bits."""

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
