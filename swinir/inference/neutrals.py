"""Neutral areas and smooth corners: what a network adds there, although the input gives no reason for it.

Both rules look at the input alone and no further than the halo, so tiles of one image agree. `keep_flats` is the third
rule of this kind.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from swinir.inference.constants import constant
from swinir.inference.flats import box_sum, images_to_change

# Distance from the nearest coloured pixel at which a result is neutral, in pixels of the input, and the width of the
# ramp before it. Black text turns purple by up to 36 levels without this rule, at any distance from coloured text.
_REACH_PX, _RAMP_PX = 6, 2
# Channels are equal within this: half of a level. In 8 bits that is exactly equal; grey of 16 bits that went through a
# conversion of colours differs in its last bits.
_EQUAL = 0.5 / 255
# Weights of R, G and B in the luminance: BT.601 full range.
_LUMINANCE = (0.299, 0.587, 0.114)

# A convolution pads with zeros on two sides of a corner, which networks seldom see in training: smooth corners are off
# by up to 41 levels in the outermost pixels of the input, by 4 in the third. In blocks whose levels differ by at most
# 16, bicubic interpolation is closer to photos in the outermost two pixels (mean squared error 0.4 to 5.4; the
# networks: 1 to 8). It replaces the network up to 8, above which it would show noise that the network removes.
_CORNER_PX, _CORNER_RAMP_PX, _MAX_CORNER_RANGE = 8, 4, 8 / 255


def keep_neutrals(restored: Tensor, images: Tensor, *, recordable: bool = False) -> None:
    """Replace the restored colours of neutral areas by their luminance, in place.

    Args:
        restored: float [N, 3, H * scale, W * scale].
        images: float [N, 3, H, W], the input. Neutral pixels have three channels that are equal within half a level.
        recordable: as in `tile_pass`: does not look at values to skip what changes nothing.
    """
    has_colour = ((images[:, :2] - images[:, 1:]).abs_() > _EQUAL).any(dim=1)
    neutral = box_sum(has_colour, _REACH_PX - _RAMP_PX) == 0
    if not recordable and not neutral.any():
        return
    weights = box_sum(neutral, _RAMP_PX) / box_sum(torch.ones_like(neutral[:1]), _RAMP_PX)
    height, width = images.shape[2:]
    scale = restored.shape[2] // height
    luminance = constant(_LUMINANCE, restored.device).view(3, 1, 1)
    for index in images_to_change(weights, recordable=recordable):
        weight = weights[index].repeat_interleave(scale, dim=-1)[None, :, None]
        grey = (restored[index] * luminance).sum(dim=0, keepdim=True)
        colours = restored[index].view(3, height, scale, width * scale)
        colours.lerp_(grey.reshape(1, height, scale, width * scale).expand_as(colours), weight)


def keep_corners(restored: Tensor, images: Tensor, *, recordable: bool = False) -> None:
    """Replace the network's values in smooth corners of tiles by bicubic interpolation, in place.

    Corners of tiles inside an image are dropped with their halo, so only the image's own corners change. Shapes are
    those of `keep_neutrals`. At scale 1 nothing changes: these variants have a margin. Nor do tiles that are smaller
    than two corners.
    """
    height, width = images.shape[2:]
    scale = restored.shape[2] // height
    if scale == 1 or min(height, width) < 2 * _CORNER_PX:
        return
    side = _CORNER_PX * scale
    line = (torch.arange(side, device=images.device) + 0.5) / scale
    ramp = ((_CORNER_PX - line) / _CORNER_RAMP_PX).clamp_(0, 1)
    for bottom in (False, True):
        for right in (False, True):
            weight = torch.minimum((ramp.flip(0) if bottom else ramp)[:, None], ramp.flip(0) if right else ramp)
            near_rows = slice(-_CORNER_PX, None) if bottom else slice(0, _CORNER_PX)
            near_columns = slice(-_CORNER_PX, None) if right else slice(0, _CORNER_PX)
            block = images[:, :, near_rows, near_columns]
            spread = (block.amax(dim=(2, 3)) - block.amin(dim=(2, 3))).amax(dim=1)
            rows = slice(-side, None) if bottom else slice(0, side)
            columns = slice(-side, None) if right else slice(0, side)
            is_smooth = spread <= _MAX_CORNER_RANGE
            if recordable:
                smooth = interpolate(block, scale_factor=scale, mode="bicubic")
                restored[:, :, rows, columns].lerp_(smooth, weight * is_smooth.view(-1, 1, 1, 1))
                continue
            for index in torch.nonzero(is_smooth).flatten().tolist():
                smooth = interpolate(block[index : index + 1], scale_factor=scale, mode="bicubic")
                restored[index, :, rows, columns].lerp_(smooth[0], weight)
