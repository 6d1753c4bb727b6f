"""`make bench`: compares our network with the plain formulation, and measures memory, Triton's overhead and tuning.

    python -m benchmarks.network [--rounds 7] [--parts speed,memory,triton,choices,openvino] [--threads 2]

Writes benchmarks/results/network.json, and from it the tables and plots of docs/measurements/benchmarks.md. Candidates
run in turn (A B A B ...) in one process: one warm-up round, then medians of the other rounds. The number of threads is
fixed, torch.inference_mode is on, and results must agree before times are measured. Use an idle machine. The part
`openvino` is not among the default ones: it needs benchmarks/packages.txt.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.candidates import make_pair, make_runs
from benchmarks.choices import measure_chunks, measure_heads
from benchmarks.machine import StolenTime, describe_machine, now, restart_with_sleeping_threads
from benchmarks.openvino_peer import measure_openvino
from benchmarks.peak_memory import measure_peak
from benchmarks.report import write_report
from benchmarks.rounds import Timing, compare, measure_in_turn
from benchmarks.triton_overhead import measure_triton
from swinir.inference.cpu_count import count_cpus
from swinir.inference.memory import keep_freed_memory

RESULTS = Path(__file__).parent / "results" / "network.json"
ROUNDS = 7
# Triton gets this many times the rounds: its overhead is a few percent, less than the difference between rounds.
TRITON_ROUNDS = 4
SPEED: Mapping[str, tuple[int, ...]] = {
    "compact_x4": (64, 128, 256),
    "lightweight_x4": (64, 128, 256),
    "classical_x4": (64,),
    "real_x4": (64,),
}
MEMORY: Mapping[str, tuple[int, ...]] = {"compact_x4": (256,), "lightweight_x4": (256,)}
TRITON = {"compact_x4": (256,)}
CHUNKS = {"compact_x4": (128,), "lightweight_x4": (128,)}
HEADS = {"lightweight_x4": (10, 12, 16), "compact_x4": (12, 16), "real_x4": (30, 32)}
HEADS_SIDE = 64
OPENVINO: Mapping[str, tuple[int, ...]] = {"compact_x4": (64, 128, 256), "lightweight_x4": (64,), "real_x4": (64,)}

Sizes = Mapping[str, tuple[int, ...]]


def measure_speed(sizes: Sizes, rounds: int) -> list[dict[str, Any]]:
    """Compare the times of ours and of the plain formulation."""
    rows: list[dict[str, Any]] = []
    for variant, sides in sizes.items():
        pair = make_pair(variant)
        for side in sides:
            timings = measure_in_turn(make_runs(pair, side), rounds)
            ratios = {name: compare(timings["plain"], timings[name]) for name in ("ours", "fused", "pytorch")}
            rows.append(
                {
                    "variant": variant,
                    "side": side,
                    "ratios": {name: ratio.to_json() for name, ratio in ratios.items()},
                    "timings": _to_json(timings),
                }
            )
            parts = [f"{name} {ratio.median:.2f}x ({ratio.cpu:.2f}x of CPU time)" for name, ratio in ratios.items()]
            _print_now(f"{variant} at {side}: {', '.join(parts)}")
    return rows


def measure_memory(sizes: Sizes, threads: int) -> list[dict[str, Any]]:
    """Compare the peak memory of one pass, each in a separate process."""
    rows: list[dict[str, Any]] = []
    for variant, sides in sizes.items():
        for side in sides:
            names = ("plain", "ours", "fused", "pytorch")
            peaks = {name: measure_peak(name, variant, side, threads) for name in names}
            rows.append({"variant": variant, "side": side, "bytes": peaks})
            _print_now(f"memory of {variant} at {side}: {peaks}")
    return rows


def measure_overhead(sizes: Sizes, rounds: int, threads: int) -> list[dict[str, Any]]:
    """Compare engine, ensemble and stream with the network alone."""
    rows: list[dict[str, Any]] = []
    for variant, sides in sizes.items():
        for side in sides:
            timings = measure_triton(variant, side, rounds, threads)
            rows.append(
                {
                    "variant": variant,
                    "side": side,
                    "over_network": {
                        name: compare(timing, timings["network"]).to_json()
                        for name, timing in timings.items()
                        if name != "network"
                    },
                    "timings": _to_json(timings),
                }
            )
            _print_now(f"over the network alone, {variant} at {side}: {rows[-1]['over_network']}")
    return rows


def measure_choices(chunks: Sizes, heads: Sizes, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Measure the alternatives of each tuning choice."""
    by_chunk = [
        {"variant": variant, "side": side, "tokens": _to_json(measure_chunks(variant, side, rounds))}
        for variant, sides in chunks.items()
        for side in sides
    ]
    by_head = [
        {
            "variant": variant,
            "side": HEADS_SIDE,
            "lengths": _to_json(measure_heads(variant, HEADS_SIDE, rounds, lengths)),
        }
        for variant, lengths in heads.items()
    ]
    return {"chunks": by_chunk, "heads": by_head}


def measure(parts: list[str], rounds: int, threads: int) -> dict[str, Any]:
    """Run the parts and return the content of the results file."""
    torch.set_num_threads(threads)
    keep_freed_memory()  # as in Triton's swinir model; the plain formulation gets faster, too
    work: dict[str, Callable[[], Any]] = {
        "speed": lambda: measure_speed(SPEED, rounds),
        "memory": lambda: measure_memory(MEMORY, threads),
        "triton": lambda: measure_overhead(TRITON, TRITON_ROUNDS * rounds, threads),
        "choices": lambda: measure_choices(CHUNKS, HEADS, rounds),
        "openvino": lambda: measure_openvino(OPENVINO, rounds, threads),
    }
    machine = describe_machine()  # once, because the load of one part would count as other load in the next
    if not machine["quiet"]:
        _print_now(
            f"Other processes are running (load {machine['load_before']}). Compare CPU seconds instead of wall seconds."
        )
    results: dict[str, Any] = {}
    for part in parts:
        began, stolen = now(), StolenTime()
        rows = work[part]()
        described = {**machine, "date": began, "stolen": round(stolen.share(), 4)}
        own_rounds = TRITON_ROUNDS * rounds if part == "triton" else rounds
        results[part] = {"machine": described, "rounds": own_rounds, "rows": rows}
    return results


def main() -> None:
    """Measure, store the results and write the page."""
    if "--started" not in sys.argv[1:]:
        restart_with_sleeping_threads("benchmarks.network", sys.argv[1:])
    parser = argparse.ArgumentParser(description="Compare our network with the plain formulation.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--parts", default="speed,memory,triton,choices")
    parser.add_argument("--threads", type=int, default=count_cpus())
    parser.add_argument("--started", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    results = measure(arguments.parts.split(","), arguments.rounds, arguments.threads)
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({**before, **results}, indent=1) + "\n")
    write_report()


def _to_json(timings: Mapping[str, Timing]) -> dict[str, Any]:
    return {name: timing.to_json() for name, timing in timings.items()}


def _print_now(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
