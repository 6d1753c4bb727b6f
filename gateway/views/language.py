"""The language of a page: `?lang`, which the switch on every page sets, or else what Accept-Language prefers."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from flask import Flask, Response, request
from jinja2.filters import do_filesizeformat

from gateway.languages.catalogue import LANGUAGES, Catalogue, catalogue
from gateway.views.variant_titles import variant_title
from swinir.zoo import Variant

LANGUAGE_PARAMETER = "lang"

# The API and its description are in English.
_ENGLISH_PAGES = ("api_description.docs",)

# Their URLs keep a language that was chosen: the pages have no cookies.
_PAGES = ("form.index", "results.page", "pages.problem")


def page_language() -> str:
    """Return the code of the language in which the response to this request is written."""
    if request.endpoint in _ENGLISH_PAGES:
        return "en"
    chosen = request.args.get(LANGUAGE_PARAMETER, "")
    accepted = [tag.partition("-")[0].lower() for tag, quality in request.accept_languages if quality > 0]
    return next((code for code in (chosen, *accepted) if code in LANGUAGES), next(iter(LANGUAGES)))


def page_texts() -> Catalogue:
    """Return the catalogue of this request's language."""
    return catalogue(page_language())


def register_language(app: Flask) -> None:
    """Give templates the sentences of their language, and responses the headers that name it."""
    app.context_processor(_context)
    app.after_request(_add_headers)
    app.url_defaults(_keep_choice)
    app.add_template_filter(lambda number: page_texts().localize(f"{number:,}"), "thousands")
    app.add_template_filter(_millions, "millions")
    app.add_template_filter(_seconds, "seconds")
    app.add_template_filter(_size, "size")
    app.add_template_filter(lambda text: page_texts().join_units(page_texts().sentence(text)), "sentence")
    app.add_template_filter(lambda text: page_texts().join_units(page_texts().note(text)), "note")
    app.add_template_filter(lambda text: page_texts().join_units(text), "units")
    app.add_template_filter(_variant_title, "variant_title")


def _context() -> dict[str, Any]:
    texts = page_texts()
    is_translated = request.endpoint not in _ENGLISH_PAGES
    others = {code: name for code, name in LANGUAGES.items() if is_translated and code != texts.language}
    return {"t": texts.text, "language": texts.language, "other_languages": others}


def _add_headers(response: Response) -> Response:
    if response.mimetype == "text/html" and response.status_code != HTTPStatus.NO_CONTENT:
        response.content_language.add(page_language())
        response.vary.add("Accept-Language")
    return response


def _keep_choice(endpoint: str, values: dict[str, Any]) -> None:
    if endpoint in _PAGES and request and request.args.get(LANGUAGE_PARAMETER) in LANGUAGES:
        values.setdefault(LANGUAGE_PARAMETER, request.args[LANGUAGE_PARAMETER])


def _millions(number: int) -> str:
    return page_texts().localize(f"{number / 1e6:.{2 if number < 1e7 else 3}g}")


def _size(n_bytes: int) -> str:
    texts = page_texts()
    return texts.join_units(texts.localize(do_filesizeformat(n_bytes)))


def _seconds(value: float) -> str:
    """Return a duration as the page's script writes it (gateway/static/format.js)."""
    texts = page_texts()
    if value < 0.1:
        return texts.text("unit.instant")
    if value < 9.95:
        digits = 1 if value < 0.95 or value % 1 > 0.05 else 0
        return texts.text("unit.s", value=texts.localize(f"{value:.{digits}f}"))
    return texts.text("unit.s", value=round(value)) if value < 100 else texts.text("unit.min", value=round(value / 60))


def _variant_title(variant: Variant) -> str:
    return variant_title(variant, page_texts())
