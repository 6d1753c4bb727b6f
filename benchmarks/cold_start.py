"""Measures the steps of a cold start: from a sleeping embedded backend to the first band of a 256x256 image.

`python -m benchmarks.cold_start` boots a real Triton several times, with each engine in turn, and writes the table in
docs/explanation/cold-start.md and benchmarks/results/cold_start.json. On a machine with a GPU both engines are PyTorch.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.machine import describe_machine
from benchmarks.report import ROOT, replace_part, table
from gateway.backend.embedded import EmbeddedBackend
from gateway.backend.triton_stubs import find_stubs
from gateway.cancellation import CancelToken
from gateway.config.settings import Settings
from swinir.settings import ENGINES, EngineChoice
from testing.images import draw_photo

RESULTS = ROOT / "benchmarks" / "results" / "cold_start.json"
ROUNDS = 7
SIDE_PX = 256
LIMIT_S = 120.0
_TIMES = re.compile(r"imports ([\d.]+) s, weights ([\d.]+) s, warm-up ([\d.]+) s")

STEPS = {
    "server": "the gateway starts tritonserver",
    "stub": "tritonserver starts the Python process of `swinir`",
    "imports": "Python, numpy, the project's packages and, where it is used, torch are imported",
    "weights": "the weights are read, checked and laid out",
    "warm-up": "one 64x64 tile passes through the network",
    "ready": "Triton reports ready, and the gateway sees it",
    "first band": f"the {SIDE_PX}x{SIDE_PX} image is sent and returns as one band",
}


def measure_round(folder: Path, engine: EngineChoice) -> tuple[dict[str, float], float]:
    """Boot a backend and upscale an image; return the seconds of each step, and the MB that its processes take."""
    backend = EmbeddedBackend(Settings(state_dir=str(folder), engine=engine))
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
        stubs = find_stubs(process.pid)
        stub = next(each.pid for each in stubs if each.model == "swinir")
        processes = [psutil.Process(process.pid), *(each.process for each in stubs)]
        memory_mb = sum(each.memory_full_info().pss for each in processes) / 1e6
        server_began, stub_began = _began(process.pid), _began(stub)
        found = _TIMES.search(process.log_path.read_text())
        if found is None:
            raise RuntimeError(f"swinir has not logged the times of its start: see {process.log_path}")
    finally:
        backend.close()
    imports, weights, warm_up = (float(number) for number in found.groups())
    steps = {
        "server": server_began - requested_at,
        "stub": stub_began - server_began,
        "imports": imports,
        "weights": weights,
        "warm-up": warm_up,
        "ready": ready - stub_began - imports - weights - warm_up,
        "first band": done - ready,
    }
    return steps, memory_mb


def format_cells(values: dict[EngineChoice, list[float]], digits: int = 2) -> list[str]:
    """Return the cells for median, minimum and maximum of both engines."""
    return [f"{of(values[engine]):.{digits}f}" for engine in ENGINES for of in (statistics.median, min, max)]


def _began(pid: int) -> float:
    """Return the start of a process in seconds since the machine booted (proc(5): starttime, field 22)."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and write the page and the results."""
    machine = describe_machine()
    rounds: dict[EngineChoice, list[dict[str, float]]] = {engine: [] for engine in ENGINES}
    memory_mb: dict[EngineChoice, list[float]] = {engine: [] for engine in ENGINES}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS):
            for engine in ENGINES:
                steps, size_mb = measure_round(Path(folder), engine)
                rounds[engine].append(steps)
                memory_mb[engine].append(size_mb)
                print(f"round {number + 1}, {engine}: {sum(steps.values()):.2f} s, {size_mb:.0f} MB")
    totals = {engine: [sum(each.values()) for each in rounds[engine]] for engine in ENGINES}
    ratios = {
        name: statistics.median(values["auto"]) / statistics.median(values["torch"])
        for name, values in (("first_band", totals), ("memory", memory_mb))
    }
    RESULTS.write_text(json.dumps({"machine": machine, "ratios": ratios}, indent=1) + "\n")
    steps_of = {
        words: {engine: [each[name] for each in rounds[engine]] for engine in ENGINES} for name, words in STEPS.items()
    }
    rows = [
        *([words, *format_cells(values)] for words, values in steps_of.items()),
        ["**from asleep to the first band**", *format_cells(totals)],
        ["memory of the backend awake, MB", *format_cells(memory_mb, digits=0)],
    ]
    lines = [
        *table(["step", "median s", "minimum", "maximum", "in PyTorch", "minimum", "maximum"], rows),
        "",
        f"To the first band {ratios['first_band']:.2f} of the time in PyTorch (`SUPERRES_ENGINE=torch`), and",
        f"{ratios['memory']:.2f} of the memory (PSS of tritonserver and its Python processes).",
        "",
        f"{machine['processor']}, {machine['cores']} cores, torch {machine['torch']}, Python {machine['python']};",
        f"{len(totals['auto'])} rounds, engines in turn; {str(machine['date'])[:16].replace('T', ' ')} UTC,",
        f"commit {machine['commit']}, load {machine['load_before']} before"
        + ("." if machine["quiet"] else " (other processes were running)."),
    ]
    replace_part(ROOT / "docs/explanation/cold-start.md", "cold start", lines)


if __name__ == "__main__":
    main()
