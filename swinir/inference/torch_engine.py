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
from torch.nn.functional import interpolate

from swinir.checks import FIELDS, Rows
from swinir.inference.cpu_count import count_cpus
from swinir.inference.cuda_faults import is_context_lost
from swinir.inference.cuda_graphs import GraphCache
from swinir.inference.engine import (
    CPU_MICRO_BATCH_PIXELS,
    LUMINANCE,
    Engine,
    EngineError,
    NotFiniteError,
    Restored,
    Tiles,
)
from swinir.inference.flats import keep_flats
from swinir.inference.network_cache import NetworkCache
from swinir.inference.neutrals import keep_corners, keep_neutrals
from swinir.inference.precision import choose_autocast, set_block_precision
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
        if self.device.type == "cuda":
            self.graphs = GraphCache(torch.cuda.get_device_properties(self.device).total_memory // 4)

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

    def _free_memory(self) -> None:
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
        with torch.inference_mode():
            tiles = tiles if tiles.flags.writeable else tiles.copy()  # torch warns about read-only arrays
            has_16_bits = tiles.dtype == np.uint16
            images = torch.from_numpy(tiles).to(self.device).permute(0, 3, 1, 2).float()
            images.div_(65535.0 if has_16_bits else 255.0)
            network_input = images if row.channels == 3 else _luminance(images)
            precision = torch.float32 if has_16_bits else self.precision  # bfloat16 has 8 bits
            with blocks_in_float32() if has_16_bits else nullcontext():
                restored = self._forward(network, network_input, precision)
            rerun = ~torch.isfinite(_extremes(restored)).all(dim=1)
            for index in torch.nonzero(rerun).flatten().tolist():
                self.counters.add(reruns=1)
                log.warning("a tile of %s was not finite: running it again in float32", row.name)
                with blocks_in_float32():
                    rerun_output = self._forward(network, network_input[index : index + 1], torch.float32)
                if not torch.isfinite(rerun_output).all():
                    raise NotFiniteError(f"{row.name} returned values that are not finite for a tile, also in float32")
                restored[index : index + 1] = rerun_output
            if row.channels == 1:  # keep the (enlarged) colour and replace its luminance
                restored = _enlarge(images, row.scale) + (restored - _enlarge(network_input, row.scale))
            keep_corners(restored, images)
            keep_neutrals(restored, images)
            keep_flats(restored, images, row.halo)
            deep = restored.mul(65535.0).clamp_(0, 65535).round_().to(torch.uint16) if has_16_bits else None
            levels, rows = _check(restored.mul_(255.0), images)
            rows[:, FIELDS.index("rerun")] = rerun
            result = levels if deep is None else deep
            torch.from_numpy(out).copy_(result.permute(0, 2, 3, 1))  # from a GPU straight into the result
            torch.from_numpy(checks).copy_(rows)

    def _forward(self, network: SwinIR, images: Tensor, precision: torch.dtype) -> Tensor:
        in_bfloat16 = precision == torch.bfloat16

        def forward(batch: Tensor) -> Tensor:
            # Convolutions in float32 use TF32 (10 bits) on a GPU only where blocks use bfloat16 (8 bits).
            with (
                torch.backends.cudnn.flags(enabled=True, allow_tf32=in_bfloat16),
                torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=in_bfloat16),
            ):
                return network(batch).float()

        if self.graphs is None or precision != self.precision:
            return forward(images)
        return self.graphs.run(network, images, forward)


def _luminance(images: Tensor) -> Tensor:
    weights = torch.tensor(LUMINANCE, device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)


def _enlarge(images: Tensor, scale: int) -> Tensor:
    return images if scale == 1 else interpolate(images, scale_factor=scale, mode="bicubic")


def _extremes(images: Tensor) -> Tensor:
    """Return the minimum and maximum of each image [N, 3, H, W] as [N, 2]; both are NaN when the image has a NaN.

    One call per image, in the network's channels-last order. One call for the whole batch takes 10 times as long
    (measured: 8 ms for 1024 x 1024), and every tile needs this twice.
    """
    return torch.stack([torch.stack(torch.aminmax(image)) for image in images.permute(0, 2, 3, 1)])


def _check(restored: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return values [N, 3, H, W] in levels rounded to uint8, and their rows of checks, float32 [N, 6]."""
    rows = torch.zeros(len(restored), len(FIELDS), device=restored.device)
    extremes = _extremes(restored)
    rows[:, FIELDS.index("lowest")], rows[:, FIELDS.index("highest")] = extremes.unbind(1)
    if bool((extremes < -0.5).any() | (extremes > 255.5).any()):
        out = [(image - 127.5).abs_().gt_(128).mean() for image in restored.permute(0, 2, 3, 1)]
        rows[:, FIELDS.index("clamped")] = torch.stack(out)  # takes a third of the time of counting booleans
    levels = _to_bytes(restored.clamp_(0, 255).round_())
    shrunk = levels
    if levels.shape != images.shape:  # antialiased bicubic, as the published training pairs were made
        # On a CPU in bytes: a tenth of the time in floating point. torch has no such function for a GPU.
        shrunk = levels if levels.device.type == "cpu" else levels.float()
        shrunk = interpolate(shrunk, images.shape[2:], mode="bicubic", antialias=True)
    rows[:, FIELDS.index("back_error")] = (shrunk - images * 255.0).square().flatten(1).mean(dim=1)
    return levels, rows


def _to_bytes(levels: Tensor) -> Tensor:
    """Return whole numbers from 0 to 255 as uint8. On a CPU in NumPy: a third of the time of torch."""
    if levels.device.type != "cpu":
        return levels.to(torch.uint8)
    converted = torch.empty_like(levels, dtype=torch.uint8)
    np.copyto(converted.numpy(), levels.numpy(), casting="unsafe")
    return converted
