"""What a GPU costs: named prices, each with its source and the date it was read.

Owns the one table of prices; `--price` takes a name of it, `--price-per-hour` any other number.
"""

from collections.abc import Mapping
from dataclasses import dataclass

HOURS_A_MONTH = 720.0
"""30 days, as in the original's $300 a month."""


class UnknownPrice(KeyError):
    """No price of that name; the message lists the names."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class Price:
    """The price of one GPU for an hour, whatever it does."""

    name: str
    usd_per_hour: float
    what: str
    source: str
    read_on: str

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
        Price("l4-low", 0.00019 * 3600, "NVIDIA L4, cheaper serverless vendors: $0.00019 a second", _GUIDE, "2026"),
        Price("l4-high", 0.00022 * 3600, "NVIDIA L4, dearer serverless vendors: $0.00022 a second", _GUIDE, "2026"),
        Price("cloud-run-l4", 1.40, "NVIDIA L4 on Cloud Run, about $1.40 an hour all in", _GUIDE, "2026"),
        Price(
            "original",
            300 / HOURS_A_MONTH,
            "the always-on GPU that the original project replaced, $300 a month",
            "the original's own words: $3 a month instead of $300",
            "2026",
        ),
    )
}

DEFAULT_PRICE = "l4-high"


def find_price(name: str) -> Price:
    """The price of a name; raises UnknownPrice with the names there are."""
    if name not in PRICES:
        raise UnknownPrice(f'There is no price "{name}". Prices: {", ".join(PRICES)}; or give --price-per-hour.')
    return PRICES[name]


def price_per_hour(usd: float) -> Price:
    """A price of one's own."""
    return Price("own", usd, f"${usd:g} an hour, given on the command line", "--price-per-hour", "now")
