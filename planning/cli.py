"""Defines the command `superres plan`. The text and the JSON that it prints come from `output.py`."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from planning import output
from planning.advice import SimulationCache, recommend, sweep
from planning.plots import PlotUnavailableError, plot_tradeoff
from planning.prices import DEFAULT_PRICE, PRICES, Price, find_price, price_per_hour
from planning.simulation import InvalidServiceError, Service
from planning.traffic import TRACES, InvalidTraceError, Traffic, draw_traffic, read_traffic

Command = TypeVar("Command", bound=Callable[..., Any])

_DEFAULT = Service()
_DEFAULT_DAYS = 30.0
_TRACES = "; ".join(f"{trace.name} ({trace.summary})" for trace in TRACES.values())


class _Finite(click.FloatRange):
    """A range of numbers without NaN and infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def _knob(flag: str, field: str, words: str) -> Callable[[Command], Command]:
    """Return an option that sets a field of Service, with the field's type and default."""
    default = getattr(_DEFAULT, field)
    kind = int if isinstance(default, int) else float
    return click.option(flag, field, type=kind, default=default, show_default=default is not None, help=words)


@click.command()
@click.option("--trace", default="quiet", show_default=True, help=f"A trace file, or one of these names: {_TRACES}.")
@click.option(
    "--days",
    type=_Finite(min=0, min_open=True, max=366),
    help="Days to simulate. Default: 30 for a named trace, the length of the file otherwise.",
)
@_knob("--window", "window_s", "Knative's stable window in seconds. A pod counts as idle after a window without load.")
@_knob(
    "--retention",
    "retention_s",
    "Seconds that an idle pod is kept after the window. Images that arrive meanwhile do not wait for a boot.",
)
@_knob("--concurrency", "concurrency", "Maximum number of images inside one pod. Its GPU works on one at a time.")
@_knob("--min-scale", "min_scale", "Minimum number of pods; they never sleep.")
@_knob("--max-scale", "max_scale", "Maximum number of pods. It limits the cost.")
@_knob("--boot-s", "boot_s", "Median boot time of a pod in seconds.")
@_knob(
    "--boot-p90-s", "boot_p90_s", "90th percentile of the boot time in seconds. Default: every boot takes the median."
)
@_knob(
    "--image-gb",
    "image_gb",
    "Compressed size of the image in GB. A new node pulls it before the boot. 0: nodes have the image.",
)
@_knob("--pull-mb-per-s", "pull_mb_per_s", "MB of the compressed image that a new node pulls and unpacks in a second.")
@_knob(
    "--seconds-per-image",
    "seconds_per_megapixel",
    "GPU seconds for an image of one megapixel. Other sizes take time in proportion.",
)
@_knob("--deadline-s", "deadline_s", "Maximum seconds from arrival to response, including the boot.")
@_knob("--queue-size", "queue_size", "Maximum number of waiting images. Further ones are refused.")
@_knob(
    "--burst-capacity",
    "burst_capacity",
    "Knative's target-burst-capacity. -1 sends every request through the activator.",
)
@_knob(
    "--node-linger-s",
    "node_linger_s",
    "Seconds that a GPU node is billed after its last pod. 0 if pods are billed, not nodes.",
)
@_knob(
    "--gpus", "gpus", "GPUs in the cluster; 0 means no limit. With 1, a new pod waits until the old one has drained."
)
@click.option(
    "--price",
    type=click.Choice(list(PRICES)),
    default=DEFAULT_PRICE,
    show_default=True,
    help="Price of one GPU, by name.",
)
@click.option(
    "--price-per-hour",
    "usd_per_hour",
    type=_Finite(min=0),
    help="Price of one GPU hour in dollars, instead of --price.",
)
@click.option(
    "--budget",
    "budget_usd",
    type=_Finite(min=0),
    help="Recommend the best setting that costs at most this many dollars for the simulated days.",
)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Seed of the random numbers.")
@click.option(
    "--sweep",
    "is_sweep",
    is_flag=True,
    help="Change one knob at a time and show cost and waiting time (about 20 simulations, up to 20 s).",
)
@click.option(
    "--plot",
    "plot_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw cost against waiting time into this file (PNG or SVG).",
)
@click.option("--json", "is_json", is_flag=True, help="Print JSON.")
def plan(
    trace: str,
    days: float | None,
    price: str,
    usd_per_hour: float | None,
    budget_usd: float | None,
    seed: int,
    is_sweep: bool,  # noqa: FBT001 - click passes flags by name
    plot_path: Path | None,
    is_json: bool,  # noqa: FBT001
    **knobs: Any,
) -> None:
    """Simulate a month of traffic on Knative: GPU hours, cost, waiting times and recommended settings."""
    chosen = price_per_hour(usd_per_hour) if usd_per_hour is not None else find_price(price)
    service = Service(**knobs)
    try:
        months = SimulationCache(_read_trace(trace, days, seed), seed=seed)
        _print_results(months, service, chosen, budget_usd, is_sweep=is_sweep, is_json=is_json)
        if plot_path is not None:
            plot_tradeoff(plot_path, months, service, chosen)
            click.echo(f"Plot written to {plot_path}", err=True)
    except (InvalidTraceError, InvalidServiceError, PlotUnavailableError) as error:
        raise click.ClickException(str(error)) from error


def _read_trace(trace: str, days: float | None, seed: int) -> Traffic:
    """Return a named trace or a trace file; raises InvalidTraceError."""
    path = Path(trace)
    if trace not in TRACES and path.exists():
        return read_traffic(path, days=days)
    return draw_traffic(trace, days=days or _DEFAULT_DAYS, seed=seed)


def _print_results(
    months: SimulationCache,
    service: Service,
    price: Price,
    budget_usd: float | None,
    *,
    is_sweep: bool,
    is_json: bool,
) -> None:
    began_s = time.monotonic()
    month = months.simulate(service)
    took_s = time.monotonic() - began_s
    trials = list(sweep(months, service)) if is_sweep else []
    advice = None if budget_usd is None else recommend(months, service, price, budget_usd)
    if is_json:
        record = output.month_record(month, price)
        if trials:
            record["sweep"] = [output.trial_record(trial, price) for trial in trials]
        if advice is not None and budget_usd is not None:
            record["recommended"] = output.recommendation_record(advice, price, budget_usd)
        click.echo(json.dumps(record, indent=2))
        return
    parts = [output.describe_month(month, price, took_s=took_s)]
    if trials:
        parts.append(output.describe_sweep(trials, price))
    if advice is not None and budget_usd is not None:
        parts.append(output.describe_recommendation(advice, price, budget_usd))
    click.echo("\n\n".join(parts))
