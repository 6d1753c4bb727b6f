"""Translates the gateway's English sentences by their patterns: "The queue is full ({images} waiting)."."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Sentences end before a space and a capital letter; "(UTC). Images ..." does, "4.2 megapixels" does not.
_BOUNDARY = re.compile(r"(?<=[.!?]) (?=[A-Z])")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_NUMBER = re.compile(r"[\d.,]*\d%?")


class Translations:
    """The translations of one language: of problems by slug, and of sentences and values by pattern."""

    def __init__(self, data: Mapping[str, Any], localize: Callable[[str], str]) -> None:
        """`localize` writes an English number in the language."""
        self._problems: Mapping[str, Sequence[str]] = data["problems"]
        self._sentences = [_compile(pattern, new) for pattern, new in data["sentences"].items()]
        self._values = [_compile(pattern, new) for pattern, new in data["values"].items()]
        self._localize = localize

    def problem(self, slug: str, detail: str) -> tuple[str, str] | None:
        """Return title and detail of a problem; None for an unknown one."""
        if slug not in self._problems:
            return None
        title, general = self._problems[slug]
        return title, self.translate(detail) or general

    def translate(self, text: str) -> str | None:
        """Return the sentences of a text; None if one of them has no translation."""
        found = [self._match(sentence, self._sentences) for sentence in _BOUNDARY.split(text)]
        return " ".join(sentence for sentence in found if sentence) if all(found) else None

    def _match(self, text: str, patterns: Sequence[tuple[re.Pattern[str], str]]) -> str | None:
        for pattern, new in patterns:
            if match := pattern.fullmatch(text):
                values = match.groupdict()
                return _PLACEHOLDER.sub(lambda name, values=values: self._value(values[name[1]]), new)  # type: ignore[misc]
        return None

    def _value(self, value: str) -> str:
        if _NUMBER.fullmatch(value):
            return self._localize(value)
        parts = (self._match(part, self._values) or part for part in value.split(", "))
        return ", ".join(parts)


def _compile(pattern: str, new: str) -> tuple[re.Pattern[str], str]:
    """Return the regular expression of a pattern, whose placeholders match any text, and its translation."""
    pieces = _PLACEHOLDER.split(pattern)  # literal, name, literal, ...
    escaped = (f"(?P<{piece}>.+?)" if index % 2 else re.escape(piece) for index, piece in enumerate(pieces))
    return re.compile("".join(escaped)), new
