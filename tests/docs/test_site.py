"""The documentation as a whole: it builds without a broken link, and every page is reachable from the index."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.cli_reference import PAGE, describe_commands
from testing.data import ROOT

DOCS = ROOT / "docs"


@pytest.mark.slow
def test_site_builds_without_a_broken_link(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "index.html").exists()


def test_every_page_is_two_clicks_from_the_readme() -> None:
    assert "(docs/README.md)" in (ROOT / "README.md").read_text()
    linked = set(re.findall(r"\]\(([\w/-]+\.md)\)", (DOCS / "README.md").read_text()))
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")} - {"README.md"}
    assert linked == pages


def test_command_reference_is_up_to_date() -> None:
    assert PAGE.read_text() == describe_commands(), "run python -m scripts.cli_reference"
