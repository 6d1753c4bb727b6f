"""Small pages: what each problem means, under the address that is its `type`; and the API for programs."""

from __future__ import annotations

import importlib.metadata
import inspect
from pathlib import Path

from flask import Blueprint, Response, current_app, render_template

from gateway.problems import NotFound, all_problems

blueprint = Blueprint("pages", __name__)


@blueprint.get("/problems/<slug>")
def problem(slug: str) -> str:
    """Explain a problem type: RFC 9457 section 3.1.1 wants its address to lead to words for people."""
    for kind in all_problems():
        if kind.slug == slug:
            return render_template("about_problem.html", kind=kind, meaning=inspect.getdoc(kind))
    raise NotFound(f"There is no problem called {slug[:40]!r}.")


@blueprint.get("/api/openapi.yaml")
def openapi() -> Response:
    """Send what the gateway answers, for programs."""
    text = (Path(current_app.root_path) / "openapi.yaml").read_text()
    # The version is that of the package; the file has a placeholder.
    text = text.replace('version: "0"', f'version: "{importlib.metadata.version("serverless-superres")}"', 1)
    return Response(text, mimetype="application/yaml")
