"""The tables and plots of docs/how-to/plan-costs.md and docs/measurements/scale.md, made anew: `python -m
planning.reports.report [--check]`.

Owns which simulations the two documents tell of. A table stands between `<!-- table: NAME -->` and `<!-- end -->` and
is written by the function of that name in `bill_tables.py` or `scale_tables.py`; `--check` writes nothing and fails if
a table is not what it was.
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


class StaleDocumentError(RuntimeError):
    """A document's table is not what its simulation gives, or names a table that nobody makes."""


def names_in(text: str) -> list[str]:
    """The tables that a document holds, in order."""
    return [match["name"] for match in _TABLE.finditer(text)]


def fill_tables(text: str, *, only: frozenset[str] | None = None) -> str:
    """A document with its tables made anew, or those of `only`; raises StaleDocument for a name that nobody makes."""

    def fill(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in TABLES:
            raise StaleDocumentError(f'Nobody makes the table "{name}"; there are: {", ".join(sorted(TABLES))}.')
        if only is not None and name not in only:
            return match[0]
        return f"{match[1]}{TABLES[name]()}\n{match[3]}"

    return _TABLE.sub(fill, text)


def report(*, is_check: bool) -> int:
    """Update the tables and plots of `DOCUMENTS`, or only check the tables; return an exit code."""
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
    for picture, draw in drawings.PICTURES.items():
        draw(DOCS / "images" / picture)
        sys.stdout.write(f"images/{picture}: drawn\n")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m planning.reports.report", description=report.__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a table is stale")
    sys.exit(report(is_check=parser.parse_args().check))
