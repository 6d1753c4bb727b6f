"""Formats the results of `superres plan` as text and as JSON."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from planning.advice import Recommendation, Trial
from planning.prices import PRICES, Price
from planning.simulation import Service, SimulatedMonth
from planning.traffic import DAY_S

_UNITS = {"window_s": " s", "retention_s": " s", "boot_s": " s"}


def describe_month(month: SimulatedMonth, price: Price, *, took_s: float) -> str:
    """Return the bill, the waiting times and the comparison with a GPU that is always on."""
    traffic, service = month.traffic, month.service
    always_usd = price.dollars(traffic.days * DAY_S)
    share = f" ({always_usd / month.dollars(price):.0f} times as much)" if month.dollars(price) else ""
    lines = [
        f"Traffic  {traffic.name}: {traffic.images} images in {traffic.days:g} days",
        f"Settings {_setting(service)}",
        "",
        f"GPU      {month.gpu_hours:.2f} h billed in {month.boots} boots: {_parts(month)}",
        f"Cost     ${month.dollars(price):.2f} at {price.name} (${price.usd_per_hour:.3f} per hour)",
        *(
            f"         ${month.dollars(other):.2f} at {other.name} (${other.usd_per_hour:.3f} per hour)"
            for other in PRICES.values()
            if other.name != price.name
        ),
        f"         ${always_usd:.2f} for the same GPU if it is always on{share}",
        f"Waiting  p50 {_seconds(month, 50)}, p95 {_seconds(month, 95)}, p99 {_seconds(month, 99)}",
        f"Cold     {month.cold_share:.1%} of the images waited for a boot",
        f"Lost     {month.refused} refused (queue full), {month.timed_out} timed out",
        "",
        f"Simulated in {took_s:.1f} s. Assumes {service.seconds_per_megapixel:g} GPU seconds per megapixel;",
        "measure your GPU and pass the value with --seconds-per-image.",
    ]
    return "\n".join(lines)


def describe_recommendation(advice: Recommendation, price: Price, budget_usd: float) -> str:
    """Return the recommended setting, or the cheapest one with the remark that no setting fits the budget."""
    month, service = advice.month, advice.month.service
    flags = (
        f"--window {service.window_s} --retention {service.retention_s:g} "
        f"--min-scale {service.min_scale} --max-scale {service.max_scale}"
    )
    first_line = (
        f"For ${budget_usd:.2f}: {flags}"
        if advice.fits
        else f"None of {advice.tried} settings costs ${budget_usd:.2f} or less; the cheapest is {flags}"
    )
    return (
        f"{first_line}\n         ${month.dollars(price):.2f}, {month.cold_share:.1%} cold, p95 {_seconds(month, 95)}, "
        f"{month.refused + month.timed_out} lost (best of {advice.tried} simulated settings)"
    )


def describe_sweep(trials: Sequence[Trial], price: Price) -> str:
    """Return a table of cost and waiting time for each value of each knob."""
    lines = [f"{'knob':<22}{'cost':>10}{'GPU h':>9}{'cold':>8}{'p50':>9}{'p95':>9}{'lost':>7}"]
    lines += [
        f"{trial.knob.removesuffix('_s').replace('_', '-') + f' {trial.value:g}' + _UNITS.get(trial.knob, ''):<22}"
        f"{'$' + format(trial.month.dollars(price), '.2f'):>10}{trial.month.gpu_hours:>9.2f}"
        f"{trial.month.cold_share:>8.1%}{_seconds(trial.month, 50):>9}{_seconds(trial.month, 95):>9}"
        f"{trial.month.refused + trial.month.timed_out:>7}"
        for trial in trials
    ]
    return "\n".join(lines)


def month_record(month: SimulatedMonth, price: Price) -> dict[str, Any]:
    """Return a month as a JSON object; a percentile without served images is null."""
    return {
        "trace": month.traffic.name,
        "days": month.traffic.days,
        "images": month.traffic.images,
        "setting": asdict(month.service),
        "gpu_hours": round(month.gpu_hours, 6),
        "gpu_seconds": {
            "boot": month.boot_s,
            "work": month.work_s,
            "idle": month.idle_s,
            "drain": month.drain_s,
            "linger": month.linger_s,
        },
        "price": {"name": price.name, "usd_per_hour": price.usd_per_hour, "source": price.source},
        "usd": round(month.dollars(price), 4),
        "usd_always_on": round(price.dollars(month.traffic.days * DAY_S), 4),
        "boots": month.boots,
        "max_pods": month.max_pods,
        "latency_s": {f"p{percent}": _finite(month.latency_s(percent)) for percent in (50, 95, 99)},
        "cold_share": month.cold_share,
        "served": month.served,
        "refused": month.refused,
        "timed_out": month.timed_out,
    }


def recommendation_record(advice: Recommendation, price: Price, budget_usd: float) -> dict[str, Any]:
    """Return the recommended setting as a JSON object."""
    return {"budget_usd": budget_usd, "fits": advice.fits, "tried": advice.tried, **month_record(advice.month, price)}


def trial_record(trial: Trial, price: Price) -> dict[str, Any]:
    """Return one trial of a knob as a JSON object."""
    return {"knob": trial.knob, "value": trial.value, **month_record(trial.month, price)}


def _setting(service: Service) -> str:
    scales = f"scale {service.min_scale}..{service.max_scale or 'any'}"
    tail = f"window {service.window_s} s, retention {service.retention_s:g} s"
    pull = f" after a pull of {service.pull_s:g} s on a new node" if service.image_gb else ""
    return f"{tail}, concurrency {service.concurrency}, {scales}, boot {service.boot_s:g} s{pull}"


def _parts(month: SimulatedMonth) -> str:
    parts = {name: getattr(month, f"{name}_s") for name in ("boot", "work", "idle", "drain", "linger")}
    return ", ".join(f"{name} {seconds / month.gpu_s:.0%}" for name, seconds in parts.items() if seconds) or "nothing"


def _seconds(month: SimulatedMonth, percent: float) -> str:
    latency_s = month.latency_s(percent)
    return "-" if math.isnan(latency_s) else f"{latency_s:.1f} s"


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)
