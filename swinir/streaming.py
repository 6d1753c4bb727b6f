"""Streaming: an image becomes bands, one after the other, with few of its tiles under way at once. No torch, no Triton.

How many is measured as the work goes on: enough to keep a GPU busy, so few that whoever comes next, or a cancel, waits
for a moment only.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from preprocessing.tiling import Grid, bands, split_band, stitch_band
from swinir.checks import Rows

Tiles = npt.NDArray[np.uint8]
Restore = Callable[[Tiles], tuple[Tiles, Rows, int]]
"""Tiles uint8 [n, T, T', 3] -> restored tiles, their rows of checks, and the microseconds that the network took for
them; called from several threads."""

MOST_IN_FLIGHT = 2
"""Sub-batches of one image: one at work, one on its way."""
SUB_BATCH_S = 0.1
"""What a sub-batch should take. Where one tile takes longer, one tile is a sub-batch."""
OVERLAP_BELOW_S = 0.2
"""A second sub-batch is sent ahead only while one takes less: only then is the hand-over, about 2 ms, worth hiding."""


class StreamCancelledError(Exception):
    """Whoever asked has left; `tiles` were restored by then."""

    def __init__(self, tiles: int) -> None:
        super().__init__(f"the client left after {tiles} tiles")
        self.tiles = tiles


@dataclass(frozen=True)
class StreamBand:
    """Rows of the output that are final."""

    top: int
    """First row, in pixels of the output."""
    pixels: Tiles
    """uint8 [h * scale, W * scale, 3]."""
    checks: Rows
    """float32 [columns, 6]: a row a tile of this band."""
    compute_us: int
    """What the network took for its tiles: of a forward pass that others share, its share; no wait."""


class Pace:
    """How many tiles to send at a time, learnt from how long the last ones took."""

    def __init__(self) -> None:
        self.tiles = 1
        self.in_flight = 1

    def learn(self, tiles: int, seconds: float) -> None:
        """Take note of a sub-batch. Grows to double at most, so that one odd measurement does little."""
        wanted = int(SUB_BATCH_S * tiles / max(seconds, 1e-6))
        self.tiles = max(1, min(wanted, 2 * self.tiles))
        self.in_flight = MOST_IN_FLIGHT if seconds < OVERLAP_BELOW_S else 1


def stream_bands(
    image: Tiles, grid: Grid, scale: int, restore: Restore, is_cancelled: Callable[[], bool]
) -> Iterator[StreamBand]:
    """Yield the bands of an image [H, W, 3] from top to bottom; raises Stopped, and whatever `restore` raises.

    Holds the tiles of two bands at most. After a cancel nothing more is sent; what was sent is waited for.
    """
    pace, done = Pace(), 0
    with ThreadPoolExecutor(MOST_IN_FLIGHT, thread_name_prefix="sub-batch") as pool:
        sent: deque[Future[tuple[Tiles, Rows, int, float]]] = deque()
        source = _sub_batches(image, grid, pace)
        for row, (top, _) in enumerate(bands(grid)):
            tiles: list[Tiles] = []
            rows: list[Rows] = []
            compute_us = 0
            while sum(map(len, tiles)) < grid.columns:
                while len(sent) < pace.in_flight:
                    if is_cancelled():
                        raise StreamCancelledError(done)
                    if (part := next(source, None)) is None:
                        break
                    sent.append(pool.submit(_time, restore, part))
                restored, checks, work_us, took_s = sent.popleft().result()
                tiles.append(restored)
                rows.append(checks)
                compute_us += work_us
                done += len(restored)
                pace.learn(len(restored), took_s)
            band = stitch_band(tiles[0] if len(tiles) == 1 else np.concatenate(tiles), grid, row, scale)
            yield StreamBand(top * scale, band, np.concatenate(rows), compute_us)


def _sub_batches(image: Tiles, grid: Grid, pace: Pace) -> Iterator[Tiles]:
    """Yield the tiles of each row of the grid, as many at a time as the pace says."""
    for row in range(grid.rows):
        tiles, first = split_band(image, grid, row), 0
        while first < grid.columns:
            part = tiles[first : first + pace.tiles]
            first += len(part)
            yield part


def _time(restore: Restore, tiles: Tiles) -> tuple[Tiles, Rows, int, float]:
    began = time.monotonic()
    return *restore(tiles), time.monotonic() - began
