"""Static files of the pages, at a URL that changes whenever one of them changes.

All files share one hash, because the scripts import each other by relative URLs. Browsers may therefore cache them for
a year and never run old scripts on a new page.
"""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from functools import cache
from pathlib import Path
from typing import Any, cast

from flask import Blueprint, Response, request, send_from_directory

blueprint = Blueprint("files", __name__)
FOLDER = Path(__file__).resolve().parent.parent / "static"
YEAR_S = 365 * 86_400

_TEXT_SUFFIXES = {".css", ".js", ".json", ".svg"}


@cache
def static_version() -> str:
    """Return 12 hexadecimal digits of a SHA-256 over the names and contents of all static files."""
    digest = hashlib.sha256()
    for path in sorted(FOLDER.iterdir()):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


@cache
def _compressed_files() -> dict[str, bytes]:
    """Return each text file by name, compressed once with gzip: together about a third of their size."""
    texts = (path for path in FOLDER.iterdir() if path.suffix in _TEXT_SUFFIXES)
    return {path.name: gzip.compress(path.read_bytes(), 9, mtime=0) for path in texts}


@blueprint.get("/static/<version>/<path:filename>")
def static(version: str, filename: str) -> Response:
    """Send a file, cacheable for a year. Under the hash of another release, as in a roll-out, it is not cacheable."""
    if version != static_version():
        return _send(filename, None)  # Flask's default is no-cache
    response = _send(filename, YEAR_S)
    response.cache_control.immutable = True
    return response


@blueprint.app_url_defaults
def _add_version(endpoint: str, values: dict[str, Any]) -> None:
    if endpoint == f"{blueprint.name}.{static.__name__}":
        values.setdefault("version", static_version())


@blueprint.get("/favicon.ico")
def favicon() -> Response:
    """Send the icon, which browsers request by this name."""
    return _send("icon.svg", 3600)


@blueprint.get("/robots.txt")
def robots() -> Response:
    """Allow the page and its files to search engines, and nothing that belongs to a user."""
    return Response("User-agent: *\nAllow: /$\nAllow: /static/\nDisallow: /\n", mimetype="text/plain")


def _send(filename: str, max_age_s: int | None) -> Response:
    compressed = _compressed_files().get(filename)
    if compressed is not None and request.accept_encodings["gzip"] > 0:
        response = _compressed_response(filename, compressed, max_age_s)
    else:
        response = send_from_directory(FOLDER, filename, max_age=max_age_s)
        response.direct_passthrough = False  # otherwise the server gets the bare file, and call_on_close never runs
    if compressed is not None:
        response.vary.add("Accept-Encoding")
    return response


def _compressed_response(filename: str, data: bytes, max_age_s: int | None) -> Response:
    response = Response(data, mimetype=mimetypes.guess_type(filename)[0])
    response.content_encoding = "gzip"
    response.set_etag(f"{static_version()}-gzip")
    if max_age_s is None:
        response.cache_control.no_cache = True
    else:
        response.cache_control.public = True
        response.cache_control.max_age = max_age_s
    return cast("Response", response.make_conditional(request))
