"""Creates the engine for the settings and this machine, and imports torch only if that engine needs it."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from swinir.inference.compiled_engine import CompiledEngine
from swinir.inference.compiled_tiles import measure_tile_error
from swinir.inference.cuda_context import start_context
from swinir.inference.engine import Engine
from swinir.inference.tiles import uses_tiles
from swinir.network.agreement import measure_network_error
from swinir.network.library import TOLERANCE, find_library, library_path
from swinir.settings import EngineSettings

log = logging.getLogger(__name__)

DEVICES = Path("/dev")
# Files that the drivers of GPUs create: NVIDIA, NVIDIA on Tegra, NVIDIA under WSL, AMD.
GPU_FILES = ("nvidiactl", "nvidia[0-9]*", "nvhost*", "nvmap", "dxg", "kfd")


def create_engine(settings: EngineSettings) -> Engine:
    """Return the compiled engine if it may be used and agrees with its reference, else the engine in PyTorch."""
    if has_gpu():
        start_context()
    elif settings.engine == "auto":
        library = find_library()  # logs why there is none
        if library is not None:
            # On tiles the same networks agree, with a tolerance of its own.
            network_error = 0.0 if uses_tiles(settings.precision) else measure_network_error(library)
            error = float(np.max([network_error, measure_tile_error(library)]))  # NaN if one is
            if error <= TOLERANCE:
                return CompiledEngine(
                    library,
                    settings.weights_dir,
                    threads=settings.threads,
                    max_weights_bytes=settings.max_weights_bytes,
                    precision=settings.precision,
                )
            log.warning(
                "the engine runs in PyTorch: the compiled network differs from the reference by %.1e. Delete %s",
                error,
                library_path(),
            )
    from swinir.inference.torch_engine import TorchEngine  # noqa: PLC0415 - takes a second and 200 MB

    return TorchEngine(
        settings.weights_dir,
        threads=settings.threads,
        max_weights_bytes=settings.max_weights_bytes,
        precision=settings.precision,
    )


def has_gpu() -> bool:
    """Return whether there may be a GPU that PyTorch can use. PyTorch decides, but importing it takes a second."""
    return any(next(DEVICES.glob(name), None) is not None for name in GPU_FILES)
