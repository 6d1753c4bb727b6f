"""Writes results into pages: docs/measurements/benchmarks.md, docs/explanation/tiling.md and plots in docs/images.

Replaces the text between a page's `<!-- measured: NAME -->` and `<!-- end of NAME -->`, using only the JSON files in
benchmarks/results/. The rest of a page is written by hand.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.plots import draw_chunks, draw_speed
from preprocessing.grid import choose_grid

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
# Minimum ratios, by network and side of the image.
TARGETS = {
    ("lightweight_x4", 64): 1.4,
    ("lightweight_x4", 128): 1.4,
    ("lightweight_x4", 256): 1.4,
    ("compact_x4", 64): 1.4,
    ("compact_x4", 128): 1.7,
    ("compact_x4", 256): 1.9,
    ("classical_x4", 64): 1.15,
    ("real_x4", 64): 1.15,
}
MAX_MEMORY_RATIO = 0.7
MAX_TRITON_RATIO = 1.05


def write_report(docs: Path = ROOT / "docs", results: Path = RESULTS / "network.json") -> None:
    """Write docs/measurements/benchmarks.md's tables and plots from the results of `benchmarks.network`."""
    measured = json.loads(results.read_text())
    page = docs / "measurements/benchmarks.md"
    makers = {"speed": _speed, "memory": _memory, "triton": _triton, "choices": _choices, "openvino": _openvino}
    for name, make in makers.items():
        if name in measured:
            replace_part(page, name, [*make(measured[name]), "", describe(measured[name])])
    images = docs / "images"
    images.mkdir(exist_ok=True)
    if "speed" in measured:
        draw_speed(measured["speed"]["rows"], TARGETS, images / "benchmark-speed.png")
    if "choices" in measured:
        draw_chunks(measured["choices"]["rows"]["chunks"], images / "benchmark-chunks.png")


def write_seams(docs: Path = ROOT / "docs", results: Path = RESULTS / "tiling.json") -> None:
    """Write the table of halo and alignment in docs/explanation/tiling.md from the results of `benchmarks.tiling`."""
    replace_part(docs / "explanation/tiling.md", "seams", _seams(json.loads(results.read_text())))


def replace_part(page: Path, name: str, lines: Iterable[str]) -> None:
    """Replace the text between the two marks of `name`; raises ValueError if one is missing."""
    text = page.read_text()
    begin, end = f"<!-- measured: {name} -->", f"<!-- end of {name} -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"{page.name} needs one {begin} and one {end}")
    before, rest = text.split(begin)
    page.write_text("\n".join([before + begin, "", *lines, "", end + rest.split(end)[1]]))


def describe(part: Mapping[str, Any]) -> str:
    """Return a paragraph about machine, date and method of a part."""
    machine = part["machine"]
    stolen = f"{100 * machine['stolen']:.1f}% of CPU time taken by other virtual machines"
    load = f"load {machine['load_before']} before the run, {stolen}"
    quiet = "" if machine["quiet"] else " (other processes were running: compare CPU seconds)"
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, {machine['instructions']}, "
        f"blocks {machine['blocks']}, "
        f"torch {machine['torch']}, Python {machine['python']}; {part['rounds']} rounds after a warm-up; "
        f"{machine['date'][:16].replace('T', ' ')} UTC, commit {machine['commit']}, {load}{quiet}."
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _speed(part: Mapping[str, Any]) -> list[str]:
    header = ["network", "side", "ratio", "spread", "ratio of CPU time", "target", "PyTorch with fused blocks"]
    return table(
        [*header, "PyTorch alone", "plain, s", "ours, s"],
        (
            [
                row["variant"],
                str(row["side"]),
                f"**{row['ratios']['ours']['median']:.2f}**",
                f"{row['ratios']['ours']['low']:.2f} to {row['ratios']['ours']['high']:.2f}",
                f"{row['ratios']['ours']['cpu']:.2f}",
                f"{TARGETS[row['variant'], row['side']]:.2f}",
                *(
                    f"{row['ratios'][name]['median']:.2f} (CPU time {row['ratios'][name]['cpu']:.2f})"
                    for name in ("fused", "pytorch")
                ),
                f"{row['timings']['plain']['median_s']:.3f}",
                f"{row['timings']['ours']['median_s']:.3f}",
            ]
            for row in part["rows"]
        ),
    )


def _memory(part: Mapping[str, Any]) -> list[str]:
    return table(
        ["network", "side", "plain, MB", "ours, MB", "ratio", "target", "PyTorch with fused blocks", "PyTorch alone"],
        (
            [
                row["variant"],
                str(row["side"]),
                f"{row['bytes']['plain'] / 1e6:.0f}",
                f"{row['bytes']['ours'] / 1e6:.0f}",
                f"**{row['bytes']['ours'] / row['bytes']['plain']:.2f}**",
                f"at most {MAX_MEMORY_RATIO}",
                *(f"{row['bytes'][name] / row['bytes']['plain']:.2f}" for name in ("fused", "pytorch")),
            ]
            for row in part["rows"]
        ),
    )


def _triton(part: Mapping[str, Any]) -> list[str]:
    return table(
        ["variant", "side", "through", "over the network", "spread", "target", "s", "network alone, s"],
        (
            [
                row["variant"],
                str(row["side"]),
                name,
                f"**{ratio['median'] - 1:+.1%}**",
                f"{ratio['low'] - 1:+.1%} to {ratio['high'] - 1:+.1%}",
                f"at most {MAX_TRITON_RATIO - 1:+.0%}" if name == "ensemble" else "",
                f"{row['timings'][name]['median_s']:.3f}",
                f"{row['timings']['network']['median_s']:.3f}",
            ]
            for row in part["rows"]
            for name, ratio in row["over_network"].items()
        ),
    )


def _openvino(part: Mapping[str, Any]) -> list[str]:
    header = ["network", "side", "ours, ms", "ours, dB from plain"]
    for name in ("float32", "bfloat16"):
        header += [f"OpenVINO {name} / ours", "spread", "CPU time", "dB from plain"]
    rows = []
    for row in part["rows"]:
        cells = [
            row["variant"],
            str(row["side"]),
            f"{1e3 * row['timings']['ours']['median_s']:.1f}",
            f"{row['db']['ours']:.0f}",
        ]
        for name, ratio in row["ratios"].items():
            spread = f"{ratio['low']:.2f} to {ratio['high']:.2f}"
            cells += [f"**{ratio['median']:.2f}**", spread, f"{ratio['cpu']:.2f}", f"{row['db'][name]:.0f}"]
        rows.append(cells)
    return table(header, rows)


def _choices(part: Mapping[str, Any]) -> list[str]:
    chunks = part["rows"]["chunks"]
    names = list(chunks[0]["tokens"])
    lines = ["Time by tokens that a block handles at once, relative to the fastest of the row:", ""]
    lines += table(["network", "side", *names], (_relative(row, row["tokens"]) for row in chunks))
    lines += ["", "Time by padded length of a head, relative to the first (no padding):", ""]
    return lines + table(
        ["network", "side", "length: time"],
        (
            [row["variant"], str(row["side"]), ", ".join(_against_first(row["lengths"]))]
            for row in part["rows"]["heads"]
        ),
    )


def _relative(row: Mapping[str, Any], timings: Mapping[str, Any]) -> list[str]:
    fastest = min(timing["median_s"] for timing in timings.values())
    return [row["variant"], str(row["side"]), *(f"{timing['median_s'] / fastest:.2f}" for timing in timings.values())]


def _against_first(timings: Mapping[str, Any]) -> list[str]:
    first = next(iter(timings.values()))["median_s"]
    return [f"{length}: {timing['median_s'] / first:.2f}" for length, timing in timings.items()]


def _seams(measured: Mapping[str, Any]) -> list[str]:
    synthetic = {"gradient", "flat"}
    images = measured["images"]
    halos = list(dict.fromkeys(row["halo"] for row in images["flat"]["rows"]))
    rows = []
    for is_aligned in (True, False):
        for halo in halos:
            of_image = {
                name: next(row for row in image["rows"] if row["halo"] == halo and row["aligned"] == is_aligned)
                for name, image in images.items()
            }
            photos = [row for name, row in of_image.items() if name not in synthetic]
            known = [row["decibels"] if row["decibels"] is not None else float("inf") for row in photos]
            large = choose_grid(1080, 1920, window=8, halo=halo, max_tile_px=256)
            rows.append(
                [
                    str(halo),
                    "yes" if is_aligned else "no",
                    f"{_decibels(min(known))} ({_decibels(median(known))})",
                    str(max(row["levels"] for row in photos)),
                    *(
                        f"{_decibels(of_image[name]['decibels'])} / {of_image[name]['levels']}"
                        for name in ("gradient", "flat")
                    ),
                    f"{large.computed_ratio:.2f}",
                ]
            )
    count = len(images) - len(synthetic)
    machine = measured["machine"]
    return [
        f"`{measured['variant']}`, {count} photos (real, degraded ones), a smooth gradient and a flat field,",
        f"in tiles of at most {measured['max_tile_px']} px (so that a small image has many seams), against the same",
        "image run whole; uint8 output of the shipped engine.",
        "",
        *table(
            [
                "halo, px",
                "on the window grid",
                "photos: minimum dB (median)",
                "maximum difference, levels",
                "gradient: dB / levels",
                "flat: dB / levels",
                "computed / useful, 1920 x 1080 at 256",
            ],
            rows,
        ),
        "",
        '"no": tiles larger by one window, the inner ones moved by half a window, as a tiler places them that ignores',
        "windows. More halo does not help then.",
        "",
        f"Written by `python -m benchmarks.tiling PHOTO_DIR` on {machine['date'][:10]}, commit {machine['commit']}.",
    ]


def _decibels(value: float | None) -> str:
    return "equal" if value is None or value == float("inf") else f"{value:.1f}"
