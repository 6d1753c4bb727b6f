"""The size of a result that a client asks for: parameters `scale`, `megapixels`, or `width` and `height`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from gateway.problems import BadParameter

SIZE_PARAMETERS = ("scale", "width", "height", "megapixels")
MIN_SCALE, MAX_SCALE = 1, 8
# The largest side that any format holds, and the megapixels of the largest setting.
MAX_SIDE = 65_500
MAX_MEGAPIXELS = 1_000

# A decimal number as JSON and Python write it. Not NaN, not 1,5, and no digits other than ASCII's.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
# Longer than any number that a program writes. The pattern takes quadratic time for a long run of digits.
_MAX_NUMBER_LENGTH = 40


@dataclass(frozen=True)
class ResultSize:
    """The requested size. Everything is None if the client takes the size that the variant makes."""

    scale: Fraction | None = None
    """Side of the result / side of the upload."""
    width: int | None = None
    height: int | None = None
    """With `width`, the larger of the two bounds does not count: the result fits inside and keeps its aspect."""
    megapixels: Fraction | None = None

    @property
    def is_requested(self) -> bool:
        """Whether the client asks for a size."""
        return self != ResultSize()

    def fit(self, width: int, height: int) -> tuple[int, int] | None:
        """Return width and height of the result of an upload of this size; None without a requested size."""
        if self.scale is not None:
            return _round(width * self.scale), _round(height * self.scale)
        if self.megapixels is not None:
            factor = math.sqrt(self.megapixels * 1_000_000 / (width * height))
            return max(1, round(width * factor)), max(1, round(height * factor))
        by_width = None if self.width is None else Fraction(self.width, width)
        by_height = None if self.height is None else Fraction(self.height, height)
        factors = [factor for factor in (by_width, by_height) if factor is not None]
        if not factors:
            return None
        return _round(width * min(factors)), _round(height * min(factors))


def parse_size(parameters: Mapping[str, str]) -> ResultSize:
    """Return the requested size; raise BadParameter for an invalid one. An empty parameter counts as left out."""
    sent = [name for name in SIZE_PARAMETERS if parameters.get(name)]
    if len(sent) > 1 and sent != ["width", "height"]:
        raise BadParameter(
            f"{' and '.join(sent)} were sent together. Send only scale, only megapixels, or width and height, "
            "inside which the result then fits.",
            parameter=sent[1],
        )
    return ResultSize(
        scale=_parse_number(parameters, "scale", MIN_SCALE, MAX_SCALE, "1.5"),
        width=_parse_side(parameters, "width"),
        height=_parse_side(parameters, "height"),
        megapixels=_parse_number(parameters, "megapixels", 0, MAX_MEGAPIXELS, "12.5"),
    )


def parse_decimal(text: str, minimum: float, maximum: float) -> Fraction | None:
    """Return a number between two others, both included; None for anything else."""
    if len(text) > _MAX_NUMBER_LENGTH or not _NUMBER.fullmatch(text) or not minimum <= float(text) <= maximum:
        return None
    return Fraction(float(text)).limit_denominator(1_000_000)


def _parse_number(
    parameters: Mapping[str, str], name: str, minimum: int, maximum: int, example: str
) -> Fraction | None:
    if not (text := parameters.get(name)):
        return None
    number = parse_decimal(text, minimum, maximum)
    if not number:
        limits = f"from {minimum} to {maximum}" if minimum else f"above 0, up to {maximum:,}"
        raise BadParameter(
            f"Invalid {name} {text[:40]!r}: use a number {limits} with a decimal point, such as {example}.",
            parameter=name,
        )
    return number


def _parse_side(parameters: Mapping[str, str], name: str) -> int | None:
    if not (text := parameters.get(name)):
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= MAX_SIDE):
        raise BadParameter(
            f"Invalid {name} {text[:40]!r}: use a whole number of pixels from 1 to {MAX_SIDE:,}.", parameter=name
        )
    return int(text)


def _round(value: Fraction) -> int:
    """Return the nearest whole number of pixels, at least 1; a half is rounded up."""
    return max(1, math.floor(value + Fraction(1, 2)))
