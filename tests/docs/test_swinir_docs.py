"""The engine's documents match the code."""

from __future__ import annotations

from swinir.checks import FIELDS
from swinir.cli import COMMANDS, markdown_table
from swinir.zoo import VARIANTS
from testing.data import ROOT

DOCS = ROOT / "docs"


def test_variant_table_matches_the_zoo() -> None:
    text = (DOCS / "reference/variants.md").read_text()
    begin, end = "<!-- the zoo: superres weights list --markdown -->\n", "<!-- end of the zoo -->"
    table = text[text.index(begin) + len(begin) : text.index(end)]
    assert table.splitlines() == markdown_table(), "update it with: superres weights list --markdown"


def test_every_bundled_variant_was_measured() -> None:
    text = (DOCS / "reference/variants.md").read_text()
    begin, end = "<!-- measured: python -m training.measure -->\n", "<!-- end of measured -->"
    measured = text[text.index(begin) + len(begin) : text.index(end)]
    names = {line.split("`")[1] for line in measured.splitlines() if line.startswith("| `")}
    assert names == {name for name, row in VARIANTS.items() if row.is_bundled}


def test_commands_and_checks_are_documented() -> None:
    weights, engine = (DOCS / "how-to/fetch-weights.md").read_text(), (DOCS / "explanation/engine.md").read_text()
    assert [command.name for command in COMMANDS if f"## superres weights {command.name}" not in weights] == []
    assert [field for field in FIELDS if f"`{field}`" not in engine] == []
