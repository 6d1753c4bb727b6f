"""Every row of the table of faults in docs/how-to/operate.md names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from testing.data import ROOT

PAGE = ROOT / "docs" / "how-to" / "operate.md"
GROUPS = (
    "Triton",
    "The network between gateway and Triton",
    "Redis",
    "Signals, clocks and disks",
    "Proxies and settings",
    "Logs and metrics",
)


def find_missing_tests(row: str, root: Path) -> list[str]:
    """Return what is wrong with the last column of a row: no test named, or tests that do not exist."""
    named = re.findall(r"`([^`]+)`", row.rstrip().split("|")[-2])
    missing = [] if named else ["no test"]
    for each in named:
        path, _, function = each.partition("::")
        if not (root / path).exists():
            missing.append(each)
        elif function:
            tree = ast.parse((root / path).read_text())
            if function not in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}:
                missing.append(each)
    return missing


def rows(section: str) -> list[str]:
    """Return the rows of the table in a section, without its head."""
    return [line for line in section.splitlines() if line.startswith("|")][2:]


def test_every_fault_names_a_test_that_exists() -> None:
    faults = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    section = next(part for part in faults if part.startswith("Faults\n"))
    groups = dict(re.findall(r"^### (.+)\n((?:(?!### ).*\n)*)", section, flags=re.MULTILINE))

    assert tuple(groups) == GROUPS
    assert all(rows(text) for text in groups.values()), "each group has a table of faults"
    wrong = {
        row: missing for text in groups.values() for row in rows(text) if (missing := find_missing_tests(row, ROOT))
    }
    assert not wrong


def test_missing_tests_are_found(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text("def test_one() -> None: ...\n")

    assert find_missing_tests("| a | b | `test_a.py`, `test_a.py::test_one` |", tmp_path) == []
    assert find_missing_tests("| a | b | `test_a.py::test_two`, `test_b.py` |", tmp_path) == [
        "test_a.py::test_two",
        "test_b.py",
    ]
    assert find_missing_tests("| a | `test_a.py` | |", tmp_path) == ["no test"]
