"""Writes the tables of docs/measurements/gpu.md from the results of `benchmarks.gpu`."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.report import ROOT, replace_part, table

NO_RESULTS = ["No results yet. Run `make gpu` on a machine with a GPU."]


def write_gpu_report(results: Path, page: Path = ROOT / "docs/measurements/gpu.md") -> None:
    """Write the measured part of docs/measurements/gpu.md."""
    lines = make_lines(json.loads(results.read_text())) if results.exists() else NO_RESULTS
    replace_part(page, "gpu", lines)


def make_lines(measured: Mapping[str, Any]) -> list[str]:
    """Return the tables of a result, with machine and date."""
    machine, agreement = measured["machine"], measured["agreement"]
    where = (
        f"{machine['card']} (compute capability {machine['capability']}, driver {machine['driver']}, "
        f"CUDA {machine['cuda']}), torch {machine['torch']}; {measured['rounds']} rounds after a warm-up; "
        f"{machine['date'][:16].replace('T', ' ')} UTC, commit {machine['commit']}."
    )
    return [
        where,
        "",
        "### Compared with the plain formulation",
        "",
        *_networks(measured["networks"]),
        "",
        "The ratio compares medians. The spread is the first to third quartile of the ratios of single rounds. If",
        "calls take a few milliseconds it does not always contain the ratio.",
        "",
        "### Tiles per forward pass",
        "",
        *_micro_batches(measured["micro_batches"]),
        "",
        "### Kernels of blocks and CUDA graphs, in bfloat16",
        "",
        *_kernels(measured.get("kernels", [])),
        "",
        "### Rules, copies and start",
        "",
        *_engine(measured),
        "",
        "### Heads with and without padding",
        "",
        *_heads(measured["heads"]),
        "",
        "### Agreement",
        "",
        "Maximum difference between float32 on the GPU and on the CPU, relative to the largest magnitude: "
        + ", ".join(f"{name} {difference:.1e}" for name, difference in agreement["largest_difference"].items())
        + f". bfloat16 against float32, {agreement['image']} by compact_x4: {agreement['bfloat16_db']:.2f} dB.",
    ]


def _networks(rows: list[dict[str, Any]]) -> list[str]:
    header = ["network", "side", "ratio, float32", "spread", "ratio, bfloat16", "plain, ms", "ours, ms", "bfloat16, ms"]
    return table(
        header,
        (
            [
                row["variant"],
                str(row["side"]),
                f"**{row['ratios']['ours']['median']:.2f}**",
                f"{row['ratios']['ours']['low']:.2f} to {row['ratios']['ours']['high']:.2f}",
                f"**{row['ratios']['bfloat16']['median']:.2f}**",
                *(f"{1000 * row['timings'][name]['median_s']:.1f}" for name in ("plain", "ours", "bfloat16")),
            ]
            for row in rows
        ),
    )


def _micro_batches(rows: list[dict[str, Any]]) -> list[str]:
    lines = []
    for row in rows:
        if row.get("out_of_memory"):
            lines.append([row["variant"], str(row["tiles"]), "out of memory", "", ""])
            continue
        low, high = row["spread_s"]
        peak = f"{row['peak_bytes'] / 1e6:.0f}" if row["peak_bytes"] is not None else ""
        spread = f"{1000 * low:.1f} to {1000 * high:.1f}"
        lines.append([row["variant"], str(row["tiles"]), f"**{1000 * row['tile_s']:.1f}**", spread, peak])
    return table(["variant", "tiles", "ms per tile", "spread", "peak, MB"], lines)


def _kernels(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return ["Not measured yet: they are newer than the last run on a GPU."]
    names = ("pytorch", "pytorch, graph", "kernels", "kernels, graph")
    lines = []
    for row in rows:
        if "problem" in row:
            lines.append([row["variant"], row["problem"].replace("|", "/"), *[""] * 6])
            continue
        times = [f"{1000 * row['timings'][name]['median_s']:.2f}" for name in names]
        errors = [f"{row['errors_db'][name]:.1f}" for name in ("pytorch", "kernels")]
        lines.append([row["variant"], str(row["side"]), *times, *errors])
    header = ["network", "side", "PyTorch, ms", "by graph", "kernels, ms", "by graph", "PyTorch, dB", "kernels, dB"]
    return table(header, lines)


def _engine(measured: Mapping[str, Any]) -> list[str]:
    if "engine" not in measured:
        return ["Not measured yet: they are newer than the last run on a GPU."]
    names = ("all", "plain copies", "no graphs")
    lines = []
    for row in measured["engine"]:
        times = [f"{1000 * row['timings'][name]['median_s']:.1f}" for name in names]
        equal = "yes" if row["copies_equal"] else "no"
        lines.append([row["variant"], *times, equal, str(row["graph_levels"])])
    header = ["network", "16 tiles, ms", "plain copies, ms", "no graphs, ms", "copies equal", "graph, levels"]
    rules = [
        [row["kind"], str(row["levels"]), f"{100 * row['share']:.4f} %", f"{row['checks']:.1e}"]
        for row in measured["rules"]
    ]
    start = {name: statistics.median(seconds) for name, seconds in measured["start"].items()}
    return [
        *table(header, lines),
        "",
        "Rules, rounding and checks of a pass on the GPU compared with a CPU's, for equal outputs of a network:",
        "",
        *table(["tiles", "largest difference, levels", "samples that differ", "checks"], rules),
        "",
        (
            f"From Python's start to a warm `compact_x4`, files read before: {start['thread']:.2f} s with the thread "
            f"that starts CUDA, {start['plain']:.2f} s without."
        ),
    ]


def _heads(rows: list[dict[str, Any]]) -> list[str]:
    return table(
        ["network", "side", "length of a head: ms"],
        (
            [
                row["variant"],
                str(row["side"]),
                ", ".join(f"{name}: {1000 * timing['median_s']:.1f}" for name, timing in row["lengths"].items()),
            ]
            for row in rows
        ),
    )
