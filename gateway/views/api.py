"""The API, version 1, for clients with an API key: upscale an image, and list what can be asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from flask import Blueprint, Response, jsonify, request

from gateway.access.admitted_request import AdmittedRequest
from gateway.config.settings import Settings
from gateway.jobs.choice import describe_choice
from gateway.jobs.event_stream import send_within_event
from gateway.jobs.job import Job, Result
from gateway.jobs.limits import max_upload_pixels, output_limits, upload_limits
from gateway.jobs.options import pop_flag
from gateway.jobs.output_options import FORMATS
from gateway.jobs.request_body import read_images, read_upscale_request
from gateway.jobs.upload_memory import Reservation
from gateway.services import services
from gateway.views.access import authorize_api
from gateway.views.archives import accept_archive, send_archive, wants_archive
from gateway.views.async_jobs import accept_job, wants_async
from gateway.views.hooks import request_id
from gateway.views.image_response import send_image
from gateway.views.jobs import reserve_upload_memory, run_job, stream_events, submit_job, wants_events
from gateway.views.quote import quote, quote_images
from gateway.views.results import store_api_result
from gateway.views.webhooks import check_webhook
from preprocessing.codec import DEFAULT_QUALITY
from swinir.auto import Candidates
from swinir.zoo import VARIANTS, Variant

blueprint = Blueprint("api", __name__, url_prefix="/api/v1")


@dataclass
class ExtraFields:
    """The parameters of an upscale that say how to respond, and the other ones as they were sent."""

    with_bands: bool = False
    is_inline: bool = False
    is_dry_run: bool = False
    webhook: str = ""
    parameters: dict[str, str] = field(default_factory=dict)

    def take(self, fields: dict[str, str]) -> None:
        """Remove these parameters from all; raise BadParameter for an invalid one."""
        self.with_bands, self.is_inline = pop_flag(fields, "bands"), pop_flag(fields, "inline")
        self.is_dry_run = pop_flag(fields, "dry_run")
        self.webhook = check_webhook(fields.pop("webhook", ""), is_async=wants_async())
        self.parameters.update(fields)


@blueprint.post("/upscale")
def upscale() -> Response:
    """Return the upscaled image, with facts about it in headers; or an event stream if the client accepts one.

    A client that accepts a ZIP may send several images.
    """
    admitted = authorize_api()
    reservation = reserve_upload_memory(admitted)
    extra = ExtraFields()
    if wants_archive():
        return _upscale_images(admitted, reservation, extra)
    upscale_request = read_upscale_request(request, services().settings, take_extra_fields=extra.take)
    if extra.is_dry_run:
        return jsonify(quote(upscale_request, admitted, services()))
    if wants_async():
        return accept_job(upscale_request, extra.parameters, admitted, reservation, extra.webhook)
    job = submit_job(upscale_request, admitted, reservation, request_id())
    if wants_events():
        store_result = send_within_event if extra.is_inline else store_api_result()
        return stream_events(job, with_bands=extra.with_bands, store_result=store_result)
    result = run_job(job)
    return result if isinstance(result, Response) else _send(job, result)


def _upscale_images(admitted: AdmittedRequest, reservation: Reservation | None, extra: ExtraFields) -> Response:
    sent = read_images(request, services().settings, take_extra_fields=extra.take)
    if extra.is_dry_run:
        return jsonify(quote_images(sent, admitted, services()))
    if wants_async():
        return accept_archive(sent, extra.parameters, admitted, reservation, extra.webhook)
    return send_archive(sent, admitted)


def _send(job: Job, result: Result) -> Response:
    """Return the image, with facts about it in headers."""
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
        "variants": [
            {**_describe(variant), "max_pixels": max_upload_pixels(variant.scale, settings)}
            for variant in offered.values()
        ],
        "not_offered": [_describe(variant) for name, variant in VARIANTS.items() if name not in offered],
        "default_variant": settings.default_variant,
        "auto": Candidates(offered).by_kind() if offered else {},
        "formats": {name: output_limits(name, settings) for name in FORMATS},
        "default_format": FORMATS[0],
        "default_quality": DEFAULT_QUALITY,
        "limits": {
            "max_upload_bytes": settings.max_upload_bytes,
            "max_pixels": upload_limits(settings).max_pixels,
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
