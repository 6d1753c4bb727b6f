"""Measures candidates in turn (A B A B ...), so that other load on the machine affects all of them, and takes medians.

Compare only ratios of one run: seconds depend on the machine and the time. CPU seconds are recorded in addition to wall
seconds, because other processes increase only the latter.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

WARM_UP_ROUNDS = 1


@dataclass(frozen=True)
class Timing:
    """Times of one candidate in every round."""

    wall_s: tuple[float, ...]
    cpu_s: tuple[float, ...]
    """CPU seconds of this process. Meaningless if another process does the work."""

    def to_json(self) -> dict[str, object]:
        """Return the medians and the times of every round."""
        return {
            "median_s": round(statistics.median(self.wall_s), 5),
            "median_cpu_s": round(statistics.median(self.cpu_s), 5),
            "wall_s": [round(seconds, 5) for seconds in self.wall_s],
            "cpu_s": [round(seconds, 5) for seconds in self.cpu_s],
        }


@dataclass(frozen=True)
class Ratio:
    """Time of the first candidate divided by that of the second."""

    median: float
    """Ratio of the medians."""
    low: float
    high: float
    """First and third quartile of the ratios of single rounds."""
    cpu: float
    """Ratio of the medians of CPU seconds."""
    rounds: int

    def to_json(self) -> dict[str, float | int]:
        """Return the fields, rounded."""
        return {
            "median": round(self.median, 3),
            "low": round(self.low, 3),
            "high": round(self.high, 3),
            "cpu": round(self.cpu, 3),
            "rounds": self.rounds,
        }


def measure_in_turn(candidates: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Timing]:
    """Run every candidate once per round, in the same order. The first round is a warm-up and not counted."""
    wall: dict[str, list[float]] = {name: [] for name in candidates}
    cpu: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(WARM_UP_ROUNDS + rounds):
        for name, run in candidates.items():
            cpu_began, wall_began = time.process_time(), time.perf_counter()
            run()
            wall_ended, cpu_ended = time.perf_counter(), time.process_time()
            if number >= WARM_UP_ROUNDS:
                wall[name].append(wall_ended - wall_began)
                cpu[name].append(cpu_ended - cpu_began)
    return {name: Timing(tuple(wall[name]), tuple(cpu[name])) for name in candidates}


def compare(first: Timing, second: Timing) -> Ratio:
    """Return first / second."""
    ratios = [one / other for one, other in zip(first.wall_s, second.wall_s, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return Ratio(
        median=statistics.median(first.wall_s) / statistics.median(second.wall_s),
        low=low,
        high=high,
        cpu=statistics.median(first.cpu_s) / statistics.median(second.cpu_s),
        rounds=len(ratios),
    )
