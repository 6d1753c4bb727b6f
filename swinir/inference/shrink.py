"""Antialiased bicubic shrinking on a GPU, with the whole numbers that Pillow, PyTorch and the C library have on a CPU.

PyTorch has no such function for bytes on a GPU. A weight of up to 15 bits is the sum of two of 8 bits, so products of
matrices in float32, or in TF32, are exact.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from swinir.inference.compiled_tiles import ShrinkFilter


@dataclass(frozen=True)
class ShrinkMatrix:
    """Shrinks lines of ``side * scale`` pixels to ``side``: a weight is ``256 * high + low``, times 2^-shift."""

    high: Tensor
    """float32 [side, side * scale], whole numbers from -128 to 127."""
    low: Tensor
    """The same from 0 to 255."""
    shift: int

    def apply(self, lines: Tensor) -> Tensor:
        """Return [..., side], whole numbers from 0 to 255 in float32, for the same [..., side * scale]."""
        high, low = (torch.matmul(lines, part.T).to(torch.int32) for part in (self.high, self.low))
        sums = high.mul_(256).add_(low).add_(1 << (self.shift - 1))
        return sums.bitwise_right_shift_(self.shift).clamp_(0, 255).float()


@dataclass(frozen=True)
class ShrinkMatrices:
    """Shrinks images by a whole factor, rounded to levels after each direction."""

    down: ShrinkMatrix
    across: ShrinkMatrix

    def apply(self, levels: Tensor) -> Tensor:
        """Return whole numbers in float32 [N, C, H, W] for levels uint8 [N, C, H * scale, W * scale]."""
        narrow = self.across.apply(levels.float())
        return self.down.apply(narrow.transpose(2, 3)).transpose(2, 3)


def shrink_matrices(height: int, width: int, scale: int, device: torch.device) -> ShrinkMatrices:
    """Return what shrinks to this size. Keep it with a CUDA graph that uses it: the cache of its parts is small."""
    return ShrinkMatrices(_matrix(height, scale, device), _matrix(width, scale, device))


@functools.lru_cache(maxsize=16)
def _matrix(side: int, scale: int, device: torch.device) -> ShrinkMatrix:
    weights = ShrinkFilter(side, scale)
    matrix = np.zeros((side, side * scale), np.int32)
    for line, first, count, each in zip(matrix, weights.starts, weights.counts, weights.weights, strict=True):
        line[first : first + count] = each[:count]
    with torch.inference_mode(mode=False):
        high, low = (torch.from_numpy(part.astype(np.float32)).to(device) for part in (matrix >> 8, matrix & 255))
    return ShrinkMatrix(high, low, int(weights.struct.shift))
