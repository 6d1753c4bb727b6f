"""How a picture is made for a request: at once, or with events while it is made. Stops when its client leaves."""

from __future__ import annotations

from flask import Response, current_app, request

from gateway.live import Live
from gateway.parts import parts_of
from gateway.stop import Stopped
from gateway.upscaling import Result, Work
from gateway.views.admission import current_visit

CLIENT_LEFT = 499
"""For the log alone, as nginx has it: nobody is there to read it."""
EVENT_STREAM = "text/event-stream"


def wants_events() -> bool:
    """Whether the request asks for events: it names their type, as no browser does by itself."""
    return any(media_type == EVENT_STREAM for media_type in request.accept_mimetypes.values())


def make(work: Work) -> Result | Response:
    """Return the result; for a client that has left, an answer for the log. Raises a Problem."""
    forget = parts_of(current_app).departures.watch(request.environ.get("gunicorn.socket"), work.stop)
    try:
        return work.run()
    except Stopped:
        return Response(status=CLIENT_LEFT)
    finally:
        forget()


def send_events(work: Work, *, with_bands: bool) -> Response:
    """Answer with the events of a picture in the making (docs/streaming.md); the work has begun when this returns."""
    parts = parts_of(current_app)
    forget = parts.departures.watch(request.environ.get("gunicorn.socket"), work.stop)
    visit = current_visit()
    live = Live(
        work,
        parts.upscaling.upscaler.states,
        with_bands=with_bands,
        settle=visit.settle if visit else lambda _: None,
    )
    response = Response(live.events(), mimetype=EVENT_STREAM)
    response.headers["X-Accel-Buffering"] = "no"  # nginx and its kin pass each event on as it comes
    response.call_on_close(forget)
    response.call_on_close(work.stop.set)
    live.start()
    return response
