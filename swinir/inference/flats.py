"""Flat areas: where the input is one constant colour, the output is that colour.

A network shifts some flat colours by a few levels, although nothing is there to restore. Where every pixel within the
reach of a pixel is equal to it, the constant replaces the network's value; the transition is a ramp of some pixels. The
mask is computed from the input alone and looks no further than the halo, so that tiles of one image agree.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

# Distance from the nearest other colour at which the constant replaces the network's value completely, in pixels of the
# input: the halo at which compact networks agree within 1 level, because what lies beyond does not reach the pixel.
REACH_PX = 24


def keep_flats(restored: Tensor, images: Tensor, halo: int, *, recordable: bool = False) -> None:
    """Replace the restored values of flat areas by the constant of the input, in place.

    Args:
        restored: float [N, 3, H * scale, W * scale], values as `images`.
        images: float [N, 3, H, W], the input.
        halo: pixels at the border of a tile whose output is dropped; the mask looks no further.
        recordable: as in `tile_pass`: does not look at values to skip what changes nothing.
    """
    weights = flat_weights(images, min(halo, REACH_PX), recordable=recordable)
    _, channels, height, width = images.shape
    scale = restored.shape[2] // height
    for index in images_to_change(weights, recordable=recordable):
        # Repeated along rows only: broadcasting over the last axis as well takes 2.5 times as long (measured).
        colours = images[index].repeat_interleave(scale, dim=-1)[:, :, None]
        weight = weights[index].repeat_interleave(scale, dim=-1)[None, :, None]
        restored[index].view(channels, height, scale, width * scale).lerp_(colours, weight)


def images_to_change(weights: Tensor, *, recordable: bool) -> Iterable[int]:
    """Return the images that a rule with these weights [N, H, W] may change; all of them if it is recorded."""
    if recordable:
        return range(len(weights))
    indices: list[int] = torch.nonzero(weights.flatten(1).any(dim=1)).flatten().tolist()
    return indices


def flat_weights(images: Tensor, reach: int, *, recordable: bool = False) -> Tensor:
    """Return the weight of the constant for each pixel of [N, 3, H, W], float [N, H, W].

    It is 1 where all pixels within `reach` (rows and columns, both ways) are equal, 0 where one within a third of it
    differs, and a ramp between. Pixels outside the image count as equal.
    """
    ramp = reach // 3
    differs = _differs(images)
    constant = box_sum(differs, max(0, reach - ramp - 1)) == 0  # `differs` itself looks one pixel far
    if not recordable and not constant.any():
        return torch.zeros(constant.shape, device=images.device)
    return box_sum(constant, ramp) / box_sum(torch.ones_like(constant[:1]), ramp)


def _differs(images: Tensor) -> Tensor:
    """Return for each pixel of [N, 3, H, W] whether one of its four neighbours has another colour, bool [N, H, W]."""
    count, _, height, width = images.shape
    differs = torch.zeros(count, height, width, dtype=torch.bool, device=images.device)
    down = (images[:, :, 1:] != images[:, :, :-1]).any(dim=1)
    right = (images[:, :, :, 1:] != images[:, :, :, :-1]).any(dim=1)
    differs[:, 1:] |= down
    differs[:, :-1] |= down
    differs[:, :, 1:] |= right
    differs[:, :, :-1] |= right
    return differs


def box_sum(values: Tensor, radius: int) -> Tensor:
    """Return the sum over the box of `radius` around each pixel of [N, H, W], cut at the borders: int32 [N, H, W]."""
    sums = values.to(torch.int32)
    for dim in (1, 2):
        side = sums.shape[dim]
        line = torch.arange(side, device=sums.device)
        totals = sums.cumsum(dim, dtype=torch.int32)
        upper = totals.index_select(dim, (line + radius).clamp_(max=side - 1))
        lower = totals.index_select(dim, (line - radius - 1).clamp_(min=0))
        mask = (line > radius).view(-1, 1) if dim == 1 else line > radius
        sums = upper - lower * mask
    return sums
