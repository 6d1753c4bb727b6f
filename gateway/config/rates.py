"""Allowances: how much somebody may ask for in which time, written as "60 per minute; 500 per day".

Two are kept: requests, and megapixels (width x height of uploads, each rounded up). The texts are those of the package
`limits`; an empty one means no limit.
"""

from __future__ import annotations

from dataclasses import dataclass

from limits import RateLimitItem, parse_many

MAX_AMOUNT = 100_000
"""A moving window keeps an entry a unit; 100,000 are 3 MB in Redis for whoever uses all of them."""
MAX_WINDOW_S = 366 * 86_400
"""Counts are kept for so long; Redis refuses an end that is centuries away."""


@dataclass(frozen=True)
class Rates:
    """What a visitor may ask for."""

    requests: str
    megapixels: str


def parse_rates(text: str) -> list[RateLimitItem]:
    """Return the limits that a text means; raise ValueError in words."""
    if not text.strip():
        return []
    try:
        items = parse_many(text)
    except ValueError:
        raise ValueError(
            f'{text[:80]!r} is no limit: write it as "60 per minute" or "10 per 30 seconds; 500 per day"'
        ) from None
    for item in items:
        if not 1 <= item.amount <= MAX_AMOUNT:
            raise ValueError(f"{text[:80]!r} asks for {item.amount:,}: an amount is from 1 to {MAX_AMOUNT:,}")
        if item.get_expiry() > MAX_WINDOW_S:
            raise ValueError(f"{text[:80]!r} counts for longer than a year: a time is at most 366 days")
    return items


def check_rates(value: str) -> str:
    """Check that a setting's value can be read as amounts."""
    try:
        parse_rates(value)
    except ValueError as error:
        return f"is refused: {error}"
    return ""


def count_megapixels(pixels: int) -> int:
    """Return what an upload of that many pixels costs: whole megapixels, at least one."""
    return max(1, -(-pixels // 1_000_000))
