"""The Python files of a source tree, what each imports and which classes it defines."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

from testing.data import ROOT

Import = tuple[int, str]
"""Line and dotted name; `a.b` for `from a import b`."""

SHIPPED = ("gateway", "preprocessing", "swinir", "training", "planning", "superres", "model_repository")
"""Folders of what users run."""
PACKAGES = (*SHIPPED, "benchmarks", "docker", "scripts", "testing")


class SourceTree:
    """The project, or a small tree with the project's layout that a test has written."""

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root
        self._parsed: dict[Path, ast.Module] = {}
        self._imports: dict[tuple[Path, bool], list[Import]] = {}

    def files(self, *folders: str) -> list[Path]:
        """Return the Python files below each folder; a file may be named instead of a folder."""
        found: list[Path] = []
        for folder in folders:
            path = self.root / folder
            found += [path] if path.is_file() else sorted(path.rglob("*.py"))
        return found

    def parse(self, path: Path) -> ast.Module:
        """Return the syntax tree of a file."""
        if path not in self._parsed:
            self._parsed[path] = ast.parse(path.read_text(), filename=str(path))
        return self._parsed[path]

    def imports(self, path: Path, *, at_module_level: bool = False) -> list[Import]:
        """Return what a file imports; at module level: without functions and without blocks for type checkers."""
        key = (path, at_module_level)
        if key not in self._imports:
            tree = self.parse(path)
            self._imports[key] = list(imports(_module_level(tree.body) if at_module_level else ast.walk(tree)))
        return self._imports[key]

    def name(self, path: Path) -> str:
        """Return a file's path from the root, as messages show it."""
        return path.relative_to(self.root).as_posix()

    @cached_property
    def modules(self) -> Mapping[str, Path]:
        """Every module of the packages by its dotted name. Triton's models have none: Triton loads their files."""
        paths = self.files(*(package for package in PACKAGES if package != "model_repository"))
        return {self.name(path).removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in paths}

    @cached_property
    def import_graph(self) -> Mapping[str, set[str]]:
        """The tree's modules that each module imports at module level."""
        graph: dict[str, set[str]] = {}
        for module, path in self.modules.items():
            found = (self._find_module(name) for _, name in self.imports(path, at_module_level=True))
            graph[module] = {name for name in found if name and name != module}
        return graph

    def reachable(self, module: str) -> set[str]:
        """Return every module that importing one module imports, directly or through others."""
        seen: set[str] = set()
        waiting = [module]
        while waiting:
            new = self.import_graph.get(waiting.pop(), set()) - seen
            seen |= new
            waiting += new
        return seen

    def _find_module(self, name: str) -> str:
        while name and name not in self.modules:
            name = name.rpartition(".")[0]
        return name


def imports(nodes: Iterable[ast.AST]) -> Iterator[Import]:
    """Yield what the import statements among the nodes import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def _module_level(body: Iterable[ast.stmt]) -> Iterator[ast.AST]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _module_level(node.orelse)
            continue
        yield node
        yield from _module_level(child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt))
        for handler in getattr(node, "handlers", ()):
            yield from _module_level(handler.body)


def is_below(name: str, prefixes: Iterable[str]) -> bool:
    """Return whether a dotted name is one of the prefixes or lies below one."""
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def find_cycle(graph: Mapping[str, set[str]]) -> list[str]:
    """Return the nodes of one cycle in order, the first one again at the end; empty if there is none."""
    done: set[str] = set()
    for start in sorted(graph):
        path: list[str] = []
        branches = [iter([start])]
        while branches:
            node = next(branches[-1], None)
            if node is None:
                branches.pop()
                if path:
                    done.add(path.pop())
            elif node in path:
                return [*path[path.index(node) :], node]
            elif node not in done:
                path.append(node)
                branches.append(iter(sorted(graph.get(node, ()))))
    return []
