"""Seconds per megapixel that upscaling takes here, by variant: measured in earlier runs, and used for estimates.

The last runs are stored in a file of `state_dir`, so that a dry run knows them. Without any, nothing is estimated: one
machine is a hundred times as fast as another.
"""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from statistics import median

# Images that count for one variant: a machine that was busy or got a GPU is forgotten soon.
_MAX_IMAGES = 9
# Images below this size say more about the time of a request than about that of a pixel.
_MIN_MEGAPIXELS = 0.01
# Variants that the file names, those of services elsewhere included.
_MAX_VARIANTS = 200


class Pace:
    """The pace of one place: this machine, or a service elsewhere."""

    def __init__(self, path: Path, place: str = "here") -> None:
        """`place` is "here", or the URL of a service. A file that cannot be read counts as empty."""
        self._path = path
        self.is_here = place == "here"
        self._place = place
        self._has_changed = False
        self._by_variant = {
            name: deque(values, _MAX_IMAGES) for name, values in _read(path).items() if len(values) <= _MAX_IMAGES
        }

    def note(self, variant: str, pixels: int, seconds: float) -> None:
        """Record an image of so many pixels, without the time of a boot or a queue."""
        if pixels >= _MIN_MEGAPIXELS * 1e6 and seconds > 0:
            values = self._by_variant.setdefault(self._name(variant), deque(maxlen=_MAX_IMAGES))
            self._has_changed = True
            values.append(seconds / (pixels / 1e6))

    def estimate_s(self, variant: str, pixels: int) -> float | None:
        """Return the seconds that an image will take; None if nothing of this variant was measured."""
        values = self._by_variant.get(self._name(variant))
        return median(values) * pixels / 1e6 if values else None

    def save(self) -> None:
        """Write the file if an image was recorded. Does nothing if that is impossible."""
        if not self._has_changed:
            return
        names = list(self._by_variant)[-_MAX_VARIANTS:]
        text = json.dumps({name: [round(value, 4) for value in self._by_variant[name]] for name in names})
        replacement = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            replacement.write_text(text)
            replacement.replace(self._path)
        except OSError:
            return

    def _name(self, variant: str) -> str:
        return f"{self._place} {variant}"


def _read(path: Path) -> dict[str, list[float]]:
    try:
        read = json.loads(path.read_text())
        return {
            str(name): [float(value) for value in values if 0 < float(value) < 1e6] for name, values in read.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def describe_duration(seconds: float) -> str:
    """Return "12 s", "3 min", "2 h 10 min": as exact as an estimate is."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
