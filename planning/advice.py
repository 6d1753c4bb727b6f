"""Compares settings by simulation: what each knob costs and saves, and the best setting within a budget."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from planning.prices import Price
from planning.simulation import Service, SimulatedMonth, simulate
from planning.traffic import DAY_S, Traffic

IDLE_TAILS: Sequence[tuple[int, float]] = (
    (6, 0.0),
    (15, 0.0),
    (15, 15.0),
    (15, 30.0),
    (15, 60.0),
    (15, 120.0),
    (15, 300.0),
    (15, 900.0),
    (15, 3600.0),
)
"""Pairs of (window, retention) in seconds; each pair keeps an idle pod longer than the one before it."""

KNOBS: Mapping[str, Sequence[float]] = {
    "window_s": (6, 15, 30, 60, 120),
    "retention_s": (0, 15, 30, 60, 300, 900),
    "concurrency": (1, 2, 4),
    "max_scale": (1, 2, 4),
    "min_scale": (0, 1),
    "boot_s": (5, 12, 30, 180),
    "gpus": (0, 1),
}
"""Values that the sweep tries for each knob while all other knobs stay unchanged."""

# A setting that loses a larger share of images ranks below every other one, however cheap it is.
_MAX_LOST_SHARE = 0.005
_MAX_SCALES = (1, 2, 4)


@dataclass(frozen=True, slots=True)
class Trial:
    """One knob set to one value, and the month that this gives."""

    knob: str
    value: float
    month: SimulatedMonth


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The setting recommended for a budget."""

    month: SimulatedMonth
    fits: bool
    """Whether the bill is within the budget. If not, this is the cheapest setting that was simulated."""
    tried: int


class SimulationCache:
    """Simulates one month of traffic under many settings, each setting only once."""

    def __init__(self, traffic: Traffic, *, seed: int = 0) -> None:
        self.traffic = traffic
        self.seed = seed
        self._done: dict[Service, SimulatedMonth] = {}

    def simulate(self, service: Service) -> SimulatedMonth:
        """Return the month under these settings; raises InvalidServiceError."""
        if service not in self._done:
            self._done[service] = simulate(service, self.traffic, seed=self.seed)
        return self._done[service]


def sweep(months: SimulationCache, service: Service) -> Iterator[Trial]:
    """Yield a month for each value of each knob, without invalid combinations (such as fewer GPUs than min-scale)."""
    for knob, values in KNOBS.items():
        for value in values:
            turned = _with_knob(service, knob, value)
            if turned.is_valid:
                yield Trial(knob, value, months.simulate(turned))


def recommend(months: SimulationCache, service: Service, price: Price, budget_usd: float) -> Recommendation:
    """Return the best setting within the budget: the fewest cold starts, then the shortest wait, then the lowest cost.

    Simulates every idle tail, because a longer one can cost less: it saves boots and drains.
    """
    tried = [months.simulate(_with_idle_tail(service, rung)) for rung in IDLE_TAILS]
    if price.dollars(months.traffic.days * DAY_S) <= budget_usd:
        tried.append(months.simulate(replace(service, min_scale=1, max_scale=max(1, service.max_scale))))
    best = _best_within(tried, price, budget_usd)
    if best is not None and not _is_wait_short(best):
        base = best.service
        scales = [scale for scale in _MAX_SCALES if scale > base.max_scale > 0]
        tried += [months.simulate(replace(base, max_scale=scale)) for scale in scales]
        best = _best_within(tried, price, budget_usd)
    if best is not None:
        return Recommendation(best, fits=True, tried=len(tried))
    return Recommendation(min(tried, key=lambda month: month.gpu_s), fits=False, tried=len(tried))


def _best_within(tried: Sequence[SimulatedMonth], price: Price, budget_usd: float) -> SimulatedMonth | None:
    return min((month for month in tried if month.dollars(price) <= budget_usd), key=_rank, default=None)


def _with_idle_tail(service: Service, rung: tuple[int, float]) -> Service:
    return replace(service, window_s=rung[0], retention_s=rung[1], min_scale=0)


def _with_knob(service: Service, knob: str, value: float) -> Service:
    """Return the service with one knob changed. A new boot time has no spread and at most half of the deadline."""
    changes: dict[str, Any] = {knob: type(getattr(service, knob))(value)}
    if knob == "boot_s":
        changes |= {"boot_p90_s": None, "deadline_s": max(service.deadline_s, 2 * value)}
    return replace(service, **changes)


def _is_wait_short(month: SimulatedMonth) -> bool:
    """Return whether the 99th percentile of latency is at most one and a half boots plus two images of work."""
    boot_s = month.service.pull_s + (month.service.boot_p90_s or month.service.boot_s)
    works_s = 2 * (month.service.overhead_s + month.service.seconds_per_megapixel * _max_megapixels(month))
    return month.latency_s(99) <= 1.5 * boot_s + works_s or month.served == 0


def _max_megapixels(month: SimulatedMonth) -> float:
    sizes = month.traffic.megapixels
    return float(sizes.max()) if len(sizes) else 0.0


def _rank(month: SimulatedMonth) -> tuple[bool, float, float, float]:
    p95_s = month.latency_s(95) if month.served else 0.0
    return (month.lost_share > _MAX_LOST_SHARE, round(month.cold_share, 3), p95_s, month.gpu_s)
