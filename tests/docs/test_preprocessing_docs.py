"""The code blocks of the codec and tiling pages run, and every error kind has its row."""

from __future__ import annotations

import re

import pytest

from preprocessing.errors import ImageError
from testing.data import ROOT
from testing.format_table import format_table, split_page

DOCS = ROOT / "docs"


@pytest.mark.parametrize("name", ["explanation/codec.md", "explanation/tiling.md"])
def test_blocks_of_the_document_run(name: str) -> None:
    blocks = re.findall(
        r"^```python\n(.*?)^```", DOCS.joinpath(name).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert blocks
    for block in blocks:
        exec(compile(block, name, "exec"), {})  # noqa: S102 - our own documents


def test_every_refusal_is_documented_and_no_other() -> None:
    table = re.findall(
        r"^\| `([a-z-]+)` \| ", DOCS.joinpath("explanation/codec.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    kinds = [subclass.kind for subclass in ImageError.__subclasses__()]
    assert sorted(kind for kind in table if "-" in kind) == sorted(kinds)


def test_table_of_formats_is_up_to_date_and_everything_that_is_lost_is_said() -> None:
    _, written, _ = split_page()
    measured = format_table()
    assert written == measured, "run python -m testing.format_table"
    cells = [cell.strip() for line in measured[2:] for cell in line.split("|")[2:-1]]
    assert [cell for cell in cells if cell not in ("-", "kept", "applied") and not cell.endswith("; said")] == []
