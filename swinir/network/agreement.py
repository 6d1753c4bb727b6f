"""Compares the C library with the reference on small networks that have every kind of layer. Imports no torch."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from swinir.network.compiled_network import CompiledNetwork, Weights
from swinir.network.packing import Floats
from swinir.network.reference import run_network
from swinir.network.shapes import parameter_shapes

_SMALL: Mapping[str, Any] = {
    "in_chans": 3,
    "window_size": 4,
    "img_range": 1.0,
    "depths": [2],
    "embed_dim": 20,
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


def measure_network_error(library: Any, *, on_tiles: bool = False) -> float:
    """Return the largest difference between library and reference, relative to the largest magnitude; may be NaN."""
    errors = []
    for case in _run_references():
        network = CompiledNetwork(case.config, case.weights, library, 1, on_tiles=on_tiles)
        difference = np.abs(network.forward(case.images) - case.expected)
        errors.append(float(difference.max() / np.abs(case.expected).max()))
    return float(np.max(errors))


class _Case(NamedTuple):
    config: Mapping[str, Any]
    weights: Weights
    images: Floats
    expected: npt.NDArray[Any]


@functools.cache
def _run_references() -> list[_Case]:
    random = np.random.default_rng(0)
    cases = []
    for config in _NETWORKS:
        shapes = parameter_shapes(config)
        weights = {name: random.standard_normal(shape, np.float32) / 8 for name, shape in shapes.items()}
        images = random.random((1, 8, 12, config["in_chans"]), np.float32)
        cases.append(_Case(config, weights, images, run_network(config, weights, images)))
    return cases
