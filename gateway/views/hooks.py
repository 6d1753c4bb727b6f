"""What every answer carries, whatever the view: a request id, the security headers, a line in the log, and, when
something went wrong, a problem in the one shape: JSON for programs, a page in words for people.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flask import Flask, Response, current_app, g, render_template, request
from flask.globals import request_ctx
from werkzeug.exceptions import HTTPException

from gateway.error_mapping import problem_from_http_error
from gateway.logs import log_request
from gateway.problems import INTERNAL_DETAIL, InternalError, Problem
from gateway.services import services_of
from gateway.views.access import admit_to_read, current_visit, end_when_sent, refuse_blocked
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
# No inline script or style, nothing from anywhere else; blob: for pictures that a script makes of what was chosen.
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors {frame_ancestors}"
)
HEALTH_PATHS = ("/healthz", "/readyz")
"""Asked by the cluster, which no block should cut off."""
JSON_PATHS = ("/api/", *HEALTH_PATHS)
SEALED = "superres.sealed"
"""Where the WSGI environment holds the answer, once it is ready to be sent."""
HSTS = f"max-age={2 * 365 * 86_400}"


def wrap(app: Flask) -> None:
    """Put every answer of an application into its envelope."""
    app.before_request(_begin)
    app.after_request(_seal)
    app.register_error_handler(Exception, _answer_error)
    app.wsgi_app = _closing(app.wsgi_app)  # type: ignore[assignment,method-assign]  # Flask's documented place for middleware


def _closing(inner: WSGIApplication) -> WSGIApplication:
    """Close an answer that the server would not even begin to send: places and rooms end with it."""

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            return inner(environ, start_response)
        except BaseException:
            if sealed := environ.get(SEALED):
                sealed.close()
            raise

    return serve


def request_id() -> str:
    """Return the id of the request being served."""
    return str(g.request_id)


def _begin() -> None:
    g.request_id = secrets.token_hex(8)
    g.began = time.monotonic()
    if request.path not in HEALTH_PATHS:
        refuse_blocked(g.request_id)
        if request.method in ("GET", "HEAD"):
            admit_to_read()


def _seal(response: Response) -> Response:
    settings = services_of(current_app).settings
    response.headers["X-Request-Id"] = request_id()
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    policy = CONTENT_POLICY.format(frame_ancestors=settings.frame_ancestors)
    response.headers.setdefault("Content-Security-Policy", policy)
    if request.is_secure:
        response.headers.setdefault("Strict-Transport-Security", HSTS)
    if visit := current_visit():
        for name, value in visit.rate_limit_headers().items():
            response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "no-store")
    if response.location:
        _name_no_host(response)
    end_when_sent(response)
    _log_when_sent(response)
    request.environ[SEALED] = response
    return response


def _name_no_host(redirect: Response) -> None:
    """Have a redirect lead to a path: Werkzeug's names the host that the client named, whatever that is."""
    new = urlsplit(redirect.location or "")
    path = "/" + new.path.lstrip("/")
    redirect.location = f"{path}?{new.query}" if new.query else path
    redirect.set_data(b"")


def _log_when_sent(response: Response) -> None:
    request_id, began, method = g.request_id, g.began, request.method
    metrics = services_of(current_app).metrics
    route = request.url_rule.rule if request.url_rule else "-"
    address = request.remote_addr or ""

    def log() -> None:
        log_request(
            _requests,
            request_id=request_id,
            method=method,
            route=route,
            status=response.status_code,
            ms=1000 * (time.monotonic() - began),
            size=response.content_length or 0,
            address=address,
        )
        metrics.count_request(method, route, response.status_code, time.monotonic() - began)

    response.call_on_close(log)


def _answer_error(error: Exception) -> Response | HTTPException:
    if isinstance(error, HTTPException) and (error.code is None or error.code < 400):
        return error  # a redirect
    problem = _problem_of(error)
    services_of(current_app).metrics.count_problem(problem.slug)
    if visit := current_visit():
        visit.refund_for(problem)
    return _render(problem, as_json=wants_json())


def _problem_of(error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, HTTPException) and (error.code or 500) < 500:
        return problem_from_http_error(error)
    _log.error("%s: %s", request_id(), type(error).__name__, exc_info=error)
    return InternalError(INTERNAL_DETAIL)


def wants_json() -> bool:
    """Whether an error of the request being served is answered to a program."""
    if request.path.startswith(JSON_PATHS) or wants_events():
        return True
    if request_ctx.url_adapter is None:  # a Host that is none: no page can be drawn, for it could not be linked
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
