"""How a picture is made for a request: from the cache, at once, or with events while it is made.

Here stand the doors that are asked once an upload is known: room for it in memory, the cache, the month's budget, the
megapixels. A work stops when its client leaves.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import cast

from flask import Response, after_this_request, current_app, request

from gateway.access.admitted_request import AdmittedRequest
from gateway.cancellation import CancelledError
from gateway.jobs.event_stream import JobEvents
from gateway.jobs.options import UpscaleRequest
from gateway.jobs.request_body import FORM_OVERHEAD_BYTES
from gateway.jobs.result_cache import CachedJob
from gateway.jobs.runner import ANONYMOUS, Job, Result
from gateway.jobs.upload_memory import WAIT_S, Reservation, UploadMemoryFullError
from gateway.problems import BudgetSpent, Problem, UploadsFull, retry_later
from gateway.services import services_of
from gateway.views.access import current_visit

CLIENT_LEFT = 499
"""For the log alone, as nginx has it: nobody is there to read it."""
EVENT_STREAM = "text/event-stream"


def wants_events() -> bool:
    """Whether the request asks for events: it names their type, as no browser does by itself, and not to refuse it."""
    return any(media_type == EVENT_STREAM and quality > 0 for media_type, quality in request.accept_mimetypes)


def take_room(visit: AdmittedRequest) -> Reservation | None:
    """Take room in memory for the body that is announced, before any of it is read; raise UploadsFull.

    None for a body that is too long: it is not going to be read. The room is given back when the answer has been sent.
    """
    parts = services_of(current_app)
    most = parts.settings.max_upload_bytes + FORM_OVERHEAD_BYTES
    announced = most if request.content_length is None else request.content_length
    if announced > most:
        return None
    try:
        share = parts.intake.take(announced, visit.client.id)
    except UploadMemoryFullError:
        raise retry_later(
            UploadsFull,
            f"Other uploads fill the {parts.intake.max_bytes:,} bytes of memory there are for them. Try again soon.",
            WAIT_S,
        ) from None
    after_this_request(lambda response: _and_then(response, share.end))
    return share


def begin(order: UpscaleRequest, visit: AdmittedRequest, share: Reservation | None, request_id: str) -> Job | CachedJob:
    """Return the work on an order: done, if it is in the cache, which costs nothing; else charged and in the queue."""
    parts = services_of(current_app)
    if share is not None:
        share.shrink(len(order.upload.data))
    if kept := parts.cache.find(order):
        return CachedJob(order, request_id, kept)
    if problem := find_spent():
        raise problem
    visit.charge_pixels(order.pixels)
    api_key = visit.client.api_key
    return parts.upscaling.begin(order, request_id, api_key.name if api_key else ANONYMOUS, visit.client.id)


def find_spent() -> BudgetSpent | None:
    """Return the problem to answer with while this month's budget is used up."""
    meter = services_of(current_app).meter
    if not meter.is_budget_spent():
        return None
    wait_s = meter.seconds_to_next_month()
    begins = datetime.fromtimestamp(time.time() + wait_s + 1, UTC)
    problem = retry_later(
        BudgetSpent,
        f"This month's {meter.budget_s:,.0f} GPU seconds are used up. Pictures made before are still answered; "
        f"new ones are made again from {begins.day} {begins:%B %Y} (UTC).",
        math.ceil(wait_s),
    )
    return cast("BudgetSpent", problem)


def _and_then(response: Response, call: Callable[[], object]) -> Response:
    response.call_on_close(call)
    return response


def make(work: Job | CachedJob) -> Result | Response:
    """Return the result; for a client that has left, an answer for the log. Raises a Problem."""
    forget = services_of(current_app).departures.watch(request.environ.get("gunicorn.socket"), work.cancel_token)
    try:
        return work.run()
    except CancelledError:
        return Response(status=CLIENT_LEFT)
    finally:
        forget()


def send_events(work: Job | CachedJob, *, with_bands: bool) -> Response:
    """Answer with the events of a picture in the making (docs/explanation/streaming.md); the work has begun when
    this returns.
    """
    parts = services_of(current_app)
    forget = parts.departures.watch(request.environ.get("gunicorn.socket"), work.cancel_token)
    visit = current_visit()

    def settle(problem: Problem) -> None:
        parts.metrics.count_problem(problem.slug)
        if visit:
            visit.refund_for(problem)

    live = JobEvents(
        work,
        parts.upscaling.upscaler.state_tracker,
        with_bands=with_bands,
        settle=settle,
    )
    response = Response(live.events(), mimetype=EVENT_STREAM)
    response.headers["X-Accel-Buffering"] = "no"  # nginx and its kin pass each event on as it comes
    response.call_on_close(forget)
    response.call_on_close(work.cancel_token.cancel)
    live.start()
    return response
