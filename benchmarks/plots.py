"""The plots of docs/benchmarks.md, drawn from results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

mpl.use("Agg")
OURS, GREY = "#2f6f4f", "#8a8f98"
SIZE_IN = (8.0, 3.6)
DPI = 120


def draw_speed(rows: Sequence[Mapping[str, Any]], targets: Mapping[tuple[str, int], float], path: Path) -> None:
    """Bars of plain / ours with the quartiles of the rounds; a line where the plain formulation stands."""
    figure, axes = plt.subplots(figsize=SIZE_IN, layout="constrained")
    names = [f"{row['variant'].removesuffix('_x4')}\n{row['side']} px" for row in rows]
    medians = [row["ratio"]["median"] for row in rows]
    below = [max(0.0, row["ratio"]["median"] - row["ratio"]["low"]) for row in rows]
    above = [max(0.0, row["ratio"]["high"] - row["ratio"]["median"]) for row in rows]
    bars = axes.bar(names, medians, yerr=[below, above], color=OURS, ecolor="#222222", capsize=4, width=0.6)
    axes.bar_label(bars, labels=[f"{value:.2f}" for value in medians], label_type="center", color="white")
    asked = [targets[row["variant"], row["side"]] for row in rows]
    axes.hlines(asked, [x - 0.38 for x in range(len(rows))], [x + 0.38 for x in range(len(rows))], colors="#c0392b")
    axes.plot([], [], color="#c0392b", label="asked for")
    axes.axhline(1.0, color=GREY, linestyle="--", label="plain formulation")
    axes.set_ylabel("times as fast")
    axes.set_title("Our network against the plain formulation (LR side, x4)")
    _finish(figure, axes, path)


def draw_chunks(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Lines of time against the tokens that a block handles at once."""
    figure, axes = plt.subplots(figsize=SIZE_IN, layout="constrained")
    for row, marker in zip(rows, "os^v", strict=False):
        timings = row["tokens"]
        quickest = min(timing["median_s"] for timing in timings.values())
        relative = [timing["median_s"] / quickest for timing in timings.values()]
        axes.plot(list(timings), relative, marker=marker, label=f"{row['variant']}, {row['side']} px")
    axes.set_xlabel("tokens that a block handles at once")
    axes.set_ylabel("time, quickest = 1")
    axes.set_title("Chunk of windows")
    _finish(figure, axes, path)


def _finish(figure: Any, axes: Any, path: Path) -> None:
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    figure.savefig(path, dpi=DPI)
    plt.close(figure)
