"""Reads the weights of a network as NumPy arrays, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load

from swinir.network.packing import MAX_HEAD_DIM
from swinir.network.shapes import parameter_shapes
from swinir.weights_file import MAX_WEIGHTS_FILE_BYTES


class UncoveredError(Exception):
    """The C library does not cover this network, or its file needs a closer look; the message says what it is."""


def read_arrays(config: Mapping[str, Any], path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Return the parameters of a configuration by name, as float32 arrays.

    Raises UncoveredError for any other file. `load_network` then says what is wrong with it, if anything.
    """
    try:
        shapes = parameter_shapes(config)
        if path.stat().st_size > MAX_WEIGHTS_FILE_BYTES:
            raise UncoveredError(f"{path.name} is too large")
        arrays = load(path.read_bytes())
    except (OSError, SafetensorError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        raise UncoveredError(f"{path.name} cannot be read without it: {error}") from error
    if {name: array.shape for name, array in arrays.items()} != shapes:
        raise UncoveredError(f"{path.name} has other tensors than its configuration")
    for name, array in arrays.items():
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise UncoveredError(f"{path.name}: {name} is not finite in float32")
    head_dim = config["embed_dim"] // min(config["num_heads"])
    if head_dim > MAX_HEAD_DIM:
        raise UncoveredError(f"its heads have {head_dim} channels, more than {MAX_HEAD_DIM}")
    return arrays
