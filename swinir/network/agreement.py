"""Compares the C library with the reference on small networks that have every kind of layer. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from swinir.network.compiled_network import CompiledNetwork
from swinir.network.reference import run_network
from swinir.network.shapes import parameter_shapes

_SMALL: Mapping[str, Any] = {
    "in_chans": 3,
    "window_size": 4,
    "img_range": 1.0,
    "depths": [2],
    "embed_dim": 12,
    "num_heads": [2],
    "mlp_ratio": 2,
    "resi_connection": "1conv",
}
# Together they have every layer of `swinir.network.swinir`.
_NETWORKS: tuple[Mapping[str, Any], ...] = (
    {**_SMALL, "upscale": 3, "upsampler": "pixelshuffledirect"},
    {**_SMALL, "upscale": 2, "upsampler": "pixelshuffle"},
    {**_SMALL, "upscale": 2, "upsampler": "nearest+conv", "resi_connection": "3conv"},
    {**_SMALL, "upscale": 1, "upsampler": "", "img_range": 255.0, "in_chans": 1},
)


def measure_network_error(library: Any) -> float:
    """Return the largest difference between library and reference, relative to the largest magnitude; may be NaN."""
    random = np.random.default_rng(0)
    errors = []
    for config in _NETWORKS:
        shapes = parameter_shapes(config)
        weights = {name: random.standard_normal(shape, np.float32) / 8 for name, shape in shapes.items()}
        images = random.random((1, 8, 12, config["in_chans"]), np.float32)
        expected = run_network(config, weights, images)
        actual = CompiledNetwork(config, weights, library, threads=1).forward(images)
        errors.append(float(np.abs(actual - expected).max() / np.abs(expected).max()))
    return float(np.max(errors))
