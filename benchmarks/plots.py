"""The plots of docs/measurements/benchmarks.md, drawn from results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

mpl.use("Agg")
RED, GREY = "#c0392b", "#8a8f98"
SERIES = (("ours", "ours", "#2f6f4f"), ("pytorch", "ours, in PyTorch alone", "#4a7fb0"))
SIZE_IN = (9.0, 4.0)
DPI = 120


def draw_speed(rows: Sequence[Mapping[str, Any]], targets: Mapping[tuple[str, int], float], path: Path) -> None:
    """Draw bars of the speed relative to the plain formulation, with the quartiles of the rounds."""
    figure, axes = plt.subplots(figsize=SIZE_IN, layout="constrained")
    width = 0.4
    for number, (name, label, colour) in enumerate(SERIES):
        ratios = [row["ratios"][name] for row in rows]
        medians = [ratio["median"] for ratio in ratios]
        spread = [
            [max(0.0, ratio["median"] - ratio["low"]) for ratio in ratios],
            [max(0.0, ratio["high"] - ratio["median"]) for ratio in ratios],
        ]
        positions = [index + (number - 0.5) * width for index in range(len(rows))]
        axes.bar(positions, medians, width, yerr=spread, color=colour, ecolor="#222222", capsize=3, label=label)
        for position, value in zip(positions, medians, strict=True):
            axes.text(position, 0.06, f"{value:.2f}", color="white", size=8, ha="center")  # below all error bars
    for index, row in enumerate(rows):
        target = targets[row["variant"], row["side"]]
        axes.hlines(target, index - width, index + width, colors=RED, label="_nolegend_" if index else "target")
    axes.axhline(1.0, color=GREY, linestyle="--", label="plain formulation")
    axes.set_xticks(range(len(rows)), [f"{row['variant'].removesuffix('_x4')}\n{row['side']} px" for row in rows])
    axes.set_ylabel("times as fast")
    axes.set_title("Our network compared with the plain formulation (by side of the input image, x4)")
    _finish(figure, axes, path)


def draw_chunks(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw lines of time by the tokens that a block handles at once."""
    figure, axes = plt.subplots(figsize=SIZE_IN, layout="constrained")
    for row, marker in zip(rows, "os^v", strict=False):
        timings = row["tokens"]
        fastest = min(timing["median_s"] for timing in timings.values())
        relative = [timing["median_s"] / fastest for timing in timings.values()]
        axes.plot(list(timings), relative, marker=marker, label=f"{row['variant']}, {row['side']} px")
    axes.set_xlabel("tokens that a block handles at once")
    axes.set_ylabel("time, fastest = 1")
    axes.set_title("Chunk size (blocks in PyTorch)")
    _finish(figure, axes, path)


def _finish(figure: Any, axes: Any, path: Path) -> None:
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    figure.savefig(path, dpi=DPI)
    plt.close(figure)
