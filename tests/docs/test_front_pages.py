"""The front's pages follow from their template and catalogues, and no sentence is outside of these."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from gateway.languages.catalogue import LANGUAGES
from scripts.front_page.pages import FRONT, SOURCE, page_path, read_texts, render_page

# The same in every language: names, a command, and what tags need.
NAMES = re.compile(
    r"Serverless SuperRes|SwinIR(: Image Restoration Using Swin Transformer)?|superres plan|Front|Gateway|Backend|Swin|"
    r", Jingyun Liang, [^<]*?Radu Timofte, 2021\.|width=device-width, initial-scale=1|light dark|website|"
    r"summary_large_image|share\.jpg|default-src [^<]*"
)


class _Texts(HTMLParser):
    """Collects what a page shows or reads aloud, without Jinja's expressions."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_data(self, data: str) -> None:
        self.found.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del tag
        shown = ("alt", "aria-label", "title", "content")
        self.found += [
            value
            for name, value in attrs
            if value and (name in shown or name.startswith("data-")) and name != "data-state"
        ]


@pytest.mark.parametrize("language", LANGUAGES)
def test_page_is_the_one_that_the_template_makes(language: str) -> None:
    """`python -m scripts.front_page` writes them."""
    assert (FRONT / page_path(language)).read_text() == render_page(language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_catalogues_have_the_same_keys(language: str) -> None:
    texts, english = read_texts(language), read_texts("en")
    assert texts.keys() == english.keys()
    for key, text in texts.items():
        assert text.strip(), key
        assert text.count("<b>") == text.count("</b>") == english[key].count("<b>"), key
        assert not re.search(r'[<>"&]', re.sub("</?b>", "", text)), key


def test_template_uses_every_key_and_has_no_sentence_of_its_own() -> None:
    template = (SOURCE / "page.html").read_text()
    parser = _Texts()
    parser.feed(re.sub(r"<!--.*?-->|\{\{.*?\}\}|\{%.*?%\}", " ", template, flags=re.DOTALL))
    used = set(re.findall(r't\("([^"]+[^".])"\)', template))
    built = {f"swinir.{part}{ending}" for part in ("shallow", "deep", "reconstruction") for ending in ("", "_text")}
    built |= {key for key in read_texts("en") if key.startswith("tasks.")}
    built |= {f"layers.{layer}" for layer in ("front", "gateway", "backend")}

    assert used | built == read_texts("en").keys()
    assert [text.strip() for text in parser.found if re.search(r"[A-Za-z]{2}", NAMES.sub("", text))] == []


def test_script_has_no_sentence_of_its_own() -> None:
    script = re.sub(r"/\*.*?\*/|(?<![:\w])//[^\n]*", "", (FRONT / "front.js").read_text(), flags=re.DOTALL)
    literals = re.findall(r'"([^"\n]*)"', script) + re.findall(r"`([^`]*)`", script)
    assert [text for text in literals if re.search(r"[A-Za-z]{2,},? [a-z]{2,}", text)] == ["use strict"]


def test_german_page_has_no_english_sentence() -> None:
    german, english = read_texts("de"), read_texts("en")
    same = {key for key, text in english.items() if german[key] == text}
    assert same <= {"layers.backend_what"}, same
