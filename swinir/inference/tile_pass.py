"""One pass over tiles in PyTorch, from integers to integers: the network, the rules for areas, rounding and the checks.

A recordable pass contains nothing that depends on values: on a GPU it never waits for them, and a CUDA graph can record
it as a whole. On a CPU the values are looked at, to skip rules that change nothing. Both give the same tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from swinir.checks import FIELDS
from swinir.inference.constants import constant
from swinir.inference.engine import LUMINANCE
from swinir.inference.flats import keep_flats
from swinir.inference.neutrals import keep_corners, keep_neutrals
from swinir.inference.shrink import ShrinkMatrices
from swinir.zoo import Variant

# Column of the rows that says which tiles have to run again in float32.
RERUN = FIELDS.index("rerun")

# A network's forward pass: [N, C, H, W] -> float32 [N, C, H * scale, W * scale].
Network = Callable[[Tensor], Tensor]


class PassOutput(NamedTuple):
    """Restored tiles and their checks, on the device of the pass."""

    levels: Tensor
    """[N, H * scale, W * scale, 3] of the type of the tiles, uint8 or uint16; contiguous."""
    rows: Tensor
    """float32 [N, 6], the columns of `swinir.checks.FIELDS`. ``rerun`` is 1 where the network's output is not finite:
    the other columns and the levels of such a tile mean nothing."""


def run_pass(
    network: Network, row: Variant, tiles: Tensor, shrink: ShrinkMatrices | None, *, recordable: bool
) -> PassOutput:
    """Restore tiles, uint8 or uint16 [N, H, W, 3], by the network of a variant.

    ``shrink`` shrinks results to the size of the tiles; None uses PyTorch's own function, which exists on CPUs alone.
    """
    highest = 65535.0 if tiles.dtype == torch.uint16 else 255.0
    images = tiles.permute(0, 3, 1, 2).float()
    images.div_(constant((highest,), images.device))  # by a tensor: by a number a GPU multiplies by its inverse
    network_input = images if row.channels == 3 else _luminance(images)
    restored = network(network_input)
    is_finite = torch.isfinite(_extremes(restored)).all(dim=1)
    if row.channels == 1:  # keep the (enlarged) colour and replace its luminance
        restored = _enlarge(images, row.scale) + (restored - _enlarge(network_input, row.scale))
    keep_corners(restored, images, recordable=recordable)
    keep_neutrals(restored, images, recordable=recordable)
    keep_flats(restored, images, row.halo, recordable=recordable)
    deep = None
    if tiles.dtype == torch.uint16:
        deep = restored.mul(65535.0).clamp_(0, 65535).round_().to(torch.uint16)
    levels, rows = _check(restored.mul_(255.0), images, shrink, recordable=recordable)
    rows[:, RERUN] = ~is_finite
    return PassOutput((levels if deep is None else deep).permute(0, 2, 3, 1).contiguous(), rows)


def agree(actual: PassOutput, expected: PassOutput, tolerance: float) -> bool:
    """Return whether two passes have the same tiles that are not finite, and levels that differ by at most `tolerance`.

    The tolerance is for values in 0..1.
    """
    is_finite = expected.rows[:, RERUN] == 0
    if not torch.equal(actual.rows[:, RERUN] == 0, is_finite):
        return False
    highest = 65535 if expected.levels.dtype == torch.uint16 else 255
    differences = (actual.levels.to(torch.int32) - expected.levels.to(torch.int32)).abs_()[is_finite]
    return not bool((differences > tolerance * highest).any())


def _luminance(images: Tensor) -> Tensor:
    return (images * constant(LUMINANCE, images.device).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)


def _enlarge(images: Tensor, scale: int) -> Tensor:
    return images if scale == 1 else interpolate(images, scale_factor=scale, mode="bicubic")


def _extremes(images: Tensor) -> Tensor:
    """Return the minimum and maximum of each image [N, 3, H, W] as [N, 2]; both are NaN when the image has a NaN.

    One call per image, in the network's channels-last order. One call for the whole batch takes 10 times as long
    (measured: 8 ms for 1024 x 1024), and every tile needs this twice.
    """
    return torch.stack([torch.stack(torch.aminmax(image)) for image in images.permute(0, 2, 3, 1)])


def _check(
    restored: Tensor, images: Tensor, shrink: ShrinkMatrices | None, *, recordable: bool
) -> tuple[Tensor, Tensor]:
    """Return values [N, 3, H, W] in levels rounded to uint8, and their rows of checks, float32 [N, 6]."""
    rows = torch.zeros(len(restored), len(FIELDS), device=restored.device)
    extremes = _extremes(restored)
    rows[:, FIELDS.index("lowest")], rows[:, FIELDS.index("highest")] = extremes.unbind(1)
    if recordable or bool((extremes < -0.5).any() | (extremes > 255.5).any()):
        out = [(image - 127.5).abs_().gt_(128).mean() for image in restored.permute(0, 2, 3, 1)]
        rows[:, FIELDS.index("clamped")] = torch.stack(out)  # takes a third of the time of counting booleans
    levels = restored.clamp_(0, 255).round_()
    levels = levels.to(torch.uint8) if recordable else _to_bytes(levels)
    rows[:, FIELDS.index("back_error")] = _measure_back_errors(levels, images, shrink)
    return levels, rows


def _measure_back_errors(levels: Tensor, images: Tensor, shrink: ShrinkMatrices | None) -> Tensor:
    """Return the mean squared difference in levels between images and results shrunk to their size, [N]."""
    shrunk = levels
    if levels.shape != images.shape:  # antialiased bicubic, as the published training pairs were made
        if shrink is None:  # in bytes, which takes a tenth of the time in floating point
            shrunk = interpolate(levels, images.shape[2:], mode="bicubic", antialias=True)
        else:
            shrunk = shrink.apply(levels)
    return (shrunk - images * 255.0).square().flatten(1).mean(dim=1)


def _to_bytes(levels: Tensor) -> Tensor:
    """Return whole numbers from 0 to 255 as uint8, NaN as any number. In NumPy: a third of torch's time on a CPU."""
    converted = torch.empty_like(levels, dtype=torch.uint8)
    with np.errstate(invalid="ignore"):
        np.copyto(converted.numpy(), levels.numpy(), casting="unsafe")
    return converted
