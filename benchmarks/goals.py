"""Prints the goals for speed next to what was measured, and the ratio of the two.

    python -m benchmarks.goals

Measures products in bfloat16 against float32 in turn, and reads the other figures from the results of the last run of
`benchmarks.stack`, `benchmarks.throughput`, `benchmarks.cold_start` and `benchmarks.gpu` (benchmarks/results). A goal
whose benchmark has not been run is printed with the command that measures it.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe_machine
from benchmarks.report import table
from benchmarks.rounds import measure_in_turn
from swinir.inference.cpu_count import count_cpus
from swinir.inference.tiles import uses_tiles
from swinir.network.compiled_network import CompiledNetwork
from swinir.network.library import find_library, has_bfloat16
from swinir.network.shapes import parameter_shapes
from swinir.zoo import VARIANTS
from testing.images import draw_photo
from testing.reference_weights import fill

RESULTS = Path(__file__).parent / "results"
ROUNDS = 5
# (variant, side, how many times as fast as float32 bfloat16 should be)
BFLOAT16 = (("real_x4", 64, 1.6), ("compact_x4", 256, 1.3))
# (variant, milliseconds of a square tile of CARD_SIDE on an H200); smaller tiles should take less by their pixels
CARD, CARD_SIDE = (("real_x4", 8.0), ("compact_x4", 1.0)), 256
# CPU milliseconds per megapixel of the result
STACK = {"png": 45.0, "jpeg": 20.0}
# Relative to PyTorch
START = {"first_band": ("from asleep to the first band", 0.45), "memory": ("memory of the backend awake", 0.4)}
# Images per second relative to the network alone, from this number of clients on
OF_NETWORK, FROM_CLIENTS = 0.97, 4


@dataclass(frozen=True)
class Goal:
    """A goal and what was measured."""

    name: str
    wanted: float
    measured: float | None
    """None if it was not measured."""
    source: str
    """Date of the measurement, or the command that makes it."""
    is_minimum: bool = False

    @property
    def ratio(self) -> float | None:
        """Return measured / wanted; of a minimum, wanted / measured. At most 1 if the goal is reached."""
        if not self.measured:
            return None
        return self.wanted / self.measured if self.is_minimum else self.measured / self.wanted

    def to_row(self) -> list[str]:
        """Return the cells of the table."""
        sign, ratio = "at least" if self.is_minimum else "at most", self.ratio
        if self.measured is None or ratio is None:
            return [self.name, f"{sign} {self.wanted:g}", "-", "-", "not measured", self.source]
        verdict = "reached" if ratio <= 1 else "missed"
        return [self.name, f"{sign} {self.wanted:g}", f"{self.measured:.3g}", f"{ratio:.2f}", verdict, self.source]


def read_results(name: str) -> dict[str, Any] | None:
    """Return the stored results of a benchmark; None if it was not run."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return None
    results: dict[str, Any] = json.loads(path.read_text())
    return results


def describe_source(results: dict[str, Any]) -> str:
    """Return when results were measured, and whether other processes were running."""
    machine = results["machine"]
    return f"{machine['date'][:10]}, {machine['commit']}{'' if machine['quiet'] else ', shared with other work'}"


def measure_bfloat16(rounds: int = ROUNDS) -> Iterator[Goal]:
    """Measure the network in float32 and with products of bfloat16 in turn, in CPU seconds; with the tests' weights."""
    library = find_library()
    on_tiles = uses_tiles("auto")
    for variant, side, wanted in BFLOAT16:
        name = f"bfloat16 on CPUs: {variant} at {side}, times as fast as float32"
        if library is None or not (on_tiles or has_bfloat16()):
            yield Goal(name, wanted, None, "a processor with AMX or AVX512-BF16", is_minimum=True)
            continue
        config = dict(VARIANTS[variant].config)
        weights = fill(parameter_shapes(config))
        exact, quick = (
            CompiledNetwork(config, weights, library, count_cpus(), on_tiles=use) for use in (False, on_tiles)
        )
        if not on_tiles:
            quick.use_bfloat16()
        image = draw_photo(side, side)[np.newaxis].astype(np.float32) / 255
        timings = measure_in_turn(
            {"exact": partial(exact.forward, image), "quick": partial(quick.forward, image)}, rounds
        )
        slow, fast = (statistics.median(timings[network].cpu_s) for network in ("exact", "quick"))
        machine = describe_machine()
        yield Goal(name, wanted, slow / fast, describe_source({"machine": machine}), is_minimum=True)


def card_goals() -> Iterator[Goal]:
    """Return the goals on a GPU."""
    results = read_results("gpu")
    for variant, wanted in CARD:
        rows = [row for row in results["networks"] if row["variant"] == variant] if results else []
        if not results or not rows:
            yield Goal(f"H200: {variant}, ms a tile of {CARD_SIDE}", wanted, None, "make gpu")
            continue
        row = max(rows, key=lambda row: row["side"])  # networks with large weights have smaller tiles
        measured = 1e3 * min(timing["median_s"] for kind, timing in row["timings"].items() if kind != "plain")
        wanted_here, name = wanted * (row["side"] / CARD_SIDE) ** 2, f"H200: {variant}, ms a tile of {row['side']}"
        yield Goal(name, wanted_here, measured, describe_source(results))


def stack_goals() -> Iterator[Goal]:
    """Return the goals of the stack around the network."""
    results = read_results("stack")
    for name, wanted in STACK.items():
        measured = results["cpu_ms_per_megapixel"][name] if results else None
        source = describe_source(results) if results else "python -m benchmarks.stack"
        yield Goal(f"stack: CPU ms per megapixel as {name.upper()}", wanted, measured, source)


def start_goals() -> Iterator[Goal]:
    """Return the goals of the start without PyTorch."""
    results = read_results("cold_start")
    source = describe_source(results) if results else "python -m benchmarks.cold_start"
    for key, (name, wanted) in START.items():
        measured = results["ratios"][key] if results else None
        yield Goal(f"CPU: {name} / the same in PyTorch", wanted, measured, source)


def throughput_goals() -> Iterator[Goal]:
    """Return the goals of small images per second."""
    results = read_results("throughput")
    if results is None:
        command = "python -m benchmarks.throughput"
        yield Goal("throughput: ours / best peer", 1.0, None, command, is_minimum=True)
        return
    for row in results["rows"]:
        count, rates, waits = row["clients"], row["images_per_s"], row["p99_s"]
        peers = [name for name in rates if name not in ("ours", "a slot each")]
        source, many = describe_source(results), f"throughput, {count} clients"
        best = max(rates[name] for name in peers)
        yield Goal(f"{many}: images per second / best peer's", 1.0, rates["ours"] / best, source, is_minimum=True)
        yield Goal(f"{many}: p99 / best peer's", 1.0, waits["ours"] / min(waits[name] for name in peers), source)
        if count >= FROM_CLIENTS:
            yield Goal(f"{many}: of the network alone", OF_NETWORK, row["of_network"], source, is_minimum=True)


def main() -> None:
    """Measure, read and print."""
    goals = [*measure_bfloat16(), *card_goals(), *stack_goals(), *start_goals(), *throughput_goals()]
    header = ["goal", "wanted", "measured", "ratio", "", "measured on, or by"]
    print("\n".join(table(header, [goal.to_row() for goal in goals])))


if __name__ == "__main__":
    main()
