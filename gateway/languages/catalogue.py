"""Catalogues: the sentences of the pages by key, and the sentences of the gateway in other languages than English.

`gateway/static/text-LANGUAGE.json` has the sentences of templates and scripts. The gateway writes problems and notes in
English, for programs too; `gateway/languages/LANGUAGE.json` has their translations for the pages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from gateway.languages.sentences import Translations

LANGUAGES: Mapping[str, str] = {"en": "English", "de": "Deutsch"}
"""Names of the languages by their codes (RFC 5646). The first one is the default."""

_FOLDER = Path(__file__).resolve().parent
_TEXTS = _FOLDER.parent / "static"

# English writes 1,234.5 and German 1.234,5.
_SWAPPED = str.maketrans(",.", ".,")


class Catalogue:
    """The sentences in one language."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._texts: dict[str, str | dict[str, str]] = json.loads((_TEXTS / f"text-{language}.json").read_text())
        self._before_unit = re.compile(rf"(?<=\d) (?=(?:{self._texts['unit.joined']})(?!\w))")
        path = _FOLDER / f"{language}.json"  # English has none
        self._translations = Translations(json.loads(path.read_text()), self.localize) if path.exists() else None

    def text(self, key: str, **values: object) -> str:
        """Return a sentence of the pages with these values; `count` selects singular or plural."""
        text = self._texts[key]
        if isinstance(text, dict):
            text = text["one" if values["count"] == 1 else "other"]  # the rule of English and German
        return self.join_units(re.sub(r"\{(\w+)\}", lambda name: self._format(values[name[1]]), text))

    def join_units(self, text: str) -> str:
        """Return a text in which no line ends between a number and its unit, for pages: "79 kB"."""
        return self._before_unit.sub("\N{NO-BREAK SPACE}", text)

    def localize(self, number: str) -> str:
        """Return a number that was formatted in English, as this language writes it."""
        return number if self.language == "en" else number.translate(_SWAPPED)

    def sentence(self, text: str) -> str:
        """Return sentences of the gateway in this language; unchanged without a translation."""
        return (self._translations and self._translations.translate(text)) or text

    def note(self, text: str) -> str:
        """Return a note on a result in this language. One without a translation is marked as English."""
        if self._translations is None:
            return text
        return self._translations.translate(text) or self.text("result.note_in_english", note=text)

    def problem(self, slug: str, title: str, detail: str) -> tuple[str, str]:
        """Return title and detail of a problem in this language; a general detail if this one has no translation."""
        if self._translations is None:
            return title, detail
        return self._translations.problem(slug, detail) or (title, detail)

    def problem_body(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the members of a problem's JSON with title and detail in this language."""
        slug = str(body["type"]).rpartition("/")[2]
        title, detail = self.problem(slug, body["title"], body["detail"])
        return {**body, "title": title, "detail": detail}

    def event(self, name: str, data: dict[str, Any]) -> dict[str, Any]:
        """Return the data of an event of a job, with its sentences in this language."""
        if self._translations is None:
            return data
        if name == "problem":
            return self.problem_body(data)
        changed = dict(data)
        if "sentence" in data:
            changed["sentence"] = self.sentence(data["sentence"])
        if "notes" in data:
            changed["notes"] = [self.note(note) for note in data["notes"]]
        if choice := data.get("choice"):
            changed["choice"] = self.event("choice", choice)
        return changed

    def _format(self, value: object) -> str:
        return self.localize(f"{value:,}") if isinstance(value, int | float) else str(value)


@cache
def catalogue(language: str) -> Catalogue:
    """Return the catalogue of a language."""
    return Catalogue(language)
