"""How a run is judged: PSNR on the variant's main benchmark and on the images held out of training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from swinir.network.swinir import SwinIR
from training.data import held_out_pairs
from training.degradations import Pixels
from training.measure import benchmarks_of, compare
from training.recipes import Recipe


def to_tensor(pixels: Any) -> Tensor:
    """uint8 or float32 of 0..255, [B, H, W, C] -> float32 [B, C, H, W] in 0..1."""
    return torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float() / 255.0


def restore(network: SwinIR, pixels: Any) -> Any:
    """One image, uint8 [H, W, C] -> uint8 [H * scale, W * scale, C]: clamped, rounded, cast."""
    with torch.inference_mode():
        restored = network(to_tensor(pixels[None]))[0]
    return restored.mul(255.0).round_().clamp_(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()


def judge(network: SwinIR, recipe: Recipe, bench: Path) -> dict[str, float]:
    """Mean PSNR in dB on the variant's main benchmark: of bicubic or the input itself, and of the network."""
    channels = recipe.channels
    _, pairs = next(benchmarks_of(recipe.variant, bench))
    # Grey images of a benchmark come in three equal channels.
    before, after = compare(
        lambda given: restore(network, given[..., :channels]).repeat(3 // channels, axis=2), recipe.scale, pairs
    )
    return {"plain_db": before, "db": after}


def judge_held_out(network: SwinIR, recipe: Recipe, held_out: Sequence[Pixels]) -> dict[str, float]:
    """Mean PSNR in dB on held-out images at the nominal strength; empty when there are none."""
    if not held_out:
        return {}
    _, after = compare(lambda given: restore(network, given), recipe.scale, held_out_pairs(held_out, recipe))
    return {"held_out_db": after}
