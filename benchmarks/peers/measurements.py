"""Measures networks one by one and keeps the figures in benchmarks/results/peers.json.

So the figures of one network can be renewed alone.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import describe_machine, now
from benchmarks.peers.networks import PEERS, SCALE, Restore, load_peer
from benchmarks.rounds import measure_in_turn
from swinir.inference.torch_engine import TorchEngine
from swinir.weights.find import find_weights
from swinir.zoo import VARIANTS
from training.crops import NAMES as OURS
from training.crops import enlarge_crop, score_crops
from training.degradations import resize
from training.measure import (
    BUNDLED,
    Pair,
    assess_results,
    compare,
    degrade,
    measure_variant,
    published_pairs,
    read,
    served,
)
from training.perceptual import Perceptual

RESULTS = Path(__file__).resolve().parents[1] / "results" / "peers.json"
PLAIN = "bicubic"
NETWORKS = (PLAIN, *OURS, *PEERS)
"""What is compared at 4x."""
KNOWN = (PLAIN, *BUNDLED, *PEERS)
CLEAN_NETWORKS = (PLAIN, "compact_x4", "waifu2x", "span", "dat_light")
"""What is compared on clean images alone: neither trained on damage nor to invent texture, apart from waifu2x."""
GREY_SETS = ("Set12", "classic5")
# Side of the input that is timed.
TIMED_SIDE = 128
# What times are divided by.
REFERENCE = "compact_x4"


def load_restore(name: str, engine: TorchEngine) -> Restore:
    """Return the function of a row of the comparison: bicubic, a bundled variant or a peer."""
    if name == PLAIN:
        return enlarge_crop
    return load_peer(name) if name in PEERS else served(engine, name)


def measure_network(name: str, bench: Path, engine: TorchEngine, perceptual: Perceptual) -> dict[str, Any]:
    """Return {"variant": lines of its own table} for ours, and "clean", "damaged" and "crops" for what is compared."""
    found: dict[str, Any] = {"date": now()[:10]}
    if name in BUNDLED:
        row = VARIANTS[name]
        found["variant"] = list(measure_variant(engine, row, find_weights(row, None), bench, perceptual))
    if name in NETWORKS:
        restore = load_restore(name, engine)
        for title, pairs in benchmark_pairs(bench).items():
            quality = assess_results(restore, SCALE, pairs, perceptual)
            found[title] = {key: round(value, 4) for key, value in asdict(quality).items()}
        found["crops"] = score_crops({name: restore}, bench, perceptual.brisque)[name]
    if name in CLEAN_NETWORKS:
        found["sets"] = measure_sets(load_restore(name, engine), bench)
    return found


def measure_sets(restore: Restore, bench: Path) -> dict[str, float]:
    """Return the mean PSNR of the luminance in dB on each set of clean images, shrunk to a quarter by bicubic."""
    return {title: round(compare(restore, SCALE, pairs)[1], 4) for title, pairs in clean_sets(bench).items()}


def clean_sets(bench: Path) -> dict[str, list[Pair]]:
    """Set5 as published; Set12 and classic5, grey in three equal channels, shrunk by Pillow's bicubic."""
    sets = {"Set5": list(published_pairs(bench, SCALE))}
    for title in GREY_SETS:
        targets = [crop_to_scale(read(path)) for path in sorted((bench / title).iterdir())]
        sets[title] = [(resize(target, *(side // SCALE for side in target.shape[:2])), target) for target in targets]
    return sets


def crop_to_scale(image: Any) -> Any:
    """Cut the rows and columns off that do not fill a whole input pixel."""
    height, width = (side // SCALE * SCALE for side in image.shape[:2])
    return image[:height, :width]


def benchmark_pairs(bench: Path) -> dict[str, list[Pair]]:
    """Set5 at 4x, as published and damaged by noise and JPEG."""
    paths = sorted((bench / "Set5" / "HR").iterdir())
    return {"clean": list(published_pairs(bench, SCALE)), "damaged": [degrade(read(path), SCALE) for path in paths]}


def measure_speed(names: Sequence[str], rounds: int, engine: TorchEngine) -> dict[str, Any]:
    """Time networks in turn on one thread: CPU seconds for each megapixel of the result."""
    torch.set_num_threads(1)
    machine = describe_machine()
    pixels = torch.randint(0, 256, (TIMED_SIDE, TIMED_SIDE, 3), generator=torch.Generator().manual_seed(0))
    image = pixels.to(torch.uint8).numpy()
    runs = {name: load_restore(name, engine) for name in names}
    began = time.monotonic()
    timings = measure_in_turn({name: functools.partial(run, image) for name, run in runs.items()}, rounds)
    megapixels = (TIMED_SIDE * SCALE) ** 2 / 1e6
    return {
        "machine": machine,
        "rounds": rounds,
        "seconds": round(time.monotonic() - began, 1),
        "timings": {name: timing.to_json() for name, timing in timings.items()},
        "cpu_s_per_megapixel": {
            name: round(float(timing.to_json()["median_cpu_s"]) / megapixels, 4)  # type: ignore[arg-type]
            for name, timing in timings.items()
        },
    }


def load_results(path: Path = RESULTS) -> dict[str, Any]:
    """Read the results; empty ones until the file exists."""
    if not path.exists():
        return {"networks": {}}
    results: dict[str, Any] = json.loads(path.read_text())
    return results


def save_results(results: Mapping[str, Any], path: Path = RESULTS) -> None:
    """Write the results, networks in the order of the tables; those that are gone are left out."""
    networks = {name: results["networks"][name] for name in KNOWN if name in results["networks"]}
    path.write_text(json.dumps({**results, "networks": networks}, indent=1) + "\n")
