"""The form: a page that takes an image and a page that shows what became of it, with or without JavaScript."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from flask import Blueprint, Response, current_app, render_template, request, url_for

from gateway.config.settings import Settings
from gateway.jobs.options import FORMATS, limits_of_format
from gateway.jobs.request_body import read_upscale_request
from gateway.jobs.result_store import BeforeAfter, StoredImage
from gateway.problems import Problem, ResultGone, StaleForm
from gateway.services import services_of
from gateway.views.access import admit_to_form, admit_to_result
from gateway.views.hooks import request_id, wants_json
from gateway.views.image_response import send_picture
from gateway.views.jobs import begin, find_spent, make, send_events, take_room, wants_events
from preprocessing.codec import DEFAULT_QUALITY

blueprint = Blueprint("form", __name__)

TOKEN_FIELD = "token"  # noqa: S105 - its name

_FORMAT_LINES = {
    "png": "PNG: every pixel as computed; large files.",
    "jpeg": "JPEG: small files, no transparency.",
    "webp": "WebP: the smallest files, up to 16,383 pixels a side.",
}


@blueprint.get("/")
def index() -> str:
    """Show the form, with every limit that the upload will meet."""
    return _show_form({}, find_spent())


def _show_form(chosen: Mapping[str, str], problem: Problem | None) -> str:
    """Return the form's page, with the choices that were made before and what was wrong, if anything."""
    parts = services_of(current_app)
    settings = parts.settings
    usual = settings.variant_of_form()
    return render_template(
        "form.html",
        token=parts.doors.csrf_tokens.create(),
        problem=problem,
        chosen_variant=_known(chosen.get("variant"), settings.offered(), usual),
        chosen_format=_known(chosen.get("format"), FORMATS, FORMATS[0]),
        chosen_quality=_known(chosen.get("quality"), [str(n) for n in range(1, 101)], str(DEFAULT_QUALITY)),
        settings=settings,
        kept_for=_kept_for(settings),
        variants=sorted(settings.offered().values(), key=lambda row: row.name != usual),
        formats={name: _FORMAT_LINES[name] for name in FORMATS},
        output_limits={name: limits_of_format(name, settings) for name in FORMATS},
        api_url=url_for("api.upscale", _external=True),
    )


def _kept_for(settings: Settings) -> str:
    """Return in words how long a picture may stay in memory: in the store of results, or in the cache."""
    seconds = max(settings.results_max_age_s, settings.cache_max_age_s if settings.cache_max_bytes else 0)
    return f"{seconds / 3600:.0f} hours" if seconds >= 2 * 3600 else f"{max(1, round(seconds / 60))} minutes"


@blueprint.post("/")
def upscale() -> Response | str:
    """Make the picture and show it beside the upload; hand it over as a download where it is too large to be kept."""
    parts = services_of(current_app)
    visit = admit_to_form()
    share = take_room(visit)
    chosen: dict[str, str] = {}

    def take_own(fields: dict[str, str]) -> None:
        token = fields.pop(TOKEN_FIELD, "")
        chosen.update(fields)
        parts.doors.check_csrf_token(token)

    try:
        order = read_upscale_request(request, parts.settings, take_own=take_own)
    except StaleForm as problem:
        if wants_json():
            raise
        return Response(_show_form(chosen, problem), problem.status, mimetype="text/html")
    work = begin(order, visit, share, request_id())
    if wants_events():
        return send_events(work, with_bands=True)
    result = make(work)
    if isinstance(result, Response):
        return result
    upload = order.upload
    extension = upload.format.lower()
    before = StoredImage(upload.data, f"image/{extension}", f"{order.stem}.{extension}")
    result_id = parts.results.keep(BeforeAfter(before, StoredImage(result.data, result.media_type, result.filename)))
    if result_id is None:
        return send_picture(result.data, result.media_type, result.filename, as_download=True)
    return render_template(
        "result.html",
        before_url=url_for("form.before", result_id=result_id),
        after_url=url_for("form.after", result_id=result_id),
        download_url=url_for("form.after", result_id=result_id, download=1),
        order=order,
        result=result,
        kept_minutes=round(parts.settings.results_max_age_s / 60),
    )


@blueprint.get("/results/<result_id>/before")
def before(result_id: str) -> Response:
    """Send the upload as it came."""
    picture = _find(result_id).before
    return send_picture(picture.data, picture.media_type, picture.filename, as_download=False)


@blueprint.get("/results/<result_id>/after")
def after(result_id: str) -> Response:
    """Send the picture made; with ?download=1 as a file to save."""
    picture = _find(result_id).after
    return send_picture(picture.data, picture.media_type, picture.filename, as_download="download" in request.args)


def _known(chosen: str | None, known: Collection[str], default: str) -> str:
    return chosen if chosen is not None and chosen in known else default


def _find(result_id: str) -> BeforeAfter:
    admit_to_result()
    parts = services_of(current_app)
    if (pair := parts.results.find(result_id)) is None:
        minutes = round(parts.settings.results_max_age_s / 60)
        raise ResultGone(f"A picture is kept for {minutes} minutes at most, less when many are made. Make it again.")
    return pair
