"""The engine in C and NumPy, for CPUs: the same results as `torch_engine` without importing torch.

A variant that the C library does not cover runs in PyTorch, which is imported for the first one.
"""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

import numpy as np

from swinir.checks import FIELDS, Rows
from swinir.inference.bfloat16 import chooses_bfloat16
from swinir.inference.compiled_tiles import Floats, blend, find_flats, find_neutrals, measure_back_errors, round_tiles
from swinir.inference.cpu_count import count_cpus
from swinir.inference.engine import CPU_MICRO_BATCH_PIXELS, LUMINANCE, Engine, NotFiniteError, Tiles
from swinir.inference.memory import LARGEST_KEPT_COMPILED_BYTES, keep_freed_memory
from swinir.inference.network_cache import NetworkCache
from swinir.inference.pixel_rules import FLAT_REACH_PX, enlarge, keep_corners
from swinir.inference.tiles import uses_tiles
from swinir.network.compiled_network import CompiledNetwork
from swinir.settings import MAX_WEIGHTS_BYTES, Precision
from swinir.weights.arrays import UncoveredError, read_arrays
from swinir.zoo import Variant

log = logging.getLogger(__name__)


class CompiledEngine(Engine):
    """Runs the tiles of all variants on the CPU. ``library`` is `swinir.network.library.find_library`'s."""

    device_name = "cpu"

    def __init__(
        self,
        library: Any,
        weights_dir: Path | None = None,
        threads: int | None = None,
        max_weights_bytes: int = MAX_WEIGHTS_BYTES,
        precision: Precision = "auto",
    ) -> None:
        self._library, self._threads, self._precision = library, threads or count_cpus(), precision
        self._on_tiles = uses_tiles(precision)
        keep_freed_memory(LARGEST_KEPT_COMPILED_BYTES)
        networks: NetworkCache[Any] = NetworkCache(weights_dir, max_weights_bytes, self._load)
        super().__init__(weights_dir, networks, CPU_MICRO_BATCH_PIXELS)

    def describe(self) -> str:
        """Return device, precision and threads in one line, for the log."""
        products = " on AMX in bfloat16x3" if self._on_tiles else ""
        return f"engine on cpu, float32{products}, {self._threads} threads, network compiled"

    def _load(self, row: Variant, path: Path) -> tuple[Any, int]:
        try:
            weights = read_arrays(row.config, path)
            network = CompiledNetwork(row.config, weights, self._library, self._threads, on_tiles=self._on_tiles)
        except UncoveredError as reason:
            log.warning("%s runs in PyTorch: %s", row.name, reason)
            return self._torch_engine.load_file(row, path)
        if network.fits_bfloat16 and chooses_bfloat16(row.name, row.channels, self._precision, network.run_in):
            network.use_bfloat16()
        return network, network.size_bytes

    @functools.cached_property
    def _torch_engine(self) -> Any:
        from swinir.inference.torch_engine import TorchEngine  # noqa: PLC0415 - takes seconds and 200 MB

        keep_freed_memory()
        engine = TorchEngine(self._weights_dir, "cpu", self._threads, precision=self._precision)
        engine.counters = self.counters
        return engine

    def run_checked(self, network: Any, row: Variant, tiles: Tiles, out: Tiles, checks: Rows) -> None:
        """Restore ``tiles`` [n, T, T', 3] into ``out`` and fill in their rows of checks, all but `halvings`."""
        if not isinstance(network, CompiledNetwork):
            self._torch_engine.run_checked(network, row, tiles, out, checks)
            return
        has_16_bits = tiles.dtype == np.uint16
        images = tiles.astype(np.float32)
        images /= np.float32(65535 if has_16_bits else 255)
        network_input = images if row.channels == 3 else _luminance(images)
        restored = network.forward(network_input, in_float32=has_16_bits)
        # What follows keeps NaN and infinity, so the values are searched for them while they are rounded.
        for index in self._finish(row, restored, images, network_input, out, checks):
            self.counters.add(reruns=1)
            log.warning("a tile of %s was not finite: running it again in float32", row.name)
            one = slice(index, index + 1)
            restored = network.forward(network_input[one], in_float32=True)
            if self._finish(row, restored, images[one], network_input[one], out[one], checks[one]):
                raise NotFiniteError(f"{row.name} returned values that are not finite for a tile, also in float32")
            checks[index, FIELDS.index("rerun")] = 1

    @np.errstate(invalid="ignore", over="ignore")  # of tiles that are not finite
    def _finish(
        self, row: Variant, restored: Floats, images: Floats, network_input: Floats, out: Tiles, checks: Rows
    ) -> list[int]:
        """Apply the rules, round to ``out`` and fill in ``checks``; return the numbers of tiles that are not finite."""
        if row.channels == 1:  # keep the (enlarged) colour and replace its luminance
            restored = enlarge(images, row.scale) + (restored - enlarge(network_input, row.scale))
        keep_corners(restored, images)
        c_library = self._library, self._threads
        blend(*c_library, restored, images, find_neutrals(*c_library, images), to_grey=True)
        blend(*c_library, restored, images, find_flats(*c_library, images, min(row.halo, FLAT_REACH_PX)))
        has_16_bits = out.dtype == np.uint16
        levels: Tiles = np.empty(restored.shape, np.uint8) if has_16_bits else out
        ranges = round_tiles(*c_library, restored, levels, out if has_16_bits else None)
        lowest, highest = (ranges.extremes * np.float32(255)).T
        checks[:, FIELDS.index("lowest")], checks[:, FIELDS.index("highest")] = lowest, highest
        checks[:, FIELDS.index("clamped")] = ranges.clamped
        checks[:, FIELDS.index("back_error")] = measure_back_errors(*c_library, levels, images)
        return ranges.find_not_finite()


def _luminance(images: Floats) -> Floats:
    return (images * np.array(LUMINANCE, np.float32)).sum(axis=3, keepdims=True)
