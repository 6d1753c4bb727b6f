"""The project's Python files and what each imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from testing.data import ROOT

ROOMS = ("gateway", "preprocessing", "swinir", "training", "planning", "model_repository", "benchmarks")


def python_files(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def starts_with(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))
