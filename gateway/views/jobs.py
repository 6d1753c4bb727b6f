"""Job views: runs an upscale for a request, from the cache, with one response, or as an event stream.

Checks that need the upload's size or content are made here: memory for the upload, the result cache, the monthly GPU
budget and the megapixel rate limit. A job is cancelled when its client disconnects.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import cast

from flask import Response, after_this_request, request

from gateway.access.admitted_request import AdmittedRequest
from gateway.cancellation import CancelledError
from gateway.jobs.event_stream import JobEvents, StoreResult, TranslateEvent
from gateway.jobs.job import Job, Result
from gateway.jobs.options import UpscaleRequest
from gateway.jobs.refusals import gateway_restarting
from gateway.jobs.request_body import FORM_OVERHEAD_BYTES
from gateway.jobs.result_cache import CachedJob
from gateway.jobs.runner import ANONYMOUS
from gateway.jobs.upload_memory import WAIT_S, Reservation, UploadMemoryFullError
from gateway.problems import BudgetSpent, Problem, UploadsFull, describe_wait, retry_later
from gateway.services import services
from gateway.views.access import admitted_request
from gateway.views.request_record import request_record

# nginx's status for a closed connection. Only the log sees it.
CLIENT_CLOSED_REQUEST = 499

EVENT_STREAM = "text/event-stream"


def wants_events() -> bool:
    """Return whether the request accepts an event stream by name. Browsers do not name it by themselves."""
    return any(media_type == EVENT_STREAM and quality > 0 for media_type, quality in request.accept_mimetypes)


def reserve_upload_memory(admitted: AdmittedRequest) -> Reservation | None:
    """Reserve memory for the announced body before any of it is read; raise UploadsFull.

    Returns None for a body over the limit, because such a body is not read. The memory is released once the response
    has been sent. A gateway that is being stopped rejects the upload.
    """
    reject_while_draining()
    memory = services().upload_memory
    max_bytes = services().settings.max_upload_bytes + FORM_OVERHEAD_BYTES
    announced = max_bytes if request.content_length is None else request.content_length
    if announced > max_bytes:
        return None
    try:
        reservation = memory.reserve(announced, admitted.client.id)
    except UploadMemoryFullError:
        raise retry_later(
            UploadsFull,
            f"The memory for uploads is full ({memory.max_bytes:,} bytes). Try again in {describe_wait(WAIT_S)}.",
            WAIT_S,
        ) from None
    after_this_request(lambda response: _call_on_close(response, reservation.release))
    return reservation


def keep_reservation(reservation: Reservation | None) -> Callable[[], object]:
    """Keep the memory of an upload beyond the response; return the function that releases it."""
    if reservation is None:
        return lambda: None
    moved = reservation.move()
    return moved.release


def reject_while_draining() -> None:
    """Raise BackendUnavailable if this gateway is being stopped: it finishes its images and takes no others."""
    if services().drain.is_draining:
        raise gateway_restarting("You were not charged for this request.")


def submit_job(
    upscale_request: UpscaleRequest, admitted: AdmittedRequest, reservation: Reservation | None, request_id: str
) -> Job:
    """Return the job of a request: a cached one, which is free, or one that was charged and put into the queue."""
    if reservation is not None:
        reservation.shrink(len(upscale_request.upload.data))
    upscale_request = services().result_cache.recall(upscale_request)
    cached = services().result_cache.get(upscale_request)
    record = request_record()
    record.note_upload(upscale_request, in_cache=cached is not None)
    if cached:
        return CachedJob(upscale_request, request_id, cached)
    if problem := find_budget_problem():
        raise problem
    admitted.charge_pixels(upscale_request.pixels)
    api_key = admitted.client.api_key
    job = services().runner.submit(
        upscale_request, request_id, api_key.name if api_key else ANONYMOUS, admitted.client.id, record.traceparent
    )
    record.note_job(job)
    return job


def find_budget_problem() -> BudgetSpent | None:
    """Return the problem to respond with while this month's GPU budget is used up; None while it is not."""
    meter = services().usage_meter
    if not meter.is_budget_spent():
        return None
    wait_s = meter.seconds_to_next_month()
    begins = datetime.fromtimestamp(time.time() + wait_s + 1, UTC)
    problem = retry_later(
        BudgetSpent,
        f"This month's {meter.budget_s:,.0f} GPU seconds are used up. Images that were upscaled before are still "
        f"served from the cache. Try new ones again from {begins.day} {begins:%B %Y} (UTC).",
        math.ceil(wait_s),
    )
    return cast("BudgetSpent", problem)


def _call_on_close(response: Response, callback: Callable[[], object]) -> Response:
    response.call_on_close(callback)
    return response


def run_job(job: Job) -> Result | Response:
    """Run a job and return its result, or a response for the log if the client has disconnected; raise a Problem."""
    unwatch = services().disconnects.watch(request.environ.get("gunicorn.socket"), job.cancel_token)
    try:
        return job.run()
    except CancelledError:
        return Response(status=CLIENT_CLOSED_REQUEST)
    finally:
        unwatch()


def stream_events(
    job: Job, *, with_bands: bool, store_result: StoreResult, translate: TranslateEvent = lambda _, data: data
) -> Response:
    """Start a job and respond with its events (docs/reference/events.md)."""
    unwatch = services().disconnects.watch(request.environ.get("gunicorn.socket"), job.cancel_token)
    admitted = admitted_request()
    metrics, record = services().metrics, request_record()

    def on_problem(problem: Problem) -> None:
        record.note_problem(problem)
        metrics.count_problem(problem.slug)
        if admitted:
            admitted.refund_for(problem)

    stream = JobEvents(
        job,
        services().backend.state_tracker,
        with_bands=with_bands,
        base_path=request.script_root,
        store_result=store_result,
        on_problem=on_problem,
        translate=translate,
    )
    response = Response(stream.events(), mimetype=EVENT_STREAM)
    response.headers["X-Accel-Buffering"] = "no"  # tells nginx to forward each event at once
    response.call_on_close(unwatch)
    response.call_on_close(job.cancel_token.cancel)
    stream.start()
    return response
