"""Reads the architecture of a checkpoint from the names and shapes of its tensors; guesses nothing.

The shapes do not show two facts, which the user must give: the factor of the input, and the task of the training.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from swinir.errors import InvalidWeightsError
from swinir.network.shapes import NUM_FEAT

_BLOCK = re.compile(r"layers\.(\d+)\.residual_group\.blocks\.(\d+)\.")


def infer_config(tensors: Mapping[str, Tensor], *, img_range: float, source: str) -> dict[str, Any]:
    """Return the keywords of `SwinIR` for a state dict; raises InvalidWeightsError naming what does not fit.

    ``img_range`` is in no tensor: 255 for the published JPEG networks, 1 for all others.
    """
    reader = _Reader(tensors, source)
    if "conv_first.1.weight" in tensors:
        channels = reader.shape("conv_first.1.weight", 4)[1]
        raise InvalidWeightsError(
            f"{source} folds pixels into {channels} channels (pixel-unshuffle) ahead of its first convolution, "
            "conv_first.1. Such networks cannot be imported; use one that was trained without it"
        )
    embed_dim, in_chans = reader.shape("conv_first.weight", 4)[:2]
    depths = reader.depths()
    tables = [
        reader.shape(f"layers.{group}.residual_group.blocks.0.attn.relative_position_bias_table", 2)
        for group in range(len(depths))
    ]
    window = (math.isqrt(tables[0][0]) + 1) // 2
    if (2 * window - 1) ** 2 != tables[0][0]:
        raise InvalidWeightsError(
            f"{source}: a bias table of {tables[0][0]} rows fits no window size; expected (2 w - 1)^2 rows"
        )
    hidden = reader.shape("layers.0.residual_group.blocks.0.mlp.fc1.weight", 2)[0]
    upsampler, upscale = _infer_upsampler(reader, embed_dim, in_chans)
    return {
        "upscale": upscale,
        "in_chans": in_chans,
        "window_size": window,
        "img_range": float(img_range),
        "depths": depths,
        "embed_dim": embed_dim,
        "num_heads": [heads for _, heads in tables],
        "mlp_ratio": infer_ratio(hidden, embed_dim),
        "resi_connection": "3conv" if "layers.0.conv.0.weight" in tensors else "1conv",
        "upsampler": upsampler,
    }


def infer_ratio(hidden: int, embed_dim: int) -> float:
    """Return an ``mlp_ratio`` that gives ``hidden`` channels: the network truncates ``embed_dim * mlp_ratio``."""
    if hidden % embed_dim == 0:
        return hidden // embed_dim
    return (hidden + 0.5) / embed_dim  # hidden / embed_dim may be too small by a rounding error


def _infer_upsampler(reader: _Reader, embed_dim: int, in_chans: int) -> tuple[str, int]:
    tensors = reader.tensors
    if "conv_up1.weight" in tensors:
        return "nearest+conv", 4 if "conv_up2.weight" in tensors else 2
    if "upsample.0.weight" in tensors and "conv_last.weight" in tensors:
        factors = []
        for step in range(0, 2 * len(tensors), 2):
            if f"upsample.{step}.weight" not in tensors:
                break
            factors.append(reader.shape(f"upsample.{step}.weight", 4)[0] / NUM_FEAT)
        if factors == [9.0]:
            return "pixelshuffle", 3
        if set(factors) == {4.0}:
            return "pixelshuffle", 2 ** len(factors)
        raise InvalidWeightsError(
            f"{reader.source}: upsample multiplies its channels by {factors}; expected 9 once, or 4 each time"
        )
    if "upsample.0.weight" in tensors:
        channels = reader.shape("upsample.0.weight", 4)[0]
        scale = math.isqrt(channels // in_chans)
        if scale**2 * in_chans != channels:
            raise InvalidWeightsError(
                f"{reader.source}: upsample makes {channels} channels; expected the scale squared times {in_chans}"
            )
        return "pixelshuffledirect", scale
    if reader.shape("conv_last.weight", 4)[:2] == (in_chans, embed_dim):
        return "", 1
    raise InvalidWeightsError(f"{reader.source}: conv_last fits neither {embed_dim} channels nor an upsampler")


class _Reader:
    """Reads shapes from a state dict; errors name the missing or misshapen tensor."""

    def __init__(self, tensors: Mapping[str, Tensor], source: str) -> None:
        self.tensors = tensors
        self.source = source

    def shape(self, name: str, dimensions: int) -> tuple[int, ...]:
        if name not in self.tensors:
            raise InvalidWeightsError(f"{self.source} is not a SwinIR checkpoint: it lacks {name}")
        shape = tuple(self.tensors[name].shape)
        if len(shape) != dimensions or 0 in shape:
            raise InvalidWeightsError(
                f"{self.source}: {name} has shape {list(shape)}; expected {dimensions} dimensions"
            )
        return shape

    def depths(self) -> list[int]:
        """Return the number of blocks in each group; groups and blocks must be numbered from 0 without a gap."""
        blocks: dict[int, set[int]] = {}
        for name in self.tensors:
            if found := _BLOCK.match(name):
                blocks.setdefault(int(found[1]), set()).add(int(found[2]))
        depths = [len(blocks[group]) for group in sorted(blocks)]
        gaps = [group for group in blocks if blocks[group] != set(range(len(blocks[group])))]
        if not blocks or sorted(blocks) != list(range(len(blocks))) or gaps:
            raise InvalidWeightsError(
                f"{self.source} is not a SwinIR checkpoint: its layers are not numbered from 0 without a gap"
            )
        return depths
