"""What to set: what each knob buys, and the best setting that a budget pays for.

Owns the ladder of settings, the sweep over knobs and the choice. Runs simulations; knows nothing of how they work.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from planning.prices import Price
from planning.simulation import Service, SimulatedMonth, simulate
from planning.traffic import DAY_S, Traffic

LADDER: Sequence[tuple[int, float]] = (
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
"""(window, retention) in seconds, from the thriftiest to the most generous: each keeps an idle pod longer."""

KNOBS: Mapping[str, Sequence[float]] = {
    "window_s": (6, 15, 30, 60, 120),
    "retention_s": (0, 15, 30, 60, 300, 900),
    "concurrency": (1, 2, 4),
    "max_scale": (1, 2, 4),
    "min_scale": (0, 1),
    "boot_s": (5, 12, 30, 180),
    "gpus": (0, 1),
}
"""What the sweep tries of each knob, one at a time, the others left as they are."""

_MOST_LOST = 0.005
"""A setting that loses more images than this share is no good at any price."""
_MAX_SCALES = (1, 2, 4)


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting tried."""

    knob: str
    value: float
    month: SimulatedMonth


@dataclass(frozen=True, slots=True)
class Advice:
    """The setting chosen for a budget."""

    month: SimulatedMonth
    fits: bool
    """Whether its bill is within the budget; if not it is the cheapest that was found."""
    tried: int


class Months:
    """Months of one traffic under many settings; each setting is simulated once."""

    def __init__(self, traffic: Traffic, *, seed: int = 0) -> None:
        self.traffic = traffic
        self.seed = seed
        self._done: dict[Service, SimulatedMonth] = {}

    def simulate(self, service: Service) -> SimulatedMonth:
        """The month under a setting; raises BadService."""
        if service not in self._done:
            self._done[service] = simulate(service, self.traffic, seed=self.seed)
        return self._done[service]


def sweep(months: Months, service: Service) -> Iterator[Trial]:
    """Turn one knob at a time, as far as the others allow it (no fewer GPUs than pods that never sleep)."""
    for knob, values in KNOBS.items():
        for value in values:
            turned = _turned(service, knob, value)
            if turned.is_possible:
                yield Trial(knob, value, months.simulate(turned))


def recommend(months: Months, service: Service, price: Price, budget_usd: float) -> Advice:
    """The best setting whose bill is within the budget: fewest cold visits, then the shortest wait, then the cheapest.

    Every rung is tried: the bill does not always grow with the tail, as a longer tail saves boots and drains.
    """
    tried = [months.simulate(_on_rung(service, rung)) for rung in LADDER]
    if price.dollars(months.traffic.days * DAY_S) <= budget_usd:
        tried.append(months.simulate(replace(service, min_scale=1, max_scale=max(1, service.max_scale))))
    best = _best_within(tried, price, budget_usd)
    if best is not None and not _waits_little(best):
        base = best.service
        scales = [scale for scale in _MAX_SCALES if scale > base.max_scale > 0]
        tried += [months.simulate(replace(base, max_scale=scale)) for scale in scales]
        best = _best_within(tried, price, budget_usd)
    if best is not None:
        return Advice(best, fits=True, tried=len(tried))
    return Advice(min(tried, key=lambda month: month.gpu_s), fits=False, tried=len(tried))


def _best_within(tried: Sequence[SimulatedMonth], price: Price, budget_usd: float) -> SimulatedMonth | None:
    return min((month for month in tried if month.dollars(price) <= budget_usd), key=_rank, default=None)


def _on_rung(service: Service, rung: tuple[int, float]) -> Service:
    return replace(service, window_s=rung[0], retention_s=rung[1], min_scale=0)


def _turned(service: Service, knob: str, value: float) -> Service:
    """One knob turned; a boot time is a fixed one then, and the time-out leaves room for it."""
    changes: dict[str, Any] = {knob: type(getattr(service, knob))(value)}
    if knob == "boot_s":
        changes |= {"boot_p90_s": None, "deadline_s": max(service.deadline_s, 2 * value)}
    return replace(service, **changes)


def _waits_little(month: SimulatedMonth) -> bool:
    """Whether even the slowest in a hundred waited for no more than a boot and two images of work."""
    boot_s = month.service.boot_p90_s or month.service.boot_s
    works_s = 2 * (month.service.overhead_s + month.service.seconds_per_megapixel * _large(month))
    return month.latency_s(99) <= 1.5 * boot_s + works_s or month.served == 0


def _large(month: SimulatedMonth) -> float:
    sizes = month.traffic.megapixels
    return float(sizes.max()) if len(sizes) else 0.0


def _rank(month: SimulatedMonth) -> tuple[bool, float, float, float]:
    p95_s = month.latency_s(95) if month.served else 0.0
    return (month.lost_share > _MOST_LOST, round(month.cold_share, 3), p95_s, month.gpu_s)
