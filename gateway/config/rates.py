"""Rates: how much a client may use in which time, written as "60 per minute; 500 per day".

The syntax is that of the package `limits`. The word "none" means no limit, as does an empty text, which a variable of
the environment cannot have. Rates limit requests and megapixels (width x height of an upload, rounded up).
"""

from __future__ import annotations

from dataclasses import dataclass

from limits import RateLimitItem, parse_many

UNLIMITED = "none"
"""The text for no limit."""

# A moving window stores one entry per unit: a client that uses 100,000 takes 3 MB in Redis.
_MAX_AMOUNT = 100_000

# Counts are stored for this long. Redis rejects an expiry that lies centuries ahead.
_MAX_WINDOW_S = 366 * 86_400

_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))


@dataclass(frozen=True)
class Rates:
    """The rates of a client, as text."""

    requests: str
    megapixels: str


def parse_rates(text: str) -> list[RateLimitItem]:
    """Return the rates in a text. Raises ValueError with a full explanation."""
    if error := check_rates(text):
        raise ValueError(f"Invalid rate {text[:80]!r}: {error}")
    return [] if _is_unlimited(text) else parse_many(text)


def check_rates(text: str) -> str:
    """Return what is wrong with a text of rates, as the second half of an error message; empty if it is valid."""
    if _is_unlimited(text):
        return ""
    try:
        rates = parse_many(text)
    except ValueError:
        return f'write it as "60 per minute" or "10 per 30 seconds; 500 per day", or "{UNLIMITED}" for no limit'
    for rate in rates:
        if not 1 <= rate.amount <= _MAX_AMOUNT:
            return f"the amount must be between 1 and {_MAX_AMOUNT:,}, not {rate.amount:,}"
        if rate.get_expiry() > _MAX_WINDOW_S:
            return "the maximum period is 366 days"
    return ""


def _is_unlimited(text: str) -> bool:
    return text.strip().lower() in ("", UNLIMITED)


def describe_rate(rate: RateLimitItem, resource: str = "") -> str:
    """Return a rate in words: "60 requests per minute", "1 request per 10 seconds"."""
    noun = f" {resource.removesuffix('s') if rate.amount == 1 else resource}" if resource else ""
    return f"{rate.amount:,}{noun} per {describe_period(rate).removeprefix('1 ')}"


def describe_period(rate: RateLimitItem) -> str:
    """Return a rate's period in words: "10 minutes"."""
    seconds = rate.get_expiry()
    unit, size = next((unit, size) for unit, size in _UNITS if seconds % size == 0)
    count = seconds // size
    return f"{count} {unit}{'s' if count > 1 else ''}"


def count_megapixels(pixels: int) -> int:
    """Return the megapixels that an upload of this many pixels costs: rounded up, at least one."""
    return max(1, -(-pixels // 1_000_000))
