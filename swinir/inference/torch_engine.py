"""The engine in PyTorch, for GPUs and CPUs: device, precision, the forward pass and the check of every tile."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from swinir.checks import Rows
from swinir.inference.cpu_count import count_cpus
from swinir.inference.cuda_faults import is_context_lost
from swinir.inference.cuda_graphs import GraphCache
from swinir.inference.engine import (
    CPU_MICRO_BATCH_PIXELS,
    Engine,
    EngineError,
    NotFiniteError,
    Restored,
    Tiles,
)
from swinir.inference.network_cache import NetworkCache
from swinir.inference.precision import choose_autocast, set_block_precision
from swinir.inference.shrink import shrink_matrices
from swinir.inference.tile_copies import CopyStreams, PinnedCopies, TileCopies
from swinir.inference.tile_pass import RERUN, PassOutput, run_pass
from swinir.network import fused
from swinir.network.blocks import blocks_in_float32
from swinir.network.cuda.choose import use_kernels
from swinir.network.swinir import SwinIR
from swinir.settings import MAX_WEIGHTS_BYTES, Precision
from swinir.weights.load import load_network
from swinir.zoo import Variant

log = logging.getLogger(__name__)

# Pixels of one micro-batch on a GPU: measured in docs/measurements/gpu.md.
CUDA_MICRO_BATCH_PIXELS = 4 * 256 * 256


class TorchEngine(Engine):
    """Runs the tiles of all variants on one device in PyTorch."""

    def __init__(
        self,
        weights_dir: Path | None = None,
        device: str | None = None,
        threads: int | None = None,
        max_weights_bytes: int = MAX_WEIGHTS_BYTES,
        precision: Precision = "auto",
    ) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.device_name = str(self.device)
        on_cpu = self.device.type == "cpu"
        if on_cpu:
            torch.set_num_threads(threads or count_cpus())
        self.precision = choose_autocast(self.device, precision)
        self._block_precision = precision
        self.on_context_lost: Callable[[], object] = lambda: os._exit(1)
        """Called when the GPU can compute nothing more for this process. By default it ends the process, which the
        launcher and the health check notice; the gateway then sends the image again."""
        self.graphs: GraphCache | None = None
        """Recorded forward passes, on a GPU: at most a quarter of its memory."""
        self.copies = TileCopies(self.device)
        if self.device.type == "cuda":
            self.graphs = GraphCache(torch.cuda.get_device_properties(self.device).total_memory // 4)
            self.copies = PinnedCopies(self.device, CopyStreams(self.device))

        super().__init__(
            weights_dir,
            NetworkCache(weights_dir, max_weights_bytes, self.load_file, self._free_memory),
            CPU_MICRO_BATCH_PIXELS if on_cpu else CUDA_MICRO_BATCH_PIXELS,
        )

    def load_file(self, row: Variant, path: Path) -> tuple[SwinIR, int]:
        """Return the network of a variant with the weights of ``path``, ready to run, and its bytes in memory."""
        network = load_network(row, path, self.device)
        if self.precision == torch.bfloat16:
            use_kernels(network, row.name)
        elif self.device.type == "cpu":
            set_block_precision(network, row.name, self._block_precision)
        return network, network.prepare()

    def warm_up(self, variant: str) -> None:
        """Load a variant and run one small tile; with graphs again, which records its pass."""
        super().warm_up(variant)
        if self.graphs is not None:
            super().warm_up(variant)

    def restore(self, tiles: Tiles, variant: str, is_cancelled: Callable[[], bool] = lambda: False) -> Restored:
        """Run tiles as `Engine.restore` does; calls `on_context_lost` after a fault that CUDA does not recover from."""
        try:
            return super().restore(tiles, variant, is_cancelled)
        except (EngineError, RuntimeError) as error:
            if is_context_lost(self.device):
                log.critical("the GPU can compute nothing more for this process, which ends: %s", error)
                self.on_context_lost()
            raise

    @property
    def max_running(self) -> int:
        """Micro-batches that may be begun before the first of them is finished."""
        return self.copies.max_running

    def _free_memory(self) -> None:
        self.copies.clear()
        if self.graphs is not None:
            self.graphs.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def describe(self) -> str:
        """Return device, precision and threads in one line, for the log."""
        card = f" ({torch.cuda.get_device_name(self.device)})" if self.device.type == "cuda" else ""
        blocks = "" if self.device.type != "cpu" else f", blocks {'fused' if fused.is_available() else 'in PyTorch'}"
        return f"engine on {self.device}{card}, {self.precision}, {torch.get_num_threads()} threads{blocks}"

    def run_checked(self, network: SwinIR, row: Variant, tiles: Tiles, out: Tiles, checks: Rows) -> None:
        """Restore ``tiles`` [n, T, T', 3] into ``out`` and fill in their rows of checks."""
        self.begin_checked(network, row, tiles, out, checks)()

    @torch.inference_mode()
    def begin_checked(
        self, network: SwinIR, row: Variant, tiles: Tiles, out: Tiles, checks: Rows
    ) -> Callable[[], None]:
        """Queue the copies and the pass of ``tiles`` on a GPU, and return what waits for them; a CPU runs them now."""
        on_device = self.copies.upload(tiles)
        collect = self.copies.download(self._run_pass(network, row, on_device))

        @torch.inference_mode()
        def finish() -> None:
            collect(out, checks)
            for index in np.flatnonzero(checks[:, RERUN]):
                self.counters.add(reruns=1)
                log.warning("a tile of %s was not finite: running it again in float32", row.name)
                levels, rows = self._run_pass(network, row, on_device[index : index + 1], in_float32=True)
                if rows[0, RERUN]:
                    raise NotFiniteError(f"{row.name} returned values that are not finite for a tile, also in float32")
                torch.from_numpy(out[index : index + 1]).copy_(levels)
                torch.from_numpy(checks[index : index + 1]).copy_(rows)
                checks[index, RERUN] = 1

        return finish

    def _run_pass(self, network: SwinIR, row: Variant, tiles: Tensor, *, in_float32: bool = False) -> PassOutput:
        """Restore tiles on the device, by a graph where there is one. bfloat16 has 8 bits: 16 bits are in float32."""
        exact = in_float32 or tiles.dtype == torch.uint16
        precision = torch.float32 if exact else self.precision
        on_gpu = self.device.type != "cpu"
        _, height, width, _ = tiles.shape
        shrink = shrink_matrices(height, width, row.scale, self.device) if on_gpu and row.scale > 1 else None

        def run(batch: Tensor) -> PassOutput:
            return run_pass(
                lambda images: self._forward(network, images, precision), row, batch, shrink, recordable=on_gpu
            )

        with blocks_in_float32() if exact else nullcontext():
            if self.graphs is None or precision != self.precision:
                return run(tiles)
            return self.graphs.run(network, tiles, run, shrink)

    def _forward(self, network: SwinIR, images: Tensor, precision: torch.dtype) -> Tensor:
        in_bfloat16 = precision == torch.bfloat16
        # Convolutions in float32 use TF32 (10 bits) on a GPU only where blocks use bfloat16 (8 bits).
        with (
            torch.backends.cudnn.flags(enabled=True, allow_tf32=in_bfloat16),
            torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=in_bfloat16),
        ):
            return network(images).float()
