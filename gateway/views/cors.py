"""CORS: lets scripts of other sites, listed in the setting api_origins, call the API from a browser.

Follows the Fetch standard, section 3.2. Without the setting no response has a CORS header. Credentials are never
allowed: a client is identified by its API key, and the gateway has no cookies.
"""

from __future__ import annotations

from flask import Response, request

from gateway.config.origins import ANY_ORIGIN, parse_origins
from gateway.services import services

API_PREFIX = "/api/"

ALLOWED_HEADERS = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, DELETE",
    "Access-Control-Allow-Headers": (
        "Accept, Authorization, Content-Type, Idempotency-Key, If-Range, Prefer, Range, X-API-Key"
    ),
    # Seconds. Chromium stores the permission for at most two hours.
    "Access-Control-Max-Age": "7200",
}

# Headers that a script may read, besides those that every script may (Content-Type, Content-Length and a few more).
EXPOSED_HEADERS = (
    "Accept-Ranges",
    "Allow",
    "Content-Disposition",
    "Content-Range",
    "Deprecation",
    "ETag",
    "Link",
    "Location",
    "Preference-Applied",
    "Retry-After",
    "Sunset",
    "X-Request-Id",
    "RateLimit",
    "RateLimit-Policy",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "X-Superres-Cache",
    "X-Superres-Checks",
    "X-Superres-Choice",
    "X-Superres-Images",
    "X-Superres-Notes",
    "X-Superres-Seconds",
    "X-Superres-Size",
    "X-Superres-Strength",
    "X-Superres-Variant",
)


def answer_preflight() -> Response | None:
    """Return the response to a preflight request of an allowed origin; None for every other request.

    Browsers send a preflight without an API key, so it must be answered before the key is checked.
    """
    is_preflight = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
    if not is_preflight or not request.path.startswith(API_PREFIX) or not _find_allowed_origin():
        return None
    return Response(status=204, headers=ALLOWED_HEADERS)


def add_cors_headers(response: Response) -> None:
    """Let the script of an allowed origin read a response of the API, errors included."""
    if not services().settings.api_origins or not request.path.startswith(API_PREFIX):
        return
    response.vary.add("Origin")  # caches must not give one site the response to another
    if allowed := _find_allowed_origin():
        response.headers["Access-Control-Allow-Origin"] = allowed
        response.headers["Access-Control-Expose-Headers"] = ", ".join(EXPOSED_HEADERS)


def _find_allowed_origin() -> str:
    """Return the value of Access-Control-Allow-Origin; an empty string if the request's origin is not allowed."""
    allowed, origin = parse_origins(services().settings.api_origins), request.headers.get("Origin", "")
    if not origin:
        return ""
    return ANY_ORIGIN if ANY_ORIGIN in allowed else origin if origin in allowed else ""
