"""The tables of docs/measurements/scale.md: the capacity model's arithmetic and the simulations at scale.

Owns which cases the document tells of; computes nothing that `fleet.py` and `growth.py` do not.
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from planning.reports.bill_tables import PRICE, table
from planning.reports.fleet import (
    GPU_PEAK_TERAFLOPS,
    REGIONS,
    TERAFLOPS_PER_MEGAPIXEL,
    Workload,
    gateway_memory_bytes,
    in_flight,
    list_layers,
    scraped_pods,
    survives_loss,
    world_peak,
)
from planning.reports.growth import Step, StepOutcome, cell_waits_s, pool_waits_s, run_step

RATE = 1000.0
"""Images a second."""
POOLS = (1, 11, 118)
UTILISATIONS = (0.5, 0.7, 0.8, 0.9, 0.95)
_IMAGES_SIMULATED = 60_000
_SEEDS = (1, 2, 3)

STEPS: Mapping[str, Step] = {
    "boot 12 s, concurrency 1, 70 %": Step(),
    "the same, concurrency 1, 100 %": Step(utilisation_percent=100),
    "the same, concurrency 2, 100 %": Step(concurrency=2, utilisation_percent=100),
    "boot 12 s, 70 %, max-scale 24": Step(max_scale=24),
    "boot 60 s, 70 %": Step(boot_s=60),
    "boot 60 s, 70 %, max-scale 24": Step(boot_s=60, max_scale=24),
    "boot 180 s, 70 %, max-scale 24": Step(boot_s=180, max_scale=24),
}

WORKLOADS: Mapping[str, Workload] = {
    "PNG, raw pixels through the activator": Workload(),
    "JPEG, raw pixels direct to the pods": Workload(output="jpeg", activator_in_path=False),
}


@functools.cache
def outcomes(name: str) -> tuple[StepOutcome, ...]:
    """A step simulated with several seeds."""
    return tuple(run_step(STEPS[name], seed=seed) for seed in _SEEDS)


@functools.cache
def waits(gpus: int, utilisation: float) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Waits before a pool at a utilisation, seconds."""
    work_s = Workload().gpu_s
    rate = gpus * utilisation / work_s
    return pool_waits_s(rate, gpus, work_s, seconds=_IMAGES_SIMULATED / rate, seed=1)


def wait_s(gpus: int, utilisation: float, percent: float) -> float:
    """A percentile of those waits, seconds."""
    return float(np.percentile(waits(gpus, utilisation), percent))


def format_rate(images_per_s: float) -> str:
    """Images a second with two or three digits."""
    return f"{images_per_s:,.0f}" if images_per_s >= 100 else f"{images_per_s:.3g}"


def make_layers() -> str:
    """Layers, which is full first, units for 1,000 images a second."""
    rows = []
    for label, workload in WORKLOADS.items():
        rows += [
            [label, layer.name, layer.unit, format_rate(layer.full_at), f"{layer.units(RATE):,}", layer.basis]
            for layer in list_layers(workload)
        ]
    return table(("workload", "layer", "unit", "full at images/s", "units for 1,000/s", "basis"), rows)


def make_gpus() -> str:
    """GPUs for 1,000 images a second by variant and GPU, and what a million images cost at the L4's price."""
    rows = []
    for variant in TERAFLOPS_PER_MEGAPIXEL:
        for gpu in GPU_PEAK_TERAFLOPS:
            counts = []
            for efficiency in (0.1, 0.2, 0.4):
                layers = list_layers(Workload(variant=variant, gpu=gpu, efficiency=efficiency))
                counts += [layer.units(RATE) for layer in layers if layer.unit == gpu]
            work_s = Workload(variant=variant, gpu=gpu).gpu_s
            usd = f"${1e6 * work_s / 0.7 * PRICE.usd_per_second:,.0f}" if gpu == "L4" else "-"
            rows.append([f"`{variant}`", gpu, f"{1000 * work_s:.0f} ms", *(f"{count:,}" for count in counts), usd])
    head = (
        "variant",
        "GPU",
        "GPU time an image at 20 %",
        "GPUs at 10 %",
        "at 20 %",
        "at 40 %",
        "GPU dollars a million images",
    )
    return table(head, rows)


def make_waits() -> str:
    """Waits before pools of several sizes."""
    columns = [(gpus, percent) for gpus in POOLS for percent in (50, 99)]
    rows = [
        [f"{busy:.0%}", *(f"{1000 * wait_s(gpus, busy, percent):.0f} ms" for gpus, percent in columns)]
        for busy in UTILISATIONS
    ]
    return table(("busy", *(f"{gpus} GPU{'s' if gpus > 1 else ''}, p{percent}" for gpus, percent in columns)), rows)


def make_cells() -> str:
    """The same GPUs as one pool or in cells that share nothing."""
    work_s = Workload().gpu_s
    rows = []
    for cells in (1, 3, 10, 30, 120):
        found = cell_waits_s(RATE, 120, cells, work_s, seconds=_IMAGES_SIMULATED / RATE, seed=1)
        rows.append(
            [
                f"{cells} x {120 // cells} GPUs",
                *(f"{1000 * np.percentile(found, percent):.0f} ms" for percent in (50, 95, 99)),
            ]
        )
    return table(("120 GPUs as", "wait p50", "p95", "p99"), rows)


def make_steps() -> str:
    """A cell's load doubles at once: what Knative's rules make of it."""
    rows = []
    for name in STEPS:
        done = outcomes(name)
        rows.append(
            [
                name,
                _median([each.steady_pods for each in done], ".0f", ""),
                _median([each.steady_p95_s for each in done], ".2f", " s"),
                _median([float(each.pods.max()) for each in done], ",.0f", ""),
                _median([float(np.nanmax(each.p95_s)) for each in done], ".1f", " s"),
                _median([each.slow_s for each in done], ".0f", " s"),
                _median([each.lost for each in done], ",.0f", ""),
                _median([each.gpu_s / 3600 for each in done], ".1f", ""),
            ]
        )
    return table(("setting", "pods before", "p95 before", "most pods", "worst p95", "slow for", "lost", "GPU h"), rows)


def _median(values: Sequence[float], form: str, unit: str) -> str:
    return format(float(np.median(values)), form) + unit


def make_regions() -> str:
    """GPUs for the regions: each alone, shared, and with one region lost."""
    gpus = next(layer for layer in list_layers(Workload()) if layer.unit == "L4").units(RATE)
    peak = world_peak()
    rows = [
        ["one pool for the whole world (its busiest moment is 1,000/s)", f"{gpus}"],
        ["every region alone, sized for its own busiest hour", f"{gpus / peak:.0f}"],
        ["any region may fail at any hour, the others take its visitors", f"{gpus / peak * survives_loss():.0f}"],
        *(
            [f"of the last: {region.name} ({region.share:.0%})", f"{gpus / peak * survives_loss() * region.share:.0f}"]
            for region in REGIONS
        ),
    ]
    return table(("how the GPUs are laid out", "L4s"), rows)


def make_memory() -> str:
    """Images and bytes inside the gateways by latency."""
    workload = Workload()
    rows = [
        [
            f"{latency_s:g} s",
            f"{in_flight(RATE, latency_s):,.0f}",
            f"{gateway_memory_bytes(workload, RATE, latency_s) / 1e9:,.0f} GB",
        ]
        for latency_s in (0.5, 2, 10)
    ]
    return table(("an image's time inside", "images inside", "raw pixels held by the gateways"), rows)


def make_samples() -> str:
    """How many pods the autoscaler reads."""
    return table(
        ("ready pods", "read each second"), [[str(pods), str(scraped_pods(pods))] for pods in (3, 5, 12, 118, 1000)]
    )


TABLES: Mapping[str, Callable[[], str]] = {
    "layers": make_layers,
    "gpus": make_gpus,
    "waits": make_waits,
    "cells": make_cells,
    "steps": make_steps,
    "regions": make_regions,
    "memory": make_memory,
    "samples": make_samples,
}
