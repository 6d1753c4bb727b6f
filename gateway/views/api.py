"""The API, version 1: an image in, an image out, for clients with a key; and what can be asked for."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, current_app, request

from gateway.config.settings import Settings
from gateway.jobs.options import FORMATS, limits_of_format, read_switch
from gateway.jobs.request_body import read_upscale_request
from gateway.jobs.runner import Result
from gateway.services import services_of
from gateway.views.access import admit_to_api
from gateway.views.hooks import request_id
from gateway.views.image_response import send_picture
from gateway.views.jobs import begin, make, send_events, take_room, wants_events
from preprocessing.codec import DEFAULT_QUALITY
from swinir.zoo import VARIANTS, Variant

blueprint = Blueprint("api", __name__, url_prefix="/api/v1")


@blueprint.post("/upscale")
def upscale() -> Response:
    """Answer with the picture itself, and in headers what is to be known beside it; or with events, if asked."""
    parts = services_of(current_app)
    visit = admit_to_api()
    share = take_room(visit)
    with_bands = False

    def take_own(fields: dict[str, str]) -> None:
        nonlocal with_bands
        with_bands = read_switch(fields, "bands")

    order = read_upscale_request(request, parts.settings, take_own=take_own)
    work = begin(order, visit, share, request_id())
    if wants_events():
        return send_events(work, with_bands=with_bands)
    result = make(work)
    if isinstance(result, Response):
        return result
    response = send_picture(result.data, result.media_type, result.filename, as_download=True)
    response.headers["X-Superres-Variant"] = order.choices.variant.name
    response.headers["X-Superres-Size"] = f"{result.width}x{result.height}"
    response.headers["X-Superres-Seconds"] = f"{result.seconds:.3f}"
    response.headers["X-Superres-Cache"] = result.cache
    if result.checks is not None:
        response.headers["X-Superres-Checks"] = result.checks.describe()
    if result.notes:
        response.headers["X-Superres-Notes"] = _header_text(result)
    return response


@blueprint.get("/variants")
def variants() -> dict[str, Any]:
    """Tell what can be asked for, within which limits, to whose credit."""
    return describe_service(services_of(current_app).settings)


def describe_service(settings: Settings) -> dict[str, Any]:
    """Return everything that a client, or the page, needs to know before it sends an image."""
    offered = settings.offered()
    return {
        "variants": [_describe(variant) for variant in offered.values()],
        "not_offered": [_describe(variant) for name, variant in VARIANTS.items() if name not in offered],
        "default_variant": settings.default_variant,
        "formats": {name: limits_of_format(name, settings) for name in FORMATS},
        "default_format": FORMATS[0],
        "default_quality": DEFAULT_QUALITY,
        "limits": {
            "max_upload_bytes": settings.max_upload_bytes,
            "max_pixels": settings.max_pixels,
            "max_side": settings.max_side,
            "max_output_pixels": settings.max_output_pixels,
            "deadline_s": settings.deadline_s,
        },
    }


def _describe(variant: Variant) -> dict[str, Any]:
    return {
        "name": variant.name,
        "task": variant.task,
        "scale": variant.scale,
        "summary": variant.summary,
        "notice": variant.notice,
        "credit": variant.credit,
        "licence": variant.licence,
    }


def _header_text(result: Result) -> str:
    """Return the notes as one header value: RFC 9110 section 5.5 knows printable ASCII only."""
    return " ".join(result.notes).encode("ascii", "replace").decode()
