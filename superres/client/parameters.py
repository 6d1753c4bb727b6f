"""The parameters of an upscale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict


class UpscaleParameters(TypedDict, total=False):
    """The parameters of POST /api/v1/upscale (docs/reference/api.md). None counts as left out."""

    variant: str | None
    """A name from `variants()`, or "auto": chosen by what the image shows."""
    format: str | None
    """png, jpeg, jpg, webp, avif, or same: that of the upload."""
    quality: int | None
    """1 to 100, for JPEG, AVIF and lossy WebP."""
    lossless: bool | None
    """Whether a WebP keeps every pixel exactly."""
    depth: int | str | None
    """Bits per channel of a PNG: 8, 16, or "auto", those of the upload."""
    strength: float | str | None
    """0 to 1: share of the restoration that the result keeps, for variants of scale 1; "auto": by the damage found."""
    scale: float | None
    """Side of the result / side of the upload, 1 to 8."""
    width: int | None
    """Width of the result in pixels; with `height` the result fits inside both."""
    height: int | None
    megapixels: float | None
    """Pixels of the result in millions."""
    metadata: str | None
    """strip, or keep: EXIF, the location included, XMP, IPTC and comments."""
    transparent_colour: str | None
    """bleed or keep."""


def to_query(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return the parameters as the query of a request."""
    shown = {True: "1", False: "0"}
    return {
        name: shown[value] if isinstance(value, bool) else str(value)
        for name, value in parameters.items()
        if value is not None
    }
