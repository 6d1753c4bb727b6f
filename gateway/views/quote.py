"""The quote of an upscale (`dry_run=1`): size of the result, estimated seconds, and share of the client's allowance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.access.admitted_request import AdmittedRequest
from gateway.config.rates import count_megapixels
from gateway.jobs.estimate import estimate_job
from gateway.jobs.options import UpscaleRequest
from gateway.jobs.request_body import SentImage
from gateway.services import Services


def quote(upscale_request: UpscaleRequest, admitted: AdmittedRequest, running: Services) -> dict[str, Any]:
    """Return what a request would cost. Decodes, charges and wakes nothing.

    For `variant=auto` the numbers are those of the candidate with the largest result, unless the image was looked at
    before.
    """
    upscale_request = running.result_cache.recall(upscale_request)
    is_cached = running.result_cache.has(upscale_request)
    options, upload = upscale_request.options, upscale_request.upload
    width, height = upscale_request.width, upscale_request.height
    return {
        "variant": options.variant_name,
        "format": options.format,
        "depth": options.output.depth,
        "cache": "hit" if is_cached else "miss",
        "upload": {"width": upload.width, "height": upload.height, "pixels": upscale_request.pixels},
        "result": {"width": width, "height": height, "pixels": width * height},
        "megapixels": 0 if is_cached else count_megapixels(upscale_request.pixels),
        "allowance": [] if is_cached else _allowance(upscale_request, admitted),
        "seconds": _no_seconds() if is_cached else _estimate(upscale_request, running),
    }


def quote_images(sent: Sequence[SentImage], admitted: AdmittedRequest, running: Services) -> dict[str, Any]:
    """Return what each of several images would cost, null for one that would be rejected, and the sum."""
    quotes = [quote(image.request, admitted, running) if image.request else None for image in sent]
    return {"images": quotes, "megapixels": sum(each["megapixels"] for each in quotes if each)}


def _allowance(upscale_request: UpscaleRequest, admitted: AdmittedRequest) -> list[dict[str, Any]]:
    """Return each megapixel limit of the client, with the share of it that the request would use."""
    cost = count_megapixels(upscale_request.pixels)
    return [
        {
            "limit": status.limit,
            "window_s": status.window_s,
            "remaining": status.remaining,
            "share": round(cost / status.limit, 4),
            "fits": cost <= status.remaining,
            "reset_s": status.reset_s,
        }
        for status in admitted.megapixel_statuses()
    ]


def _no_seconds() -> dict[str, float | None]:
    return {"queue": 0.0, "boot": 0.0, "work": 0.0, "total": 0.0}


def _estimate(upscale_request: UpscaleRequest, running: Services) -> dict[str, float | None]:
    """Return the seconds of each phase; null for what was not measured yet."""
    estimate = estimate_job(upscale_request, running.queue.estimate_wait_s(), running.backend, running.runner.pace)
    parts = {"queue": estimate.queue_s, "boot": estimate.boot_s, "work": estimate.work_s, "total": estimate.total_s}
    return {name: None if value is None else round(value, 2) for name, value in parts.items()}
