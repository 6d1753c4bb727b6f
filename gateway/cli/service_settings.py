"""The limits and variants of a service elsewhere, as settings: images are checked against them before they are sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.cli.service import ServiceError
from gateway.config.fields import SettingsError
from gateway.config.settings import Settings
from preprocessing.codec import MAX_DECODED_PIXELS
from swinir.auto import AUTO, NEAREST
from swinir.custom_variants import NAME_PATTERN
from swinir.zoo import VARIANTS, Variant

_KNOWN = {**VARIANTS, NEAREST.name: NEAREST}


@dataclass(frozen=True)
class ServiceSettings(Settings):
    """The settings of a service, as far as it reports them; the others have their defaults."""

    rows: Mapping[str, Variant] = field(default_factory=dict)
    """The variants that it offers, by name."""

    def offered(self) -> Mapping[str, Variant]:
        """Return the variants that the service offers."""
        return self.rows


def read_service_settings(description: Mapping[str, Any], url: str) -> ServiceSettings:
    """Return the settings from the response of GET /api/v1/variants. Raises ServiceError if it is not one."""
    try:
        rows = {str(each["name"]): _read_variant(each) for each in description["variants"]}
        limits = description["limits"]
        settings = ServiceSettings(
            max_upload_bytes=int(limits["max_upload_bytes"]),
            max_pixels=min(int(limits["max_pixels"]), MAX_DECODED_PIXELS),
            max_side=int(limits["max_side"]),
            max_output_pixels=int(limits["max_output_pixels"]),
            max_job_memory_bytes=10**12,  # the service checks the memory of its jobs itself
            default_variant=str(description["default_variant"]),
            rows=rows,
        )
    except (KeyError, TypeError, ValueError, AttributeError, SettingsError) as error:
        raise ServiceError(
            f"{url} is not a gateway of Serverless SuperRes, or a much newer one ({error!r})."
        ) from error
    if not rows:
        raise ServiceError(f"{url} offers no variant at the moment. Try again later.")
    return settings


def _read_variant(each: Mapping[str, Any]) -> Variant:
    """Return the row of a variant; one that is not in this zoo has what names and limits need."""
    name, task, scale = str(each["name"]), str(each["task"]), int(each["scale"])
    if name in _KNOWN and _KNOWN[name].scale == scale:
        return _KNOWN[name]
    if not NAME_PATTERN.fullmatch(name) or name == AUTO or not 1 <= scale <= 8:
        raise ValueError(f"the variant {name[:80]!r} with scale {scale}")
    return Variant(
        name=name,
        task=task,
        scale=scale,
        summary=str(each.get("summary") or ""),
        config={"window_size": 8, "in_chans": 1 if "gray" in task else 3},
        halo=0,
        max_tile_px=64,
        notice=str(each.get("notice") or ""),
    )
