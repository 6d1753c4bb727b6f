"""The gateway's docs have one heading per setting, problem type and route of the code, and no other."""

from __future__ import annotations

import html
import re

from flask import Flask

from gateway.config.fields import Setting
from gateway.config.settings import SETTINGS
from gateway.problems import all_problems
from testing.data import ROOT


def sections(name: str, level: int = 2) -> dict[str, str]:
    """Return the text of a document's sections of one level by heading."""
    text = (ROOT / "docs" / name).read_text()
    if level == 3:
        text = re.sub(r"^## .+\n", "", text, flags=re.MULTILINE)
    parts = re.split(rf"^{'#' * level} (.+)$", text, flags=re.MULTILINE)[1:]
    return {html.unescape(heading): text.strip() for heading, text in zip(parts[::2], parts[1::2], strict=True)}


def describe(row: Setting) -> str:
    if row.is_secret:
        by_file = f"`{row.variable}_FILE` with the path of a file that holds it"
        how = f"`{row.variable}`, or {by_file}. Secret: its value is never shown."
    else:
        fallback = f", else `{row.fallback_variable}`" if row.fallback_variable else ""
        how = f"`{row.variable}`{fallback}. Default: {f'`{row.default}`' if row.default != '' else 'empty'}."
    return f"{row.help}\n\nVariable {how}"


def test_settings_page_matches_the_table() -> None:
    expected = {row.name: describe(row) for row in SETTINGS}

    written = sections("reference/settings.md", level=3)

    wrong = {name for name in expected.keys() | written.keys() if expected.get(name) != written.get(name)}
    texts = [f"### {name}\n\n{expected.get(name, 'No such setting: remove the section.')}\n" for name in sorted(wrong)]
    assert not wrong, "docs/reference/settings.md should have:\n" + "\n".join(texts)
    assert list(written) == list(expected), "docs/reference/settings.md follows the order of the table"


def test_every_problem_has_a_section_with_its_status() -> None:
    written = sections("reference/problems.md")

    assert list(written) == [kind.slug for kind in all_problems()], (
        "docs/reference/problems.md follows the order of gateway/problems.py"
    )
    for kind in all_problems():
        assert written[kind.slug].startswith(f"{kind.status}. "), kind.slug


def test_every_route_has_a_section(app: Flask) -> None:
    routes = {
        f"{method} {rule.rule}"
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) & {"GET", "POST", "DELETE"}
    }

    assert set(sections("reference/api.md")) == routes


def test_response_headers_are_documented() -> None:
    text = (ROOT / "docs/reference/api.md").read_text()

    for path in (ROOT / "gateway").rglob("*.py"):
        for header in re.findall(r'"(X-[A-Za-z-]+)"', path.read_text()):
            if header not in ("X-Content-Type-Options",):
                assert header in text, (
                    f"{path.name} sets or reads {header}, which docs/reference/api.md does not mention"
                )
