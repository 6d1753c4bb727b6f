"""The form: a page that takes an image and a page that shows the result, with or without JavaScript."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import cast

from flask import Blueprint, Response, redirect, render_template, request, url_for

from gateway.backend.state import BackendState
from gateway.config.settings import Settings
from gateway.jobs.choice import describe_choice
from gateway.jobs.limits import accepted_formats, max_upload_pixels, output_limits, upload_limits
from gateway.jobs.options import parse_strength
from gateway.jobs.output_options import FORMATS, SAME, nearest_format
from gateway.jobs.request_body import read_upscale_request
from gateway.problems import BadParameter, Problem, StaleForm
from gateway.services import services
from gateway.views.access import authorize_form
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
from gateway.views.language import LANGUAGE_PARAMETER, page_texts
from gateway.views.orientation import svg_transform
from gateway.views.results import keep_result, store_form_result
from preprocessing.codec import (
    DEFAULT_QUALITY,
    INPUT_FORMAT_NAMES,
    INPUT_MEDIA_TYPES,
    UNSHOWN_FORMATS,
    readable_formats,
)
from swinir.auto import AUTO, Candidates

blueprint = Blueprint("form", __name__)

TOKEN_FIELD = "token"  # noqa: S105 - the name of the field


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
    shown_first = [default_variant, *(variant.name for variant in candidates)]
    readable = readable_formats(accepted_formats(settings))
    chosen_variant = _choose(fields.get("variant"), (AUTO, *offered) if auto else offered, default_variant)
    first = auto.largest() if auto and chosen_variant == AUTO else offered.get(chosen_variant)
    first_scale = first.scale if first else 1
    backend = services().backend.state_tracker.current()
    return render_template(
        "form.html",
        token=services().access_control.csrf_tokens.create(),
        problem=problem and page_texts().problem(problem.slug, problem.title, problem.detail),
        auto=auto,
        auto_names=[variant.name for variant in candidates],
        chosen_variant=chosen_variant,
        chosen_format=_choose(fields.get("format"), (*FORMATS, SAME), FORMATS[0]),
        chosen_quality=_choose(fields.get("quality"), [str(n) for n in range(1, 101)], str(DEFAULT_QUALITY)),
        chosen_scale=_choose(fields.get("scale"), ("2", "3"), ""),
        chosen_width=width if (width := fields.get("width", ""))[:5].isdecimal() and len(width) <= 5 else "",
        is_lossless=fields.get("lossless") == "1",
        is_deep=fields.get("depth") == "16",
        keeps_colour=fields.get("transparent_colour") == "keep",
        keep_metadata=fields.get("metadata") == "keep",
        chosen_strength=_choose_strength(fields.get("strength", "")),
        settings=settings,
        limits=upload_limits(settings),
        first_scale=first_scale,
        first_limit=max_upload_pixels(first_scale, settings),
        backend=backend,
        backend_texts=_describe_backend(backend),
        usual_boot_s=(backend.usual_boot_s or (0.0,))[0],
        scales_by_pixels=_list_pixels(settings),
        input_formats=[INPUT_FORMAT_NAMES[name] for name in readable],
        accept=",".join(media_type for name in readable for media_type in INPUT_MEDIA_TYPES[name]),
        same_formats={INPUT_FORMAT_NAMES[name]: nearest_format(name) for name in readable},
        retention=_describe_retention(settings),
        variants=sorted(offered.values(), key=lambda row: (row.name != default_variant, row.name not in shown_first)),
        formats=FORMATS,
        output_limits={name: output_limits(name, settings) for name in FORMATS},
        api_url=url_for("api.upscale", _external=True),
    )


def _describe_backend(backend: BackendState) -> tuple[str, str]:
    """Return the badge and the key of the sentence that the script shows for this state too: they then do not move."""
    if backend.name == "asleep":
        return "asleep", "server.asleep_text" if backend.usual_boot_s else "server.asleep_unknown"
    if backend.name == "failed":
        return "failed" if backend.reason else "not_started", "go.pause"
    return backend.name, "server.up_text" if backend.name == "up" else "go.pause"


def _list_pixels(settings: Settings) -> dict[int, list[str]]:
    """Return the scales of variants ("2×", "1×") that take uploads of at most so many pixels, by these pixels."""
    scales_by_pixels: dict[int, list[str]] = {}
    for scale in sorted({row.scale for row in settings.offered().values()} or {1}, reverse=True):
        scales_by_pixels.setdefault(max_upload_pixels(scale, settings), []).append(f"{scale}×")
    return scales_by_pixels


def _describe_retention(settings: Settings) -> str:
    """Return how long a result may stay in memory, in the result store or the result cache: "24 hours"."""
    seconds = max(settings.results_max_age_s, settings.cache_max_age_s if settings.cache_max_bytes else 0)
    if seconds >= 2 * 3600:
        return page_texts().text("privacy.hours", count=round(seconds / 3600))
    return page_texts().text("privacy.minutes", count=max(1, round(seconds / 60)))


@blueprint.post("/")
def upscale() -> Response:
    """Upscale the image and redirect to the page that shows it; send it as a download if the store cannot hold it."""
    admitted = authorize_form()
    reservation = reserve_upload_memory(admitted)
    form_fields: dict[str, str] = {}

    def take_extra_fields(fields: dict[str, str]) -> None:
        token = fields.pop(TOKEN_FIELD, "")
        fields.pop(LANGUAGE_PARAMETER, None)
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
        return stream_events(job, with_bands=True, store_result=store_form_result(), translate=page_texts().event)
    result = run_job(job)
    if isinstance(result, Response):
        return result
    upload = upscale_request.upload
    shown = {
        "unshown_format": INPUT_FORMAT_NAMES[upload.format] if upload.format in UNSHOWN_FORMATS else "",
        "before_transform": svg_transform(upload),
        "upscale_request": job.request,
        "choice": describe_choice(job.request.options),
        "result": result,
    }
    result_id = keep_result(services().result_store, job.request, result, with_upload=True, shown=shown)
    if result_id is None:
        return send_image(result.data, result.media_type, result.filename, as_download=True)
    # 303: a reload shows the result again instead of sending the upload again.
    return cast("Response", redirect(url_for("results.page", result_id=result_id), 303))


def _choose(value: str | None, allowed: Collection[str], default: str) -> str:
    return value if value is not None and value in allowed else default


def _choose_strength(value: str) -> str:
    """Return a strength as the form shows it; empty for `auto` and an invalid one."""
    try:
        return f"{parse_strength(value) / 100:g}"
    except BadParameter:
        return ""
