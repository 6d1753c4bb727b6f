"""Both catalogues are whole, and no sentence of a page is outside of them."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gateway.languages.catalogue import LANGUAGES, catalogue
from gateway.problems import all_problems
from preprocessing.content import ImageKind
from swinir.auto import NEAREST
from swinir.zoo import VARIANTS
from testing.data import ROOT

STATIC, TEMPLATES = ROOT / "gateway" / "static", ROOT / "gateway" / "templates"
SCRIPTS = [path for path in sorted(STATIC.glob("*.js")) if path.name != "client-zip.js"]
PAGES = [path for path in sorted(TEMPLATES.glob("*.html")) if path.name != "api_docs.html"]
"""The description of the API is in English."""
TEXTS = {code: json.loads((STATIC / f"text-{code}.json").read_text()) for code in LANGUAGES}
GERMAN = catalogue("de")

# The same in every language: names, numbers, a command line.
NAMES = re.compile(
    r"Serverless SuperRes|SwinIR|, Jingyun Liang et al\., 2021\.|curl -F [^<]*|1:1|summary_large_image|website|"
    r"width=device-width, initial-scale=1|light dark|Sec-Fetch-Dest|auto|API"
)


def forms(text: str | dict[str, str]) -> list[str]:
    return [text] if isinstance(text, str) else [text["one"], text["other"]]


def placeholders(text: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", text))


def without_comments(script: str) -> str:
    return re.sub(r"/\*.*?\*/|(?<![:\w])//[^\n]*", "", script, flags=re.DOTALL)


@pytest.mark.parametrize("code", LANGUAGES)
def test_catalogues_have_the_same_keys_and_placeholders(code: str) -> None:
    assert TEXTS[code].keys() == TEXTS["en"].keys()
    for key, text in TEXTS[code].items():
        assert isinstance(text, str) or text.keys() == {"one", "other"}, key
        for form, english in zip(forms(text), forms(TEXTS["en"][key]), strict=True):
            assert form.strip(), key
            assert placeholders(form) == placeholders(english), key


def test_keys_are_those_that_pages_use() -> None:
    sources = [path.read_text() for path in (*SCRIPTS, *PAGES, *(ROOT / "gateway").glob("**/*.py"))]
    named = {key for text in sources for key in re.findall(r'"([a-z]+(?:\.[a-z_]+)?)"', text)}
    called = {key for text in sources for key in re.findall(r'\bt\("([^"]+)"', text) if not key.endswith(".")}
    built = [
        *(pattern for text in sources for pattern in re.findall(r"\bt\(`([^`]+)`", text)),
        *(f"{prefix}${{}}" for text in sources for prefix in re.findall(r't\("([a-z]+\.)" ~', text)),
    ]
    matches = [re.compile(re.sub(r"\\\$\\\{[^}]*\\\}", r"[a-z_.]+", re.escape(pattern))) for pattern in built]
    unused = [key for key in TEXTS["en"] if key not in named and not any(one.fullmatch(key) for one in matches)]

    assert called <= TEXTS["en"].keys()
    assert not unused


class _Texts(HTMLParser):
    """Collects what a page shows or reads aloud, without Jinja's expressions."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_data(self, data: str) -> None:
        self.found.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del tag
        self.found += [value for name, value in attrs if value and name in ("alt", "aria-label", "title", "content")]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_template_has_no_sentence_of_its_own(path: Path) -> None:
    page = path.read_text()
    parser = _Texts()
    parser.feed(re.sub(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", " ", page, flags=re.DOTALL))
    jinja = " ".join(re.findall(r"\{\{.*?\}\}|\{%.*?%\}", page, flags=re.DOTALL))
    literals = [NAMES.sub("", text) for text in re.findall(r'"([^"]*)"', jinja)]

    outside = [text.strip() for text in parser.found if re.search(r"[A-Za-z]{2}", NAMES.sub("", text))]
    assert not outside
    assert not [text for text in literals if re.search(r"[A-Z][a-z]+( |$)|[a-z] [a-z]", text)]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_script_has_no_sentence_of_its_own(path: Path) -> None:
    script = without_comments(path.read_text())
    script = re.sub(r"new \w*Error\([^)]*\)|import [^;]+;|<[a-z][^`]*", "", script)
    literals = re.findall(r'"([^"\n]*)"', script) + re.findall(r"`([^`]*)`", script)
    literals = [re.sub(r"\$\{[^}]*\}", "", text) for text in literals]

    assert not [text for text in literals if re.search(r"[A-Za-z]{2,},? [a-z]{2,}[ .:]", text)]
    assert not re.findall(r'(?:textContent|ariaLabel|"aria-label",|announce\(|report\()[=: ]*["`][A-Z].*', script)


def sentences_of(path: str) -> Iterator[str]:
    """Yield the sentences in a module's code, with 7 for each value."""
    tree = ast.parse((ROOT / path).read_text())
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    for node in ast.walk(tree):
        text = ""
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "7" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings | inner:
            text = node.value
        if re.fullmatch(r"[A-Z0-9].* .*\.", text, re.DOTALL):
            yield text


@pytest.mark.parametrize("path", ["gateway/jobs/result_notes.py", "gateway/jobs/choice.py", "swinir/credits.py"])
def test_notes_of_the_gateway_are_translated(path: str) -> None:
    found = list(sentences_of(path))

    assert found
    for text in found:
        assert GERMAN.sentence(text.strip()) != text.strip(), text


NOTES = {
    "preprocessing/decoder.py": "was used|reduced|converted|Not in the result",
    "preprocessing/output_formats.py": "cannot hold|has no|to keep them",
    "preprocessing/formats/icc.py": "was dropped",
    "preprocessing/formats/jpeg.py": "All its pixels",
    "preprocessing/formats/png.py": "All its pixels",
    "gateway/jobs/options.py": "The result has 8 bits",
    "gateway/jobs/output_options.py": "cannot be written|has 8 bits per channel\\. Use PNG",
}
"""Modules that make notes for the user, and the words that tell them from errors."""


@pytest.mark.parametrize("path", NOTES)
def test_notes_on_an_image_are_translated(path: str) -> None:
    found = [text for text in sentences_of(path) if re.search(NOTES[path], text)]

    assert found
    for text in found:
        assert GERMAN.sentence(text) != text, text


def test_texts_of_variants_are_translated() -> None:
    for row in (*VARIANTS.values(), NEAREST):
        for text in (row.summary, row.notice, row.credit):
            assert not text or GERMAN.sentence(text) != text, text


def test_what_images_look_like_is_translated() -> None:
    tree = ast.parse((ROOT / "preprocessing/content.py").read_text())
    contents = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "Content"]
    assert len(contents) >= len(ImageKind)
    for content in contents:
        what = content.args[1]
        assert isinstance(what, ast.Constant)
        sentence = f"Looks like {what.value!s} (2 colours): compact_x4."
        assert GERMAN.sentence(sentence) != sentence
        assert str(what.value) not in GERMAN.sentence(sentence).split() or "art" not in str(what.value)


def test_every_problem_has_a_title_and_a_detail() -> None:
    for kind in all_problems():
        title, detail = GERMAN.problem(kind.slug, kind.title, "A detail without a translation.")
        assert title != kind.title or kind.slug == "blocked", kind.slug
        assert detail.endswith("."), kind.slug
        assert "translation" not in detail, kind.slug
