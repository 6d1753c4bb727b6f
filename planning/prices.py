"""GPU prices by name, each with its source. `--price` takes a name, `--price-per-hour` any other price."""

from collections.abc import Mapping
from dataclasses import dataclass

HOURS_PER_MONTH = 720.0
"""Hours in 30 days, the month behind the original project's $300."""


@dataclass(frozen=True, slots=True)
class Price:
    """The price of one GPU for an hour, busy or idle."""

    name: str
    usd_per_hour: float
    description: str
    source: str

    @property
    def usd_per_second(self) -> float:
        """Price of one second."""
        return self.usd_per_hour / 3600

    def dollars(self, gpu_s: float) -> float:
        """Return the cost of this many GPU seconds."""
        return gpu_s * self.usd_per_second


_GUIDE = "the vendors' public price lists in 2026, rounded"

PRICES: Mapping[str, Price] = {
    price.name: price
    for price in (
        Price("l4-low", 0.00019 * 3600, "NVIDIA L4, cheaper serverless vendors: $0.00019 per second", _GUIDE),
        Price("l4-high", 0.00022 * 3600, "NVIDIA L4, more expensive serverless vendors: $0.00022 per second", _GUIDE),
        Price("cloud-run-l4", 1.40, "NVIDIA L4 on Cloud Run, about $1.40 per hour including CPU and memory", _GUIDE),
        Price(
            "original",
            300 / HOURS_PER_MONTH,
            "the always-on GPU that the original project replaced: $300 a month",
            "the original project's description: $3 a month instead of $300",
        ),
    )
}

DEFAULT_PRICE = "l4-high"


def find_price(name: str) -> Price:
    """Return the price of this name in PRICES."""
    return PRICES[name]


def price_per_hour(usd: float) -> Price:
    """Return a price given on the command line."""
    return Price("own", usd, f"${usd:g} per hour, given on the command line", "--price-per-hour")
