"""Every benchmark runs at minimal sizes, and its results become pages and plots. No test asserts a duration."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PilImage

from benchmarks import network, report, tiling
from benchmarks.candidates import DisagreementError, make_pair, make_runs
from benchmarks.choices import measure_chunks, measure_heads
from benchmarks.machine import describe_machine
from swinir.network import attention, blocks
from testing.data import ROOT

DOCS = ROOT / "docs"
SMALLEST = {"compact_x4": (16,)}


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """A copy of the two pages that benchmarks update."""
    folder = tmp_path / "docs"
    for name in ("measurements/benchmarks.md", "explanation/tiling.md"):
        (folder / name).parent.mkdir(parents=True)
        shutil.copy(DOCS / name, folder / name)
    return folder


def part(rows: Any) -> dict[str, Any]:
    return {"machine": {**describe_machine(), "stolen": 0.0}, "rounds": 2, "rows": rows}


@pytest.mark.slow
def test_speed_measurements_become_tables_and_plots(docs: Path, tmp_path: Path) -> None:
    chunk, pad = blocks.CPU_CHUNK_TOKENS, attention.padded_length
    speed = network.measure_speed({"compact_x4": (64,)}, rounds=2)
    chunks = {
        name: timing.to_json() for name, timing in measure_chunks("compact_x4", 16, 2, chunks=(64, 1 << 30)).items()
    }
    heads = {name: timing.to_json() for name, timing in measure_heads("compact_x4", 16, 2, lengths=(12, 16)).items()}
    choices = {
        "chunks": [{"variant": "compact_x4", "side": 16, "tokens": chunks}],
        "heads": [{"variant": "compact_x4", "side": 16, "lengths": heads}],
    }
    results = tmp_path / "network.json"
    results.write_text(json.dumps({"speed": part(speed), "choices": part(choices)}))

    report.write_report(docs, results)

    page = (docs / "measurements/benchmarks.md").read_text()
    assert f"| compact_x4 | 64 | **{speed[0]['ratios']['ours']['median']:.2f}** |" in page
    assert "12: 1.00, 16: " in page
    for name in ("benchmark-speed.png", "benchmark-chunks.png"):
        with PilImage.open(docs / "images" / name) as plot:
            assert plot.width > 500
    assert (blocks.CPU_CHUNK_TOKENS, attention.padded_length) == (chunk, pad), "a benchmark left its setting behind"


@pytest.mark.slow
def test_memory_is_measured_in_processes_of_their_own(docs: Path, tmp_path: Path) -> None:
    memory = network.measure_memory({"compact_x4": (64,)}, threads=1)

    assert memory[0]["bytes"]["plain"] > memory[0]["bytes"]["ours"] > 0
    results = tmp_path / "network.json"
    results.write_text(json.dumps({"memory": part(memory)}))
    report.write_report(docs, results)
    ratio = memory[0]["bytes"]["ours"] / memory[0]["bytes"]["plain"]
    assert f"**{ratio:.2f}**" in (docs / "measurements/benchmarks.md").read_text()


@pytest.mark.triton
def test_triton_is_compared_with_the_network(docs: Path, tmp_path: Path) -> None:
    triton = network.measure_overhead(SMALLEST, rounds=2, threads=1)

    assert set(triton[0]["over_network"]) == {"engine", "ensemble", "stream"}
    results = tmp_path / "network.json"
    results.write_text(json.dumps({"triton": part(triton)}))
    report.write_report(docs, results)
    assert "| compact_x4 | 16 | ensemble |" in (docs / "measurements/benchmarks.md").read_text()


def test_network_that_computes_something_else_is_not_timed() -> None:
    pair = make_pair("compact_x4")
    with torch.no_grad():
        next(pair.ours.parameters()).add_(0.1)
    with pytest.raises(DisagreementError, match="compact_x4 at 16x16"):
        make_runs(pair, 16)


@pytest.mark.slow
def test_seams_are_measured_and_become_a_table(docs: Path, tmp_path: Path) -> None:
    images = tiling.make_synthetic(tiling.MIN_SIDE_PX)
    noise = np.random.default_rng(0).integers(0, 256, images["flat"].shape, np.uint8)
    measured = tiling.measure({"noise": noise, **images}, "compact_x4", halos=(0, 16))

    rows = {(row["halo"], row["aligned"]): row["decibels"] for row in measured["images"]["noise"]["rows"]}
    assert rows[16, True] > rows[0, True]
    assert rows[16, True] > rows[16, False]
    results = tmp_path / "tiling.json"
    results.write_text(json.dumps(measured))
    report.write_seams(docs, results)
    assert f"| 16 | yes | {rows[16, True]:.1f} ({rows[16, True]:.1f}) |" in (docs / "explanation/tiling.md").read_text()


def test_page_without_its_marks_is_rejected(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Nothing here\n")
    with pytest.raises(ValueError, match=r"page\.md needs one <!-- measured: speed -->"):
        report.replace_part(page, "speed", ["x"])


@pytest.mark.parametrize("name", ["network.json", "tiling.json"])
def test_shipped_pages_match_the_shipped_results(docs: Path, name: str) -> None:
    results = ROOT / "benchmarks" / "results" / name
    write, page = (
        (report.write_report, "measurements/benchmarks.md")
        if name == "network.json"
        else (report.write_seams, "explanation/tiling.md")
    )
    write(docs, results)
    assert (docs / page).read_text() == (DOCS / page).read_text(), f"run `make bench`, or commit docs/{page}"


def test_comparison_with_openvino_becomes_a_table(docs: Path, tmp_path: Path) -> None:
    ratio = {"median": 2.5, "low": 2.4, "high": 2.6, "cpu": 2.45, "rounds": 2}
    rows = [
        {
            "variant": "compact_x4",
            "side": 64,
            "db": {"ours": 115.2, "float32": 135.1, "bfloat16": 55.3},
            "ratios": {"float32": ratio, "bfloat16": {**ratio, "median": 1.7}},
            "timings": {"ours": {"median_s": 0.0123}},
        }
    ]
    results = tmp_path / "network.json"
    results.write_text(json.dumps({"openvino": part(rows)}))

    report.write_report(docs, results)

    line = (
        "| compact_x4 | 64 | 12.3 | 115 | **2.50** | 2.40 to 2.60 | 2.45 | 135 | **1.70** | 2.40 to 2.60 | 2.45 | 55 |"
    )
    assert line in (docs / "measurements/benchmarks.md").read_text()
