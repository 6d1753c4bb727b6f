"""The form: a page that takes an image and a page that shows the result, with or without JavaScript."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from flask import Blueprint, Response, render_template, request, url_for

from gateway.config.settings import Settings
from gateway.jobs.choice import describe_choice
from gateway.jobs.options import FORMATS, output_limits, parse_strength
from gateway.jobs.request_body import read_upscale_request
from gateway.jobs.result_store import BeforeAfter, StoredImage
from gateway.problems import BadParameter, Problem, ResultGone, StaleForm
from gateway.services import services
from gateway.views.access import authorize_form, authorize_result
from gateway.views.hooks import request_id, wants_json
from gateway.views.image_response import send_image
from gateway.views.jobs import (
    find_budget_problem,
    reserve_upload_memory,
    run_job,
    stream_events,
    submit_job,
    wants_events,
)
from preprocessing.codec import DEFAULT_QUALITY
from swinir.auto import AUTO, Candidates

blueprint = Blueprint("form", __name__)

TOKEN_FIELD = "token"  # noqa: S105 - the name of the field

_FORMAT_DESCRIPTIONS = {
    "png": "PNG: lossless; large files.",
    "jpeg": "JPEG: small files, no transparency.",
    "webp": "WebP: the smallest files, at most 16,383 pixels per side.",
}


@blueprint.get("/")
def index() -> str:
    """Show the form with all limits for uploads; ?variant=... preselects a variant, as result pages suggest."""
    return _render_form({"variant": request.args.get("variant", "")}, find_budget_problem())


def _render_form(fields: Mapping[str, str], problem: Problem | None) -> str:
    """Return the form's page, with earlier choices selected and a problem shown, if there is one."""
    settings = services().settings
    offered = settings.offered()
    candidates = Candidates(offered).variants() if offered else []
    # Without a second variant there is nothing to choose.
    auto = Candidates(offered) if len(candidates) > 1 else None
    default_variant = settings.preselected_variant()
    if default_variant == AUTO and not auto and candidates:
        default_variant = candidates[0].name
    first = [default_variant, *(variant.name for variant in candidates)]
    return render_template(
        "form.html",
        token=services().access_control.csrf_tokens.create(),
        problem=problem,
        auto=auto,
        chosen_variant=_choose(fields.get("variant"), (AUTO, *offered) if auto else offered, default_variant),
        chosen_format=_choose(fields.get("format"), FORMATS, FORMATS[0]),
        chosen_quality=_choose(fields.get("quality"), [str(n) for n in range(1, 101)], str(DEFAULT_QUALITY)),
        chosen_strength=_choose_strength(fields.get("strength", "1")),
        settings=settings,
        retention=_describe_retention(settings),
        variants=sorted(offered.values(), key=lambda row: (row.name != default_variant, row.name not in first)),
        formats={name: _FORMAT_DESCRIPTIONS[name] for name in FORMATS},
        output_limits={name: output_limits(name, settings) for name in FORMATS},
        api_url=url_for("api.upscale", _external=True),
    )


def _describe_retention(settings: Settings) -> str:
    """Return how long a result may stay in memory, in the result store or the result cache: "24 hours"."""
    seconds = max(settings.results_max_age_s, settings.cache_max_age_s if settings.cache_max_bytes else 0)
    return f"{seconds / 3600:.0f} hours" if seconds >= 2 * 3600 else f"{max(1, round(seconds / 60))} minutes"


@blueprint.post("/")
def upscale() -> Response | str:
    """Upscale the image and show it next to the upload, or send it as a download if the result store cannot hold it."""
    admitted = authorize_form()
    reservation = reserve_upload_memory(admitted)
    form_fields: dict[str, str] = {}

    def take_extra_fields(fields: dict[str, str]) -> None:
        token = fields.pop(TOKEN_FIELD, "")
        form_fields.update(fields)
        services().access_control.check_csrf_token(token)

    try:
        upscale_request = read_upscale_request(request, services().settings, take_extra_fields=take_extra_fields)
    except StaleForm as problem:
        if wants_json():
            raise
        return Response(_render_form(form_fields, problem), problem.status, mimetype="text/html")
    job = submit_job(upscale_request, admitted, reservation, request_id())
    if wants_events():
        return stream_events(job, with_bands=True)
    result = run_job(job)
    if isinstance(result, Response):
        return result
    upload = upscale_request.upload
    extension = upload.format.lower()
    before = StoredImage(upload.data, f"image/{extension}", f"{upscale_request.stem}.{extension}")
    after = StoredImage(result.data, result.media_type, result.filename)
    result_id = services().result_store.put(BeforeAfter(before, after))
    if result_id is None:
        return send_image(result.data, result.media_type, result.filename, as_download=True)
    return render_template(
        "result.html",
        before_url=url_for("form.before", result_id=result_id),
        after_url=url_for("form.after", result_id=result_id),
        download_url=url_for("form.after", result_id=result_id, download=1),
        upscale_request=job.request,
        choice=describe_choice(job.request.options),
        result=result,
        max_age_minutes=_result_max_age_minutes(),
    )


@blueprint.get("/results/<result_id>/before")
def before(result_id: str) -> Response:
    """Return the upload of a result."""
    image = _find_result(result_id).before
    return send_image(image.data, image.media_type, image.filename, as_download=False)


@blueprint.get("/results/<result_id>/after")
def after(result_id: str) -> Response:
    """Return the image of a result; with ?download=1 as a download."""
    image = _find_result(result_id).after
    return send_image(image.data, image.media_type, image.filename, as_download="download" in request.args)


def _choose(value: str | None, allowed: Collection[str], default: str) -> str:
    return value if value is not None and value in allowed else default


def _choose_strength(value: str) -> str:
    """Return a strength as the form shows it; "1" for an invalid one."""
    try:
        return f"{parse_strength(value) / 100:g}"
    except BadParameter:
        return "1"


def _find_result(result_id: str) -> BeforeAfter:
    authorize_result()
    if (result := services().result_store.get(result_id)) is None:
        raise ResultGone(
            f"Results are kept for at most {_result_max_age_minutes()} minutes, less when many are made. "
            "Upload the image again."
        )
    return result


def _result_max_age_minutes() -> int:
    return round(services().settings.results_max_age_s / 60)
