"""The pages of the front, in English at its root and in German below de/, from a template and a catalogue each.

The operator edits and publishes the pages themselves, without a build step. So they are in the repository.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gateway.languages.catalogue import LANGUAGES, catalogue

SOURCE = Path(__file__).resolve().parent
FRONT = SOURCE.parent.parent / "front"
DEFAULT_LANGUAGE = "en"


def page_path(language: str) -> str:
    """Return the path of a page below front/."""
    return "index.html" if language == DEFAULT_LANGUAGE else f"{language}/index.html"


def read_texts(language: str) -> dict[str, str]:
    """Return the sentences of a language by their keys."""
    texts: dict[str, str] = json.loads((SOURCE / f"text-{language}.json").read_text())
    return texts


def render_page(language: str) -> str:
    """Return the HTML of the page in a language."""
    loader = FileSystemLoader(SOURCE)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    root = "" if language == DEFAULT_LANGUAGE else "../"
    return (
        environment.get_template("page.html").render(
            t=partial(_text, read_texts(language), language),
            language=language,
            languages=LANGUAGES,
            root=root,
            address=lambda code: (root if code == DEFAULT_LANGUAGE else f"{root}{code}/") or "./",
        )
        + "\n"
    )


def _text(texts: Mapping[str, str], language: str, key: str) -> Markup:
    return Markup(catalogue(language).join_units(texts[key]))  # noqa: S704 - the catalogues are ours, and have no element but <b>


def write_pages() -> None:
    """Write the page of every language."""
    for language in LANGUAGES:
        path = FRONT / page_path(language)
        path.parent.mkdir(exist_ok=True)
        path.write_text(render_page(language))
