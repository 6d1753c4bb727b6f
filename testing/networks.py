"""Networks with deterministic weights: small ones, and those of the parity cases."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from swinir.custom_variants import ROW_KEY, write_row
from swinir.network.swinir import SwinIR
from swinir.weights.load import write_weights
from swinir.zoo import Variant
from testing.data import ROOT
from testing.reference_weights import fill

PARITY = ROOT / "tests" / "data" / "parity"
CASES: dict[str, Any] = json.loads((PARITY / "cases.json").read_text())
# As parameters of tests: the two largest networks are marked slow.
PARITY_CASES = [pytest.param(name, marks=pytest.mark.slow) if name.startswith("real_") else name for name in CASES]
PUBLISHED_NAMES: dict[str, dict[str, list[int]]] = json.loads((PARITY / "parameter_names.json").read_text())
SMALL: dict[str, Any] = {
    "upscale": 2,
    "in_chans": 3,
    "window_size": 8,
    "img_range": 1.0,
    "depths": [2, 2],
    "embed_dim": 12,
    "num_heads": [2, 2],
    "mlp_ratio": 2,
    "resi_connection": "1conv",
    "upsampler": "pixelshuffledirect",
}
"""Arguments of a small network that has every part of the published one."""


def parity_config(case: str) -> dict[str, Any]:
    """Return the arguments of a parity case, without img_size, which our network does not take."""
    return {name: value for name, value in CASES[case]["config"].items() if name != "img_size"}


def reference_tensors(config: dict[str, Any]) -> dict[str, Tensor]:
    """Return the deterministic weights of the parity cases for any configuration."""
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in SwinIR(**config).named_parameters()}
    return {name: torch.from_numpy(array) for name, array in fill(shapes).items()}


def reference_network(config: dict[str, Any]) -> SwinIR:
    """Return our network with these weights, ready for inference."""
    with torch.device("meta"):
        network = SwinIR(**config)
    network.load_state_dict(reference_tensors(config), strict=True, assign=True)
    return network.requires_grad_(requires_grad=False).eval()


def draw_images(batch: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Return noise in 0..1, [B, C, H, W] float32: the input that is most sensitive to differences."""
    return torch.from_numpy(np.random.default_rng(seed).random((batch, channels, height, width), dtype=np.float32))


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Return the maximum difference, relative to the maximum expected magnitude."""
    assert actual.shape == expected.shape, f"{tuple(actual.shape)} against {tuple(expected.shape)}"
    return float((actual - expected).abs().max() / expected.abs().max())


@cache
def _small_network(config: str) -> SwinIR:
    return reference_network(json.loads(config))


def install_small(weights_dir: Path, name: str, **changes: Any) -> Variant:
    """Install a small network in a weights folder as a custom variant; return its row."""
    config = {**SMALL, **changes}
    tasks = {1: "color_denoise" if config["in_chans"] == 3 else "gray_denoise"}
    row = Variant(
        name=name,
        task=tasks.get(config["upscale"], "lightweight_sr"),
        scale=config["upscale"],
        summary="For tests.",
        config=config,
        halo=2 * config["window_size"],
        max_tile_px=8 * config["window_size"],
        is_imported=True,
    )
    write_weights(_small_network(json.dumps(config)), weights_dir / f"{name}.safetensors", {ROW_KEY: write_row(row)})
    return row


def draw_tiles(count: int, height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Return noise as the engine's input, uint8 [N, H, W, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)
