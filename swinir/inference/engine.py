"""The engine: restores tiles, and never returns a wrong result as a success.

Owns micro-batches, counters and what happens when memory runs out. `torch_engine` and `compiled_engine` own the forward
pass and the check of every tile. Imports neither torch nor Triton nor the tiling.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from swinir.checks import FIELDS, Rows
from swinir.custom_variants import find_row
from swinir.inference.memory import is_out_of_memory
from swinir.inference.network_cache import NetworkCache
from swinir.zoo import Variant

log = logging.getLogger(__name__)

Tiles = npt.NDArray[np.uint8 | np.uint16]
# Weights of R, G and B in the luminance: BT.601 full range, as Pillow's "L".
LUMINANCE = (0.299, 0.587, 0.114)
# Pixels of one micro-batch on a CPU: one 256 x 256 tile, which is also the longest wait of a cancel.
CPU_MICRO_BATCH_PIXELS = 256 * 256


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
    """Totals since the engine started. Several threads may add to them."""

    tiles: int = 0
    """Tiles restored."""
    seconds: float = 0.0
    """Seconds in the network and its checks."""
    reruns: int = 0
    """Tiles that were not finite and were run again in float32."""
    halvings: int = 0
    """Times a micro-batch was halved because memory ran out."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def add(self, **amounts: float) -> None:
        """Add to the totals of these names."""
        with self._lock:  # the thread of large jobs and Triton's thread call `restore` at the same time
            for name, amount in amounts.items():
                setattr(self, name, getattr(self, name) + amount)


@dataclass(frozen=True)
class Restored:
    """Restored tiles and their checks."""

    tiles: Tiles
    """[N, T * scale, T' * scale, 3] of the type of the input, uint8 or uint16."""
    checks: Rows
    """float32 [N, 6]: one row per tile, with the columns of `swinir.checks.FIELDS`."""
    work_us: npt.NDArray[np.int64]
    """int64 [N]: each tile's share of the time of its forward pass, checks included, in microseconds."""


@dataclass(frozen=True)
class _MicroBatch:
    """A part of the tiles that runs."""

    part: slice
    started: float
    finish: Callable[[], None]


class Engine(ABC):
    """Runs the tiles of all variants on one device."""

    device_name: str
    """``cpu``, ``cuda`` or ``cuda:0``."""

    def __init__(self, weights_dir: Path | None, networks: NetworkCache[Any], micro_batch_pixels: int) -> None:
        self.counters = EngineCounters()
        self.on_progress: Callable[[], object] = lambda: None
        """Called after each micro-batch, so that a watcher of the counters can tell slow work from a hang."""
        self.networks = networks
        self._weights_dir = weights_dir
        self.micro_batch_pixels = micro_batch_pixels
        """Maximum pixels of the tiles in one forward pass."""

    @property
    def max_running(self) -> int:
        """Micro-batches that may be begun before the first of them is finished."""
        return 1

    @abstractmethod
    def describe(self) -> str:
        """Return device, precision and threads in one line, for the log."""

    @abstractmethod
    def run_checked(self, network: Any, row: Variant, tiles: Tiles, out: Tiles, checks: Rows) -> None:
        """Restore ``tiles`` [n, T, T', 3] into ``out`` and fill in their rows of checks, all but `halvings`."""

    def begin_checked(self, network: Any, row: Variant, tiles: Tiles, out: Tiles, checks: Rows) -> Callable[[], None]:
        """Begin what `run_checked` does, and return what finishes it. Both may raise its errors."""
        self.run_checked(network, row, tiles, out, checks)
        return lambda: None

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
            EngineError for other errors of the forward pass.
        """
        row = find_row(variant, self._weights_dir)
        try:
            network = self.networks.get(row)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(f"the weights of {variant} do not fit in memory") from error
        count, height, width, _ = tiles.shape
        restored = Restored(
            np.empty((count, height * row.scale, width * row.scale, 3), tiles.dtype),
            np.zeros((count, len(FIELDS)), np.float32),
            np.zeros(count, np.int64),
        )
        self._run(network, row, tiles, restored, is_cancelled)
        return restored

    def _run(
        self, network: Any, row: Variant, tiles: Tiles, restored: Restored, is_cancelled: Callable[[], bool]
    ) -> None:
        """Fill in the results of tiles, one micro-batch after the other."""
        count, height, width, _ = tiles.shape
        size = max(1, min(count, self.micro_batch_pixels // (height * width)))
        first = halvings = 0
        running: deque[_MicroBatch] = deque()
        finished = time.perf_counter()
        max_running = self.max_running
        while first < count or running:
            begins = first < count and len(running) < max_running
            part = slice(first, min(first + size, count)) if begins else running[0].part
            if begins and is_cancelled():
                done = running[0].part.start if running else first
                raise InferenceCancelledError(f"cancelled after {done} of {count} tiles")
            try:
                if begins:
                    started, given = time.perf_counter(), (restored.tiles[part], restored.checks[part])
                    running.append(_MicroBatch(part, started, self.begin_checked(network, row, tiles[part], *given)))
                    first = part.stop
                    continue
                running[0].finish()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise EngineError(f"{row.name} failed on {height}x{width} tiles: {error}") from error
                if begins and running:  # try again when nothing else runs
                    max_running = 1
                    continue
                count_in_pass = part.stop - part.start
                if count_in_pass == 1:
                    raise OutOfMemoryError(f"one {height}x{width} tile of {row.name} does not fit in memory") from error
                first, size, halvings = part.start, count_in_pass // 2, halvings + 1
                running.clear()
                self.counters.add(halvings=1)
                log.warning("out of memory at %s: micro-batch halved to %d tiles", row.name, size)
                self.networks.free_memory()
                continue
            batch, now = running.popleft(), time.perf_counter()
            seconds, finished = now - max(batch.started, finished), now
            restored.checks[part, FIELDS.index("halvings")] = halvings
            restored.work_us[part] = round(1e6 * seconds / (part.stop - part.start))
            self.counters.add(tiles=part.stop - part.start, seconds=seconds)
            self.on_progress()
