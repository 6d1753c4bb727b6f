"""Measures the steps of a cold start: from a sleeping embedded backend to the first band of a 256x256 image.

`python -m benchmarks.cold_start` boots a real Triton several times and writes the table in
docs/explanation/cold-start.md.
"""

from __future__ import annotations

import os
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import describe_machine
from benchmarks.report import ROOT, replace_part
from gateway.backend.embedded import EmbeddedBackend
from gateway.backend.triton_stubs import find_stubs
from gateway.cancellation import CancelToken
from gateway.config.settings import Settings
from testing.images import draw_photo

ROUNDS = 7
SIDE_PX = 256
LIMIT_S = 120.0
_TIMES = re.compile(r"imports ([\d.]+) s, weights ([\d.]+) s, warm-up ([\d.]+) s")

STEPS = {
    "server": "the gateway starts tritonserver",
    "stub": "tritonserver starts the Python process of `swinir`",
    "imports": "Python, numpy and the project's packages are imported",
    "weights": "the weights are read, checked and laid out",
    "warm-up": "one 64x64 tile passes through the network",
    "ready": "Triton reports ready, and the gateway sees it",
    "first band": f"the {SIDE_PX}x{SIDE_PX} image is sent and returns as one band",
}


def measure_round(folder: Path) -> dict[str, float]:
    """Boot a backend and upscale an image; return the seconds of each step."""
    backend = EmbeddedBackend(Settings(state_dir=str(folder)))
    pixels = draw_photo(SIDE_PX, SIDE_PX, seed=1)
    requested_at = time.clock_gettime(time.CLOCK_BOOTTIME)
    backend.start()
    try:
        deadline = time.monotonic() + LIMIT_S
        backend.wait_until_ready(deadline)
        ready = time.clock_gettime(time.CLOCK_BOOTTIME)
        next(
            backend.upscale_bands(
                pixels, "compact_x4", deadline=deadline, request_id="cold", cancel_token=CancelToken()
            )
        )
        done = time.clock_gettime(time.CLOCK_BOOTTIME)
        process = backend.process
        if process is None:
            raise RuntimeError("Triton died during the measurement")
        stub = next(each.pid for each in find_stubs(process.pid) if each.model == "swinir")
        server_began, stub_began = _began(process.pid), _began(stub)
        found = _TIMES.search(process.log_path.read_text())
        if found is None:
            raise RuntimeError(f"swinir has not logged the times of its start: see {process.log_path}")
    finally:
        backend.close()
    imports, weights, warm_up = (float(number) for number in found.groups())
    return {
        "server": server_began - requested_at,
        "stub": stub_began - server_began,
        "imports": imports,
        "weights": weights,
        "warm-up": warm_up,
        "ready": ready - stub_began - imports - weights - warm_up,
        "first band": done - ready,
    }


def _began(pid: int) -> float:
    """Return the start of a process in seconds since the machine booted (proc(5): starttime, field 22)."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and write the page."""
    machine = describe_machine()
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS):
            rounds.append(measure_round(Path(folder)))
            print(f"round {number + 1}: {sum(rounds[-1].values()):.2f} s")
    lines = ["| step | median s | minimum | maximum |", "|---|---|---|---|"]
    for name, words in STEPS.items():
        times = [each[name] for each in rounds]
        lines.append(f"| {words} | {statistics.median(times):.2f} | {min(times):.2f} | {max(times):.2f} |")
    totals = [sum(each.values()) for each in rounds]
    total = f"**{statistics.median(totals):.2f}** | {min(totals):.2f} | {max(totals):.2f}"
    lines += [
        f"| **from asleep to the first band** | {total} |",
        "",
        f"{machine['processor']}, {machine['cores']} cores, torch {machine['torch']}, Python {machine['python']}; "
        f"{len(rounds)} rounds; {str(machine['date'])[:16].replace('T', ' ')} UTC, commit {machine['commit']}, "
        f"load {machine['load_before']} before, niceness {os.getpriority(os.PRIO_PROCESS, 0)}"
        + ("." if machine["quiet"] else " (other processes were running)."),
    ]
    replace_part(ROOT / "docs/explanation/cold-start.md", "cold start", lines)


if __name__ == "__main__":
    main()
