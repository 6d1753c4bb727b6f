"""The pace of past jobs: seconds per megapixel of the upload, by variant. It estimates how long a job will take."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from cachetools import LRUCache

from gateway.jobs.phases import Phase

_WORK: tuple[Phase, ...] = ("decode", "work", "encode")

# Weight of the latest job in the moving average.
_LATEST_JOB_WEIGHT = 0.2

# Variants whose pace is remembered. The zoo has 38; imports add any number.
_MAX_VARIANTS = 128


class JobPace:
    """Measures finished jobs. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Name of the variant -> seconds per pixel.
        self._per_pixel: LRUCache[str, float] = LRUCache(_MAX_VARIANTS)

    def observe(self, variant: str, pixels: int, phases_s: Mapping[Phase, float]) -> None:
        """Add a job with an upload of `pixels`, by the seconds of its phases; queue and boot do not count."""
        with self._lock:
            latest = sum(phases_s.get(phase, 0.0) for phase in _WORK) / pixels
            usual = self._per_pixel.get(variant, latest)
            self._per_pixel[variant] = usual + _LATEST_JOB_WEIGHT * (latest - usual)

    def seconds_per_megapixel(self) -> dict[str, float]:
        """Return the pace of each variant that was measured, by name."""
        with self._lock:
            return {name: round(1e6 * per_pixel, 3) for name, per_pixel in self._per_pixel.items()}

    def estimate_s(self, variant: str, pixels: int) -> float | None:
        """Return the seconds that a job will probably take; None before the first job with this variant."""
        with self._lock:
            per_pixel = self._per_pixel.get(variant)
        return None if per_pixel is None else per_pixel * pixels
