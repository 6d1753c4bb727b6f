"""The engine around the network on a GPU: equality with a CPU, copies, graphs and the start (part of `make gpu`)."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.candidates import make_pair
from benchmarks.rounds import measure_in_turn
from swinir.inference.engine import Tiles
from swinir.inference.shrink import shrink_matrices
from swinir.inference.tile_copies import TileCopies
from swinir.inference.tile_pass import PassOutput, run_pass
from swinir.inference.torch_engine import TorchEngine
from swinir.weights.load import write_weights
from swinir.zoo import find_variant
from testing.tile_kinds import draw_kinds

ROOT = Path(__file__).resolve().parent.parent
# Tiles of one call: four micro-batches on a GPU, so that copies can overlap passes.
TILES = 16
# A start in a process of its own: seconds until the default variant is warm, imports included. The argument says
# whether CUDA starts in a thread.
START = """
import sys, time
started = time.monotonic()
from swinir.inference import create_engine
from swinir.settings import read_settings
if sys.argv[1] == "plain":
    create_engine.start_context = lambda: None
engine = create_engine.create_engine(read_settings({}))
engine.load("compact_x4")
engine.warm_up("compact_x4")
print(time.monotonic() - started)
"""


@torch.inference_mode()
def compare_with_cpu(device: torch.device, scales: Sequence[int] = (1, 2, 3, 4)) -> list[dict[str, Any]]:
    """Compare rules, rounding and checks of a recordable pass with a CPU's, for equal outputs of a network.

    A row has, for a kind of tiles, the largest difference in levels, the share of samples that differ, and the largest
    difference of the checks, relative to 1 or to their magnitude.
    """
    rows = []
    for kind, tiles in draw_kinds().items():
        worst = {"levels": 0, "share": 0.0, "checks": 0.0}
        for scale in scales:
            expected, actual = (_run_rules(tiles, scale, each) for each in (torch.device("cpu"), device))
            differences = (actual.levels.cpu().int() - expected.levels.int()).abs()
            worst["levels"] = max(worst["levels"], int(differences.max()))
            worst["share"] = max(worst["share"], (differences > 0).float().mean().item())
            checks = (actual.rows.cpu() - expected.rows).abs() / expected.rows.abs().clamp(min=1)
            worst["checks"] = max(worst["checks"], checks.max().item())
        rows.append({"kind": kind, **worst})
    return rows


def _run_rules(tiles: Tiles, scale: int, device: torch.device) -> PassOutput:
    """Run the pass of a network whose output is noise around the enlarged input."""
    row = dataclasses.replace(find_variant("compact_x4"), scale=scale)
    count, height, width, _ = tiles.shape
    noise = torch.randn(count, 3, height * scale, width * scale, generator=torch.Generator().manual_seed(scale)) / 10

    def network(images: Tensor) -> Tensor:
        wide = images.cpu().repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)
        return (wide + noise).contiguous(memory_format=torch.channels_last).to(device)

    on_cpu = device.type == "cpu"
    shrink = None if on_cpu or scale == 1 else shrink_matrices(height, width, scale, device)
    return run_pass(network, row, torch.from_numpy(tiles).to(device), shrink, recordable=not on_cpu)


def measure_engine(
    device: torch.device, variants: Sequence[str], rounds: int, tile_px: int = 256
) -> list[dict[str, Any]]:
    """Measure the engine with all it has, with plain copies and without graphs, and whether copies give equal tiles."""
    rows = []
    tiles = np.random.default_rng(0).integers(0, 256, (TILES, tile_px, tile_px, 3), np.uint8)
    for variant in variants:
        with tempfile.TemporaryDirectory() as folder:  # random weights: most variants' checkpoints are not present
            write_weights(make_pair(variant).ours, Path(folder) / f"{variant}.safetensors", {})
            engines = {
                name: TorchEngine(Path(folder), device=str(device)) for name in ("all", "plain copies", "no graphs")
            }
            engines["plain copies"].copies = TileCopies(device)
            engines["no graphs"].graphs = None
            runs = {name: _Restore(engine, tiles, variant) for name, engine in engines.items()}
            for _ in range(2):  # the second pass of a shape is recorded
                results = {name: run() for name, run in runs.items()}
            timings = measure_in_turn(runs, rounds)
        equal = bool(np.array_equal(results["all"], results["plain copies"]))
        difference = int(np.abs(results["all"].astype(int) - results["no graphs"]).max())
        rows.append(
            {
                "variant": variant,
                "copies_equal": equal,
                "graph_levels": difference,
                "timings": {name: timing.to_json() for name, timing in timings.items()},
            }
        )
    return rows


@dataclasses.dataclass(frozen=True)
class _Restore:
    engine: TorchEngine
    tiles: Tiles
    variant: str

    def __call__(self) -> Tiles:
        return self.engine.restore(self.tiles, self.variant).tiles


def measure_start(rounds: int) -> Mapping[str, list[float]]:
    """Return the seconds of starts with and without the thread that starts CUDA, in turn; files are read before."""
    seconds: dict[str, list[float]] = {"thread": [], "plain": []}
    for number in range(rounds + 1):
        for name, measured in seconds.items():
            command = [sys.executable, "-c", START, name]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=600)
            if number:
                measured.append(round(float(done.stdout), 3))
    return seconds
