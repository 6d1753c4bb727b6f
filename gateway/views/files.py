"""The page's own files: scripts, styles, pictures, under an address that changes whenever one of them does.

The whole folder moves (scripts import each other by relative names), so a browser may keep what it has for a year and
never runs last week's script on today's page.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, send_from_directory

blueprint = Blueprint("files", __name__)
FOLDER = Path(__file__).resolve().parent.parent / "static"
YEAR_S = 365 * 86_400


@cache
def release() -> str:
    """Return what names the files as they stand: 12 hexadecimal digits of a SHA-256 over names and contents."""
    digest = hashlib.sha256()
    for path in sorted(FOLDER.iterdir()):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


@blueprint.get("/static/<asked>/<path:filename>")
def static(asked: str, filename: str) -> Response:
    """Send a file; under the address of another release, which a roll-out asks for, it is not to be kept."""
    if asked != release():
        return _send(filename, None)  # no-cache is what it says by itself
    response = _send(filename, YEAR_S)
    response.cache_control.immutable = True
    return response


@blueprint.app_url_defaults
def _of_this_release(endpoint: str, values: dict[str, Any]) -> None:
    if endpoint == f"{blueprint.name}.{static.__name__}":
        values.setdefault("asked", release())


@blueprint.get("/favicon.ico")
def favicon() -> Response:
    """Send the icon, which browsers ask for by this name."""
    return _send("icon.svg", 3600)


def _send(filename: str, max_age_s: int | None) -> Response:
    response = send_from_directory(FOLDER, filename, max_age=max_age_s)
    response.direct_passthrough = False  # else the server is given the bare file, and nobody is told when it was sent
    return response
