"""The engine's documents match the code."""

from __future__ import annotations

from benchmarks.peers.networks import PEERS
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


def part_of_variants_page(name: str) -> list[str]:
    text = (DOCS / "reference/variants.md").read_text()
    begin, end = f"<!-- measured: {name} -->\n", f"<!-- end of {name} -->"
    return text[text.index(begin) + len(begin) : text.index(end)].splitlines()


def test_every_bundled_variant_was_measured() -> None:
    names = {line.split("`")[1] for line in part_of_variants_page("variants") if line.startswith("| `")}
    assert names == {name for name, row in VARIANTS.items() if row.is_bundled}, "python -m benchmarks.peers measure"


def test_bundled_4x_variants_are_compared_with_every_peer() -> None:
    lines = part_of_variants_page("peers")
    for name in (f"`{name}`" for name, row in VARIANTS.items() if row.is_bundled and row.scale == 4):
        assert any(line.startswith(f"| {name} |") for line in lines), f"python -m benchmarks.peers measure {name}"
    for peer in PEERS.values():
        assert any(line.startswith(f"| {peer.title} |") for line in lines), peer.title


def test_commands_and_checks_are_documented() -> None:
    weights, engine = (DOCS / "how-to/fetch-weights.md").read_text(), (DOCS / "explanation/engine.md").read_text()
    assert [command.name for command in COMMANDS if f"## superres weights {command.name}" not in weights] == []
    assert [field for field in FIELDS if f"`{field}`" not in engine] == []
