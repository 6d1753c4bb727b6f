"""Small pages: what each problem type means, at the URL that is its `type`."""

from __future__ import annotations

import inspect

from flask import Blueprint, render_template

from gateway.problems import NotFound, all_problems
from gateway.views.language import page_texts

blueprint = Blueprint("pages", __name__)


@blueprint.get("/problems/<slug>")
def problem(slug: str) -> str:
    """Explain a problem type: RFC 9457 section 3.1.1 asks for human-readable documentation at its URL."""
    for kind in all_problems():
        if kind.slug == slug:
            title, meaning = page_texts().problem(kind.slug, kind.title, inspect.getdoc(kind) or "")
            return render_template("about_problem.html", kind=kind, title=title, meaning=meaning)
    raise NotFound(f"Unknown problem type {slug[:40]!r}. The errors of this service link to the known ones.")
