"""The API, version 1, for clients with an API key: upscale an image, and list what can be asked for."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request

from gateway.config.settings import Settings
from gateway.jobs.choice import describe_choice
from gateway.jobs.job import Result
from gateway.jobs.options import FORMATS, output_limits, pop_flag
from gateway.jobs.request_body import read_upscale_request
from gateway.services import services
from gateway.views.access import authorize_api
from gateway.views.hooks import request_id
from gateway.views.image_response import send_image
from gateway.views.jobs import reserve_upload_memory, run_job, stream_events, submit_job, wants_events
from preprocessing.codec import DEFAULT_QUALITY
from swinir.auto import Candidates
from swinir.zoo import VARIANTS, Variant

blueprint = Blueprint("api", __name__, url_prefix="/api/v1")


@blueprint.post("/upscale")
def upscale() -> Response:
    """Return the upscaled image, with facts about it in headers; or an event stream if the client accepts one."""
    admitted = authorize_api()
    reservation = reserve_upload_memory(admitted)
    with_bands = False

    def take_extra_fields(fields: dict[str, str]) -> None:
        nonlocal with_bands
        with_bands = pop_flag(fields, "bands")

    upscale_request = read_upscale_request(request, services().settings, take_extra_fields=take_extra_fields)
    job = submit_job(upscale_request, admitted, reservation, request_id())
    if wants_events():
        return stream_events(job, with_bands=with_bands)
    result = run_job(job)
    if isinstance(result, Response):
        return result
    response = send_image(result.data, result.media_type, result.filename, as_download=True)
    options = job.request.options
    response.headers["X-Superres-Variant"] = options.variant.name
    if choice := describe_choice(options):
        response.headers["X-Superres-Choice"] = choice.sentence
    if options.variant.keeps_size:
        response.headers["X-Superres-Strength"] = f"{options.strength:g}"
    response.headers["X-Superres-Size"] = f"{result.width}x{result.height}"
    response.headers["X-Superres-Seconds"] = f"{result.seconds:.3f}"
    response.headers["X-Superres-Cache"] = result.cache
    if result.checks is not None:
        response.headers["X-Superres-Checks"] = result.checks.to_header()
    if result.notes:
        response.headers["X-Superres-Notes"] = _notes_header(result)
    return response


@blueprint.get("/variants")
def variants() -> dict[str, Any]:
    """Return the variants with their credits, the output formats and the limits."""
    return describe_service(services().settings)


def describe_service(settings: Settings) -> dict[str, Any]:
    """Return everything that a client needs to know before it uploads an image."""
    offered = settings.offered()
    return {
        "variants": [_describe(variant) for variant in offered.values()],
        "not_offered": [_describe(variant) for name, variant in VARIANTS.items() if name not in offered],
        "default_variant": settings.default_variant,
        "auto": Candidates(offered).by_kind() if offered else {},
        "formats": {name: output_limits(name, settings) for name in FORMATS},
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


def _notes_header(result: Result) -> str:
    """Return the notes as one header value, which may only hold printable ASCII (RFC 9110 section 5.5)."""
    return " ".join(result.notes).encode("ascii", "replace").decode()
