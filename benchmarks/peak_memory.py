"""Measures the peak memory of one forward pass in a separate process.

    python -m benchmarks.peak_memory plain|ours|fused|pytorch VARIANT SIDE THREADS

The result is the process's VmHWM after the pass minus its value before: interpreter, torch, weights and a warm-up on
one window. ru_maxrss is not used because it starts from the size of the parent process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.candidates import NetworkPair, compile_network, draw_image, make_pair
from swinir.network import fused
from swinir.zoo import find_variant


def measure_peak(candidate: str, variant: str, side: int, threads: int) -> int:
    """Return the peak in bytes, measured in a new process."""
    command = [sys.executable, "-m", "benchmarks.peak_memory", candidate, variant, str(side), str(threads)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{finished.stderr}")
    return int(json.loads(finished.stdout)["peak_bytes"])


def _peak_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM. Peak memory can only be measured on Linux.")


def make_run(candidate: str, pair: NetworkPair, side: int) -> Callable[[], object]:
    """Return the pass that is measured, on an image of side x side."""
    images = draw_image(pair.variant, side)
    if candidate != "ours":
        return partial(pair.plain if candidate == "plain" else pair.ours, images)
    pixels = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
    return partial(compile_network(pair, torch.get_num_threads()).forward, pixels)


def main() -> None:
    """Measure in this process and print the peak."""
    candidate, variant, side, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    pair = make_pair(variant)
    with fused.disabled() if candidate == "pytorch" else nullcontext(), torch.inference_mode():
        make_run(candidate, pair, find_variant(variant).window)()
        run = make_run(candidate, pair, int(side))
        before = _peak_bytes()
        run()
    print(json.dumps({"peak_bytes": _peak_bytes() - before}))


if __name__ == "__main__":
    main()
