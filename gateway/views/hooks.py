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
from gateway.logs import log_request
from gateway.problems import INTERNAL_DETAIL, InternalError, Problem
from gateway.services import services
from gateway.views.access import admitted_request, authorize_page, end_when_sent, reject_blocked
from gateway.views.jobs import wants_events

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

JSON_PATHS = ("/api/", *HEALTH_PATHS)

# Key of the WSGI environment that holds the finished response.
RESPONSE_KEY = "superres.response"

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


def _before_request() -> None:
    g.request_id = secrets.token_hex(8)
    g.started_at = time.monotonic()
    if request.path not in HEALTH_PATHS:
        reject_blocked(g.request_id)
        if request.method in ("GET", "HEAD"):
            authorize_page()


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
    if response.location:
        _make_location_relative(response)
    end_when_sent(response)
    _log_when_sent(response)
    request.environ[RESPONSE_KEY] = response
    return response


def _make_location_relative(redirect: Response) -> None:
    """Redirect to a path only: Werkzeug repeats the host that the client sent, which may be any."""
    new = urlsplit(redirect.location or "")
    path = "/" + new.path.lstrip("/")
    redirect.location = f"{path}?{new.query}" if new.query else path
    redirect.set_data(b"")


def _log_when_sent(response: Response) -> None:
    request_id, started_at, method = g.request_id, g.started_at, request.method
    metrics = services().metrics
    route = request.url_rule.rule if request.url_rule else "-"
    address = request.remote_addr or ""

    def log() -> None:
        log_request(
            _requests,
            request_id=request_id,
            method=method,
            route=route,
            status=response.status_code,
            ms=1000 * (time.monotonic() - started_at),
            size=response.content_length or 0,
            address=address,
        )
        metrics.count_request(method, route, response.status_code, time.monotonic() - started_at)

    response.call_on_close(log)


def _handle_error(error: Exception) -> Response | HTTPException:
    if isinstance(error, HTTPException) and (error.code is None or error.code < 400):
        return error  # a redirect
    problem = _find_problem(error)
    services().metrics.count_problem(problem.slug)
    if admitted := admitted_request():
        admitted.refund_for(problem)
    return _render(problem, as_json=wants_json())


def _find_problem(error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, HTTPException) and (error.code or 500) < 500:
        return problem_from_http_error(error)
    _log.error("%s: %s", request_id(), type(error).__name__, exc_info=error)
    return InternalError(INTERNAL_DETAIL)


def wants_json() -> bool:
    """Whether an error of this request is returned as JSON."""
    if request.path.startswith(JSON_PATHS) or wants_events():
        return True
    if request_ctx.url_adapter is None:  # invalid Host header: a page could not link to anything
        return True
    best = request.accept_mimetypes.best_match(("text/html", "application/problem+json", "application/json"))
    return best in ("application/problem+json", "application/json")


def _render(problem: Problem, *, as_json: bool) -> Response:
    if as_json:
        body, media_type = json.dumps(problem.body(request_id())), "application/problem+json"
    else:
        body = render_template("problem.html", problem=problem, request_id=request_id())
        media_type = "text/html"
    response = Response(body, problem.status, mimetype=media_type)
    response.headers.extend(problem.headers)
    return response
