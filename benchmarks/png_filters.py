"""Measures PNG encoders at zlib level 1 in turn: Pillow's, and fixed row filters computed in numpy.

    python -m benchmarks.png_filters IMAGE...

Every image is written unchanged and enlarged four times (bicubic), which is as smooth as our results. Prints medians of
ROUNDS in milliseconds and kilobytes. The table in docs/explanation/codec.md is the reason for the Up filter of
`PngStream`.
"""

from __future__ import annotations

import statistics
import sys
import time
import zlib
from collections.abc import Callable
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage

from preprocessing.codec import Image, Pixels, encode

ROUNDS = 7
BAND_ROWS = 256

Samples = npt.NDArray[np.int16]


def _neighbours(flat: Pixels) -> tuple[Samples, Samples, Samples]:
    left, above, corner = (np.zeros(flat.shape, np.int16) for _ in range(3))
    left[:, 3:], above[1:], corner[1:, 3:] = flat[:, :-3], flat[:-1], flat[:-1, :-3]
    return left, above, corner


def _sub(flat: Pixels) -> tuple[int, npt.NDArray[np.int16]]:
    return 1, flat - _neighbours(flat)[0]


def _average(flat: Pixels) -> tuple[int, npt.NDArray[np.int16]]:
    left, above, _ = _neighbours(flat)
    return 3, flat - (left + above) // 2


def _paeth(flat: Pixels) -> tuple[int, npt.NDArray[np.int16]]:
    left, above, corner = _neighbours(flat)
    to_left, to_above, to_corner = abs(above - corner), abs(left - corner), abs(left + above - 2 * corner)
    second = np.where(to_above <= to_corner, above, corner)
    return 4, flat - np.where((to_left <= to_above) & (to_left <= to_corner), left, second)


def _with_filter(predict: Callable[[Pixels], tuple[int, npt.NDArray[np.int16]]]) -> Callable[[Pixels], int]:
    def write(pixels: Pixels) -> int:
        compressor, n_bytes = zlib.compressobj(1), 0
        for top in range(0, len(pixels), BAND_ROWS):
            flat = pixels[top : top + BAND_ROWS].reshape(-1, pixels.shape[1] * 3)
            number, rest = predict(flat)
            filtered = np.full((len(flat), flat.shape[1] + 1), number, np.uint8)
            filtered[:, 1:] = rest.astype(np.uint8)
            n_bytes += len(compressor.compress(filtered.data))
        return n_bytes + len(compressor.flush())

    return write


def _pillow(pixels: Pixels) -> int:
    target = BytesIO()
    PilImage.fromarray(pixels).save(target, "PNG", compress_level=1)
    return target.tell()


def _shipped(pixels: Pixels) -> int:
    return len(encode(Image(pixels), "png"))


WRITERS: dict[str, Callable[[Pixels], int]] = {
    "Pillow": _pillow,
    "Up (shipped)": _shipped,
    "Sub": _with_filter(_sub),
    "Average": _with_filter(_average),
    "Paeth": _with_filter(_paeth),
}


def measure(pixels: Pixels) -> dict[str, tuple[float, int]]:
    """Return (median seconds, bytes) of each encoder, measured in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in WRITERS}
    sizes: dict[str, int] = {}
    for _ in range(ROUNDS):
        for name, write in WRITERS.items():
            start = time.perf_counter()
            sizes[name] = write(pixels)
            seconds[name].append(time.perf_counter() - start)
    return {name: (statistics.median(seconds[name]), sizes[name]) for name in WRITERS}


def main(paths: list[str]) -> None:
    """Print one line per image and size, then the sums relative to Pillow."""
    totals: dict[str, list[float]] = {name: [0, 0] for name in WRITERS}
    for path in paths:
        native = PilImage.open(path).convert("RGB")
        for scale in (1, 4):
            enlarged = native.resize((native.width * scale, native.height * scale), PilImage.Resampling.BICUBIC)
            line = []
            for name, (spent, n_bytes) in measure(np.array(enlarged)).items():
                totals[name][0] += spent
                totals[name][1] += n_bytes
                line.append(f"{name} {spent * 1e3:.0f} ms {n_bytes / 1e3:.0f} kB")
            print(f"{path} {enlarged.width} x {enlarged.height}:", ", ".join(line), flush=True)
    for name, (spent, written) in totals.items():
        print(
            f"{name}: {spent / totals['Pillow'][0]:.2f} of the time, {written / totals['Pillow'][1]:.2f} of the bytes"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
