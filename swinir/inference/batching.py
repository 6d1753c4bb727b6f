"""Batching: requests of one variant, tile shape and depth share forward passes, and each fails alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from swinir.errors import WeightsError
from swinir.inference.engine import Engine, EngineError, InferenceCancelledError, Restored, Tiles
from swinir.zoo import UnknownVariantError

log = logging.getLogger(__name__)

# What jobs have in common that share a forward pass: the variant, the shape of a tile, and the type of its samples.
Group = tuple[str, tuple[int, ...], str]


@dataclass
class TileJob:
    """The tiles of one request: uint8 or uint16 [N, T, T', 3], all for one variant."""

    tiles: Tiles
    variants: set[str]
    """The distinct variant names of the tiles; more than one is an error."""
    is_cancelled: Callable[[], bool] = lambda: False
    restored: Restored | None = None
    error: Exception | None = None
    group: Group = field(init=False, default=("", (), ""))

    def __post_init__(self) -> None:
        if len(self.variants) != 1:
            self.error = ValueError(
                f"VARIANT has {len(self.variants)} different names; all tiles of a request must share one variant"
            )
        elif min(self.tiles.shape) == 0:
            self.error = ValueError(f"TILES has shape {list(self.tiles.shape)} and so no pixels")
        else:
            self.group = (next(iter(self.variants)), self.tiles.shape[1:], self.tiles.dtype.str)

    @property
    def pixels(self) -> int:
        """Pixels of all tiles."""
        count, height, width, _ = self.tiles.shape
        return count * height * width


def run_jobs(engine: Engine, jobs: list[TileJob]) -> None:
    """Run every job; afterwards each has ``restored`` or ``error`` set, for every kind of error.

    Jobs of one variant, tile shape and depth share forward passes. When a shared pass fails, its jobs are run one by
    one, so that only the bad one fails.
    """
    groups: dict[Group, list[TileJob]] = {}
    for job in jobs:
        if job.error is None:
            groups.setdefault(job.group, []).append(job)
    for (variant, *_), group in groups.items():
        if not _run_together(engine, variant, group):
            for job in group:
                _run_together(engine, variant, [job])


def _run_together(engine: Engine, variant: str, group: list[TileJob]) -> bool:
    """Run the jobs of a group together. Return false when that failed and each job should be tried alone."""
    try:
        tiles = group[0].tiles if len(group) == 1 else np.concatenate([job.tiles for job in group])
        restored = engine.restore(tiles, variant, lambda: all(job.is_cancelled() for job in group))
    except (UnknownVariantError, WeightsError, InferenceCancelledError) as error:  # applies to every job
        for job in group:
            job.error = error
        return True
    except EngineError as error:
        group[0].error = error
        return len(group) == 1
    except Exception as error:
        log.exception("a pass of %d jobs through %s failed", len(group), variant)
        group[0].error = EngineError(f"{variant} failed: {type(error).__name__}: {error}")
        return len(group) == 1
    first = 0
    for job in group:
        span = slice(first, first + len(job.tiles))
        job.restored = Restored(restored.tiles[span], restored.checks[span], restored.work_us[span])
        job.error = None
        first = span.stop
    return True
