"""Initial weights that already are an upsampler, so that training starts above bicubic and learns only the rest.

Three channels of the first convolution pass RGB through, ``conv_after_body`` starts at zero, and the last convolution
starts as the least-squares 3x3 linear upsampler of the training set.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from swinir.network.shapes import RGB_MEAN
from training.data import Crops
from training.recipes import Recipe


def start_as_upsampler(network: Any, photos: list[Any], recipe: Recipe, *, keep_features: bool) -> None:
    """Set the first and last layers of a SwinIR in place; with `keep_features` only the last convolution."""
    with torch.no_grad():
        first = network.conv_first
        if not keep_features:
            torch.nn.init.zeros_(network.conv_after_body.weight)
            torch.nn.init.zeros_(network.conv_after_body.bias)
            first.weight[: recipe.channels] = 0
            first.bias[: recipe.channels] = 0
            for channel in range(recipe.channels):
                first.weight[channel, channel, 1, 1] = 1
        if recipe.scale == 1:
            torch.nn.init.zeros_(network.conv_last.weight)  # a residual of zero: the input itself
            torch.nn.init.zeros_(network.conv_last.bias)
            return
        last = network.upsample[0]
        torch.nn.init.zeros_(last.weight)
        weight, bias = least_squares_upsampler(photos, recipe)
        last.weight[:, : recipe.channels] = weight
        last.bias.copy_(bias)


def grey_from_colour(network: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Convert a colour network's tensors for a one-channel network; return them unchanged when they fit already.

    A grey pixel is R = G = B: the first convolution's channels are summed, the last one's averaged, and the mean that
    the colour network subtracts moves into the first bias (border pixels apart, whose padding is zero after it).
    """
    first = tensors["conv_first.weight"]
    if network.in_chans != 1 or first.shape[1] != len(RGB_MEAN):
        return tensors
    mean = torch.tensor(RGB_MEAN).view(1, -1, 1, 1) * network.img_range
    tensors = dict(tensors)
    tensors["conv_first.weight"] = first.sum(dim=1, keepdim=True)
    tensors["conv_first.bias"] = tensors["conv_first.bias"] - (first * mean).sum(dim=(1, 2, 3))
    for name in ("conv_last.weight", "conv_last.bias"):
        if name in tensors:
            tensors[name] = tensors[name].mean(dim=0, keepdim=True)
    return tensors


def least_squares_upsampler(photos: list[Any], recipe: Recipe) -> tuple[torch.Tensor, torch.Tensor]:
    """The 3x3 linear map from input to output pixels with least squared error on 2,048 crops.

    Returns (weight [C * s * s, C, 3, 3], bias [C * s * s]) in the network's own units (mean subtracted).
    """
    crops = Crops(photos, recipe, seed=0)
    given, target = next(crops.batches(12, 2048))
    mean = torch.tensor(RGB_MEAN if recipe.channels == 3 else (0.0,)).view(1, -1, 1, 1)
    x = torch.from_numpy(np.ascontiguousarray(given)).permute(0, 3, 1, 2).float() / 255.0 - mean
    y = torch.from_numpy(np.ascontiguousarray(target)).permute(0, 3, 1, 2).float() / 255.0 - mean
    patches = torch.nn.functional.unfold(x, 3)  # [B, C * 9, 10 * 10]: whole neighbourhoods only
    wanted = torch.nn.functional.pixel_unshuffle(y, recipe.scale)[:, :, 1:-1, 1:-1].flatten(2)
    rows = patches.permute(0, 2, 1).reshape(-1, patches.shape[1])
    rows = torch.cat([rows, torch.ones(len(rows), 1)], dim=1).double()
    values = wanted.permute(0, 2, 1).reshape(-1, wanted.shape[1]).double()
    solution = torch.linalg.lstsq(rows, values).solution.float()  # [C * 9 + 1, C * s * s]
    return solution[:-1].T.reshape(-1, recipe.channels, 3, 3), solution[-1]
