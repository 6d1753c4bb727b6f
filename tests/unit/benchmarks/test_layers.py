"""The operations that benchmarks/layers.py counts, and the figures that the capacity model takes from benchmarks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.layers import COUNTED, count_teraflops
from planning.reports.capacity import MEASURED_GPU, MEASURED_GPU_S_PER_MEGAPIXEL, TERAFLOPS_PER_MEGAPIXEL
from swinir.zoo import VARIANTS
from testing.data import ROOT


def operations_per_pixel(config: dict[str, Any]) -> float:
    """Count multiply-adds (two operations each) of SwinIR by hand: linear layers, attention and convolutions."""
    dim, window, scale = config["embed_dim"], config["window_size"], config["upscale"]
    linear = (4 + 2 * config["mlp_ratio"]) * dim**2  # query, key, value, projection, and both layers of the MLP
    attention = 2 * window**2 * dim  # scores and weighted sum over the tokens of a window
    blocks = sum(config["depths"]) * (linear + attention)
    residual = 9 * dim**2 if config["resi_connection"] == "1conv" else 2 * 9 * dim * dim // 4 + (dim // 4) ** 2
    body = 9 * 3 * dim + (len(config["depths"]) + 1) * residual
    if config["upsampler"] == "pixelshuffledirect":
        tail = 9 * dim * 3 * scale**2
    else:  # nearest+conv at x4: one convolution on the small image, one at x2, two and the last one at x4
        tail = 9 * dim * 64 + 4 * 9 * 64**2 + 16 * (2 * 9 * 64**2 + 9 * 64 * 3)
    return float(2 * (blocks + body + tail))


@pytest.mark.parametrize("name", COUNTED)
def test_counted_operations_are_those_of_the_layers(name: str) -> None:
    counted = count_teraflops(name)

    assert counted == pytest.approx(operations_per_pixel(dict(VARIANTS[name].config)) / 1e6, rel=1e-6)
    assert TERAFLOPS_PER_MEGAPIXEL[name] == pytest.approx(counted, rel=1e-3)


def test_gpu_times_of_the_capacity_model_are_the_measured_ones() -> None:
    measured = json.loads((ROOT / "benchmarks/results/gpu.json").read_text())
    seconds = {
        (row["variant"], row["side"]): row["timings"]["bfloat16"]["median_s"] / row["side"] ** 2 * 1e6
        for row in measured["networks"]
    }

    assert MEASURED_GPU in measured["machine"]["card"]
    for variant, per_megapixel_s in MEASURED_GPU_S_PER_MEGAPIXEL.items():
        largest = max(side for name, side in seconds if name == variant)
        assert per_megapixel_s == pytest.approx(seconds[variant, largest], rel=0.01)
