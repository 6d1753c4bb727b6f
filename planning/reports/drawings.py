"""The plots of docs/how-to/plan-costs.md and docs/measurements/scale.md. Their cases are those of the tables."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from planning.plots import load_pyplot, plot_tradeoff, save
from planning.prices import HOURS_PER_MONTH
from planning.reports import bill_tables, scale_tables
from planning.reports.capacity import (
    REGIONS,
    Workload,
    capacity_for_region_loss,
    demand_at,
    global_peak_share,
    list_layers,
)
from planning.simulation import Service

_COLOURS = ("#3a8f4d", "#2a6fbb", "#d9822b", "#8a5fb0", "#c0504d", "#8a8f98", "#222222")
_GRID = "#e5e7ea"


def draw_visitors(path: Path) -> None:
    """Plot cost against visitors per day, for several settings and for a GPU that is always on."""
    plt = load_pyplot()
    figure, axes = plt.subplots(figsize=(8, 4.6))
    for (name, _), colour in zip(bill_tables.SETTINGS.items(), _COLOURS, strict=False):
        levels = bill_tables.levels(name)
        axes.plot(
            [each.visitors for each in levels], [each.monthly_usd for each in levels], "o-", color=colour, label=name
        )
    lines = (
        (300.0, "always on, $300 (the original project)"),
        (bill_tables.PRICE.usd_per_hour * HOURS_PER_MONTH, "always on, l4-high"),
    )
    for dollars, words in lines:
        axes.axhline(dollars, color="#222222", linestyle="--", linewidth=1)
        axes.annotate(words, (1, dollars), textcoords="offset points", xytext=(2, 4))
    axes.axhline(3, color="#8a8f98", linestyle=":", linewidth=1)
    axes.annotate("$3", (1, 3), textcoords="offset points", xytext=(2, 4))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_ylim(0.4, 1200)
    axes.set_xticks(bill_tables.VISITORS_A_DAY, [str(each) for each in bill_tables.VISITORS_A_DAY])
    axes.set_xlabel("visitors per day (1 to 5 images each)")
    axes.set_ylabel("dollars per month at l4-high")
    axes.set_title("window + retention in seconds, boot 12 s")
    axes.grid(color=_GRID)
    axes.legend(frameon=False, loc="lower right")
    save(figure, path)


def draw_visit(path: Path) -> None:
    """Plot the GPU seconds billed for one image."""
    plt = load_pyplot()
    figure, axes = plt.subplots(figsize=(8, 2.6))
    names = list(bill_tables.SETTINGS)[:3]
    for row, name in enumerate(reversed(names)):
        month = bill_tables.simulate_visit(bill_tables.SETTINGS[name])
        left = 0.0
        for part, colour in (("boot", "#d9822b"), ("work", "#3a8f4d"), ("idle", "#2a6fbb"), ("drain", "#8a8f98")):
            seconds = getattr(month, f"{part}_s")
            axes.barh(row, seconds, left=left, color=colour, label=part if row == 0 else None)
            left += seconds
        axes.annotate(f"{left:.0f} s", (left, row), textcoords="offset points", xytext=(4, -3))
    axes.set_yticks(range(len(names)), list(reversed(names)))
    axes.set_xlabel("billed GPU seconds of one image with 3 s of work")
    axes.legend(frameon=False, ncols=4, loc="lower right", bbox_to_anchor=(1, 1))
    save(figure, path)


def draw_tail(path: Path) -> None:
    """Plot cost and cold starts of longer idle tails, with the trace `quiet`."""
    plot_tradeoff(path, bill_tables.trace_simulations("quiet"), Service(), bill_tables.PRICE)


def draw_layers(path: Path) -> None:
    """Plot how many images per second one unit of each layer carries."""
    plt = load_pyplot()
    figure, panels = plt.subplots(2, 1, figsize=(8, 5.4), sharex=True)
    for axes, (label, workload) in zip(panels, scale_tables.WORKLOADS.items(), strict=True):
        layers = list(reversed(list_layers(workload)))
        axes.barh(
            [f"{layer.name} (per {layer.unit})" for layer in layers],
            [layer.full_at for layer in layers],
            color="#2a6fbb",
        )
        for row, layer in enumerate(layers):
            words = f"{scale_tables.format_rate(layer.full_at)}/s: {layer.units(scale_tables.RATE):,} for 1,000/s"
            axes.annotate(words, (layer.full_at, row), textcoords="offset points", xytext=(4, -3))
        axes.set_title(label)
        axes.set_xscale("log")
        axes.set_xlim(0.5, 2e5)
    panels[1].set_xlabel("images per second that one unit carries")
    figure.tight_layout()
    save(figure, path)


def draw_waits(path: Path) -> None:
    """Plot waiting time against utilization for GPU pools of several sizes."""
    plt = load_pyplot()
    figure, axes = plt.subplots(figsize=(7, 3.8))
    for gpus, colour in zip(scale_tables.POOLS, _COLOURS, strict=False):
        waits_ms = [1000 * scale_tables.wait_s(gpus, busy, 99) for busy in scale_tables.UTILISATIONS]
        label = f"{gpus} GPU{'s' if gpus > 1 else ''} behind one queue"
        busy_percent = [100 * busy for busy in scale_tables.UTILISATIONS]
        axes.plot(busy_percent, [max(wait_ms, 0.1) for wait_ms in waits_ms], "o-", color=colour, label=label)
    axes.axhline(1000 * Workload().gpu_s, color="#8a8f98", linestyle=":")
    axes.annotate("GPU time of one image", (50, 90), color="#8a8f98")
    axes.set_yscale("log")
    axes.set_xlabel("GPUs busy, %")
    axes.set_ylabel("99th percentile of the wait, ms\n(0.1: at most 0.1)")
    axes.grid(color=_GRID)
    axes.legend(frameon=False, loc=(0.02, 0.14))
    save(figure, path)


def draw_steps(path: Path) -> None:
    """Plot latency and pods while the load of a cell doubles."""
    plt = load_pyplot()
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(8, 5.4), sharex=True)
    for name, colour in zip(scale_tables.PLOTTED_STEPS, _COLOURS, strict=False):
        done = scale_tables.outcomes(name)[0]
        seconds = np.arange(len(done.p95_s)) - done.step.step_at_s
        top.plot(seconds, done.p95_s, color=colour, label=name)
        bottom.plot(seconds, np.maximum(done.pods, 1), color=colour)
    for axes in (top, bottom):
        axes.set_yscale("log")
        axes.grid(color=_GRID)
        axes.axvline(0, color="#8a8f98", linestyle=":")
    top.set_title("the load of a cell doubles from 50 to 100 images per second at second 0")
    top.set_ylabel("p95 of the latency, s")
    top.legend(frameon=False, fontsize=8)
    bottom.set_ylabel("ready pods (GPUs)")
    bottom.set_xlabel("seconds after the step")
    save(figure, path)


def draw_regions(path: Path) -> None:
    """Plot a day of three regions against the capacity of each distribution of GPUs."""
    plt = load_pyplot()
    figure, axes = plt.subplots(figsize=(8, 3.8))
    hours = np.arange(0, 24.01, 0.25)
    unit = scale_tables.RATE / global_peak_share()
    demand = [[unit * demand_at(region, float(hour)) for hour in hours] for region in REGIONS]
    axes.stackplot(hours, demand, labels=[region.name for region in REGIONS], colors=_COLOURS[:3], alpha=0.8)
    for value, words in (
        (scale_tables.RATE, "one pool for the world"),
        (unit, "each region on its own"),
        (unit * capacity_for_region_loss(), "any region may fail"),
    ):
        axes.axhline(value, color="#222222", linestyle="--", linewidth=1)
        axes.annotate(f"{words}: {value:,.0f}/s", (0.2, value), textcoords="offset points", xytext=(0, 3))
    axes.set_xlim(0, 24)
    axes.set_ylim(0, unit * capacity_for_region_loss() * 1.15)
    axes.set_xlabel("hour, UTC")
    axes.set_ylabel("images per second")
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize=8)
    save(figure, path)


PLOTS: Mapping[str, Callable[[Path], Any]] = {
    "bill-visitors.png": draw_visitors,
    "bill-visit.png": draw_visit,
    "bill-tail.png": draw_tail,
    "scale-layers.png": draw_layers,
    "scale-waits.png": draw_waits,
    "scale-steps.png": draw_steps,
    "scale-regions.png": draw_regions,
}
