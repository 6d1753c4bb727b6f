"""The engine: tiles in, restored tiles out, on whatever device there is, and never garbage reported as success.

Owns device, precision, micro-batches and the check of every tile. Knows neither Triton nor how an image was tiled.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from swinir.network import SwinIR
from swinir.weights import find_weights, load_network
from swinir.zoo import Variant, find_variant

log = logging.getLogger(__name__)

Tiles = npt.NDArray[np.uint8]
LUMINANCE = (0.299, 0.587, 0.114)  # BT.601 full range, as Pillow's "L"
# Pixels of one micro-batch. CPU: one 256x256 tile, the longest that a cancel waits. CUDA: not measured.
CPU_MICRO_BATCH_PIXELS = 256 * 256
CUDA_MICRO_BATCH_PIXELS = 16 * 256 * 256


class EngineError(Exception):
    """The engine could not answer; the text says why."""


class NotFinite(EngineError):
    """The network gave NaN or infinity for a tile, also in float32."""


class OutOfMemory(EngineError):
    """Not even a micro-batch of one tile fits."""


class Cancelled(EngineError):
    """Everybody who asked for these tiles has left."""


@dataclass
class Counters:
    """What the engine did since it started."""

    tiles: int = 0
    reruns: int = 0
    """Tiles that were not finite and were run again in float32."""
    halvings: int = 0
    """Times a micro-batch was halved for want of memory."""
    loads: int = 0


class Engine:
    """Runs every variant's tiles on one device."""

    def __init__(self, weights_dir: Path | None = None, device: str | None = None, threads: int | None = None) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if self.device.type == "cpu":
            torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
        # Never float16: SwinIR's activations overflow it and whole tiles turn black (SwinIR issues 103, 180).
        has_bf16 = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        self.precision = torch.bfloat16 if has_bf16 else torch.float32
        self.counters = Counters()
        self._weights_dir = weights_dir
        self._networks: dict[str, SwinIR] = {}
        on_cpu = self.device.type == "cpu"
        self._micro_batch_pixels = CPU_MICRO_BATCH_PIXELS if on_cpu else CUDA_MICRO_BATCH_PIXELS

    def describe(self) -> str:
        """Device, precision and threads in one line, for the log."""
        return f"engine on {self.device}, {self.precision}, {torch.get_num_threads()} threads"

    def warm_up(self, variant: str) -> None:
        """Load ``variant`` and run one small tile, so that no visitor pays for it."""
        side = find_variant(variant).window * 8
        self.restore(np.zeros((1, side, side, 3), np.uint8), variant)

    def restore(self, tiles: Tiles, variant: str, is_cancelled: Callable[[], bool] = lambda: False) -> Tiles:
        """Run tiles of one shape through one variant.

        Args:
            tiles: uint8 [N, T, T', 3], sides multiples of the variant's window for seamless grids (others are padded).
            variant: a name of the zoo.
            is_cancelled: asked between micro-batches; true ends the work with Cancelled.

        Returns:
            uint8 [N, T * scale, T' * scale, 3]: clamped, rounded, cast. One-channel variants restore the luminance and
            keep each pixel's colour difference to it.

        Raises:
            UnknownVariant, WeightsError, NotFinite, OutOfMemory, Cancelled.
        """
        row = find_variant(variant)
        network = self._network(row)
        count, height, width, _ = tiles.shape
        restored = np.empty((count, height * row.scale, width * row.scale, 3), np.uint8)
        size = max(1, min(count, self._micro_batch_pixels // (height * width)))
        first = 0
        while first < count:
            if is_cancelled():
                raise Cancelled(f"cancelled after {first} of {count} tiles")
            part = slice(first, min(first + size, count))
            try:
                restored[part] = self._run_checked(network, row, tiles[part])
            except torch.OutOfMemoryError as error:
                if size == 1:
                    raise OutOfMemory(f"one {height}x{width} tile of {variant} does not fit in memory") from error
                size, self.counters.halvings = (size + 1) // 2, self.counters.halvings + 1
                log.warning("out of memory at %s: micro-batch halved to %d tiles", variant, size)
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            first = part.stop
            self.counters.tiles += part.stop - part.start
        return restored

    def _network(self, row: Variant) -> SwinIR:
        if row.name not in self._networks:
            path = find_weights(row, self._weights_dir)
            self._networks[row.name] = load_network(row, path, self.device)
            self.counters.loads += 1
            log.info("loaded %s from %s", row.name, path)
        return self._networks[row.name]

    def _run_checked(self, network: SwinIR, row: Variant, tiles: Tiles) -> Tiles:
        with torch.inference_mode():
            images = torch.from_numpy(tiles).to(self.device).permute(0, 3, 1, 2).float().div_(255.0)
            given = images if row.channels == 3 else _luminance(images)
            restored = self._forward(network, given, self.precision)
            sound = torch.isfinite(restored.flatten(1)).all(dim=1)
            for index in torch.nonzero(~sound).flatten().tolist():
                self.counters.reruns += 1
                log.warning("a tile of %s was not finite: running it again in float32", row.name)
                again = self._forward(network, given[index : index + 1], torch.float32)
                if not torch.isfinite(again).all():
                    raise NotFinite(f"{row.name} gave values that are not finite for a tile, also in float32")
                restored[index : index + 1] = again
            if row.channels == 1:
                restored = images + (restored - given)  # scale 1: colour kept, luminance replaced
            levels = restored.mul_(255.0).round_().clamp_(0, 255).to(torch.uint8)
            return levels.permute(0, 2, 3, 1).cpu().numpy()

    def _forward(self, network: SwinIR, images: Tensor, precision: torch.dtype) -> Tensor:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
            return network(images).float()


def _luminance(images: Tensor) -> Tensor:
    weights = torch.tensor(LUMINANCE, device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)
