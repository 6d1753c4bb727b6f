"""Measures the peak memory of one forward pass in a separate process.

    python -m benchmarks.peak_memory plain|ours|pytorch VARIANT SIDE THREADS

The result is the process's VmHWM after the pass minus its value before: interpreter, torch, weights and a warm-up on
one window. ru_maxrss is not used because it starts from the size of the parent process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import torch

from benchmarks.candidates import make_pair
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


def main() -> None:
    """Measure in this process and print the peak."""
    candidate, variant, side, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    pair = make_pair(variant)
    network = pair.plain if candidate == "plain" else pair.ours
    row = find_variant(variant)
    with fused.disabled() if candidate == "pytorch" else nullcontext(), torch.inference_mode():
        network(torch.rand(1, row.channels, row.window, row.window))
        images = torch.rand(1, row.channels, int(side), int(side))
        before = _peak_bytes()
        network(images)
    print(json.dumps({"peak_bytes": _peak_bytes() - before}))


if __name__ == "__main__":
    main()
