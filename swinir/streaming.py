"""Streaming: upscales an image band by band, with few of its tiles in flight at once. Imports neither torch nor Triton.

The number of tiles in flight follows from how long the last ones took: enough to keep a GPU busy, and so few that the
next request, or a cancel, waits only briefly.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from preprocessing.grey import is_grey, to_grey
from preprocessing.tiling import Grid, bands, split_band, stitch_band
from swinir.checks import Rows

Tiles = npt.NDArray[np.uint8 | np.uint16]
# Tiles uint8 or uint16 [n, T, T', 3] -> restored tiles, their rows of checks, and the microseconds of work; called from
# several threads.
Restore = Callable[[Tiles], tuple[Tiles, Rows, int]]

# Sub-batches of one image in flight: one being computed, one on its way.
MAX_IN_FLIGHT = 2
# Target duration of a sub-batch. When one tile takes longer, a sub-batch is one tile.
SUB_BATCH_S = 0.1
# A second sub-batch is sent ahead only while one takes less than this: only then is hiding the hand-over, about 2 ms,
# worth it.
OVERLAP_BELOW_S = 0.2


class StreamCancelledError(Exception):
    """The client has disconnected; `tiles` is the number of tiles restored before that."""

    def __init__(self, tiles: int) -> None:
        super().__init__(f"the client disconnected after {tiles} tiles")
        self.tiles = tiles


@dataclass(frozen=True)
class RestoredBand:
    """A finished band: rows of the output from one row of tiles."""

    top: int
    """First row of the band in the output."""
    pixels: Tiles
    """[h * scale, W * scale, 3] of the type of the image."""
    checks: Rows
    """float32 [columns, 6]: one row per tile of this band."""
    compute_us: int
    """Microseconds of work for the band's tiles, without waiting. Of a shared pass, the share of these tiles."""


class SubBatchSize:
    """Chooses how many tiles to send at a time from how long the last ones took."""

    def __init__(self) -> None:
        self.tiles = 1
        self.in_flight = 1

    def update(self, tiles: int, seconds: float) -> None:
        """Adapt to the duration of a sub-batch. Grows at most to double, so that one outlier changes little."""
        target = int(SUB_BATCH_S * tiles / max(seconds, 1e-6))
        self.tiles = max(1, min(target, 2 * self.tiles))
        self.in_flight = MAX_IN_FLIGHT if seconds < OVERLAP_BELOW_S else 1


def stream_bands(
    image: Tiles, grid: Grid, scale: int, restore: Restore, is_cancelled: Callable[[], bool]
) -> Iterator[RestoredBand]:
    """Yield the bands of an image [H, W, 3], uint8 or uint16, from top to bottom.

    The bands of a grey image are grey. Holds the tiles of at most two bands. After a cancel no more tiles are sent, and
    those in flight are waited for.
    Raises StreamCancelledError, and every error that `restore` raises.
    """
    size, done, grey = SubBatchSize(), 0, is_grey(image)
    with ThreadPoolExecutor(MAX_IN_FLIGHT, thread_name_prefix="sub-batch") as pool:
        sent: deque[Future[tuple[Tiles, Rows, int, float]]] = deque()
        source = _sub_batches(image, grid, size)
        for row, (top, _) in enumerate(bands(grid)):
            tiles: list[Tiles] = []
            rows: list[Rows] = []
            compute_us = 0
            while len(tiles) < grid.columns:
                while len(sent) < size.in_flight:
                    if is_cancelled():
                        raise StreamCancelledError(done)
                    if (sub_batch := next(source, None)) is None:
                        break
                    sent.append(pool.submit(_time, restore, sub_batch))
                restored, checks, work_us, elapsed_s = sent.popleft().result()
                tiles.extend(restored)
                rows.append(checks)
                compute_us += work_us
                done += len(restored)
                size.update(len(restored), elapsed_s)
            band = stitch_band(tiles, grid, row, scale)
            yield RestoredBand(top * scale, to_grey(band) if grey else band, np.concatenate(rows), compute_us)


def _sub_batches(image: Tiles, grid: Grid, size: SubBatchSize) -> Iterator[Tiles]:
    """Yield the tiles of each row of the grid, `size.tiles` at a time."""
    for row in range(grid.rows):
        tiles, first = split_band(image, grid, row), 0
        while first < grid.columns:
            part = tiles[first : first + size.tiles]
            first += len(part)
            yield part


def _time(restore: Restore, tiles: Tiles) -> tuple[Tiles, Rows, int, float]:
    started = time.monotonic()
    return *restore(tiles), time.monotonic() - started
