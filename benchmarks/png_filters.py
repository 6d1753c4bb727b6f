"""Measures PNG encoders in turn: Pillow's at two levels, ours, and our filters with one strategy and level of zlib-ng.

    python -m benchmarks.png_filters RESULT...

Give it results of the service (a photo, a drawing, a screenshot). Prints the CPU time in milliseconds per megapixel,
the best of ROUNDS, and the bytes relative to Pillow's default (zlib level 6, a filter for each row). The table in
docs/explanation/codec.md is the reason for what `ZlibStream` chooses.
"""

from __future__ import annotations

import sys
import time
import zlib
from collections.abc import Callable
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage
from zlib_ng import zlib_ng

from preprocessing.codec import Image, encode
from preprocessing.formats.png_filters import filter_rows

Pixels = npt.NDArray[np.uint8]

ROUNDS = 3
BAND_ROWS = 64
_UP = 2


def _pillow(level: int) -> Callable[[Pixels], int]:
    def write(pixels: Pixels) -> int:
        target = BytesIO()
        PilImage.fromarray(pixels).save(target, "PNG", compress_level=level)
        return target.tell()

    return write


def _one_way(level: int, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> Callable[[Pixels], int]:
    """Return a writer with our filters, and one level and strategy of zlib-ng for all of the image."""

    def write(pixels: Pixels) -> int:
        compressor, n_bytes = zlib_ng.compressobj(level, zlib.DEFLATED, 15, 9, strategy), 0
        rows = pixels.reshape(len(pixels), -1)
        for top in range(0, len(rows), BAND_ROWS):
            above = rows[top - 1 : top] if top else None
            n_bytes += len(compressor.compress(filter_rows(rows[top : top + BAND_ROWS], above, 3).data))
        return n_bytes + len(compressor.flush())

    return write


def _up_filter(pixels: Pixels) -> int:
    """Write with the Up filter on every row and zlib at level 1, as until 2026-11."""
    flat = pixels.reshape(len(pixels), -1)
    filtered = np.empty((len(flat), 1 + flat.shape[1]), np.uint8)
    filtered[:, 0] = _UP
    filtered[0, 1:] = flat[0]
    np.subtract(flat[1:], flat[:-1], out=filtered[1:, 1:])
    return len(zlib.compress(filtered.data, 1))


def _shipped(pixels: Pixels) -> int:
    return len(encode(Image(pixels), "png"))


DEFAULT = "Pillow, level 6"
WRITERS: dict[str, Callable[[Pixels], int]] = {
    DEFAULT: _pillow(6),
    "Pillow, level 1": _pillow(1),
    "Up, zlib level 1": _up_filter,
    "shipped": _shipped,
    "runs only": _one_way(1, zlib.Z_RLE),
    **{f"zlib-ng level {level}": _one_way(level) for level in range(2, 7)},
}


def measure(pixels: Pixels) -> dict[str, tuple[float, int]]:
    """Return (CPU seconds, bytes) of each writer, measured in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in WRITERS}
    sizes: dict[str, int] = {}
    for _ in range(ROUNDS):
        for name, write in WRITERS.items():
            start = time.process_time()
            sizes[name] = write(pixels)
            seconds[name].append(time.process_time() - start)
    return {name: (min(seconds[name]), sizes[name]) for name in WRITERS}


def main(paths: list[str]) -> None:
    """Print one line per image, then the means and the largest ratio of each writer."""
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in WRITERS}
    for path in paths:
        pixels = np.array(PilImage.open(path).convert("RGB"))
        found = measure(pixels)
        line = []
        for name, (spent, n_bytes) in found.items():
            rows[name].append((spent * 1e9 / (pixels.shape[0] * pixels.shape[1]), n_bytes / found[DEFAULT][1]))
            line.append(f"{name} {rows[name][-1][0]:.0f} ms {rows[name][-1][1]:.3f}")
        print(f"{path} {pixels.shape[1]} x {pixels.shape[0]}:", ", ".join(line), flush=True)
    for name, found_rows in rows.items():
        times, ratios = zip(*found_rows, strict=True)
        mean = f"{np.mean(times):.0f} ms per megapixel, {np.mean(ratios):.3f} of the bytes"
        print(f"{name}: {mean}, at most {max(ratios):.3f}")


if __name__ == "__main__":
    main(sys.argv[1:])
