"""The engine: tiles in, restored tiles out, on whatever device there is, and never garbage reported as success.

Owns device, precision, micro-batches and the check of every tile. Knows neither Triton nor how an image was tiled.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from swinir.checks import FIELDS, Rows
from swinir.custom_variants import find_row
from swinir.inference.cpu_count import count_processors
from swinir.inference.memory import is_out_of_memory
from swinir.inference.network_cache import NetworkCache
from swinir.network import fused
from swinir.network.swinir import SwinIR
from swinir.settings import MAX_WEIGHTS_BYTES
from swinir.zoo import Variant

log = logging.getLogger(__name__)

Tiles = npt.NDArray[np.uint8]
LUMINANCE = (0.299, 0.587, 0.114)  # BT.601 full range, as Pillow's "L"
# Pixels of one micro-batch. CPU: one 256x256 tile, the longest that a cancel waits. CUDA: docs/measurements/gpu.md.
CPU_MICRO_BATCH_PIXELS = 256 * 256
CUDA_MICRO_BATCH_PIXELS = 4 * 256 * 256


class EngineError(Exception):
    """The engine could not answer; the text says why."""


class NotFiniteError(EngineError):
    """The network gave NaN or infinity for a tile, also in float32."""


class OutOfMemoryError(EngineError):
    """Not even a micro-batch of one tile fits."""


class InferenceCancelledError(EngineError):
    """Everybody who asked for these tiles has left."""


@dataclass
class EngineCounters:
    """What the engine did since it started."""

    tiles: int = 0
    seconds: float = 0.0
    """In the network and the checks around it."""
    reruns: int = 0
    """Tiles that were not finite and were run again in float32."""
    halvings: int = 0
    """Times a micro-batch was halved for want of memory."""


@dataclass(frozen=True)
class Restored:
    """The answer for some tiles, and what was checked of it."""

    tiles: Tiles
    """uint8 [N, T * scale, T' * scale, 3]."""
    checks: Rows
    """float32 [N, 6]: a row a tile, as `swinir.checks.FIELDS` names them."""
    work_us: npt.NDArray[np.int64]
    """int64 [N]: each tile's share of what its forward pass took, the checks around it included."""


class Engine:
    """Runs every variant's tiles on one device."""

    def __init__(
        self,
        weights_dir: Path | None = None,
        device: str | None = None,
        threads: int | None = None,
        max_weights_bytes: int = MAX_WEIGHTS_BYTES,
    ) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if self.device.type == "cpu":
            torch.set_num_threads(threads or count_processors())
        self.precision = choose_precision(self.device)
        self.counters = EngineCounters()
        self._counting = threading.Lock()
        self.shelf = NetworkCache(weights_dir, self.device, max_weights_bytes)
        self._weights_dir = weights_dir
        on_cpu = self.device.type == "cpu"
        self.micro_batch_pixels = CPU_MICRO_BATCH_PIXELS if on_cpu else CUDA_MICRO_BATCH_PIXELS
        """Most pixels of the tiles that go through the network at once."""

    def describe(self) -> str:
        """Device, precision and threads in one line, for the log."""
        card = f" ({torch.cuda.get_device_name(self.device)})" if self.device.type == "cuda" else ""
        blocks = "" if self.device.type != "cpu" else f", blocks {'fused' if fused.is_available() else 'in PyTorch'}"
        return f"engine on {self.device}{card}, {self.precision}, {torch.get_num_threads()} threads{blocks}"

    def load(self, variant: str) -> None:
        """Load ``variant``'s weights, as its first tile would; raises UnknownVariant, WeightsError."""
        self.shelf.take(find_row(variant, self._weights_dir))

    def warm_up(self, variant: str) -> None:
        """Load ``variant`` and run one small tile, so that no visitor pays for it."""
        side = find_row(variant, self._weights_dir).window * 8
        self.restore(np.zeros((1, side, side, 3), np.uint8), variant)

    def restore(self, tiles: Tiles, variant: str, is_cancelled: Callable[[], bool] = lambda: False) -> Restored:
        """Run tiles of one shape through one variant.

        Args:
            tiles: uint8 [N, T, T', 3], sides multiples of the variant's window for seamless grids (others are padded).
            variant: a name of the zoo, or of an imported checkpoint.
            is_cancelled: asked between micro-batches; true ends the work with Cancelled.

        Returns:
            Clamped, rounded, cast. One-channel variants restore the luminance and keep each pixel's colour difference
            to it.

        Raises:
            UnknownVariant, WeightsError, NotFinite, OutOfMemory, Cancelled; EngineError for what torch cannot do.
        """
        row = find_row(variant, self._weights_dir)
        try:
            network = self.shelf.take(row)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(f"the weights of {variant} do not fit in memory") from error
        count, height, width, _ = tiles.shape
        restored = np.empty((count, height * row.scale, width * row.scale, 3), np.uint8)
        checks = np.zeros((count, len(FIELDS)), np.float32)
        work_us = np.zeros(count, np.int64)
        size = max(1, min(count, self.micro_batch_pixels // (height * width)))
        first = halvings = 0
        while first < count:
            if is_cancelled():
                raise InferenceCancelledError(f"cancelled after {first} of {count} tiles")
            part = slice(first, min(first + size, count))
            began = time.perf_counter()
            try:
                self._run_checked(network, row, tiles[part], restored[part], checks[part])
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise EngineError(f"{variant} failed on {height}x{width} tiles: {error}") from error
                tried = part.stop - part.start
                if tried == 1:
                    raise OutOfMemoryError(f"one {height}x{width} tile of {variant} does not fit in memory") from error
                size, halvings = tried // 2, halvings + 1
                self._count(halvings=1)
                log.warning("out of memory at %s: micro-batch halved to %d tiles", variant, size)
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            checks[part, FIELDS.index("halvings")] = halvings
            first = part.stop
            seconds = time.perf_counter() - began
            work_us[part] = round(1e6 * seconds / (part.stop - part.start))
            self._count(tiles=part.stop - part.start, seconds=seconds)
        return Restored(restored, checks, work_us)

    def _count(self, **more: float) -> None:
        with self._counting:  # the lane's thread and Triton's restore at the same time
            for name, amount in more.items():
                setattr(self.counters, name, getattr(self.counters, name) + amount)

    def _run_checked(self, network: SwinIR, row: Variant, tiles: Tiles, into: Tiles, checks: Rows) -> None:
        """Restore ``tiles`` into an array of the right shape, and fill in their rows of checks."""
        with torch.inference_mode():
            tiles = tiles if tiles.flags.writeable else tiles.copy()  # torch warns of arrays that it must not write to
            images = torch.from_numpy(tiles).to(self.device).permute(0, 3, 1, 2).float().div_(255.0)
            given = images if row.channels == 3 else _luminance(images)
            restored = self._forward(network, given, self.precision)
            rerun = ~torch.isfinite(_extremes(restored)).all(dim=1)
            for index in torch.nonzero(rerun).flatten().tolist():
                self._count(reruns=1)
                log.warning("a tile of %s was not finite: running it again in float32", row.name)
                again = self._forward(network, given[index : index + 1], torch.float32)
                if not torch.isfinite(again).all():
                    raise NotFiniteError(f"{row.name} gave values that are not finite for a tile, also in float32")
                restored[index : index + 1] = again
            if row.channels == 1:  # the colour is kept, enlarged if need be; its luminance is replaced
                restored = _enlarge(images, row.scale) + (restored - _enlarge(given, row.scale))
            levels, rows = _check(restored.mul_(255.0), images)
            rows[:, FIELDS.index("rerun")] = rerun
            torch.from_numpy(into).copy_(levels.permute(0, 2, 3, 1))  # from a card at once to where it belongs
            torch.from_numpy(checks).copy_(rows)

    def _forward(self, network: SwinIR, images: Tensor, precision: torch.dtype) -> Tensor:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
            return network(images).float()


def choose_precision(device: torch.device) -> torch.dtype:
    """bfloat16 on a GPU that has it, else float32. Never float16.

    SwinIR's activations overflow float16 and whole tiles turn black (SwinIR issues 103 and 180).
    """
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32


def _luminance(images: Tensor) -> Tensor:
    weights = torch.tensor(LUMINANCE, device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)


def _enlarge(images: Tensor, scale: int) -> Tensor:
    return images if scale == 1 else interpolate(images, scale_factor=scale, mode="bicubic")


def _extremes(images: Tensor) -> Tensor:
    """Least and largest value of each image [N, 3, H, W]: [N, 2]; a NaN anywhere is both.

    Image by image, in channels-last order as the network gives them: over a dimension of the whole batch the same takes
    10 times as long (8 ms for 1024 x 1024; measured), and this is run twice for every tile.
    """
    return torch.stack([torch.stack(torch.aminmax(image)) for image in images.permute(0, 2, 3, 1)])


def _check(restored: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Round values [N, 3, H, W] in levels to uint8, and fill in what is to be known of them: float32 [N, 6]."""
    rows = torch.zeros(len(restored), len(FIELDS), device=restored.device)
    extremes = _extremes(restored)
    rows[:, FIELDS.index("lowest")], rows[:, FIELDS.index("highest")] = extremes.unbind(1)
    if bool((extremes < -0.5).any() | (extremes > 255.5).any()):
        out = [(image - 127.5).abs_().gt_(128).mean() for image in restored.permute(0, 2, 3, 1)]
        rows[:, FIELDS.index("clamped")] = torch.stack(out)  # a third of the time that counting booleans takes
    levels = restored.clamp_(0, 255)
    shrunk = levels
    if levels.shape != images.shape:  # antialiased bicubic: how the published pairs were made
        shrunk = interpolate(levels, images.shape[2:], mode="bicubic", antialias=True)
    rows[:, FIELDS.index("back_error")] = (shrunk - images * 255.0).square().flatten(1).mean(dim=1)
    return levels.round().to(torch.uint8), rows
