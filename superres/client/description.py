"""What a service offers, and what an upscale would cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from superres.client.errors import UnexpectedResponseError


@dataclass(frozen=True)
class ServiceVariant:
    """A network that the service offers, or plain repetition of pixels."""

    name: str
    scale: int
    """Side of its result / side of the upload."""
    task: str
    summary: str
    """What it is for, in a sentence."""
    max_pixels: int
    """Maximum pixels of an upload for it."""


@dataclass(frozen=True)
class Quote:
    """What an upscale would cost."""

    variant: str
    format: str
    is_cached: bool
    """Whether the result exists already, so that it costs nothing."""
    width: int
    height: int
    """Size of the result in pixels."""
    megapixels: int
    """What the rate limits of megapixels are charged."""
    fits: bool
    """Whether the rate limits of megapixels permit it now."""
    total_s: float | None
    """Estimated seconds with queue and boot; None if nothing was measured yet."""
    members: Mapping[str, Any] = field(repr=False)
    """All members of the response (docs/reference/api.md)."""


def read_variants(description: Mapping[str, Any]) -> list[ServiceVariant]:
    """Return the variants of GET /api/v1/variants. Raises UnexpectedResponseError."""
    try:
        return [
            ServiceVariant(
                name=str(each["name"]),
                scale=int(each["scale"]),
                task=str(each.get("task") or ""),
                summary=str(each.get("summary") or ""),
                max_pixels=int(each["max_pixels"]),
            )
            for each in description["variants"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnexpectedResponseError(
            f"The service lists variants that this version does not understand ({error!r})."
        ) from error


def read_quote(members: Mapping[str, Any]) -> Quote:
    """Return the quote of a response to dry_run=1. Raises UnexpectedResponseError."""
    try:
        return Quote(
            variant=str(members["variant"]),
            format=str(members["format"]),
            is_cached=members.get("cache") == "hit",
            width=int(members["result"]["width"]),
            height=int(members["result"]["height"]),
            megapixels=int(members["megapixels"]),
            fits=all(bool(each["fits"]) for each in members["allowance"]),
            total_s=None if members["seconds"]["total"] is None else float(members["seconds"]["total"]),
            members=dict(members),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UnexpectedResponseError(
            f"The service sent a quote that this version does not understand ({error!r})."
        ) from error
