"""The tables of docs/measurements/scale.md: which cases are computed or simulated and how they are shown."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from planning.reports.bill_tables import PRICE, table
from planning.reports.capacity import (
    GPU_PEAK_TERAFLOPS,
    GPU_UTILISATION,
    GRID_OVERHEAD,
    MEASURED_GPU,
    MEASURED_GPU_PEAK_TERAFLOPS,
    MEASURED_GPU_S_PER_MEGAPIXEL,
    REGIONS,
    TERAFLOPS_PER_MEGAPIXEL,
    Workload,
    capacity_for_region_loss,
    gateway_memory_bytes,
    global_peak_share,
    in_flight,
    list_layers,
    scraped_pods,
)
from planning.reports.capacity_simulation import Step, StepOutcome, cell_waits_s, pool_waits_s, run_step

RATE = 1000.0
"""Images per second that the page is about."""
POOLS = (1, 11, 118)
UTILISATIONS = (0.5, 0.7, 0.8, 0.9, 0.95)
_IMAGES_SIMULATED = 60_000
_SEEDS = (1, 2, 3)

STEPS: Mapping[str, Step] = {
    "boot 12 s, concurrency 1, 70 %": Step(),
    "boot 12 s, concurrency 1, 100 %": Step(utilisation_percent=100),
    "boot 12 s, concurrency 2, 100 %": Step(concurrency=2, utilisation_percent=100),
    "boot 12 s, 70 %, max-scale 24": Step(max_scale=24),
    "boot 60 s, 70 %": Step(boot_s=60),
    "boot 60 s, 70 %, max-scale 24": Step(boot_s=60, max_scale=24),
    "boot 180 s, 70 %, max-scale 24": Step(boot_s=180, max_scale=24),
}
"""Steps of the load by boot time, concurrency, target utilization and max-scale."""
PLOTTED_STEPS = (
    "boot 12 s, concurrency 1, 70 %",
    "boot 60 s, 70 %",
    "boot 60 s, 70 %, max-scale 24",
    "boot 180 s, 70 %, max-scale 24",
)

WORKLOADS: Mapping[str, Workload] = {
    "PNG, raw pixels through the activator": Workload(),
    "JPEG, raw pixels direct to the pods": Workload(output="jpeg", activator_in_path=False),
}


@functools.cache
def outcomes(name: str) -> tuple[StepOutcome, ...]:
    """Simulate a step with several seeds."""
    return tuple(run_step(STEPS[name], seed=seed) for seed in _SEEDS)


@functools.cache
def waits(gpus: int, utilisation: float) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Return the waiting times in seconds of a pool at a utilization."""
    work_s = Workload().gpu_s
    rate = gpus * utilisation / work_s
    return pool_waits_s(rate, gpus, work_s, seconds=_IMAGES_SIMULATED / rate, seed=1)


def wait_s(gpus: int, utilisation: float, percent: float) -> float:
    """Return a percentile of the waiting times in seconds."""
    return float(np.percentile(waits(gpus, utilisation), percent))


def format_rate(images_per_s: float) -> str:
    """Format images per second with two or three digits."""
    return f"{images_per_s:,.0f}" if images_per_s >= 100 else f"{images_per_s:.3g}"


def make_layers() -> str:
    """Return the layers in the order in which they are full, with the units for 1,000 images per second."""
    rows = []
    for label, workload in WORKLOADS.items():
        rows += [
            [label, layer.name, layer.unit, format_rate(layer.full_at), f"{layer.units(RATE):,}", layer.basis]
            for layer in list_layers(workload)
        ]
    return table(("workload", "layer", "unit", "one unit is full at, images/s", "units for 1,000/s", "source"), rows)


def make_gpus() -> str:
    """Return the GPUs for 1,000 images per second by variant and GPU, and the cost of a million images on L4s."""
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
    header = (
        "variant",
        "GPU",
        "GPU time per image at 20 %",
        "GPUs at 10 %",
        "at 20 %",
        "at 40 %",
        "GPU cost of a million images",
    )
    return table(header, rows)


def make_measured_gpu() -> str:
    """Return what the network takes on the measured GPU today."""
    rows = []
    for variant, per_megapixel_s in MEASURED_GPU_S_PER_MEGAPIXEL.items():
        share = TERAFLOPS_PER_MEGAPIXEL[variant] / per_megapixel_s / MEASURED_GPU_PEAK_TERAFLOPS
        image_s = per_megapixel_s * Workload().megapixels * GRID_OVERHEAD[variant]
        gpus = math.ceil(RATE * image_s / GPU_UTILISATION)
        rows.append(
            [
                f"`{variant}`",
                f"{1000 * per_megapixel_s:.0f} ms",
                f"{share:.1%}",
                f"{1000 * image_s:.0f} ms",
                f"{gpus:,}",
            ]
        )
    header = ("variant", "GPU time per megapixel", "of the peak", "GPU time per image", f"{MEASURED_GPU}s for 1,000/s")
    return table(header, rows)


def make_waits() -> str:
    """Return the waiting times of pools of several sizes."""
    columns = [(gpus, percent) for gpus in POOLS for percent in (50, 99)]
    rows = [
        [f"{busy:.0%}", *(f"{1000 * wait_s(gpus, busy, percent):.0f} ms" for gpus, percent in columns)]
        for busy in UTILISATIONS
    ]
    return table(("busy", *(f"{gpus} GPU{'s' if gpus > 1 else ''}, p{percent}" for gpus, percent in columns)), rows)


def make_cells() -> str:
    """Return the waiting times of 120 GPUs in one pool and in independent cells."""
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
    """Return how Knative reacts while the load of a cell doubles."""
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
    return table(
        ("setting", "pods before", "p95 before", "maximum pods", "worst p95", "slow for", "lost", "GPU h"), rows
    )


def _median(values: Sequence[float], form: str, unit: str) -> str:
    return format(float(np.median(values)), form) + unit


def make_regions() -> str:
    """Return the GPUs for three regions: shared, each on its own, and with one region lost."""
    gpus = next(layer for layer in list_layers(Workload()) if layer.unit == "L4").units(RATE)
    peak = global_peak_share()
    rows = [
        ["one pool for the world, with a peak of 1,000/s", f"{gpus}"],
        ["each region on its own, sized for its peak", f"{gpus / peak:.0f}"],
        [
            "any region may fail at any hour, the others take over",
            f"{gpus / peak * capacity_for_region_loss():.0f}",
        ],
        *(
            [
                f"any region may fail: {region.name} ({region.share:.0%})",
                f"{gpus / peak * capacity_for_region_loss() * region.share:.0f}",
            ]
            for region in REGIONS
        ),
    ]
    return table(("distribution", "L4s"), rows)


def make_memory() -> str:
    """Return the images and bytes in the gateways by latency."""
    workload = Workload()
    rows = [
        [
            f"{latency_s:g} s",
            f"{in_flight(RATE, latency_s):,.0f}",
            f"{gateway_memory_bytes(workload, RATE, latency_s) / 1e9:,.0f} GB",
        ]
        for latency_s in (0.5, 2, 10)
    ]
    return table(("latency", "images in the system", "raw pixels in the gateways"), rows)


def make_samples() -> str:
    """Return how many pods the autoscaler scrapes."""
    return table(
        ("ready pods", "scraped each second"), [[str(pods), str(scraped_pods(pods))] for pods in (3, 5, 12, 118, 1000)]
    )


TABLES: Mapping[str, Callable[[], str]] = {
    "layers": make_layers,
    "gpus": make_gpus,
    "measured-gpu": make_measured_gpu,
    "waits": make_waits,
    "cells": make_cells,
    "steps": make_steps,
    "regions": make_regions,
    "memory": make_memory,
    "samples": make_samples,
}
