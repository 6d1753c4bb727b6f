"""`make gpu`: measures on a CUDA GPU.

    python -m benchmarks.gpu [--rounds 7]

Writes benchmarks/results/gpu.json, and from it the tables of docs/measurements/gpu.md. Candidates run in turn as in
`benchmarks.network`. Before each clock is read, the GPU is synchronized. Tests run every function on a CPU.
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.candidates import NetworkPair, make_pair
from benchmarks.choices import set_choice
from benchmarks.gpu_engine import compare_with_cpu, measure_engine, measure_start
from benchmarks.gpu_kernels import measure_kernels
from benchmarks.gpu_report import write_gpu_report
from benchmarks.machine import describe_machine
from benchmarks.rounds import compare, measure_in_turn
from swinir.inference.precision import choose_autocast
from swinir.inference.torch_engine import TorchEngine
from swinir.network import attention
from swinir.weights.find import find_weights
from swinir.weights.load import load_network, write_weights
from swinir.zoo import DEFAULT_VARIANT, find_variant
from training.metrics import psnr

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "gpu.json"
IMAGE = ROOT / "tests" / "data" / "Set5" / "x4" / "butterfly.png"
SIZES: Mapping[str, tuple[int, ...]] = {
    "compact_x4": (64, 256),
    "lightweight_x4": (64, 256),
    "classical_x4": (64, 192),
    "real_x4": (64, 192),
}
BATCHES = (1, 2, 4, 8, 16, 32)
TILE_PX = 256
HEADS: Mapping[str, tuple[int, ...]] = {"compact_x4": (12, 16), "lightweight_x4": (10, 16), "real_x4": (30, 32)}
HEADS_SIDE = 128


class NoGpuError(Exception):
    """No GPU is available; the message says what is missing and what to do."""


def find_gpu() -> torch.device:
    """Return the first CUDA device; raises NoGpuError."""
    if torch.version.cuda is None:
        raise NoGpuError(
            f"torch {torch.__version__} is built without CUDA, so nothing was measured. "
            "Install the CUDA build with `make setup TORCH=cuda` and run make gpu again."
        )
    if not torch.cuda.is_available():
        raise NoGpuError(
            f"torch {torch.__version__} is built for CUDA {torch.version.cuda} but found no GPU, so "
            "nothing was measured. Check with nvidia-smi that the driver is installed and that this machine or "
            "container has a GPU."
        )
    return torch.device("cuda", 0)


def measure_networks(device: torch.device, sizes: Mapping[str, Sequence[int]], rounds: int) -> list[dict[str, Any]]:
    """Compare ours and the plain formulation in float32, and ours in bfloat16."""
    rows = []
    for variant, sides in sizes.items():
        pair = _move(make_pair(variant), device)
        for side in sides:
            images = _noise(variant, side).to(device)
            runs = {
                "plain": _waiting(device, functools.partial(_run, pair.plain, images, torch.float32)),
                "ours": _waiting(device, functools.partial(_run, pair.ours, images, torch.float32)),
                "bfloat16": _waiting(device, functools.partial(_run, pair.ours, images, torch.bfloat16)),
            }
            timings = measure_in_turn(runs, rounds)
            rows.append(
                {
                    "variant": variant,
                    "side": side,
                    "ratios": {
                        name: compare(timings["plain"], timings[name]).to_json() for name in ("ours", "bfloat16")
                    },
                    "timings": {name: timing.to_json() for name, timing in timings.items()},
                }
            )
    return rows


def measure_micro_batches(
    device: torch.device, variant: str, batches: Sequence[int], rounds: int, tile_px: int = TILE_PX
) -> list[dict[str, Any]]:
    """Measure the engine by the number of tiles in a forward pass; the last row may be out of memory."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:  # random weights, because most variants' checkpoints are not present
        write_weights(make_pair(variant).ours, Path(folder) / f"{variant}.safetensors", {})
        engine = TorchEngine(Path(folder), device=str(device))
        for batch in batches:
            engine.micro_batch_pixels = batch * tile_px**2
            tiles = np.random.default_rng(0).integers(0, 256, (batch, tile_px, tile_px, 3), np.uint8)
            halved = engine.counters.halvings
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            run = _waiting(device, functools.partial(engine.restore, tiles, variant))
            timing = measure_in_turn({"engine": run}, rounds)["engine"]
            if engine.counters.halvings > halved:
                rows.append({"variant": variant, "tiles": batch, "out_of_memory": True})
                break
            median_s = float(np.median(timing.wall_s)) / batch
            spread_s = [float(value) / batch for value in np.quantile(timing.wall_s, (0.25, 0.75))]
            peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
            rows.append(
                {"variant": variant, "tiles": batch, "tile_s": median_s, "spread_s": spread_s, "peak_bytes": peak}
            )
    return rows


def measure_heads(
    device: torch.device, heads: Mapping[str, Sequence[int]], side: int, rounds: int
) -> list[dict[str, Any]]:
    """Compare heads with and without padding, without the time of padding itself."""
    rows = []
    precision = choose_autocast(device, "auto")
    for variant, lengths in heads.items():
        images = _noise(variant, side).to(device)
        runs = {}
        for length in lengths:
            with set_choice(attention, "padded_length", lambda _head_dim, _device, length=length: length):
                pair = _move(make_pair(variant), device)
                _run(pair.ours, images, precision)  # the first run pads the weights and caches them
            runs[str(length)] = _waiting(device, functools.partial(_run, pair.ours, images, precision))
        timings = measure_in_turn(runs, rounds)
        rows.append({"variant": variant, "side": side, "lengths": {n: t.to_json() for n, t in timings.items()}})
    return rows


def measure_agreement(device: torch.device, variants: Sequence[str], side: int) -> dict[str, Any]:
    """Compare with the CPU's float32: the maximum difference, and the PSNR of an image in bfloat16 in dB."""
    differences = {}
    for variant in variants:
        pair, images = make_pair(variant), _noise(variant, side)
        expected = _run(pair.ours, images, torch.float32)
        actual = _run(_move(pair, device).ours, images.to(device), torch.float32).cpu()
        differences[variant] = float((actual - expected).abs().max() / expected.abs().max())
    row = find_variant(DEFAULT_VARIANT)
    network = load_network(row, find_weights(row, None)).to(device)
    with Image.open(IMAGE) as image:
        pixels = np.array(image.convert("RGB"))
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float().div(255.0).to(device)
    exact, coarse = (_levels(_run(network, images, precision)) for precision in (torch.float32, torch.bfloat16))
    return {"largest_difference": differences, "image": IMAGE.name, "bfloat16_db": round(psnr(coarse, exact), 2)}


@torch.inference_mode()
def _run(network: nn.Module, images: Tensor, precision: torch.dtype) -> Tensor:
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        output: Tensor = network(images)
    return output.float()


def _waiting(device: torch.device, run: Callable[[], object]) -> Callable[[], object]:
    """Return the run followed by a synchronization, because kernels are only queued when a call returns."""

    def run_and_wait() -> None:
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run_and_wait


def _move(pair: NetworkPair, device: torch.device) -> NetworkPair:
    return NetworkPair(pair.variant, pair.plain.to(device), pair.ours.to(device))


def _noise(variant: str, side: int) -> Tensor:
    return torch.rand(1, find_variant(variant).channels, side, side, generator=torch.Generator().manual_seed(1))


def _levels(images: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    levels: np.ndarray[Any, np.dtype[np.uint8]]
    levels = images[0].mul(255.0).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return levels


def describe_gpu(device: torch.device) -> dict[str, Any]:
    """Return the facts about the GPU that belong to a measurement."""
    if device.type != "cuda":
        return {"card": "none (CPU)", "capability": "", "driver": "", "cuda": ""}
    major, minor = torch.cuda.get_device_capability(device)
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        driver = "unknown"
    return {
        "card": torch.cuda.get_device_name(device),
        "capability": f"{major}.{minor}",
        "driver": driver,
        "cuda": torch.version.cuda,
    }


def measure(device: torch.device, rounds: int) -> dict[str, Any]:
    """Run every part and return the content of the results file."""
    return {
        "machine": {**describe_machine(), **describe_gpu(device)},
        "rounds": rounds,
        "agreement": measure_agreement(device, list(SIZES), 64),
        "networks": measure_networks(device, SIZES, rounds),
        "micro_batches": [
            row
            for variant in ("compact_x4", "real_x4")
            for row in measure_micro_batches(device, variant, BATCHES, rounds)
        ],
        "kernels": measure_kernels(device, SIZES, rounds),
        "rules": compare_with_cpu(device),
        "engine": measure_engine(device, ("compact_x4", "real_x4"), rounds),
        "start": measure_start(rounds),
        "heads": measure_heads(device, HEADS, HEADS_SIDE, rounds),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, store the results and write the page; without a GPU print the reason."""
    parser = argparse.ArgumentParser(description="Measure on a CUDA GPU.")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args(arguments)
    try:
        device = find_gpu()
    except NoGpuError as error:
        sys.exit(str(error))
    RESULTS.write_text(json.dumps(measure(device, options.rounds), indent=1) + "\n")
    write_gpu_report(RESULTS)


if __name__ == "__main__":
    main()
