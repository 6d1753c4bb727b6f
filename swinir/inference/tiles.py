"""Decides whether networks multiply on the tiles of AMX: where they agree with the reference and are quicker."""

from __future__ import annotations

import functools
import logging
from typing import Any

import numpy as np

from swinir.inference.bfloat16 import is_quicker
from swinir.network import library
from swinir.network.agreement import measure_network_error
from swinir.network.compiled_network import PackedConvolution
from swinir.settings import Precision

log = logging.getLogger(__name__)

# Maximum difference from the reference, relative to the largest magnitude: 1.5e-5 on the networks of `agreement`, and
# a thousand times that where a half of the factors is missing.
TOLERANCE = 5e-5
# Tiles must be quicker than vectors of float32 by this factor. A convolution is twice as fast (Intel Xeon of 2023).
MIN_SPEED = 1.2
_CHANNELS, _HEIGHT, _WIDTH = 48, 4, 64  # of the convolution that is timed; a round takes 0.1 ms


def uses_tiles(precision: Precision) -> bool:
    """Return whether networks shall multiply on tiles: only with `auto`, since the factors are rounded to 17 bits."""
    return precision == "auto" and are_usable()


@functools.cache
def are_usable() -> bool:
    """Return whether the library has tiles that agree with the reference and are quicker; found once per process."""
    found = library.find_library()
    if found is None or not found.has_tiles():
        return False
    error = measure_network_error(found, on_tiles=True)
    if not error <= TOLERANCE:
        log.warning("networks run without AMX: on its tiles they differ from the reference by %.1e", error)
        return False
    return are_quicker(found)


def are_quicker(found: Any) -> bool:
    """Return whether a convolution runs quicker on tiles here: the best of some rounds."""
    weight = np.zeros((_CHANNELS, _CHANNELS, 3, 3), np.float32)
    image = np.zeros((_HEIGHT * _WIDTH, _CHANNELS), np.float32)
    layers = {on_tiles: PackedConvolution(weight, weight[0, :, 0, 0], on_tiles=on_tiles) for on_tiles in (False, True)}
    runs = {
        on_tiles: functools.partial(layer.run, found, 1, image, (1, _HEIGHT, _WIDTH))
        for on_tiles, layer in layers.items()
    }
    return is_quicker(runs, MIN_SPEED)
