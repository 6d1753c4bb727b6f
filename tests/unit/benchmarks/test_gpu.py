"""`make gpu` without a GPU: every part runs on the CPU at minimal sizes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_engine import compare_with_cpu, measure_engine, measure_start
from benchmarks.gpu_kernels import measure_kernels
from benchmarks.gpu_report import NO_RESULTS, _kernels, make_lines, write_gpu_report
from benchmarks.machine import describe_machine
from swinir.inference.cuda_graphs import Recordable
from swinir.inference.torch_engine import TorchEngine
from swinir.network.cuda.choose import find_compiled
from swinir.network.cuda.shapes import BlockShape
from testing.data import ROOT
from testing.kernels import InterpretedLaunch


class StandInGraph:
    """A recorded pass that is computed again."""

    def __init__(self, forward: Recordable, _images: torch.Tensor) -> None:
        self.run = forward
        self.size_bytes = 0


def interpret(shape: BlockShape, _device: torch.device) -> InterpretedLaunch:
    return InterpretedLaunch(shape, 90)


CPU = torch.device("cpu")
PAGE = ROOT / "docs/measurements/gpu.md"


def test_every_part_runs_and_becomes_a_page(tmp_path: Path) -> None:
    measured: dict[str, Any] = {
        "machine": {**describe_machine(), **gpu.describe_gpu(CPU)},
        "rounds": 2,
        "agreement": gpu.measure_agreement(CPU, ["compact_x4"], 16),
        "networks": gpu.measure_networks(CPU, {"compact_x4": (16,)}, 2),
        "micro_batches": gpu.measure_micro_batches(CPU, "compact_x4", (1, 2), 2, tile_px=16),
        "kernels": measure_kernels(CPU, {"compact_x4": (16,)}, 1, interpret, StandInGraph),
        "rules": compare_with_cpu(CPU, (2,)),
        "engine": measure_engine(CPU, ("compact_x4",), 1, tile_px=16),
        "start": measure_start(1),
        "heads": gpu.measure_heads(CPU, {"compact_x4": (12, 16)}, 16, 2),
    }
    results, page = tmp_path / "gpu.json", tmp_path / "gpu.md"
    results.write_text(json.dumps(measured))
    shutil.copy(PAGE, page)

    write_gpu_report(results, page)

    text = page.read_text()
    assert measured["agreement"]["largest_difference"]["compact_x4"] == 0, "a CPU agrees with itself"
    assert 30 < measured["agreement"]["bfloat16_db"] < 100
    assert [row["tiles"] for row in measured["micro_batches"]] == [1, 2]
    assert f"| compact_x4 | 16 | **{measured['networks'][0]['ratios']['ours']['median']:.2f}** |" in text
    assert "| compact_x4 | 16 | 12: " in text
    (row,) = measured["kernels"]
    assert row["timings"].keys() == {"pytorch", "pytorch, graph", "kernels", "kernels, graph"}
    assert row["errors_db"]["kernels"] >= row["errors_db"]["pytorch"] - 1, "as close to float32 as PyTorch"
    assert f"{row['errors_db']['pytorch']:.1f} | {row['errors_db']['kernels']:.1f} |" in text
    (row,) = measured["engine"]
    assert row["timings"].keys() == {"all", "plain copies", "no graphs"}
    assert row["copies_equal"]
    assert row["graph_levels"] == 0
    assert "| noise | 0 | 0.0000 % | 0.0e+00 |" in text, "a CPU agrees with itself"
    assert {name: len(seconds) for name, seconds in measured["start"].items()} == {"thread": 1, "plain": 1}
    assert f"{measured['start']['thread'][0]:.2f} s with the thread that starts CUDA" in text
    assert "none (CPU)" in text
    assert NO_RESULTS[0] not in text


def fail_to_record(_forward: Recordable, _images: torch.Tensor) -> StandInGraph:
    raise RuntimeError("CUDA error: operation not permitted when stream is capturing")


def test_missing_kernels_and_graphs_are_part_of_the_table() -> None:
    rows = measure_kernels(CPU, {"compact_x4": (16,)}, 1, find_compiled)
    rows += measure_kernels(CPU, {"compact_x4": (16,)}, 1, interpret, fail_to_record)
    lines = _kernels(rows)
    assert lines[2] == "| compact_x4 | cpu is not a GPU |  |  |  |  |  |  |"
    assert lines[3].startswith("| compact_x4 | CUDA error: operation not permitted")


def test_micro_batch_out_of_memory_ends_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    run = TorchEngine._forward

    def fail_above_two(engine: TorchEngine, network: Any, images: torch.Tensor, precision: torch.dtype) -> torch.Tensor:
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(engine, network, images, precision)

    monkeypatch.setattr(TorchEngine, "_forward", fail_above_two)

    rows = gpu.measure_micro_batches(CPU, "compact_x4", (2, 4, 8), 1, tile_px=16)

    assert [(row["tiles"], row.get("out_of_memory", False)) for row in rows] == [(2, False), (4, True)]
    measured: dict[str, Any] = {
        "machine": {**describe_machine(), **gpu.describe_gpu(CPU)},
        "rounds": 1,
        "networks": [],
        "heads": [],
        "micro_batches": rows,
        "agreement": {"largest_difference": {}, "image": "none", "bfloat16_db": 50.0},
    }
    assert "| compact_x4 | 4 | out of memory |  |  |" in make_lines(measured)


@pytest.mark.parametrize(
    ("built_for", "words"), [(None, "is built without CUDA"), ("13.0", "is built for CUDA 13.0 but found no GPU")]
)
def test_missing_gpu_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, built_for: str | None, words: str
) -> None:
    monkeypatch.setattr(torch.version, "cuda", built_for)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpu, "RESULTS", tmp_path / "gpu.json")

    with pytest.raises(SystemExit) as caught:
        gpu.main([])

    assert words in str(caught.value.code)
    assert "nothing was measured" in str(caught.value.code)
    assert not (tmp_path / "gpu.json").exists()


def test_gpu_page_matches_the_results(tmp_path: Path) -> None:
    page = tmp_path / "gpu.md"
    shutil.copy(PAGE, page)

    write_gpu_report(gpu.RESULTS, page)

    assert page.read_text() == PAGE.read_text(), "update it with: benchmarks.gpu_report.write_gpu_report"
