"""What a GPU costs: named prices, each with its source.

Owns the one table of prices; `--price` takes a name of it, `--price-per-hour` any other number.
"""

from collections.abc import Mapping
from dataclasses import dataclass

HOURS_A_MONTH = 720.0
"""30 days, as in the original's $300 a month."""


@dataclass(frozen=True, slots=True)
class Price:
    """The price of one GPU for an hour, whatever it does."""

    name: str
    usd_per_hour: float
    what: str
    source: str

    @property
    def usd_per_second(self) -> float:
        """The same for a second."""
        return self.usd_per_hour / 3600

    def dollars(self, gpu_s: float) -> float:
        """What so many GPU seconds cost."""
        return gpu_s * self.usd_per_second


_GUIDE = "public lists, as noted in the project's guide on Knative, 'Prices to reason with'"

PRICES: Mapping[str, Price] = {
    price.name: price
    for price in (
        Price("l4-low", 0.00019 * 3600, "NVIDIA L4, cheaper serverless vendors: $0.00019 a second", _GUIDE),
        Price("l4-high", 0.00022 * 3600, "NVIDIA L4, dearer serverless vendors: $0.00022 a second", _GUIDE),
        Price("cloud-run-l4", 1.40, "NVIDIA L4 on Cloud Run, about $1.40 an hour all in", _GUIDE),
        Price(
            "original",
            300 / HOURS_A_MONTH,
            "the always-on GPU that the original project replaced, $300 a month",
            "the original's own words: $3 a month instead of $300",
        ),
    )
}

DEFAULT_PRICE = "l4-high"


def find_price(name: str) -> Price:
    """The price of a name in PRICES."""
    return PRICES[name]


def price_per_hour(usd: float) -> Price:
    """A price of one's own."""
    return Price("own", usd, f"${usd:g} an hour, given on the command line", "--price-per-hour")
