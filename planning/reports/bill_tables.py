"""The tables of docs/how-to/plan-costs.md, each from simulations that it names.

Owns which cases the document tells of; computes nothing that `simulation.py` and `advice.py` do not.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from planning.advice import Months, recommend, sweep
from planning.prices import DEFAULT_PRICE, HOURS_A_MONTH, PRICES, find_price
from planning.simulation import Service, SimulatedMonth, simulate
from planning.traffic import TRACES, Traffic, draw_traffic, draw_visitors

PRICE = find_price(DEFAULT_PRICE)
ORIGINAL = find_price("original")
SEED = 1
VISITORS_A_DAY = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_SESSIONS_SIMULATED = 1500
"""Sessions behind each row of visitors a day, so that chance moves it by about 3 %."""
_MOST_DAYS = 900

SETTINGS: Mapping[str, Service] = {
    "thrifty: 6 + 0": Service(window_s=6, retention_s=0),
    "shipped: 15 + 30": Service(),
    "Knative's defaults: 60 + 0": Service(window_s=60, retention_s=0, burst_capacity=211),
    "generous: 15 + 300": Service(retention_s=300),
}
"""Window + retention in seconds."""


@dataclass(frozen=True, slots=True)
class Level:
    """One number of visitors a day under one setting, scaled to a month of 30 days."""

    visitors: float
    month: SimulatedMonth

    @property
    def monthly_usd(self) -> float:
        """The bill of 30 days."""
        return self.month.dollars(PRICE) * 30 / self.month.traffic.days

    @property
    def monthly_hours(self) -> float:
        """GPU hours of 30 days."""
        return self.month.gpu_hours * 30 / self.month.traffic.days


@functools.cache
def level(setting: str, per_day: float) -> Level:
    """The quiet showcase's kind of traffic at a number of visitors a day."""
    return Level(per_day, simulate(SETTINGS[setting], _visitors(per_day), seed=SEED))


def levels(setting: str) -> tuple[Level, ...]:
    """The same at every number of visitors."""
    return tuple(level(setting, per_day) for per_day in VISITORS_A_DAY)


@functools.cache
def _visitors(per_day: float) -> Traffic:
    days = min(_MOST_DAYS, max(30, round(_SESSIONS_SIMULATED / per_day)))
    return draw_visitors(per_day, days=days, seed=SEED)


@functools.cache
def named_months(name: str) -> Months:
    """A named trace for a month."""
    return Months(draw_traffic(name, days=30, seed=SEED), seed=SEED)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; every column but the first is aligned right."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def make_prices() -> str:
    """The named prices."""
    rows = [
        [
            f"`{price.name}`",
            f"${price.usd_per_hour:.3f}",
            f"${price.usd_per_hour * HOURS_A_MONTH:.0f}",
            price.what,
            price.source,
        ]
        for price in PRICES.values()
    ]
    return table(("name", "an hour", "720 h", "what", "source"), rows)


def make_visit() -> str:
    """One isolated visit of three seconds of work under several settings."""
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
        ("window + retention", "boot s", "work s", "idle s", "drain s", "billed s", "costs", "visits for $3"), rows
    )


def simulate_visit(service: Service) -> SimulatedMonth:
    """One image with three seconds of work, alone on its day."""
    alone = Traffic("one visit", 1.0, np.array([1000.0]), np.array([1.0]), 1)
    return simulate(replace(service, deadline_s=600, seconds_per_megapixel=3, overhead_s=0), alone, seed=SEED)


def make_visitors() -> str:
    """What a month costs by visitors a day under the shipped setting, and beside it the others."""
    head = ("visitors a day", *SETTINGS, "GPU h", "cold", "p50", "p95", "$300 is")
    return table(head, [make_visitors_row(per_day) for per_day in VISITORS_A_DAY])


def make_visitors_row(per_day: int) -> list[str]:
    """One row of that table."""
    shipped = level("shipped: 15 + 30", per_day)
    bills = [f"${level(name, per_day).monthly_usd:.2f}" for name in SETTINGS]
    latency = [f"{shipped.month.latency_s(percent):.1f} s" for percent in (50, 95)]
    times_less = 300 / shipped.monthly_usd
    return [
        str(per_day),
        *bills,
        f"{shipped.monthly_hours:.1f}",
        f"{shipped.month.cold_share:.0%}",
        *latency,
        f"{times_less:.0f} x",
    ]


def make_traces() -> str:
    """The named traces under the shipped setting."""
    rows = []
    for name, trace in TRACES.items():
        month = named_months(name).simulate(Service())
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
    return table(("trace, 30 days", "images", "GPU h", "bill", "cold", "p50", "p95", "p99", "lost"), rows)


def make_knobs() -> str:
    """What each knob buys on the quiet showcase."""
    rows = [
        [
            f"`{trial.knob.removesuffix('_s').replace('_', '-')}` {trial.value:g}",
            f"${trial.month.dollars(PRICE):.2f}",
            f"{trial.month.gpu_hours:.2f}",
            f"{trial.month.cold_share:.0%}",
            f"{trial.month.latency_s(50):.1f} s",
            f"{trial.month.latency_s(95):.1f} s",
        ]
        for trial in sweep(named_months("quiet"), Service())
    ]
    return table(("knob (seconds for times)", "bill", "GPU h", "cold", "p50", "p95"), rows)


def make_budgets() -> str:
    """The recommended setting for some budgets."""
    rows = []
    for name in ("quiet", "spikes", "front-page"):
        for budget in (3.0, 10.0, 30.0):
            advice = recommend(named_months(name), Service(), PRICE, budget)
            service = advice.month.service
            setting = f"window {service.window_s}, retention {service.retention_s:g}, max-scale {service.max_scale}"
            rows.append(
                [
                    f"`{name}`",
                    f"${budget:.0f}",
                    setting if advice.fits else f"none fits; cheapest: {setting}",
                    f"${advice.month.dollars(PRICE):.2f}",
                    f"{advice.month.cold_share:.0%}",
                    f"{advice.month.latency_s(95):.1f} s",
                ]
            )
    return table(("trace", "budget", "setting", "bill", "cold", "p95"), rows)


def make_nodes() -> str:
    """Pods billed by the second against nodes that the bill keeps: the quiet showcase."""
    cases = {
        "pods billed by the second, boot 12 s": Service(),
        "node pool to zero: boot 180 s, node kept 10 min": Service(boot_s=180, deadline_s=600, node_linger_s=600),
        "node pool to zero: boot 300 s, node kept 10 min": Service(boot_s=300, deadline_s=600, node_linger_s=600),
        "one node always kept, pods at zero": Service(node_linger_s=86_400),
    }
    rows = []
    for name, service in cases.items():
        month = named_months("quiet").simulate(service)
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
    return table(("what is billed", "bill", "cold", "p50", "p95"), rows)


TABLES: Mapping[str, Callable[[], str]] = {
    "prices": make_prices,
    "visit": make_visit,
    "visitors": make_visitors,
    "traces": make_traces,
    "knobs": make_knobs,
    "budgets": make_budgets,
    "nodes": make_nodes,
}
