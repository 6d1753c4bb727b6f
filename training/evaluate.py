"""How a run is judged: PSNR on the variant's main benchmark and on the images held out of training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from preprocessing.tiling import pad_to_window
from swinir.network.swinir import SwinIR
from training.data import held_out_pairs
from training.degradations import Pixels
from training.measure import benchmarks_of, compare
from training.recipes import Recipe


def to_tensor(pixels: Any) -> Tensor:
    """uint8 or float32 of 0..255, [B, H, W, C] -> float32 [B, C, H, W] in 0..1."""
    return torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float() / 255.0


def restore(network: SwinIR, pixels: Any, margin: int = 0) -> Any:
    """One image, uint8 [H, W, C] -> uint8 [H * scale, W * scale, C]: clamped, rounded, cast.

    `margin` is that of the variant: padded as the service pads.
    """
    height, width = pixels.shape[:2]
    padded = pad_to_window(pixels, network.window_size, margin)
    with torch.inference_mode():
        restored = network(to_tensor(padded[None]))[0]
    levels = restored.mul(255.0).round_().clamp_(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    rows, columns = (slice(margin * network.upscale, (margin + side) * network.upscale) for side in (height, width))
    return levels[rows, columns]


def judge(network: SwinIR, recipe: Recipe, bench: Path) -> dict[str, float]:
    """Mean PSNR in dB on the variant's main benchmark: of bicubic or the input itself, and of the network."""
    channels, margin = recipe.channels, recipe.variant.margin
    _, pairs = next(benchmarks_of(recipe.variant, bench))
    # Grey images of a benchmark come in three equal channels.
    before, after = compare(
        lambda given: restore(network, given[..., :channels], margin).repeat(3 // channels, axis=2),
        recipe.scale,
        pairs,
    )
    return {"plain_db": before, "db": after}


def judge_held_out(network: SwinIR, recipe: Recipe, held_out: Sequence[Pixels]) -> dict[str, float]:
    """Mean PSNR in dB on held-out images at the nominal strength; empty when there are none."""
    if not held_out:
        return {}
    pairs, margin = held_out_pairs(held_out, recipe), recipe.variant.margin
    _, after = compare(lambda given: restore(network, given, margin), recipe.scale, pairs)
    return {"held_out_db": after}
