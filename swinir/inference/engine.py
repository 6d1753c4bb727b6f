"""The engine: restores tiles on a GPU or a CPU, and never returns a wrong result as a success.

Owns device, precision, micro-batches and the check of every tile. Imports neither Triton nor the tiling.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from swinir.checks import FIELDS, Rows
from swinir.custom_variants import find_row
from swinir.inference.cpu_count import count_cpus
from swinir.inference.flats import keep_flats
from swinir.inference.memory import is_out_of_memory
from swinir.inference.network_cache import NetworkCache
from swinir.inference.neutrals import keep_corners, keep_neutrals
from swinir.inference.precision import choose_autocast
from swinir.network import fused
from swinir.network.blocks import blocks_in_float32
from swinir.network.swinir import SwinIR
from swinir.settings import MAX_WEIGHTS_BYTES, Precision
from swinir.zoo import Variant

log = logging.getLogger(__name__)

Tiles = npt.NDArray[np.uint8 | np.uint16]
# Weights of R, G and B in the luminance: BT.601 full range, as Pillow's "L".
LUMINANCE = (0.299, 0.587, 0.114)
# Pixels of one micro-batch. CPU: one 256 x 256 tile, which is also the longest wait of a cancel. CUDA: measured in
# docs/measurements/gpu.md.
CPU_MICRO_BATCH_PIXELS = 256 * 256
CUDA_MICRO_BATCH_PIXELS = 4 * 256 * 256


class EngineError(Exception):
    """The engine could not restore the tiles; the message says why."""


class NotFiniteError(EngineError):
    """The network returned NaN or infinity for a tile, also in float32."""


class OutOfMemoryError(EngineError):
    """Not even a micro-batch of one tile fits in memory."""


class InferenceCancelledError(EngineError):
    """All clients that requested these tiles have disconnected."""


@dataclass
class EngineCounters:
    """Totals since the engine started."""

    tiles: int = 0
    """Tiles restored."""
    seconds: float = 0.0
    """Seconds in the network and its checks."""
    reruns: int = 0
    """Tiles that were not finite and were run again in float32."""
    halvings: int = 0
    """Times a micro-batch was halved because memory ran out."""


@dataclass(frozen=True)
class Restored:
    """Restored tiles and their checks."""

    tiles: Tiles
    """[N, T * scale, T' * scale, 3] of the type of the input, uint8 or uint16."""
    checks: Rows
    """float32 [N, 6]: one row per tile, with the columns of `swinir.checks.FIELDS`."""
    work_us: npt.NDArray[np.int64]
    """int64 [N]: each tile's share of the time of its forward pass, checks included, in microseconds."""


class Engine:
    """Runs the tiles of all variants on one device."""

    def __init__(
        self,
        weights_dir: Path | None = None,
        device: str | None = None,
        threads: int | None = None,
        max_weights_bytes: int = MAX_WEIGHTS_BYTES,
        precision: Precision = "auto",
    ) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if self.device.type == "cpu":
            torch.set_num_threads(threads or count_cpus())
        else:
            torch.backends.cudnn.allow_tf32 = False  # float32 here is for precision; TF32 has 10 bits
        self.precision = choose_autocast(self.device, precision)
        self.counters = EngineCounters()
        self.on_progress: Callable[[], object] = lambda: None
        """Called after each micro-batch, so that a watcher of the counters can tell slow work from a hang."""
        self._counter_lock = threading.Lock()
        self.networks = NetworkCache(weights_dir, self.device, max_weights_bytes, precision=precision)
        self._weights_dir = weights_dir
        on_cpu = self.device.type == "cpu"
        self.micro_batch_pixels = CPU_MICRO_BATCH_PIXELS if on_cpu else CUDA_MICRO_BATCH_PIXELS
        """Maximum pixels of the tiles in one forward pass."""

    def describe(self) -> str:
        """Return device, precision and threads in one line, for the log."""
        card = f" ({torch.cuda.get_device_name(self.device)})" if self.device.type == "cuda" else ""
        blocks = "" if self.device.type != "cpu" else f", blocks {'fused' if fused.is_available() else 'in PyTorch'}"
        return f"engine on {self.device}{card}, {self.precision}, {torch.get_num_threads()} threads{blocks}"

    def load(self, variant: str) -> None:
        """Load the weights of a variant into the cache; raises UnknownVariantError and WeightsError."""
        self.networks.get(find_row(variant, self._weights_dir))

    def warm_up(self, variant: str) -> None:
        """Load a variant and run one small tile, so that the first request does not wait for it."""
        side = find_row(variant, self._weights_dir).window * 8
        self.restore(np.zeros((1, side, side, 3), np.uint8), variant)

    def restore(self, tiles: Tiles, variant: str, is_cancelled: Callable[[], bool] = lambda: False) -> Restored:
        """Run tiles of one shape through one variant.

        Args:
            tiles: uint8 or uint16 [N, T, T', 3]; uint16 is computed in float32. Sides that are not multiples of the
                variant's window are padded, which shows seams between tiles.
            variant: name of a variant of the zoo or of an imported one.
            is_cancelled: called between micro-batches; true ends the work with InferenceCancelledError.

        Returns:
            Restored tiles, clamped, rounded and cast to the type of `tiles`. One-channel variants restore the luminance
            and keep the difference of each colour to it. Flat areas keep their colour (`swinir.inference.flats`).

        Raises:
            UnknownVariantError, WeightsError, NotFiniteError, OutOfMemoryError, InferenceCancelledError, and
            EngineError for other errors of torch.
        """
        row = find_row(variant, self._weights_dir)
        try:
            network = self.networks.get(row)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(f"the weights of {variant} do not fit in memory") from error
        count, height, width, _ = tiles.shape
        restored = np.empty((count, height * row.scale, width * row.scale, 3), tiles.dtype)
        checks = np.zeros((count, len(FIELDS)), np.float32)
        work_us = np.zeros(count, np.int64)
        size = max(1, min(count, self.micro_batch_pixels // (height * width)))
        first = halvings = 0
        while first < count:
            if is_cancelled():
                raise InferenceCancelledError(f"cancelled after {first} of {count} tiles")
            part = slice(first, min(first + size, count))
            started = time.perf_counter()
            try:
                self._run_checked(network, row, tiles[part], restored[part], checks[part])
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise EngineError(f"{variant} failed on {height}x{width} tiles: {error}") from error
                count_in_pass = part.stop - part.start
                if count_in_pass == 1:
                    raise OutOfMemoryError(f"one {height}x{width} tile of {variant} does not fit in memory") from error
                size, halvings = count_in_pass // 2, halvings + 1
                self._count(halvings=1)
                log.warning("out of memory at %s: micro-batch halved to %d tiles", variant, size)
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            checks[part, FIELDS.index("halvings")] = halvings
            first = part.stop
            seconds = time.perf_counter() - started
            work_us[part] = round(1e6 * seconds / (part.stop - part.start))
            self._count(tiles=part.stop - part.start, seconds=seconds)
            self.on_progress()
        return Restored(restored, checks, work_us)

    def _count(self, **amounts: float) -> None:
        with self._counter_lock:  # the thread of large jobs and Triton's thread call `restore` at the same time
            for name, amount in amounts.items():
                setattr(self.counters, name, getattr(self.counters, name) + amount)

    def _run_checked(self, network: SwinIR, row: Variant, tiles: Tiles, out: Tiles, checks: Rows) -> None:
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
                self._count(reruns=1)
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
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
            return network(images).float()


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
