"""The tables of docs/how-to/plan-costs.md: which cases are simulated and how they are shown."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from planning.advice import SimulationCache, recommend, sweep
from planning.prices import DEFAULT_PRICE, HOURS_PER_MONTH, PRICES, find_price
from planning.simulation import Service, SimulatedMonth, simulate
from planning.traffic import TRACES, Traffic, draw_traffic, draw_visitors

PRICE = find_price(DEFAULT_PRICE)
ORIGINAL = find_price("original")
SEED = 1
VISITORS_A_DAY = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
# Compressed sizes of an image in GB (docs/reference/images.md): with and without what is left out of torch, and on top
# of an image of 6 GB (assumed).
IMAGES_GB = (2.3, 2.9, 8.9)
# Sessions simulated for each number of visitors per day. With 1,500 the random error is about 3 %.
_SESSIONS_SIMULATED = 1500
_MAX_DAYS = 900

SETTINGS: Mapping[str, Service] = {
    "thrifty: 6 + 0": Service(window_s=6, retention_s=0),
    "shipped: 15 + 30": Service(),
    "Knative's defaults: 60 + 0": Service(window_s=60, retention_s=0, burst_capacity=211),
    "generous: 15 + 300": Service(retention_s=300),
}
"""Settings to compare, by name and window + retention in seconds."""


@dataclass(frozen=True, slots=True)
class Level:
    """The result for one number of visitors per day under one setting, scaled to 30 days."""

    visitors: float
    month: SimulatedMonth

    @property
    def monthly_usd(self) -> float:
        """Cost of 30 days in dollars."""
        return self.month.dollars(PRICE) * 30 / self.month.traffic.days

    @property
    def monthly_hours(self) -> float:
        """GPU hours of 30 days."""
        return self.month.gpu_hours * 30 / self.month.traffic.days


@functools.cache
def level(setting: str, per_day: float) -> Level:
    """Simulate traffic like `quiet` with this number of visitors per day."""
    return Level(per_day, simulate(SETTINGS[setting], _visitors(per_day), seed=SEED))


def levels(setting: str) -> tuple[Level, ...]:
    """Simulate a setting with every number of visitors per day."""
    return tuple(level(setting, per_day) for per_day in VISITORS_A_DAY)


@functools.cache
def _visitors(per_day: float) -> Traffic:
    days = min(_MAX_DAYS, max(30, round(_SESSIONS_SIMULATED / per_day)))
    return draw_visitors(per_day, days=days, seed=SEED)


@functools.cache
def trace_simulations(name: str) -> SimulationCache:
    """Return the simulations of a named trace over 30 days."""
    return SimulationCache(draw_traffic(name, days=30, seed=SEED), seed=SEED)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; every column except the first is aligned right."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def make_prices() -> str:
    """Return the table of prices."""
    rows = [
        [
            f"`{price.name}`",
            f"${price.usd_per_hour:.3f}",
            f"${price.usd_per_hour * HOURS_PER_MONTH:.0f}",
            price.description,
            price.source,
        ]
        for price in PRICES.values()
    ]
    return table(("name", "per hour", "per 720 h", "GPU", "source"), rows)


def make_visit() -> str:
    """Return the cost of one image with three seconds of work under several settings."""
    rows = []
    for name, service in SETTINGS.items():
        for boot_s in (12.0, 180.0) if name.startswith("shipped") else (12.0,):
            month = simulate_visit(replace(service, boot_s=boot_s))
            parts = (month.boot_s, month.work_s, month.idle_s, month.drain_s)
            label = name if boot_s == 12 else f"{name}, boot 180"
            cents = 100 * month.dollars(PRICE)
            visits = 3 / month.dollars(PRICE)
            rows.append(
                [label, *(f"{part:.1f}" for part in parts), f"{month.gpu_s:.1f}", f"{cents:.2f} c", f"{visits:.0f}"]
            )
    return table(
        ("window + retention", "boot, s", "work, s", "idle, s", "drain, s", "billed, s", "cost", "images for $3"), rows
    )


def simulate_visit(service: Service) -> SimulatedMonth:
    """Simulate one image with three seconds of work on an otherwise idle day."""
    one_visit = Traffic("one visit", 1.0, np.array([1000.0]), np.array([1.0]), 1)
    return simulate(replace(service, deadline_s=600, seconds_per_megapixel=3, overhead_s=0), one_visit, seed=SEED)


def make_visitors() -> str:
    """Return the cost of a month by visitors per day, with waiting times for the shipped settings."""
    header = ("visitors per day", *SETTINGS, "GPU h", "cold", "p50", "p95", "$300 is")
    return table(header, [make_visitors_row(per_day) for per_day in VISITORS_A_DAY])


def make_visitors_row(per_day: int) -> list[str]:
    """Return one row of the table of visitors per day."""
    shipped = level("shipped: 15 + 30", per_day)
    bills = [f"${level(name, per_day).monthly_usd:.2f}" for name in SETTINGS]
    latency = [f"{shipped.month.latency_s(percent):.1f} s" for percent in (50, 95)]
    ratio = 300 / shipped.monthly_usd
    return [
        str(per_day),
        *bills,
        f"{shipped.monthly_hours:.1f}",
        f"{shipped.month.cold_share:.0%}",
        *latency,
        f"{ratio:.0f} x",
    ]


def make_traces() -> str:
    """Return the results of the named traces under the shipped settings."""
    rows = []
    for name, trace in TRACES.items():
        month = trace_simulations(name).simulate(Service())
        latency = [f"{month.latency_s(percent):.1f} s" if month.served else "-" for percent in (50, 95, 99)]
        rows.append(
            [
                f"`{name}`: {trace.summary}",
                str(month.traffic.images),
                f"{month.gpu_hours:.2f}",
                f"${month.dollars(PRICE):.2f}",
                f"{month.cold_share:.0%}",
                *latency,
                str(month.refused + month.timed_out),
            ]
        )
    return table(("trace, 30 days", "images", "GPU h", "cost", "cold", "p50", "p95", "p99", "lost"), rows)


def make_knobs() -> str:
    """Return cost and waiting time for each value of each knob, with the trace `quiet`."""
    rows = [
        [
            f"`{trial.knob.removesuffix('_s').replace('_', '-')}` {trial.value:g}",
            f"${trial.month.dollars(PRICE):.2f}",
            f"{trial.month.gpu_hours:.2f}",
            f"{trial.month.cold_share:.0%}",
            f"{trial.month.latency_s(50):.1f} s",
            f"{trial.month.latency_s(95):.1f} s",
        ]
        for trial in sweep(trace_simulations("quiet"), Service())
    ]
    return table(("knob (times in seconds)", "cost", "GPU h", "cold", "p50", "p95"), rows)


def make_budgets() -> str:
    """Return the recommended settings for some traces and budgets."""
    rows = []
    for name in ("quiet", "spikes", "front-page"):
        for budget in (3.0, 10.0, 30.0):
            advice = recommend(trace_simulations(name), Service(), PRICE, budget)
            service = advice.month.service
            setting = f"window {service.window_s}, retention {service.retention_s:g}, max-scale {service.max_scale}"
            rows.append(
                [
                    f"`{name}`",
                    f"${budget:.0f}",
                    setting if advice.fits else f"over budget; cheapest: {setting}",
                    f"${advice.month.dollars(PRICE):.2f}",
                    f"{advice.month.cold_share:.0%}",
                    f"{advice.month.latency_s(95):.1f} s",
                ]
            )
    return table(("trace", "budget", "settings", "cost", "cold", "p95"), rows)


def make_nodes() -> str:
    """Return the cost of `quiet` if pods are billed by the second and if nodes are billed."""
    cases = {
        "pods billed by the second, boot 12 s": Service(),
        "node pool that scales to zero: boot 180 s, node kept 10 min": Service(
            boot_s=180, deadline_s=600, node_linger_s=600
        ),
        "node pool that scales to zero: boot 300 s, node kept 10 min": Service(
            boot_s=300, deadline_s=600, node_linger_s=600
        ),
        "one node that is always on, pods scale to zero": Service(node_linger_s=86_400),
    }
    rows = []
    for name, service in cases.items():
        month = trace_simulations("quiet").simulate(service)
        usd = PRICE.dollars(30 * 86_400) if service.node_linger_s == 86_400 else month.dollars(PRICE)
        rows.append(
            [
                name,
                f"${usd:.2f}",
                f"{month.cold_share:.0%}",
                f"{month.latency_s(50):.0f} s",
                f"{month.latency_s(95):.0f} s",
            ]
        )
    return table(("what is billed", "cost", "cold", "p50", "p95"), rows)


def make_pulls() -> str:
    """Return what the size of the image costs if every boot is on a new node, and if nodes stay for a while."""
    rows = []
    for label, linger_s in (("a new node for each boot", 0.0), ("nodes stay for 10 min", 600.0)):
        for image_gb in (0.0, *IMAGES_GB):
            service = Service(image_gb=image_gb, deadline_s=600, node_linger_s=linger_s)
            month = trace_simulations("quiet").simulate(service)
            rows.append(
                [
                    f"{label}, " + (f"image of {image_gb:g} GB" if image_gb else "which has the image"),
                    f"{service.pull_s:.0f} s",
                    f"${month.dollars(PRICE):.2f}",
                    f"{month.cold_share:.0%}",
                    f"{month.latency_s(50):.0f} s",
                    f"{month.latency_s(95):.0f} s",
                ]
            )
    return table(("nodes", "pull", "cost", "cold", "p50", "p95"), rows)


TABLES: Mapping[str, Callable[[], str]] = {
    "prices": make_prices,
    "visit": make_visit,
    "visitors": make_visitors,
    "traces": make_traces,
    "knobs": make_knobs,
    "budgets": make_budgets,
    "nodes": make_nodes,
    "pulls": make_pulls,
}
