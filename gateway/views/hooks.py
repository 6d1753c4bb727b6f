"""Request hooks and the error handler: request id, security headers, request log and problem responses.

Every response of every view passes through here. An error becomes a problem: JSON for programs, a page for people.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flask import Flask, Response, g, render_template, request
from flask.globals import request_ctx
from werkzeug.exceptions import HTTPException

from gateway.error_mapping import problem_from_http_error
from gateway.jobs.refusals import gateway_restarting
from gateway.logs import log_request
from gateway.problems import INTERNAL_DETAIL, InternalError, Problem, SlowBody
from gateway.services import services
from gateway.tracing.spans import TRACEPARENT
from gateway.views.access import admitted_request, authorize_page, client_name, end_when_sent, reject_blocked
from gateway.views.cors import API_PREFIX, add_cors_headers, answer_preflight
from gateway.views.jobs import wants_events
from gateway.views.language import page_texts
from gateway.views.request_record import request_record

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_requests = logging.getLogger("gateway.request")
_log = logging.getLogger(__name__)

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
# No inline script or style, nothing from other origins. The scripts show uploads and results as blob: URLs.
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors {frame_ancestors}"
)

# Probed by the cluster, which the blocklist must not cut off.
HEALTH_PATHS = ("/healthz", "/readyz")

JSON_PATHS = (API_PREFIX, "/.well-known/", *HEALTH_PATHS)

# Key of the WSGI environment that holds the finished response.
RESPONSE_KEY = "superres.response"

# Responses whose Location is another page.
REDIRECTS = (301, 302, 303, 307, 308)

HSTS = f"max-age={2 * 365 * 86_400}"


def register_hooks(app: Flask) -> None:
    """Register the hooks and the error handler with an application."""
    app.before_request(_before_request)
    app.after_request(_after_request)
    app.register_error_handler(Exception, _handle_error)
    app.wsgi_app = _closing(app.wsgi_app)  # type: ignore[assignment,method-assign]  # Flask's documented place for middleware


def _closing(inner: WSGIApplication) -> WSGIApplication:
    """Close a response that the server does not begin to send: queue slots and upload memory are released with it."""

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            return inner(environ, start_response)
        except BaseException:
            if response := environ.get(RESPONSE_KEY):
                response.close()
            raise

    return serve


def request_id() -> str:
    """Return the id of the request being served."""
    return str(g.request_id)


def _before_request() -> Response | None:
    g.request_id = secrets.token_hex(8)
    record, tracing = request_record(), services().tracing
    if request.path not in HEALTH_PATHS:
        if tracing:
            record.start_trace(tracing, request.headers.get(TRACEPARENT, ""))
        reject_blocked(g.request_id)
        if request.method in ("GET", "HEAD"):
            authorize_page()
    return answer_preflight()


def _after_request(response: Response) -> Response:
    settings = services().settings
    response.headers["X-Request-Id"] = request_id()
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    policy = CONTENT_POLICY.format(frame_ancestors=settings.frame_ancestors)
    response.headers.setdefault("Content-Security-Policy", policy)
    if request.is_secure:
        response.headers.setdefault("Strict-Transport-Security", HSTS)
    if admitted := admitted_request():
        for name, value in admitted.rate_limit_headers().items():
            response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "no-store")
    add_cors_headers(response)
    if response.location and response.status_code in REDIRECTS:
        _make_location_relative(response)
    end_when_sent(response)
    _log_when_sent(response)
    if 0 < settings.max_content_length_bytes < (response.content_length or 0):
        del response.headers["Content-Length"]  # gunicorn then sends it in chunks
    request.environ[RESPONSE_KEY] = response
    return response


def _make_location_relative(redirect: Response) -> None:
    """Redirect to a path only: Werkzeug repeats the host that the client sent, which may be any."""
    new = urlsplit(redirect.location or "")
    path = "/" + new.path.lstrip("/")
    redirect.location = f"{path}?{new.query}" if new.query else path
    redirect.set_data(b"")


def _log_when_sent(response: Response) -> None:
    request_id, method, record = g.request_id, request.method, request_record()
    metrics = services().metrics
    record.client = client_name()
    route = request.url_rule.rule if request.url_rule else "-"
    address, size = request.remote_addr or "", response.content_length or 0

    def log() -> None:
        seconds = time.monotonic() - record.started_at
        log_request(
            _requests,
            request_id=request_id,
            method=method,
            route=route,
            status=response.status_code,
            size=size,
            address=address,
            ms=round(1000 * seconds, 1),
            **record.fields(),
        )
        metrics.count_request(method, route, response.status_code, seconds)
        record.end_trace(request_id, method, route, response.status_code)
        record.forget_upload()

    response.call_on_close(log)


def _handle_error(error: Exception) -> Response | HTTPException:
    if isinstance(error, HTTPException) and (error.code is None or error.code < 400):
        return error  # a redirect
    problem = _find_problem(error)
    services().metrics.count_problem(problem.slug)
    request_record().note_problem(problem)
    if admitted := admitted_request():
        admitted.refund_for(problem)
    return _render(problem, as_json=wants_json())


def _find_problem(error: Exception) -> Problem:
    if isinstance(error, SlowBody) and services().drain.is_draining:
        return gateway_restarting("You were not charged for this image.")
    if isinstance(error, Problem):
        return error
    if isinstance(error, HTTPException) and (error.code or 500) < 500:
        return problem_from_http_error(error)
    _log.error("%s: %s", request_id(), type(error).__name__, exc_info=error)
    return InternalError(INTERNAL_DETAIL)


def wants_json() -> bool:
    """Return whether an error of this request is returned as JSON."""
    if request.path.startswith(JSON_PATHS) or wants_events():
        return True
    if request_ctx.url_adapter is None:  # invalid Host header: a page could not link to anything
        return True
    best = request.accept_mimetypes.best_match(("text/html", "application/problem+json", "application/json"))
    return best in ("application/problem+json", "application/json")


def _render(problem: Problem, *, as_json: bool) -> Response:
    texts = page_texts()
    if as_json:
        members = problem.body(request_id(), request.script_root)
        # Problems of the API are in English; those of the form are shown to its user.
        is_shown = not request.path.startswith(JSON_PATHS)
        body, media_type = json.dumps(texts.problem_body(members) if is_shown else members), "application/problem+json"
    else:
        title, detail = texts.problem(problem.slug, problem.title, problem.detail)
        shown = {"problem": problem, "title": title, "detail": detail, "request_id": request_id()}
        body, media_type = render_template("problem.html", **shown), "text/html"
    response = Response(body, problem.status, mimetype=media_type)
    response.headers.extend(problem.headers)
    return response
