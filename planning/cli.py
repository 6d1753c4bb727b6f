"""`superres plan`: what a month will cost, how long people will wait, what to set.

Owns the command's options. The only module of planning that knows click; the answer's words are in `answer.py`.
"""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from planning import answer
from planning.advice import Months, recommend, sweep
from planning.plots import PlotUnavailableError, plot_trade
from planning.prices import DEFAULT_PRICE, PRICES, Price, find_price, price_per_hour
from planning.simulation import InvalidServiceError, Service
from planning.traffic import TRACES, InvalidTraceError, Traffic, draw_traffic, read_traffic

Command = TypeVar("Command", bound=Callable[..., Any])

_DEFAULT = Service()
_DEFAULT_DAYS = 30.0
_TRACES = "; ".join(f"{trace.name} ({trace.summary})" for trace in TRACES.values())


class _Finite(click.FloatRange):
    """A range of numbers in which NaN and infinity are none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def _knob(flag: str, field: str, words: str) -> Callable[[Command], Command]:
    """An option that sets a field of Service; its default and its type are the field's own."""
    default = getattr(_DEFAULT, field)
    kind = int if isinstance(default, int) else float
    return click.option(flag, field, type=kind, default=default, show_default=default is not None, help=words)


@click.command()
@click.option("--trace", default="quiet", show_default=True, help=f"A file of arrivals, or one of: {_TRACES}.")
@click.option(
    "--days",
    type=_Finite(min=0, min_open=True, max=366),
    help="How many days; 30 for a named trace, as many as a file has.",
)
@_knob("--window", "window_s", "Stable window in seconds; idle time counts from its end.")
@_knob("--retention", "retention_s", "Seconds that the last pod is kept after that; a visit in them is warm.")
@_knob("--concurrency", "concurrency", "Images inside one pod; its GPU works on one at a time.")
@_knob("--min-scale", "min_scale", "Pods that never sleep.")
@_knob("--max-scale", "max_scale", "Most pods: the ceiling of cost.")
@_knob("--boot-s", "boot_s", "Median boot time of a pod.")
@_knob("--boot-p90-s", "boot_p90_s", "90th percentile of the boot time; without it every boot takes the median.")
@_knob(
    "--seconds-per-image", "seconds_per_megapixel", "GPU seconds for an image of one megapixel, others in proportion."
)
@_knob("--deadline-s", "deadline_s", "From arrival to answer, the boot included.")
@_knob("--queue-size", "queue_size", "Images that may wait; the next one is refused.")
@_knob("--burst-capacity", "burst_capacity", "Knative's target-burst-capacity; -1 keeps the activator in the path.")
@_knob("--node-linger-s", "node_linger_s", "How long a billed node stays after its last pod; 0 where pods are billed.")
@_knob("--gpus", "gpus", "GPUs in the cluster, 0 for enough; with 1 a new pod waits for the old one's drain.")
@click.option(
    "--price", type=click.Choice(list(PRICES)), default=DEFAULT_PRICE, show_default=True, help="A named price."
)
@click.option("--price-per-hour", "usd_per_hour", type=_Finite(min=0), help="Your own price, in dollars.")
@click.option("--budget", "budget_usd", type=_Finite(min=0), help="Dollars for these days: recommend a setting.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Seed of all chance.")
@click.option(
    "--sweep",
    "is_sweep",
    is_flag=True,
    help="Turn one knob at a time and say what it buys (some thirty months: up to 20 s).",
)
@click.option(
    "--plot",
    "plot_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw bill against waiting (PNG or SVG).",
)
@click.option("--json", "is_json", is_flag=True, help="Answer in JSON.")
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
    """Simulate a month of traffic by Knative's own rules: GPU hours, dollars, waiting, and what to set."""
    chosen = price_per_hour(usd_per_hour) if usd_per_hour is not None else find_price(price)
    service = Service(**knobs)
    try:
        months = Months(_read_trace(trace, days, seed), seed=seed)
        _answer(months, service, chosen, budget_usd, is_sweep=is_sweep, is_json=is_json)
        if plot_path is not None:
            plot_trade(plot_path, months, service, chosen)
            click.echo(f"Drawn: {plot_path}", err=True)
    except (InvalidTraceError, InvalidServiceError, PlotUnavailableError) as error:
        raise click.ClickException(str(error)) from error


def _read_trace(trace: str, days: float | None, seed: int) -> Traffic:
    """A named trace, else a file; raises BadTrace."""
    path = Path(trace)
    if trace not in TRACES and path.exists():
        return read_traffic(path, days=days)
    return draw_traffic(trace, days=days or _DEFAULT_DAYS, seed=seed)


def _answer(
    months: Months,
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
        record = answer.month_record(month, price)
        if trials:
            record["sweep"] = [answer.trial_record(trial, price) for trial in trials]
        if advice is not None and budget_usd is not None:
            record["recommended"] = answer.advice_record(advice, price, budget_usd)
        click.echo(json.dumps(record, indent=2))
        return
    parts = [answer.describe_month(month, price, took_s=took_s)]
    if trials:
        parts.append(answer.describe_sweep(trials, price))
    if advice is not None and budget_usd is not None:
        parts.append(answer.describe_advice(advice, price, budget_usd))
    click.echo("\n\n".join(parts))
