"""Networks with deterministic weights: small ones of every kind, and those of the parity cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
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
"""Keywords of a network with every part of the published one, small enough for a test."""


def parity_config(case: str) -> dict[str, Any]:
    """The keywords of a parity case; the training side is no keyword of ours."""
    return {name: value for name, value in CASES[case]["config"].items() if name != "img_size"}


def reference_tensors(config: dict[str, Any]) -> dict[str, Tensor]:
    """The deterministic weights of the parity cases, for any configuration."""
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in SwinIR(**config).named_parameters()}
    return {name: torch.from_numpy(array) for name, array in fill(shapes).items()}


def reference_network(config: dict[str, Any]) -> SwinIR:
    """A network of ours with those weights, ready to serve."""
    with torch.device("meta"):
        network = SwinIR(**config)
    network.load_state_dict(reference_tensors(config), strict=True, assign=True)
    return network.requires_grad_(requires_grad=False).eval()


def draw_images(batch: int, channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Noise in 0..1, [B, C, H, W] float32: the hardest thing to agree on."""
    return torch.from_numpy(np.random.default_rng(seed).random((batch, channels, height, width), dtype=np.float32))


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """Largest difference over the largest magnitude wanted."""
    assert got.shape == wanted.shape, f"{tuple(got.shape)} against {tuple(wanted.shape)}"
    return float((got - wanted).abs().max() / wanted.abs().max())


def install_small(weights_dir: Path, name: str, **changes: Any) -> Variant:
    """Lay a small network into a weights folder as an imported variant of that name; return its row."""
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
    write_weights(reference_network(config), weights_dir / f"{name}.safetensors", {ROW_KEY: write_row(row)})
    return row


def draw_tiles(count: int, height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Noise as the engine takes it, uint8 [N, H, W, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)
