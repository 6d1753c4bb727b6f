"""Measures the CPU time per megapixel of each step around the network, and counts the network's operations.

    python -m benchmarks.layers IMAGE...

Each image is shrunk to at most a megapixel, decoded, enlarged four times by bicubic interpolation (which is as smooth
as a result) and encoded with the project's own code. Prints medians as JSON. CPU time is used because other processes
affect it less than wall time. `planning/reports/capacity.py` and docs/measurements/scale.md use these figures.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as PilImage
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.plain import PlainSwinIR
from preprocessing.codec import Image, UploadLimits, decode, encode, probe
from swinir.zoo import VARIANTS

ROUNDS = 7
SCALE = 4
LONGEST_SIDE = 1000
FLOP_SIDE = 64
COUNTED = ("compact_x4", "lightweight_x4", "real_x4", "real_large_x4")


def cpu_seconds(work: Callable[[], Any]) -> float:
    """Return the median CPU seconds of one call, after a warm-up."""
    work()
    seconds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return statistics.median(seconds)


def measure(path: Path) -> dict[str, float]:
    """Return CPU seconds and bytes per megapixel: of the input for decoding, of the result for the other steps."""
    with PilImage.open(path) as opened:
        photo = opened.convert("RGB")
    photo.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    pixels = np.asarray(photo)
    data = BytesIO()
    photo.save(data, "JPEG", quality=92)
    upload = data.getvalue()
    limits = UploadLimits(max_bytes=10**9, max_pixels=80_000_000, max_side=10**6)
    result_pixels = np.asarray(photo.resize((photo.width * SCALE, photo.height * SCALE), PilImage.Resampling.BICUBIC))
    result = Image(pixels=result_pixels, alpha=None, is_grey=False, icc_profile=None, notes=())
    in_mp, out_mp = pixels.size / 3e6, result_pixels.size / 3e6
    return {
        "decode_jpeg_s": cpu_seconds(lambda: decode(probe(upload, limits))) / in_mp,
        "upload_bytes": len(upload) / in_mp,
        "png_s": cpu_seconds(lambda: encode(result, "png")) / out_mp,
        "png_bytes": len(encode(result, "png")) / out_mp,
        "jpeg_s": cpu_seconds(lambda: encode(result, "jpeg")) / out_mp,
        "jpeg_bytes": len(encode(result, "jpeg")) / out_mp,
        "webp_s": cpu_seconds(lambda: encode(result, "webp")) / out_mp,
        "webp_bytes": len(encode(result, "webp")) / out_mp,
        "copy_s": cpu_seconds(result_pixels.copy) / out_mp,
        "sha256_s": cpu_seconds(lambda: hashlib.sha256(upload)) / in_mp,
    }


def count_teraflops(name: str) -> float:
    """Return the 10^12 floating point operations per megapixel of input (a multiply-add is two).

    Counts the plain formulation: torch's counter sees neither the fused block nor products that are added in place.
    """
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:  # shapes without values
        network = PlainSwinIR(**VARIANTS[name].config).eval()
        network(torch.rand(1, 3, FLOP_SIDE, FLOP_SIDE))
    return counter.get_total_flops() / FLOP_SIDE**2 * 1e6 / 1e12


def main(paths: list[str]) -> None:
    """Measure, count and print the results."""
    rows = [measure(Path(path)) for path in paths]
    medians = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    flops = {name: count_teraflops(name) for name in COUNTED}
    print(json.dumps({"images": len(rows), "rounds": ROUNDS, "per_megapixel": medians, "teraflops": flops}, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
