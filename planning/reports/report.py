"""Writes the tables and plots of docs/how-to/plan-costs.md and docs/measurements/scale.md.

Run `python -m planning.reports.report`, or `make bill`. A table is the text between `<!-- table: NAME -->` and
`<!-- end -->`; the entry NAME of TABLES makes it. With `--check` nothing is written, and a stale table is an error.
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from planning.reports import bill_tables, drawings, scale_tables

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENTS = ("how-to/plan-costs.md", "measurements/scale.md")
_TABLE = re.compile(r"(<!-- table: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

TABLES: Mapping[str, Callable[[], str]] = {**bill_tables.TABLES, **scale_tables.TABLES}


class UnknownTableError(RuntimeError):
    """A document names an unknown table."""


def names_in(text: str) -> list[str]:
    """Return the names of a document's tables, in order."""
    return [match["name"] for match in _TABLE.finditer(text)]


def fill_tables(text: str, *, only: frozenset[str] | None = None) -> str:
    """Return a document with its tables filled, or only those in `only`; raises UnknownTableError."""

    def fill(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in TABLES:
            raise UnknownTableError(f'Unknown table "{name}". Tables: {", ".join(sorted(TABLES))}.')
        if only is not None and name not in only:
            return match[0]
        return f"{match[1]}{TABLES[name]()}\n{match[3]}"

    return _TABLE.sub(fill, text)


def report(*, is_check: bool) -> int:
    """Update the tables and plots of DOCUMENTS, or only check the tables; return the exit code."""
    stale = []
    for name in DOCUMENTS:
        path = DOCS / name
        before = path.read_text(encoding="utf-8")
        after = fill_tables(before)
        if after != before:
            stale.append(name)
            if not is_check:
                path.write_text(after, encoding="utf-8")
        sys.stdout.write(f"{path.name}: {'changed' if after != before else 'up to date'}\n")
    if is_check:
        return 1 if stale else 0
    (DOCS / "images").mkdir(exist_ok=True)
    for plot, draw in drawings.PLOTS.items():
        draw(DOCS / "images" / plot)
        sys.stdout.write(f"images/{plot}: written\n")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m planning.reports.report", description=report.__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail if a table is stale")
    sys.exit(report(is_check=parser.parse_args().check))
