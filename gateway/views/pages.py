"""Small pages: what each problem type means, at the URL that is its `type`, and the OpenAPI document."""

from __future__ import annotations

import importlib.metadata
import inspect
from pathlib import Path

from flask import Blueprint, Response, current_app, render_template

from gateway.problems import NotFound, all_problems

blueprint = Blueprint("pages", __name__)


@blueprint.get("/problems/<slug>")
def problem(slug: str) -> str:
    """Explain a problem type: RFC 9457 section 3.1.1 asks for human-readable documentation at its URL."""
    for kind in all_problems():
        if kind.slug == slug:
            return render_template("about_problem.html", kind=kind, meaning=inspect.getdoc(kind))
    raise NotFound(f"Unknown problem type {slug[:40]!r}. The errors of this service link to the known ones.")


@blueprint.get("/api/openapi.yaml")
def openapi() -> Response:
    """Return the OpenAPI document."""
    text = (Path(current_app.root_path) / "openapi.yaml").read_text()
    # The version is that of the package; the file has a placeholder.
    text = text.replace('version: "0"', f'version: "{importlib.metadata.version("serverless-superres")}"', 1)
    return Response(text, mimetype="application/yaml")
