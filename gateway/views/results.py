"""Stored results: download, resume after an interruption, and delete. The URL of a result is the only key to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, Response, render_template, request, url_for

from gateway.config.settings import Settings
from gateway.jobs.event_stream import StoreResult, send_within_event
from gateway.jobs.job import Job, Result
from gateway.jobs.options import UpscaleRequest
from gateway.jobs.result_store import BeforeAfter, ResultStore, StoredImage
from gateway.problems import ResultGone
from gateway.services import services
from gateway.views.access import authorize_result
from gateway.views.image_response import send_image

blueprint = Blueprint("results", __name__)


@blueprint.get("/api/v1/results/<result_id>")
def result(result_id: str) -> Response:
    """Return the image of a result as a download."""
    return _send(result_id, lambda stored: stored.after, as_download=True)


@blueprint.delete("/api/v1/results/<result_id>")
def delete(result_id: str) -> Response:
    """Forget a result and its upload at once, and the copy of the result in the cache."""
    stored, shared = _find(result_id), services().shared_results
    services().result_cache.forget(stored.after.data)
    services().result_store.delete(result_id)
    if shared:
        shared.delete(result_id)
    return Response(status=204)


@blueprint.get("/results/<result_id>")
def page(result_id: str) -> str:
    """Show an upload and its result, with a download: the page that follows an upload without JavaScript."""
    stored = _find(result_id)
    if not stored.shown:
        raise _gone()
    return render_template(
        "result.html",
        before_url=url_for("results.before", result_id=result_id),
        after_url=url_for("results.after", result_id=result_id),
        download_url=url_for("results.after", result_id=result_id, download=1),
        max_age_minutes=result_max_age_minutes(),
        **stored.shown,
    )


@blueprint.get("/results/<result_id>/before")
def before(result_id: str) -> Response:
    """Return the upload of a result."""
    return _send(result_id, lambda stored: stored.before, as_download=False)


@blueprint.get("/results/<result_id>/after")
def after(result_id: str) -> Response:
    """Return the image of a result; with ?download=1 as a download."""
    return _send(result_id, lambda stored: stored.after, as_download="download" in request.args)


def result_max_age_minutes() -> int:
    """Return for how many minutes a result is stored at most."""
    return round(services().settings.results_max_age_s / 60)


def keep_result(
    store: ResultStore,
    job_request: UpscaleRequest,
    result: Result,
    *,
    with_upload: bool,
    shown: Mapping[str, object] | None = None,
) -> str | None:
    """Store a result, with its upload for a page that compares the two; return its id, or None if it is too large.

    `shown` are the variables of the page at `/results/ID`, which does not exist without them.
    """
    upload, extension = job_request.upload, job_request.upload.format.lower()
    before = StoredImage(upload.data, f"image/{extension}", f"{job_request.stem}.{extension}")
    after = StoredImage(result.data, result.media_type, result.filename)
    return store.put(BeforeAfter(before if with_upload else None, after, shown or {}))


def store_form_result() -> StoreResult:
    """Return the function that stores the result of the form's event stream, which goes on after the view has returned.

    Results of the form are never in Redis, which may write them to disk: the page says that nothing is written.
    """
    running, base_path = services(), request.script_root
    if running.settings.redis_url and running.settings.form_result_urls == "auto":
        return send_within_event

    def store_result(job: Job, result: Result) -> dict[str, Any] | None:
        result_id = keep_result(running.result_store, job.request, result, with_upload=True)
        return _describe(running.settings, base_path, result_id, with_upload=True) if result_id else None

    return store_result


def store_api_result() -> StoreResult:
    """Return the function that stores the result of the API's event stream.

    With several replicas the download may reach another one: then the result must be in Redis, or in the event.
    """
    running, base_path = services(), request.script_root
    shared = running.shared_results
    if running.settings.redis_url and shared is None:
        return send_within_event

    def store_result(job: Job, result: Result) -> dict[str, Any] | None:
        if shared:
            result_id = shared.put(StoredImage(result.data, result.media_type, result.filename))
        else:
            result_id = keep_result(running.result_store, job.request, result, with_upload=False)
        return _describe(running.settings, base_path, result_id, with_upload=False) if result_id else None

    return store_result


def _describe(settings: Settings, base_path: str, result_id: str, *, with_upload: bool) -> dict[str, Any]:
    return {
        "url": f"{base_path}/api/v1/results/{result_id}",
        "upload_url": f"{base_path}/results/{result_id}/before" if with_upload else None,
        "expires_s": settings.results_max_age_s,
    }


def _send(result_id: str, choose: Callable[[BeforeAfter], StoredImage | None], *, as_download: bool) -> Response:
    if (image := choose(_find(result_id))) is None:
        raise _gone()
    return send_image(image.data, image.media_type, image.filename, as_download=as_download, stored_as=result_id)


def _find(result_id: str) -> BeforeAfter:
    authorize_result()
    if stored := services().result_store.get(result_id):
        return stored
    shared = services().shared_results
    if shared and (image := shared.get(result_id)):
        return BeforeAfter(None, image)
    raise _gone()


def _gone() -> ResultGone:
    return ResultGone(
        f"Results are kept for at most {result_max_age_minutes()} minutes, less when many are made. "
        "Upload the image again."
    )
