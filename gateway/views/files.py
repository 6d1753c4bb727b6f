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

from swinir.preview_weights import PREVIEW_VARIANTS, pack_preview_weights, preview_weights_file

blueprint = Blueprint("files", __name__)
FOLDER = Path(__file__).resolve().parent.parent / "static"
YEAR_S = 365 * 86_400

_COMPRESSED_SUFFIXES = {".css", ".js", ".json", ".svg", ".wasm"}

# Weights for the preview that the browser computes while the backend boots, made from the bundled files.
_WEIGHTS = {f"{name}.f16": name for name in PREVIEW_VARIANTS}

# The worker of that preview may compile WebAssembly; it can load and send nothing. No other response allows this.
_PREVIEW_WORKER = "preview-worker.js"
_PREVIEW_WORKER_POLICY = "default-src 'none'; script-src 'wasm-unsafe-eval'"


@cache
def static_version() -> str:
    """Return 12 hexadecimal digits of a SHA-256 of names and contents of all static files and preview weights."""
    digest = hashlib.sha256()
    for path in [*sorted(FOLDER.iterdir()), *map(preview_weights_file, PREVIEW_VARIANTS)]:
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


@cache
def _compressed_files() -> dict[str, bytes]:
    """Return each text and WebAssembly file by name, compressed once with gzip: together a third of their size."""
    files = (path for path in FOLDER.iterdir() if path.suffix in _COMPRESSED_SUFFIXES)
    return {path.name: gzip.compress(path.read_bytes(), 9, mtime=0) for path in files}


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
        response = _made_response(filename, compressed, "gzip", max_age_s)
        response.content_encoding = "gzip"
    elif filename in _WEIGHTS:
        response = _made_response(filename, pack_preview_weights(_WEIGHTS[filename]), filename, max_age_s)
    else:
        response = send_from_directory(FOLDER, filename, max_age=max_age_s)
        response.direct_passthrough = False  # otherwise the server gets the bare file, and call_on_close never runs
    if compressed is not None:
        response.vary.add("Accept-Encoding")
    if filename == _PREVIEW_WORKER:
        response.headers["Content-Security-Policy"] = _PREVIEW_WORKER_POLICY
    return response


def _made_response(filename: str, data: bytes, kind: str, max_age_s: int | None) -> Response:
    response = Response(data, mimetype=mimetypes.guess_type(filename)[0] or "application/octet-stream")
    response.set_etag(f"{static_version()}-{kind}")
    if max_age_s is None:
        response.cache_control.no_cache = True
    else:
        response.cache_control.public = True
        response.cache_control.max_age = max_age_s
    return cast("Response", response.make_conditional(request))
